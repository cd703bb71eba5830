"""Draw the figures that readers ask for: maps, memory sizes, drift, forgetting, anchors, and open choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from common.drawing.curves import AVERAGE, CLASSES, LAST, TOP1, across, average, mean_curve, published_curve, through
from common.drawing.figures import Comparison, Curve, Drawing, Panel, PublishedFigure, Results, estimate
from common.store import Result
from feature_adaptation.memory import preserved
from feature_adaptation.reproduce.parts import (
    LOG_MEMORY,
    OMEGA,
    TAKEN,
    TASK,
    Ordering,
    average_rows,
    by_readout,
    lines,
    measured_with_truth,
    notes,
    on_one_scale,
    orderings,
    origins,
    point,
)
from feature_adaptation.reproduce.presets import Setting

EXPLAINED = "share of the drift explained"
ORDERINGS: tuple[Ordering, ...] = (
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


def forgetting(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw accuracy on each task's classes as later tasks come, and how often old images are taken for new classes."""
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


def old_mean(result: Result, phase: int = -1, key: str = "omega") -> float:
    """Return the mean over the old tasks of a quality that is measured by task of origin."""
    values = result.phases()[phase]["quality"][key]
    return float(np.mean(values[: len(result.phases()) - 1 if phase == -1 else phase]))


