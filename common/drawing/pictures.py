"""Draws special panels: points in a plane, grids of images with names, and signed changes of a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from common.drawing.figures import Curve, Panel

CELL = 0.85
"""Side of an image in a picture, in inches."""
LINE = "0.35"


def scatter(axes: Axes, curves: Sequence[tuple[Curve, str, tuple[str, str]]]) -> None:
    """Draw the points of each (curve, label, (colour, marker)). A reference is small and faint, behind the others.

    The axes have no numbers: in an embedding only distances have a meaning, and only between near points.
    """
    for curve, label, (colour, marker) in curves:
        shape: dict[str, Any] = (
            {"s": 6, "alpha": 0.35, "zorder": 2} if curve.reference else {"s": 14, "alpha": 0.8, "zorder": 3}
        )
        axes.scatter(
            np.asarray(curve.x, dtype=float), curve.y, color=colour, marker=marker, linewidth=0, label=label, **shape
        )
    axes.set(xticks=[], yticks=[])


def picture_size(panel: Panel) -> tuple[float, float]:
    """Return the width and height of a picture in inches: one cell for each named column and row."""
    return CELL * max(len(panel.columns), 1), CELL * max(len(panel.rows), 1)


def picture(axes: Axes, panel: Panel) -> None:
    """Draw `panel.matrix`, RGB [h, w, 3] from 0 to 255: a grid of images of one size, with named rows and columns."""
    values = np.asarray(panel.matrix, dtype=float)
    height, width = values.shape[:2]
    axes.imshow(values.clip(0, 255) / 255, aspect="auto", interpolation="nearest", extent=(0, width, height, 0))
    for count, size, set_ticks, names in (
        (len(panel.columns), width, axes.set_xticks, panel.columns),
        (len(panel.rows), height, axes.set_yticks, panel.rows),
    ):
        set_ticks((np.arange(count) + 0.5) * size / max(count, 1), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def change(axes: Axes, panel: Panel) -> None:
    """Draw `panel.matrix` of signed numbers: blue below zero, red above, white at zero, with a colour scale of its own.

    Two lines mark `panel.boundary`.
    """
    values = np.asarray(panel.matrix, dtype=float)
    limit = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    edges = (np.arange(size + 1) - 0.5 for size in values.shape[::-1])
    mesh = axes.pcolormesh(*edges, values, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set(ylim=(len(values) - 0.5, -0.5))
    if panel.boundary is not None:
        axes.axhline(panel.boundary - 0.5, color=LINE, linewidth=0.8)
        axes.axvline(panel.boundary - 0.5, color=LINE, linewidth=0.8)
    axes.spines[:].set_visible(False)
    axes.locator_params(nbins=5, integer=True)
    colour_bar = axes.inset_axes((1.045, 0, 0.045, 1))
    axes.figure.colorbar(mesh, cax=colour_bar).outline.set_visible(False)
