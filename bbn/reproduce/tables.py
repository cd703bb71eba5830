"""Makes bars and rows that compare the test errors of Results with published errors.

The paper prints the error of the best test epoch. The figures show the error of the last epoch, and that of the best
test epoch too.
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
SHORT = {  # shorter names, to fit under bars
    "Manifold Mixup (two samplers)": "Manifold, two samplers",
    "Ensemble Uniform + Balanced": "Uniform + Balanced",
    "Ensemble Uniform + Reversed": "Uniform + Reversed",
    "Mixup, classifier fine-tuned": "Mixup, fine-tuned",
}
DEPTH = 50.0
"""The depth of the network. It names the column of the paper's tables for data without an imbalance factor."""


def title(s: Setting, factor: float | None) -> str:
    """Return a title: the data set, its stand-in if there is one, and the imbalance factor."""
    name = NAMES[s.role]
    words = f"glyphs, in place of {name}" if s.preset == "quick" else name
    return f"{words}, factor {factor:g}" if factor else words


def last(result: Result) -> float:
    """Return the test error at the last epoch, percent."""
    return 100 - result.readout("cnn")["accuracy"]


def best(result: Result) -> float:
    """Return the test error at the best of the tested epochs, percent. The official code reports this error."""
    return 100 - max(by_epoch(result).values())


def errors(
    s: Setting, results: Results, published: PublishedFigure, factor: float | None
) -> tuple[Panel, list[Comparison]]:
    """Return a panel with bars of the last epoch, the best epoch and the paper, and rows that compare them."""
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
    """Return by how much each method's error at the last epoch exceeds that of the method `against`, paired by seed."""
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
    s: Setting,
    results: Results,
    published: PublishedFigure,
    against: str = "BBN",
    note: str = "",
    table: str = "",
    strongest: bool = False,
) -> Drawing:
    """Draw a table of errors, with differences from the method `against`.

    table: the paper's table to compare with, by default the one that the figure reproduces. strongest: whether the runs
    have the strongest imbalance of Table 1, not the setting's own.
    """
    published = published.figure(f"{table}-{s.role}") if table else published
    factor = s.strongest if strongest else s.factor
    panel, rows = errors(s, results, published, factor)
    return Drawing([panel], [*rows, *differences(results, published, factor, against)], note)


def claim(published: PublishedFigure, quantity: str, words: str, counts: Sequence[float]) -> Comparison:
    """Return a row for a countable statement of the paper. The statement holds if every seed has the published count.

    counts: one for each seed.
    """
    ours = estimate(counts)
    return Comparison(
        quantity, words, *published.value(words, quantity), replace(ours, interval=ours.interval * 0), tolerance=0.0
    )
