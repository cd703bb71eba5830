"""`reproduce report`: writes a static site from committed records alone."""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from common.command.evidence import claims, cost, machines, record_rows
from common.command.export import records_folder
from common.command.measured import PRESETS, claims_of, drawn, in_order, part, recorded_choices, records_of
from common.command.painter import Painter
from common.command.parts import cores
from common.command.plan import PAPERS, Choice, published
from common.drawing import plots, readme, site
from common.drawing.equal import EQUAL
from common.drawing.figures import Drawing, Panel
from common.drawing.report import citation, counted, shown
from common.drawing.tables import Table
from common.drawing.views import FigureView, PaperView, PartView
from common.errors import InputError
from common.store import read_record

ROOT = Path(__file__).resolve().parents[2]
"""The root of the repository, for files that stand beside the packages."""
PIXELS = 96
"""Pixels of the page for an inch of a figure, so that its letters are about as large as those of the text."""
KINDS = {"matrix": "a matrix", "heat": "a table of numbers", "change": "a matrix of changes", "picture": "images"}


@dataclass(frozen=True)
class SiteArguments:
    """Write a static site of all figures, claims and tables, from the committed records. Nothing is trained."""

    out: Path = Path("results")
    """The results folder. The site becomes OUT/site/index.html."""


def write(args: SiteArguments) -> tuple[Path, list[str]]:
    """Write the site to OUT/site, in place of an earlier one. Returns its front page, and what could not be drawn.

    Raises InputError if the folder holds something else than an earlier site, or if it cannot be written.
    """
    folder = args.out / "site"
    try:
        _clear(folder)
        with (
            tempfile.TemporaryDirectory() as empty,
            ProcessPoolExecutor(min(cores(), 8), multiprocessing.get_context("spawn")) as pool,
        ):
            work = [(paper, choice, folder, Path(empty)) for paper, choice in _work(Path(empty))]
            parts = list(pool.map(_part, work))
        papers = [_paper(paper, [part for owner, part in parts if owner == paper], folder) for paper in PAPERS]
        site.write(papers, folder, ROOT)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}; choose another --out") from None
    return folder / "index.html", [problem for _, part in parts for problem in part.problems]


def _clear(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / site.MARK).exists():
        raise InputError(f"{folder} is not a site that this command wrote; move it away, or choose another --out")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / site.MARK).write_text("reproduce report replaces this folder.\n", encoding="utf-8")


def _work(empty: Path) -> list[tuple[str, Choice]]:
    """Return every (paper, choice of preset, seeds and schedule) that has records. The slowest to draw come first."""
    stores = {paper: records_of(paper, empty) for paper in PAPERS}
    pairs = [(paper, preset) for preset in reversed(PRESETS) for paper in PAPERS]
    return [(paper, choice) for paper, preset in pairs for choice in recorded_choices(paper, preset, stores[paper])]


def _part(work: tuple[str, Choice, Path, Path]) -> tuple[str, PartView]:
    """Draw all figures of one paper for one choice. Returns (paper, view). Called in a worker process."""
    paper, choice, folder, empty = work
    painter = drawn(paper, choice, records_of(paper, empty), folder / "figures", formats=("png",))
    view, claimed = part(painter), [claim.figure for claim in claims_of(paper)]
    first = [EQUAL, *claimed]  # the other figures follow in the order of the paper
    figures, undrawn = list[FigureView](), list(view.undrawn)
    for figure in sorted(view.figures, key=lambda f: first.index(f.figure) if f.figure in first else len(first)):
        drawing = painter.rows[figure.figure].drawing
        assert drawing is not None
        if reason := _nothing(figure, drawing):
            undrawn.append((figure.figure, figure.title, reason))
            continue
        judged = not view.labels or not figure.records
        figures.append(_pictured(replace(figure, table=_told(figure.table, judged)), drawing, painter, view.name))
        if figure.figure in claimed:
            _thumbnail(drawing, painter, figure.figure)
    return paper, replace(view, figures=figures, undrawn=undrawn)


def _nothing(figure: FigureView, drawing: Drawing) -> str:
    """Return why a figure does not show what it is for, or "" if it does."""
    if not any(map(_filled, drawing.panels)):
        return figure.notes[-1] if figure.notes else "no data"
    equal = figure.figure != EQUAL or any(row.published is not None for row in drawing.comparisons)
    return "" if equal else "the authors' code was run at another schedule"


