"""One function per figure of the paper: Results to a Drawing. No torch. What readers asked for is in tables.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.curves import AVERAGE, CLASSES, TOP1, Results, accuracy_curve, average, end_rows, mean_curve
from common.figures import Comparison, Curve, Drawing, Panel, Published, estimate
from common.store import Result
from feature_adaptation import experiments as ex
from feature_adaptation.memory import preserved
from feature_adaptation.presets import Setting

PUBLISHED = Published(Path(__file__).with_name("published.json"))
TASK, OMEGA = "task", "omega (mean cosine)"
LOG_MEMORY = "preserved data (MB), log axis from the least on"
LATER_INCREMENTAL = "average incremental accuracy without the first task (%)"
READOUTS = {"iCaRL-NME": ("iCaRL", "nme"), "iCaRL-CNN": ("iCaRL", "cnn"), "LUCIR": ("LUCIR", "cnn")}
"""Exemplar methods of Fig. 2 and 3: curve name -> (name of the runs, read-out)."""
ORIGINS = 6  # tasks of origin shown where each is a curve


def origins(count: int) -> list[int]:
    """Old tasks to show of `count`: at most ORIGINS, spread evenly."""
    return sorted(set(np.linspace(0, count - 2, min(ORIGINS, count - 1)).round().astype(int).tolist()))


def lines(found: Sequence[Result], name: str) -> list[list[float]]:
    return [r.curve(name) for r in found]


def average_rows(name: str, found: Sequence[Result], of: str) -> list[Comparison]:
    """The average with and without the first task, as both are in use; the accuracy at the end and forgetting."""
    curves = lines(found, of)
    rows = [Comparison(AVERAGE, name, None, "", estimate([float(np.mean(line)) for line in curves]))]
    if len(curves[0]) > 1:
        rest = estimate([float(np.mean(line[1:])) for line in curves])
        rows.append(Comparison(LATER_INCREMENTAL, name, None, "", rest))
    return [*rows, *end_rows(name, found, of, PUBLISHED, "")]


def point(name: str, x: float, values: Sequence[float]) -> Curve:
    """One point with its interval."""
    return mean_curve(name, [x], [[v] for v in values])


@dataclass(frozen=True)
class Kept:
    """What one method keeps in one setting, and its Results."""

    method: str
    features: int
    images: int
    found: list[Result]
    readout: str

    @property
    def averages(self) -> list[float]:
        """Average incremental accuracy of each repeat."""
        return [average(r, self.readout) for r in self.found]

    def megabytes(self, s: Setting, jpeg: bool = False) -> float:
        return preserved(s.size, self.features, self.images, jpeg)


def memory_points(s: Setting, results: Results) -> list[Kept]:
    """Every method and memory size of Fig. 2, by method, then by size."""
    wanted = [("FA (MLP)", f"FA {n}", "cnn", n, 0) for n in s.features]
    wanted += [("FA hybrid", f"hybrid {p} {n}", "cnn", n, p) for p, n in s.hybrids]
    wanted += [(name, f"{label} {p}", of, 0, p) for name, (label, of) in READOUTS.items() for p in s.images]
    wanted += [("EEIL-style", f"EEIL {s.budget}", "cnn", 0, s.budget)]
    wanted += [(name, name, "cnn", 0, 0) for name in ("LwF", "LwF+FD")]
    return [
        Kept(method, features, images, results[key], of)
        for method, key, of, features, images in wanted
        if results.get(key)
    ]


def fig2(s: Setting, results: Results) -> Drawing:
    """Memory against accuracy, with images counted raw and as JPEGs."""
    points, panels = memory_points(s, results), []
    for title, jpeg in (("images uncompressed", False), (f"images as JPEGs of {s.size.jpeg:,} bytes", True)):
        curves = []
        for method in dict.fromkeys(p.method for p in points):
            mine = [p for p in points if p.method == method]
            n = min(len(p.averages) for p in mine)
            repeats = [[p.averages[i] for p in mine] for i in range(n)]
            curves.append(mean_curve(method, [float(f"{p.megabytes(s, jpeg):.3g}") for p in mine], repeats))
        panels.append(Panel(title, LOG_MEMORY, AVERAGE, curves, x_log=True))
    rows = [Comparison(f"{AVERAGE}, {p.megabytes(s):.3g} MB", p.method, None, "", estimate(p.averages)) for p in points]
    return Drawing(panels, rows, "no number of the paper's figure could be recovered; JPEG sizes are approximate")


METHODS = {
    "true features": ("true features", "cnn"),
    "FA (MLP)": ("FA (MLP)", "cnn"),
    "FA (no map)": ("FA (no map)", "cnn"),
    "frozen extractor": ("frozen extractor", "cnn"),
    **READOUTS,
    "LwF+FD": ("LwF+FD", "cnn"),
    "LwF": ("LwF", "cnn"),
    "fine-tuning": ("fine-tuning", "cnn"),
}


def fig3(s: Setting, results: Results) -> Drawing:
    """Accuracy on the classes seen so far, at each number of classes a task."""
    panels, rows = [], []
    for step in s.steps:
        curves = []
        for name, (label, of) in METHODS.items():
            if found := results.get(f"{label} {step}"):
                classes = [p["classes"] for p in found[0].phases()]
                curve, _ = accuracy_curve(name, classes, lines(found, of))
                curves.append(Curve(name, curve.x, curve.y, curve.interval, curve.n))
                method = f"{name}, {step} classes a task"
                rows += average_rows(method, found, of)
        if joint := results.get("joint"):
            end = [r.curve("cnn")[-1] for r in joint]
            curves.append(point("joint", s.classes, end))
        panels.append(Panel(f"{step} classes a task", CLASSES, TOP1, curves))
    if joint := results.get("joint"):
        rows += [
            Comparison("accuracy, all classes (%)", "joint", None, "", estimate([r.curve("cnn")[-1] for r in joint]))
        ]
    note = f"FA keeps all features; iCaRL and LUCIR keep {s.budget} images a class; true features: an oracle's memory"
    return Drawing(panels, rows, note)


def table1(s: Setting, results: Results) -> Drawing:
    """What each method keeps, and what it reaches with that: averages with and without the first task."""
    shown = [p for p in memory_points(s, results) if p.images in (0, s.budget) or p.features]
    shown = [p for p in shown if p.method != "FA (MLP)" or p.features in (s.small, s.features[-1])]
    names, rows = [], []
    for p in shown:
        kept = [f"{p.images} images a class"] if p.images else []
        kept += [f"{p.features} features a class"] if p.features else []
        names.append(f"{p.method}, {p.megabytes(s):.3g} MB")
        rows += average_rows(f"{' + '.join([p.method, *kept])}: {p.megabytes(s):.3g} MB", p.found, p.readout)
    groups = {
        "all tasks": [p.averages for p in shown],
        "without the first": [[float(np.mean(line[1:])) for line in lines(p.found, p.readout)] for p in shown],
    }
    return Drawing([bars("preserved data and accuracy", names, groups, AVERAGE)], rows)


def bars(title: str, names: Sequence[str], groups: Mapping[str, Sequence[Sequence[float]]], y: str) -> Panel:
    """Bars: one group of values a name, one colour a group; each value a list over repeats."""
    curves = []
    for group, values in groups.items():
        stats = [estimate(v) for v in values]
        n = min((e.n for e in stats), default=1)
        interval = [e.interval for e in stats] if n > 1 else None
        if stats:
            curves.append(Curve(group, list(names), [e.mean for e in stats], interval, n))
    return Panel(title, "", y, curves, kind="bars")


def fig4(s: Setting, results: Results) -> Drawing:
    """omega of each task's features as later tasks move them: with and without L_FD, with and without the map."""
    panels, rows = [], []
    titles = {"mlp": "adapted by the MLP", "identity": "left as they were"}
    for distilled in ("with L_FD", "without L_FD"):
        for kind, words in titles.items():
            name = f"{kind} {distilled}"
            if not (found := with_truth(results.get(name, []))):
                continue
            curves = []
            count = len(found[0].phases())
            for i in origins(count):
                values = [[p["quality"]["omega"][i] for p in r.phases()[i:]] for r in found]
                curves.append(mean_curve(f"of task {i + 1}", list(range(i + 1, count + 1)), values))
            panels.append(Panel(f"{words}, {distilled}", TASK, OMEGA, curves))
            last = [float(np.mean(r.phases()[-1]["quality"]["omega"][:-1])) for r in found]
            rows.append(
                Comparison("omega of old tasks after the last", f"{words}, {distilled}", None, "", estimate(last), 0.0)
            )
    low = min((min(c.y) for p in panels for c in p.curves), default=0)
    panels = [Panel(p.title, p.x_label, p.y_label, p.curves, y_range=(low - 0.02, 1.02)) for p in panels]
    return Drawing(
        panels, rows, "omega of a task's own features is 1 when they are stored; the memory holds all features"
    )


