"""Draw each figure of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np

from common.drawing.curves import AVERAGE, CLASSES, TOP1, average, mean_curve, through
from common.drawing.figures import Comparison, Curve, Drawing, Estimate, Panel, PublishedFigure, Results, estimate
from common.store import Result
from feature_adaptation.memory import preserved
from feature_adaptation.reproduce.parts import (
    LOG_MEMORY,
    OMEGA,
    TAKEN,
    TASK,
    Ordering,
    average_rows,
    bars,
    lines,
    measured_with_truth,
    notes,
    on_one_scale,
    orderings,
    origins,
    point,
)
from feature_adaptation.reproduce.presets import Setting

VALIDATION = "on a tenth of the training images, held out"
READOUTS = {"iCaRL-NME": ("iCaRL", "nme"), "iCaRL-CNN": ("iCaRL", "cnn"), "LUCIR": ("LUCIR", "cnn")}
"""Exemplar methods of Fig. 2 and 3: name of the curve -> (method in the key, read-out). Other curves have the method's
name, and "cnn"."""
MAP_NAMES = {"identity": "FA (no map)", "mlp": "FA (MLP)"}
"""The paper's names of maps."""
TENFOLD = 10.0  # "at least an order of magnitude"


@dataclass(frozen=True)
class MemoryPoint:
    """A method that keeps so many images and features of each class, and its Results."""

    method: str
    images: int
    features: int
    found: list[Result]
    readout: str

    @property
    def averages(self) -> list[float]:
        """The average incremental accuracy of each repeat."""
        return [average(r, self.readout) for r in self.found]

    def megabytes(self, s: Setting, jpeg: bool = False) -> float:
        """Return the MB of preserved data."""
        return preserved(s.size, self.features, self.images, jpeg)


def memory_points(results: Results) -> list[MemoryPoint]:
    """Return every method and memory size of Fig. 2, by method, then by size."""
    points = []
    for name in ("FA (MLP)", "FA hybrid", *READOUTS, "EEIL-style", "LwF", "LwF+FD"):
        wanted, readout = READOUTS.get(name, (name, "cnn"))
        mine = [(key, found) for key, found in results.items() if key[0] == wanted]
        points += [MemoryPoint(name, images, features, found, readout) for (_, images, features), found in mine]
    return points


