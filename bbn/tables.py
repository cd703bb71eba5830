"""Test errors of Results, as bars and rows beside the published ones. No torch, no training.

The paper's errors are those of the best test epoch. Ours are of the last; our best stands between the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bbn.presets import Setting
from common.curves import Results, paired
from common.figures import UNVERIFIED, Comparison, Curve, Drawing, Panel, Published, comparable, estimate
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
SHORT = {  # under bars
    "Manifold Mixup (two samplers)": "Manifold, two samplers",
    "Ensemble Uniform + Balanced": "Uniform + Balanced",
    "Ensemble Uniform + Reversed": "Uniform + Reversed",
    "Mixup, classifier fine-tuned": "Mixup, fine-tuned",
}


def title(setting: Setting, factor: float | None) -> str:
    """Which data set it is about, what stands for it, and the imbalance factor."""
    name = NAMES[setting.role]
    words = name if comparable(setting) else f"glyphs, in place of {name}"
    return f"{words}, factor {factor:g}" if factor else words


def last(result: Result) -> float:
    """Test error at the last epoch, percent."""
    return 100 - result.readout("cnn")["accuracy"]


def tested(result: Result, readout: str = "cnn", group: str = "accuracy") -> dict[int, float]:
    """Test accuracy by epoch, where it was measured, and at the last one; of a read-out on a group of classes."""
    trace = result.values["trace"]
    column = trace.get("test_accuracy" if (readout, group) == ("cnn", "accuracy") else f"{readout} {group}")
    found = zip(trace["epoch"], column or [None] * len(trace["epoch"]), strict=True)
    return {epoch: v for epoch, v in found if v is not None} | {trace["epoch"][-1]: result.readout(readout)[group]}


def best(result: Result) -> float:
    """Test error at the best of the tested epochs, the last included: what the official code reports."""
    return 100 - max(tested(result).values())


def published(entry: str, method: str, x: float | None) -> tuple[float | None, str]:
    """A published number and its provenance; (None, "") where the paper has none, or none that was read there."""
    series = PUBLISHED.series(entry, method)
    at = series["x"][0] if series and x is None else x
    value, provenance = PUBLISHED.value(entry, method, at) if at is not None else (None, "")
    return (None, "") if provenance == UNVERIFIED else (value, provenance)


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
        n = min((s.n for s in stats), default=1)
        interval = [s.interval for s in stats] if any(s.n > 1 for s in stats) else None
        curves.append(Curve(label, labels, [s.mean for s in stats], interval, n))
        quantity = f"{ERROR}, {label}" + (f", imbalance factor {factor:g}" if factor else "")
        for name, stat in zip(names, stats, strict=True):
            comparisons.append(Comparison(quantity, name, *published(entry, name, factor), stat))
    known = [published(entry, name, factor)[0] for name in names]
    if comparable(setting) and any(value is not None for value in known):
        curves.append(Curve(BEST, labels, [float("nan") if v is None else v for v in known], published=True))
    return Panel(title(setting, factor), "", ERROR, curves, kind="bars"), comparisons


def differences(
    results: Results, entry: str, factor: float | None, against: str, rows: Mapping[str, str] | None = None
) -> list[Comparison]:
    """How much each method's error at the last epoch exceeds that of `against`, seed by seed; rows as in `errors`."""
    rows = rows or {n: n for n in results}
    quantity = f"test error, {LAST}, minus that of {against} (points, paired by seed)"
    quantity += f", imbalance factor {factor:g}" if factor else ""
    reference, comparisons = published(entry, against, factor)[0], []
    for name, key in rows.items():
        pairs = paired([results.get(key, []), results.get(rows.get(against, against), [])])
        if name != against and pairs:
            value, provenance = published(entry, name, factor)
            gap = None if value is None or reference is None else round(value - reference, 2)
            ours = estimate([last(a) - last(b) for a, b in zip(*pairs, strict=True)])
            comparisons.append(Comparison(quantity, name, gap, provenance if gap is not None else "", ours))
    return comparisons


def error_table(setting: Setting, results: Results, entry: str, against: str = "BBN", note: str = "") -> Drawing:
    """A table of errors at the setting's own imbalance, and each row's difference from one of them."""
    panel, rows = errors(setting, results, entry, setting.factor)
    return Drawing([panel], [*rows, *differences(results, entry, setting.factor, against)], note)


def claim(quantity: str, words: str, value: float, counts: Sequence[float]) -> Comparison:
    """A sentence of the paper as a number, one count a seed; it holds where every seed has the value."""
    ours = estimate(counts)
    return Comparison(quantity, words, value, "stated", replace(ours, interval=ours.interval * 0), tolerance=0.0)
