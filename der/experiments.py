"""The Runs behind each figure, per preset: experiments are data. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from common.datasets import DataSpec
from common.runs import IMAGENET_INPUTS, Inputs, Protocol, Run, Schedule, of_preset, repeated
from der import schedule as recipes
from der.methods import BIAS, WA, BiC
from der.setting import Setting
from lucir.methods import FINETUNE as UCIR_FINETUNE
from lucir.methods import LUCIR, ICaRL

INPUTS = Inputs((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761), brightness=63 / 255)  # official code
QUICK = Schedule(epochs=8, lr=0.1, milestones=(5, 7), batch=32, weight_decay=5e-4, warmup=1)
QUICK_BASE = replace(QUICK, milestones=(4, 6), warmup=0)


CIFAR = Setting(
    "cifar",
    DataSpec("cifar100"),
    classes=100,
    network="resnet18",
    base_network="resnet18",
    small_network="resnet32",
    schedule=recipes.CIFAR,
    base_schedule=recipes.CIFAR_BASE,
    finetune=recipes.CLASSIFIER,
    temperature=5.0,
    bias=BIAS,
    ucir=LUCIR(nme_flip="none"),
    b0=(5, 10, 20, 50),
    b50=(2, 5, 10),
    total=2000,
    per_class=20,
    sparsity=0.5,
    sparsities=(0.25, 0.5, 1.0, 2.0),
    auxiliaries=(0.0, 0.25, 0.5, 1.0, 2.0),
    inputs=INPUTS,
)
IMAGENET = replace(
    CIFAR,
    preset="imagenet",
    data=DataSpec("imagenet-100"),
    network="resnet18-preact",
    base_network="resnet18-pool",
    schedule=recipes.IMAGENET,
    base_schedule=recipes.IMAGENET_BASE,
    finetune=recipes.IMAGENET_CLASSIFIER,
    temperature=1.0,
    ucir=LUCIR(weight=10.0, finetune=replace(UCIR_FINETUNE, weight_decay=1e-4), nme_flip="none"),
    b0=(10,),
    b50=(10,),
    inputs=IMAGENET_INPUTS,
)
SETTINGS: dict[str, tuple[Setting, ...]] = {
    "quick": (
        replace(
            CIFAR,
            preset="quick",
            data=DataSpec("glyphs", classes=20, per_class=100, test_per_class=25),
            classes=20,
            network="resnet8-half",
            base_network="resnet8-half",
            small_network="resnet8-half",
            schedule=QUICK,
            base_schedule=QUICK_BASE,
            finetune=replace(recipes.CLASSIFIER, epochs=10, milestones=(5,), batch=32),
            temperature=1.0,  # at 5 the few steps of a small classifier stage end far from where they lead
            bias=replace(BIAS, batch=32),
            ucir=LUCIR(finetune=replace(UCIR_FINETUNE, epochs=2, milestones=(1,), batch=32), nme_flip="none"),
            b0=(2, 5),
            b50=(2, 5),
            total=200,
            per_class=10,
            sparsities=(0.2, 0.5, 1.5),
            auxiliaries=(0.0, 1.0, 4.0),
            mask_rate=10.0,
            mask_init="uniform",  # half of so few channels, drawn at random, learn too little in so few steps
            probe=True,
        ),
    ),
    "cifar": (CIFAR,),
    "imagenet": (IMAGENET, replace(IMAGENET, data=DataSpec("imagenet"), classes=1000, total=20000, b50=())),
}
SEED = 1993
ORDERS = {"quick": ("1993",), "cifar": ("O1", "O2", "O3"), "imagenet": ("1993",)}
"""Class orders by default, each with seed 1993: the paper's three on CIFAR-100, one on ImageNet."""


def settings(
    preset: str, seeds: Sequence[int] | None, orders: Sequence[str] | None, epochs_scale: float
) -> tuple[Setting, ...]:
    """The settings of a preset. Seeds without `orders` also choose the class order; `orders` alone have seed 1993.

    A shortened schedule keeps the 30 epochs of the classifier stage and of bias correction, which begin afresh. Its
    masks have a learning rate of their own, larger by as much as it is shorter (see README.md).
    Raises InputError on an unknown preset or a scale that is not positive.
    """
    found = of_preset(SETTINGS, preset, epochs_scale)
    repeats = repeated(seeds or (SEED,), orders if orders or seeds else ORDERS[preset])
    return tuple(
        replace(
            s,
            repeats=repeats,
            schedule=s.schedule.scaled(epochs_scale),
            base_schedule=s.base_schedule.scaled(epochs_scale),
            ucir=replace(s.ucir, finetune=s.ucir.finetune and s.ucir.finetune.scaled(epochs_scale)),
            mask_rate=round(s.mask_rate / min(epochs_scale, 1.0), 2) if s.preset != "quick" else s.mask_rate,
        )
        for s in found
    )


