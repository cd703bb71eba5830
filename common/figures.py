"""A figure as data: what it needs, shows and compares. `plots` draws it, `report` sets it in text. No torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from common.runs import Run
from common.store import Result

Verdict = Literal["reproduced", "not reproduced", "indicative", "not measured", "no published number"]
UNVERIFIED = "memory-unverified"
"""Provenance of a number that is known from memory alone: shown, never judged against."""


@dataclass(frozen=True)
class Estimate:
    """Mean over repeats with its standard deviation and 95 % t-interval half-width (nan where n = 1)."""

    mean: float
    std: float
    interval: float
    n: int
    whole: bool = True
    """Whether each repeat was trained from the start; not so where they share a first phase, as the caller must say."""


def estimate(values: Sequence[float], whole: bool = True) -> Estimate:
    """Mean, standard deviation (n - 1) and 95 % t-interval of repeats. Raises ValueError on none."""
    if not len(values):
        raise ValueError("no values to average")
    data, n = np.asarray(values, dtype=float), len(values)
    if n == 1:
        return Estimate(float(data[0]), float("nan"), float("nan"), 1, whole)
    from scipy.special import stdtrit  # Student's t quantile; scipy comes with scikit-learn

    std = float(data.std(ddof=1))
    return Estimate(float(data.mean()), std, float(stdtrit(n - 1, 0.975)) * std / n**0.5, n, whole)


@dataclass(frozen=True)
class Curve:
    """One line, set of bars or row of points. `name` picks the colour, so a method looks the same everywhere."""

    name: str
    x: Sequence[float | str]
    y: Sequence[float]
    interval: Sequence[float] | None = None
    """Half-width of the 95 % interval at each point; None where n = 1."""
    n: int = 1
    published: bool = False
    legend: str = ""
    """Text beside the name in the legend, such as the average."""
    reference: bool = False
    """A limit or baseline to hold others against: a thin dashed line; not in the legend unless it has a text there."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    matrix: counts [true, predicted], drawn as log(1 + x), with a line at `boundary`; in a "heat" map numbers [row,
    column] printed in cells, coloured from each column's least to its greatest, the least of a column in bold; in
    "change" signed numbers [row, column] in two colours; in "picture" an RGB image [h, w, 3], rows and columns named.
    """

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve] = ()
    kind: Literal["lines", "bars", "sorted-bars", "scatter", "matrix", "heat", "change", "picture"] = "lines"
    matrix: np.ndarray | None = None
    boundary: int | None = None
    y_range: tuple[float, float] | None = None
    x_log: bool = False
    y_log: bool = False
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    """Names of a heat map's or a picture's rows and columns."""


@dataclass(frozen=True)
class Comparison:
    """A published number beside ours."""

    quantity: str
    method: str
    published: float | None
    provenance: str
    ours: Estimate | None
    tolerance: float = 1.0
    """Points of accuracy a reproduction may miss by; 0 for other quantities, where only the interval counts."""


@dataclass(frozen=True)
class Drawing:
    """Everything a figure plots, and the comparisons its row of the report lists."""

    panels: Sequence[Panel]
    comparisons: Sequence[Comparison] = ()
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """One figure or table of a paper: the Runs it needs by name, and how Results become a Drawing.

    Both callables take the setting (what preset and command line decide). `runs` gives, for each curve's name, one Run
    per repeat; `optional` Runs are drawn where they exist and never trained for this figure. `draw` gets the finished
    ones of both. `on_request`: trained and drawn only when --only names it.
    """

    id: str
    title: str
    presets: tuple[str, ...]
    runs: Callable[[Any], Mapping[str, list[Run]]]
    draw: Callable[[Any, Mapping[str, list[Result]]], Drawing]
    optional: Callable[[Any], Mapping[str, list[Run]]] = field(default=lambda setting: {})
    on_request: bool = False


def about(
    fits: Callable[[Any], bool],
    id: str,
    title: str,
    presets: tuple[str, ...],
    runs: Callable[[Any], Mapping[str, list[Run]]],
    draw: Callable[[Any, Mapping[str, list[Result]]], Drawing],
    optional: Callable[[Any], Mapping[str, list[Run]]] = lambda setting: {},
    on_request: bool = False,
) -> Figure:
    """A Figure whose functions see the one setting they are about, the first of the preset's that fits."""

    def of_one(function: Callable) -> Callable:
        return lambda settings, *rest: function(next(filter(fits, settings)), *rest)

    return Figure(id, title, presets, of_one(runs), of_one(draw), of_one(optional), on_request)


def comparable(setting: Any) -> bool:
    """Whether published values may be drawn over ours: the paper's data set, whatever the schedule."""
    return setting.preset != "quick"


def verdict(comparison: Comparison, full_schedule: bool) -> Verdict:
    """The fixed rule: reproduced if the published mean lies within max(1 point, the interval) of ours.

    full_schedule is False for reduced schedules and embedded data, which are indicative, as are n = 1, repeats that
    share a first phase, and a number known from memory. So is agreement within the interval of two repeats, or within
    one wider than twice the tolerance: almost any number would agree.
    """
    if comparison.published is None:
        return "no published number"
    if comparison.ours is None:
        return "not measured"
    if not full_schedule or comparison.ours.n == 1 or not comparison.ours.whole or comparison.provenance == UNVERIFIED:
        return "indicative"
    allowed = max(comparison.tolerance, comparison.ours.interval) + 1e-9  # exactly 1.00 apart is near enough
    if abs(comparison.published - comparison.ours.mean) > allowed:
        return "not reproduced"
    wide = comparison.tolerance and comparison.ours.interval > 2 * comparison.tolerance + 1e-9
    return "indicative" if wide or comparison.ours.n < 3 else "reproduced"


class Published:
    """The paper's numbers with their provenance, from PAPER/published.json."""

    def __init__(self, path: Path) -> None:
        content = json.loads(path.read_text())
        self.paper = content["paper"]
        self.entries = {entry["id"]: entry for entry in content["entries"]}

    def of(self, figure: str) -> list[dict]:
        """The entries of a figure: that of its id, and its parts, whose ids go on with a hyphen."""
        return [e for i, e in self.entries.items() if i == figure or i.startswith(f"{figure}-")]

    def series(self, figure: str, method: str) -> dict | None:
        """One method's published series in a figure: x, y, std, average, provenance, note."""
        entry = self.entries.get(figure, {"series": []})
        return next((s for s in entry["series"] if s["method"] == method), None)

    def value(self, figure: str, method: str, x: float | str) -> tuple[float | None, str]:
        """A method's published number at one x, and its provenance; (None, "") where there is none.

        Of several series of a method, which differ in provenance, it is the first that has x.
        """
        for series in self.entries.get(figure, {"series": []})["series"]:
            if series["method"] == method and x in series["x"]:
                return series["y"][series["x"].index(x)], series["provenance"]
        return None, ""
