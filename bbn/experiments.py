"""The Runs behind each figure, per preset: experiments are data. No torch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from bbn.adaptor import Kind as Adaptor
from bbn.methods import BBN, Ensemble, Method, Mixup, Probe, Sampler, UnitFeatures
from class_balanced.methods import ClassBalanced
from common.datasets import DataSpec
from common.errors import InputError
from common.imbalance import Rebalance, Retrain
from common.runs import IMAGENET_INPUTS, Inputs, LongTail, Protocol, Run, Schedule

CIFAR_SCHEDULE = Schedule(  # Sec. 5.2; what the paper leaves out as in the official code
    epochs=200,
    lr=0.1,
    milestones=(120, 160),
    gamma=0.01,
    batch=128,
    weight_decay=2e-4,
    nesterov=True,
    warmup=5,
    warmup_by="third",
    drop_last=True,
)
BASELINE_SCHEDULE = replace(CIFAR_SCHEDULE, milestones=(160, 180))  # as LDAM's code and BagofTricks-LT's
RETRAIN_SCHEDULE = replace(CIFAR_SCHEDULE, epochs=20, milestones=(10, 15), gamma=0.1, warmup=0)
"""Of stage 2, where the classifier alone is trained: a tenth of the epochs; the paper gives none."""
INAT_SCHEDULE = replace(  # 90 epochs with milestones of Sec. 5.2, rate and weight decay as in the official code
    CIFAR_SCHEDULE, epochs=90, lr=0.05, milestones=(60, 80), gamma=0.1, weight_decay=1e-4, warmup=0
)
INAT_LONG_SCHEDULE = replace(INAT_SCHEDULE, epochs=180, milestones=(120, 160))  # "2x": the one the authors released
SCHEDULES = (CIFAR_SCHEDULE, INAT_SCHEDULE)
INPUTS = Inputs(mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))  # official code, CIFAR-100 too
INVERSE = 0.999999
"""beta of the official code's class weights, which are then 1/n within 0.3 %."""
CB_FOCAL = {  # (gamma, beta) behind the errors that Table 1 quotes from Cui et al. (2019)
    ("cifar10", 100.0): (1.0, 0.9999),
    ("cifar10", 50.0): (2.0, 0.9999),
    ("cifar10", 10.0): (1.0, 0.999),
    ("cifar100", 100.0): (1.0, 0.9),
    ("cifar100", 50.0): (1.0, 0.9),
    ("cifar100", 10.0): (0.5, 0.999),
}
MANNERS = ("CE", "RW", "RS")  # of Fig. 2, 4, 5 and 6
ADAPTORS: dict[str, Adaptor] = {
    "Equal weight": "equal",
    "beta-distribution": "beta",
    "Parabolic increment": "parabolic_increment",
    "Linear decay": "linear_decay",
    "Cosine decay": "cosine_decay",
    "Parabolic decay": "parabolic_decay",
}


@dataclass(frozen=True)
class Setting:
    """One data set with the paper's schedules on it and the repeats asked for."""

    preset: str
    role: str
    """Which of the paper's data sets it is, or stands for in the quick preset."""
    data: DataSpec
    classes: int
    schedule: Schedule = CIFAR_SCHEDULE
    baseline: Schedule = BASELINE_SCHEDULE
    retrain: Schedule = RETRAIN_SCHEDULE
    long: Schedule | None = None
    """The doubled schedule of Table 2."""
    inputs: Inputs = INPUTS
    network: str = "resnet32-pad"
    factors: tuple[float, ...] = (100.0, 50.0, 10.0)
    """Imbalance factors of Table 1; none where the data are long-tailed by themselves."""
    factor: float | None = 50.0
    """The one of all other tables and figures."""
    margin: float = 0.5
    """Largest margin of LDAM."""
    rows: tuple[str, ...] = ()
    """Rows of Table 1 that are run; all where empty."""
    test_every: int = 1  # the official code picks its best epoch among all
    seeds: tuple[int, ...] = ()

    @property
    def full_schedule(self) -> bool:
        """Whether results can be held against the published ones: real data at the paper's schedule."""
        return self.preset != "quick" and self.schedule in SCHEDULES

    def runs(self, method: Method, factor: float | None = None, schedule: Schedule | None = None) -> list[Run]:
        """One Run per seed at an imbalance factor, by default the setting's; BBN has a schedule of its own."""
        factor = factor or self.factor
        run = Run(
            "bbn",
            method,
            self.data,
            Protocol(self.classes, self.classes, 0, exemplars_per_class=0),
            schedule or (self.schedule if isinstance(method, BBN) else self.baseline),
            self.network,
            order="native",
            inputs=self.inputs,
            longtail=LongTail(factor) if factor else None,
            test_every=self.test_every,
        )
        return [replace(run, seed=seed) for seed in self.seeds]

    def stage2(self, method: Retrain | Probe, starts: Sequence[Run]) -> list[Run]:
        """A new classifier on this setting's images, on the features of finished runs, whatever theirs were."""
        fresh = self.runs(method, schedule=self.retrain)
        return [replace(run, start=start) for run, start in zip(fresh, starts, strict=True)]

    def manner(self, name: str) -> Rebalance:
        """CE, re-weighting by 1/n, or re-sampling: the three manners of training of Sec. 3."""
        return {"CE": Rebalance(), "RW": Rebalance(beta=INVERSE), "RS": Rebalance(sampler="balanced")}[name]

    def methods(self, factor: float | None = None) -> dict[str, Method]:
        """The rows of Table 1, in its order and words."""
        later = self.baseline.milestones[0]
        gamma, beta = CB_FOCAL.get((self.role, factor or 0.0), (0.5, 0.999))
        return {
            "CE": Rebalance(),
            "Focal": Rebalance("focal"),
            "Mixup": Mixup(),
            "Manifold Mixup": Mixup("features"),
            "Manifold Mixup (two samplers)": Mixup("features", partners="reversed"),
            "CE-DRW": Rebalance(beta=INVERSE, defer=later),
            "CE-DRS": Rebalance(sampler="balanced", defer=later),
            "CB-Focal": ClassBalanced("focal", beta=beta, gamma=gamma),
            "LDAM-DRW": Rebalance("ldam", margin=self.margin, beta=0.9999, defer=later),
            "BBN": BBN(),
        }


