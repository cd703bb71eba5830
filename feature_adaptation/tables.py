"""Figures that readers of the paper asked for: maps, drift, steps, equal bytes, orderings, anchors, open choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from common.curves import AVERAGE, CLASSES, LAST, TOP1, Results, average, mean_curve, paired, published_curve
from common.figures import Comparison, Curve, Drawing, Panel, estimate
from common.store import Result
from feature_adaptation import experiments as ex
from feature_adaptation.experiments import Setting
from feature_adaptation.figures import OMEGA, PUBLISHED, TASK, bars, lines, memory_points, point, with_truth

TENFOLD = 10.0  # "at least an order of magnitude"


def old_mean(result: Result, phase: int = -1, key: str = "omega") -> float:
    """A quality by task of origin, mean over the old tasks."""
    values = result.phases()[phase]["quality"][key]
    return float(np.mean(values[: len(result.phases()) - 1 if phase == -1 else phase]))


def maps(s: Setting, results: Results) -> Drawing:
    """Every map on the same pairs and memory: accuracy, and accuracy against omega."""
    names = [name for name in ex.maps(s) if results.get(name)]
    groups = {"feature classifier": "cnn", "nearest class mean": "ncm"}
    values = {label: [[average(r, of) for r in results[name]] for name in names] for label, of in groups.items()}
    rows = [
        Comparison(f"{AVERAGE}, {label}", name, None, "", estimate(v))
        for label, columns in values.items()
        for name, v in zip(names, columns, strict=True)
    ]
    panels = [bars("average over all tasks", names, values, AVERAGE)]
    for key, x in (("omega", OMEGA), ("explained", "share of the drift explained")):
        curves = []
        for name in names:
            if found := with_truth(results[name]):
                quality = [old_mean(r, key=key) for r in found]
                curves.append(point(name, round(float(np.mean(quality)), 4), [r.curve("cnn")[-1] for r in found]))
                rows.append(Comparison(f"{x}, old tasks, at the end", name, None, "", estimate(quality), 0.0))
        panels.append(Panel("after the last task", f"{x}, old tasks", LAST, curves))
    note = "mlp on true pairs and true features are oracles; a map that explains less than 0 leads away from the truth"
    return Drawing(panels, rows, note)


def over_tasks(name: str, found: Sequence[Result], value: Callable[[Result, int], float]) -> Curve:
    """A quality after each task from the second on."""
    count = len(found[0].phases())
    return mean_curve(name, list(range(2, count + 1)), [[value(r, t) for t in range(1, count)] for r in found])


def drift(s: Setting, results: Results) -> Drawing:
    """True against predicted drift, on unit features: explained share, direction, class means, and five arrows."""
    known = {name: found for name in ex.drift(s) if (found := with_truth(results.get(name, [])))}
    moved = {name: found for name, found in known.items() if name != "identity"}
    panels, rows = [], []
    for key, y in (("explained", "share of the drift explained"), ("drift_cosine", "cosine of true and predicted")):
        curves = [over_tasks(n, f, partial(old_mean, key=key)) for n, f in moved.items()]
        panels.append(Panel("drift of old tasks", TASK, y, curves))
        for name, found in moved.items():
            ends = estimate([old_mean(r, key=key) for r in found])
            rows.append(Comparison(f"{y}, at the end", name, None, "", ends, 0.0))
    curves = [over_tasks(n, f, class_mean_distance) for n, f in known.items()]
    if mlp := known.get("mlp"):
        curves += thin_lines(mlp[0], s.step)
    panels.append(Panel("class means", TASK, "distance to the true mean", curves))
    for name, found in known.items():
        ends = estimate([class_mean_distance(r, len(r.phases()) - 1) for r in found])
        rows.append(Comparison("distance of class means, at the end", name, None, "", ends, 0.0))
    if mlp:
        panels.append(arrow_panel(mlp[0]))
    note = "identity: before adaptation; thin lines: classes of task 1 after the MLP, and their arrows: one repeat"
    return Drawing(panels, rows, note)


def class_mean_distance(result: Result, phase: int) -> float:
    return float(np.mean(result.phases()[phase]["quality"]["means_after"]))


def thin_lines(result: Result, classes: int) -> list[Curve]:
    phases = result.phases()[1:]
    x = list(range(2, len(phases) + 2))
    shown = range(min(classes, 5))
    return [Curve("mlp", x, [p["quality"]["means_after"][c] for p in phases], reference=True) for c in shown]


def arrow_panel(result: Result) -> Panel:
    """From each stored class mean to where it is now and to where the map puts it, on two principal axes."""
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


def steps(s: Setting, results: Results) -> Drawing:
    """One step from true features against all steps from the first; old classes against held-out current ones."""
    panels, rows = [], []
    kinds: dict[str, Callable[[Result, int], float]] = {
        "held-out current images, one step": lambda r, t: r.phases()[t]["quality"]["held"],
        "old images, one step": lambda r, t: r.phases()[t]["quality"]["step"],
        "old images, all steps": old_mean,
    }
    for name in ("identity", "linear", "residual", "mlp"):
        if found := with_truth(results.get(name, [])):
            curves = [over_tasks(kind, found, value) for kind, value in kinds.items()]
            panels.append(Panel(name, TASK, OMEGA, curves))
            for kind, value in kinds.items():
                ends = [value(r, len(r.phases()) - 1) for r in found]
                rows.append(Comparison("omega, last task", f"{name}, {kind}", None, "", estimate(ends), 0.0))
    low = min((min(c.y) for p in panels for c in p.curves), default=0)
    panels = [replace(p, y_range=(low - 0.02, 1.005)) for p in panels]
    panels = panels or [Panel("", TASK, OMEGA)]
    return Drawing(panels, rows, "the gap of the first two is what a map loses on classes it was not fitted to")


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
            ratios.append(p.megabytes(s, jpeg) / min(enough) if enough else float("nan"))
            quantity = f"memory of images {label} / of features that do as well"
            rows.append(Comparison(quantity, name, None, "", estimate(ratios[-1:]) if enough else None, 0.0))
        if names:
            curves.append(Curve(f"images {label}", names, ratios))
        held = sum(ratio >= TENFOLD - 1e-9 for ratio in ratios)
        words.append(f"images {label}: tenfold or more at {held} of {len(ratios)} points")
    title = "least measured memory of FA (MLP) that does as well; the claim is 10 times or more"
    panel = Panel(title, "", "times less memory", curves, kind="bars")
    return Drawing([panel], rows, "; ".join([*words, "no bar: features do not do as well at any size measured"]))


ORDERINGS = (
    ("LwF above fine-tuning", ("LwF", "cnn"), ("fine-tuning", "cnn")),
    ("FA without a map above LwF", ("FA (no map)", "cnn"), ("LwF", "cnn")),
    ("FA without a map above its own network's head", ("FA (no map)", "cnn"), ("FA (no map)", "stage1")),
    ("FA (MLP) above FA without a map", ("FA (MLP)", "cnn"), ("FA (no map)", "cnn")),
    ("FA (MLP) above a frozen extractor", ("FA (MLP)", "cnn"), ("frozen extractor", "cnn")),
    ("true features above FA (MLP)", ("true features", "cnn"), ("FA (MLP)", "cnn")),
    ("FA (MLP) above iCaRL-CNN", ("FA (MLP)", "cnn"), ("iCaRL", "cnn")),
)


def orderings(s: Setting, results: Results) -> Drawing:
    """What the method predicts, as differences of averages paired by class order and seed."""
    curves, rows = [], []
    for step in s.steps:
        names, differences = [], []
        for name, (a, of_a), (b, of_b) in ORDERINGS:
            both = paired([results.get(f"{a} {step}", []), results.get(f"{b} {step}", [])])
            if both:
                values = [average(x, of_a) - average(y, of_b) for x, y in zip(*both, strict=True)]
                names.append(name)
                differences.append(values)
                quantity = "difference of averages (points, paired by seed and order)"
                rows.append(Comparison(quantity, f"{name}, {step} classes a task", None, "", estimate(values)))
        curves += bars("", names, {f"{step} classes a task": differences}, "").curves if names else []
    panel = Panel("expected to be positive", "", "difference (points)", curves, kind="bars")
    return Drawing(
        [panel], rows, f"average incremental accuracy; iCaRL keeps {s.budget} images a class, FA all features"
    )


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
        series = PUBLISHED.series("anchors", theirs)
        assert series is not None
        table = dict(zip(series["x"], series["y"], strict=True)) if overlay else {}
        for step, column in zip(known, columns, strict=True):
            value = table.get(step)
            rows.append(
                Comparison(
                    f"{AVERAGE}, {step} classes a task", name, value, "printed" if value else "", estimate(column)
                )
            )
        curves += [replace(c, name=name) for c in published_curve(PUBLISHED, "anchors", theirs)] if overlay else []
    panels = [Panel("iCaRL paper, Table 1a", "classes a task", AVERAGE, curves)]
    if found := results.get(f"LwF {s.step}"):
        x = [p["classes"] for p in found[0].phases()]
        more = [mean_curve("LwF.MC", x, lines(found, "cnn"))]
        port = published_curve(PUBLISHED, "anchors-port", "LwF.MC (port)") if overlay else []
        panels.append(Panel(f"{s.step} classes a task", CLASSES, TOP1, [*more, *port]))
    return Drawing(panels, rows, "published values are iCaRL's and a public port's, none is the paper's own")


def choices(s: Setting, results: Results) -> Drawing:
    """One open choice changed at a time."""
    names = [name for name in ex.choices(s) if results.get(name)]
    values = [[average(r, "cnn") for r in results[name]] for name in names]
    rows = [Comparison(AVERAGE, name, None, "", estimate(v)) for name, v in zip(names, values, strict=True)]
    panel = bars("one choice changed", names, {AVERAGE: values}, AVERAGE)
    return Drawing([panel], rows, f"{s.small} features a class; hybrids keep {s.hybrids[0][0]} images a class too")
