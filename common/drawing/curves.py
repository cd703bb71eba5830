"""Accuracy-against-classes curves that the class-incremental papers share, published lines beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from common.drawing.figures import Comparison, Curve, Drawing, Estimate, Panel, PublishedFigure, Results, estimate
from common.drawing.results import Result
from common.metrics import average_incremental_accuracy, forgetting

CLASSES, TOP1 = "number of classes", "top-1 accuracy (%)"
AVERAGE, LAST = "average incremental accuracy (%)", "accuracy after the last phase (%)"
FORGETTING = "forgetting (points)"
PAIRED = "average incremental accuracy minus that of {} (points, paired by seed and order)"


def paired(groups: Sequence[Sequence[Result]]) -> list[list[Result]]:
    """The groups cut down to the repeats (class order, seed) they have in common, in the same order; [] without any."""
    common = set.intersection(*({r.repeat for r in group} for group in groups)) if groups else set()
    if not common:
        return []
    return [sorted((r for r in group if r.repeat in common), key=lambda r: r.repeat) for group in groups]


def average(result: Result, readout: str) -> float:
    """Average incremental accuracy of a read-out."""
    return average_incremental_accuracy(result.curve(readout))


def by_epoch(result: Result, readout: str = "cnn", group: str = "accuracy") -> dict[int, float]:
    """Test accuracy of a run with one phase, by epoch where it was measured, and at the last one, which always is.

    Of a read-out on a group of classes. A schedule shorter than the tests' interval leaves the last epoch alone.
    """
    trace = result.values["trace"]
    column = trace.get("test_accuracy" if (readout, group) == ("cnn", "accuracy") else f"{readout} {group}")
    found = zip(trace["epoch"], column or [None] * len(trace["epoch"]), strict=True)
    return {epoch: v for epoch, v in found if v is not None} | {trace["epoch"][-1]: result.readout(readout)[group]}


def through(
    name: str, x: Sequence[float | str], found: Sequence[Estimate | None], legend: str = "", reference: bool = False
) -> Curve:
    """A line or a row of bars through Estimates, with their intervals. Where there is no Estimate, x is left out."""
    known = [(at, e) for at, e in zip(x, found, strict=True) if e]
    n = max((e.n for _, e in known), default=1)
    interval = [e.interval for _, e in known] if n > 1 else None
    means = [e.mean for _, e in known]
    return Curve(name, [at for at, _ in known], means, interval, n, legend=legend, reference=reference)


def mean_curve(name: str, x: Sequence[float | str], repeats: Sequence[Sequence[float]], legend: str = "") -> Curve:
    """The mean of one line a repeat, with its 95 % interval at each point."""
    return through(name, x, [estimate(column) for column in zip(*repeats, strict=True)], legend)


def neighbours(count: int) -> list[np.ndarray]:
    """Positions 0 ... count - 1 in at most ten groups of neighbours, which bars stand for."""
    return np.array_split(np.arange(count), min(10, count)) if count else []


def span(first: int, last: int) -> str:
    """A group's name under its bar: 4, or 4-7."""
    return f"{first}" if first == last else f"{first}-{last}"


def class_bars(name: str, repeats: Sequence[Sequence[float]], legend: str = "") -> Curve:
    """A bar for each group of `neighbours`: the mean over its classes. repeats: a value for each class, by repeat.

    Lines from class to class zigzag too much to be told apart.
    """
    groups = neighbours(len(repeats[0]))
    labels = [span(group[0], group[-1]) for group in groups]
    return mean_curve(name, labels, [[float(np.mean(np.take(line, g))) for g in groups] for line in repeats], legend)


def across(name: str, x: Sequence[float | str], height: float, legend: str = " ") -> Curve:
    """A dashed line at one height, to hold others against."""
    return Curve(name, x, [height] * len(x), reference=True, legend=legend)


def published_points(name: str, x: Sequence[float | str], values: Sequence[float | None]) -> list[Curve]:
    """What the paper prints at each x, as points or bars over the measured ones; empty where it prints nothing."""
    if all(value is None for value in values):
        return []
    return [Curve(name, x, [float("nan") if v is None else v for v in values], published=True)]


