"""Compares numbers of this repository with those that the authors' own code reached at the same short schedule.

PAPER/equal.json holds the authors' numbers and recipes in the form of published.json. No paper prints these numbers.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common.drawing.curves import AVERAGE, CLASSES, TOP1, through
from common.drawing.figures import (
    Comparison,
    Drawing,
    Estimate,
    Figure,
    Panel,
    Published,
    PublishedFigure,
    Results,
    Runs,
    estimate,
)
from common.drawing.report import signed
from common.drawing.results import Result
from common.runs import Schedule

EQUAL = "equal-schedules"
"""The id of the figure."""
THEIRS, OURS = "authors' code", "here"
GROUPS = {"all": "accuracy", "many": "many", "medium": "medium", "few": "few"}
"""Groups of classes by number of training images: name in equal.json -> name in Results."""
ALL = "accuracy (%), all"
RULE = (
    "difference (in titles that of the average, or on all classes): ours minus theirs, with the 95 % t-interval of two "
    "samples that have one variance"
)
Read = Callable[[Result], Sequence[float]]
"""Takes the values of a series of equal.json from a Result, one for each x."""


def after_phases(readout: str, group: int | None = None, stage: str = "") -> Read:
    """Return a function that reads the accuracy after every phase.

    group: the phase whose classes count (-1: the newest ones); None: all classes seen. stage: the stage after which the
    accuracy is read; by default, and in phases without this stage, the last one.
    """

    def read(result: Result) -> list[float]:
        values = []
        for phase in result.phases():
            *_, last = phase["stages"].values()
            found = phase["stages"].get(stage, last)[readout]
            values.append(found["accuracy"] if group is None else found["groups"][group])
        return values

    return read


def by_shots(readout: str) -> Read:
    """Return a function that reads the final accuracy: on all classes, then on many-, medium- and few-shot ones."""
    return lambda result: [result.readout(readout)[key] for key in GROUPS.values()]


def equal_schedules(runs: Callable[[Any], Runs], reads: Mapping[str, Read], role: str = "") -> Figure:
    """Return the figure that shows the authors' numbers and ours, on request.

    runs: setting -> Runs of each recipe, by its name in equal.json. reads: how each series of equal.json is measured.
    The authors' numbers are shown only if the Runs have the recipe's learning rates and class order.
    """
    title = "Equal schedules: the authors' own code and ours"
    return Figure(EQUAL, title, runs, partial(_drawing, reads=reads), ("cifar",), role, on_request=True)


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Return the mean of ours minus the mean of theirs, with the 95 % t-interval of two samples that have one variance.

    n is the number of ours. The interval is nan if each side has one value. Raises ValueError if a side has none.
    """
    from scipy.special import stdtrit  # Student's t quantile

    mean, free = estimate(ours).mean - estimate(theirs).mean, len(ours) + len(theirs) - 2
    if not free:
        return Estimate(mean, float("nan"), float("nan"), 1)
    std = float(np.sqrt(sum(np.var(side) * len(side) for side in (ours, theirs)) / free))
    spread = std * (1 / len(ours) + 1 / len(theirs)) ** 0.5
    return Estimate(mean, std, float(stdtrit(free, 0.975)) * spread, len(ours))


def same_schedule(result: Result, protocol: Mapping[str, Any]) -> bool:
    """Return whether a Result has the recipe's learning rate in every epoch, its class order, and all images.

    The other options of the Runs, and those of their starts, are compared with the recipe in a test.
    """
    config = result.config["schedule"]
    known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if k != "type"}
    schedule = Schedule(**known)
    rates = [schedule.lr_at(epoch) for epoch in range(schedule.epochs)]
    equal = len(rates) == len(protocol["rates"]) and np.allclose(rates, protocol["rates"], rtol=1e-4, atol=0)
    return bool(equal) and result.config["order"] == protocol["order"] and not result.partial


def _drawing(s: Any, results: Results, published: PublishedFigure, reads: Mapping[str, Read]) -> Drawing:
    """Draw a panel for each series. Each quantity gets a row: theirs, ours, and the difference with its interval."""
    known = Published.load(Path(importlib.import_module(s.paper).__path__[0], "equal.json"))
    panels, rows, notes = list[Panel](), list[Comparison](), list[str]()
    for entry in known.entries.values():
        protocol = entry["protocol"]
        found = results.get(protocol["runs"], [])
        equal = all(same_schedule(result, protocol) for result in found)
        if not equal:
            notes.append(f"{protocol['runs']} as the authors' code ran it: {protocol['options']}")
        for name in dict.fromkeys(series["method"] for series in entry["series"]) if found else ():
            theirs = [(e["x"], e["y"]) for e in entry["series"] if e["method"] == name]
            ours = [(theirs[0][0], reads[name](result)) for result in found]
            compared = _rows(name, _quantities(ours), _quantities(theirs if equal else []))
            gap = next(row.gap for row in compared if row.quantity in (AVERAGE, ALL))
            panels.append(_panel(f"{name}: {signed(gap)}" if gap else name, ours, theirs if equal else []))
            rows += compared
    return Drawing(panels, rows, "; ".join([f"{THEIRS}: {known.paper['source']}", RULE, *notes]))


Series = Sequence[tuple[Sequence[float | str], Sequence[float]]]
"""x and y of each repeat. Some repeats may have only a part of the x."""


def _panel(title: str, ours: Series, theirs: Series) -> Panel:
    """Return a panel of both sides. Only ours has an interval, since theirs are one run or two."""
    measured, printed = _by_x(ours), _by_x(theirs)
    curves = [through(OURS, list(measured), [estimate(values) for values in measured.values()])]
    if printed:
        curves.insert(0, through(THEIRS, list(printed), [estimate([float(np.mean(v))]) for v in printed.values()]))
    by_group = isinstance(next(iter(measured)), str)
    return Panel(title, "" if by_group else CLASSES, TOP1, curves, kind="bars" if by_group else "lines")


def _rows(name: str, ours: Mapping[str, list[float]], theirs: Mapping[str, list[float]]) -> list[Comparison]:
    """Return a row for each quantity of a series."""
    rows = []
    for quantity, values in ours.items():
        if printed := theirs.get(quantity):
            source = THEIRS + (f", n = {len(printed)}" if len(printed) > 1 else "")
            gap, mean = difference(values, printed), float(np.mean(printed))
            rows.append(Comparison(quantity, name, mean, source, estimate(values), gap=gap))
        else:
            rows.append(Comparison(quantity, name, None, "", estimate(values)))
    return rows


def _quantities(repeats: Series) -> dict[str, list[float]]:
    """Return the compared values by name: accuracies on groups of classes, or average, first and last phase."""
    found = dict[str, list[float]]()
    for x, y in repeats:
        if isinstance(x[0], str):
            numbers = {f"accuracy (%), {group}": value for group, value in zip(x, y, strict=True)}
        else:
            numbers = {f"accuracy at {x[0]} classes (%)": y[0], f"accuracy at {x[-1]} classes (%)": y[-1]}
            numbers |= {AVERAGE: float(np.mean(y))} if len(y) > 1 else {}
        for quantity, value in numbers.items():
            found.setdefault(quantity, []).append(value)
    return found


def _by_x(repeats: Series) -> dict[float | str, list[float]]:
    found = dict[float | str, list[float]]()
    for x, y in repeats:
        for place, value in zip(x, y, strict=True):
            found.setdefault(place, []).append(value)
    return found
