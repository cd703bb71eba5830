"""One function per figure of the paper: Results to a Drawing. No torch, no training. The catalogue is at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.curves import AVERAGE, CLASSES, TOP1, Results, accuracy_curve, accuracy_figure, average_row, mean_curve
from common.curves import published_curve as common_published_curve
from common.figures import Comparison, Curve, Drawing, Figure, Panel, Published, estimate
from common.metrics import average_incremental_accuracy
from common.runs import Run
from common.store import Result
from lucir import experiments as ex
from lucir.experiments import Setting

PUBLISHED = Published(Path(__file__).with_name("published.json"))
READOUTS = {
    "iCaRL-CNN": ("iCaRL", "cnn"),
    "iCaRL-NME": ("iCaRL", "nme"),
    "Ours-NME": ("Ours", "nme"),
    "Ours-CNN": ("Ours", "cnn"),
}


def comparable(setting: Setting) -> bool:
    """Whether published values may be drawn over ours: the paper's data set, whatever the schedule."""
    return setting.preset != "quick"


def published_curve(figure: str, name: str) -> list[Curve]:
    return common_published_curve(PUBLISHED, figure, name)


def published_value(figure: str, name: str, index: int) -> tuple[float | None, str]:
    """One published point and its provenance; (None, "") where there is none."""
    series = PUBLISHED.series(figure, name)
    return (series["y"][index], series["provenance"]) if series and series["y"] else (None, "")


def fig3(setting: Setting, results: Results, figure: str, key: str, label: str) -> Drawing:
    """Fig. 3: norms or biases of iCaRL's last layer after one phase, old against new classes, sorted descending."""
    result, old = results["iCaRL"][0], setting.base
    curves, rows = [], []
    for name, part in (("new classes", slice(old, None)), ("old classes", slice(old))):
        values = result.values["summary"][key][part]
        curves.append(Curve(name, list(range(len(values))), values))
        ours = estimate([float(np.mean(r.values["summary"][key][part])) for r in results["iCaRL"]])
        rows.append(Comparison(f"mean of {key}", name, *published_value(figure, f"iCaRL {name}", 0), ours, 0.0))
    panel = Panel("iCaRL, after 1 phase", "classes, sorted by value", label, curves, kind="sorted-bars")
    return Drawing([panel], rows, f"drawn: class order {result.config['order']}" if len(results["iCaRL"]) > 1 else "")


def incremental(setting: Setting, results: Results, figure: str, phases: int) -> Drawing:
    """Fig. 5, 6, supplement 1, 4, 5: two methods, two read-outs, and Joint-CNN where its runs exist."""
    title = f"{phases} phase{'s' if phases > 1 else ''}"
    drawing = accuracy_figure(results, READOUTS, PUBLISHED, figure, title, comparable(setting))
    curves, rows = list(drawing.panels[0].curves), list(drawing.comparisons)
    counts = [p["classes"] for p in (results.get("iCaRL") or results["Ours"])[0].phases()]
    if all(results.get(f"joint {n}") for n in counts):
        lines = [[r.curve("cnn")[-1] for r in results[f"joint {n}"]] for n in counts]
        curve, row = accuracy_curve("Joint-CNN", counts, list(zip(*lines, strict=False)))
        curves.append(curve)
        rows.append(average_row(row, PUBLISHED, figure))
    curves += published_curve(figure, "Joint-CNN") if comparable(setting) else []
    return Drawing([replace(drawing.panels[0], curves=curves)], rows)


def components(setting: Setting, results: Results, figure: str) -> Drawing:
    """Fig. 7(a), supplement 2: components added one by one, CNN read-out."""
    names = ("iCaRL-CNN", "CN", "CN+LC", "CN+LC+IS", "Ours-CNN")
    readouts = {name: (name, "cnn") for name in names}
    return accuracy_figure(results, readouts, PUBLISHED, figure, "5 phases", comparable(setting))


