"""One function per figure or table of the paper: Results to a Drawing. No torch, no training.

The paper's errors are those of the best test epoch. Ours are of the last; our best stands between the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from bbn import experiments as ex
from bbn.adaptor import alpha
from bbn.experiments import Setting, cell
from common.curves import Results, mean_curve
from common.figures import Comparison, Curve, Drawing, Panel, Published, estimate
from common.store import Result

PUBLISHED = Published(Path(__file__).with_name("published.json"))
ERROR = "test error (%)"
LAST, BEST = "last epoch", "best test epoch"
NAMES = {
    "cifar10": "CIFAR-10-LT",
    "cifar100": "CIFAR-100-LT",
    "inat2017": "iNaturalist 2017",
    "inat2018": "iNaturalist 2018",
}
GROUPS = ("many", "medium", "few")
SHORT = {  # under bars
    "Manifold Mixup (two samplers)": "Manifold, two samplers",
    "Ensemble Uniform + Balanced": "Uniform + Balanced",
    "Ensemble Uniform + Reversed": "Uniform + Reversed",
    "Mixup, classifier fine-tuned": "Mixup, fine-tuned",
}


def comparable(setting: Setting) -> bool:
    """Whether published values may be drawn over ours: the paper's data set, whatever the schedule."""
    return setting.preset != "quick"


def title(setting: Setting, factor: float | None) -> str:
    """Which data set it is about, and what stands for it."""
    name = NAMES[setting.role]
    words = name if comparable(setting) else f"glyphs, in place of {name}"
    return f"{words}, imbalance factor {factor:g}" if factor else words


def last(result: Result) -> float:
    """Test error at the last epoch, percent."""
    return 100 - result.readout("cnn")["accuracy"]


def tested(result: Result, name: str = "test_accuracy") -> dict[int, float]:
    """A column of the log by epoch, where it was measured."""
    trace = result.values["trace"]
    column = trace.get(name) or [None] * len(trace["epoch"])
    return {epoch: value for epoch, value in zip(trace["epoch"], column, strict=True) if value is not None}


def best(result: Result) -> float:
    """Test error at the best of the tested epochs, the last included: what the official code reports."""
    return min([last(result), *(100 - value for value in tested(result).values())])


def published(entry: str, method: str, x: float | None) -> tuple[float | None, str]:
    """A published error and its provenance; (None, "") where the paper has none."""
    series = PUBLISHED.series(entry, method)
    if series is None or (x is not None and x not in series["x"]):
        return None, ""
    return series["y"][series["x"].index(x) if x is not None else 0], series["provenance"]


def errors(
    setting: Setting, results: Results, entry: str, factor: float | None, rows: Mapping[str, str] | None = None
) -> tuple[Panel, list[Comparison]]:
    """Bars of the last and the best epoch beside the paper's, and both as comparisons.

    rows: the Results' names by the method's; by default they are the same.
    """
    rows = {name: key for name, key in (rows or {n: n for n in results}).items() if results.get(key)}
    names, labels = list(rows), [SHORT.get(name, name) for name in rows]
    curves, comparisons = [], []
    for label, measure in ((LAST, last), (BEST, best)):
        stats = [estimate([measure(r) for r in results[key]]) for key in rows.values()]
        n = max((s.n for s in stats), default=1)
        interval = [s.interval for s in stats] if n > 1 else None
        curves.append(Curve(label, labels, [s.mean for s in stats], interval, n))
        quantity = f"{ERROR}, {label}" + (f", imbalance factor {factor:g}" if factor else "")
        for name, stat in zip(names, stats, strict=True):
            comparisons.append(Comparison(quantity, name, *published(entry, name, factor), stat))
    known = [published(entry, name, factor)[0] for name in names]
    if comparable(setting) and any(value is not None for value in known):
        curves.append(Curve(BEST, labels, [float("nan") if v is None else v for v in known], published=True))
    return Panel(title(setting, factor), "", ERROR, curves, kind="bars"), comparisons


def error_table(setting: Setting, results: Results, entry: str, note: str = "") -> Drawing:
    """A table of errors at the setting's own imbalance."""
    panel, rows = errors(setting, results, entry, setting.factor)
    return Drawing([panel], rows, note)


def table1(setting: Setting, results: Results, entry: str) -> Drawing:
    """Table 1, a panel for each imbalance factor."""
    panels, rows = [], []
    for factor in setting.factors:
        names = {name: cell(name, factor) for name in setting.methods(factor)}
        panel, comparisons = errors(setting, results, entry, factor, names)
        panels.append(panel)
        rows += comparisons
    return Drawing(panels, rows)