def memory(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 2: memory against accuracy, with images uncompressed and as JPEGs, and test the paper's claim."""
    points, panels = memory_points(results), []
    for title, jpeg in (("images uncompressed", False), (f"images as JPEGs of {s.size.jpeg:,} bytes", True)):
        curves = []
        for method in dict.fromkeys(p.method for p in points):
            mine = [p for p in points if p.method == method]
            x = [float(f"{p.megabytes(s, jpeg):.3g}") for p in mine]
            curves.append(through(method, x, [estimate(p.averages) for p in mine]))
        panels.append(Panel(title, LOG_MEMORY, AVERAGE, curves, x_log=True))
    rows = [Comparison(f"{AVERAGE}, {p.megabytes(s):.3g} MB", p.method, None, "", estimate(p.averages)) for p in points]
    tenfold = claim(s, points)
    note = "no number of the paper's figure could be recovered; JPEG sizes are approximate"
    return Drawing([*panels, *tenfold.panels], [*rows, *tenfold.comparisons], notes(s, note, tenfold.note))


def claim(s: Setting, points: Sequence[MemoryPoint]) -> Drawing:
    """Draw how many times less memory reaches the accuracy of exemplar methods. The paper claims at least ten times."""
    adapted = [p for p in points if p.method == "FA (MLP)"]
    exemplars = [p for p in points if p.images and not p.features]
    names = [f"{p.method}, P = {p.images}" for p in exemplars]
    curves, rows, words = [], [], []
    for label, jpeg in (("uncompressed", False), ("as JPEGs", True)):
        ratios = []
        for name, p in zip(names, exemplars, strict=True):
            enough = [o.megabytes(s) for o in adapted if np.mean(o.averages) >= np.mean(p.averages)]
            ratios.append(p.megabytes(s, jpeg) / min(enough) if enough else nan)
            quantity = f"memory of images {label} / of features that do as well"
            found = Estimate(ratios[-1], nan, nan, len(p.averages)) if enough else None  # a ratio of means: no interval
            rows.append(Comparison(quantity, name, None, "", found, 0.0))
        curves.append(Curve(f"images {label}", names, ratios))
        held = sum(ratio >= TENFOLD - 1e-9 for ratio in ratios)
        words.append(f"images {label}: tenfold or more at {held} of {len(ratios)} points")
    title = "for the same accuracy; claimed: 10"
    panel = Panel(title, "", "times less memory, FA (MLP)", curves, kind="bars")
    note = "; ".join([*words, "no bar: FA (MLP) does not do as well at any size measured"])
    return Drawing([panel], rows, note) if names else Drawing([])


METHODS = ("true features", "FA (MLP)", "FA (no map)", "frozen extractor", *READOUTS, "LwF+FD", "LwF", "fine-tuning")
ORDERINGS: tuple[Ordering, ...] = (
    ("LwF > fine-tuning", ("LwF", "cnn"), ("fine-tuning", "cnn")),
    ("FA (no map) > LwF", ("FA (no map)", "cnn"), ("LwF", "cnn")),
    ("FA (MLP) > FA (no map)", ("FA (MLP)", "cnn"), ("FA (no map)", "cnn")),
    ("FA (MLP) > frozen extractor", ("FA (MLP)", "cnn"), ("frozen extractor", "cnn")),
    ("true features > FA (MLP)", ("true features", "cnn"), ("FA (MLP)", "cnn")),
    ("FA (MLP) > iCaRL-CNN", ("FA (MLP)", "cnn"), ("iCaRL", "cnn")),
)


def tasks(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 3: accuracy on the classes seen so far, at each number of classes a task, and expected orderings."""
    panels, rows = [], []
    joint = [r.curve("cnn")[-1] for r in results.get("joint", [])]
    for task_size in s.task_sizes:
        curves = []
        for name in METHODS:
            method, readout = READOUTS.get(name, (name, "cnn"))
            if found := results.get((method, task_size)):
                classes = [p["classes"] for p in found[0].phases()]
                curves.append(mean_curve(name, classes, lines(found, readout)))
                rows += average_rows(f"{name}, {task_size} classes a task", found, readout, published)
        curves += [point("joint", s.classes, joint)] if joint else []
        panels.append(Panel(f"{task_size} classes a task", CLASSES, TOP1, curves))
    if joint:
        rows.append(Comparison("accuracy, all classes (%)", "joint", None, "", estimate(joint)))
    above = orderings(results, ORDERINGS, s.task_sizes)
    note = f"FA keeps all features; iCaRL and LUCIR keep {s.budget} images a class; true features: an oracle's memory"
    return Drawing([*panels, *above.panels], [*rows, *above.comparisons], notes(s, note))


def memory_bars(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Table 1: what each method keeps, and its averages with and without the first task."""
    shown = [p for p in memory_points(results) if p.images in (0, s.budget) or p.features]
    shown = [p for p in shown if p.method != "FA (MLP)" or p.features in (s.small, s.features[-1])]
    names, rows = [], []
    for p in shown:
        held = [f"{p.images} images a class"] if p.images else []
        held += [f"{p.features} features a class"] if p.features else []
        names.append(f"{p.method}, {p.megabytes(s):.3g} MB")
        name = f"{' + '.join([p.method, *held])}: {p.megabytes(s):.3g} MB"
        rows += average_rows(name, p.found, p.readout, published)
    rest = [[float(np.mean(line[1:])) for line in lines(p.found, p.readout)] for p in shown]
    groups = {
        "all tasks": [estimate(p.averages) for p in shown],
        "without the first": [estimate(values) for values in rest],
    }
    return Drawing([bars("preserved data and accuracy", names, groups, AVERAGE)], rows, notes(s))


def quality(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 4: omega of each task's features as later tasks move them, with and without L_FD and the map."""
    panels, rows = [], []
    words = {"mlp": "adapted by the MLP", "identity": "left as they were"}
    for (transform, stage), all_found in results.items():
        if not (found := measured_with_truth(all_found)):
            continue
        title, count, curves = f"{words[transform]}, {stage}", len(found[0].phases()), []
        for i in origins(count):
            values = [[p["quality"]["omega"][i] for p in r.phases()[i:]] for r in found]
            curves.append(mean_curve(f"of task {i + 1}", list(range(i + 1, count + 1)), values))
        panels.append(Panel(title, TASK, OMEGA, curves))
        last = [float(np.mean(r.phases()[-1]["quality"]["omega"][:-1])) for r in found]
        rows.append(Comparison("omega of old tasks after the last", title, None, "", estimate(last), 0.0))
    note = "omega of a task's own features is 1 when they are stored; the memory holds all features"
    return Drawing(on_one_scale(panels, 1.02), rows, notes(s, note))


def sensitivity(
    s: Setting, results: Results, title: str, x: str, names: Mapping[Any, str], ticks: Mapping[Any, str]
) -> Drawing:
    """Draw average incremental accuracy against a hyper-parameter. The keys of `results` are (curve, value).

    names: curve -> name in the legend. ticks: value -> label on the axis.
    """
    curves, rows = [], []
    for key, name in names.items():
        known = {tick: results[key, value] for value, tick in ticks.items() if results.get((key, value))}
        found = {tick: estimate([average(r, "cnn") for r in repeats]) for tick, repeats in known.items()}
        curves += [through(name, list(found), list(found.values()))] if found else []
        rows += [Comparison(f"{AVERAGE}, {x} {tick}", name, None, "", e) for tick, e in found.items()]
    return Drawing([Panel(title, x, AVERAGE, curves)], rows, notes(s, VALIDATION))


def gammas(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 5: sensitivity to the weight of feature distillation."""
    names = {name: MAP_NAMES.get(name, name) for name in ("own head", *s.gamma_maps)}
    return sensitivity(s, results, "feature distillation in stage 1", "gamma", names, {g: f"{g:g}" for g in s.gammas})


def alphas(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 5: sensitivity to the weight of L_sim."""
    ticks = {a: "L_sim alone" if a is None else f"{a:g}" for a in s.alphas}
    return sensitivity(s, results, "the weight of L_sim in stage 2", "alpha", {"mlp": "FA (MLP)"}, ticks)


def widths(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 6: sensitivity to the hidden size of the adaptation network."""
    names = {1: "FA (MLP)", 2: "two hidden layers"}
    return sensitivity(s, results, "the adaptation network", "hidden units", names, {e: f"{e} d" for e in s.expansions})


def distilled(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Table 2: what distillation does for the network's own head and for adapted features."""
    names = ("own head", "FA (MLP)")
    stages = [
        stage for stage in dict.fromkeys(stage for _, stage in results) if all((n, stage) in results for n in names)
    ]
    groups = {n: [estimate([average(r, "cnn") for r in results[n, stage]]) for stage in stages] for n in names}
    rows = [
        Comparison(AVERAGE, f"{name}, {stage}", None, "", groups[name][i])
        for i, stage in enumerate(stages)
        for name in names
    ]
    return Drawing([bars("stage 1 trained with", stages, groups, AVERAGE)], rows, notes(s))


def balance(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Table 3: balanced against unbalanced training of the feature classifier."""
    averages = [estimate([average(r, "cnn") for r in found]) for found in results.values()]
    errors = [estimate([r.readout("cnn")["old_to_new"] for r in found]) for found in results.values()]
    panels, rows = [], []
    for title, y, values in (("all classes seen", AVERAGE, averages), ("errors", TAKEN, errors)):
        panels.append(bars(title, list(results), {y: values}, y))
        rows += [Comparison(y, name, None, "", e) for name, e in zip(results, values, strict=True)]
    return Drawing(panels, rows, notes(s, f"{s.small} features a class"))