def fig7b(setting: Setting, results: Results) -> Drawing:
    """Fig. 7(b): average incremental accuracy against the exemplars kept per class."""
    curves, rows = [], []
    for name, (label, readout) in READOUTS.items():
        counts = [r for r in setting.sweep if results.get(f"{label} {r}")]
        averages = [[average_incremental_accuracy(x.curve(readout)) for x in results[f"{label} {r}"]] for r in counts]
        if counts:
            curves.append(mean_curve(name, counts, list(zip(*averages, strict=False))))
        series = PUBLISHED.series("fig7b", name)
        assert series is not None
        published = dict(zip(series["x"], series["y"], strict=True)) if comparable(setting) else {}
        for r, values in zip(counts, averages, strict=True):
            quantity = f"{AVERAGE}, {r} exemplars"
            rows.append(Comparison(quantity, name, published.get(r), series["provenance"], estimate(values)))
        curves += published_curve("fig7b", name) if comparable(setting) else []
    return Drawing([Panel("5 phases", "exemplars per class", AVERAGE, curves)], rows)


def fig8(setting: Setting, results: Results, figure: str, phases: int) -> Drawing:
    """Fig. 8: fixed against adaptive weight of the less-forget constraint, CNN read-out."""
    readouts = {name: (name, "cnn") for name in ("fixed lambda (5)", "adaptive weight (Ours-CNN)")}
    return accuracy_figure(results, readouts, PUBLISHED, figure, f"{phases} phases", comparable(setting))


def fig9(setting: Setting, results: Results) -> Drawing:
    """Fig. 9: confusion matrices after one phase, log(1 + x), classes in training order."""
    panels, rows = [], []
    for name, (label, readout) in READOUTS.items():
        if found := results.get(label):
            panels.append(confusion_panel(name, found[0], readout, setting.base))
            ours = estimate([r.curve(readout)[-1] for r in found])
            rows.append(Comparison("accuracy, all classes (%)", name, *published_value("fig9", name, 0), ours))
    return Drawing(panels, rows, "classes in the order they arrived; lines between base and new classes")


def confusion_panel(name: str, result: Result, readout: str, boundary: int) -> Panel:
    """The confusion matrix of one read-out after the last phase, its accuracy in the title."""
    title = f"{name}: {result.curve(readout)[-1]:.2f} %"
    matrix = result.confusion(readout)
    return Panel(title, "predicted class", "true class", kind="matrix", matrix=matrix, boundary=boundary)


def supp3a(setting: Setting, results: Results) -> Drawing:
    """Supplement 3(a): more ways to correct iCaRL's bias. A-GEM is not implemented: its published line only."""
    readouts = {"iCaRL-CNN": ("iCaRL", "cnn"), "iCaRL-CBF": ("iCaRL-CBF", "cnn"), "iCaRL-TM": ("iCaRL", "tm")}
    readouts["Ours-CNN"] = ("Ours", "cnn")
    return accuracy_figure(results, readouts, PUBLISHED, "supp3a", "5 phases", comparable(setting), ["A-GEM"])


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
            rows.append(Comparison(quantity, name, *published_value("supp3b", name, -1), last))
        curves += published_curve("supp3b", name) if comparable(setting) else []
    return Drawing([Panel("5 phases", "phase", "accuracy on the base classes (%)", curves)], rows)


