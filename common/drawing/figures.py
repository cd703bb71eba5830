"""A figure as data: what it needs, shows and compares. `plots` draws it, `report` sets it in text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from common.drawing.results import Result
from common.runs import Run

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
    gap: Estimate | None = None
    """Ours minus the published number, where that has a spread of its own; None: the interval of ours says it all."""


@dataclass(frozen=True)
class Drawing:
    """Everything a figure plots, and the comparisons its row of the report lists."""

    panels: Sequence[Panel]
    comparisons: Sequence[Comparison] = ()
    note: str = ""


Runs = Mapping[Any, list[Run]]
"""The Runs of each curve, one per repeat. A key is a name, or a tuple where the name has parts: ("iCaRL", 20)."""
Results = Mapping[Any, list[Result]]
"""What is finished of `Runs`, by the same keys."""


def no_runs(setting: Any) -> Runs:
    """What a figure needs that follows from formulas."""
    return {}


@dataclass(frozen=True)
class Figure:
    """One figure or table of a paper: the setting it is about, the Runs it needs, and how Results become a Drawing."""

    id: str
    title: str
    experiment: Callable[[Any], Runs]
    """The setting -> the Runs that the figure needs."""
    drawing: Callable[[Any, Results, PublishedFigure], Drawing]
    """(setting, what is finished, what the paper prints in this figure) -> everything to plot."""
    presets: tuple[str, ...] = ("quick", "cifar")
    role: str | None = ""
    """Which of the preset's settings the figure is about: the one of this role, or "" for the first. None: all of
    them, as a tuple."""
    extra: Callable[[Any], Runs] = no_runs
    """The setting -> Runs that are drawn where they are finished, and never trained for this figure."""
    on_request: bool = False
    """Whether the figure is made only when --only names it."""
    formerly: tuple[str, ...] = ()
    """Earlier ids of this figure, and of figures that it has taken in. --only still knows them, with a note."""

    def about(self, settings: Sequence[Any]) -> Any:
        """The setting, of a preset's, that this figure is about."""
        if self.role is None:
            return tuple(settings)
        return next(s for s in settings if self.role in ("", s.role))

    def runs(self, settings: Sequence[Any]) -> Runs:
        return self.experiment(self.about(settings))

    def optional(self, settings: Sequence[Any]) -> Runs:
        return self.extra(self.about(settings))

    def draw(self, settings: Sequence[Any], results: Results, published: Published) -> Drawing:
        """The Drawing of `results`. On data that are not the paper's, or a small part, nothing published goes into it.

        A figure without Runs follows from formulas, which no data change.
        """
        comparable = all(s.comparable for s in settings) or not self.runs(settings)
        comparable &= not any(result.partial for found in results.values() for result in found)
        return self.drawing(self.about(settings), results, published.figure(self.id, comparable))


def per_data(
    names: Mapping[str, str],
    id: str,
    title: str,
    experiment: Callable[[Any], Runs],
    drawing: Callable[[Any, Results, PublishedFigure], Drawing],
    presets: Mapping[str, tuple[str, ...]],
    extra: Callable[[Any], Runs] = no_runs,
    formerly: Mapping[str, tuple[str, ...]] = {},
) -> list[Figure]:
    """One figure for each data set, ID-ROLE, with its presets and earlier ids by role.

    names: the data sets' names by role, for the titles.
    """
    return [
        Figure(f"{id}-{r}", f"{title}, {names[r]}", experiment, drawing, at, r, extra, formerly=formerly.get(r, ()))
        for r, at in presets.items()
    ]


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


@dataclass(frozen=True)
class PublishedFigure:
    """What the paper prints in one figure; nothing at all where the data at hand are not the paper's."""

    entries: Mapping[str, dict]
    id: str

    def of(self, id: str) -> PublishedFigure:
        """What the paper prints in another figure."""
        return replace(self, id=id)

    @property
    def protocol(self) -> dict[str, Any]:
        """Base classes, phases and whatever else the entry says of what was run."""
        return self.entries[self.id]["protocol"] if self.id in self.entries else {}

    def series(self, method: str) -> dict | None:
        """A method's published series: x, y, std, average, provenance, note."""
        entry = self.entries.get(self.id, {"series": []})
        return next((s for s in entry["series"] if s["method"] == method), None)

    def value(self, method: str, x: float | str | None) -> tuple[float | None, str]:
        """A method's published number at one x, and its provenance; (None, "") where there is none.

        A method may have several series, which differ in provenance. The first that has x counts.
        """
        for series in self.entries.get(self.id, {"series": []})["series"]:
            if series["method"] == method and x in series["x"]:
                return series["y"][series["x"].index(x)], series["provenance"]
        return None, ""


@dataclass(frozen=True)
class Published:
    """A paper's numbers with their provenance."""

    paper: Mapping[str, Any]
    """Its title, authors, venue, year."""
    entries: Mapping[str, dict]
    """What each figure prints, by the figure's id."""

    @classmethod
    def load(cls, path: Path) -> Published:
        """The numbers in PAPER/published.json."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(content["paper"], {entry["id"]: entry for entry in content["entries"]})

    def of(self, figure: str) -> list[dict]:
        """The entries of a figure: that of its id, and its parts, whose ids go on with a hyphen."""
        return [e for i, e in self.entries.items() if i == figure or i.startswith(f"{figure}-")]

    def figure(self, id: str, comparable: bool = True) -> PublishedFigure:
        """What the paper prints in one figure; nothing where the data are not comparable with the paper's."""
        return PublishedFigure(self.entries if comparable else {}, id)
