"""One function per figure of the paper: Results to a Drawing. No torch, no training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from common import curves as shared
from common.curves import (
    AVERAGE,
    CLASSES,
    TOP1,
    Results,
    accuracy_curve,
    accuracy_figure,
    average,
    average_row,
    mean_curve,
    paired,
    paired_rows,
)
from common.figures import Comparison, Curve, Drawing, Panel, Published, comparable, estimate
from common.store import Result
from lucir import experiments as ex
from lucir.presets import Setting

PUBLISHED = Published(Path(__file__).with_name("published.json"))
READOUTS = {
    "iCaRL-CNN": ("iCaRL", "cnn"),
    "iCaRL-NME": ("iCaRL", "nme"),
    "Ours-NME": ("Ours", "nme"),
    "Ours-CNN": ("Ours", "cnn"),
}


def published_curve(figure: str, name: str) -> list[Curve]:
    return shared.published_curve(PUBLISHED, figure, name)


def first(found: list[Result]) -> str:
    """Which repeat is shown where only one can be."""
    return f"shown: class order {found[0].repeat[0]}, seed {found[0].repeat[1]}" if len(found) > 1 else ""


def fig3(setting: Setting, results: Results, figure: str, key: str, label: str) -> Drawing:
    """Fig. 3: norms or biases of iCaRL's last layer after one phase, old against new classes, sorted descending."""
    found, old = results["iCaRL"], setting.base
    curves, rows = [], []
    for name, part in (("new classes", slice(old, None)), ("old classes", slice(old))):
        groups = [np.array(r.values["summary"][key][part]) for r in found]
        curves.append(Curve(name, list(range(len(groups[0]))), list(groups[0])))
        for statistic in ("mean", "min", "max"):
            ours = estimate([float(getattr(g, statistic)()) for g in groups])
            value = PUBLISHED.value(figure, f"iCaRL {name}", statistic)
            rows.append(Comparison(f"{statistic} of {key}", name, *value, ours, tolerance=0.0))
        mean, _ = PUBLISHED.value(figure, f"iCaRL {name}", "mean")
        if comparable(setting) and mean is not None:
            curves.append(Curve(name, [0], [mean], published=True, legend="mean"))
        if key == "biases":
            share = estimate([100 * float(np.mean(g > 0)) for g in groups])
            value = PUBLISHED.value("fig3b_share_positive", f"iCaRL {name}", "share > 0")
            rows.append(Comparison("classes with positive bias (%)", name, *value, share))
    panel = Panel("iCaRL, after 1 phase", "classes, sorted by value", label, curves, kind="sorted-bars")
    return Drawing([panel], rows, first(found))


def incremental(setting: Setting, results: Results, figure: str, phases: int) -> Drawing:
    """Fig. 5, 6, supplement 1, 4, 5: two methods, two read-outs, and Joint-CNN where its runs exist."""
    title = f"{phases} phase{'s' if phases > 1 else ''}"
    counts = [p["classes"] for p in (results.get("iCaRL") or results["Ours"])[0].phases()]
    joint = paired([results.get(f"joint {n}", []) for n in counts])
    published_joint = [] if joint or not PUBLISHED.series(figure, "Joint-CNN") else ["Joint-CNN"]
    drawing = accuracy_figure(results, READOUTS, PUBLISHED, figure, title, comparable(setting), published_joint)
    if not joint:
        return drawing
    lines = [[r.curve("cnn")[-1] for r in repeat] for repeat in zip(*joint, strict=True)]
    curve, row = accuracy_curve("Joint-CNN", counts, lines)
    curves = [*drawing.panels[0].curves, curve]
    curves += published_curve(figure, "Joint-CNN") if comparable(setting) else []
    rows = [*drawing.comparisons, average_row(row, PUBLISHED, figure)]
    return Drawing([replace(drawing.panels[0], curves=curves)], rows)


