"""Draw what is inside an expandable network: masks, channels and extractors, and what they transfer between steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.drawing.curves import accuracy_figure, mean_curve, paired, paired_rows, through
from common.drawing.figures import Comparison, Curve, Drawing, Panel, PublishedFigure, Results, estimate
from common.store import Result
from der.methods import MASKED, RANDOM, UNPRUNED
from der.reproduce.counts import backward_transfer, forward_transfer, shares
from der.reproduce.figures import share_rows
from der.reproduce.presets import Setting

SHARE = "share of an unpruned extractor (%)"
KEPT = {"kept by pruning": "parameters", "kept by fresh masks": "initial"}
"""Keys of `counts.shares` by the names of their lines."""


def transfer(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw forward and backward transfer, by the classifier and by a probe of the representation (see `counts`)."""
    lines, rows = list[Curve](), list[Comparison]()
    third = published.figure("repro-bwt").value("DER w/o P (third-party run, classifier level)", s.steps)
    for readout, label in (("cnn", "classifier"), ("probe", "representation")):
        backward, forward = f"backward transfer, {label}", f"forward transfer, {label}"
        found = {n: results[n] for n in (UNPRUNED, MASKED, "single network") if results.get(n)}
        bars = [estimate([backward_transfer(matrix(r, readout)) for r in group]) for group in found.values()]
        for name, ours in zip(found, bars, strict=True):
            value = third if (name, readout) == (UNPRUNED, "cnn") else (None, "")
            rows.append(Comparison(f"{backward} (points)", name, *value, ours))
        if found:
            lines.append(through(backward, list(found), bars))
        if pairs := paired([results.get(UNPRUNED, []), results.get("random F_t", [])]):
            gains = [forward_transfer(matrix(a, readout), matrix(b, readout)) for a, b in zip(*pairs, strict=True)]
            rows.append(Comparison(f"{forward} (points)", UNPRUNED, None, "", estimate(gains)))
            lines.append(through(forward, [UNPRUNED], [estimate(gains)]))
    panel = Panel(f"{s.steps} steps", "", "transfer (points)", lines, kind="bars")
    return Drawing([panel] if lines else [], rows, "forward transfer: F_t from F_(t-1) against F_t from random weights")


def matrix(result: Result, readout: str) -> list[list[float]]:
    """Return a matrix whose row t has the accuracy on the classes of each step 1..t after step t."""
    return [result.readout(readout, p)["groups"] for p in range(len(result.phases()))]


def control(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Compare learned masks with random channels of equal number: accuracy, and weights kept over training."""
    readouts = {name: (name, "cnn") for name in (UNPRUNED, MASKED, RANDOM)}
    drawing = accuracy_figure(results, readouts, published, f"{s.small_network}, {s.steps} steps")
    panels, rows = list(drawing.panels), list(drawing.comparisons)
    for name in (MASKED, RANDOM):
        rows += share_rows(name, results.get(name, []))
    if found := results.get(MASKED):
        panels += [over_training(found), over_steps(found)]
        for other in (UNPRUNED, RANDOM):
            rows += paired_rows(results, {name: (name, "cnn") for name in (MASKED, other)}, other, published)
    note = (
        "random channels: in every layer as many as the learned masks kept, drawn at the start of each step from all, "
        "those that earlier steps switched off included, and held"
    )
    return Drawing(panels, rows, note)


def over_training(found: Sequence[Result]) -> Panel:
    """Draw the share of weights that binary masks would keep, over the epochs of every step, in the first repeat."""
    trace = found[0].values["trace"]
    curves = []
    for phase, first in enumerate(found[0].values["summary"]["initial_share"]):
        picked = zip(trace["phase"], trace["stage"], trace["kept"], strict=True)
        kept = [first, *(k for p, stage, k in picked if p == phase and stage == "main" and k is not None)]
        if len(kept) > 1:
            curves.append(Curve(f"step {phase + 1}", list(range(len(kept))), [100 * k for k in kept]))
    title = "masks over training" + (", first repeat" if len(found) > 1 else "")
    return Panel(title, "epoch of the step", "weights kept by binary masks (%)", curves)


def over_steps(found: Sequence[Result]) -> Panel:
    """Draw the share that each step's extractor kept after pruning, and the share that its untrained masks kept."""
    steps = list(range(1, len(found[0].phases()) + 1))
    lines = [mean_curve(name, steps, [shares(r, key) for r in found]) for name, key in KEPT.items()]
    return Panel("extractors", "step", SHARE, lines)


def channels(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw the channels that every step's extractor kept in every layer."""
    found = results[MASKED]
    first = found[0].values["summary"]
    full, x = np.array(first["full_channels"]), list(range(1, len(first["full_channels"]) + 1))
    kept = np.mean([[100 * np.array(step) / full for step in r.values["summary"]["channels"]] for r in found], axis=0)
    lines = [Curve(f"step {i + 1}", x, list(line), n=len(found)) for i, line in enumerate(kept)]
    label = "channels kept (%)"
    panels = [
        Panel("by layer", "group of channels, from input to output", label, lines, y_range=(0, 105)),
        Panel("mean over steps", "group of channels, from input to output", label,
              [mean_curve(MASKED, x, [list(line) for line in kept], "band: 95 % over steps")], y_range=(0, 105)),
    ]  # fmt: skip
    rows = share_rows(MASKED, found)
    note = "a group: the channels between a block's convolutions, or the residual stream of a stage, which blocks share"
    return Drawing(panels, rows, note)


def silenced(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw the accuracy lost on each step's classes when one extractor's features are set to 0, after the last step."""
    panels, rows = [], []
    for name in (UNPRUNED, MASKED):
        if not (found := results.get(name)):
            continue
        count = len(found[0].phases())
        repeats = [
            np.subtract(r.readout("cnn")["groups"], [r.readout(f"without {i + 1}")["groups"] for i in range(count)])
            for r in found
        ]
        lost = np.mean(repeats, axis=0)
        names = [str(i + 1) for i in range(count)]
        y = "extractor that is silenced"
        panels.append(
            Panel(f"{name}: points lost", "classes of step", y, kind="heat", matrix=lost, rows=names, columns=names)
        )
        own = np.eye(count, dtype=bool)
        for quantity, part in (("its own step's classes", own), ("other steps' classes", ~own)):
            label = f"points lost on {quantity} without an extractor, mean"
            rows.append(Comparison(label, name, None, "", estimate([float(r[part].mean()) for r in repeats]), 0.0))
    return Drawing(panels, rows, "a negative number: the classes gain, as rivals' logits go; bold: least of a column")
