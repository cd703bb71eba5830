"""Makes the curves and table rows that several papers share, such as accuracy against classes, with published lines."""

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
    """Cut the groups down to the repeats (class order, seed) that all have, in the same order; [] if there are none."""
    common = set.intersection(*({r.repeat for r in group} for group in groups)) if groups else set()
    if not common:
        return []
    return [sorted((r for r in group if r.repeat in common), key=lambda r: r.repeat) for group in groups]


def average(result: Result, readout: str) -> float:
    """Return the average incremental accuracy of a read-out, in percent."""
    return average_incremental_accuracy(result.curve(readout))


def by_epoch(result: Result, readout: str = "cnn", group: str = "accuracy") -> dict[int, float]:
    """Return the test accuracy of a run with one phase, by the epochs at which it was measured.

    readout, group: the read-out, and the group of classes. The last epoch is always included. It is the only one if the
    schedule is shorter than the interval between tests.
    """
    trace = result.values["trace"]
    column = trace.get("test_accuracy" if (readout, group) == ("cnn", "accuracy") else f"{readout} {group}")
    found = zip(trace["epoch"], column or [None] * len(trace["epoch"]), strict=True)
    return {epoch: v for epoch, v in found if v is not None} | {trace["epoch"][-1]: result.readout(readout)[group]}


def through(
    name: str, x: Sequence[float | str], found: Sequence[Estimate | None], legend: str = "", reference: bool = False
) -> Curve:
    """Return a line or a row of bars through Estimates, with their intervals. An x without Estimate is left out."""
    known = [(at, e) for at, e in zip(x, found, strict=True) if e]
    n = max((e.n for _, e in known), default=1)
    interval = [e.interval for _, e in known] if n > 1 else None
    means = [e.mean for _, e in known]
    return Curve(name, [at for at, _ in known], means, interval, n, legend=legend, reference=reference)


def mean_curve(name: str, x: Sequence[float | str], repeats: Sequence[Sequence[float]], legend: str = "") -> Curve:
    """Return the mean over repeats, with its 95 % interval at each x. repeats: one line of values per repeat."""
    return through(name, x, [estimate(column) for column in zip(*repeats, strict=True)], legend)


def neighbours(count: int) -> list[np.ndarray]:
    """Split the positions 0 ... count - 1 into at most ten groups of neighbours, one for each bar."""
    return np.array_split(np.arange(count), min(10, count)) if count else []


def span(first: int, last: int) -> str:
    """Return the label under a group's bar, such as 4 or 4-7."""
    return f"{first}" if first == last else f"{first}-{last}"


def class_bars(name: str, repeats: Sequence[Sequence[float]], legend: str = "") -> Curve:
    """Return a bar for each group of `neighbours`, with the mean over its classes.

    repeats: one value per class, for each repeat. Lines from class to class would zigzag too much to be told apart.
    """
    groups = neighbours(len(repeats[0]))
    labels = [span(group[0], group[-1]) for group in groups]
    return mean_curve(name, labels, [[float(np.mean(np.take(line, g))) for g in groups] for line in repeats], legend)


def across(name: str, x: Sequence[float | str], height: float, legend: str = " ") -> Curve:
    """Return a dashed horizontal line at one height, as a reference for other curves."""
    return Curve(name, x, [height] * len(x), reference=True, legend=legend)


def published_points(name: str, x: Sequence[float | str], values: Sequence[float | None]) -> list[Curve]:
    """Return the paper's values at each x as one curve of points or bars; an empty list if all values are None."""
    if all(value is None for value in values):
        return []
    return [Curve(name, x, [float("nan") if v is None else v for v in values], published=True)]


def accuracy_curve(name: str, x: Sequence[float], repeats: Sequence[Sequence[float]]) -> tuple[Curve, Comparison]:
    """Return the accuracy after each phase as a curve, and its average as a row without published value.

    The average is also in the curve's legend. repeats: one line of accuracies per repeat.
    """
    stat = estimate([average_incremental_accuracy(line) for line in repeats])
    return mean_curve(name, x, repeats, f"average {stat.mean:.2f}"), Comparison(AVERAGE, name, None, "", stat)


def published_curve(published: PublishedFigure, method: str) -> list[Curve]:
    """Return the paper's line for a method, broken where points are not known; an empty list if none is known."""
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
    """Return the row with the paper's average filled in.

    Papers print averages in legends, so an average counts as printed even if the points of its line are digitised.
    """
    series = published.series(row.method)
    if series is None or series["average"] is None:
        return row
    provenance = "printed" if series["provenance"] == "digitised" else series["provenance"]
    return replace(row, published=series["average"], provenance=provenance)


def end_rows(name: str, found: Sequence[Result], readout: str, published: PublishedFigure) -> list[Comparison]:
    """Return two rows: the last phase's accuracy beside the paper's, and the forgetting, which papers do not print."""
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
    """Return rows with the difference of each variant's average from the reference's, beside the published difference.

    Differences are taken repeat by repeat. readouts: curve name -> (key of the Results, read-out). reference: the name
    of the curve to subtract.
    """
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
    """Return a drawing of accuracy against classes, with a curve and table rows for each entry of `readouts`.

    readouts: curve name -> (key of the Results, read-out). only_published: methods without runs, for which only the
    published line and average are shown.
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
