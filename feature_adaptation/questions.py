"""What readers asked about stage 2: every map and memory size, true against predicted drift, one step and all steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from common.curves import AVERAGE, LAST, Results, average, mean_curve
from common.figures import Comparison, Curve, Drawing, Panel, estimate
from common.store import Result
from feature_adaptation import experiments as ex
from feature_adaptation.figures import LOG_MEMORY, OMEGA, TASK, bars, point, with_truth
from feature_adaptation.memory import preserved
from feature_adaptation.presets import Setting


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


def sizes(s: Setting, results: Results) -> Drawing:
    """Accuracy against memory for several maps, from one training of the network: what more features are worth."""
    names = list(dict.fromkeys(name.rsplit(" ", 1)[0] for name in ex.sizes(s) if name != "own head"))
    panels, rows = [], []
    for y, value in ((AVERAGE, average), (LAST, lambda r, of: r.curve(of)[-1])):
        curves = []
        for name in names:
            known = {n: results[f"{name} {n}"] for n in s.features if results.get(f"{name} {n}")}
            columns = [[value(r, "cnn") for r in found] for found in known.values()]
            x = [float(f"{preserved(s.size, n):.3g}") for n in known]
            if n := min(map(len, columns), default=0):
                curves.append(mean_curve(name, x, [[c[i] for c in columns] for i in range(n)]))
            for count, column in zip(known, columns, strict=True):
                rows.append(Comparison(f"{y}, {count} features a class", name, None, "", estimate(column)))
        if head := results.get("own head"):
            curves += [across("own head", curves, float(np.mean([value(r, "cnn") for r in head])))]
        panels.append(Panel("one stage 1, memories of many sizes", LOG_MEMORY, y, curves, x_log=True))
    return Drawing(panels, rows, "own head: stage 1's classifier, which keeps nothing; true features are an oracle's")


def across(name: str, curves: Sequence[Curve], value: float) -> Curve:
    """A dashed line at `value` under the other curves."""
    x = sorted({v for c in curves for v in c.x}, key=float) or [0.0]
    return Curve(name, x, [value] * len(x), reference=True, legend=f"{value:.1f}")


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
    panels = [replace(p, y_range=(low - 0.02, 1.01)) for p in panels]
    panels = panels or [Panel("", TASK, OMEGA)]
    return Drawing(panels, rows, "the gap of the first two is what a map loses on classes it was not fitted to")
