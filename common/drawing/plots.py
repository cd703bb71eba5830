"""Plots a Drawing as PNG and PDF in one style, and writes the numbers behind it as JSON.

Sizes are in inches. Axes have a fixed size, and the figure grows as labels and legends need, so that nothing overlaps.
"""

from __future__ import annotations

import io
import json
import math
import os
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context, rcParamsDefault
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from common.drawing.figures import Curve, Drawing, Panel
from common.drawing.heat import heat, heat_size
from common.drawing.looks import SHARED, Looks, looks
from common.drawing.pictures import change, picture, picture_size, scatter

DPI, MARGIN, GAP, COLOUR_MAP = 140, 0.15, 0.3, "viridis"
PER_ROW, WIDEST = 4, 16.0  # the most panels, and the most inches, in a row
FRAME, INK = "0.35", "0.15"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 8.5,  # comes with matplotlib: the same figure everywhere, offline
    "text.parse_math": False,  # names may hold a $
    "pdf.fonttype": 3,  # embedded outlines; TrueType (42) takes twice as long to write
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": FRAME, "axes.linewidth": 0.8,
    "axes.titlelocation": "left", "axes.titlesize": 9.5, "axes.labelsize": 9, "axes.labelcolor": INK,
    "xtick.color": FRAME, "ytick.color": FRAME, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.axisbelow": True, "grid.color": "0.9", "grid.linewidth": 0.7, "legend.handlelength": 2.6,
    "legend.frameon": False, "legend.fontsize": 8, "legend.borderpad": 0, "legend.borderaxespad": 0,
}  # fmt: skip