def components(setting: Setting, results: Results, figure: str) -> Drawing:
    """Fig. 7(a), supplement 2: components added one by one, CNN read-out."""
    names = ("iCaRL-CNN", "CN", "CN+LC", "CN+LC+IS", "Ours-CNN")
    readouts = {name: (name, "cnn") for name in names}
    drawing = accuracy_figure(results, readouts, PUBLISHED, figure, "5 phases", comparable(setting))
    rows = paired_rows(results, readouts, "Ours-CNN", PUBLISHED, figure)
    return replace(drawing, comparisons=[*drawing.comparisons, *rows])


def fig7b(setting: Setting, results: Results) -> Drawing:
    """Fig. 7(b): average incremental accuracy against the exemplars kept per class."""
    curves, rows = [], []
    for name, (label, readout) in READOUTS.items():
        counts = [r for r in setting.sweep if results.get(f"{label} {r}")]
        found = paired([results[f"{label} {r}"] for r in counts])
        averages = [[average(x, readout) for x in group] for group in found]
        if found:
            curves.append(mean_curve(name, counts, list(zip(*averages, strict=True))))
        for r, values in zip(counts, averages, strict=False):  # none where the numbers share no repeat
            published = PUBLISHED.value("fig7b", name, r) if comparable(setting) else (None, "")
            rows.append(Comparison(f"{AVERAGE}, {r} exemplars", name, *published, estimate(values)))
        curves += published_curve("fig7b", name) if comparable(setting) else []
    return Drawing([Panel("5 phases", "exemplars per class", AVERAGE, curves)], rows)


def fig8(setting: Setting, results: Results, figure: str, phases: int) -> Drawing:
    """Fig. 8: fixed against adaptive weight of the less-forget constraint, CNN read-out."""
    fixed, adaptive = "fixed lambda (5)", "adaptive weight (Ours-CNN)"
    readouts = {name: (name, "cnn") for name in (fixed, adaptive)}
    drawing = accuracy_figure(results, readouts, PUBLISHED, figure, f"{phases} phases", comparable(setting))
    rows = paired_rows(results, readouts, adaptive, PUBLISHED, figure)
    return replace(drawing, comparisons=[*drawing.comparisons, *rows])


def fig9(setting: Setting, results: Results) -> Drawing:
    """Fig. 9: confusion matrices after one phase, log(1 + x), classes in training order."""
    panels, rows = [], []
    for name, (label, readout) in READOUTS.items():
        if found := results.get(label):
            panels.append(confusion_panel(name, found[0], readout, setting.base))
            ours = estimate([r.curve(readout)[-1] for r in found])
            rows.append(Comparison("accuracy, all classes (%)", name, *PUBLISHED.value("fig9", name, 100), ours))
    note = "classes in the order they arrived; lines between base and new classes"
    return Drawing(panels, rows, "; ".join(filter(None, [note, first(next(iter(results.values())))])))


def confusion_panel(name: str, result: Result, readout: str, boundary: int) -> Panel:
    """The confusion matrix of one read-out after the last phase, its accuracy in the title."""
    title = f"{name}: {result.curve(readout)[-1]:.2f} %"
    matrix = result.confusion(readout)
    return Panel(title, "predicted class", "true class", kind="matrix", matrix=matrix, boundary=boundary)


def supp3a(setting: Setting, results: Results) -> Drawing:
    """Supplement 3(a): more ways to correct iCaRL's bias. A-GEM is not implemented: its published line only."""
    readouts = {"iCaRL-CNN": ("iCaRL", "cnn"), "iCaRL-CBF": ("iCaRL-CBF", "cnn"), "iCaRL-TM": ("iCaRL", "tm")}
    readouts["Ours-CNN"] = ("Ours", "cnn")
    drawing = accuracy_figure(results, readouts, PUBLISHED, "supp3a", "5 phases", comparable(setting), ["A-GEM"])
    averages = {r.method: average_row(r, PUBLISHED, "fig5c") for r in drawing.comparisons if r.quantity == AVERAGE}
    rows = [averages[r.method] if r.quantity == AVERAGE and not r.published else r for r in drawing.comparisons]
    if comparable(setting):  # the supplement's plot leaves out what Fig. 5(c) has
        lines = [line for name in ("iCaRL-CNN", "Ours-CNN") for line in published_curve("fig5c", name)]
        panel = drawing.panels[0]
        drawing = replace(drawing, panels=[replace(panel, curves=[*panel.curves, *lines])])
    return replace(drawing, comparisons=rows)