def maps(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Compare all maps on the same pairs and memory: accuracy, expected orderings, and accuracy against omega."""
    readouts = {"feature classifier": "cnn", "nearest class mean": "ncm"}
    panel, rows = by_readout(results, readouts, "average over all tasks")
    above = orderings(results, ORDERINGS)
    panels, rows = [panel, *above.panels], [*rows, *above.comparisons]
    for key, x in (("omega", OMEGA), ("explained", EXPLAINED)):
        curves = []
        for name, all_found in results.items():
            if found := measured_with_truth(all_found):
                quality = [old_mean(r, key=key) for r in found]
                curves.append(point(name, round(float(np.mean(quality)), 4), [r.curve("cnn")[-1] for r in found]))
                rows.append(Comparison(f"{x}, old tasks, at the end", name, None, "", estimate(quality), 0.0))
        panels.append(Panel("after the last task", f"{x}, old tasks", LAST, curves))
    note = "mlp on true pairs and true features are oracles; a map that explains less than 0 leads away from the truth"
    return Drawing(panels, rows, notes(s, note, "a difference with an interval across 0 decides nothing"))


def sizes(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw accuracy against memory for several maps on one training of the network.

    The figure shows what more features are worth.
    """
    panels, rows = [], []
    swept = {key: found for key, found in results.items() if key != "own head"}
    measures: tuple[tuple[str, Callable[[Result, str], float]], ...] = ((AVERAGE, average), (LAST, last))
    for y, value in measures:
        curves: list[Curve] = []
        for name in dict.fromkeys(name for name, _ in swept):
            mine = {n: estimate([value(r, "cnn") for r in found]) for (m, n), found in swept.items() if m == name}
            x = [float(f"{preserved(s.size, n):.3g}") for n in mine]
            curves.append(through(name, x, list(mine.values())))
            rows += [Comparison(f"{y}, {n} features a class", name, None, "", e) for n, e in mine.items()]
        if head := results.get("own head"):
            height = float(np.mean([value(r, "cnn") for r in head]))
            everywhere = sorted({float(x) for c in curves for x in c.x}) or [0.0]
            curves.append(across("own head", everywhere, height, f"{height:.1f}"))
        panels.append(Panel("one stage 1, memories of many sizes", LOG_MEMORY, y, curves, x_log=True))
    note = "own head: stage 1's classifier, which keeps nothing; true features are an oracle's"
    return Drawing(panels, rows, notes(s, note))


def last(result: Result, readout: str) -> float:
    """Return the accuracy after the last phase."""
    return result.curve(readout)[-1]


def over_tasks(name: str, found: Sequence[Result], value: Callable[[Result, int], float]) -> Curve:
    """Return the curve of `value`, a mean over Results, after each task from the second on."""
    count = len(found[0].phases())
    return mean_curve(name, list(range(2, count + 1)), [[value(r, t) for t in range(1, count)] for r in found])


def drift(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Compare true and predicted drift of unit features: explained share, direction, class means, and five arrows."""
    known = {name: found for name, everything in results.items() if (found := measured_with_truth(everything))}
    moved = {name: found for name, found in known.items() if name != "identity"}
    panels, rows = [], []
    for key, y in (("explained", EXPLAINED), ("drift_cosine", "cosine of true and predicted")):
        curves = [over_tasks(n, f, partial(old_mean, key=key)) for n, f in moved.items()]
        panels.append(Panel("drift of old tasks", TASK, y, curves))
        for name, found in moved.items():
            ends = estimate([old_mean(r, key=key) for r in found])
            rows.append(Comparison(f"{y}, at the end", name, None, "", ends, 0.0))
    curves = [over_tasks(n, f, class_mean_distance) for n, f in known.items()]
    if mlp := known.get("mlp"):
        curves += thin_lines(mlp[0], s.classes_per_task)
    panels.append(Panel("class means", TASK, "distance to the true mean", curves))
    for name, found in known.items():
        ends = estimate([class_mean_distance(r, len(r.phases()) - 1) for r in found])
        rows.append(Comparison("distance of class means, at the end", name, None, "", ends, 0.0))
    if mlp:
        panels.append(arrow_panel(mlp[0]))
    note = "identity: before adaptation; thin lines: classes of task 1 after the MLP, and their arrows: one repeat"
    return Drawing(panels, rows, notes(s, note))


def class_mean_distance(result: Result, phase: int) -> float:
    """Return the distance of adapted class means to the true ones after a phase, the mean over old classes."""
    return float(np.mean(result.phases()[phase]["quality"]["means_after"]))


def thin_lines(result: Result, classes: int) -> list[Curve]:
    """Return a thin line for each of up to five classes of task 1: the distance of its mean to the true mean."""
    phases = result.phases()[1:]
    x = list(range(2, len(phases) + 2))
    shown = range(min(classes, 5))
    return [Curve("mlp", x, [p["quality"]["means_after"][c] for p in phases], reference=True) for c in shown]


def arrow_panel(result: Result) -> Panel:
    """Draw arrows from each stored class mean to its true place and to where the map puts it, on two principal axes."""
    ends = result.phases()[-1]["quality"]["arrows"]
    curves = []
    for name, key in (("true drift", "true"), ("predicted by the MLP", "adapted")):
        x, y = [], []
        for (x0, y0), (x1, y1) in zip(ends["stored"], ends[key], strict=True):
            x += [x0, x1, x1]
            y += [y0, y1, float("nan")]  # breaks the line
        curves.append(Curve(name, x, y))
    x, y = [], []
    for x0, y0 in ends["stored"]:
        x, y = [*x, x0, x0], [*y, y0, float("nan")]
    curves.append(Curve("stored", x, y))
    return Panel("class means of task 1", "first principal axis", "second principal axis", curves)


def steps(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Compare one step of a map from true features with all its steps, and old classes with held-out current images."""
    panels, rows = [], []
    kinds: dict[str, Callable[[Result, int], float]] = {
        "held-out current images, one step": partial(quality, key="held"),
        "old images, one step": partial(quality, key="step"),
        "old images, all steps": old_mean,
    }
    for name in ("identity", "linear", "residual", "mlp"):
        if found := measured_with_truth(results.get(name, [])):
            curves = [over_tasks(kind, found, value) for kind, value in kinds.items()]
            panels.append(Panel(name, TASK, OMEGA, curves))
            for kind, value in kinds.items():
                ends = [value(r, len(r.phases()) - 1) for r in found]
                rows.append(Comparison("omega, last task", f"{name}, {kind}", None, "", estimate(ends), 0.0))
    panels = on_one_scale(panels, 1.01) or [Panel("", TASK, OMEGA)]
    note = "the gap of the first two is what a map loses on classes it was not fitted to"
    return Drawing(panels, rows, notes(s, note))


def quality(result: Result, phase: int, key: str) -> float:
    """Return one of the numbers by which a phase has measured the quality of its map."""
    return result.phases()[phase]["quality"][key]


def anchors(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Compare LwF.MC and iCaRL with their published numbers.

    Stage 1 without feature distillation is LwF.MC, and iCaRL has the same hyper-parameters. For no other method are
    numbers known.
    """
    readouts = {"LwF.MC": ("LwF", "cnn", "LwF.MC"), "iCaRL-NME": ("iCaRL", "nme", "iCaRL")}
    readouts["iCaRL-CNN"] = ("iCaRL", "cnn", "hybrid1 (iCaRL CNN head)")
    curves, rows = [], []
    for name, (method, readout, published_name) in readouts.items():
        found = {
            task_size: estimate([average(r, readout) for r in results[method, task_size]])
            for task_size in s.task_sizes
            if (method, task_size) in results
        }
        curves += [through(name, list(found), list(found.values()))] if found else []
        for task_size, e in found.items():
            value = published.value(published_name, task_size)
            rows.append(Comparison(f"{AVERAGE}, {task_size} classes a task", name, *value, e))
        curves += [replace(c, name=name) for c in published_curve(published, published_name)]
    panels = [Panel("iCaRL paper, Table 1a", "classes a task", AVERAGE, curves)]
    if lwf := results.get(("LwF", s.classes_per_task)):
        x = [p["classes"] for p in lwf[0].phases()]
        port = published_curve(published.figure("anchors-port"), "LwF.MC (port)")
        panels.append(
            Panel(
                f"{s.classes_per_task} classes a task",
                CLASSES,
                TOP1,
                [mean_curve("LwF.MC", x, lines(lwf, "cnn")), *port],
            )
        )
    note = (
        "published values are iCaRL's and a public port's, none is this paper's; "
        "iCaRL's code leaves out the last ReLU, as ours does"
    )
    return Drawing(panels, rows, notes(s, note))


def choices(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw what changes with one open choice of stages 2 and 3 at a time."""
    return variants(s, results)


def controls(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw what changes with one open choice of stage 1 at a time."""
    return variants(s, results, f"hybrids keep {s.hybrids[0][0]} images a class too")


def variants(s: Setting, results: Results, *words: str) -> Drawing:
    """Draw averages of the feature classifier and of stage 1's own head, side by side."""
    panel, rows = by_readout(results, {"feature classifier": "cnn", "own head": "stage1"}, "one choice changed")
    return Drawing([panel], rows, notes(s, f"{s.small} features a class", *words))
