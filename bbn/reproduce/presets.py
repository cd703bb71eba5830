"""The presets: the data sets, networks, schedules and methods of the paper, and how Runs are made from them."""

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

CIFAR_SCHEDULE = Schedule(  # Sec. 5.2; the official code fills in what the paper leaves out
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
BASELINE_SCHEDULE = replace(CIFAR_SCHEDULE, milestones=(160, 180))  # as in the code of LDAM and of BagofTricks-LT
RETRAIN_SCHEDULE = replace(CIFAR_SCHEDULE, epochs=20, milestones=(10, 15), gamma=0.1, warmup=0)
"""The schedule of stage 2, which trains the classifier alone: a tenth of the epochs. The paper gives none."""
RETRAIN_TRICKS = replace(RETRAIN_SCHEDULE, epochs=30, milestones=(10, 20), weight_decay=5e-4, warmup=5)
"""The schedule of cRT's second stage on CIFAR in BagofTricks-LT."""
INAT_SCHEDULE = replace(  # 90 epochs with milestones of Sec. 5.2, rate and weight decay as in the official code
    CIFAR_SCHEDULE, epochs=90, lr=0.05, milestones=(60, 80), gamma=0.1, weight_decay=1e-4, warmup=0
)
INAT_LONG_SCHEDULE = replace(INAT_SCHEDULE, epochs=180, milestones=(120, 160))  # "2x", which the authors released
INPUTS = Inputs(mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))  # official code, for CIFAR-100 too
INVERSE = 0.999999
"""beta of the class weights in the official code. With this beta, the weights are within 0.3 % of 1/n."""
CB_FOCAL = {  # (gamma, beta) behind the errors that Table 1 quotes from Cui et al. (2019)
    ("cifar10", 100.0): (1.0, 0.9999),
    ("cifar10", 50.0): (2.0, 0.9999),
    ("cifar10", 10.0): (1.0, 0.999),
    ("cifar100", 100.0): (1.0, 0.9),
    ("cifar100", 50.0): (1.0, 0.9),
    ("cifar100", 10.0): (0.5, 0.999),
}
LARGE_FOCAL = 0.5, 0.999
"""(gamma, beta) of Cui et al. on every large data set (their Table 3), also used for cells that Table 1 lacks."""
LARGE_ROWS = ("CE", "CE-DRW", "CE-DRS", "CB-Focal", "LDAM-DRW", "BBN")
"""The methods that Table 2 compares on large data sets."""
QUICK_ROWS = ("CE", "Mixup", *LARGE_ROWS[1:])
"""Rows of Table 1 in the quick preset. It leaves out plain focal loss and both kinds of manifold mixup."""
MANNERS = ("CE", "RW", "RS")  # manners of training in Fig. 2, 4, 5 and 6


