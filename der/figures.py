"""What draws the paper's tables and curves of accuracy: finished Runs, and what the paper prints, to a Drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from common.curves import (
    AVERAGE,
    CLASSES,
    LAST,
    TOP1,
    accuracy_curve,
    accuracy_figure,
    average,
    mean_curve,
    paired,
    paired_rows,
    published_points,
    through,
)
from common.figures import Comparison, Curve, Drawing, Panel, PublishedFigure, Results, estimate
from common.metrics import average_incremental_accuracy
from common.store import Result
from der.counts import mean_parameters, mean_share
from der.methods import MASKED, UNPRUNED
from der.presets import Setting

READOUTS = {name: "nme" if name == "iCaRL" else "cnn" for name in ("iCaRL", "UCIR", "BiC", "WA", UNPRUNED, MASKED)}
PUBLISHED_ONLY = ("Bound", "PODNet", "RPSNet", "E2E", "TPCIL")
"""Rows of the tables without runs; Bound's are made by --only bound."""
WITH_AUXILIARY, WITH_MASKS = "+ E.R. + Aux", "+ E.R. + Aux + masks"
PARAMETERS, MILLION = "parameters, mean over steps (million)", 1e6
PRINTED = 0.1  # million: the paper prints one decimal, and counts a classifier of all classes throughout
TOP5 = "top-5 accuracy (%)"
NEAREST = "iCaRL by nearest mean of exemplars"
SHARES = {
    "kept parameters (% of unpruned extractors)": "parameters",
    "kept multiply-additions (% of unpruned extractors)": "flops",
    "weights kept by masks at initialisation (%)": "initial",
}
"""Keys of `counts.shares`, by the names of their rows."""


def beside(row: Comparison, known: tuple[float | None, str]) -> Comparison:
    """The row with a published number and its provenance."""
    return replace(row, published=known[0], provenance=known[1])


def last(result: Result, readout: str) -> float:
    """Accuracy of a read-out after the last step."""
    return result.curve(readout)[-1]


def measured(result: Result, readout: str) -> bool:
    """Whether a Result has a read-out."""
    *_, stage = result.phases()[-1]["stages"].values()
    return readout in stage


def millions(found: Sequence[Result]) -> list[float]:
    """Parameters of each Result in millions, averaged over steps."""
    return [mean_parameters(r) / MILLION for r in found]


def share_rows(name: str, found: Sequence[Result]) -> list[Comparison]:
    """Shares of weights and multiply-additions that pruning kept, and that the masks kept before training."""
    return [
        Comparison(quantity, name, None, "", estimate([mean_share(r, key) for r in found]), 0.0)
        for quantity, key in SHARES.items()
        if found
    ]


def table(s: Setting, results: Results, published: PublishedFigure, base: bool = False) -> Drawing:
    """Tables 1 and 2: average incremental accuracy and parameters over the numbers of steps."""
    steps = s.b50 if base else s.b0
    names, end, size = (
        list(map(str, steps)),
        published.of(f"{published.id}_last"),
        published.of(f"{published.id}_params"),
    )
    accuracy, sizes, rows = list[Curve](), list[Curve](), list[Comparison]()
    for name, readout in READOUTS.items():
        found = {n: results[name, n] for n in steps if results.get((name, n))}
        for n, group in found.items():
            for quantity, of, printed in ((AVERAGE, average, published), (LAST, last, end)):
                ours = estimate([of(r, readout) for r in group])
                rows.append(Comparison(f"{quantity}, {n} steps", name, *printed.value(name, n), ours))
        if both := paired(list(found.values())):
            lines = zip(*[[average(r, readout) for r in group] for group in both], strict=True)
            accuracy.append(mean_curve(name, list(map(str, found)), list(lines)))
        if found and name in (UNPRUNED, MASKED):
            counted = {n: estimate(millions(group)) for n, group in found.items()}
            rows += [
                Comparison(f"{PARAMETERS}, {n} steps", name, *size.value(name, n), ours, PRINTED)
                for n, ours in counted.items()
            ]
            sizes.append(through(name, list(map(str, counted)), list(counted.values())))
    for name in (*READOUTS, *PUBLISHED_ONLY):
        values = [published.value(name, n) for n in steps]
        if name in (*READOUTS, "Bound"):
            accuracy += published_points(name, names, [value for value, _ in values])
        if name in PUBLISHED_ONLY:
            rows += [
                Comparison(f"{AVERAGE}, {n} steps", name, *value, None)
                for n, value in zip(steps, values, strict=True)
                if value[0] is not None
            ]
    panels = [
        Panel("half of the classes as base" if base else "no base", "steps", AVERAGE, accuracy),
        Panel("", "steps", PARAMETERS, sizes, kind="bars", y_log=True),
    ]
    note = f"{NEAREST}; parameters of extractors and classifier, averaged over steps"
    return Drawing([p for p in panels if p.curves], rows, note)


