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
    """Join the parts of a figure's note. If stage 1 ran once, the note also says which seeds intervals are over."""
    seeds = s.later_seeds
    once = f"stage 1 ran once: intervals are over {seeds} seeds of stages 2 and 3 alone" if seeds > 1 else ""
    return "; ".join(filter(None, [*words, once]))


def origins(count: int) -> list[int]:
    """Choose which old tasks to show when there are `count` tasks: at most ORIGINS, spread evenly."""
    return sorted(set(np.linspace(0, count - 2, min(ORIGINS, count - 1)).round().astype(int).tolist()))


def lines(found: Sequence[Result], name: str) -> list[list[float]]:
    """Return the curve of a read-out for each repeat."""
    return [r.curve(name) for r in found]


def average_rows(name: str, found: Sequence[Result], readout: str, published: PublishedFigure) -> list[Comparison]:
    """List the average with and without the first task, since both are in use, the last accuracy, and forgetting."""
    curves = lines(found, readout)
    rows = [Comparison(AVERAGE, name, None, "", estimate([float(np.mean(line)) for line in curves]))]
    if len(curves[0]) > 1:
        rest = estimate([float(np.mean(line[1:])) for line in curves])
        rows.append(Comparison(LATER_INCREMENTAL, name, None, "", rest))
    return [*rows, *end_rows(name, found, readout, published)]


def point(name: str, x: float, values: Sequence[float]) -> Curve:
    """Return a curve of one point, with its interval."""
    return through(name, [x], [estimate(values)])


def bars(title: str, names: Sequence[str], groups: Mapping[str, Sequence[Estimate]], y: str) -> Panel:
    """Draw bars: a cluster for each name, and a colour for each group of Estimates."""
    return Panel(title, "", y, [through(group, names, found) for group, found in groups.items() if found], kind="bars")


def by_readout(results: Results, readouts: Mapping[str, str], title: str) -> tuple[Panel, list[Comparison]]:
    """Draw averages of several read-outs of every variant, side by side. readouts: {name: read-out}."""
    groups = {
        name: [estimate([average(r, readout) for r in found]) for found in results.values()]
        for name, readout in readouts.items()
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


def measured_with_truth(found: Sequence[Result]) -> list[Result]:
    """Return the Results whose runs were measured against true features."""
    return [r for r in found if "omega" in r.phases()[-1].get("quality", {})]


Ordering = tuple[str, tuple[str, str], tuple[str, str]]
"""The name of an expectation, and two (method, read-out): the one expected above, and the one expected below."""


def orderings(results: Results, wanted: Sequence[Ordering], task_sizes: Sequence[int | None] = (None,)) -> Drawing:
    """Draw and list differences of averages that are expected to be positive, paired by class order and seed.

    task_sizes: numbers of classes a task, each with a colour of its own. The keys of `results` then are (method, size).
    """
    curves, rows = [], []
    for task_size in task_sizes:
        found = dict[str, Estimate]()
        group = f"{task_size} classes a task" if task_size else ""
        for name, (a, readout_a), (b, readout_b) in wanted:
            keys = [(a, task_size), (b, task_size)] if task_size else [a, b]
            if both := paired([results.get(key, []) for key in keys]):
                found[name] = estimate(
                    [average(x, readout_a) - average(y, readout_b) for x, y in zip(*both, strict=True)]
                )
                words = ", ".join(filter(None, [name, group]))
                rows.append(Comparison(DIFFERENCE, words, None, "", found[name]))
        curves += [through(group or "paired by seed", list(found), list(found.values()))] if found else []
    panel = Panel("expected to be positive", "", "difference of averages (points)", curves, kind="bars")
    return Drawing([panel] if curves else [], rows)
