"""Accuracy, parameters and their weights: Fig. 1 and the sensitivity figure. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from common.curves import AVERAGE, Results, average, mean_curve, paired
from common.figures import Comparison, Curve, Drawing, Panel, comparable, estimate
from common.store import Result
from der.counts import mean_parameters, shares
from der.experiments import MASKED, UNPRUNED
from der.figures import KEPT, MILLION, PARAMETERS, READOUTS, SHARE, share_rows, value
from der.presets import Setting

Measures = Mapping[str, Callable[[Result], float]]
"""What to take from a Result, by the name of its line."""


def millions(found: Sequence[Result]) -> float:
    """Parameters, averaged over steps and repeats, to three digits: a tick to read."""
    return float(f"{np.mean([mean_parameters(r) for r in found]) / MILLION:.3g}")


def sizes(setting: Setting, results: Results) -> Drawing:
    """Fig. 1: accuracy against parameters, lambda_s from little to much; other methods as points."""
    points, rows = list[Curve](), list[Comparison]()
    swept = [w for w in setting.sparsities if results.get(f"DER {w:g}")]
    for name, readout in READOUTS.items():
        if name != MASKED and (found := results.get(name)):
            size = millions(found)
            ours = estimate([average(r, readout) for r in found])
            points.append(Curve(name, [size], [ours.mean], [ours.interval] if len(found) > 1 else None, len(found)))
            rows.append(Comparison(AVERAGE, name, *value(setting, "table1", name, setting.steps), ours))
    if swept:
        groups = [results[f"DER {w:g}"] for w in swept]
        x = [millions(g) for g in groups]
        stats = [estimate([average(r, "cnn") for r in g]) for g in groups]
        intervals = [s.interval for s in stats] if len(groups[0]) > 1 else None
        by_size = sorted(range(len(x)), key=lambda i: x[i])
        y = [stats[i].mean for i in by_size]
        points.append(
            Curve(MASKED, [x[i] for i in by_size], y, intervals and [intervals[i] for i in by_size], len(groups[0]))
        )
        for w, group, stat in zip(swept, groups, stats, strict=True):
            label = f"lambda_s = {w:g}"
            rows.append(Comparison(AVERAGE, f"{MASKED}, {label}", None, "", stat))
            counted = estimate([mean_parameters(r) / MILLION for r in group])
            rows.append(Comparison(PARAMETERS, f"{MASKED}, {label}", None, "", counted, 0.0))
            rows += share_rows(f"{MASKED}, {label}", group)
    if comparable(setting):
        for name in (*READOUTS, "PODNet", "Bound"):
            at, printed = (value(setting, entry, name, setting.steps)[0] for entry in ("table1_params", "table1"))
            at = at or (11.2 if name == "PODNet" else None)
            if at is not None and printed is not None:
                points.append(Curve(name, [at], [printed], published=True))
    panel = Panel(f"{setting.steps} steps", PARAMETERS, AVERAGE, points, x_log=True)
    return Drawing([panel], rows, "DER from left to right: lambda_s from the largest to the smallest")


def sensitivity(setting: Setting, results: Results) -> Drawing:
    """Average accuracy against lambda_a, and accuracy and the share of weights kept against lambda_s."""
    panels, rows = list[Panel](), list[Comparison]()

    def sweep(title: str, weight: str, prefix: str, values: Sequence[float], y: str, measures: Measures) -> None:
        known = [w for w in values if results.get(f"{prefix} {w:g}")]
        groups = paired([results[f"{prefix} {w:g}"] for w in known])
        if not groups:
            return
        names = [f"{w:g}" for w in known]
        lines = [
            mean_curve(name, names, list(zip(*[[of(r) for r in g] for g in groups], strict=True)))
            for name, of in measures.items()
        ]
        panels.append(Panel(title, weight, y, lines))
        for name, group in zip(names, groups, strict=True):
            rows.extend(rows_of[y](f"{weight} = {name}", group))

    def cnn(result: Result) -> float:
        return average(result, "cnn")

    def accuracy_rows(method: str, group: Sequence[Result]) -> list[Comparison]:
        return [Comparison(AVERAGE, method, None, "", estimate([cnn(r) for r in group]))]

    rows_of = {AVERAGE: accuracy_rows, SHARE: share_rows}
    kept = {name: lambda r, key=key: float(np.mean(shares(r, key))) for name, key in KEPT.items()}
    sweep("auxiliary loss", "lambda_a", "aux", setting.auxiliaries, AVERAGE, {UNPRUNED: cnn})
    sweep("sparsity loss", "lambda_s", "DER", setting.sparsities, AVERAGE, {MASKED: cnn})
    sweep("sparsity loss", "lambda_s", "DER", setting.sparsities, SHARE, kept)
    return Drawing(panels, rows, "no published values are known; the published default of lambda_a is 1")
