"""Describes a figure as data: the Runs it needs, what it plots and what it compares. `plots` draws it."""

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
"""Provenance of a number that is known from memory alone. It is shown, but gives no verdict on a reproduction."""


@dataclass(frozen=True)
class Estimate:
    """A mean over n repeats, with the standard deviation and the half-width of the 95 % t-interval (nan if n = 1).

    n is 0 for a number that is computed, not trained: nothing in it varies.
    """

    mean: float
    std: float
    interval: float
    n: int
    whole: bool = True
    """Whether each repeat was trained from the start. Set to False by the caller if repeats share a first phase."""


def estimate(values: Sequence[float], whole: bool = True) -> Estimate:
    """Return mean, standard deviation (n - 1) and 95 % t-interval of repeats. Raises ValueError if there are none."""
    if not len(values):
        raise ValueError("no values to average")
    data, n = np.asarray(values, dtype=float), len(values)
    if n == 1:
        return Estimate(float(data[0]), float("nan"), float("nan"), 1, whole)
    from scipy.special import stdtrit  # Student's t quantile; scipy comes with scikit-learn

    std = float(data.std(ddof=1))
    return Estimate(float(data.mean()), std, float(stdtrit(n - 1, 0.975)) * std / n**0.5, n, whole)


def computed(value: float) -> Estimate:
    """Return a number that follows from a formula or counts images, such as the size of a class."""
    return Estimate(float(value), 0.0, 0.0, 0)


@dataclass(frozen=True)
class Curve:
    """One line, set of bars or row of points. `name` chooses the colour, so that a method always looks the same."""

    name: str
    x: Sequence[float | str]
    y: Sequence[float]
    interval: Sequence[float] | None = None
    """Half-width of the 95 % interval at each point; None if n = 1."""
    n: int = 1
    published: bool = False
    legend: str = ""
    """Text beside the name in the legend, such as the average."""
    reference: bool = False
    """Whether this is a limit or baseline: a thin dashed line, which the legend lists only if `legend` has a text."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes, with curves or with a matrix.

    The meaning of `matrix` depends on `kind`. "matrix": counts [true, predicted], drawn as log(1 + x), with a line at
    `boundary`. "heat": numbers [row, column], printed in cells; colours run from each column's least to its greatest
    number, and the least is bold. "change": signed numbers [row, column] in two colours. "picture": an RGB image
    [h, w, 3] with names for rows and columns.
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
    """Names of the rows and columns of a heat map or a picture."""


@dataclass(frozen=True)
class Comparison:
    """A published number beside the number measured here."""

    quantity: str
    method: str
    published: float | None
    provenance: str
    ours: Estimate | None
    """The number measured here, or None."""
    tolerance: float = 1.0
    """Points of accuracy that a reproduction may miss by; 0 for other quantities, where only the interval counts."""
    gap: Estimate | None = None
    """Ours minus the published number, if that has a spread of its own. None: the interval of ours is the whole one."""


@dataclass(frozen=True)
class Drawing:
    """Holds everything that a figure plots, and the comparisons that the report lists below it."""

    panels: Sequence[Panel]
    comparisons: Sequence[Comparison] = ()
    note: str = ""


Runs = Mapping[Any, list[Run]]
"""The Runs of each curve, one per repeat. A key is a name, or a tuple if the name has parts, such as ("iCaRL", 20)."""
Results = Mapping[Any, list[Result]]
"""The Results of those `Runs` that are finished, by the same keys."""


def no_runs(setting: Any) -> Runs:
    """Return no Runs, for a figure that follows from formulas alone."""
    return {}


@dataclass(frozen=True)
class Figure:
    """One figure or table of a paper: says which Runs it needs, and makes a Drawing from their Results."""

    id: str
    title: str
    experiment: Callable[[Any], Runs]
    """Returns the Runs that the figure needs, given the setting."""
    drawing: Callable[[Any, Results, PublishedFigure], Drawing]
    """Makes the Drawing, given the setting, the Results and the paper's numbers for this figure."""
    presets: tuple[str, ...] = ("quick", "cifar")
    role: str | None = ""
    """Chooses the setting that the figure is about: the one with this role, or "" for the preset's first. With None the
    figure is about all settings of the preset, as a tuple."""
    extra: Callable[[Any], Runs] = no_runs
    """Returns Runs, given the setting, that are drawn if they are finished but never trained for this figure."""
    on_request: bool = False
    """Whether the figure is made only when --only names it."""
    formerly: tuple[str, ...] = ()
    """Earlier ids of this figure and of figures merged into it. --only still accepts them, with a note."""

    def setting_for(self, settings: Sequence[Any]) -> Any:
        """Return the one of a preset's settings that this figure is about, or all of them if `role` is None."""
        if self.role is None:
            return tuple(settings)
        return next(s for s in settings if self.role in ("", s.role))

    def runs(self, settings: Sequence[Any]) -> Runs:
        return self.experiment(self.setting_for(settings))

    def optional(self, settings: Sequence[Any]) -> Runs:
        return self.extra(self.setting_for(settings))

    def draw(self, settings: Sequence[Any], results: Results, published: Published) -> Drawing:
        """Draw `results`, beside the paper's numbers if the data are the paper's and no small part of them.

        A figure without Runs follows from formulas, so the paper's numbers always belong into it.
        """
        comparable = all(s.comparable for s in settings) or not self.runs(settings)
        comparable &= not any(result.partial for found in results.values() for result in found)
        return self.drawing(self.setting_for(settings), results, published.figure(self.id, comparable))


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
    """Return one figure for each data set, with the id ID-ROLE.

    names: the data set's name in the title, by role. presets, formerly: the figure's presets and earlier ids, by role.
    """
    return [
        Figure(f"{id}-{r}", f"{title}, {names[r]}", experiment, drawing, at, r, extra, formerly=formerly.get(r, ()))
        for r, at in presets.items()
    ]


