"""Draw the paper's tables and the grids of its appendix: measured numbers in cells, beside the paper's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from class_balanced.methods import ClassBalanced
from class_balanced.reproduce.presets import DEPTHS, LARGE, Setting
from common.command.own import OWN_IMAGES
from common.data.names import FOLDER
from common.drawing.figures import Comparison, Drawing, Estimate, Panel, PublishedFigure, Results, estimate
from common.store import Result

ERROR, FACTOR = "test error (%)", "imbalance factor"
SETS = {
    "cifar10": "CIFAR-10-LT",
    "cifar20": "CIFAR-20-LT",
    "cifar100": "CIFAR-100-LT",
    "inat2017": "iNaturalist 2017",
    "inat2018": "iNaturalist 2018",
    "ilsvrc2012": "ILSVRC 2012",
    FOLDER: OWN_IMAGES,
}
"""Names of the data sets by a setting's role."""
GRIDS = {"cifar10": "fig8", "cifar20": "fig9", "cifar100": "fig10"}
"""The figure that prints the errors of a data set's grid, by role."""


def data_name(s: Setting) -> str:
    """Return the name of the data set for titles."""
    return f"glyphs, {s.classes} classes" if s.preset == "quick" else SETS[s.role]


def printed_name(model: ClassBalanced) -> str:
    """Return a model's name as in Table 2 and in the authors' re-run, such as CB Focal (beta=0.9999, gamma=1.0)."""
    words = [f"beta={model.beta:g}"] if model.beta else []
    words += [f"gamma={model.gamma:.1f}"] if model.loss == "focal" else []
    name = f"CB {model.loss.capitalize()}" if model.beta else model.loss.capitalize()
    return f"{name} ({', '.join(words)})" if words else name


def error(result: Result, readout: str = "cnn") -> float:
    """Return the test error at the last epoch, in percent."""
    return 100 - result.readout(readout)["accuracy"]


def mean_error(found: Sequence[Result] | None, readout: str = "cnn") -> Estimate | None:
    """Return the mean error of the repeats, or None if there are no repeats."""
    return estimate([error(r, readout) for r in found]) if found else None


def cell_row(
    s: Setting, results: Results, published: PublishedFigure, name: str, factor: float | None, quantity: str = ERROR
) -> Comparison:
    """Return the error of a model of the grid at an imbalance factor, beside the error that the appendix prints."""
    printed = published.figure(GRIDS.get(s.role, "")).value(name, factor)
    return Comparison(quantity, name, *printed, mean_error(results.get((name, factor))))


def number_panel(
    title: str, x: str, rows: Sequence[str], columns: Sequence[str], values: Iterable[float | None]
) -> Panel:
    """Return a panel with a number in each cell, given row by row. None leaves a cell empty."""
    cells = np.array([np.nan if v is None else v for v in values], dtype=float)
    return Panel(title, x, "", kind="heat", matrix=cells.reshape(len(rows), len(columns)), rows=rows, columns=columns)


def side_by_side(
    s: Setting, x: str, names: Sequence[str], columns: Sequence[str], rows: Sequence[Comparison]
) -> list[Panel]:
    """Return two tables of one form: the measured numbers, and the paper's if there are any.

    rows: one Comparison for each cell, row by row.
    """
    ours = [row.ours.mean if row.ours else None for row in rows]
    panels = [number_panel(f"{data_name(s)}, ours", x, names, columns, ours)]
    if any(row.published is not None for row in rows):
        panels.append(number_panel(f"{SETS[s.role]}, the paper", x, names, columns, [row.published for row in rows]))
    return panels


def grid(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 8 to 10: the error of every loss, gamma and beta at every factor."""
    names = list(s.models())
    rows = [cell_row(s, results, published, n, f, f"{ERROR}, factor {f:g}") for n in names for f in s.factors]
    note = (
        f"{ERROR}; rows named as in the paper: SM softmax, SGM sigmoid, Focal_gamma; then beta; bold: least of a column"
    )
    return Drawing(side_by_side(s, FACTOR, names, [f"{f:g}" for f in s.factors], rows), rows, note)


def base_losses(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Table 2: losses without class weights, and the least error of all class-balanced models."""
    factors = s.table2_factors
    measured = {
        printed_name(model): [mean_error(results.get((key, f))) for f in factors]
        for key, model in s.base_models().items()
    }
    measured["Class-Balanced (best)"] = [best(s, results, f) for f in factors]
    rows = [
        Comparison(f"{ERROR}, factor {f:g}", name, *published.value(name, f), ours)
        for name, found in measured.items()
        for f, ours in zip(factors, found, strict=True)
    ]
    note = (
        f"{ERROR}; Class-Balanced (best): the least of all class-balanced models, chosen on test data as in the paper, "
        "so optimistic beside the other rows"
    )
    return Drawing(side_by_side(s, FACTOR, list(measured), [f"{f:g}" for f in factors], rows), rows, note)


def best(s: Setting, results: Results, factor: float) -> Estimate | None:
    """Return the least mean error of the class-balanced models, or None if one of them has no result yet.

    At factor 1 all class weights are 1, so the base models take their place.
    """
    names = [n for n, model in s.models().items() if bool(model.beta) == (factor > 1)]
    found = [e for n in names if (e := mean_error(results.get((n, factor))))]
    return min(found, key=lambda e: e.mean) if len(found) == len(names) else None


def large_images(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Table 3: top-1 and top-5 validation error by loss, resolution and depth."""
    names, rows = [], []
    for loss, size in LARGE:
        for depth in DEPTHS:
            method = f"{loss} ({size} px)"
            names.append(f"{method}, ResNet-{depth}")
            for k, readout in ((1, "cnn"), (5, "top5")):
                value = published.figure(f"table3-{s.role}-top{k}").value(method, depth)
                ours = mean_error(results.get((loss, size, depth)), readout)
                rows.append(Comparison(f"top-{k} error (%)", names[-1], *value, ours))
    panels = side_by_side(s, "validation error (%)", names, ["top-1", "top-5"], rows)
    return Drawing(panels, rows, "CB focal: beta 0.999, gamma 0.5")
