"""One function per figure or table of the paper: Results to a Drawing. No torch, no training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bbn import experiments as ex
from bbn.adaptor import alpha
from bbn.experiments import cell
from bbn.methods import TESTING
from bbn.presets import MANNERS, Setting
from bbn.tables import (
    BEST,
    ERROR,
    LAST,
    PUBLISHED,
    best,
    claim,
    differences,
    errors,
    last,
    published,
    tested,
    title,
)
from common.curves import Results, mean_curve
from common.figures import Comparison, Curve, Drawing, Panel, comparable, estimate
from common.store import Result

__all__ = ["PUBLISHED"]  # where the report looks for the paper
GROUPS = ("many", "medium", "few")


def table1(setting: Setting, results: Results, entry: str) -> Drawing:
    """Table 1, a panel for each imbalance factor."""
    panels, rows = [], []
    for factor in setting.factors:
        names = {name: cell(name, factor) for name in setting.methods(factor)}
        panel, comparisons = errors(setting, results, entry, factor, names)
        panels.append(panel)
        rows += [*comparisons, *differences(results, entry, factor, "BBN", names)]
    return Drawing(panels, rows)


def table2(setting: Setting, results: Results, entry: str) -> Drawing:
    """Table 2; the paper prints two numbers for LDAM-DRW, of which its own run is the one to compare with."""
    names = {"LDAM-DRW (re-run)" if name == "LDAM-DRW" else name: name for name in results}
    panel, rows = errors(setting, results, entry, None, names)
    value, provenance = published(entry, "LDAM-DRW (original paper)", None)
    if value is not None:
        rows.append(Comparison(f"{ERROR}, as the LDAM paper prints it", "LDAM-DRW", value, provenance, None))
    return Drawing([panel], rows)


def fig4(setting: Setting, results: Results) -> Drawing:
    """Fig. 4: the norm of each class's classifier weights; sigma is their population standard deviation."""
    parts = {name: (name, "norms") for name in MANNERS}
    parts |= {"BBN-CB": ("BBN", "norms_cb"), "BBN-RB": ("BBN", "norms_rb"), "BBN-ALL": ("BBN", "norms")}
    curves, rows, sigmas = [], [], {}
    for name, (key, column) in parts.items():
        if found := results.get(key):
            norms = [r.values["summary"][column] for r in found]
            sigmas[name] = {r.repeat: float(np.std(line)) for r, line in zip(found, norms, strict=True)}
            sigma = estimate(list(sigmas[name].values()))
            classes = list(range(len(norms[0])))
            curves.append(mean_curve(name, classes, norms, f"σ = {sigma.mean:.3f}"))
            value = published("fig4", name, None)
            rows.append(Comparison("σ of the norms over classes", name, *value, sigma, tolerance=0.0))
    if seeds := set.intersection(*map(set, sigmas.values())) if len(sigmas) == len(parts) else set():
        least = [float(min(sigmas, key=lambda name: sigmas[name][seed]) == "BBN-ALL") for seed in sorted(seeds)]
        rows.append(claim("1 if the least σ of all", "BBN-ALL", 1, least))
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
        rows += [claim(f"1 if above CE's, {words}", name, 1, above) for name, above in _looser(results, split).items()]
    return Drawing(panels, rows, f"{title(setting, setting.factor)}; features of unit length")


def _looser(results: Results, split: str) -> dict[str, list[float]]:
    """Whether the mean distance of RW and of RS is above that of CE, 1 or 0 for each seed."""
    means = {
        name: {r.repeat: np.mean(r.values["summary"][f"spread_{split}"]) for r in found}
        for name, found in results.items()
    }
    plain = means.pop("CE", {})
    pairs = {name: sorted(plain.keys() & found) for name, found in means.items()}
    return {name: [float(means[name][s] > plain[s]) for s in seeds] for name, seeds in pairs.items() if seeds}


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
    known = [group for group in GROUPS if group in found[0].readout("cnn")]
    panels, rows = [], []
    for name, words in (("cb", "conventional branch alone"), ("rb", "re-balancing branch alone"), ("cnn", "both")):
        curves = []
        for group in known:
            lines = [tested(r, name, group) for r in found]
            curves.append(mean_curve(f"{group}-shot classes", list(lines[0]), [list(t.values()) for t in lines]))
        for group, classes in {"accuracy": "all classes", **{g: f"{g}-shot classes" for g in known}}.items():
            end = estimate([r.readout(name)[group] for r in found])
            rows.append(Comparison(f"accuracy of {words}, last epoch (%)", classes, None, "", end))
        panels.append(Panel(words, "epoch", "test accuracy (%)", curves))
    top = 1.05 * max(y for panel in panels for curve in panel.curves for y in curve.y)
    panels = [replace(panel, y_range=(0, top)) for panel in panels]
    trace = found[0].values["trace"]
    adaptor = Panel("alpha in training", "epoch", "alpha", [Curve("parabolic decay", trace["epoch"], trace["alpha"])])
    return Drawing([*panels, _sweep(found, known), adaptor], rows, title(setting, setting.factors[0]))


def _sweep(found: list[Result], known: Sequence[str]) -> Panel:
    """Accuracy of the final networks as the alpha of testing moves."""
    curves = [
        mean_curve(
            f"{group}-shot classes",
            list(TESTING.values()),
            [[r.readout(name)[group] for name in TESTING] for r in found],
        )
        for group in known
    ]
    return Panel("both, after training", "alpha in testing", "test accuracy (%)", curves)


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