def verdict(comparison: Comparison, full_schedule: bool) -> Verdict:
    """Judge a comparison by the fixed rule: reproduced if |published - measured mean| <= max(1 point, the interval).

    full_schedule: False for reduced schedules and embedded data. The verdict is then indicative. It is also indicative
    for n = 1, for repeats that share a first phase, and for a published number known from memory. Agreement of two
    repeats, or within an interval of more than twice the tolerance, is indicative too: almost any number would agree.
    A computed number (n = 0) has no schedule and no repeats, so it is always judged.
    """
    if comparison.published is None:
        return "no published number"
    if comparison.ours is None:
        return "not measured"
    exact, trained = comparison.ours.n == 0, full_schedule and comparison.ours.n > 1 and comparison.ours.whole
    if comparison.provenance == UNVERIFIED or not (exact or trained):
        return "indicative"
    allowed = max(comparison.tolerance, comparison.ours.interval) + 1e-9  # exactly 1.00 apart is near enough
    if abs(comparison.published - comparison.ours.mean) > allowed:
        return "not reproduced"
    wide = comparison.tolerance and comparison.ours.interval > 2 * comparison.tolerance + 1e-9
    return "indicative" if wide or 0 < comparison.ours.n < 3 else "reproduced"


@dataclass(frozen=True)
class PublishedFigure:
    """The numbers that a paper prints in one figure. They are left out if the data at hand are not the paper's."""

    entries: Mapping[str, dict]
    id: str

    def figure(self, id: str) -> PublishedFigure:
        """Return the numbers that the paper prints in another figure."""
        return replace(self, id=id)

    @property
    def protocol(self) -> dict[str, Any]:
        """Base classes, phases and whatever else published.json says about the paper's own runs."""
        return self.entries[self.id]["protocol"] if self.id in self.entries else {}

    def series(self, method: str) -> dict | None:
        """Return a method's published series (x, y, std, average, provenance, note), or None."""
        entry = self.entries.get(self.id, {"series": []})
        return next((s for s in entry["series"] if s["method"] == method), None)

    def value(self, method: str, x: float | str | None) -> tuple[float | None, str]:
        """Return a method's published number at one x, and its provenance; (None, "") if there is none.

        A method may have several series, which differ in provenance. The first one that contains x counts.
        """
        for series in self.entries.get(self.id, {"series": []})["series"]:
            if series["method"] == method and x in series["x"]:
                return series["y"][series["x"].index(x)], series["provenance"]
        return None, ""


@dataclass(frozen=True)
class Published:
    """Holds the numbers that a paper prints, with their provenance."""

    paper: Mapping[str, Any]
    """The paper's title, authors, venue and year."""
    entries: Mapping[str, dict]
    """The numbers of each figure, by the figure's id."""

    @classmethod
    def load(cls, path: Path) -> Published:
        """Read the numbers from PAPER/published.json."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(content["paper"], {entry["id"]: entry for entry in content["entries"]})

    def entries_of(self, figure: str) -> list[dict]:
        """Return the entries of a figure: the one with its id, and those of its parts, such as ID-params."""
        return [e for i, e in self.entries.items() if i == figure or i.startswith(f"{figure}-")]

    def figure(self, id: str, comparable: bool = True) -> PublishedFigure:
        """Return the numbers that the paper prints in one figure; none if the data at hand are not comparable."""
        return PublishedFigure(self.entries if comparable else {}, id)
