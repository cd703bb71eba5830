"""The presets: on which data and networks the two phases run, how long, and what figures sweep."""

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
"""Sec. 5.1; batch, momentum and weight decay are not given. The second drop would come after the last epoch."""
IMAGENET_PHASE1 = Schedule(epochs=100, lr=0.1, milestones=(30, 60, 90), batch=256, weight_decay=5e-4)
"""iNaturalist's, Sec. 5.3; nothing is given for ImageNet-LT and Places-LT."""
PHASE2 = Schedule(epochs=6400 // STEPS, lr=0.001, weight_decay=0.0)
"""6,400 iterations at a constant rate (Sec. 5.1), counted in epochs of `STEPS` and not scaled with Phase I."""
INAT_PHASE2 = replace(PHASE2, epochs=200 // STEPS)  # 200 iterations, as printed
NOTHING = Schedule(epochs=0)
"""Of runs that only look at what they start from."""
INPUTS = Inputs(mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))


@dataclass(frozen=True, kw_only=True)
class Setting(shared.Setting):
    """One data set and network with the paper's two phases on it. `schedule` is Phase I's."""

    paper: ClassVar[str] = "fsa"
    tails: ClassVar[tuple[str, ...]] = ("factor",)
    unscaled: ClassVar[tuple[str, ...]] = ("phase2",)

    name: str
    """What figures call the paper's data set, and the network where it is not the usual one."""
    table: str
    """Id of the table that prints the paper's numbers on these data."""
    phase2: Schedule = PHASE2
    factors: tuple[float, ...] = (10.0, 20.0, 50.0, 100.0, 200.0)
    """Imbalance factors of Tables 1 and 2; none where the data are long-tailed by themselves."""
    factor: float | None = 100.0
    """The imbalance factor of what the paper does not do."""
    strongest: float | None = 200.0
    """The imbalance factor of Fig. 6 and 7."""
    strong: tuple[float, ...] = (100.0, 200.0)
    """The imbalance factors of Fig. 8 and 9."""
    betas: tuple[float, ...] = (0.9, 0.999, 0.9999)
    gammas: tuple[float, ...] = (0.5, 1.0, 2.0)
    shares: tuple[float, ...] = (0.35, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
    """The head's shares of the images in Fig. 8."""
    taus: tuple[tuple[float, ...], tuple[float, ...]] = ((0.3, 0.5, 0.6, 0.8), (0.2, 0.4, 0.5))
    """Thresholds of class-specific and of class-generic locations."""
    ratios: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    donors: tuple[int, ...] = (1, 3, 7, 15)
    confusing: tuple[int, ...] = (1, 2, 3, 4)
    shown: tuple[tuple[int, ...], ...] = ((0, 1, 3, 8),)
    """Classes of each scatter plot."""
    online: bool = True
    """Whether tables and curves draw Phase II's images afresh; else from cached views."""
    views: int = 10
    draws: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of Phase II, from every Phase I, of FSA and its control among the variants."""
    control_draws: tuple[int, ...] = (0, 1, 2, 3, 4)
    """As `draws`, of the other variants and where sources of images are compared; elsewhere Phase II has Phase I's."""

    def baselines(self) -> dict[str, Rebalance]:
        """The rows of Tables 1 and 2 that are Phase I alone, in the paper's words."""
        return {
            "CE": Rebalance(),
            **{f"CB (beta={b:g})": Rebalance(beta=b) for b in self.betas},
            **{f"Focal (gamma={g:g})": Rebalance("focal", gamma=g) for g in self.gammas},
        }

    def defaults(self) -> tuple[FSA | EarlierBlock | Rebalance, ...]:
        """Each method as this setting has it, the paper's own first."""
        return FSA(), EarlierBlock(), Rebalance()

    def main(self, method: FSA | EarlierBlock | Rebalance) -> list[Run]:
        """`method` at the setting's imbalance factor: Phase I, or Phase II after a plain one."""
        if isinstance(method, Rebalance):
            return self.train(method)
        return self.tune(method, views=0 if isinstance(method, EarlierBlock) else None)

    def train(self, method: Rebalance | None = None, factor: float | None = None, balanced: bool = False) -> list[Run]:
        """Phase I, one Run per seed, at an imbalance factor, by default the setting's; balanced: on all images."""
        factor = factor or self.factor
        longtail = LongTail(factor) if factor and not balanced else None
        return self.run(method or Rebalance(), self.at_once(), longtail=longtail)

    def look(self, method: Views | Survey, start: Run) -> Run:
        """A Run that trains nothing, on the network of `start`."""
        return replace(start, method=method, schedule=NOTHING, start=start, test_every=0)

    def survey(self, classes: tuple[int, ...], factor: float | None = None, balanced: bool = False) -> list[Run]:
        """What scatter plots and activation maps show, from each Phase I."""
        return [self.look(Survey(classes), start) for start in self.train(factor=factor, balanced=balanced)]

    def tune(
        self,
        method: FSA | EarlierBlock,
        factor: float | None = None,
        draws: Sequence[int] = (),
        views: int | None = None,
        loss: Rebalance | None = None,
    ) -> list[Run]:
        """Phase II from every Phase I (of `loss`), one Run for each of `draws`, its seed, by default Phase I's own.

        views: of each image, whose maps are cached; 0 draws images afresh; by default as the setting has it.
        """
        fsa = method.fsa if isinstance(method, EarlierBlock) else method
        views = (0 if self.online else self.views) if views is None else views
        schedule = replace(self.phase2, batch=fsa.images) if fsa.batch == "head-tail" else self.phase2
        runs = []
        for base in self.train(loss, factor):
            start = self.look(Views(views), base) if views else base
            every = 1 if views else 4  # cached test features make tests cheap
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
    """The same on ResNet-34."""
    name, role = f"{setting.name}, ResNet-34", f"{setting.role}-resnet34"
    return replace(setting, role=role, name=name, table=table, network="resnet34")


def _imagenet(role: str, name: str, table: str, classes: int, network: str, phase2: Schedule = PHASE2) -> Setting:
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
    """Both phases on images of one's own. Raises InputError where these have no long tail, or no head and tail.

    Of small images Phase II draws cached views, as in the quick preset; of large ones it draws images afresh.
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
    """The settings of a preset. Seeds are Phase I's; the long-tailed draw keeps its own, Phase II its iterations.

    Raises InputError on an unknown preset or a scale that is not positive.
    """
    own = on_folder(folder) if folder else None
    return chosen(SETTINGS, preset, repeated_natively("fsa", preset, seeds, orders), epochs_scale, own)