def _filled(panel: Panel) -> bool:
    return panel.matrix is not None or any(np.isfinite(np.asarray(c.y, dtype=float)).any() for c in panel.curves)


def _told(table: Table | None, judged: bool) -> Table | None:
    """Return the rows with a measured number; None without any. judged: whether the verdicts may differ."""
    if table is None:
        return None
    at = table.titles.index("ours")
    kept = [i for i, title in enumerate(table.titles) if judged or title != "verdict"]
    rows = [[row[i] for i in kept] for row in table.rows if row[at].text != shown(None)]
    return replace(table, titles=[table.titles[i] for i in kept], rows=rows) if rows else None


def _pictured(view: FigureView, drawing: Drawing, painter: Painter, part: str) -> FigureView:
    """Return the figure with the address, the size on the page, and the alternative text of its picture."""
    address = f"figures/{part}/{painter.plan.paper}/{view.figure}"
    size = _size(painter.folder / f"{view.figure}.png")
    return replace(view, image=address, size=size, alt=_alternative(view.title, drawing.panels))


def _size(picture: Path) -> tuple[int, int]:
    """Return the width and height of a picture on the page, in pixels."""
    with Image.open(picture) as image:
        width, height = image.size
    return round(width * PIXELS / plots.DPI), round(height * PIXELS / plots.DPI)


def _thumbnail(drawing: Drawing, painter: Painter, figure: str) -> None:
    """Draw the first panel of the figure that holds data by itself, into FIGURE-small.png."""
    panel = next(panel for panel in drawing.panels if _filled(panel))
    with plots.styled():
        small = plots.build(Drawing([panel]), "", "", painter.plan.looks)
        small.savefig(painter.folder / f"{figure}-small.png")


def _alternative(title: str, panels: Sequence[Panel]) -> str:
    """Return the alternative text of a figure's image: its panels, axes and curves in words."""
    words = []
    for panel in panels[:4]:
        names = ", ".join(dict.fromkeys(c.name for c in panel.curves))
        axes = " against ".join(filter(None, (panel.y_label, panel.x_label)))
        what = axes if panel.curves else KINDS.get(panel.kind, panel.kind)
        words.append(f"{panel.title + ': ' if panel.title else ''}{what}{f' for {names}' if names else ''}")
    more = f" and {counted(len(panels) - 4, 'more panel')}" if len(panels) > 4 else ""
    return f"{title}. {'; '.join(words)}{more}."


def _paper(paper: str, parts: Sequence[PartView], folder: Path) -> PaperView:
    """Return all content of a paper's page. Its parts follow the order of PRESETS, then the longest schedule first."""
    parts = in_order(parts)
    results = [read_record(path) for path in sorted(records_folder(paper).glob("*.json"))]
    used = {digest for part in parts for digest in part.used}
    bibliography = published(paper).paper
    listed = claims(claims_of(paper), parts)
    methods, deviations = readme.sections(records_folder(paper).parent / "README.md")
    _copy(paper, folder)
    figures = {figure.id: figure for part in parts for figure in part.figures}
    formulas = {figure.figure: figure for figure in reversed(figures.values()) if not figure.records}
    parts = [replace(part, figures=[figure for figure in part.figures if figure.records]) for part in parts]
    return PaperView(
        package=paper,
        paper=bibliography,
        citation=citation(bibliography),
        claims=listed,
        parts=parts,
        methods=methods,
        deviations=deviations,
        machines=machines(results),
        cost=cost(paper, results),
        records=record_rows(paper, results, used),
        bibtex=site.bibtex(ROOT / "docs" / "references.bib", paper),
        unused=len({r.hash for r in results} - used),
        thumbnail=_small(next((figures[c.figure] for c in listed if c.figure in figures), None), folder),
        formulas=list(formulas.values())[::-1],
    )


def _copy(paper: str, folder: Path) -> None:
    there = folder / "records" / paper
    there.mkdir(parents=True)
    for record in records_folder(paper).glob("*.json"):
        shutil.copyfile(record, there / record.name)


def _small(figure: FigureView | None, folder: Path) -> FigureView | None:
    """Return the figure with its thumbnail in place of its image."""
    if figure is None:
        return None
    address = f"{figure.image}-small"
    return replace(figure, image=address, size=_size(folder / f"{address}.png"), alt=f"{figure.title}, one panel")
