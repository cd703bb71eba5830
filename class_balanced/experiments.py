"""The Runs behind each figure: experiments are data. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from class_balanced.methods import ClassBalanced, Method
from class_balanced.presets import DEPTHS, Setting
from common.imbalance import Rebalance, Retrain
from common.runs import Run

Runs = Mapping[str, list[Run]]


def cell(name: str, factor: float) -> str:
    """The name of a row of the grid at one imbalance factor, among a figure's Runs."""
    return f"{name} at {factor:g}"


def cells(s: Setting, names: Iterable[str], factors: Sequence[float]) -> Runs:
    """Rows of the grid at some imbalance factors."""
    models = s.models()
    return {cell(name, f): s.runs(models[name], f) for name in names for f in factors}


def grid(s: Setting) -> Runs:
    """Fig. 8, 9 or 10: every loss and beta at every factor."""
    return cells(s, s.models(), s.factors)


def table2(s: Setting) -> Runs:
    """Table 2: the losses without class weights; factor 1 is the whole training set."""
    return cells(s, s.base_models(), s.table2_factors)


def fig5_names(s: Setting) -> list[str]:
    """The rows of Fig. 5: softmax, sigmoid and focal loss of the smallest gamma, every beta."""
    return [name for name in s.models() if name.startswith(("SM", "SGM", f"Focal_{s.gammas[0]:.1f}"))]


def fig5(s: Setting) -> Runs:
    """Fig. 5: three losses over beta at one factor."""
    return cells(s, fig5_names(s), [s.fig5])


def curves_names(s: Setting) -> list[str]:
    """Each loss without class weights and at the largest beta; focal as in the authors' re-run of their code."""
    focal = f"Focal_{1.0 if 1.0 in s.gammas else s.gammas[0]:.1f}"
    return [f"{loss}{beta}" for loss in ("SM", "SGM", focal) for beta in ("", f"_{s.betas[-1]:g}")]


def curves(s: Setting) -> Runs:
    """What the loss curves show: `curves_names` at the factor of Fig. 5."""
    return cells(s, curves_names(s), [s.fig5])


def chosen(s: Setting) -> Runs:
    """A few cells to look at closely."""
    factor, names = s.chosen
    return cells(s, names, [factor])


def reductions(s: Setting) -> Runs:
    """Softmax over beta with both reductions, which are one without weights."""
    factor, models = s.chosen[0], s.models()
    names = [name for name in models if name.startswith("SM")]
    means = {n: replace(models[n], reduction="weighted_mean") for n in names if models[n].beta}
    return {**cells(s, names, [factor]), **{f"{n} mean": s.runs(m, factor) for n, m in means.items()}}


def baselines(s: Setting) -> Runs:
    """What long-tailed papers compare with, on this paper's network and schedule; CE and RW are cells of its own."""
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
    runs = {name: s.runs(method, s.chosen[0]) for name, method in methods.items()}
    return {**runs, "cRT": [replace(run, method=Retrain(), schedule=s.retrain, start=run) for run in runs["CE"]]}


def table3(s: Setting) -> Runs:
    """Table 3: softmax and class-balanced focal loss by depth and resolution; batch 1024, beta 0.999, gamma 0.5."""
    softmax = ClassBalanced("softmax", recipe="imagenet")
    focal = ClassBalanced("focal", beta=0.999, gamma=0.5, recipe="imagenet")
    faster = replace(s, schedule=replace(s.schedule, lr=s.schedule.lr * s.focal_lr))
    large = replace(faster, inputs=replace(s.inputs, size=320))
    rows = {"Softmax (224 px)": (s, softmax), "CB focal (224 px)": (faster, focal), "CB focal (320 px)": (large, focal)}
    return {
        f"{name} {depth}": replace(where, network=f"resnet{depth}-imagenet").runs(method, None)
        for name, (where, method) in rows.items()
        for depth in DEPTHS
    }


def fig7(s: Setting) -> Runs:
    """Fig. 7: the ResNet-50 runs of Table 3 over training."""
    return {name: runs for name, runs in table3(s).items() if name.endswith(" 50") and "320" not in name}