CIFAR10 = Setting("cifar", "cifar10", DataSpec("cifar10"), 10)
CIFAR100 = Setting("cifar", "cifar100", DataSpec("cifar100"), 100)
QUICK_SCHEDULE = replace(CIFAR_SCHEDULE, epochs=20, milestones=(12, 16), gamma=0.1, batch=16, warmup=1)
"""A tenth of the epochs; with so few, small batches, and no rate of a thousandth of the first."""


def _quick(setting: Setting, classes: int, per_class: int, seed: int, rows: tuple[str, ...] = ()) -> Setting:
    """A setting on the embedded data that stands for one of the paper's: smaller, shorter, one imbalance factor."""
    return replace(
        setting,
        preset="quick",
        data=DataSpec("glyphs", classes=classes, per_class=per_class, test_per_class=1000 // classes, seed=seed),
        classes=classes,
        network="resnet8-half",
        schedule=QUICK_SCHEDULE,
        baseline=replace(QUICK_SCHEDULE, milestones=(16, 18)),
        retrain=replace(RETRAIN_SCHEDULE, epochs=4, milestones=(2, 3), batch=32),
        factors=(50.0,),
        rows=rows,
        test_every=2,
    )


def _inat(name: str, classes: int) -> Setting:
    return Setting(
        "imagenet",
        name,
        DataSpec(name),
        classes,
        INAT_SCHEDULE,
        INAT_SCHEDULE,
        replace(RETRAIN_SCHEDULE, weight_decay=1e-4),
        INAT_LONG_SCHEDULE,
        IMAGENET_INPUTS,
        network="resnet50-default",
        factors=(),
        factor=None,
        margin=0.3,  # LDAM's code on iNaturalist
    )


SETTINGS: dict[str, tuple[Setting, ...]] = {
    "quick": (_quick(CIFAR10, 10, 350, 1), _quick(CIFAR100, 40, 120, 0, ("CE", "BBN"))),
    "cifar": (CIFAR10, CIFAR100),
    "imagenet": (_inat("inat2017", 5089), _inat("inat2018", 8142)),
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
        warnings.warn("bbn learns all classes at once, so --orders is ignored", stacklevel=2)
    chosen = tuple(dict.fromkeys(seeds or DEFAULT_SEEDS[preset]))
    return tuple(
        replace(
            s,
            seeds=chosen,
            schedule=s.schedule.scaled(epochs_scale),
            baseline=s.baseline.scaled(epochs_scale),
            retrain=s.retrain.scaled(epochs_scale),
            long=s.long.scaled(epochs_scale) if s.long else None,
        )
        for s in SETTINGS[preset]
    )


Runs = Mapping[str, list[Run]]


def cell(name: str, factor: float) -> str:
    """The name of a cell of Table 1 among a figure's Runs."""
    return f"{name}, {factor:g}"


def table1(s: Setting) -> Runs:
    """Table 1: ten methods at every imbalance factor."""
    return {
        cell(name, factor): s.runs(method, factor)
        for factor in s.factors
        for name, method in s.methods(factor).items()
        if not s.rows or name in s.rows
    }


def table2(s: Setting) -> Runs:
    """Table 2: iNaturalist at the short schedule and at the doubled one."""
    rows = ("CE", "CE-DRW", "CE-DRS", "CB-Focal", "LDAM-DRW", "BBN")
    runs = {name: s.runs(method) for name, method in s.methods().items() if name in rows}
    assert s.long
    later = Rebalance("ldam", margin=s.margin, beta=0.9999, defer=s.long.milestones[0])
    return {**runs, "LDAM-DRW (2×)": s.runs(later, schedule=s.long), "BBN (2×)": s.runs(BBN(), schedule=s.long)}


def table3(s: Setting) -> Runs:
    """Table 3: the sampler of the re-balancing branch."""
    kinds: tuple[Sampler, ...] = ("uniform", "balanced", "reversed")
    return {f"rb sampler: {kind.capitalize()}": s.runs(BBN(sampler=kind)) for kind in kinds}


def table4(s: Setting) -> Runs:
    """Table 4: the adaptor."""
    assert set(ADAPTORS.values()) == set(get_args(Adaptor))
    return {name: s.runs(BBN(adaptor=kind)) for name, kind in ADAPTORS.items()}


def representations(s: Setting) -> Runs:
    """Stage 1 of Fig. 2: whole networks in three manners."""
    return {name: s.runs(s.manner(name)) for name in MANNERS}


def matrix(source: Setting, target: Setting) -> Runs:
    """Fig. 2 and 5: classifiers in three manners on the features of three; `source` trained the features."""
    classifiers = {"CE": Retrain("uniform"), "RW": Retrain("uniform", beta=INVERSE), "RS": Retrain("balanced")}
    return {
        f"{target.role} {features} {name}": target.stage2(method, starts)
        for features, starts in representations(source).items()
        for name, method in classifiers.items()
    }


def table5(s: Setting) -> Runs:
    """Table 5: a classifier trained by cross-entropy on the features of CE, RW, RS and of BBN's branches."""
    plain = {name: s.stage2(Retrain("uniform"), runs) for name, runs in representations(s).items()}
    bbn = s.runs(BBN())
    return {**plain, "BBN-CB": s.stage2(Probe("cb"), bbn), "BBN-RB": s.stage2(Probe("rb"), bbn)}


def fig4(s: Setting) -> Runs:
    """Fig. 4: the classifiers whose weights are compared."""
    return {**representations(s), "BBN": s.runs(BBN())}


def fig6(s: Setting) -> Runs:
    """Supplement, Fig. 6: the three manners with features of unit length."""
    return {name: s.runs(UnitFeatures(s.manner(name))) for name in MANNERS}


def table6(s: Setting) -> Runs:
    """Supplement, Table 6: ensembles of two networks against BBN."""
    return {
        "Ensemble Uniform + Balanced": s.runs(Ensemble("balanced")),
        "Ensemble Uniform + Reversed": s.runs(Ensemble("reversed")),
        "BBN": s.runs(BBN()),
    }


def bbn(s: Setting) -> Runs:
    """BBN alone, at the strongest imbalance of Table 1."""
    return {"BBN": s.runs(BBN(), s.factors[0])}


def options(s: Setting) -> Runs:
    """BBN as the official code has it, and what changes one detail of it."""
    return {
        "BBN": s.runs(BBN()),
        "one pass of both batches": s.runs(BBN(passes="concatenated")),
        "alpha of the paper": s.runs(BBN(offset="paper")),
        "rate one epoch early": s.runs(BBN(), schedule=replace(s.schedule, ahead=1)),
    }


def control(s: Setting) -> Runs:
    """BBN against two stages that see as many images: cRT from a CE run as long as the other branch makes BBN's."""
    ce, mixup = s.runs(Rebalance()), s.runs(Mixup())
    budget = (2 * s.schedule.epochs - s.retrain.epochs) / s.baseline.epochs
    longer = s.runs(Rebalance(), schedule=replace(s.baseline.scaled(budget), warmup=s.baseline.warmup))
    return {
        "CE": ce,
        "CE at BBN's milestones": s.runs(Rebalance(), schedule=s.schedule),
        "CE-DRW": s.runs(s.methods()["CE-DRW"]),
        "cRT": s.stage2(Retrain(), ce),
        "cRT with BBN's budget": s.stage2(Retrain(), longer),
        "Mixup, classifier fine-tuned": s.stage2(Retrain(fresh=False), mixup),
        "BBN": s.runs(BBN()),
    }
