"""What draws readers' questions about the whole method: equal bytes, orderings, anchors, forgetting, open choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import nan

import numpy as np

from common.curves import AVERAGE, CLASSES, TOP1, average, mean_curve, paired, published_curve, through
from common.figures import Comparison, Curve, Drawing, Estimate, Panel, PublishedFigure, Results, estimate
from feature_adaptation.figures import TAKEN, TASK, average_rows, lines, memory_points, notes, origins
from feature_adaptation.presets import Setting
from feature_adaptation.questions import by_readout

TENFOLD = 10.0  # "at least an order of magnitude"


def claim(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """How many times less memory reaches what exemplar methods reach: the paper says at least ten."""
    points = memory_points(results)
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
    return Drawing([panel], rows, notes(s, *words, "no bar: features do not do as well at any size measured"))


Ordering = tuple[str, tuple[str, str], tuple[str, str]]
"""What is expected, and the (method, read-out) of the one above and the one below."""
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
    results: Results, wanted: Sequence[Ordering], step: int | None = None
) -> tuple[list[Curve], list[Comparison]]:
    """Bars and rows of averages' differences, paired by order and seed. With a `step`, keys are (method, step)."""
    found, rows = dict[str, Estimate](), []
    group = f"{step} classes a task" if step else ""
    for name, (a, of_a), (b, of_b) in wanted:
        keys = [(a, step), (b, step)] if step else [a, b]
        if both := paired([results.get(key, []) for key in keys]):
            found[name] = estimate([average(x, of_a) - average(y, of_b) for x, y in zip(*both, strict=True)])
            words = ", ".join(filter(None, [name, group]))
            rows.append(
                Comparison("difference of averages (points, paired by seed and order)", words, None, "", found[name])
            )
    return [through(group or "paired by seed", list(found), list(found.values()))] if found else [], rows


def orderings(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """What the method predicts of whole methods, at each number of classes a task."""
    found = [differences(results, ORDERINGS, step) for step in s.steps]
    panel = Panel(EXPECTED, "", "difference (points)", [c for curves, _ in found for c in curves], kind="bars")
    note = f"average incremental accuracy; iCaRL keeps {s.budget} images a class, FA all features"
    return Drawing([panel], [row for _, rows in found for row in rows], notes(s, note))


def map_orderings(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """What the method predicts of maps, all on one stage 1 with all features kept."""
    curves, rows = differences(results, MAP_ORDERINGS)
    panel = Panel(EXPECTED, "", "difference (points)", curves, kind="bars")
    note = "average incremental accuracy; maps share the run of stage 1 and the pairs, and keep all features"
    return Drawing([panel], rows, notes(s, note, "an interval across 0 decides nothing"))


def forgetting(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
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
        rows += average_rows(name, found, "cnn", published)
        rows.append(Comparison(TAKEN, name, None, "", estimate([line[-1] for line in taken])))
    panels.append(Panel("errors", TASK, "old images called new (%)", errors))
    return Drawing(panels, rows, notes(s, "all classes seen so far compete"))


def anchors(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Stage 1 without feature distillation is LwF.MC; iCaRL shares its hyper-parameters: the numbers that are known."""
    readouts = {"LwF.MC": ("LwF", "cnn", "LwF.MC"), "iCaRL-NME": ("iCaRL", "nme", "iCaRL")}
    readouts["iCaRL-CNN"] = ("iCaRL", "cnn", "hybrid1 (iCaRL CNN head)")
    curves, rows = [], []
    for name, (method, of, theirs) in readouts.items():
        found = {
            step: estimate([average(r, of) for r in results[method, step]])
            for step in s.steps
            if (method, step) in results
        }
        curves += [through(name, list(found), list(found.values()))] if found else []
        for step, e in found.items():
            value = published.value(theirs, step)
            rows.append(Comparison(f"{AVERAGE}, {step} classes a task", name, *value, e))
        curves += [replace(c, name=name) for c in published_curve(published, theirs)]
    panels = [Panel("iCaRL paper, Table 1a", "classes a task", AVERAGE, curves)]
    if lwf := results.get(("LwF", s.step)):
        x = [p["classes"] for p in lwf[0].phases()]
        port = published_curve(published.of("anchors-port"), "LwF.MC (port)")
        panels.append(
            Panel(f"{s.step} classes a task", CLASSES, TOP1, [mean_curve("LwF.MC", x, lines(lwf, "cnn")), *port])
        )
    note = (
        "published values are iCaRL's (learning rate 2.0, last ReLU kept) and a public port's, none is this paper's; "
        f"ours: learning rate {s.schedule.lr:g}, no last ReLU"
    )
    return Drawing(panels, rows, notes(s, note))


def choices(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """One open choice of stages 2 and 3 changed at a time."""
    return variants(s, results)


def controls(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """One open choice of stage 1 changed at a time."""
    return variants(s, results, f"hybrids keep {s.hybrids[0][0]} images a class too")


def variants(s: Setting, results: Results, *words: str) -> Drawing:
    """Averages of the feature classifier and of stage 1's own head, side by side."""
    panel, rows = by_readout(results, {"feature classifier": "cnn", "own head": "stage1"}, "one choice changed")
    return Drawing([panel], rows, notes(s, f"{s.small} features a class", *words))