def table2(setting: Setting, results: Results, entry: str) -> Drawing:
    """Table 2; the paper prints two numbers for LDAM-DRW, of which its own run is the one to compare with."""
    names = {"LDAM-DRW (re-run)" if name == "LDAM-DRW" else name: name for name in results}
    panel, rows = errors(setting, results, entry, None, names)
    value, provenance = published(entry, "LDAM-DRW (original paper)", None)
    if value is not None:
        rows.append(Comparison(f"{ERROR}, as the LDAM paper prints it", "LDAM-DRW", value, provenance, None))
    return Drawing([panel], rows)


def matrix(targets: Sequence[Setting], results: Results) -> Drawing:
    """Fig. 2 and 5: error by manner of representation learning (columns) and of classifier learning (rows)."""
    panels, rows = [], []
    source = targets[0]
    for target in targets:
        means, quantity = np.full((3, 3), np.nan), f"{ERROR}, classifier on {NAMES[target.role]}"
        for (i, classifier), (j, features) in product(enumerate(ex.MANNERS), repeat=2):
            if found := results.get(f"{target.role} {features} {classifier}"):
                stat = estimate([last(r) for r in found])
                means[i, j] = stat.mean
                rows.append(Comparison(quantity, f"{features} features, {classifier} classifier", None, "", stat))
        panels.append(_heat(source, target, means))
        rows += _orderings(target, means) if np.isfinite(means).all() else []
    return Drawing(panels, rows, "test error (%) at the last epoch; the least of each column in bold")


def _heat(source: Setting, target: Setting, errors: np.ndarray) -> Panel:
    return Panel(
        f"Classifier on {title(target, target.factor)}",
        f"representation learning, {NAMES[source.role]}",
        "classifier learning",
        kind="heat",
        matrix=errors,
        rows=ex.MANNERS,
        columns=ex.MANNERS,
    )


def _orderings(target: Setting, errors: np.ndarray) -> list[Comparison]:
    """What the paper states about the matrix, whose numbers are printed in a picture only."""
    columns = int((errors[1:] < errors[0]).all(axis=0).sum())
    rows = int((errors[:, :1] < errors[:, 1:]).all(axis=1).sum())
    where = f"on {NAMES[target.role]}, of 3"
    return [
        Comparison(f"columns {where}", "RW and RS classifiers better than CE", 3, "stated", estimate([columns]), 0.0),
        Comparison(f"rows {where}", "CE features better than RW and RS", 3, "stated", estimate([rows]), 0.0),
    ]


def fig4(setting: Setting, results: Results) -> Drawing:
    """Fig. 4: the norm of each class's classifier weights; sigma is their population standard deviation."""
    parts = {name: (name, "norms") for name in ex.MANNERS}
    parts |= {"BBN-CB": ("BBN", "norms_cb"), "BBN-RB": ("BBN", "norms_rb"), "BBN-ALL": ("BBN", "norms")}
    curves, rows = [], []
    for name, (key, column) in parts.items():
        if found := results.get(key):
            norms = [r.values["summary"][column] for r in found]
            sigma = estimate([float(np.std(line)) for line in norms])
            classes = list(range(len(norms[0])))
            curves.append(mean_curve(name, classes, norms, f"σ = {sigma.mean:.3f}"))
            value = published("fig4", name, None)
            rows.append(Comparison("σ of the norms over classes", name, *value, sigma, tolerance=0.0))
    panel = Panel(title(setting, setting.factor), "class, from head to tail", "L2 norm of a class's weights", curves)
    return Drawing([panel], rows)


