"""One function per figure or table of the paper: Results to a Drawing. No torch, no training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.curves import (
    AVERAGE,
    CLASSES,
    LAST,
    TOP1,
    Results,
    accuracy_figure,
    average,
    mean_curve,
    paired,
    paired_rows,
)
from common.figures import Comparison, Curve, Drawing, Panel, Published, comparable, estimate
from common.store import Result
from der.counts import mean_parameters, shares
from der.experiments import MASKED, UNPRUNED, WITH_MASKS
from der.presets import Setting

PUBLISHED = Published(Path(__file__).with_name("published.json"))
READOUTS = {name: "nme" if name == "iCaRL" else "cnn" for name in ("iCaRL", "UCIR", "BiC", "WA", UNPRUNED, MASKED)}
PARAMETERS, MILLION = "parameters, mean over steps (million)", 1e6
PRINTED = 0.1  # million: the paper prints one decimal, and counts a classifier of all classes throughout
PUBLISHED_ONLY = ("Bound", "PODNet", "RPSNet", "E2E", "TPCIL")
"""Rows of the tables without runs; Bound's are made by --only bound."""


def value(setting: Setting, entry: str, method: str, at: float | str) -> tuple[float | None, str]:
    """The published number of a method at one x, and its provenance; none of the quick preset."""
    return PUBLISHED.value(entry, method, at) if comparable(setting) else (None, "")


def curves(setting: Setting, results: Results, entry: str, title: str, readout: str = "cnn") -> Drawing:
    """Accuracy after every step; published lines are the official files' of DER."""
    names = {name: (name, readout if name != "iCaRL" else "nme") for name in READOUTS if results.get(name)}
    drawing = accuracy_figure(results, names, PUBLISHED, entry, title, comparable(setting))
    if readout == "top5":
        panels = [replace(p, y_label="top-5 accuracy (%)") for p in drawing.panels]
        drawing = replace(drawing, panels=panels)
    note = "iCaRL by nearest mean of exemplars, the others by their classifiers"
    return replace(drawing, note=note) if results.get("iCaRL") else drawing


def table(setting: Setting, results: Results, entry: str, steps: Sequence[int], base: bool) -> Drawing:
    """Tables 1 and 2: average incremental accuracy and parameters over the numbers of steps."""
    accuracy, sizes = list[Curve](), list[Curve]()
    rows = list[Comparison]()
    for name, readout in READOUTS.items():
        known = [n for n in steps if results.get(f"{name} {n}")]
        groups = [results[f"{name} {n}"] for n in known]
        if not known:
            continue
        for n, group in zip(known, groups, strict=True):
            ours = estimate([average(r, readout) for r in group])
            rows.append(Comparison(f"{AVERAGE}, {n} steps", name, *value(setting, entry, name, n), ours))
            last = estimate([r.curve(readout)[-1] for r in group])
            rows.append(Comparison(f"{LAST}, {n} steps", name, *value(setting, f"{entry}_last", name, n), last))
        if both := paired(groups):
            lines = zip(*[[average(r, readout) for r in g] for g in both], strict=True)
            accuracy.append(mean_curve(name, list(map(str, known)), list(lines)))
        if name in (UNPRUNED, MASKED):
            counted = [[mean_parameters(r) / MILLION for r in group] for group in groups]
            for n, values in zip(known, counted, strict=True):
                published = value(setting, f"{entry}_params", name, n)
                rows.append(Comparison(f"{PARAMETERS}, {n} steps", name, *published, estimate(values), PRINTED))
            means = [float(np.mean(v)) for v in counted]
            sizes.append(Curve(name, list(map(str, known)), means, n=len(groups[0])))
    if comparable(setting):
        for name in (*READOUTS, *PUBLISHED_ONLY):
            points = {n: value(setting, entry, name, n)[0] for n in steps}
            x = [str(n) for n, y in points.items() if y is not None]
            y = [y for y in points.values() if y is not None]
            accuracy += [Curve(name, x, y, published=True)] if x and name in (*READOUTS, "Bound") else []
            if name in PUBLISHED_ONLY:
                rows += [
                    Comparison(f"{AVERAGE}, {n} steps", name, *value(setting, entry, name, n), None)
                    for n in steps
                    if points[n] is not None
                ]
    title = "half of the classes as base" if base else "no base"
    panels = [
        Panel(title, "steps", AVERAGE, accuracy),
        Panel("", "steps", PARAMETERS, sizes, kind="bars", y_log=True),
    ]
    note = "iCaRL by nearest mean of exemplars; parameters of extractors and classifier, averaged over steps"
    return Drawing([p for p in panels if p.curves], rows, note)


def statistics(setting: Setting, results: Results, entries: Sequence[str], base: bool) -> Drawing:
    """Table 3: averages and last accuracies, top-1 and top-5, over one number of steps."""
    panels, rows = list[Panel](), list[Comparison]()
    for entry, metric in ((e, "top5" if e.endswith("top5") else "top1") for e in entries):
        label, lines = f"{'top-5' if metric == 'top5' else 'top-1'} accuracy (%)", list[Curve]()
        for name in (*READOUTS, *PUBLISHED_ONLY):
            found = results.get(name, [])
            readout = "top5" if metric == "top5" else READOUTS.get(name, "cnn")
            found = [r for r in found if readout in r.phases()[-1]["stages"][list(r.phases()[-1]["stages"])[-1]]]
            for which, take in (("average", average), ("last", lambda r, q: r.curve(q)[-1])):
                published = value(setting, entry, name, which)
                if found or published[0] is not None:
                    ours = estimate([take(r, readout) for r in found]) if found else None
                    rows.append(Comparison(f"{which} {label}", name, *published, ours))
            if found:
                lines.append(curve_of(name, found, readout))
        if lines:
            panels.append(Panel("after a base" if base else "no base", "number of classes", label, lines))
    return Drawing(panels, rows + parameter_rows(setting, results, base))


