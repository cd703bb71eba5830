"""List every figure and table of the paper, in its order: id, title, the Runs it needs, and what draws it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from class_balanced.methods import ClassBalanced, Method
from class_balanced.reproduce import analytic, tables
from class_balanced.reproduce import figures as draw
from class_balanced.reproduce.presets import DEPTHS, LARGE, LARGE_FOCAL, LARGE_SOFTMAX, Setting
from class_balanced.reproduce.tables import SETS
from common.data.names import FOLDER
from common.drawing.effects import Sides, disagreements, headline
from common.drawing.figures import Figure, Runs, no_runs, per_data
from common.drawing.looks import GREY, OLIVE, PINK, RED, declare
from common.imbalance import Rebalance, Retrain

LOOKS = declare(
    (RED, "D", "CB softmax"),
    (PINK, "<", "CB sigmoid"),
    (GREY, "v", "Softmax"),
    (OLIVE, "P", "Sigmoid"),
)

SOFTMAX, ACCURACY = ClassBalanced("softmax"), "test accuracy, last epoch (%)"
SMALL, CIFAR, IMAGENET = ("quick", "cifar"), ("cifar",), ("imagenet",)


def cells(s: Setting, names: Iterable[str], factors: Sequence[float | None]) -> Runs:
    """Return the Runs of some rows of the grid, at some imbalance factors."""
    models = s.models()
    return {(name, f): s.runs(models[name], f) for name in names for f in factors}


def grid(s: Setting) -> Runs:
    """Return the Runs of every loss, gamma and beta at every factor."""
    return cells(s, s.models(), s.factors)


def base_losses(s: Setting) -> Runs:
    """Return the Runs of the losses without class weights. Factor 1 is the whole training set."""
    return cells(s, s.base_models(), s.table2_factors)


def over_beta(s: Setting) -> Runs:
    """Return the Runs of three losses over beta, at one factor."""
    return cells(s, s.beta_models(), [s.factor])


def loss_curves(s: Setting) -> Runs:
    """Return the Runs of each loss without class weights and at the largest beta."""
    return cells(s, s.curve_models(), [s.factor])


def closeup(s: Setting) -> Runs:
    """Return the Runs of the few cells that are looked at closely."""
    return cells(s, s.closeup, [s.closeup_factor])


def reductions(s: Setting) -> Runs:
    """Return the Runs of softmax for every beta, with both reductions.

    At beta 0 there are no class weights, so one Run serves both.
    """
    models = s.softmax_models().items()
    batch = {(name, "batch"): s.runs(model, s.closeup_factor) for name, model in models}
    means = {name: replace(model, reduction="weighted_mean") for name, model in models if model.beta}
    return {**batch, **{(name, "weighted_mean"): s.runs(model, s.closeup_factor) for name, model in means.items()}}


def claim(s: Setting) -> Sides:
    """Return the sides of the headline: softmax with class-balanced weights of the largest beta, and without any."""
    return {"CB softmax": s.main(replace(SOFTMAX, beta=s.betas[-1])), "Softmax": s.main(SOFTMAX)}


def choices(s: Setting) -> Mapping[str, Sides]:
    """Return the sides of each choice in which ports differ from the official code. The second side is official."""
    cb, focal = replace(SOFTMAX, beta=s.betas[-1]), ClassBalanced("focal", beta=s.betas[-1], gamma=s.gammas[0])
    pad, pooled = (replace(s, network=name) for name in s.shortcuts)
    return {
        "reduction": {"weighted mean": s.main(replace(cb, reduction="weighted_mean")), "batch": s.main(cb)},
        "bias of the focal loss": {"from 0": s.main(replace(focal, bias_start="zero")), "-log(C - 1)": s.main(focal)},
        "shortcuts": {"subsampled": pad.main(cb), "averaged": pooled.main(cb)},
    }


def baselines(s: Setting) -> Runs:
    """Return the Runs of the baselines of long-tailed papers, on this paper's network and schedule.

    CE and RW are forms of `ClassBalanced`.
    """
    later, beta = s.schedule.milestones[0], s.betas[-1]
    methods: dict[str, Method] = {
        "CE": ClassBalanced("softmax"),
        "RW": ClassBalanced("softmax", beta=beta, reduction="weighted_mean"),
        "RS": Rebalance(sampler="balanced"),
        "CE-DRW": Rebalance(beta=beta, defer=later),
        "CE-DRS": Rebalance(sampler="balanced", defer=later),
        "Focal": Rebalance("focal"),
        "LDAM": Rebalance("ldam"),
        "LDAM-DRW": Rebalance("ldam", beta=beta, defer=later),
    }
    runs = {name: s.runs(method, s.closeup_factor) for name, method in methods.items()}
    return {**runs, "cRT": [replace(run, method=Retrain(), schedule=s.retrain, start=run) for run in runs["CE"]]}


def large_images(s: Setting) -> Runs:
    """Return the Runs of softmax and class-balanced focal loss by resolution and depth.

    They have batch 1024, and focal loss has beta 0.999 and gamma 0.5.
    """
    losses = {"Softmax": LARGE_SOFTMAX, "CB focal": LARGE_FOCAL}
    return {
        (loss, size, depth): replace(s, network=f"resnet{depth}-imagenet", inputs=replace(s.inputs, size=size)).main(
            losses[loss]
        )
        for loss, size in LARGE
        for depth in DEPTHS
    }


def resnet50(s: Setting) -> Runs:
    """Return the ResNet-50 Runs of Table 3 at the usual resolution."""
    return {loss: runs for (loss, size, depth), runs in large_images(s).items() if (size, depth) == (224, 50)}


def counted(settings: Sequence[Setting]) -> Runs:
    """Return the Runs of Table 3 by data set. Table 1 counts a data set's classes from a finished one."""
    large = [s for s in settings if s.preset == "imagenet"]
    return {SETS[s.role]: [run for runs in large_images(s).values() for run in runs] for s in large}


