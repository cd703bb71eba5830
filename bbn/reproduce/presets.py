"""The paper's data sets with its schedules and methods, per preset: what every experiment starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from bbn.methods import BBN, Ensemble, Method, Mixup, Probe, UnitFeatures
from class_balanced.methods import ClassBalanced
from common.command import settings as shared
from common.command.own import Folder
from common.command.settings import chosen, repeated_natively
from common.data.datasets import DataSpec
from common.imbalance import Rebalance, Retrain
from common.runs import IMAGENET_INPUTS, Inputs, LongTail, Run, Schedule

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
RETRAIN_TRICKS = replace(RETRAIN_SCHEDULE, epochs=30, milestones=(10, 20), weight_decay=5e-4, warmup=5)
"""cRT's second stage in BagofTricks-LT, on CIFAR."""
INAT_SCHEDULE = replace(  # 90 epochs with milestones of Sec. 5.2, rate and weight decay as in the official code
    CIFAR_SCHEDULE, epochs=90, lr=0.05, milestones=(60, 80), gamma=0.1, weight_decay=1e-4, warmup=0
)
INAT_LONG_SCHEDULE = replace(INAT_SCHEDULE, epochs=180, milestones=(120, 160))  # "2x": the one the authors released
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
LARGE_FOCAL = 0.5, 0.999
"""The same on every large data set of Cui et al. (Table 3), and so wherever Table 1 has no such cell."""
LARGE_ROWS = ("CE", "CE-DRW", "CE-DRS", "CB-Focal", "LDAM-DRW", "BBN")
"""The methods that Table 2 compares on large data sets."""
QUICK_ROWS = ("CE", "Mixup", *LARGE_ROWS[1:])
"""Rows of Table 1 in the quick preset, where plain focal loss and both kinds of manifold mixup are left out."""
MANNERS = ("CE", "RW", "RS")  # of Fig. 2, 4, 5 and 6


@dataclass(frozen=True, kw_only=True)
class Setting(shared.Setting):
    """One data set with the paper's schedules and imbalance on it."""

    paper: ClassVar[str] = "bbn"
    tails: ClassVar[tuple[str, ...]] = ("factor",)

    baseline: Schedule
    """The schedule of every method but BBN."""
    retrain: Schedule
    retrain_tricks: Schedule | None = None
    """Of cRT as in BagofTricks-LT."""
    long: Schedule | None = None
    """The doubled schedule of Table 2."""
    factors: tuple[float, ...] = (100.0, 50.0, 10.0)
    """Imbalance factors of Table 1; none where the data are long-tailed by themselves."""
    factor: float | None = 50.0
    """The one of all other tables and figures."""
    margin: float = 0.5
    """Largest margin of LDAM."""
    stretch: float = 1.0
    """Of BBN's adaptor."""
    rows: tuple[str, ...] = ()
    """Rows of Table 1 that are run; all where empty."""

    @property
    def strongest(self) -> float | None:
        """The strongest imbalance of Table 1, or the only one."""
        return self.factors[0] if self.factors else self.factor

    def runs(self, method: Method, factor: float | None = None, schedule: Schedule | None = None) -> list[Run]:
        """One Run per seed at an imbalance factor, by default the setting's; BBN has a schedule of its own."""
        factor = factor or self.factor
        schedule = schedule or (self.schedule if isinstance(method, BBN) else self.baseline)
        return self.run(method, self.at_once(), schedule=schedule, longtail=LongTail(factor) if factor else None)

    def stage2(self, method: Retrain | Probe, starts: Sequence[Run], schedule: Schedule | None = None) -> list[Run]:
        """A new classifier on this setting's images, on the features of finished runs, whatever theirs were."""
        fresh = self.runs(method, schedule=schedule or self.retrain)
        return [replace(run, start=start) for run, start in zip(fresh, starts, strict=True)]

    def one_stage(self, loss: Literal["ce", "focal", "ldam"] = "ce", **changes: Any) -> Rebalance:
        """A baseline in LDAM's recipe; on CIFAR, which that code is for, its classifier starts as there."""
        return Rebalance(loss, head_start="ldam" if self.factors else "uniform", **changes)

    def defaults(self) -> tuple[Method, ...]:
        """Each method as this setting has it, the paper's own first."""
        rows, others = self.methods(), (Probe(), Retrain(), Ensemble(), UnitFeatures(self.one_stage()))
        return rows["BBN"], rows["CE"], rows["Mixup"], rows["CB-Focal"], *others

    def main(self, method: Method) -> list[Run]:
        """`method` at the imbalance factor of most tables; a new classifier on BBN's features, or on those of CE."""
        if isinstance(method, (Retrain, Probe)):
            return self.stage2(method, self.runs(self.bbn() if isinstance(method, Probe) else self.one_stage()))
        return self.runs(method)

    def manner(self, name: str) -> Rebalance:
        """CE, re-weighting by 1/n, or re-sampling: the three manners of training of Sec. 3."""
        changes: dict[str, dict[str, Any]] = {"CE": {}, "RW": {"beta": INVERSE}, "RS": {"sampler": "balanced"}}
        return self.one_stage(**changes[name])

    def bbn(self, **changes: str) -> BBN:
        """BBN as the official code has it on these data, but for `changes`."""
        return BBN(stretch=self.stretch, **changes)  # type: ignore[arg-type]

    def methods(self, factor: float | None = None) -> dict[str, Method]:
        """The rows of Table 1, in its order and words."""
        later = self.baseline.milestones[0]
        factor = factor or self.factor
        cell = self.role, factor or 0.0
        gamma, beta = CB_FOCAL[cell] if self.preset == "cifar" else CB_FOCAL.get(cell, LARGE_FOCAL)
        recipe: Literal["cifar", "imagenet"] = "cifar" if self.inputs.kind == "crop-flip" else "imagenet"
        return {
            "CE": self.one_stage(),
            "Focal": self.one_stage("focal"),
            "Mixup": Mixup(),
            "Manifold Mixup": Mixup("features"),
            "Manifold Mixup (two samplers)": Mixup("features", partners="reversed"),
            "CE-DRW": self.one_stage(beta=INVERSE, defer=later),
            "CE-DRS": self.one_stage(sampler="balanced", defer=later),
            "CB-Focal": ClassBalanced("focal", beta=beta, gamma=gamma, recipe=recipe),
            "LDAM-DRW": self.one_stage("ldam", margin=self.margin, beta=0.9999, defer=later),
            "BBN": self.bbn(),
        }