def with_truth(found: Sequence[Result]) -> list[Result]:
    """Results whose run could be held against true features."""
    return [r for r in found if "omega" in r.phases()[-1].get("quality", {})]


VALIDATION = "on a tenth of the training images, held out"


def sensitivity(s: Setting, results: Results, values: Mapping[str, Mapping[str, str]], title: str, x: str) -> Drawing:
    """Fig. 5: average incremental accuracy against a hyper-parameter. values: {curve: {tick: name of the runs}}."""
    curves, rows = [], []
    for name, ticks in values.items():
        known = {tick: results[key] for tick, key in ticks.items() if results.get(key)}
        columns = [[average(r, "cnn") for r in found] for found in known.values()]
        n = min(map(len, columns), default=0)
        if n:
            curves.append(mean_curve(name, list(known), [[c[i] for c in columns] for i in range(n)]))
        for tick, column in zip(known, columns, strict=True):
            rows.append(Comparison(f"{AVERAGE}, {x} {tick}", name, None, "", estimate(column)))
    return Drawing([Panel(title, x, AVERAGE, curves)], rows, VALIDATION)


def gammas(s: Setting, results: Results) -> Drawing:
    words = {"identity": "FA (no map)", "mlp": "FA (MLP)"}
    names = {"own head": "head", **{words.get(name, name): name for name in s.gamma_maps}}
    values = {name: {f"{g:g}": f"{key} {g:g}" for g in s.gammas} for name, key in names.items()}
    return sensitivity(s, results, values, "feature distillation in stage 1", "gamma")


