"""The paper's tables and the grids of its appendix: Results to numbers in cells, the paper's own beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from class_balanced.experiments import cell
from class_balanced.presets import DEPTHS, Setting
from class_balanced.published import PUBLISHED, printed_name, published_error
from common.curves import Results
from common.figures import Comparison, Drawing, Estimate, Panel, comparable, estimate
from common.store import Result

ERROR, FACTOR = "test error (%)", "imbalance factor"
SETS = {
    "cifar10": "CIFAR-10-LT",
    "cifar20": "CIFAR-20-LT",
    "cifar100": "CIFAR-100-LT",
    "inat2017": "iNaturalist 2017",
    "inat2018": "iNaturalist 2018",
    "ilsvrc2012": "ILSVRC 2012",
}
"""The paper's data sets by a setting's role."""


def data_name(setting: Setting) -> str:
    """The data set as titles give it."""
    return SETS[setting.role] if comparable(setting) else f"embedded data, {setting.classes} classes"


def error(result: Result, readout: str = "cnn") -> float:
    """Test error at the last epoch, percent."""
    return 100 - result.readout(readout)["accuracy"]


def errors(found: Sequence[Result] | None, readout: str = "cnn") -> Estimate | None:
    """Mean error of the repeats; None without any."""
    return estimate([error(r, readout) for r in found]) if found else None


def numbers(title: str, x: str, rows: Sequence[str], columns: Sequence[str], values: Iterable[float | None]) -> Panel:
    """Values row by row in cells; None leaves a cell empty."""
    cells = np.array([np.nan if v is None else v for v in values], dtype=float)
    return Panel(title, x, "", kind="heat", matrix=cells.reshape(len(rows), len(columns)), rows=rows, columns=columns)


def side_by_side(
    setting: Setting, x: str, names: Sequence[str], columns: Sequence[str], rows: Sequence[Comparison]
) -> list[Panel]:
    """Our numbers and the paper's in like tables; `rows` hold one Comparison a cell, row by row."""
    ours = [row.ours.mean if row.ours else None for row in rows]
    panels = [numbers(f"{data_name(setting)}, ours", x, names, columns, ours)]
    if any(row.published is not None for row in rows):
        published = [row.published for row in rows]
        panels.append(numbers(f"{SETS[setting.role]}, the paper", x, names, columns, published))
    return panels


def heat(setting: Setting, results: Results) -> Drawing:
    """Fig. 8 to 10: error of every loss, gamma and beta at every factor."""
    names = list(setting.models())
    rows = [
        Comparison(f"{ERROR}, factor {f:g}", n, *published_error(setting, n, f), errors(results.get(cell(n, f))))
        for n in names
        for f in setting.factors
    ]
    panels = side_by_side(setting, FACTOR, names, [f"{f:g}" for f in setting.factors], rows)
    note = (
        f"{ERROR}; rows named as in the paper: SM softmax, SGM sigmoid, Focal_gamma; then beta; bold: least of a column"
    )
    return Drawing(panels, rows, note)


def table2(setting: Setting, results: Results) -> Drawing:
    """Table 2: losses without class weights, and the least error of all class-balanced models."""
    figure, factors, rows, names = f"table2-{setting.role}", setting.table2_factors, list[Comparison](), list[str]()
    for key, model in [*setting.base_models().items(), ("", None)]:
        names.append(printed_name(model) if model else "Class-Balanced (best)")
        for f in factors:
            ours = errors(results.get(cell(key, f))) if model else best(setting, results, f)
            value = PUBLISHED.value(figure, names[-1], f)
            rows.append(Comparison(f"{ERROR}, factor {f:g}", names[-1], *value, ours))
    note = (
        f"{ERROR}; Class-Balanced (best): the least of all class-balanced models, chosen on test data as in the paper, "
        "so optimistic beside the other rows"
    )
    return Drawing(side_by_side(setting, FACTOR, names, [f"{f:g}" for f in factors], rows), rows, note)


def best(setting: Setting, results: Results, factor: float) -> Estimate | None:
    """The least mean error of the class-balanced models, which at factor 1 are the base models; None if one lacks."""
    names = [n for n, model in setting.models().items() if bool(model.beta) == (factor > 1)]
    found = [e for n in names if (e := errors(results.get(cell(n, factor))))]
    return min(found, key=lambda e: e.mean) if len(found) == len(names) else None


def table3(setting: Setting, results: Results) -> Drawing:
    """Table 3: top-1 and top-5 validation error by loss, resolution and depth."""
    names, rows = [], []
    for method in ("Softmax (224 px)", "CB focal (224 px)", "CB focal (320 px)"):
        for depth in DEPTHS:
            names.append(f"{method}, ResNet-{depth}")
            for k, readout in ((1, "cnn"), (5, "top5")):
                value = PUBLISHED.value(f"table3-{setting.role}-top{k}", method, depth)
                ours = errors(results.get(f"{method} {depth}"), readout)
                rows.append(Comparison(f"top-{k} error (%)", names[-1], *value, ours))
    panels = side_by_side(setting, "validation error (%)", names, ["top-1", "top-5"], rows)
    return Drawing(panels, rows, "CB focal: beta 0.999, gamma 0.5")
