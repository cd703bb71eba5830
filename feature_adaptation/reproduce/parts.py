"""Build what several figures share: notes, rows of averages, bars of variants, and orderings that are expected."""

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
ORIGINS = 6  # the most tasks of origin that a panel shows, each as a curve


def notes(s: Setting, *words: str) -> str:
    """Join the parts of a figure's note. Where stage 1 ran once, the note also says what intervals are over."""
    once = f"stage 1 ran once: intervals are over {s.later} seeds of stages 2 and 3 alone" if s.later > 1 else ""
    return "; ".join(filter(None, [*words, once]))


def origins(count: int) -> list[int]:
    """Choose which old tasks to show when there are `count` tasks: at most ORIGINS, spread evenly."""
    return sorted(set(np.linspace(0, count - 2, min(ORIGINS, count - 1)).round().astype(int).tolist()))


def lines(found: Sequence[Result], name: str) -> list[list[float]]:
    """Return the curve of a read-out for each repeat."""
    return [r.curve(name) for r in found]


def average_rows(name: str, found: Sequence[Result], of: str, published: PublishedFigure) -> list[Comparison]:
    """List the average with and without the first task, since both are in use, the last accuracy, and forgetting."""
    curves = lines(found, of)
    rows = [Comparison(AVERAGE, name, None, "", estimate([float(np.mean(line)) for line in curves]))]
    if len(curves[0]) > 1:
        rest = estimate([float(np.mean(line[1:])) for line in curves])
        rows.append(Comparison(LATER_INCREMENTAL, name, None, "", rest))
    return [*rows, *end_rows(name, found, of, published)]


def point(name: str, x: float, values: Sequence[float]) -> Curve:
    """Return a curve of one point, with its interval."""
    return through(name, [x], [estimate(values)])


def bars(title: str, names: Sequence[str], groups: Mapping[str, Sequence[Estimate]], y: str) -> Panel:
    """Draw bars: a cluster for each name, and a colour for each group of Estimates."""
    return Panel(title, "", y, [through(group, names, found) for group, found in groups.items() if found], kind="bars")


def by_readout(results: Results, readouts: Mapping[str, str], title: str) -> tuple[Panel, list[Comparison]]:
    """Draw averages of several read-outs of every variant, side by side. readouts: {name: read-out}."""
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
    """Return the panels with one y axis, from just below their least mean to `top`."""
    low = min((min(c.y) for p in panels for c in p.curves), default=0)
    return [replace(p, y_range=(low - 0.02, top)) for p in panels]


def with_truth(found: Sequence[Result]) -> list[Result]:
    """Return the Results whose runs were measured against true features."""
    return [r for r in found if "omega" in r.phases()[-1].get("quality", {})]


Ordering = tuple[str, tuple[str, str], tuple[str, str]]
"""The name of an expectation, and two (method, read-out): the one expected above, and the one expected below."""


def orderings(results: Results, wanted: Sequence[Ordering], steps: Sequence[int | None] = (None,)) -> Drawing:
    """Draw and list differences of averages that are expected to be positive, paired by class order and seed.

    steps: numbers of classes a task, each with a colour of its own, where the keys of `results` are (method, step).
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
