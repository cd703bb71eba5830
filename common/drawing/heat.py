"""Draws heat maps with a number in every cell, like the grids in papers' appendices."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from common.drawing.figures import Panel

CELL, COLOURS = (0.62, 0.24), "YlGnBu"
"""Width and height of a cell in inches, and matplotlib's colour map. Light colours stand for small numbers."""


def heat_size(panel: Panel) -> tuple[float, float]:
    """Return the width and height of a heat map in inches."""
    return CELL[0] * max(len(panel.columns), 1), CELL[1] * max(len(panel.rows), 1)


def heat(axes: Axes, panel: Panel) -> None:
    """Draw `panel.matrix` [row, column]. Cells without a finite number stay empty."""
    values = np.asarray(panel.matrix, dtype=float).reshape(len(panel.rows), len(panel.columns))
    shades = _shades(values)
    colours = matplotlib.colormaps[COLOURS]
    axes.pcolormesh(shades, cmap=colours, vmin=0, vmax=1.25, edgecolors="white", linewidth=1)
    for (row, column), value in np.ndenumerate(values):
        if not np.isfinite(value):
            continue
        least = value == np.nanmin(values[:, column]) and np.isfinite(values[:, column]).sum() > 1
        ink = "white" if shades[row, column] > 0.75 else "0.1"
        text = axes.text(column + 0.5, row + 0.5, f"{value:.2f}", color=ink, ha="center", va="center", fontsize=7.5)
        text.set_fontweight("bold" if least else "normal")
    axes.set_xticks(np.arange(len(panel.columns)) + 0.5, panel.columns)
    axes.set_yticks(np.arange(len(panel.rows)) + 0.5, panel.rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlim=(0, len(panel.columns)), ylim=(len(panel.rows), 0))


def _shades(values: np.ndarray) -> np.ndarray:
    """Scale each column so that its least number becomes 0 and its greatest 1. Cells without a number become nan."""
    known = np.where(np.isfinite(values), values, np.nan)
    some = np.isfinite(known).any(axis=0)
    low, high = np.zeros(values.shape[1]), np.ones(values.shape[1])
    low[some], high[some] = np.nanmin(known[:, some], axis=0), np.nanmax(known[:, some], axis=0)
    return (known - low) / np.where(high > low, high - low, 1)
