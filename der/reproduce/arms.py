"""Compare ways to set up masks, one choice at a time, over the first two steps of the protocol without a base.

This figure is not in the paper.
"""

from __future__ import annotations

from typing import Any

from common.drawing.curves import AVERAGE, PAIRED, average, paired, through
from common.drawing.figures import Comparison, Drawing, Panel, PublishedFigure, Results, Runs, estimate
from common.runs import Protocol
from der.reproduce.counts import mean_share
from der.reproduce.figures import share_rows
from der.reproduce.presets import Setting

LEARNED, WITHOUT = "masks", "no masks"
NOTE = (
    "each row but the first three changes one choice of 'masks'; lambda_s leaves about 8 % of the parameters to each "
    "by Eq. 10 alone (der/drift.py), but for 'lambda_s 0.5'"
)


def first_steps(s: Setting) -> Protocol:
    """Return the protocol of the first two steps, with the classes, images and memory of the whole protocol."""
    size = s.classes // s.steps
    return Protocol(2 * size, size, size, None, s.total, rounding="down")


def masks(s: Setting) -> dict[str, dict[str, Any]]:
    """Return the options of each arm that has masks."""
    plain = {"sparsity": 0.19, "mask_rate": s.mask_rate, "mask_init": "normal"}
    return {
        LEARNED: plain,
        "inherited e": plain | {"mask_start": "inherit", "sparsity": 0.14},
        "mask_rate 5": plain | {"mask_rate": 5.0, "sparsity": round(0.19 * s.mask_rate / 5, 3)},
        "U(0, 2)": plain | {"mask_init": "uniform", "sparsity": 0.27},
        "inner channels only": plain | {"mask_groups": "inner", "sparsity": 0.8},
        "lambda_s 0.5": plain | {"sparsity": 0.5},
        "s_max 100": plain | {"s_max": 100.0},
        "s_max 400": plain | {"s_max": 400.0},
    }


def arms(s: Setting) -> Runs:
    """Return the Runs of the small extractor: no masks, at both starts of its last gammas, and masks of every arm."""
    small = s.small_network
    methods = {WITHOUT: s.der(small), f"{WITHOUT}, last gamma 0": s.der()}
    methods |= {name: s.der(small, **choice) for name, choice in masks(s).items()}
    return {name: s.run(method, first_steps(s), network=small) for name, method in methods.items()}


def drawing(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw each arm's average over two steps and the share it kept, and list what each choice changes, seed by seed."""
    found = {name: group for name, group in results.items() if group}
    rows, names = list[Comparison](), list(found)
    accuracy = [estimate([average(r, "cnn") for r in group]) for group in found.values()]
    shares = [estimate([mean_share(r, "parameters") for r in group]) for group in found.values()]
    for (name, group), ours in zip(found.items(), accuracy, strict=True):
        rows.append(Comparison(AVERAGE, name, None, "", ours))
        for step in (0, 1):
            after = estimate([r.curve("cnn")[step] for r in group])
            rows.append(Comparison(f"accuracy after step {step + 1} (%)", name, None, "", after))
        rows += share_rows(name, group) if group[0].values["summary"]["initial_share"] else []
    for reference in (WITHOUT, LEARNED):
        for name in names:
            pairs = zip(*paired([found[name], found.get(reference, [])]), strict=True)
            if name != reference and (gains := [average(a, "cnn") - average(b, "cnn") for a, b in pairs]):
                rows.append(Comparison(PAIRED.format(reference), name, None, "", estimate(gains)))
    title = f"{s.small_network}, first two of {s.steps} steps"
    panels = [
        Panel(title, "", AVERAGE, [through("DER", names, accuracy)], kind="bars"),
        Panel("", "", "parameters kept (%)", [through("DER", names, shares)], kind="bars"),
    ]
    return Drawing(panels if found else [], rows, NOTE)