def photos(s: Setting, results: Results, published: PublishedFigure, base: bool = False) -> Drawing:
    """Table 3: averages and last accuracies, top-1 and top-5, over one number of steps."""
    panels, rows = list[Panel](), list[Comparison]()
    for metric, label in (("top1", TOP1), ("top5", TOP5)):
        printed, lines = published.of(f"{published.id}_{metric}"), list[Curve]()
        for name in (*READOUTS, *PUBLISHED_ONLY):
            readout = "top5" if metric == "top5" else READOUTS.get(name, "cnn")
            found = [r for r in results.get((name, s.steps), []) if measured(r, readout)]
            for which, of in (("average", average), ("last", last)):
                value = printed.value(name, which)
                if found or value[0] is not None:
                    ours = estimate([of(r, readout) for r in found]) if found else None
                    rows.append(Comparison(f"{which} {label}", name, *value, ours))
            if found:
                lines.append(accuracy_curve(name, s.seen(s.steps, base), [r.curve(readout) for r in found])[0])
        if lines:
            panels.append(Panel("after a base" if base else "no base", CLASSES, label, lines))
    size = published.of(f"{published.id}_params")
    for name in (UNPRUNED, MASKED):
        if expanded := results.get((name, s.steps)):
            value = size.value(name, "mean over steps")
            rows.append(Comparison(PARAMETERS, name, *value, estimate(millions(expanded)), PRINTED))
    return Drawing(panels, rows)


def curves(s: Setting, results: Results, published: PublishedFigure, steps: int, readout: str = "cnn") -> Drawing:
    """Accuracy after every step; published lines are the official files' of DER."""
    names = {
        name: ((name, steps), readout if name != "iCaRL" else "nme") for name in READOUTS if results.get((name, steps))
    }
    drawing = accuracy_figure(results, names, published, f"{steps} steps")
    if readout == "top5":
        panels = [replace(p, y_label="top-5 accuracy (%)") for p in drawing.panels]
        drawing = replace(drawing, panels=panels)
    note = "iCaRL by nearest mean of exemplars, the others by their classifiers"
    return replace(drawing, note=note) if results.get(("iCaRL", steps)) else drawing


def components(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Ablation: expansion, the auxiliary loss and masks, one by one."""
    nothing, readouts = published.of(""), {name: (name, "cnn") for name in results}
    drawing = accuracy_figure(results, readouts, nothing, f"{s.steps} steps")
    rows = list[Comparison]()
    for row in drawing.comparisons:
        value = published.value(row.method, {AVERAGE: "average", LAST: "last"}.get(row.quantity, ""))
        if row.method == WITH_MASKS:  # the paper's Table 1 has it
            entry = {AVERAGE: "table1", LAST: "table1_last"}.get(row.quantity, "")
            value = published.of(entry).value(MASKED, s.steps)
        rows.append(beside(row, value))
    if results.get(WITH_AUXILIARY):
        rows += paired_rows(results, readouts, WITH_AUXILIARY, nothing)
    return replace(drawing, comparisons=[*rows, *share_rows(WITH_MASKS, results.get(WITH_MASKS, []))])


def small(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Table 7 of the appendix: the small extractor."""
    readouts = {name: (name, readout) for name, readout in READOUTS.items()}
    drawing = accuracy_figure(results, readouts, published.of(""), f"{s.small_network}, {s.steps} steps")
    rows = [
        beside(row, published.value(row.method, s.steps)) if row.quantity == AVERAGE else row
        for row in drawing.comparisons
    ]
    return replace(drawing, comparisons=[*rows, *share_rows(MASKED, results.get(MASKED, []))])


def joint(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Bound: joint training on the classes of every step; its average for each protocol."""
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
                ours = estimate([average_incremental_accuracy(line) for line in repeats])
                value = published.of(entry).value("Bound", n)
                quantity = f"{AVERAGE}, {n} steps{' after a base' if base else ''}"
                rows.append(Comparison(quantity, "Bound", *value, ours))
    return Drawing([Panel("all data of the classes seen", CLASSES, TOP1, [line])], rows)