each = partial(per_data, SETS)
BOTH = {"cifar10": SMALL, "cifar100": SMALL}
TEN_FIRST = {"cifar10": SMALL, "cifar100": CIFAR}
"""The presets of figures whose runs the quick preset has for one data set only."""
LARGE_SETS = {"inat2017": IMAGENET, "inat2018": IMAGENET, "ilsvrc2012": IMAGENET}
FIGURES: list[Figure] = [
    Figure(
        "table1",
        "Table 1: the data sets",
        no_runs,
        analytic.data_sets,
        (*SMALL, *IMAGENET),
        role=None,
        extra=counted,
    ),
    Figure("fig3", "Fig. 3: the class-balanced term", no_runs, analytic.class_balanced_term),
    Figure("fig4", "Fig. 4: images per class of CIFAR-100-LT", no_runs, analytic.class_sizes),
    Figure("fig6", "Fig. 6: effective number of each class", no_runs, analytic.effective_numbers),
    *each("table2", "Table 2: losses without class weights", base_losses, tables.base_losses, BOTH, grid),
    *each(
        "fig5",
        "Fig. 5: error against beta",
        over_beta,
        draw.over_beta,
        BOTH,
        formerly={"cifar10": ("selection-cifar10",), "cifar100": ("selection-cifar100",)},
    ),
    *each("table3", "Table 3", large_images, tables.large_images, LARGE_SETS),
    *each("fig7", "Fig. 7: over training", resnet50, draw.resnet50, {"ilsvrc2012": IMAGENET, "inat2018": IMAGENET}),
    Figure("fig8", "Fig. 8: every model on CIFAR-10-LT", grid, tables.grid, role="cifar10"),
    Figure("fig9", "Fig. 9: every model on CIFAR-20-LT", grid, tables.grid, role="cifar20"),
    Figure("fig10", "Fig. 10: every model on CIFAR-100-LT", grid, tables.grid, role="cifar100"),
    *each(
        "closeup",
        "Softmax and class-balanced at close range",
        closeup,
        draw.closeup,
        BOTH,
        formerly={"cifar10": ("cifar10-lt50", "classes-cifar10"), "cifar100": ("cifar100-lt100", "classes-cifar100")},
    ),
    *each("curves", "Loss curves", loss_curves, draw.loss_curves, BOTH),
    *each("baselines", "Common baselines", baselines, draw.baselines, TEN_FIRST, closeup),
    Figure("limits", "Beyond the paper: two limits of the effective number", no_runs, analytic.limits),
    Figure("weights", "Beyond the paper: mean weight and effective learning rate", no_runs, analytic.weights),
    *each("reduction", "Beyond the paper: two reductions of a weighted loss", reductions, draw.reductions, TEN_FIRST),
    headline(claim, ACCURACY, role="cifar10"),
    disagreements(choices, ACCURACY, role="cifar10"),
]
OWN = [Figure("losses", "Softmax and class-balanced losses", closeup, draw.closeup, (FOLDER,))]
"""Figures for a folder of your own images."""
