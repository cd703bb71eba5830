"""All figures of the paper, in the paper's order: id, title, the Runs that a figure needs, and its drawing function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from common.data.names import FOLDER
from common.drawing.effects import Sides, disagreements, headline
from common.drawing.figures import Figure, Runs, no_runs, per_data
from common.drawing.looks import GREY, RED, declare
from common.imbalance import Rebalance
from common.runs import Run
from fsa.methods import FSA, EarlierBlock
from fsa.reproduce import figures as draw
from fsa.reproduce import pictures, readers
from fsa.reproduce.figures import ACCURACY, BLOCKS, DEPTHS, FOCAL_TUNED, NO_AUG, PHASE_1, TUNED
from fsa.reproduce.presets import HUNDRED, TEN, Setting

LOOKS = declare((RED, "D", TUNED), (GREY, "v", "Plain model"))

CONTROL = FSA(tail=64, donors=0)
"""Phase II without augmentation. As in FSA, half of a batch are tail images, but here all of them are real."""
WHOLE = FSA(tau_specific=None, tau_generic=None)
"""FSA without thresholds: every location is both class-specific and class-generic."""
VARIANTS: dict[str, FSA] = {
    "natural batches": FSA(batch="natural"),
    "class-balanced batches": FSA(batch="balanced"),
    NO_AUG: CONTROL,
    readers.NO_AUG_BY_CLASS: replace(CONTROL, tail_draw="classes"),
    readers.FSA_BY_CLASS: FSA(tail_draw="classes"),
    "random donors": FSA(donor_classes="random"),
    "all features of donors": FSA(tau_generic=None),
    "all features of both": WHOLE,
    "feature mixup": replace(WHOLE, fusion="mixup"),
    "ratio 0: donors only": FSA(ratio=0.0),
    "ratio 1: own only": FSA(ratio=1.0),
    TUNED: FSA(),
}
"""The variants of Phase II that show where the gain comes from."""


def counted(settings: Sequence[Setting]) -> Runs:
    """Return the Runs of Phase I on the large data sets. Fig. 2 takes the class sizes from those that are trained."""
    return {s.name: s.train() for s in settings if s.preset == "imagenet"}


def motivation(s: Setting) -> Runs:
    """Return the surveys of Phase I on long-tailed data and on all images."""
    return {"long-tailed": s.survey(s.shown[0]), "all images": s.survey(s.shown[0], balanced=True)}


def parts(s: Setting) -> Runs:
    """Return the surveys of Phase I by the classes that they show."""
    return {classes: s.survey(classes) for classes in s.shown}


def phases(s: Setting, factor: float | None = None) -> Runs:
    """Return the Runs of Phase I, the control and FSA, by default at the strongest imbalance factor."""
    factor = factor or s.strongest
    return {PHASE_1: s.train(factor=factor), NO_AUG: s.tune(CONTROL, factor), TUNED: s.tune(FSA(), factor)}


def curves(s: Setting, factor: float | None = None) -> Runs:
    """Return the Runs of `phases`, and of Phase II on natural batches, which Fig. 6 calls no augmentation."""
    return {**phases(s, factor), "natural batches": s.tune(VARIANTS["natural batches"], factor or s.strongest)}


def table(s: Setting) -> Runs:
    """Return the Runs of the one-stage baselines, the control and FSA at every imbalance factor."""
    runs = dict[tuple[str, float], list[Run]]()
    for factor in s.factors:
        runs |= {(name, factor): s.train(method, factor) for name, method in s.baselines().items()}
        runs |= {(name, factor): s.tune(VARIANTS[name], factor) for name in (NO_AUG, TUNED)}
    return runs


def large(s: Setting) -> Runs:
    """Return the Runs of Phase I with cross-entropy and with focal loss, of FSA after each, and of the control."""
    focal = Rebalance("focal", gamma=2.0)
    return {
        "Plain model": s.train(),
        "Focal": s.train(focal),
        NO_AUG: s.tune(CONTROL),
        TUNED: s.tune(FSA()),
        FOCAL_TUNED: s.tune(FSA(), loss=focal),
    }


def depths(s: Setting) -> Runs:
    """Return the Runs of Phase I, the control and FSA on ResNets of each depth in Table 4."""
    runs = dict[tuple[str, float], list[Run]]()
    for depth in DEPTHS:
        deeper = replace(s, network=f"resnet{depth}-imagenet")
        runs |= {
            ("CE", depth): deeper.train(),
            (NO_AUG, depth): deeper.tune(CONTROL),
            (TUNED, depth): deeper.tune(FSA()),
        }
    return runs


def shares(s: Setting) -> Runs:
    """Return the Runs of FSA with each share of the images that the head holds."""
    return {(share, f): s.tune(FSA(share=share), f, views=s.views) for f in s.strong for share in s.shares}


def blocks(s: Setting) -> Runs:
    """Return the Runs of the control, and of augmentation after each of three blocks.

    Augmentation after Block2 or Block3 never uses cached views: its images are augmented anew for every batch.
    """
    runs = dict[tuple[str, float], list[Run]]()
    second, third, fourth = BLOCKS
    for f in s.strong:
        runs |= {
            (NO_AUG, f): s.tune(CONTROL, f),
            (second, f): s.tune(EarlierBlock(2), f, views=0),
            (third, f): s.tune(EarlierBlock(1), f, views=0),
            (fourth, f): s.tune(FSA(), f),
        }
    return runs


def variants(s: Setting) -> Runs:
    """Return the Runs of Phase I, and of every variant of Phase II on cached views, repeated from the same Phase I."""
    draws = {NO_AUG: s.draws, TUNED: s.draws}
    tuned = {n: s.tune(m, draws=draws.get(n, s.control_draws), views=s.views) for n, m in VARIANTS.items()}
    return {PHASE_1: s.train(), **tuned}


def sources(s: Setting) -> Runs:
    """Return the Runs of Phase I, and of the control and FSA with each source of Phase II's images.

    The sources are images augmented anew for every batch (0 views), several cached views, and one cached view. FSA also
    has Runs whose fused samples stay fixed.
    """
    tune = partial(s.tune, draws=s.control_draws)
    methods = {NO_AUG: CONTROL, TUNED: FSA()}
    tuned = {(name, n): tune(method, views=n) for n in (0, s.views, 1) for name, method in methods.items()}
    return {PHASE_1: s.train(), **tuned, (TUNED, readers.FIXED): tune(FSA(offline=True), views=1)}


def thresholds(s: Setting) -> Runs:
    """Return the Runs of the control, and of FSA on a grid of both thresholds, from cached views."""
    tuned = {(a, b): s.tune(FSA(tau_specific=a, tau_generic=b), views=s.views) for a in s.taus[0] for b in s.taus[1]}
    return {NO_AUG: s.tune(CONTROL, views=s.views), **tuned}


def numbers(s: Setting) -> Runs:
    """Return the Runs of the control, and of FSA with another ratio, number of donors or number of confusing classes.

    One of them changes at a time. The batch size stays 128.
    """
    methods: dict[Any, FSA] = {
        NO_AUG: CONTROL,
        readers.UNIFORM: FSA(),
        **{("ratio", r): FSA(ratio=r) for r in s.ratios},
        **{("donors", n): FSA(tail=64 // (1 + n), donors=n) for n in s.donors},
        **{("confusing", n): FSA(confusing=n) for n in s.confusing},
    }
    return {key: s.tune(method, views=s.views) for key, method in methods.items()}


def claim(s: Setting) -> Sides:
    """Return the two sides of the headline claim: FSA, and the same Phase II without augmentation."""
    return {TUNED: s.tune(FSA()), NO_AUG: s.tune(CONTROL)}


def choices(s: Setting) -> Mapping[str, Sides]:
    """Return FSA changed and with its defaults, for each choice that the paper leaves open. No code was released."""
    here = s.tune(FSA())
    return {
        "tail images of a batch": {"class by class": s.tune(FSA(tail_draw="classes")), "every image alike": here},
        "donors' classes": {"of all": s.tune(FSA(pool="all")), "of the head": here},
        "thresholds": {"0.8 and 0.2": s.tune(FSA(tau_specific=0.8, tau_generic=0.2)), "0.5 and 0.5": here},
        "scaling of maps": {"by the greatest": s.tune(FSA(scaling="relu-max")), "min-max": here},
    }


SMALL, CIFAR, LARGE = ("quick", "cifar"), ("cifar",), ("imagenet",)
BOTH = {"cifar10": SMALL, "cifar100": CIFAR}
both = partial(per_data, {"cifar10": TEN, "cifar100": HUNDRED})


def supplement(letter: str, title: str, role: str, factor: float) -> Figure:
    """Return the figure of one part of the supplement's Fig. 10: learning curves at an imbalance factor."""
    runs, drawing = partial(curves, factor=factor), partial(draw.learning_curves, factor=factor)
    return Figure(f"fig10{letter}", f"Suppl. Fig. 10: learning curves, {title}", runs, drawing, CIFAR, role)


