"""The functions that draw the paper's figures: each turns Results and published numbers into a Drawing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from common.drawing.curves import (
    AVERAGE,
    CLASSES,
    TOP1,
    accuracy_curve,
    accuracy_figure,
    average,
    average_row,
    mean_curve,
    paired,
    paired_rows,
    published_curve,
)
from common.drawing.figures import Comparison, Curve, Drawing, Panel, PublishedFigure, Results, estimate
from common.store import Result
from lucir.reproduce.presets import PHASES, Setting

READOUTS = {
    "iCaRL-CNN": ("iCaRL", "cnn"),
    "iCaRL-NME": ("iCaRL", "nme"),
    "LUCIR-NME": ("LUCIR", "nme"),
    "LUCIR-CNN": ("LUCIR", "cnn"),
}


def first(found: list[Result]) -> str:
    """Return a note that says which repeat is shown, for panels that can show only one."""
    return f"shown: class order {found[0].repeat[0]}, seed {found[0].repeat[1]}" if len(found) > 1 else ""


def last_layer(s: Setting, results: Results, published: PublishedFigure, key: str, label: str) -> Drawing:
    """Draw Fig. 3: norms or biases of iCaRL's last layer after one phase, sorted, for old and for new classes."""
    found, old = results["iCaRL"], s.base
    curves, rows = [], []
    for name, part in (("new classes", slice(old, None)), ("old classes", slice(old))):
        groups = [np.array(r.values["summary"][key][part]) for r in found]
        curves.append(Curve(name, list(range(len(groups[0]))), list(groups[0])))
        for statistic in ("mean", "min", "max"):
            ours = estimate([float(getattr(g, statistic)()) for g in groups])
            value = published.value(f"iCaRL {name}", statistic)
            rows.append(Comparison(f"{statistic} of {key}", name, *value, ours, tolerance=0.0))
        mean, _ = published.value(f"iCaRL {name}", "mean")
        if mean is not None:
            curves.append(Curve(name, [0], [mean], published=True, legend="mean"))
        if key == "biases":
            share = estimate([100 * float(np.mean(g > 0)) for g in groups])
            value = published.figure("fig3b_share_positive").value(f"iCaRL {name}", "share > 0")
            rows.append(Comparison("classes with positive bias (%)", name, *value, share))
    panel = Panel("iCaRL, after 1 phase", "classes, sorted by value", label, curves, kind="sorted-bars")
    return Drawing([panel], rows, first(found))


norms = partial(last_layer, key="norms", label="L2 norm of a class's weight")
biases = partial(last_layer, key="biases", label="bias of a class")


def incremental(s: Setting, results: Results, published: PublishedFigure, phases: int | None = None) -> Drawing:
    """Draw Fig. 5 and 6, and the supplement's 1, 4 and 5: two methods with two read-outs each.

    Joint-CNN is added if its runs exist.
    """
    phases = phases or s.phases
    title = f"{phases} phase{'s' if phases > 1 else ''}"
    counts = [p["classes"] for p in (results.get("iCaRL") or results["LUCIR"])[0].phases()]
    found = paired([results.get(("joint", n), []) for n in counts])
    drawing = accuracy_figure(results, READOUTS, published, title, [] if found else ["Joint-CNN"])
    if not found:
        return drawing
    lines = [[r.curve("cnn")[-1] for r in repeat] for repeat in zip(*found, strict=True)]
    curve, row = accuracy_curve("Joint-CNN", counts, lines)
    curves = [*drawing.panels[0].curves, curve, *published_curve(published, "Joint-CNN")]
    rows = [*drawing.comparisons, average_row(row, published)]
    return Drawing([replace(drawing.panels[0], curves=curves)], rows)


