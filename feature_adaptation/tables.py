"""What readers asked about the method as a whole: equal bytes, orderings, anchors, forgetting, open choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import nan

import numpy as np

from common.curves import AVERAGE, CLASSES, TOP1, Results, average, mean_curve, paired, published_curve
from common.figures import Comparison, Curve, Drawing, Estimate, Panel, estimate
from feature_adaptation import experiments as ex
from feature_adaptation.figures import PUBLISHED, TASK, average_rows, bars, lines, memory_points, origins
from feature_adaptation.presets import Setting

TENFOLD = 10.0  # "at least an order of magnitude"


def claim(s: Setting, results: Results) -> Drawing:
    """How many times less memory reaches what exemplar methods reach: the paper says at least ten."""
    points = memory_points(s, results)
    ours = [p for p in points if p.method == "FA (MLP)"]
    theirs = [p for p in points if p.images and not p.features]
    names = [f"{p.method}, P = {p.images}" for p in theirs]
    curves, rows, words = [], [], []
    for label, jpeg in (("uncompressed", False), ("as JPEGs", True)):
        ratios = []
        for name, p in zip(names, theirs, strict=True):
            enough = [o.megabytes(s) for o in ours if np.mean(o.averages) >= np.mean(p.averages)]
            ratios.append(p.megabytes(s, jpeg) / min(enough) if enough else nan)
            quantity = f"memory of images {label} / of features that do as well"
            found = Estimate(ratios[-1], nan, nan, len(p.averages)) if enough else None  # one ratio, of means
            rows.append(Comparison(quantity, name, None, "", found, 0.0))
        if names:
            curves.append(Curve(f"images {label}", names, ratios))
        held = sum(ratio >= TENFOLD - 1e-9 for ratio in ratios)
        words.append(f"images {label}: tenfold or more at {held} of {len(ratios)} points")
    title = "least measured memory of FA (MLP) that does as well; the claim is 10 times or more"
    panel = Panel(title, "", "times less memory", curves, kind="bars")
    return Drawing([panel], rows, "; ".join([*words, "no bar: features do not do as well at any size measured"]))


Ordering = tuple[str, tuple[str, str], tuple[str, str]]
"""What is expected, and the (runs, read-out) of the one above and the one below."""
ORDERINGS: tuple[Ordering, ...] = (
    ("LwF > fine-tuning", ("LwF", "cnn"), ("fine-tuning", "cnn")),
    ("FA (no map) > LwF", ("FA (no map)", "cnn"), ("LwF", "cnn")),
    ("FA (MLP) > FA (no map)", ("FA (MLP)", "cnn"), ("FA (no map)", "cnn")),
    ("FA (MLP) > frozen extractor", ("FA (MLP)", "cnn"), ("frozen extractor", "cnn")),
    ("true features > FA (MLP)", ("true features", "cnn"), ("FA (MLP)", "cnn")),
    ("FA (MLP) > iCaRL-CNN", ("FA (MLP)", "cnn"), ("iCaRL", "cnn")),
)
MAP_ORDERINGS: tuple[Ordering, ...] = (
    ("no map > own head", ("identity", "cnn"), ("identity", "stage1")),
    ("MLP > no map", ("mlp", "cnn"), ("identity", "cnn")),
    ("linear > no map", ("linear", "cnn"), ("identity", "cnn")),
    ("MLP > SDC", ("mlp", "cnn"), ("sdc", "cnn")),
    ("MLP > linear", ("mlp", "cnn"), ("linear", "cnn")),
    ("MLP > residual MLP", ("mlp", "cnn"), ("residual", "cnn")),
    ("L_sim + L_cls > L_sim", ("mlp", "cnn"), ("mlp, L_sim alone", "cnn")),
    ("MLP on true pairs > MLP", ("mlp on true pairs", "cnn"), ("mlp", "cnn")),
    ("true features > MLP", ("true features", "cnn"), ("mlp", "cnn")),
)
EXPECTED = "expected to be positive"


def differences(
    results: Results, wanted: Sequence[Ordering], suffix: str, group: str
) -> tuple[list[Curve], list[Comparison]]:
    """Bars and rows of averages' differences, paired by class order and seed. suffix: of the runs' names."""
    names, found, rows = [], [], []
    for name, (a, of_a), (b, of_b) in wanted:
        if both := paired([results.get(f"{a}{suffix}", []), results.get(f"{b}{suffix}", [])]):
            names.append(name)
            found.append([average(x, of_a) - average(y, of_b) for x, y in zip(*both, strict=True)])
            quantity = "difference of averages (points, paired by seed and order)"
            rows.append(Comparison(quantity, f"{name}{', ' if suffix else ''}{group}", None, "", estimate(found[-1])))
    return list(bars("", names, {group or "paired by seed": found}, "").curves) if names else [], rows


def orderings(s: Setting, results: Results) -> Drawing:
    """What the method predicts of whole methods, at each number of classes a task."""
    curves: list[Curve] = []
    rows: list[Comparison] = []
    for step in s.steps:
        more, listed = differences(results, ORDERINGS, f" {step}", f"{step} classes a task")
        curves, rows = [*curves, *more], [*rows, *listed]
    panel = Panel(EXPECTED, "", "difference (points)", curves, kind="bars")
    note = f"average incremental accuracy; iCaRL keeps {s.budget} images a class, FA all features"
    return Drawing([panel], rows, note)


def map_orderings(s: Setting, results: Results) -> Drawing:
    """What the method predicts of maps, all on one stage 1 with all features kept."""
    curves, rows = differences(results, MAP_ORDERINGS, "", "")
    panel = Panel(EXPECTED, "", "difference (points)", curves, kind="bars")
    note = "average incremental accuracy; maps share the run of stage 1 and the pairs, and keep all features"
    return Drawing([panel], rows, f"{note}; an interval across 0 decides nothing")


def forgetting(s: Setting, results: Results) -> Drawing:
    """Accuracy on each task's classes as later ones come, and how often old classes are taken for new ones."""
    titles = {"own head": "the network's own head", "FA (MLP)": "classifier on adapted features"}
    panels, rows, errors = [], [], []
    for name, title in titles.items():
        if not (found := results.get(name)):
            continue
        count = len(found[0].phases())
        curves = []
        for i in origins(count):
            repeats = [[r.readout("cnn", t)["groups"][i] for t in range(i, count)] for r in found]
            curves.append(mean_curve(f"of task {i + 1}", list(range(i + 1, count + 1)), repeats))
        panels.append(Panel(title, TASK, "accuracy on a task's classes (%)", curves, y_range=(0, 100)))
        taken = [[r.readout("cnn", t)["old_to_new"] for t in range(1, count)] for r in found]
        errors.append(mean_curve(name, list(range(2, count + 1)), taken))
        rows += average_rows(name, found, "cnn")
        end = estimate([line[-1] for line in taken])
        rows.append(Comparison("old images called new, last task (%)", name, None, "", end))
    panels.append(Panel("errors", TASK, "old images called new (%)", errors))
    return Drawing(panels, rows, "all classes seen so far compete")