FIGURES: list[Figure] = [
    Figure("fig2", "Fig. 2: class sizes", no_runs, draw.class_sizes, (*SMALL, *LARGE), role=None, extra=counted),
    Figure("fig3", "Fig. 3: features of an under-represented class", motivation, pictures.motivation),
    Figure("fig4", "Fig. 4: class-specific and class-generic features", parts, pictures.parts),
    Figure("fig6", "Fig. 6: both phases", curves, draw.learning_curves),
    *both("fig7", "Fig. 7: confusion", phases, draw.confusion, dict.fromkeys(BOTH, SMALL)),
    Figure("table1-resnet18", f"Table 1: {TEN}, ResNet-18", table, draw.table, role="cifar10"),
    Figure("table1-resnet34", f"Table 1: {TEN}, ResNet-34", table, draw.table, CIFAR, "cifar10-resnet34"),
    Figure("table2-resnet18", f"Table 2: {HUNDRED}, ResNet-18", table, draw.table, role="cifar100"),
    Figure("table2-resnet34", f"Table 2: {HUNDRED}, ResNet-34", table, draw.table, CIFAR, "cifar100-resnet34"),
    Figure("table3-imagenet-lt", "Table 3: ImageNet-LT", large, draw.shots, LARGE, "imagenet-lt"),
    Figure("table3-places-lt", "Table 3: Places-LT", large, draw.shots, LARGE, "places-lt"),
    Figure("table4-inat2017", "Table 4: iNaturalist 2017", depths, draw.depths, LARGE, "inat2017"),
    Figure("table4-inat2018", "Table 4: iNaturalist 2018", depths, draw.depths, LARGE, "inat2018"),
    *both("fig8", "Fig. 8: the head's share", shares, draw.head_shares, BOTH),
    *both("fig9", "Fig. 9: the block that is augmented", blocks, draw.blocks, BOTH),
    supplement("a", f"{HUNDRED} 100, ResNet-18", "cifar100", 100.0),
    supplement("b", f"{HUNDRED} 100, ResNet-34", "cifar100-resnet34", 100.0),
    supplement("c", f"{HUNDRED} 200, ResNet-18", "cifar100", 200.0),
    supplement("d", f"{TEN} 200, ResNet-34", "cifar10-resnet34", 200.0),
    Figure("fig11", "Suppl. Fig. 11: features of ResNet-34", parts, pictures.parts, CIFAR, "cifar10-resnet34"),
    Figure("fig12", "Suppl. Fig. 12: features of other classes", parts, pictures.parts, role="cifar100"),
    Figure("cam", "Beyond the paper: activation maps on images", parts, pictures.overlays),
    Figure("tsne", "Beyond the paper: augmented features of the tail", parts, pictures.augmented),
    *both(
        "control",
        "Beyond the paper: what the gain comes from",
        variants,
        readers.variants,
        BOTH,
        formerly={role: (f"gain-{role}",) for role in BOTH},
    ),
    *both("source", "Beyond the paper: images afresh or cached", sources, readers.sources, BOTH),
    *both("tau", "Beyond the paper: both thresholds", thresholds, readers.thresholds, BOTH),
    *both("numbers", "Beyond the paper: ratio, donors, confusing classes", numbers, readers.numbers, BOTH),
    headline(claim, ACCURACY, role="cifar10"),
    disagreements(choices, ACCURACY, role="cifar10"),
]
OWN = [
    Figure("phases", "Both phases", phases, draw.learning_curves, (FOLDER,)),
    Figure("shots", "Classes of many, medium and few images", phases, draw.shots, (FOLDER,)),
]
"""Figures for the user's own images."""
