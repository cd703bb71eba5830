"""Draw the sweeps of lambda_a and lambda_s: Fig. 1 and the sensitivity figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from common.drawing.curves import AVERAGE, average, paired, published_points, through
from common.drawing.figures import Comparison, Curve, Drawing, Panel, PublishedFigure, Results, estimate
from common.store import Result
from der.methods import MASKED, UNPRUNED
from der.reproduce.counts import mean_share
from der.reproduce.figures import PARAMETERS, READOUTS, millions, share_rows
from der.reproduce.inside import KEPT, SHARE
from der.reproduce.presets import Setting


def size(found: Sequence[Result]) -> float:
    """Return millions of parameters, averaged over steps and repeats, to three digits for a readable tick."""
    return float(f"{np.mean(millions(found)):.3g}")


def sizes(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 1: accuracy against parameters, with lambda_s from little to much, and other methods as points."""
    points, rows, table = list[Curve](), list[Comparison](), published.figure("table1")
    for name, readout in READOUTS.items():
        if name != MASKED and (found := results.get(name)):
            ours = estimate([average(r, readout) for r in found])
            points.append(through(name, [size(found)], [ours]))
            rows.append(Comparison(AVERAGE, name, *table.value(name, s.steps), ours))
    swept = []
    for weight in s.sparsities:
        if found := results.get((MASKED, weight)):
            ours, label = estimate([average(r, "cnn") for r in found]), f"{MASKED}, lambda_s = {weight:g}"
            swept.append((size(found), ours))
            rows.append(Comparison(AVERAGE, label, None, "", ours))
            rows.append(Comparison(PARAMETERS, label, None, "", estimate(millions(found)), 0.0))
            rows += share_rows(label, found)
    if swept:
        swept.sort(key=lambda point: point[0])
        points.append(through(MASKED, [x for x, _ in swept], [ours for _, ours in swept]))
    for name in (*READOUTS, "PODNet", "Bound"):
        x, _ = published.figure("table1-params").value(name, s.steps)
        y, _ = table.value(name, s.steps)
        points += published_points(name, [x], [y]) if x is not None else []
    panel = Panel(f"{s.steps} steps", PARAMETERS, AVERAGE, points, x_log=True)
    return Drawing([panel], rows, "DER from left to right: lambda_s from the largest to the smallest")


def swept(results: Results, key: str, weights: Sequence[float]) -> Mapping[str, list[Result]]:
    """Return the finished Results at each weight, cut down to the repeats that all weights have in common."""
    known = [w for w in weights if results.get((key, w))]
    return dict(zip([f"{w:g}" for w in known], paired([results[key, w] for w in known]), strict=False))


def line(name: str, groups: Mapping[str, list[Result]], measure: Callable[[Result], float]) -> Curve:
    """Return the curve of a quantity over the groups, averaged over repeats."""
    return through(name, list(groups), [estimate([measure(r) for r in group]) for group in groups.values()])


def weights(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw average accuracy against lambda_a, and accuracy and the share of weights kept against lambda_s."""
    accuracy = partial(average, readout="cnn")
    auxiliary, sparsity = swept(results, "aux", s.auxiliaries), swept(results, MASKED, s.sparsities)
    panels, rows = list[Panel](), list[Comparison]()
    for title, weight, name, groups in (
        ("auxiliary loss", "lambda_a", UNPRUNED, auxiliary),
        ("sparsity loss", "lambda_s", MASKED, sparsity),
    ):
        if groups:
            panels.append(Panel(title, weight, AVERAGE, [line(name, groups, accuracy)]))
        for value, group in groups.items():
            ours = estimate([accuracy(r) for r in group])
            rows.append(Comparison(AVERAGE, f"{weight} = {value}", None, "", ours))
    if sparsity:
        lines = [line(name, sparsity, partial(mean_share, key=key)) for name, key in KEPT.items()]
        panels.append(Panel("sparsity loss", "lambda_s", SHARE, lines))
        rows += [row for value, group in sparsity.items() for row in share_rows(f"lambda_s = {value}", group)]
    return Drawing(panels, rows, "no published values are known; the published default of lambda_a is 1")
