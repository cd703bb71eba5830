"""The Runs behind each figure, per preset: experiments are data. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from common.imbalance import Rebalance
from common.runs import Run
from fsa.methods import FSA, Earlier
from fsa.presets import Setting

Runs = Mapping[str, list[Run]]
OURS = "FSA (ours)"
NO_AUG = FSA(tail=64, donors=0)
"""The control: the same batches, half of them tail images, but real ones."""
WHOLE = FSA(tau_specific=None, tau_generic=None)
CONTROLS: dict[str, FSA] = {
    "natural batches": FSA(batch="natural"),
    "class-balanced batches": FSA(batch="balanced"),
    "No Aug": NO_AUG,
    "No Aug, tail by class": replace(NO_AUG, tail_draw="classes"),
    "FSA, tail by class": FSA(tail_draw="classes"),
    "random donors": FSA(donor_classes="random"),
    "all features of donors": FSA(tau_generic=None),
    "all features of both": WHOLE,
    "feature mixup": replace(WHOLE, fusion="mixup"),
    "ratio 0: donors only": FSA(ratio=0.0),
    "ratio 1: own only": FSA(ratio=1.0),
    OURS: FSA(),
}
"""Phase II in every variant that tells what the gain comes from."""


def cell(name: str, factor: float) -> str:
    """The name of a method at one imbalance factor, among a figure's Runs."""
    return f"{name} at {factor:g}"


def table(s: Setting) -> Runs:
    """Tables 1 and 2: one-stage baselines, FSA, and its control."""
    runs: dict[str, list[Run]] = {}
    for factor in s.factors:
        runs |= {cell(name, factor): s.train(method, factor) for name, method in s.baselines().items()}
        runs |= {cell(name, factor): s.tune(CONTROLS[name], factor) for name in ("No Aug", OURS)}
    return runs


def large(s: Setting) -> Runs:
    """Table 3: plain and focal Phase I, each with FSA, and the control."""
    focal = Rebalance("focal", gamma=2.0)
    return {
        "Plain model": s.train(),
        "Focal": s.train(focal),
        "No Aug": s.tune(NO_AUG),
        OURS: s.tune(FSA()),
        "FSA + focal in phase I (ours)": s.tune(FSA(), loss=focal),
    }


def depths(s: Setting) -> Runs:
    """Table 4: three depths on iNaturalist."""
    runs: dict[str, list[Run]] = {}
    for depth in (50, 101, 152):
        deeper = replace(s, network=f"resnet{depth}-imagenet")
        runs |= {
            cell("CE", depth): deeper.train(),
            cell("No Aug", depth): deeper.tune(NO_AUG),
            cell(OURS, depth): deeper.tune(FSA()),
        }
    return runs


def pair(s: Setting, factor: float | None = None, draws: Sequence[int] = (), views: int | None = None) -> Runs:
    """Phase I, its control and FSA."""
    return {
        "Phase I": s.train(factor=factor),
        "No Aug": s.tune(NO_AUG, factor, draws, views),
        OURS: s.tune(FSA(), factor, draws, views),
    }


def strongest(s: Setting) -> Runs:
    """Fig. 7: the pair at the strongest imbalance."""
    return pair(s, s.strongest)


def curves(s: Setting) -> Runs:
    """Fig. 6 and 10: the same, and what the paper calls no augmentation there."""
    return {**strongest(s), "natural batches": s.tune(CONTROLS["natural batches"], s.strongest)}


def gain(s: Setting) -> Runs:
    """The pair from cached views, Phase II repeated from the same Phase I."""
    return pair(s, draws=s.draws, views=s.views)


def controls(s: Setting) -> Runs:
    """Every variant of Phase II from cached views, from the same Phase I."""
    tuned = {name: s.tune(method, draws=s.control_draws, views=s.views) for name, method in CONTROLS.items()}
    return {"Phase I": s.train(), **tuned}


FIXED = "1 view, fused once"
"""FSA as if its features had been computed in advance."""


def sources_of(s: Setting) -> dict[str, int]:
    """Where Phase II's maps come from: views of each image that are cached, 0 for none."""
    return {"drawn afresh": 0, f"{s.views} views": s.views, "1 view": 1}


def sources(s: Setting) -> Runs:
    """The pair from images drawn afresh, from cached maps of ten views and of one, and with fusions drawn once."""
    runs: dict[str, list[Run]] = {"Phase I": s.train()}
    for label, views in sources_of(s).items():
        runs |= {
            f"No Aug, {label}": s.tune(NO_AUG, draws=s.control_draws, views=views),
            f"{OURS}, {label}": s.tune(FSA(), draws=s.control_draws, views=views),
        }
    runs[f"{OURS}, {FIXED}"] = s.tune(FSA(offline=True), draws=s.control_draws, views=1)
    return runs


def strong(s: Setting) -> list[float]:
    """Imbalance factors of Fig. 8 and 9: 100 and 200."""
    return [f for f in s.factors if f >= 100]


def shares(s: Setting) -> Runs:
    """Fig. 8: the head's share of the images."""
    return {cell(f"{share:g}", f): s.tune(FSA(share=share), f, views=s.views) for f in strong(s) for share in s.shares}


def blocks(s: Setting) -> Runs:
    """Fig. 9: the block after which features are augmented; after an earlier one, images are always drawn afresh."""
    runs: dict[str, list[Run]] = {}
    for factor in strong(s):
        runs |= {
            cell("No Aug", factor): s.tune(NO_AUG, factor),
            cell("Block2", factor): s.tune(Earlier(2), factor, views=0),
            cell("Block3", factor): s.tune(Earlier(1), factor, views=0),
            cell("Block4", factor): s.tune(FSA(), factor),
        }
    return runs


def thresholds(s: Setting) -> Runs:
    """The grid over both thresholds, from cached views."""
    grid = [(a, b) for a in s.taus[0] for b in s.taus[1]]
    tuned = {f"{a:g} {b:g}": s.tune(FSA(tau_specific=a, tau_generic=b), views=s.views) for a, b in grid}
    return {"No Aug": s.tune(NO_AUG, views=s.views), **tuned}


UNIFORM = "ratio U(0, 1)"


def numbers(s: Setting) -> Runs:
    """Ratio, donors of each tail image and confusing classes, one at a time; the batch stays 128."""
    ratios = {f"ratio {r:g}": FSA(ratio=r) for r in s.ratios}
    donors = {f"donors {n}": FSA(tail=64 // (1 + n), donors=n) for n in s.donors}
    confusing = {f"confusing {n}": FSA(confusing=n) for n in s.confusing}
    methods = {UNIFORM: FSA(), **ratios, **donors, **confusing}
    return {"No Aug": s.tune(NO_AUG, views=s.views), **{n: s.tune(m, views=s.views) for n, m in methods.items()}}


def parts(s: Setting) -> Runs:
    """Fig. 4, 11 and 12: the surveys of Phase I."""
    return {f"classes {', '.join(map(str, c))}": s.survey(c) for c in s.shown}


def motivation(s: Setting) -> Runs:
    """Fig. 3: Phase I on long-tailed data and on all images."""
    return {"long-tailed": s.survey(s.shown[0]), "all images": s.survey(s.shown[0], balanced=True)}