def fig6(setting: Setting, results: Results) -> Drawing:
    """Supplement, Fig. 6: mean distance of a class's unit features from their centre, on both splits."""
    panels, rows = [], []
    for split, words in (("train", "training images"), ("test", "test images")):
        curves = []
        for name, found in results.items():
            lines = [r.values["summary"][f"spread_{split}"] for r in found]
            curves.append(mean_curve(name, [str(c) for c in range(len(lines[0]))], lines))
            overall = estimate([float(np.mean(line)) for line in lines])
            head = estimate([float(np.mean(line[: len(line) // 2])) for line in lines])
            rows.append(Comparison(f"mean distance, {words}", name, None, "", overall))
            rows.append(Comparison(f"mean distance of the larger half of the classes, {words}", name, None, "", head))
        panels.append(Panel(words, "class, from head to tail", "mean L2 distance to the centre", curves, kind="bars"))
    return Drawing(panels, rows, f"{title(setting, setting.factor)}; features of unit length")


def fig7(settings: Sequence[Setting], results: Results) -> Drawing:
    """Supplement, Fig. 7: alpha over training in closed form; and how the official code stretches it."""
    epochs = range(1, 201)
    shares = [e / 200 for e in epochs]
    kinds = {name: kind for name, kind in ex.ADAPTORS.items() if kind != "beta"}
    curves = [Curve(n, shares, [alpha(e, 200, kind, "paper") for e in epochs]) for n, kind in kinds.items()]
    long = {"Tmax as printed": "paper", "official code": "official"}
    stretched = [
        Curve(name, list(range(1, 91)), [alpha(e, 90, offset=offset) for e in range(1, 91)])  # type: ignore[arg-type]
        for name, offset in long.items()
    ]
    return Drawing(
        [
            Panel("Table 4's adaptors", "T / Tmax", "alpha", curves),
            Panel("Parabolic decay over iNaturalist's 90 epochs", "epoch", "alpha", stretched),
        ],
        note="the official code counts epochs from 0, and takes 100 and 200 for a Tmax of 90 and 180",
    )


def branches(setting: Setting, results: Results) -> Drawing:
    """Both branches, together and alone, on many-, medium- and few-shot classes as alpha moves over training."""
    found = results["BBN"]
    known = [g for g in GROUPS if tested(found[0], f"cnn {g}")]
    panels, rows = [], []
    for name, words in (("cb", "conventional branch alone"), ("rb", "re-balancing branch alone"), ("cnn", "both")):
        curves = []
        for group in known:
            lines = [tested(r, f"{name} {group}") for r in found]
            curves.append(mean_curve(f"{group}-shot classes", list(lines[0]), [list(t.values()) for t in lines]))
            end = estimate([r.readout(name)[group] for r in found])
            rows.append(Comparison(f"accuracy of {words}, last epoch (%)", f"{group}-shot classes", None, "", end))
        weight = tested(found[0], "alpha")
        shown = Curve("alpha, in %", list(weight), [100 * v for v in weight.values()], reference=True, legend=" ")
        panels.append(Panel(words, "epoch", "test accuracy (%)", [*curves, shown]))
    return Drawing([*panels, _sweep(found, known)], rows, title(setting, setting.factor))


def _sweep(found: list[Result], known: Sequence[str]) -> Panel:
    """Accuracy of the final networks as the alpha of testing moves."""
    weights = {"rb": 0.0, "alpha 0.25": 0.25, "cnn": 0.5, "alpha 0.75": 0.75, "cb": 1.0}
    curves = [
        mean_curve(
            f"{group}-shot classes", list(weights.values()), [[r.readout(w)[group] for w in weights] for r in found]
        )
        for group in known
    ]
    return Panel("after training", "alpha in testing", "test accuracy (%)", curves)


def epochs(setting: Setting, results: Results, entry: str) -> Drawing:
    """Test error of BBN over training: what choosing the best test epoch gives."""
    found, factor = results["BBN"], setting.factors[0]
    lines = [tested(r) for r in found]
    curves = [mean_curve("BBN", list(lines[0]), [[100 - v for v in line.values()] for line in lines])]
    value, provenance = published(entry, "BBN", factor)
    if comparable(setting) and value is not None:
        curves.append(Curve("BBN", [1, max(map(max, lines))], [value, value], published=True, legend="best test epoch"))
    stats = {LAST: estimate([last(r) for r in found]), BEST: estimate([best(r) for r in found])}
    rows = [Comparison(f"{ERROR}, {name}", "BBN", value, provenance, stat) for name, stat in stats.items()]
    gain = estimate([last(r) - best(r) for r in found])
    when = estimate([float(max(line, key=lambda e: (line[e], -e))) for line in lines])
    rows.append(Comparison("last minus best test epoch (points)", "BBN", None, "", gain))
    rows.append(Comparison("best test epoch", "BBN", None, "", when))
    return Drawing([Panel(title(setting, factor), "epoch", ERROR, curves)], rows)


def options(setting: Setting, results: Results, entry: str) -> Drawing:
    """Details that the paper leaves open or prints otherwise."""
    panel, rows = errors(setting, results, entry, setting.factor)
    return Drawing([panel], rows, "each but the first changes one detail of BBN; see README.md")


def control(setting: Setting, results: Results, entry: str) -> Drawing:
    """BBN against two-stage training with as many images seen."""
    panel, rows = errors(setting, results, entry, setting.factor)
    note = "cRT with BBN's budget sees as many images in all as BBN: its first stage is nearly twice as long"
    return Drawing([panel], rows, note)