def alphas(s: Setting, results: Results) -> Drawing:
    ticks = {"L_sim alone" if a is None else f"{a:g}": str(a) for a in s.alphas}
    return sensitivity(s, results, {"FA (MLP)": ticks}, "the weight of L_sim in stage 2", "alpha")


def widths(s: Setting, results: Results) -> Drawing:
    names = {"FA (MLP)": 1, "two hidden layers": 2}
    values = {name: {f"{e} d": f"{n} {e}" for e in s.expansions} for name, n in names.items()}
    return sensitivity(s, results, values, "the adaptation network", "hidden units")


def table2(s: Setting, results: Results) -> Drawing:
    """What distillation does for the network's own head and for adapted features."""
    stages = [name[5:] for name in ex.distilled(s) if name.startswith("head ")]
    groups: dict[str, list[list[float]]] = {"own head": [], "FA (MLP)": []}
    shown, rows = [], []
    for stage in stages:
        pair = results.get(f"head {stage}"), results.get(f"FA {stage}")
        if not (pair[0] and pair[1]):
            continue
        shown.append(stage)
        for name, found in zip(groups, pair, strict=True):
            assert found
            groups[name].append([average(r, "cnn") for r in found])
            rows += average_rows(f"{name}, {stage}", found, "cnn")[:1]
    return Drawing([bars("stage 1 trained with", shown, groups, AVERAGE)], rows)


def table3(s: Setting, results: Results) -> Drawing:
    """Balanced against unbalanced training of the feature classifier."""
    names = [name for name in ex.balance(s) if results.get(name)]
    panels, rows = [], []
    for title, y, value in (
        ("all classes seen", AVERAGE, lambda r: average(r, "cnn")),
        ("errors", "old images called new, last task (%)", lambda r: r.readout("cnn")["old_to_new"]),
    ):
        values = [[value(r) for r in results[name]] for name in names]
        panels.append(bars(title, names, {y: values}, y))
        rows += [Comparison(y, name, None, "", estimate(v)) for name, v in zip(names, values, strict=True)]
    return Drawing(panels, rows, f"{s.small} features a class")
