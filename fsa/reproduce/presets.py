"""The presets: the data, networks and schedules of both phases, and the values that figures sweep over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from common.command import settings as shared
from common.command.own import OWN_IMAGES, Folder
from common.command.settings import chosen, repeated_natively
from common.data.datasets import DataSpec
from common.errors import InputError
from common.imbalance import Rebalance
from common.runs import IMAGENET_INPUTS, Inputs, LongTail, Run, Schedule
from fsa.methods import FSA, STEPS, EarlierBlock, Survey, Views
from fsa.splits import head_and_tail

CIFAR_PHASE1 = Schedule(epochs=300, lr=0.1, milestones=(150,), batch=128, weight_decay=5e-4)
"""From Sec. 5.1, which gives no batch size, momentum or weight decay. A second drop would come after the last epoch."""
IMAGENET_PHASE1 = Schedule(epochs=100, lr=0.1, milestones=(30, 60, 90), batch=256, weight_decay=5e-4)
"""The schedule for iNaturalist (Sec. 5.3). ImageNet-LT and Places-LT use it too, since the paper gives them none."""
PHASE2 = Schedule(epochs=6400 // STEPS, lr=0.001, weight_decay=0.0)
"""6,400 iterations at a constant rate (Sec. 5.1), in epochs of `STEPS` iterations. It is not scaled with Phase I."""
INAT_PHASE2 = replace(PHASE2, epochs=200 // STEPS)  # 200 iterations, as printed
NOTHING = Schedule(epochs=0)
"""The schedule of Runs that train nothing, and only look at the network that they start from."""
INPUTS = Inputs(mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))


@dataclass(frozen=True, kw_only=True)
class Setting(shared.Setting):
    """A data set and a network with the paper's two phases for them. `schedule` is the one of Phase I."""

    paper: ClassVar[str] = "fsa"
    tails: ClassVar[tuple[str, ...]] = ("factor",)
    unscaled: ClassVar[tuple[str, ...]] = ("phase2",)

    name: str
    """The name of the paper's data set in figures, followed by the network if this is not the usual one."""
    table: str
    """The id of the table that prints the paper's numbers for these data."""
    phase2: Schedule = PHASE2
    """The schedule of Phase II."""
    factors: tuple[float, ...] = (10.0, 20.0, 50.0, 100.0, 200.0)
    """Imbalance factors of Tables 1 and 2. Empty if the data are long-tailed by themselves."""
    factor: float | None = 100.0
    """The imbalance factor of `main`, and of figures for which the paper gives none. None: the images as they are."""
    strongest: float | None = 200.0
    """The imbalance factor of Fig. 6 and 7."""
    strong: tuple[float, ...] = (100.0, 200.0)
    """The imbalance factors of Fig. 8 and 9."""
    betas: tuple[float, ...] = (0.9, 0.999, 0.9999)
    gammas: tuple[float, ...] = (0.5, 1.0, 2.0)
    shares: tuple[float, ...] = (0.35, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
    """The head's shares of the images in Fig. 8."""
    taus: tuple[tuple[float, ...], tuple[float, ...]] = ((0.3, 0.5, 0.6, 0.8), (0.2, 0.4, 0.5))
    """The thresholds of class-specific locations that are tried, and those of class-generic locations."""
    ratios: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """The values of FSA's `ratio` that are tried."""
    donors: tuple[int, ...] = (1, 3, 7, 15)
    """The numbers of donors per tail image that are tried."""
    confusing: tuple[int, ...] = (1, 2, 3, 4)
    """The numbers of confusing classes that are tried."""
    shown: tuple[tuple[int, ...], ...] = ((0, 1, 3, 8),)
    """The classes of each scatter plot."""
    online: bool = True
    """Whether Phase II of tables and curves augments its images anew for every batch. False: it takes cached views."""
    views: int = 10
    """Number of cached views of each image."""
    draws: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Phase-II seeds of FSA and its control in the figure `control`. Each seed is run from every Phase I."""
    control_draws: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Phase-II seeds of the other variants in `control`, and of all in `source`. Other figures take Phase I's seed."""

    def baselines(self) -> dict[str, Rebalance]:
        """Return the one-stage baselines of Tables 1 and 2, which have no Phase II, by the paper's names."""
        return {
            "CE": Rebalance(),
            **{f"CB (beta={b:g})": Rebalance(beta=b) for b in self.betas},
            **{f"Focal (gamma={g:g})": Rebalance("focal", gamma=g) for g in self.gammas},
        }

    def defaults(self) -> tuple[FSA | EarlierBlock | Rebalance, ...]:
        """Return every method with this setting's options, the paper's own method first."""
        return FSA(), EarlierBlock(), Rebalance()

    def main(self, method: FSA | EarlierBlock | Rebalance) -> list[Run]:
        """Return the Runs of `method` at `factor`. Runs of Phase II start from a Phase I with cross-entropy."""
        if isinstance(method, Rebalance):
            return self.train(method)
        return self.tune(method, views=0 if isinstance(method, EarlierBlock) else None)

    def train(self, method: Rebalance | None = None, factor: float | None = None, balanced: bool = False) -> list[Run]:
        """Return one Run of Phase I for each seed.

        method: by default cross-entropy. factor: the imbalance factor, by default the setting's own. balanced: whether
        to train on all images, which have no long tail.
        """
        factor = factor or self.factor
        longtail = LongTail(factor) if factor and not balanced else None
        return self.run(method or Rebalance(), self.at_once(), longtail=longtail)

    def look(self, method: Views | Survey, start: Run) -> Run:
        """Return a Run that trains nothing, on the network that `start` has trained."""
        return replace(start, method=method, schedule=NOTHING, start=start, test_every=0)

    def survey(self, classes: tuple[int, ...], factor: float | None = None, balanced: bool = False) -> list[Run]:
        """Return a survey of each Phase I, which measures what scatter plots and activation maps show."""
        return [self.look(Survey(classes), start) for start in self.train(factor=factor, balanced=balanced)]

    def tune(
        self,
        method: FSA | EarlierBlock,
        factor: float | None = None,
        draws: Sequence[int] = (),
        views: int | None = None,
        loss: Rebalance | None = None,
    ) -> list[Run]:
        """Return the Runs of Phase II: one for each Phase I and each seed in `draws`, by default the seed of Phase I.

        views: number of cached views of each image; 0: every batch augments images anew. By default, `online` and
        `views` of the setting decide. loss: the method of Phase I, by default cross-entropy.
        """
        fsa = method.fsa if isinstance(method, EarlierBlock) else method
        views = (0 if self.online else self.views) if views is None else views
        schedule = replace(self.phase2, batch=fsa.images) if fsa.batch == "head-tail" else self.phase2
        runs = []
        for base in self.train(loss, factor):
            start = self.look(Views(views), base) if views else base
            every = 1 if views else 4  # cached test features make tests during training cheap
            run = replace(base, method=method, schedule=schedule, start=start, test_every=every)
            runs += [replace(run, seed=seed) for seed in draws or (base.seed,)]
        return runs


TEN, HUNDRED = "CIFAR-10-LT", "CIFAR-100-LT"
CIFAR10 = Setting(
    preset="cifar",
    role="cifar10",
    name=TEN,
    table="table1-resnet18",
    data=DataSpec("cifar10"),
    classes=10,
    network="resnet18",
    schedule=CIFAR_PHASE1,
    inputs=INPUTS,
    test_every=10,
)
CIFAR100 = replace(
    CIFAR10,
    role="cifar100",
    name=HUNDRED,
    table="table2-resnet18",
    data=DataSpec("cifar100"),
    classes=100,
    shown=((0, 1, 2, 90), (25, 26, 27, 70), (50, 51, 52, 53), (40, 60, 80, 99)),
)
QUICK = replace(
    CIFAR10,
    preset="quick",
    data=DataSpec("glyphs", classes=10, per_class=750, test_per_class=100, seed=1),
    network="resnet8-half",
    schedule=replace(CIFAR_PHASE1, epochs=10, milestones=(6,), batch=16),
    phase2=replace(PHASE2, epochs=5),
    factors=(10.0, 50.0),
    factor=50.0,
    strongest=50.0,
    strong=(50.0,),
    betas=(0.9,),
    gammas=(),
    shares=(0.6, 0.9, 0.95),
    taus=((0.5, 0.8), (0.2, 0.5)),
    ratios=(0.0, 1.0),
    donors=(1, 3),
    confusing=(1, 3),
    online=False,
    test_every=2,
    draws=(0, 1, 2),
    control_draws=(0,),
)
QUICK100 = replace(
    QUICK,
    role="cifar100",
    name=HUNDRED,
    table="table2-resnet18",
    data=DataSpec("glyphs", classes=20, per_class=300, test_per_class=50),
    classes=20,
    factors=(20.0,),
    factor=20.0,
    strongest=20.0,
    shown=((0, 1, 2, 18),),
)


def _deeper(setting: Setting, table: str) -> Setting:
    """Return the same setting with ResNet-34."""
    name, role = f"{setting.name}, ResNet-34", f"{setting.role}-resnet34"
    return replace(setting, role=role, name=name, table=table, network="resnet34")


def _imagenet(role: str, name: str, table: str, classes: int, network: str, phase2: Schedule = PHASE2) -> Setting:
    """Return the setting of one data set of large images, which is long-tailed by itself."""
    return replace(
        CIFAR10,
        preset="imagenet",
        role=role,
        name=name,
        table=table,
        data=DataSpec(role),
        classes=classes,
        network=network,
        schedule=IMAGENET_PHASE1,
        phase2=phase2,
        inputs=IMAGENET_INPUTS,
        factors=(),
        factor=None,
        strongest=None,
    )


SETTINGS: dict[str, tuple[Setting, ...]] = {
    "quick": (QUICK, QUICK100),
    "cifar": (CIFAR10, CIFAR100, _deeper(CIFAR10, "table1-resnet34"), _deeper(CIFAR100, "table2-resnet34")),
    "imagenet": (
        _imagenet("imagenet-lt", "ImageNet-LT", "table3-imagenet-lt", 1000, "resnet10-imagenet"),
        _imagenet("places-lt", "Places-LT", "table3-places-lt", 365, "resnet152-pretrained"),
        _imagenet("inat2017", "iNaturalist 2017", "table4-inat2017", 5089, "resnet50-imagenet", INAT_PHASE2),
        _imagenet("inat2018", "iNaturalist 2018", "table4-inat2018", 8142, "resnet50-imagenet", INAT_PHASE2),
    ),
}


def on_folder(folder: Folder) -> Setting:
    """Return the setting of a folder of the user's own images.

    Phase II takes cached views of small images, as in the quick preset, and augments large images anew for every batch.
    Raises InputError if the images have no long tail, or if all classes belong to the head.
    """
    tail = folder.long_tailed("fsa")
    share = FSA().share
    if not len(head_and_tail(tail.counts, share)[1]):
        raise InputError(
            f"fsa finds no tail: it takes all {len(tail.counts)} classes to hold {share:.0%} of the images; give a "
            "larger --imbalance"
        )
    return folder.setting(
        CIFAR10,
        SETTINGS["imagenet"][0],
        tail.images,
        network=folder.network(),
        name=OWN_IMAGES,
        table="",
        factors=(),
        factor=tail.factor,
        strongest=tail.factor,
        online=folder.large,
    )


def settings(
    preset: str,
    seeds: Sequence[int] | None,
    orders: Sequence[str] | None,
    epochs_scale: float,
    folder: Folder | None = None,
) -> tuple[Setting, ...]:
    """Return the settings of a preset.

    `seeds` are those of Phase I. The long-tailed subset keeps a seed of its own. `epochs_scale` does not change the
    iterations of Phase II. Raises InputError on an unknown preset or a scale that is not positive.
    """
    own = on_folder(folder) if folder else None
    return chosen(SETTINGS, preset, repeated_natively("fsa", preset, seeds, orders), epochs_scale, own)
