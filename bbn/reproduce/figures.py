"""The functions that draw the paper's figures and tables: each turns Results and published numbers into a Drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bbn.adaptor import ADAPTORS, alpha
from bbn.methods import TESTING
from bbn.reproduce.presets import MANNERS, Setting
from bbn.reproduce.tables import BEST, DEPTH, ERROR, LAST, best, claim, differences, errors, last, title
from common.drawing.curves import by_epoch, mean_curve, paired
from common.drawing.figures import Comparison, Curve, Drawing, Panel, PublishedFigure, Results, estimate
from common.store import Result

INDEX = "class, from head to tail"
GROUPS = ("many", "medium", "few")


def methods(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Table 1, with a panel for each imbalance factor."""
    panels, rows = [], []
    for factor in s.factors:
        found = {name: group for (name, at), group in results.items() if at == factor}
        panel, comparisons = errors(s, found, published, factor)
        panels.append(panel)
        rows += [*comparisons, *differences(found, published, factor, "BBN")]
    return Drawing(panels, rows)


def schedules(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Table 2, and the number that it quotes from the paper of LDAM-DRW."""
    panel, rows = errors(s, results, published, None)
    value, provenance = published.value("LDAM-DRW (original paper)", DEPTH)
    if value is not None:
        rows.append(Comparison(f"{ERROR}, as the LDAM paper prints it", "LDAM-DRW", value, provenance, None))
    return Drawing([panel], rows)


def norms(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 4: the norm of each class's classifier weights. sigma is the population standard deviation of norms."""
    parts = {name: (name, "norms") for name in MANNERS}
    parts |= {"BBN-CB": ("BBN", "norms_cb"), "BBN-RB": ("BBN", "norms_rb"), "BBN-ALL": ("BBN", "norms")}
    curves, rows, quantity = [], [], "σ of the norms over classes"
    for name, (key, column) in parts.items():
        if found := results.get(key):
            lines = [r.values["summary"][column] for r in found]
            sigma = estimate([float(np.std(line)) for line in lines])
            curves.append(mean_curve(name, list(range(len(lines[0]))), lines, f"σ = {sigma.mean:.3f}"))
            rows.append(Comparison(quantity, name, *published.value(name, quantity), sigma, tolerance=0.0))
    if groups := paired([results.get(key, []) for key, _ in parts.values()]):
        columns = [column for _, column in parts.values()]
        sigmas = [[np.std(r.values["summary"][c]) for r in group] for group, c in zip(groups, columns, strict=True)]
        least = [float(i == list(parts).index("BBN-ALL")) for i in np.argmin(sigmas, axis=0)]
        rows.append(claim(published, "1 if the least σ of all", "BBN-ALL", least))
    return Drawing([Panel(title(s, s.factor), INDEX, "L2 norm of a class's weights", curves)], rows)


def compactness(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw the supplement's Fig. 6: the mean distance of a class's unit features from the centre of the class.

    One panel shows training images, the other test images.
    """
    panels, rows = [], []
    for split, words in (("spread_train", "training images"), ("spread_test", "test images")):
        curves = []
        for name, found in results.items():
            lines = [r.values["summary"][split] for r in found]
            curves.append(mean_curve(name, [str(c) for c in range(len(lines[0]))], lines))
            overall = estimate([float(np.mean(line)) for line in lines])
            head = estimate([float(np.mean(line[: len(line) // 2])) for line in lines])
            rows.append(Comparison(f"mean distance, {words}", name, None, "", overall))
            rows.append(Comparison(f"mean distance of the larger half of the classes, {words}", name, None, "", head))
        panels.append(Panel(words, INDEX, "mean L2 distance to the centre", curves, kind="bars"))
        for name in ("RW", "RS"):
            pairs = zip(*paired([results.get(name, []), results.get("CE", [])]), strict=True)
            means = [[np.mean(r.values["summary"][split]) for r in pair] for pair in pairs]
            if above := [float(own > plain) for own, plain in means]:
                rows.append(claim(published, f"1 if above CE's, {words}", name, above))
    return Drawing(panels, rows, f"{title(s, s.factor)}; features of unit length")


def adaptors(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw the supplement's Fig. 7: alpha over training for each adaptor, as printed and with the Tmax of the code."""
    epochs = range(1, 201)
    shares = [e / 200 for e in epochs]
    kinds = {name: kind for name, kind in ADAPTORS.items() if kind != "beta"}
    curves = [Curve(n, shares, [alpha(e, 200, kind, "paper") for e in epochs]) for n, kind in kinds.items()]
    short = list(range(1, 91))
    stretched = [
        Curve("Tmax as printed", short, [alpha(e, 90, offset="paper") for e in short]),
        Curve("official code", short, [alpha(e, 90, offset="official") for e in short]),
    ]
    return Drawing(
        [
            Panel("Table 4's adaptors", "T / Tmax", "alpha", curves),
            Panel("Parabolic decay over iNaturalist's 90 epochs", "epoch", "alpha", stretched),
        ],
        note="the official code counts epochs from 0, and takes 100 and 200 for a Tmax of 90 and 180",
    )


def over_epochs(name: str, found: Sequence[Result], readout: str = "cnn", group: str = "accuracy") -> Curve:
    """Return the curve of a read-out's test accuracy over training, on a group of classes."""
    lines = [by_epoch(r, readout, group) for r in found]
    return mean_curve(name, list(lines[0]), [list(line.values()) for line in lines])


def branches(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw BBN's error over training next to the published error, and each branch's accuracy by size of classes."""
    found = results["BBN"]
    error, rows = over_training(s, found, published)
    known = {group: f"{group}-shot classes" for group in GROUPS if group in found[0].readout("cnn")}
    panels = []
    for readout, words in (("cb", "conventional branch alone"), ("rb", "re-balancing branch alone"), ("cnn", "both")):
        curves = [over_epochs(name, found, readout, group) for group, name in known.items()]
        panels.append(Panel(words, "epoch", "test accuracy (%)", curves))
        for group, name in {"accuracy": "all classes", **known}.items():
            end = estimate([r.readout(readout)[group] for r in found])
            rows.append(Comparison(f"accuracy of {words}, last epoch (%)", name, None, "", end))
    top = 1.05 * max(y for panel in panels for curve in panel.curves for y in curve.y)
    panels = [replace(panel, y_range=(0, top)) for panel in panels]
    trace, alphas = found[0].values["trace"], list(TESTING.values())
    sweep = [
        mean_curve(name, alphas, [[r.readout(readout)[group] for readout in TESTING] for r in found])
        for group, name in known.items()
    ]
    panels.append(Panel("both, after training", "alpha in testing", "test accuracy (%)", sweep))
    decay = Curve("parabolic decay", trace["epoch"], trace["alpha"])
    return Drawing([error, *panels, Panel("alpha in training", "epoch", "alpha", [decay])], rows)


def over_training(s: Setting, found: Sequence[Result], published: PublishedFigure) -> tuple[Panel, list[Comparison]]:
    """Return a panel of BBN's test error over training, and rows that compare the last and the best test epoch."""
    factor, accuracy = s.strongest, over_epochs("BBN", found)
    curves = [replace(accuracy, y=[100 - y for y in accuracy.y])]
    value, provenance = published.figure(f"table1-{s.role}").value("BBN", factor)
    if value is not None:
        ends = [1, accuracy.x[-1]]
        curves.append(Curve("BBN", ends, [value, value], published=True, legend="best test epoch"))
    stats = {LAST: estimate([last(r) for r in found]), BEST: estimate([best(r) for r in found])}
    rows = [Comparison(f"{ERROR}, {name}", "BBN", value, provenance, stat) for name, stat in stats.items()]
    gain = estimate([last(r) - best(r) for r in found])
    when = estimate([float(max(line, key=lambda e: (line[e], -e))) for line in map(by_epoch, found)])
    rows.append(Comparison("last minus best test epoch (points)", "BBN", None, "", gain))
    rows.append(Comparison("best test epoch", "BBN", None, "", when))
    return Panel(title(s, factor), "epoch", ERROR, curves), rows