Runs = Mapping[str, list[Run]]
MASKED, UNPRUNED = "DER", "DER w/o P"


def methods(s: Setting) -> dict[str, Any]:
    """The rows of Tables 1 and 2 that are run here, by the paper's names."""
    return {
        "iCaRL": ICaRL(nme_flip="none"),
        "UCIR": s.ucir,
        "BiC": BiC(bias=s.bias),
        "WA": WA(),
        UNPRUNED: s.der(),
        MASKED: s.masked(),
    }


def both(s: Setting, steps: int, base: bool = False) -> Runs:
    """DER without pruning and with masks."""
    make = s.b50_runs if base else s.b0_runs
    return {UNPRUNED: make(s.der(), steps), MASKED: make(s.masked(), steps)}


def table1(s: Setting) -> Runs:
    """Every method over every number of steps, no base."""
    return {f"{name} {n}": s.b0_runs(method, n) for n in s.b0 for name, method in methods(s).items()}


def table2(s: Setting) -> Runs:
    """Every method over every number of steps after the base."""
    return {f"{name} {n}": s.b50_runs(method, n) for n in s.b50 for name, method in methods(s).items()}


def all_of(s: Setting, steps: int, base: bool = False) -> Runs:
    """Every method over one number of steps: a figure of curves."""
    make = s.b50_runs if base else s.b0_runs
    return {name: make(method, steps) for name, method in methods(s).items()}


def ablation(s: Setting) -> Runs:
    """The single network, expansion, the auxiliary loss, then masks."""
    return {
        "baseline (no E.R., no Aux)": s.b0_runs(s.der(expand=False, aux=0.0), s.steps),
        "+ E.R.": s.b0_runs(s.der(aux=0.0), s.steps),
        "+ E.R. + Aux": s.b0_runs(s.der(), s.steps),
        "+ E.R. + Aux + masks": s.b0_runs(s.masked(), s.steps),
    }


def sparsities(s: Setting) -> Runs:
    """lambda_s from little to much, and no masks."""
    masked = {f"DER {weight:g}": s.b0_runs(s.masked(sparsity=weight), s.steps) for weight in s.sparsities}
    return {UNPRUNED: s.b0_runs(s.der(), s.steps), **masked}


def baselines(s: Setting) -> Runs:
    """The other methods, drawn beside the sweep where they are finished."""
    return {name: s.b0_runs(m, s.steps) for name, m in methods(s).items() if name not in (UNPRUNED, MASKED)}


def sensitivity(s: Setting) -> Runs:
    """lambda_a without pruning, lambda_s with masks."""
    auxiliary = {f"aux {weight:g}": s.b0_runs(s.der(aux=weight), s.steps) for weight in s.auxiliaries}
    return {**auxiliary, **{name: runs for name, runs in sparsities(s).items() if name != UNPRUNED}}


def transfer(s: Setting) -> Runs:
    """With a probe of the representation: DER without and with pruning, from a random F_t, and the single network."""
    return {
        UNPRUNED: s.b0_runs(s.der(probe=True), s.steps),
        MASKED: s.b0_runs(s.masked(probe=True), s.steps),
        "random F_t": s.b0_runs(s.der(init="random", probe=True), s.steps),
        "single network": s.b0_runs(s.der(expand=False, aux=0.0, probe=True), s.steps),
    }


def small(s: Setting) -> Runs:
    """The appendix's ResNet-32, 10 steps."""
    chosen = {name: m for name, m in methods(s).items() if name in ("iCaRL", UNPRUNED, MASKED)}
    return {name: s.b0_runs(m, s.steps, s.small_network) for name, m in chosen.items()}


def masks(s: Setting) -> Runs:
    """Learned masks, random channels of equal number, no masks; the small extractor."""
    n, network = s.steps, s.small_network
    return {
        UNPRUNED: s.b0_runs(s.der(), n, network),
        MASKED: s.b0_runs(s.masked(), n, network),
        "random channels": s.random_runs(n, network),
    }


def pruned(s: Setting) -> Runs:
    """DER with masks alone."""
    return {MASKED: s.b0_runs(s.masked(), s.steps)}


def bound(s: Setting) -> Runs:
    """Joint training from scratch on the classes of each step, without and with a base; DER's recipe, one extractor."""
    counts = {s.classes // n * (i + 1) for n in s.b0 for i in range(n)}
    half = s.classes // 2
    counts |= {half + (s.classes - half) // n * i for n in s.b50 for i in range(n + 1)}
    method = s.der(finetune=None)
    return {str(n): s.run(method, Protocol(n, n, 0, 0), s.network) for n in sorted(counts)}
