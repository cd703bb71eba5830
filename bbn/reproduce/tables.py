"""Test errors of Results, as bars and rows beside the published ones.

The paper's errors are those of the best test epoch. Ours are of the last; our best stands between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bbn.reproduce.presets import Setting
from common.command.own import OWN_IMAGES
from common.data.names import FOLDER
from common.drawing.curves import by_epoch, paired, published_points, through
from common.drawing.figures import Comparison, Drawing, Panel, PublishedFigure, Results, estimate
from common.store import Result

ERROR = "test error (%)"
LAST, BEST = "last epoch", "best test epoch"
NAMES = {
    "cifar10": "CIFAR-10-LT",
    "cifar100": "CIFAR-100-LT",
    "inat2017": "iNaturalist 2017",
    "inat2018": "iNaturalist 2018",
    FOLDER: OWN_IMAGES,
}
SHORT = {  # under bars
    "Manifold Mixup (two samplers)": "Manifold, two samplers",
    "Ensemble Uniform + Balanced": "Uniform + Balanced",
    "Ensemble Uniform + Reversed": "Uniform + Reversed",
    "Mixup, classifier fine-tuned": "Mixup, fine-tuned",
}
DEPTH = 50.0
"""The network's depth, which is the column of the paper's tables where the data have no imbalance factor."""


def title(s: Setting, factor: float | None) -> str:
    """Which data set it is about, what stands for it, and the imbalance factor."""
    name = NAMES[s.role]
    words = f"glyphs, in place of {name}" if s.preset == "quick" else name
    return f"{words}, factor {factor:g}" if factor else words


def last(result: Result) -> float:
    """Test error at the last epoch, percent."""
    return 100 - result.readout("cnn")["accuracy"]


def best(result: Result) -> float:
    """Test error at the best of the tested epochs, the last included: what the official code reports."""
    return 100 - max(by_epoch(result).values())


def errors(
    s: Setting, results: Results, published: PublishedFigure, factor: float | None
) -> tuple[Panel, list[Comparison]]:
    """Bars of the last and the best epoch beside the paper's, and both as comparisons."""
    found = {name: group for name, group in results.items() if group}
    labels = [SHORT.get(name, name) for name in found]
    paper = {name: published.value(name, factor or DEPTH) for name in found}
    curves, rows = [], []
    for label, measure in ((LAST, last), (BEST, best)):
        stats = [estimate([measure(r) for r in group]) for group in found.values()]
        curves.append(through(label, labels, stats))
        quantity = f"{ERROR}, {label}" + (f", imbalance factor {factor:g}" if factor else "")
        rows += [Comparison(quantity, name, *paper[name], stat) for name, stat in zip(found, stats, strict=True)]
    curves += published_points(BEST, labels, [value for value, _ in paper.values()])
    return Panel(title(s, factor), "", ERROR, curves, kind="bars"), rows


def differences(results: Results, published: PublishedFigure, factor: float | None, against: str) -> list[Comparison]:
    """How much each method's error at the last epoch exceeds that of `against`, seed by seed."""
    quantity = f"test error, {LAST}, minus that of {against} (points, paired by seed)"
    quantity += f", imbalance factor {factor:g}" if factor else ""
    reference, rows = published.value(against, factor or DEPTH)[0], []
    for name, found in results.items():
        pairs = paired([found, results.get(against, [])])
        if name != against and pairs:
            value, provenance = published.value(name, factor or DEPTH)
            gap = None if value is None or reference is None else round(value - reference, 2)
            ours = estimate([last(a) - last(b) for a, b in zip(*pairs, strict=True)])
            rows.append(Comparison(quantity, name, gap, provenance if gap is not None else "", ours))
    return rows


def error_table(
    s: Setting, results: Results, published: PublishedFigure, against: str = "BBN", note: str = "", table: str = ""
) -> Drawing:
    """A table of errors at the setting's own imbalance, and each row's difference from one of them.

    table: the paper's table to hold them against; by default that of the figure itself.
    """
    published = published.of(f"{table}-{s.role}") if table else published
    panel, rows = errors(s, results, published, s.factor)
    return Drawing([panel], [*rows, *differences(results, published, s.factor, against)], note)


def claim(published: PublishedFigure, quantity: str, words: str, counts: Sequence[float]) -> Comparison:
    """A sentence of the paper as a number, one count a seed; it holds where every seed has the value."""
    ours = estimate(counts)
    return Comparison(
        quantity, words, *published.value(words, quantity), replace(ours, interval=ours.interval * 0), tolerance=0.0
    )