def anchors(s: Setting, results: Results) -> Drawing:
    """Stage 1 without feature distillation is LwF.MC; iCaRL shares its hyper-parameters: the numbers that are known."""
    readouts = {"LwF.MC": ("LwF", "cnn", "LwF.MC"), "iCaRL-NME": ("iCaRL", "nme", "iCaRL")}
    readouts["iCaRL-CNN"] = ("iCaRL", "cnn", "hybrid1 (iCaRL CNN head)")
    overlay = s.preset == "cifar"
    curves, rows = [], []
    for name, (label, of, theirs) in readouts.items():
        known = {step: found for step in s.steps if (found := results.get(f"{label} {step}"))}
        columns = [[average(r, of) for r in found] for found in known.values()]
        n = min(map(len, columns), default=0)
        if n:
            curves.append(mean_curve(name, list(known), [[c[i] for c in columns] for i in range(n)]))
        for step, column in zip(known, columns, strict=True):
            value = PUBLISHED.value("anchors", theirs, step) if overlay else (None, "")
            rows.append(Comparison(f"{AVERAGE}, {step} classes a task", name, *value, estimate(column)))
        curves += [replace(c, name=name) for c in published_curve(PUBLISHED, "anchors", theirs)] if overlay else []
    panels = [Panel("iCaRL paper, Table 1a", "classes a task", AVERAGE, curves)]
    if found := results.get(f"LwF {s.step}"):
        x = [p["classes"] for p in found[0].phases()]
        more = [mean_curve("LwF.MC", x, lines(found, "cnn"))]
        port = published_curve(PUBLISHED, "anchors-port", "LwF.MC (port)") if overlay else []
        panels.append(Panel(f"{s.step} classes a task", CLASSES, TOP1, [*more, *port]))
    note = (
        "published values are iCaRL's (learning rate 2.0, last ReLU kept) and a public port's, none is this paper's; "
        f"ours: learning rate {s.schedule.lr:g}, no last ReLU"
    )
    return Drawing(panels, rows, note)


def choices(s: Setting, results: Results) -> Drawing:
    """One open choice of stages 2 and 3 changed at a time."""
    return variants(s, results, list(ex.choices(s)), "")


def controls(s: Setting, results: Results) -> Drawing:
    """One open choice of stage 1 changed at a time."""
    return variants(s, results, list(ex.controls(s)), f"; hybrids keep {s.hybrids[0][0]} images a class too")


def variants(s: Setting, results: Results, wanted: Sequence[str], note: str) -> Drawing:
    """Averages of the feature classifier and of stage 1's own head, side by side."""
    names = [name for name in wanted if results.get(name)]
    groups = {"feature classifier": "cnn", "own head": "stage1"}
    values = {label: [[average(r, of) for r in results[name]] for name in names] for label, of in groups.items()}
    rows = [
        Comparison(f"{AVERAGE}, {label}", name, None, "", estimate(v))
        for label, columns in values.items()
        for name, v in zip(names, columns, strict=True)
    ]
    return Drawing([bars("one choice changed", names, values, AVERAGE)], rows, f"{s.small} features a class{note}")
