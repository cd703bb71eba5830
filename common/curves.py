"""Accuracy-against-classes curves that the class-incremental papers share, published lines beside ours. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from common.figures import Comparison, Curve, Drawing, Panel, Published, estimate
from common.metrics import average_incremental_accuracy, forgetting
from common.store import Result

CLASSES, TOP1 = "number of classes", "top-1 accuracy (%)"
AVERAGE, LAST = "average incremental accuracy (%)", "accuracy after the last phase (%)"
FORGETTING = "forgetting (points)"
Results = Mapping[str, list[Result]]


def mean_curve(name: str, x: Sequence[float | str], repeats: Sequence[Sequence[float]], legend: str = "") -> Curve:
    """The mean of one line a repeat, with its 95 % interval at each point."""
    stats = [estimate(column) for column in zip(*repeats, strict=True)]
    interval = [s.interval for s in stats] if len(repeats) > 1 else None
    return Curve(name, x, [s.mean for s in stats], interval, len(repeats), legend=legend)


def accuracy_curve(name: str, x: Sequence[float], repeats: Sequence[Sequence[float]]) -> tuple[Curve, Comparison]:
    """Accuracy after each phase with the average in the legend, and that average as a row without published value."""
    average = estimate([average_incremental_accuracy(line) for line in repeats])
    return mean_curve(name, x, repeats, f"{average.mean:.2f}"), Comparison(AVERAGE, name, None, "", average)


def published_curve(published: Published, figure: str, name: str) -> list[Curve]:
    """The paper's line, if its points are known; empty otherwise."""
    series = published.series(figure, name)
    if series is None or not series["y"]:
        return []
    legend = f"{series['average']:.2f}" if series["average"] is not None else ""
    return [Curve(name, series["x"], series["y"], published=True, legend=legend)]


def average_row(row: Comparison, published: Published, figure: str) -> Comparison:
    """The row with the paper's average filled in; averages are printed in legends even where points are digitised."""
    series = published.series(figure, row.method)
    if series is None or series["average"] is None:
        return row
    provenance = "printed" if series["provenance"] == "digitised" else series["provenance"]
    return replace(row, published=series["average"], provenance=provenance)


def end_rows(name: str, found: Sequence[Result], readout: str, published: Published, figure: str) -> list[Comparison]:
    """Accuracy after the last phase beside the paper's, and forgetting (`metrics.forgetting`), which papers omit."""
    series = published.series(figure, name)
    known = series if series and series["y"] and series["x"][-1] == found[0].phases()[-1]["classes"] else None
    value, provenance = (known["y"][-1], known["provenance"]) if known else (None, "")
    last = estimate([r.curve(readout)[-1] for r in found])
    matrices = [[r.readout(readout, p)["groups"] for p in range(len(r.phases()))] for r in found]
    return [
        Comparison(LAST, name, value, provenance, last),
        Comparison(FORGETTING, name, None, "", estimate([forgetting(m) for m in matrices])),
    ]


def accuracy_figure(
    results: Results,
    readouts: Mapping[str, tuple[str, str]],
    published: Published,
    figure: str,
    title: str,
    overlay: bool,
    only_published: Sequence[str] = (),
) -> Drawing:
    """Accuracy against classes for each `readouts` entry: curve name -> (Results' name, read-out).

    overlay: draw the published lines too, also of the methods `only_published`, which have no runs here.
    """
    curves, rows = [], []
    for name, (label, readout) in readouts.items():
        if found := results.get(label):
            x = [p["classes"] for p in found[0].phases()]
            curve, row = accuracy_curve(name, x, [r.curve(readout) for r in found])
            curves.append(curve)
            rows += [average_row(row, published, figure), *end_rows(name, found, readout, published, figure)]
        curves += published_curve(published, figure, name) if overlay else []
    for name in only_published if overlay else ():
        curves += published_curve(published, figure, name)
    return Drawing([Panel(title, CLASSES, TOP1, curves)], rows)