def render(
    drawing: Drawing,
    title: str,
    caption: str,
    path: Path,
    declared: Looks = SHARED,
    formats: Sequence[str] = ("png", "pdf"),
) -> None:
    """Write the file `path`.json and one file for each of `formats`. Each file is written whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    contents = {"json": json.dumps(plotted(drawing, title, caption), allow_nan=False).encode()}
    with styled():
        figure = build(drawing, title, caption, declared)
        for suffix in formats:
            metadata = {"CreationDate": None} if suffix == "pdf" else {}  # equal data give equal files
            figure.savefig(buffer := io.BytesIO(), format=suffix, metadata=metadata)
            contents[suffix] = buffer.getvalue()
    for suffix, content in contents.items():
        part = path.with_name(f"{path.name}.{suffix}.{os.getpid()}.part")
        part.write_bytes(content)
        os.replace(part, path.with_name(f"{path.name}.{suffix}"))


def styled() -> AbstractContextManager[None]:
    """Return a context in which STYLE and matplotlib's own defaults hold, not the settings of the user's file."""
    return rc_context({**rcParamsDefault, **STYLE})


def plotted(drawing: Drawing, title: str, caption: str) -> dict:
    """Return title, caption and everything in the Drawing as plain JSON values. A number that is not finite is null."""
    content = {"title": title, "caption": caption, **vars(drawing)}
    text = json.dumps(content, default=lambda v: v.tolist() if hasattr(v, "tolist") else vars(v))
    return json.loads(text, parse_constant=lambda name: None)


def build(drawing: Drawing, title: str, caption: str, declared: Looks = SHARED) -> Figure:
    """Build the matplotlib figure, ready to save."""
    with styled():
        # In a figure of one inch, positions are inches: axes get their size before the size of the figure is known.
        figure = Figure(figsize=(1, 1), dpi=DPI)
        FigureCanvasAgg(figure)
        panels = drawing.panels or [Panel("", "", "")]
        style, height = looks(drawing, declared), {1: 3.4, 2: 3.0}.get(len(panels), 2.6)
        cells = [_axes(figure, panel, style, height) for panel in panels]
        if images := [axes.images[0] for axes, panel in zip(cells, panels, strict=True) if panel.kind == "matrix"]:
            _colour_bar(images)
        boxes = {axes: _inches(axes) for axes in cells}
        rows = math.ceil(max(len(cells) / PER_ROW, sum(box.width for box in boxes.values()) / WIDEST))
        columns = math.ceil(len(cells) / rows)
        grid = [cells[i : i + columns] for i in range(0, len(cells), columns)]
        _legends(grid, boxes)
        _arrange(figure, grid, boxes, title, [text for text in (drawing.note, caption) if text])
    return figure


def _inches(artist: Artist) -> Bbox:
    return Bbox((artist.get_tightbbox() or Bbox.null()).get_points() / DPI)


def _axes(figure: Figure, panel: Panel, style: Looks, height: float) -> Axes:
    names = [c.name for c in panel.curves]
    paired = sorted(panel.curves, key=lambda c: (names.index(c.name), c.published))
    curves = [c for c in paired if np.isfinite(np.asarray(c.y, dtype=float)).any()]
    bars = sum(0.16 * len(c.x) for c in curves) + 0.1 * max((len(c.x) for c in curves), default=0)
    square, wide = dict.fromkeys(("matrix", "change", "scatter"), height), min(max(1.3 * height, bars), 9.0)
    width = {**square, "bars": wide}.get(panel.kind, 1.45 * height)
    if panel.kind in ("heat", "picture"):
        width, height = {"heat": heat_size, "picture": picture_size}[panel.kind](panel)
    axes = figure.add_axes((0, 0, width, height))
    axes.set(title=textwrap.fill(panel.title, max(24, int(width / 0.085))), xlabel=panel.x_label, ylabel=panel.y_label)
    if panel.kind in ("heat", "change", "picture"):
        {"heat": heat, "change": change, "picture": picture}[panel.kind](axes, panel)
    elif panel.kind == "scatter":
        scatter(axes, [(c, _label(c), style[c.name]) for c in curves])
    elif panel.matrix is not None:
        _matrix(axes, np.asarray(panel.matrix, dtype=float), panel.boundary)
    elif curves:
        axes.grid(axis="y")
        {"lines": _lines, "bars": _bars, "sorted-bars": _sorted_bars}[panel.kind](axes, panel, curves, style, width)
        axes.set_yscale("log" if panel.y_log else "linear")
        axes.set_ylim(*panel.y_range or axes.get_ylim())
        if panel.y_log:
            _log_ticks(axes)
        if panel.kind != "lines":
            axes.axhline(0, color=FRAME, linewidth=0.8)
    else:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no data", color="0.5", ha="center", va="center", transform=axes.transAxes)
    return axes


def _label(curve: Curve) -> str:
    if curve.reference and not curve.legend:
        return "_nolegend_"
    words = f"{curve.name} (published)" if curve.published else curve.name
    return textwrap.fill(", ".join(filter(None, (words, curve.legend.strip()))), 44)


def _lines(axes: Axes, panel: Panel, curves: Sequence[Curve], style: Looks, width: float) -> None:
    values = list(dict.fromkeys(v for c in curves for v in c.x))
    names = _words(values) if any(isinstance(v, str) for v in values) else []
    for curve in curves:
        colour, marker = style[curve.name]
        x = np.array([names.index(v) for v in _words(curve.x)] if names else curve.x, dtype=float)
        y = np.asarray(curve.y, dtype=float)
        shape: dict[str, Any] = {"linestyle": "-", "linewidth": 1.7, "markersize": 4.5, "zorder": 4}
        if curve.published:  # larger, and behind the measured marker: a ring if both coincide
            shape = {"linestyle": "--", "linewidth": 1.2, "markersize": 6.5, "zorder": 3, "markerfacecolor": "white"}
        if curve.reference:
            shape |= {"linestyle": (0, (4, 2)), "linewidth": 1.0, "zorder": 2}
            marker = ""
        every = max(1, len(x) // 15)
        axes.plot(x, y, color=colour, marker=marker, markevery=every, label=_label(curve), **shape)
        half = np.asarray([np.nan] * len(x) if curve.interval is None else curve.interval, dtype=float)
        finite = np.isfinite(y + half)
        if finite.sum() == 1:  # a band through one point would have no width
            axes.errorbar(x, y, half, fmt="none", ecolor=colour, capsize=3, elinewidth=1)
        elif finite.any():
            axes.fill_between(x, y - half, y + half, where=finite, color=colour, alpha=0.16, linewidth=0, zorder=2)
    if names:
        _name_ticks(axes, names, width)
    else:
        _number_ticks(axes, sorted(map(float, values)), panel.x_log, width)


def _bars(axes: Axes, panel: Panel, curves: Sequence[Curve], style: Looks, width: float) -> None:
    names, step = list(dict.fromkeys(_words(v for c in curves for v in c.x))), 0.8 / len(curves)
    for i, curve in enumerate(curves):
        x = np.array([names.index(v) for v in _words(curve.x)]) + (i - (len(curves) - 1) / 2) * step
        y = np.asarray(curve.y, dtype=float)
        axes.bar(x, y, step * 0.88, **_fill(curve, style))
        if curve.interval is not None:
            axes.errorbar(x, y, np.asarray(curve.interval, dtype=float), fmt="none", ecolor="0.25", capsize=2)
    axes.set_xlim(-0.6, len(names) - 0.4)
    _name_ticks(axes, names, width)


def _sorted_bars(axes: Axes, panel: Panel, curves: Sequence[Curve], style: Looks, width: float) -> None:
    for curve in [c for c in curves if c.published]:  # only the mean is known: a horizontal line
        axes.axhline(
            curve.y[0], color=style[curve.name][0], linestyle="--", linewidth=1.3, label=_label(curve), zorder=5
        )
    curves = [c for c in curves if not c.published]
    values = np.concatenate([np.asarray(c.y, dtype=float) for c in curves])
    owner = np.repeat(np.arange(len(curves)), [len(c.y) for c in curves])
    order = np.argsort(-values, kind="stable")[: np.isfinite(values).sum()]  # nan sorts last
    values, owner = values[order], owner[order]
    for i, curve in enumerate(curves):
        mine = np.flatnonzero(owner == i)
        axes.bar(mine + 1, values[mine], 0.82, **_fill(curve, style))
    axes.set_xlim(0, len(values) + 1)
    axes.locator_params(axis="x", nbins=6, integer=True)


def _fill(curve: Curve, style: Looks) -> dict[str, Any]:
    colour = style[curve.name][0]
    face, line = ("white", 1.1) if curve.published else (colour, 0)
    return {"color": face, "edgecolor": colour, "linewidth": line, "label": _label(curve)}


def _matrix(axes: Axes, counts: np.ndarray, boundary: int | None) -> None:
    axes.imshow(np.log1p(counts), cmap=COLOUR_MAP, aspect="auto", interpolation="nearest", vmin=0)
    axes.spines[:].set_visible(False)
    if boundary is not None:
        for line in (axes.axvline, axes.axhline):
            line(boundary - 0.5, color="white", linewidth=0.9)
    axes.locator_params(nbins=5, integer=True)


def _colour_bar(images: Sequence[AxesImage]) -> None:
    """Give all matrices of the figure one colour scale, so that they can be compared. Draw it beside the last one."""
    top = max(image.get_clim()[1] for image in images)
    for image in images:
        image.set_clim(0, top or 1)
    colour_bar = images[-1].axes.inset_axes((1.045, 0, 0.045, 1))
    images[-1].figure.colorbar(images[-1], cax=colour_bar, label="log(1 + count)").outline.set_visible(False)


def _words(values: Iterable[float | str]) -> list[str]:
    return [v if isinstance(v, str) else f"{v:g}" for v in values]


def _name_ticks(axes: Axes, names: Sequence[str], width: float) -> None:
    """Label the x axis with names, wrapped to the space between two ticks, or turned if a word is longer than that."""
    room = max(5, int(width / len(names) / 0.085))  # characters between two ticks
    fits = max(len(word) for name in names for word in name.split()) <= room
    labels = ["\n".join(textwrap.fill(line, room if fits else 24) for line in name.split("\n")) for name in names]
    turned: dict[str, Any] = {} if fits else {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(names)), labels, **turned)
    axes.tick_params(axis="x", length=0)


def _number_ticks(axes: Axes, values: Sequence[float], log: bool, width: float) -> None:
    """Put ticks at the x values if these are few, and leave out ticks whose labels would touch.

    Values with more than three digits were measured, not chosen. On a linear axis they get round ticks instead.
    """
    if log:  # symlog is logarithmic from linthresh on, and can show a zero
        axes.set_xscale("symlog", linthresh=min((v for v in values if v > 0), default=1.0))
    chosen = all(math.isclose(float(f"{v:.3g}"), v) for v in values)
    if len(values) <= 12 and (chosen or log):
        axes.autoscale_view()  # else the limits are not yet those of the data
        places = axes.get_xaxis_transform() - axes.transAxes
        inches = [places.transform((v, 0))[0] * width for v in values]
        half = [0.04 * (len(word) + 1) for word in _words(values)]
        kept: list[int] = []
        for i in reversed(range(len(values))):
            if not kept or inches[i] + half[i] < inches[kept[-1]] - half[kept[-1]]:
                kept.append(i)
        axes.set_xticks([values[i] for i in kept])
    elif not log:
        axes.locator_params(axis="x", nbins=7, integer=all(v == int(v) for v in values))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()


def _log_ticks(axes: Axes) -> None:
    """Label a logarithmic y axis at powers of ten; also at 2 and 5 times these if it spans a factor of 200 or less."""
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 200 * low else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _legends(grid: list[list[Axes]], boxes: dict[Axes, Bbox]) -> None:
    """Draw one legend on the right if all panels share it, else one below each panel. None lies on the data."""
    entries = {axes: axes.get_legend_handles_labels() for row in grid for axes in row}
    shared = all(labels == entries[grid[0][-1]][1] for _, labels in entries.values())
    for row in grid[:1] if shared else grid:
        depth = min(boxes[axes].y0 for axes in row) - 0.12
        for axes in row[-1:] if shared else row:
            size, (handles, labels) = axes.get_position(), entries[axes]
            anchor = ((boxes[axes].x1 + 0.15) / size.width, 1) if shared else (0, depth / size.height)
            wide = 0.058 * max(map(len, labels), default=0) + 0.5  # approximate width of an entry in inches
            columns = 2 if 2 * wide < size.width and not shared else 1
            if labels:
                legend = axes.legend(handles, labels, loc="upper left", bbox_to_anchor=anchor, ncols=columns)
                boxes[axes] = Bbox.union([boxes[axes], _inches(legend)])


def _arrange(figure: Figure, grid: list[list[Axes]], boxes: dict[Axes, Bbox], title: str, notes: list[str]) -> None:
    """Choose the size of the figure, and place all axes, the title above them and the notes below."""
    columns = [[boxes[row[j]] for row in grid if j < len(row)] for j in range(len(grid[0]))]
    lefts, rights = [-min(b.x0 for b in c) for c in columns], [max(b.x1 for b in c) for c in columns]
    tops, depths = [max(boxes[a].y1 for a in row) for row in grid], [-min(boxes[a].y0 for a in row) for row in grid]
    width = max(5.0, sum(lefts) + sum(rights) + GAP * (len(columns) - 1) + 2 * MARGIN)
    head = _text(figure, [title], width, fontsize=11.5, fontweight="bold", color="0.1")
    foot = _text(figure, notes, width, fontsize=7, color="0.45", linespacing=1.35)
    above, below = _inches(head).height + MARGIN, _inches(foot).height + MARGIN
    height = above + below + 2 * MARGIN + sum(tops) + sum(depths) + GAP * (len(grid) - 1)
    y = height - above - MARGIN
    for row, top, depth in zip(grid, tops, depths, strict=True):
        x, y = MARGIN, y - top
        for axes, left, right in zip(row, lefts, rights, strict=False):
            axes.set_position(Bbox(axes.get_position().translated(x + left, y).get_points() / (width, height)))
            x += left + right + GAP
        y -= depth + GAP
    figure.set_size_inches(width, height)
    head.set(position=(MARGIN / width, 1 - MARGIN / height), verticalalignment="top")
    foot.set(position=(MARGIN / width, MARGIN / height), verticalalignment="bottom")


def _text(figure: Figure, paragraphs: Sequence[str], width: float, **style: Any) -> Text:
    """Add paragraphs of text, wrapped to the width of the figure in inches."""
    text = figure.text(0, 0, " ".join(paragraphs) or " ", **style)
    limit = int(0.93 * (width - 2 * MARGIN) * len(text.get_text()) / max(_inches(text).width, 0.01))
    text.set_text("\n".join(line for p in paragraphs for line in textwrap.wrap(p, max(20, limit))) or " ")
    return text
