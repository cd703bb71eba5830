"""Draw the paper's tables and curves of accuracy, from finished Runs and from what the paper prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from common.drawing.curves import (
    AVERAGE,
    CLASSES,
    LAST,
    TOP1,
    accuracy_figure,
    average,
    mean_curve,
    paired,
    paired_rows,
    published_points,
    through,
)
from common.drawing.figures import Comparison, Curve, Drawing, Panel, PublishedFigure, Results, estimate
from common.metrics import average_incremental_accuracy
from common.store import Result
from der.methods import MASKED, UNPRUNED
from der.reproduce.counts import mean_parameters, mean_share
from der.reproduce.presets import Setting

READOUTS = {name: "nme" if name == "iCaRL" else "cnn" for name in ("iCaRL", "UCIR", "BiC", "WA", UNPRUNED, MASKED)}
PUBLISHED_ONLY = ("Bound", "PODNet", "RPSNet", "E2E", "TPCIL")
"""Rows of the tables that have published numbers only. Bound has runs, in the figure `bound`."""
WITH_AUXILIARY, WITH_MASKS = "+ E.R. + Aux", "+ E.R. + Aux + masks"
PARAMETERS, MILLION = "parameters, mean over steps (million)", 1e6
PRINTED = 0.1  # tolerance, in millions: the paper prints one decimal, and always counts a classifier of all classes
TOP5 = "top-5 accuracy (%)"
NEAREST = "iCaRL by nearest mean of exemplars"
SHARES = {
    "kept parameters (% of unpruned extractors)": "parameters",
    "kept multiply-additions (% of unpruned extractors)": "flops",
    "weights kept by masks at initialisation (%)": "initial",
}
"""Keys of `counts.shares` by the names of their rows."""


def with_published(row: Comparison, value: tuple[float | None, str]) -> Comparison:
    """Return the row with a published number and its provenance."""
    return replace(row, published=value[0], provenance=value[1])


def published_statistic(row: Comparison, printed: PublishedFigure) -> tuple[float | None, str]:
    """Return a row's published number and its provenance, from an entry with an average and a last accuracy alone."""
    return printed.value(row.method, {AVERAGE: "average", LAST: "last"}.get(row.quantity, ""))


def last(result: Result, readout: str) -> float:
    """Return the accuracy of a read-out after the last step."""
    return result.curve(readout)[-1]


def millions(found: Sequence[Result]) -> list[float]:
    """Return the parameters of each Result in millions, averaged over steps."""
    return [mean_parameters(r) / MILLION for r in found]


def share_rows(name: str, found: Sequence[Result]) -> list[Comparison]:
    """List the shares of parameters and multiply-additions kept by pruning, and of weights kept by untrained masks."""
    return [
        Comparison(quantity, name, None, "", estimate([mean_share(r, key) for r in found]), 0.0)
        for quantity, key in SHARES.items()
        if found
    ]


def table(s: Setting, results: Results, published: PublishedFigure, base: bool = False) -> Drawing:
    """Draw Tables 1 and 2: average incremental accuracy and parameters over the numbers of steps."""
    steps, end = s.b50 if base else s.b0, published.figure(f"{published.id}-last")
    lines, rows = list[Curve](), list[Comparison]()
    for name, readout in READOUTS.items():
        found = {n: results[name, n] for n in steps if results.get((name, n))}
        for n, group in found.items():
            for quantity, measure, printed in ((AVERAGE, average, published), (LAST, last, end)):
                ours = estimate([measure(r, readout) for r in group])
                rows.append(Comparison(f"{quantity}, {n} steps", name, *printed.value(name, n), ours))
        if both := paired(list(found.values())):
            repeats = zip(*[[average(r, readout) for r in group] for group in both], strict=True)
            lines.append(mean_curve(name, list(map(str, found)), list(repeats)))
    for name in (*READOUTS, *PUBLISHED_ONLY):
        values = {n: published.value(name, n) for n in steps}
        if name in (*READOUTS, "Bound"):
            lines += published_points(name, list(map(str, steps)), [value for value, _ in values.values()])
        if name in PUBLISHED_ONLY:
            printed_only = {n: value for n, value in values.items() if value[0] is not None}
            rows += [Comparison(f"{AVERAGE}, {n} steps", name, *v, None) for n, v in printed_only.items()]
    bars, counts = parameters(results, published.figure(f"{published.id}-params"), steps)
    panels = [
        Panel("half of the classes as base" if base else "no base", "steps", AVERAGE, lines),
        Panel("", "steps", PARAMETERS, bars, kind="bars", y_log=True),
    ]
    note = f"{NEAREST}; parameters of extractors and classifier, averaged over steps"
    return Drawing([p for p in panels if p.curves], [*rows, *counts], note)


def parameters(
    results: Results, printed: PublishedFigure, steps: Sequence[int]
) -> tuple[list[Curve], list[Comparison]]:
    """Return bars and rows of DER's parameters over the numbers of steps, without and with pruning."""
    bars, rows = list[Curve](), list[Comparison]()
    for name in (UNPRUNED, MASKED):
        counted = {n: estimate(millions(found)) for n in steps if (found := results.get((name, n)))}
        for n, ours in counted.items():
            rows.append(Comparison(f"{PARAMETERS}, {n} steps", name, *printed.value(name, n), ours, PRINTED))
        bars += [through(name, list(map(str, counted)), list(counted.values()))] if counted else []
    return bars, rows


