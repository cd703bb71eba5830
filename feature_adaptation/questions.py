"""What draws readers' questions about stage 2: maps, memory sizes, true and predicted drift, one step and all steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from common.curves import AVERAGE, LAST, across, average, mean_curve, through
from common.figures import Comparison, Curve, Drawing, Panel, PublishedFigure, Results, estimate
from common.store import Result
from feature_adaptation.figures import LOG_MEMORY, OMEGA, TASK, bars, notes, on_one_scale, point, with_truth
from feature_adaptation.memory import preserved
from feature_adaptation.presets import Setting

EXPLAINED = "share of the drift explained"


def old_mean(result: Result, phase: int = -1, key: str = "omega") -> float:
    """A quality by task of origin, mean over the old tasks."""
    values = result.phases()[phase]["quality"][key]
    return float(np.mean(values[: len(result.phases()) - 1 if phase == -1 else phase]))


def by_readout(results: Results, readouts: dict[str, str], title: str) -> tuple[Panel, list[Comparison]]:
    """Averages of several read-outs of every variant, side by side. readouts: {name: read-out}."""
    groups = {
        name: [estimate([average(r, of) for r in found]) for found in results.values()] for name, of in readouts.items()
    }
    rows = [
        Comparison(f"{AVERAGE}, {name}", variant, None, "", e)
        for name, found in groups.items()
        for variant, e in zip(results, found, strict=True)
    ]
    return bars(title, list(results), groups, AVERAGE), rows


def maps(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Every map on the same pairs and memory: accuracy, and accuracy against omega."""
    readouts = {"feature classifier": "cnn", "nearest class mean": "ncm"}
    panel, rows = by_readout(results, readouts, "average over all tasks")
    panels = [panel]
    for key, x in (("omega", OMEGA), ("explained", EXPLAINED)):
        curves = []
        for name, all_found in results.items():
            if found := with_truth(all_found):
                quality = [old_mean(r, key=key) for r in found]
                curves.append(point(name, round(float(np.mean(quality)), 4), [r.curve("cnn")[-1] for r in found]))
                rows.append(Comparison(f"{x}, old tasks, at the end", name, None, "", estimate(quality), 0.0))
        panels.append(Panel("after the last task", f"{x}, old tasks", LAST, curves))
    note = "mlp on true pairs and true features are oracles; a map that explains less than 0 leads away from the truth"
    return Drawing(panels, rows, notes(s, note))


def sizes(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Accuracy against memory for several maps, from one training of the network: what more features are worth."""
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
    """Accuracy after the last phase."""
    return result.curve(readout)[-1]


def over_tasks(name: str, found: Sequence[Result], value: Callable[[Result, int], float]) -> Curve:
    """A quality after each task from the second on."""
    count = len(found[0].phases())
    return mean_curve(name, list(range(2, count + 1)), [[value(r, t) for t in range(1, count)] for r in found])


def drift(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """True against predicted drift, on unit features: explained share, direction, class means, and five arrows."""
    known = {name: found for name, everything in results.items() if (found := with_truth(everything))}
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
        curves += thin_lines(mlp[0], s.step)
    panels.append(Panel("class means", TASK, "distance to the true mean", curves))
    for name, found in known.items():
        ends = estimate([class_mean_distance(r, len(r.phases()) - 1) for r in found])
        rows.append(Comparison("distance of class means, at the end", name, None, "", ends, 0.0))
    if mlp:
        panels.append(arrow_panel(mlp[0]))
    note = "identity: before adaptation; thin lines: classes of task 1 after the MLP, and their arrows: one repeat"
    return Drawing(panels, rows, notes(s, note))


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


def steps(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """One step from true features against all steps from the first; old classes against held-out current ones."""
    panels, rows = [], []
    kinds: dict[str, Callable[[Result, int], float]] = {
        "held-out current images, one step": partial(quality, key="held"),
        "old images, one step": partial(quality, key="step"),
        "old images, all steps": old_mean,
    }
    for name in ("identity", "linear", "residual", "mlp"):
        if found := with_truth(results.get(name, [])):
            curves = [over_tasks(kind, found, value) for kind, value in kinds.items()]
            panels.append(Panel(name, TASK, OMEGA, curves))
            for kind, value in kinds.items():
                ends = [value(r, len(r.phases()) - 1) for r in found]
                rows.append(Comparison("omega, last task", f"{name}, {kind}", None, "", estimate(ends), 0.0))
    panels = on_one_scale(panels, 1.01) or [Panel("", TASK, OMEGA)]
    note = "the gap of the first two is what a map loses on classes it was not fitted to"
    return Drawing(panels, rows, notes(s, note))


def quality(result: Result, phase: int, key: str) -> float:
    """A number that a phase has of its map."""
    return result.phases()[phase]["quality"][key]