def accuracy_curve(name: str, x: Sequence[float], repeats: Sequence[Sequence[float]]) -> tuple[Curve, Comparison]:
    """Accuracy after each phase with the average in the legend, and that average as a row without published value."""
    stat = estimate([average_incremental_accuracy(line) for line in repeats])
    return mean_curve(name, x, repeats, f"average {stat.mean:.2f}"), Comparison(AVERAGE, name, None, "", stat)


def published_curve(published: PublishedFigure, method: str) -> list[Curve]:
    """The paper's line, broken where points are not known; empty where none is."""
    series = published.series(method)
    if series is None or not series["y"]:
        return []
    x, y = series["x"], series["y"]
    base, phases = published.protocol.get("base"), published.protocol.get("phases")
    if isinstance(base, int) and isinstance(phases, int) and x[0] == base:
        step = (x[-1] - x[0]) // phases
        known = dict(zip(x, y, strict=True))
        x = list(range(x[0], x[-1] + 1, step)) if step else x
        y = [known.get(n, float("nan")) for n in x]
    legend = f"average {series['average']:.2f}" if series["average"] is not None else ""
    return [Curve(method, x, y, published=True, legend=legend)]


def average_row(row: Comparison, published: PublishedFigure) -> Comparison:
    """The row with the paper's average filled in; averages are printed in legends even where points are digitised."""
    series = published.series(row.method)
    if series is None or series["average"] is None:
        return row
    provenance = "printed" if series["provenance"] == "digitised" else series["provenance"]
    return replace(row, published=series["average"], provenance=provenance)


def end_rows(name: str, found: Sequence[Result], readout: str, published: PublishedFigure) -> list[Comparison]:
    """Accuracy after the last phase beside the paper's, and forgetting (`metrics.forgetting`), which papers omit."""
    series = published.series(name)
    phases = published.protocol.get("phases")
    known = series if series and len(series["y"]) > 1 and phases == len(found[0].phases()) - 1 else None
    value, provenance = (known["y"][-1], known["provenance"]) if known else (None, "")
    last = estimate([r.curve(readout)[-1] for r in found])
    matrices = [[r.readout(readout, p)["groups"] for p in range(len(r.phases()))] for r in found]
    return [
        Comparison(LAST, name, value, provenance, last),
        Comparison(FORGETTING, name, None, "", estimate([forgetting(m) for m in matrices])),
    ]


def paired_rows(
    results: Results, readouts: Mapping[str, tuple[Any, str]], reference: str, published: PublishedFigure
) -> list[Comparison]:
    """How far each variant's average lies from the reference's, repeat by repeat, beside the published difference."""
    rows = []
    label, readout = readouts[reference]
    paper = published.series(reference)
    for name, (other, other_readout) in readouts.items():
        if name == reference or not results.get(label) or not results.get(other):
            continue
        both = paired([results[other], results[label]])
        differences = [average(a, other_readout) - average(b, readout) for a, b in zip(*both, strict=True)]
        if differences:
            theirs = published.series(name)
            known = theirs and paper and theirs["average"] is not None and paper["average"] is not None
            value = round(theirs["average"] - paper["average"], 2) if known and theirs and paper else None
            row = Comparison(PAIRED.format(reference), name, value, "printed" if known else "", estimate(differences))
            rows.append(row)
    return rows


def accuracy_figure(
    results: Results,
    readouts: Mapping[str, tuple[Any, str]],
    published: PublishedFigure,
    title: str,
    only_published: Sequence[str] = (),
) -> Drawing:
    """Accuracy against classes for each `readouts` entry: curve name -> (key of the Results, read-out).

    only_published: methods without runs, of which the published line and average are shown.
    """
    curves, rows = [], []
    for name, (key, readout) in readouts.items():
        if found := results.get(key):
            x = [p["classes"] for p in found[0].phases()]
            curve, row = accuracy_curve(name, x, [r.curve(readout) for r in found])
            curves.append(curve)
            rows += [average_row(row, published), *end_rows(name, found, readout, published)]
        curves += published_curve(published, name)
    for name in only_published:
        if published.series(name):
            rows.append(average_row(Comparison(AVERAGE, name, None, "", None), published))
            curves += published_curve(published, name)
    return Drawing([Panel(title, CLASSES, TOP1, curves)], rows)