@dataclass(frozen=True, kw_only=True)
class Setting(shared.Setting):
    """A data set with the paper's schedules, imbalance factors and method options for it."""

    paper: ClassVar[str] = "bbn"
    tails: ClassVar[tuple[str, ...]] = ("factor",)

    baseline: Schedule
    """The schedule of every method but BBN."""
    retrain: Schedule
    """The schedule of a second stage, which trains the classifier alone."""
    retrain_tricks: Schedule | None = None
    """The schedule of cRT's second stage in BagofTricks-LT."""
    long: Schedule | None = None
    """The doubled schedule of Table 2."""
    factors: tuple[float, ...] = (100.0, 50.0, 10.0)
    """Imbalance factors of Table 1. Empty if the data are long-tailed by themselves."""
    factor: float | None = 50.0
    """The imbalance factor of all other tables and figures. None: the images as they are."""
    margin: float = 0.5
    """LDAM's largest margin."""
    stretch: float = 1.0
    """The `stretch` of BBN's adaptor: Tmax over the number of epochs."""
    rows: tuple[str, ...] = ()
    """The rows of Table 1 that are run. Empty: all of them."""

    @property
    def strongest(self) -> float | None:
        """The strongest imbalance factor of Table 1, or `factor` if Table 1 does not have these data."""
        return self.factors[0] if self.factors else self.factor

    def runs(self, method: Method, factor: float | None = None, schedule: Schedule | None = None) -> list[Run]:
        """Return one Run of `method` for each seed.

        factor: the imbalance factor, by default the setting's own. schedule: by default `schedule` of the setting for
        BBN, and `baseline` for every other method.
        """
        factor = factor or self.factor
        schedule = schedule or (self.schedule if isinstance(method, BBN) else self.baseline)
        return self.run(method, self.at_once(), schedule=schedule, longtail=LongTail(factor) if factor else None)

    def stage2(self, method: Retrain | Probe, starts: Sequence[Run], schedule: Schedule | None = None) -> list[Run]:
        """Return Runs that train a new classifier on this setting's images, each on the features of one of `starts`.

        The features may have been learnt on other images. schedule: by default `retrain`.
        """
        fresh = self.runs(method, schedule=schedule or self.retrain)
        return [replace(run, start=start) for run, start in zip(fresh, starts, strict=True)]

    def one_stage(self, loss: Literal["ce", "focal", "ldam"] = "ce", **changes: Any) -> Rebalance:
        """Return a one-stage baseline with the options of LDAM's code.

        On CIFAR, which LDAM's code is for, the classifier is also initialised as in that code.
        """
        return Rebalance(loss, head_start="ldam" if self.factors else "uniform", **changes)

    def defaults(self) -> tuple[Method, ...]:
        """Return every method with this setting's options, the paper's own method first."""
        rows, others = self.methods(), (Probe(), Retrain(), Ensemble(), UnitFeatures(self.one_stage()))
        return rows["BBN"], rows["CE"], rows["Mixup"], rows["CB-Focal"], *others

    def main(self, method: Method) -> list[Run]:
        """Return the Runs of `method` at `factor`. A `Probe` starts from the Runs of BBN, cRT from the Runs of CE."""
        if isinstance(method, (Retrain, Probe)):
            return self.stage2(method, self.runs(self.bbn() if isinstance(method, Probe) else self.one_stage()))
        return self.runs(method)

    def manner(self, name: str) -> Rebalance:
        """Return one of the three manners of training of Sec. 3: CE, re-weighting by 1/n (RW) or re-sampling (RS)."""
        changes: dict[str, dict[str, Any]] = {"CE": {}, "RW": {"beta": INVERSE}, "RS": {"sampler": "balanced"}}
        return self.one_stage(**changes[name])

    def bbn(self, **changes: str) -> BBN:
        """Return BBN as in the official code for these data. `changes` make a variant of it."""
        return BBN(stretch=self.stretch, **changes)  # type: ignore[arg-type]

    def methods(self, factor: float | None = None) -> dict[str, Method]:
        """Return the methods of Table 1 by the paper's names, in the order of the table.

        factor: the imbalance factor that chooses gamma and beta of CB-Focal, by default the setting's own.
        """
        later = self.baseline.milestones[0]
        factor = factor or self.factor
        cell = self.role, factor or 0.0
        gamma, beta = CB_FOCAL.get(cell, LARGE_FOCAL)
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
"""A few epochs. With so few, batches are small, and each milestone divides the learning rate by 10 instead of 100."""


def _quick(setting: Setting, classes: int, seed: int, rows: tuple[str, ...]) -> Setting:
    """Return a setting on embedded data that stands for one of the paper's: smaller, shorter, one imbalance factor.

    The smallest class has 15 images. With fewer, re-weighting and re-sampling learn next to nothing.
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
    """Return the setting of one iNaturalist data set."""
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
        margin=0.3,  # as in LDAM's code for iNaturalist
        stretch=10 / 9,  # Tmax is 100 for 90 epochs, and 200 for 180
    )


SETTINGS: dict[str, tuple[Setting, ...]] = {
    "quick": (_quick(CIFAR10, 10, 1, QUICK_ROWS), _quick(CIFAR100, 20, 0, ("CE", "BBN"))),
    "cifar": (CIFAR10, CIFAR100),
    "imagenet": (_inat("inat2017", 5089), _inat("inat2018", 8142)),
}


def on_folder(folder: Folder) -> Setting:
    """Return the setting of a folder of the user's own images. Raises InputError if the images have no long tail."""
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
    """Return the settings of a preset.

    Seeds choose the initialisation and the batch order. The long-tailed subset keeps a seed of its own. Raises
    InputError on an unknown preset or a scale that is not positive.
    """
    own = on_folder(folder) if folder else None
    return chosen(SETTINGS, preset, repeated_natively("bbn", preset, seeds, orders), epochs_scale, own)