def components(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 7(a) and the supplement's 2: components added one by one, CNN read-out."""
    names = ("iCaRL-CNN", "CN", "CN+LC", "CN+LC+IS", "LUCIR-CNN")
    readouts = {name: (name, "cnn") for name in names}
    drawing = accuracy_figure(results, readouts, published, "5 phases")
    rows = paired_rows(results, readouts, "LUCIR-CNN", published)
    return replace(drawing, comparisons=[*drawing.comparisons, *rows])


def sweep(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 7(b): average incremental accuracy over the number of exemplars per class."""
    curves, rows = [], []
    for name, (method, readout) in READOUTS.items():
        counts = [r for r in s.sweep if results.get((method, r))]
        found = paired([results[method, r] for r in counts])
        averages = [[average(x, readout) for x in group] for group in found]
        if found:
            curves.append(mean_curve(name, counts, list(zip(*averages, strict=True))))
        for r, values in zip(counts, averages, strict=False):  # `averages` is empty if no repeat has every number
            value = published.value(name, r)
            rows.append(Comparison(f"{AVERAGE}, {r} exemplars", name, *value, estimate(values)))
        curves += published_curve(published, name)
    return Drawing([Panel("5 phases", "exemplars per class", AVERAGE, curves)], rows)


def weights(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 8: a fixed and an adaptive weight of the less-forget constraint, CNN read-out."""
    fixed, adaptive = "fixed lambda (5)", "adaptive weight (LUCIR-CNN)"
    readouts = {name: (name, "cnn") for name in (fixed, adaptive)}
    phases = len(next(iter(results.values()))[0].phases()) - 1
    drawing = accuracy_figure(results, readouts, published, f"{phases} phases")
    rows = paired_rows(results, readouts, adaptive, published)
    return replace(drawing, comparisons=[*drawing.comparisons, *rows])


def confusions(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 9: confusion matrices after one phase, as log(1 + x), with classes in training order."""
    panels, rows = [], []
    for name, (method, readout) in READOUTS.items():
        if found := results.get(method):
            panels.append(confusion_panel(name, found[0], readout, s.base))
            ours = estimate([r.curve(readout)[-1] for r in found])
            rows.append(Comparison("accuracy, all classes (%)", name, *published.value(name, 100), ours))
    note = "classes in the order they arrived; lines between base and new classes"
    return Drawing(panels, rows, "; ".join(filter(None, [note, first(next(iter(results.values())))])))


def confusion_panel(name: str, result: Result, readout: str, boundary: int) -> Panel:
    """Return a panel with one read-out's confusion matrix after the last phase, and its accuracy in the title."""
    title = f"{name}: {result.curve(readout)[-1]:.2f} %"
    matrix = result.confusion(readout)
    return Panel(title, "predicted class", "true class", kind="matrix", matrix=matrix, boundary=boundary)


def baselines(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw the supplement's 3(a): more ways to correct iCaRL's bias.

    A-GEM is not implemented, so only its published curve is shown.
    """
    readouts = {"iCaRL-CNN": ("iCaRL", "cnn"), "iCaRL-CBF": ("iCaRL-CBF", "cnn"), "iCaRL-TM": ("iCaRL", "tm")}
    readouts["LUCIR-CNN"] = ("LUCIR", "cnn")
    drawing = accuracy_figure(results, readouts, published, "5 phases", ["A-GEM"])
    main = published.figure("fig5c")  # curves that the supplement's plot leaves out are published in Fig. 5(c)
    averages = {r.method: average_row(r, main) for r in drawing.comparisons if r.quantity == AVERAGE}
    rows = [averages[r.method] if r.quantity == AVERAGE and not r.published else r for r in drawing.comparisons]
    lines = [line for name in ("iCaRL-CNN", "LUCIR-CNN") for line in published_curve(main, name)]
    panel = replace(drawing.panels[0], curves=[*drawing.panels[0].curves, *lines])
    return Drawing([panel], rows)


def first_classes(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw the supplement's 3(b): accuracy on the base classes, with predictions among all classes seen."""
    curves, rows = [], []
    for name in ("iCaRL-CNN", "iCaRL-NME", "LUCIR-CNN"):
        method, readout = READOUTS[name]
        if found := results.get(method):
            lines = [[r.readout(readout, p)["groups"][0] for p in range(len(r.phases()))] for r in found]
            last = estimate([line[-1] for line in lines])
            curves.append(mean_curve(name, list(range(len(lines[0]))), lines, f"last {last.mean:.2f}"))
            quantity = "base classes after the last phase (%)"
            rows.append(Comparison(quantity, name, *published.value(name, 5), last))
        curves += published_curve(published, name)
    return Drawing([Panel("5 phases", "phase", "accuracy on the base classes (%)", curves)], rows)


def bias(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw how removing the bias or normalising the weights after training changes iCaRL's confusion (1 phase)."""
    variants = {
        "cnn": "as trained",
        "no-bias": "without bias",
        "unit-weights": "unit weights",
        "unit-weights-no-bias": "both removed",
        "nme": "NME",
    }
    found = results["iCaRL"]
    curves, rows = [], []
    for key, name in (("old_to_new", "old images called new"), ("new_to_old", "new images called old")):
        rates = [[r.readout(v)[key] for v in variants] for r in found]
        curves.append(mean_curve(name, list(variants.values()), rates))
        for variant, values in zip(variants.values(), zip(*rates, strict=True), strict=True):
            rows.append(Comparison(f"{name} (%)", variant, None, "", estimate(values)))
    bars = Panel("errors between old and new", "", "share of images (%)", curves, kind="bars")
    shown = ("cnn", "no-bias", "unit-weights")
    matrices = [confusion_panel(variants[v], found[0], v, s.base) for v in shown]
    note = "iCaRL's head is changed after training; nothing is retrained"
    return Drawing([bars, *matrices], rows, "; ".join(filter(None, [note, first(found)])))


def directions(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw accuracy over the number of phases, with Eq. 7 as coded, sqrt(old/new), and as printed, sqrt(new/old)."""
    curves, rows = [], []
    for key, name in (("code", "as coded: sqrt(old/new)"), ("paper", "as printed: sqrt(new/old)")):
        phases = [p for p in PHASES if results.get((key, p))]
        values = [[average(r, "cnn") for r in group] for group in paired([results[key, p] for p in phases])]
        if values:
            curves.append(mean_curve(name, phases, list(zip(*values, strict=True))))
        for p, line in zip(phases, values, strict=False):
            row = average_row(Comparison(AVERAGE, "LUCIR-CNN", None, "", estimate(line)), published.figure(PHASES[p]))
            rows.append(replace(row, quantity=f"{AVERAGE}, {p} phase{'s' if p > 1 else ''}", method=name))
    note = "with 1 phase both weights are lambda_base; the published number of a row does not depend on the direction"
    return Drawing([Panel("LUCIR-CNN", "incremental phases", AVERAGE, curves)], rows, note)


def scales(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw eta and the norms of old and new embeddings over training, and the accuracy with a fixed eta."""
    panels, lines, rows = [], [], []
    if learnable := results.get("eta learnable"):
        run, base = learnable[0], {r.repeat: r.values["trace"] for r in results.get("base", [])}
        start, child = base.get(run.repeat, {"epoch": []}), run.values["trace"]
        columns = {
            k: [*start.get(k, [None] * len(start["epoch"])), *child[k]] for k in ("scale", "norm_old", "norm_new")
        }
        x, epochs = list(range(1, len(columns["scale"]) + 1)), "epoch, from the base phase on"
        old, new = ([np.nan if v is None else v for v in columns[f"norm_{k}"]] for k in ("old", "new"))
        norms = [Curve("old embeddings", x, old), Curve("new embeddings", x, new)]
        panels.append(Panel("learnable scale", epochs, "eta", [Curve("eta", x, columns["scale"])]))
        panels.append(Panel("embedding norms", epochs, "mean L2 norm", norms))
    readouts = {name: (name, "cnn") for name in results if name != "base"}
    for name in readouts:
        classes = [p["classes"] for p in results[name][0].phases()]
        curve, row = accuracy_curve(name, classes, [r.curve("cnn") for r in results[name]])
        lines.append(curve)
        rows.append(row)
    if learnable:
        rows += paired_rows(results, readouts, "eta learnable", published)
    if lines:
        panels.append(Panel("eta learnable or fixed", CLASSES, TOP1, lines))
    note = "5 phases; epochs of class-balance finetuning are part of the axis"
    return Drawing(panels, rows, "; ".join(filter(None, [note, first(learnable or [])])))


JOINT = {"cifar100": "fig5d", "imagenet-subset": "fig6b", "imagenet": "fig6d"}


def joint(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Joint-CNN: for each number of classes, a model trained from scratch on all data of these classes."""
    counts = sorted(n for _, n in results)
    values = [[r.curve("cnn")[-1] for r in group] for group in paired([results["joint", n] for n in counts])]
    curves = [mean_curve("Joint-CNN", counts, list(zip(*values, strict=True)))] if values else []
    printed = published.figure(JOINT.get(s.data.name, ""))
    curves += published_curve(printed, "Joint-CNN")
    rows = [
        Comparison(f"accuracy at {n} classes (%)", "Joint-CNN", *printed.value("Joint-CNN", n), estimate(v))
        for n, v in zip(counts, values, strict=False)
    ]
    return Drawing([Panel("all data of the classes seen", CLASSES, TOP1, curves)], rows)
