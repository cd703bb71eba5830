"""The Runs behind each figure, per preset: experiments are data. No torch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from class_balanced.methods import ClassBalanced, Method
from common.datasets import DataSpec
from common.errors import InputError
from common.runs import Inputs, LongTail, Protocol, Run, Schedule

CIFAR_SCHEDULE = Schedule(  # Sec. 5.2; weight decay and full batches as in the official code
    epochs=200,
    lr=0.1,
    milestones=(160, 180),
    gamma=0.01,
    batch=128,
    weight_decay=2e-4,
    warmup=5,
    warmup_by="step",
    drop_last=True,
)
INPUTS = Inputs(mean=(128 / 255,) * 3, std=(128 / 255,) * 3)
"""x / 128 - 1 for x in 0..255, as the official code feeds images."""
BETAS = (0.9, 0.99, 0.999, 0.9999)  # Sec. 5.2
GAMMAS = (0.5, 1.0, 2.0)
FACTORS = (200.0, 100.0, 50.0, 20.0, 10.0)  # of Fig. 8 to 10
PLAIN = ClassBalanced("softmax")


@dataclass(frozen=True)
class Setting:
    """One data set with the paper's schedule on it, the grid asked for and its repeats."""

    preset: str
    data: DataSpec
    classes: int
    network: str
    schedule: Schedule
    inputs: Inputs
    factors: tuple[float, ...]
    betas: tuple[float, ...]
    gammas: tuple[float, ...]
    test_every: int
    seeds: tuple[int, ...] = ()

    @property
    def full_schedule(self) -> bool:
        """Whether results can be held against the published ones: real data at the paper's schedule."""
        return self.preset != "quick" and self.schedule == CIFAR_SCHEDULE

    def models(self) -> dict[str, ClassBalanced]:
        """The rows of Fig. 8 to 10 by the paper's names: SM, SM_0.9, ..., Focal_2.0_0.9999."""
        focal = {f"Focal_{g:.1f}": ClassBalanced("focal", gamma=g) for g in self.gammas}
        bases = {"SM": PLAIN, "SGM": ClassBalanced("sigmoid"), **focal}
        return {
            f"{name}_{beta:g}" if beta else name: replace(base, beta=beta)
            for name, base in bases.items()
            for beta in (0.0, *self.betas)
        }

    def runs(self, method: Method, factor: float) -> list[Run]:
        """One Run per seed of `method` on the subset of that imbalance factor, drawn with seed 0."""
        protocol = Protocol(self.classes, self.classes, 0, exemplars_per_class=0)
        run = Run(
            "class_balanced",
            method,
            self.data,
            protocol,
            self.schedule,
            self.network,
            order="native",
            inputs=self.inputs,
            longtail=LongTail(factor),
            test_every=self.test_every,
        )
        return [replace(run, seed=seed) for seed in self.seeds]


CIFAR = Setting(
    "cifar",
    DataSpec("cifar10"),
    classes=10,
    network="resnet32-avgpool",
    schedule=CIFAR_SCHEDULE,
    inputs=INPUTS,
    factors=FACTORS,
    betas=BETAS,
    gammas=GAMMAS,
    test_every=2,  # epochs, as in the official code
)
SETTINGS: dict[str, tuple[Setting, ...]] = {
    "cifar": tuple(
        replace(CIFAR, data=DataSpec(name), classes=classes)
        for name, classes in (("cifar10", 10), ("cifar20", 20), ("cifar100", 100))
    ),
}
DEFAULT_SEEDS = {"quick": (0,), "cifar": (0, 1, 2), "imagenet": (0,)}


def settings(
    preset: str, seeds: Sequence[int] | None, orders: Sequence[str] | None, epochs_scale: float
) -> tuple[Setting, ...]:
    """The settings of a preset. Seeds are initialisation and batch order; the long-tailed draw keeps its own.

    Raises InputError on an unknown preset or a scale that is not positive.
    """
    if preset not in SETTINGS:
        raise InputError(f"unknown preset {preset!r}; choose one of {', '.join(SETTINGS)}")
    if not 0 < epochs_scale <= 1000:
        raise InputError(f"--epochs-scale must be positive, and at most 1000, got {epochs_scale:g}")
    if orders:
        warnings.warn("class_balanced learns all classes at once, so --orders is ignored", stacklevel=2)
    chosen = tuple(dict.fromkeys(seeds or DEFAULT_SEEDS[preset]))
    return tuple(replace(s, seeds=chosen, schedule=s.schedule.scaled(epochs_scale)) for s in SETTINGS[preset])


Runs = Mapping[str, list[Run]]


def cells(s: Setting, names: Sequence[str], factor: float) -> Runs:
    """Rows of the grid, by the paper's names, at one imbalance factor."""
    models = s.models()
    return {name: s.runs(models[name], factor) for name in names}