def bias(setting: Setting, results: Results) -> Drawing:
    """What removing the bias and normalising the weights, each after training, do to iCaRL's confusion (1 phase)."""
    variants = {
        "cnn": "as trained",
        "no-bias": "without bias",
        "unit-weights": "unit weights",
        "unit-weights-no-bias": "unit weights, no bias",
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
    return Drawing([bars, *matrices], rows, "iCaRL's head is changed after training; nothing is retrained")


def direction(setting: Setting, results: Results) -> Drawing:
    """Eq. 7's weight as coded, sqrt(old/new), and as printed, sqrt(new/old), over the number of phases."""
    curves, rows = [], []
    for key, name in (("code", "as coded: sqrt(old/new)"), ("paper", "as printed: sqrt(new/old)")):
        phases = [p for p in ex.PHASES if results.get(f"{key} {p}")]
        values = [[average_incremental_accuracy(r.curve("cnn")) for r in results[f"{key} {p}"]] for p in phases]
        if phases:
            curves.append(mean_curve(name, phases, list(zip(*values, strict=False))))
        for p, line in zip(phases, values, strict=True):
            row = Comparison(AVERAGE, "Ours-CNN", None, "", estimate(line))
            row = average_row(row, PUBLISHED, ex.PHASES[p])
            rows.append(replace(row, quantity=f"{AVERAGE}, {p} phase{'s' if p > 1 else ''}", method=name))
    note = "with 1 phase both weights are lambda_base; the published number of a row does not depend on the direction"
    return Drawing([Panel("Ours-CNN", "incremental phases", AVERAGE, curves)], rows, note)


def scale(setting: Setting, results: Results) -> Drawing:
    """eta and the norms of old and new embeddings over training, and accuracy with eta held fixed."""
    panels, lines, rows = [], [], []
    if learnable := results.get("eta learnable"):
        trace = {k: [np.nan if v is None else v for v in column] for k, column in learnable[0].values["trace"].items()}
        x = list(range(1, len(trace["scale"]) + 1))
        norms = [Curve(f"{k} embeddings", x, trace[f"norm_{k}"]) for k in ("old", "new")]
        panels.append(Panel("learnable scale", "epoch, incremental phases", "eta", [Curve("eta", x, trace["scale"])]))
        panels.append(Panel("embedding norms", "epoch, incremental phases", "mean L2 norm", norms))
    for name, found in results.items():
        classes = [p["classes"] for p in found[0].phases()]
        curve, row = accuracy_curve(name, classes, [r.curve("cnn") for r in found])
        lines.append(curve)
        rows.append(row)
    panels.append(Panel("eta learnable or fixed", CLASSES, TOP1, lines))
    return Drawing(panels, rows, "5 phases; epochs of class-balance finetuning are part of the axis")


def joint(setting: Setting, results: Results) -> Drawing:
    """Joint-CNN: all data of the classes seen, one model from scratch per number of classes."""
    counts = sorted(int(n) for n in results)
    values = [[r.curve("cnn")[-1] for r in results[str(n)]] for n in counts]
    curves = [mean_curve("Joint-CNN", counts, list(zip(*values, strict=False)))]
    figure = "fig5d" if setting.data.name == "cifar100" else "fig6a"
    series = PUBLISHED.series(figure, "Joint-CNN")
    assert series is not None
    known = dict(zip(series["x"], series["y"], strict=True)) if comparable(setting) else {}
    curves += published_curve(figure, "Joint-CNN") if known else []
    rows = [
        Comparison(f"accuracy at {n} classes (%)", "Joint-CNN", known.get(n), series["provenance"], estimate(v))
        for n, v in zip(counts, values, strict=True)
    ]
    return Drawing([Panel("all data of the classes seen", CLASSES, TOP1, curves)], rows)


# The catalogue: every figure with the runs it needs.

Runs = Mapping[str, list[Run]]
SUBSET, FULL = "imagenet-subset", "imagenet"


def entry(
    id: str,
    title: str,
    runs: Callable[[Setting], Runs],
    draw: Callable[[Setting, Results], Drawing],
    data: str = "",
    optional: Callable[[Setting], Runs] = lambda setting: {},
    on_request: bool = False,
) -> Figure:
    """A Figure whose functions see the one setting they are about: of the imagenet preset's two, that on `data`."""

    def on(function: Callable) -> Callable:
        return lambda settings, *rest: function(next(s for s in settings if data in ("", s.data.name)), *rest)

    presets = ("imagenet",) if data else ("quick", "cifar")
    return Figure(id, title, presets, on(runs), on(draw), on(optional), on_request)


def curves_entry(id: str, title: str, phases: int, data: str = "", runs: Callable | None = None) -> Figure:
    """An entry for `incremental`, with Joint-CNN drawn where its runs exist."""
    return entry(
        id,
        title,
        runs or (lambda s: ex.both(s, phases)),
        lambda s, r: incremental(s, r, id, phases),
        data,
        lambda s: {f"joint {n}": found for n, found in ex.joint(s).items()},
    )


def one_icarl(setting: Setting) -> Runs:
    return {"iCaRL": setting.runs(setting.icarl(), 1)}


FIGURES: list[Figure] = [
    entry(
        "fig3a",
        "Fig. 3 (left): weight norms of iCaRL's last layer",
        one_icarl,
        lambda s, r: fig3(s, r, "fig3a", "norms", "L2 norm of a class's weight"),
    ),
    entry(
        "fig3b",
        "Fig. 3 (right): biases of iCaRL's last layer",
        one_icarl,
        lambda s, r: fig3(s, r, "fig3b", "biases", "bias of a class"),
    ),
    curves_entry("fig5a", "Fig. 5(a): class-incremental accuracy, 1 phase", 1),
    curves_entry("fig5b", "Fig. 5(b): class-incremental accuracy, 2 phases", 2),
    curves_entry("fig5c", "Fig. 5(c): class-incremental accuracy, 5 phases", 5),
    curves_entry("fig5d", "Fig. 5(d): class-incremental accuracy, 10 phases", 10),
    curves_entry("fig6a", "Fig. 6(a): ImageNet-Subset, 5 phases", 5, SUBSET),
    curves_entry("fig6b", "Fig. 6(b): ImageNet-Subset, 10 phases", 10, SUBSET),
    curves_entry("fig6c", "Fig. 6(c): ImageNet-Full, 5 phases", 5, FULL),
    curves_entry("fig6d", "Fig. 6(d): ImageNet-Full, 10 phases", 10, FULL),
    entry("fig7a", "Fig. 7(a): the effect of each component", ex.components, lambda s, r: components(s, r, "fig7a")),
    entry("fig7b", "Fig. 7(b): the number of reserved exemplars", ex.sweep, fig7b),
    entry(
        "fig8a",
        "Fig. 8(a): adaptive weight, 5 phases",
        lambda s: ex.weights(s, 5),
        lambda s, r: fig8(s, r, "fig8a", 5),
    ),
    entry(
        "fig8b",
        "Fig. 8(b): adaptive weight, 10 phases",
        lambda s: ex.weights(s, 10),
        lambda s, r: fig8(s, r, "fig8b", 10),
    ),
    entry("fig9", "Fig. 9: confusion matrices, 1 phase", lambda s: ex.both(s, 1), fig9),
    curves_entry("supp1a", "Suppl. Fig. 1: ImageNet-Subset, 1 phase", 1, SUBSET),
    curves_entry("supp1b", "Suppl. Fig. 1: ImageNet-Subset, 2 phases", 2, SUBSET),
    curves_entry("supp1c", "Suppl. Fig. 1: ImageNet-Full, 1 phase", 1, FULL),
    curves_entry("supp1d", "Suppl. Fig. 1: ImageNet-Full, 2 phases", 2, FULL),
    entry(
        "supp2a",
        "Suppl. Fig. 2: components, ImageNet-Subset",
        ex.components,
        lambda s, r: components(s, r, "supp2a"),
        SUBSET,
    ),
    entry(
        "supp2b",
        "Suppl. Fig. 2: components, ImageNet-Full",
        ex.components,
        lambda s, r: components(s, r, "supp2b"),
        FULL,
    ),
    entry("supp3a", "Suppl. Fig. 3(a): more baselines", ex.baselines, supp3a),
    entry("supp3b", "Suppl. Fig. 3(b): accuracy on the first classes", lambda s: ex.both(s, 5), supp3b),
    curves_entry("supp4a", "Suppl. Fig. 4: a smaller base, 7 phases", 7, runs=lambda s: ex.small_base(s, 7)),
    curves_entry("supp4b", "Suppl. Fig. 4: a smaller base, 14 phases", 14, runs=lambda s: ex.small_base(s, 14)),
    curves_entry("supp5a", "Suppl. Fig. 5: fixed total memory, 5 phases", 5, runs=lambda s: ex.fixed_total(s, 5)),
    curves_entry("supp5b", "Suppl. Fig. 5: fixed total memory, 10 phases", 10, runs=lambda s: ex.fixed_total(s, 10)),
    entry("bias", "Readers: iCaRL's bias and norms taken away", one_icarl, bias),
    entry("direction", "Readers: two directions of the adaptive weight", ex.directions, direction),
    entry("scale", "Readers: the scale eta and embedding norms", ex.scales, scale),
    entry("joint", "Joint-CNN (on request)", ex.joint, joint, on_request=True),
    entry("joint-subset", "Joint-CNN, ImageNet-Subset (on request)", ex.joint, joint, SUBSET, on_request=True),
    entry("joint-full", "Joint-CNN, ImageNet-Full (on request)", ex.joint, joint, FULL, on_request=True),
]