def curves(s: Setting, results: Results, published: PublishedFigure, base: bool = False) -> Drawing:
    """Draw accuracy after every step, with a panel for each number of steps.

    DER's published lines are from official files.
    """
    panels, rows = list[Panel](), list[Comparison]()
    for n in s.b50 if base else s.b0:
        readouts = {name: ((name, n), readout) for name, readout in READOUTS.items()}
        drawing = accuracy_figure(results, readouts, published.figure(f"{published.id}-{n}"), f"{n} steps")
        panels += [panel for panel in drawing.panels if panel.curves]
        rows += [replace(row, quantity=f"{row.quantity}, {n} steps") for row in drawing.comparisons]
    note = f"{NEAREST}, the others by their classifiers" if any(name == "iCaRL" for name, _ in results) else ""
    return Drawing(panels, rows, note)


def photos(s: Setting, results: Results, published: PublishedFigure, base: bool = False) -> Drawing:
    """Draw Table 3: accuracy on ImageNet after every step, top-1 and top-5, and parameters.

    An official file has DER's curve in one of the two metrics. Its average is preferred to a quoted one.
    """
    panels, rows = list[Panel](), list[Comparison]()
    for metric, label in (("top1", TOP1), ("top5", TOP5)):
        printed = published.figure(f"{published.id}-{metric}")
        readouts = {name: ((name, s.steps), "top5" if metric == "top5" else READOUTS[name]) for name in READOUTS}
        title = "half of the classes as base" if base else "no base"
        drawing = accuracy_figure(results, readouts, printed.figure(f"{printed.id}-curve"), title)
        panels.append(replace(drawing.panels[0], y_label=label))
        found = [
            row if row.published else with_published(row, published_statistic(row, printed))
            for row in drawing.comparisons
        ]
        missing = [name for name in (*READOUTS, *PUBLISHED_ONLY) if not results.get((name, s.steps))]
        for row in (Comparison(which, name, None, "", None) for name in missing for which in (AVERAGE, LAST)):
            if (value := published_statistic(row, printed))[0] is not None:
                found.append(with_published(row, value))
        rows += [replace(row, quantity=f"{row.quantity}, {label.partition(' ')[0]}") for row in found]
    for name in (UNPRUNED, MASKED):
        if counted := results.get((name, s.steps)):
            value = published.figure(f"{published.id}-params").value(name, "mean over steps")
            rows.append(Comparison(PARAMETERS, name, *value, estimate(millions(counted)), PRINTED))
    return Drawing(panels, rows)


def components(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw the ablation: expansion, auxiliary loss and masks, one by one. Table 1 prints the numbers with masks."""
    nothing, readouts = published.figure(""), {name: (name, "cnn") for name in results}
    drawing = accuracy_figure(results, readouts, nothing, f"{s.steps} steps")
    rows = list[Comparison]()
    for row in drawing.comparisons:
        table = published.figure({AVERAGE: "table1", LAST: "table1-last"}.get(row.quantity, ""))
        value = table.value(MASKED, s.steps) if row.method == WITH_MASKS else published_statistic(row, published)
        rows.append(with_published(row, value))
    if results.get(WITH_AUXILIARY):
        rows += paired_rows(results, readouts, WITH_AUXILIARY, nothing)
    return replace(drawing, comparisons=[*rows, *share_rows(WITH_MASKS, results.get(WITH_MASKS, []))])


def small(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Table 7 of the appendix: the small extractor."""
    readouts = {name: (name, readout) for name, readout in READOUTS.items()}
    drawing = accuracy_figure(results, readouts, published.figure(""), f"{s.small_network}, {s.steps} steps")
    rows = [
        with_published(row, published.value(row.method, s.steps)) if row.quantity == AVERAGE else row
        for row in drawing.comparisons
    ]
    return replace(drawing, comparisons=[*rows, *share_rows(MASKED, results.get(MASKED, []))])


def joint(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Bound, joint training on the classes of every step, and list its average for each protocol."""
    counts = sorted(n for _, n in results)
    groups = dict(zip(counts, paired([results["Bound", n] for n in counts]), strict=False))
    found = {n: [last(r, "cnn") for r in group] for n, group in groups.items()}
    if not found:
        return Drawing([], [], "its runs share no repeat")
    line = mean_curve("Bound", counts, list(zip(*found.values(), strict=True)))
    rows = [Comparison(f"accuracy at {counts[-1]} classes (%)", "Bound", None, "", estimate(found[counts[-1]]))]
    for entry, protocols, base in (("table1", s.b0, False), ("table2", s.b50, True)):
        for n in protocols:
            seen = s.seen(n, base)
            if set(seen) <= found.keys():
                repeats = zip(*(found[c] for c in seen), strict=True)
                ours = estimate([average_incremental_accuracy(repeat) for repeat in repeats])
                value = published.figure(entry).value("Bound", n)
                quantity = f"{AVERAGE}, {n} steps{' after a base' if base else ''}"
                rows.append(Comparison(quantity, "Bound", *value, ours))
    return Drawing([Panel("all data of the classes seen", CLASSES, TOP1, [line])], rows)