def supp3b(setting: Setting, results: Results) -> Drawing:
    """Supplement 3(b): accuracy on the base classes, predicting among all seen."""
    curves, rows = [], []
    for name in ("iCaRL-CNN", "iCaRL-NME", "Ours-CNN"):
        label, readout = READOUTS[name]
        if found := results.get(label):
            lines = [[r.readout(readout, p)["groups"][0] for p in range(len(r.phases()))] for r in found]
            last = estimate([line[-1] for line in lines])
            curves.append(mean_curve(name, list(range(len(lines[0]))), lines, f"{last.mean:.2f}"))
            quantity = "base classes after the last phase (%)"
            rows.append(Comparison(quantity, name, *PUBLISHED.value("supp3b", name, 5), last))
        curves += published_curve("supp3b", name) if comparable(setting) else []
    return Drawing([Panel("5 phases", "phase", "accuracy on the base classes (%)", curves)], rows)


def bias(setting: Setting, results: Results) -> Drawing:
    """What removing the bias and normalising the weights, each after training, do to iCaRL's confusion (1 phase)."""
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
    matrices = [confusion_panel(variants[v], found[0], v, setting.base) for v in shown]
    note = "iCaRL's head is changed after training; nothing is retrained"
    return Drawing([bars, *matrices], rows, "; ".join(filter(None, [note, first(found)])))


def direction(setting: Setting, results: Results) -> Drawing:
    """Eq. 7's weight as coded, sqrt(old/new), and as printed, sqrt(new/old), over the number of phases."""
    curves, rows = [], []
    for key, name in (("code", "as coded: sqrt(old/new)"), ("paper", "as printed: sqrt(new/old)")):
        phases = [p for p in ex.PHASES if results.get(f"{key} {p}")]
        values = [[average(r, "cnn") for r in group] for group in paired([results[f"{key} {p}"] for p in phases])]
        if values:
            curves.append(mean_curve(name, phases, list(zip(*values, strict=True))))
        for p, line in zip(phases, values, strict=False):
            row = Comparison(AVERAGE, "Ours-CNN", None, "", estimate(line))
            row = average_row(row, PUBLISHED, ex.PHASES[p])
            rows.append(replace(row, quantity=f"{AVERAGE}, {p} phase{'s' if p > 1 else ''}", method=name))
    note = "with 1 phase both weights are lambda_base; the published number of a row does not depend on the direction"
    return Drawing([Panel("Ours-CNN", "incremental phases", AVERAGE, curves)], rows, note)


def scale(setting: Setting, results: Results) -> Drawing:
    """eta and the norms of old and new embeddings over training, and accuracy with eta held fixed."""
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
        rows += paired_rows(results, readouts, "eta learnable", PUBLISHED, "")
    if lines:
        panels.append(Panel("eta learnable or fixed", CLASSES, TOP1, lines))
    note = "5 phases; epochs of class-balance finetuning are part of the axis"
    return Drawing(panels, rows, "; ".join(filter(None, [note, first(learnable or [])])))


JOINT = {"cifar100": "fig5d", "imagenet-subset": "fig6b", "imagenet": "fig6d"}


def joint(setting: Setting, results: Results) -> Drawing:
    """Joint-CNN: all data of the classes seen, one model from scratch per number of classes."""
    counts = sorted(int(n) for n in results)
    values = [[r.curve("cnn")[-1] for r in group] for group in paired([results[str(n)] for n in counts])]
    curves = [mean_curve("Joint-CNN", counts, list(zip(*values, strict=True)))] if values else []
    figure = JOINT.get(setting.data.name, "")
    curves += published_curve(figure, "Joint-CNN")
    rows = [
        Comparison(f"accuracy at {n} classes (%)", "Joint-CNN", *PUBLISHED.value(figure, "Joint-CNN", n), estimate(v))
        for n, v in zip(counts, values, strict=False)
    ]
    return Drawing([Panel("all data of the classes seen", CLASSES, TOP1, curves)], rows)