def curve_of(name: str, found: Sequence[Result], readout: str, label: str = "") -> Curve:
    """Accuracy after every step of one method, the average in the legend."""
    x = [p["classes"] for p in found[0].phases()]
    mean = estimate([average(r, readout) for r in found]).mean
    return mean_curve(label or name, x, [r.curve(readout) for r in found], f"{mean:.2f}")


def parameter_rows(setting: Setting, results: Results, base: bool) -> list[Comparison]:
    """Parameters of DER without and with pruning on ImageNet, averaged over steps."""
    entry, at = "table3_params", f"ImageNet-{setting.classes}"
    if base:
        entry, at = "imagenet100_b50_params", "mean over steps"
    rows = []
    for name in (UNPRUNED, MASKED):
        if found := results.get(name):
            ours = estimate([mean_parameters(r) / MILLION for r in found])
            rows.append(Comparison(PARAMETERS, name, *value(setting, entry, name, at), ours, PRINTED))
    return rows


SHARE = "share of an unpruned extractor (%)"
KEPT = {"kept by pruning": "parameters", "kept by fresh masks": "initial"}
"""Keys of `shares`, by the names of their lines."""


def share_rows(name: str, found: Sequence[Result]) -> list[Comparison]:
    """Shares of weights and multiply-additions that pruning kept, and that the masks kept before training."""
    quantities = {
        "kept parameters (% of unpruned extractors)": "parameters",
        "kept multiply-additions (% of unpruned extractors)": "flops",
        "weights kept by masks at initialisation (%)": "initial",
    }
    return [
        Comparison(quantity, name, None, "", estimate([float(np.mean(shares(r, key))) for r in found]), 0.0)
        for quantity, key in quantities.items()
        if found
    ]


def ablation(setting: Setting, results: Results) -> Drawing:
    """The components one by one: expansion, the auxiliary loss, masks."""
    entry, names = "ablation_b0_10", {name: (name, "cnn") for name in results}
    drawing = accuracy_figure(results, names, PUBLISHED, "", f"{setting.steps} steps", False)
    rows = []
    for row in drawing.comparisons:
        which = {AVERAGE: "average", LAST: "last"}.get(row.quantity, "")
        published = value(setting, entry, row.method, which)
        if row.method == WITH_MASKS and which:
            published = value(setting, "table1" if which == "average" else "table1_last", MASKED, 10)
        rows.append(replace(row, published=published[0], provenance=published[1]))
    reference = "+ E.R. + Aux"
    extra = paired_rows(results, names, reference, PUBLISHED, "") if results.get(reference) else []
    return replace(drawing, comparisons=[*rows, *extra, *share_rows(WITH_MASKS, results.get(WITH_MASKS, []))])


def small(setting: Setting, results: Results) -> Drawing:
    """The appendix's small extractor."""
    names = {name: (name, READOUTS[name]) for name in READOUTS if results.get(name)}
    title = f"{setting.small_network}, {setting.steps} steps"
    drawing = accuracy_figure(results, names, PUBLISHED, "", title, False)
    rows = []
    for row in drawing.comparisons:
        published = value(setting, "table7_resnet32", row.method, 10) if row.quantity == AVERAGE else (None, "")
        rows.append(replace(row, published=published[0], provenance=published[1]))
    return replace(drawing, comparisons=[*rows, *share_rows(MASKED, results.get(MASKED, []))])


def bound(setting: Setting, results: Results) -> Drawing:
    """Bound: joint training on the classes of every step; its average for each protocol."""
    counts = sorted(map(int, results))
    groups = dict(zip(counts, paired([results[str(n)] for n in counts]), strict=False))
    joint = {n: [r.curve("cnn")[-1] for r in group] for n, group in groups.items()}
    if not joint:
        return Drawing([], [], "its runs share no repeat")
    line = mean_curve("Bound", counts, list(zip(*joint.values(), strict=True)))
    rows = [Comparison(f"accuracy at {counts[-1]} classes (%)", "Bound", None, "", estimate(joint[counts[-1]]))]
    for entry, protocols, first in (("table1", setting.b0, 0), ("table2", setting.b50, setting.classes // 2)):
        for n in protocols:
            wanted = steps_of(setting.classes, first, n)
            if all(c in joint for c in wanted):
                averages = [float(np.mean(repeat)) for repeat in zip(*(joint[c] for c in wanted), strict=True)]
                quantity = f"{AVERAGE}, {n} steps{' after a base' if first else ''}"
                rows.append(Comparison(quantity, "Bound", *value(setting, entry, "Bound", n), estimate(averages)))
    return Drawing([Panel("all data of the classes seen", CLASSES, TOP1, [line])], rows)


def steps_of(classes: int, base: int, steps: int) -> list[int]:
    """Classes seen after each step, a base counted as one."""
    size = (classes - base) // steps
    return [base + size * i for i in range(0 if base else 1, steps + 1)]