CIFAR10 = Setting(
    preset="cifar",
    role="cifar10",
    data=DataSpec("cifar10"),
    classes=10,
    network="resnet32-pad",
    schedule=CIFAR_SCHEDULE,
    baseline=BASELINE_SCHEDULE,
    retrain=RETRAIN_SCHEDULE,
    retrain_tricks=RETRAIN_TRICKS,
    inputs=INPUTS,
    test_every=1,  # the official code picks its best epoch among all
)
CIFAR100 = replace(CIFAR10, role="cifar100", data=DataSpec("cifar100"), classes=100)
QUICK_SCHEDULE = replace(CIFAR_SCHEDULE, epochs=12, milestones=(7, 10), gamma=0.1, batch=16, warmup=1)
"""A few epochs; with so few, small batches, and no rate of a thousandth of the first."""


def _quick(setting: Setting, classes: int, seed: int, rows: tuple[str, ...]) -> Setting:
    """A setting on the embedded data that stands for one of the paper's: smaller, shorter, one imbalance factor.

    The smallest class has 15 images: with fewer, re-weighting and re-sampling learn next to nothing.
    """
    return replace(
        setting,
        preset="quick",
        data=DataSpec("glyphs", classes=classes, per_class=300, test_per_class=1000 // classes, seed=seed),
        classes=classes,
        network="resnet8-half",
        schedule=QUICK_SCHEDULE,
        baseline=replace(QUICK_SCHEDULE, milestones=(9, 11)),
        retrain=replace(RETRAIN_SCHEDULE, epochs=4, milestones=(2, 3), batch=32),
        retrain_tricks=None,
        factors=(20.0,),
        factor=20.0,
        rows=rows,
        test_every=2,
    )


def _inat(name: str, classes: int) -> Setting:
    return replace(
        CIFAR10,
        preset="imagenet",
        role=name,
        data=DataSpec(name),
        classes=classes,
        network="resnet50-default",
        schedule=INAT_SCHEDULE,
        baseline=INAT_SCHEDULE,
        retrain=replace(RETRAIN_SCHEDULE, weight_decay=1e-4),
        retrain_tricks=None,
        long=INAT_LONG_SCHEDULE,
        inputs=IMAGENET_INPUTS,
        factors=(),
        factor=None,
        margin=0.3,  # LDAM's code on iNaturalist
        stretch=10 / 9,  # Tmax of 100 for 90 epochs, and of 200 for 180
    )


SETTINGS: dict[str, tuple[Setting, ...]] = {
    "quick": (_quick(CIFAR10, 10, 1, QUICK_ROWS), _quick(CIFAR100, 20, 0, ("CE", "BBN"))),
    "cifar": (CIFAR10, CIFAR100),
    "imagenet": (_inat("inat2017", 5089), _inat("inat2018", 8142)),
}


def on_folder(folder: Folder) -> Setting:
    """The paper's methods on images of one's own. Raises InputError where these have no long tail."""
    tail = folder.long_tailed("bbn")
    return folder.setting(
        CIFAR10,
        SETTINGS["imagenet"][0],
        tail.images,
        network=folder.network("resnet32-pad"),
        factors=(),
        factor=tail.factor,
        rows=LARGE_ROWS,
    )


def settings(
    preset: str,
    seeds: Sequence[int] | None,
    orders: Sequence[str] | None,
    epochs_scale: float,
    folder: Folder | None = None,
) -> tuple[Setting, ...]:
    """The settings of a preset. Seeds are initialisation and batch order; the long-tailed draw keeps its own.

    Raises InputError on an unknown preset or a scale that is not positive.
    """
    own = on_folder(folder) if folder else None
    return chosen(SETTINGS, preset, repeated_natively("bbn", preset, seeds, orders), epochs_scale, own)
