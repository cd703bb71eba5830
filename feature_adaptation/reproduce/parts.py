"""What several figures share: notes, rows of averages, bars of variants, and what should be above what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from common.drawing.curves import AVERAGE, average, end_rows, paired, through
from common.drawing.figures import Comparison, Curve, Drawing, Estimate, Panel, PublishedFigure, Results, estimate
from common.store import Result
from feature_adaptation.reproduce.presets import Setting

TASK, OMEGA = "task", "omega (mean cosine)"
LOG_MEMORY = "preserved data (MB), log axis from the least on"
LATER_INCREMENTAL = "average incremental accuracy without the first task (%)"
TAKEN = "old images called new, last task (%)"
DIFFERENCE = "difference of averages (points, paired by seed and order)"
ORIGINS = 6  # tasks of origin shown where each is a curve


def notes(s: Setting, *words: str) -> str:
    """A figure's note, with what intervals are over where stage 1 ran once."""
    once = f"stage 1 ran once: intervals are over {s.later} seeds of stages 2 and 3 alone" if s.later > 1 else ""
    return "; ".join(filter(None, [*words, once]))


def origins(count: int) -> list[int]:
    """Old tasks to show of `count`: at most ORIGINS, spread evenly."""
    return sorted(set(np.linspace(0, count - 2, min(ORIGINS, count - 1)).round().astype(int).tolist()))


def lines(found: Sequence[Result], name: str) -> list[list[float]]:
    """The curve of a read-out, one a repeat."""
    return [r.curve(name) for r in found]


def average_rows(name: str, found: Sequence[Result], of: str, published: PublishedFigure) -> list[Comparison]:
    """The average with and without the first task, as both are in use; the accuracy at the end and forgetting."""
    curves = lines(found, of)
    rows = [Comparison(AVERAGE, name, None, "", estimate([float(np.mean(line)) for line in curves]))]
    if len(curves[0]) > 1:
        rest = estimate([float(np.mean(line[1:])) for line in curves])
        rows.append(Comparison(LATER_INCREMENTAL, name, None, "", rest))
    return [*rows, *end_rows(name, found, of, published)]


def point(name: str, x: float, values: Sequence[float]) -> Curve:
    """One point with its interval."""
    return through(name, [x], [estimate(values)])


def bars(title: str, names: Sequence[str], groups: Mapping[str, Sequence[Estimate]], y: str) -> Panel:
    """One group of bars a name, one colour a group of Estimates."""
    return Panel(title, "", y, [through(group, names, found) for group, found in groups.items() if found], kind="bars")


def by_readout(results: Results, readouts: Mapping[str, str], title: str) -> tuple[Panel, list[Comparison]]:
    """Averages of several read-outs of every variant, side by side. readouts: {name: read-out}."""
    groups = {
        name: [estimate([average(r, of) for r in found]) for found in results.values()] for name, of in readouts.items()
    }
    rows = [
        Comparison(f"{AVERAGE}, {name}", variant, None, "", e)
        for name, found in groups.items()
        for variant, e in zip(results, found, strict=True)
    ]
    return bars(title, list(results), groups, AVERAGE), rows


def on_one_scale(panels: Sequence[Panel], top: float) -> list[Panel]:
    """The panels with one y axis, from below their least mean to `top`."""
    low = min((min(c.y) for p in panels for c in p.curves), default=0)
    return [replace(p, y_range=(low - 0.02, top)) for p in panels]


def with_truth(found: Sequence[Result]) -> list[Result]:
    """Results whose run could be held against true features."""
    return [r for r in found if "omega" in r.phases()[-1].get("quality", {})]


Ordering = tuple[str, tuple[str, str], tuple[str, str]]
"""What is expected, and the (method, read-out) of the one above and the one below."""


def orderings(results: Results, wanted: Sequence[Ordering], steps: Sequence[int | None] = (None,)) -> Drawing:
    """Differences of averages that should be positive, paired by class order and seed: a panel, if any, and rows.

    steps: classes a task, each a colour, where keys are (method, step).
    """
    curves, rows = [], []
    for step in steps:
        found = dict[str, Estimate]()
        group = f"{step} classes a task" if step else ""
        for name, (a, of_a), (b, of_b) in wanted:
            keys = [(a, step), (b, step)] if step else [a, b]
            if both := paired([results.get(key, []) for key in keys]):
                found[name] = estimate([average(x, of_a) - average(y, of_b) for x, y in zip(*both, strict=True)])
                words = ", ".join(filter(None, [name, group]))
                rows.append(Comparison(DIFFERENCE, words, None, "", found[name]))
        curves += [through(group or "paired by seed", list(found), list(found.values()))] if found else []
    panel = Panel("expected to be positive", "", "difference of averages (points)", curves, kind="bars")
    return Drawing([panel] if curves else [], rows)
