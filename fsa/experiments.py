"""The Runs behind each figure, per preset: experiments are data. No torch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from common.datasets import DataSpec
from common.errors import InputError
from common.imbalance import Rebalance
from common.runs import IMAGENET_INPUTS, Inputs, LongTail, Protocol, Run, Schedule
from fsa.methods import FSA, STEPS, Earlier, Survey, Views

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

NO_AUG = FSA(tail=64, donors=0)
"""The control: the same batches, half of them tail images, but real ones."""
WHOLE = FSA(tau_specific=None, tau_generic=None)
CONTROLS: dict[str, FSA] = {
    "natural batches": FSA(batch="natural"),
    "class-balanced batches": FSA(batch="balanced"),
    "No Aug": NO_AUG,
    "random donors": FSA(donor_classes="random"),
    "all features of donors": FSA(tau_generic=None),
    "all features of both": WHOLE,
    "feature mixup": replace(WHOLE, fusion="mixup"),
    "ratio 0: donors only": FSA(ratio=0.0),
    "ratio 1: own only": FSA(ratio=1.0),
    "FSA (ours)": FSA(),
}
"""Phase II in every variant that tells what the gain comes from."""
TAUS_SPECIFIC, TAUS_GENERIC = (0.3, 0.5, 0.6, 0.8), (0.2, 0.4, 0.5)


@dataclass(frozen=True)
class Setting:
    """One data set and network with the paper's two phases on it, and its repeats."""

    preset: str
    role: str
    """Which of the paper's data sets (and networks) it is, or stands for in the quick preset."""
    data: DataSpec
    classes: int
    network: str = "resnet18"
    phase1: Schedule = CIFAR_PHASE1
    phase2: Schedule = PHASE2
    inputs: Inputs = INPUTS
    factors: tuple[float, ...] = (10.0, 20.0, 50.0, 100.0, 200.0)
    """Imbalance factors of Tables 1 and 2; none where the data are long-tailed by themselves."""
    factor: float | None = 100.0
    """The one of what the paper does not do."""
    strongest: float | None = 200.0
    """The one of Fig. 6 and 7."""
    betas: tuple[float, ...] = (0.9, 0.999, 0.9999)
    gammas: tuple[float, ...] = (0.5, 1.0, 2.0)
    shares: tuple[float, ...] = (0.35, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
    """Of the head, Fig. 8."""
    taus: tuple[tuple[float, ...], tuple[float, ...]] = (TAUS_SPECIFIC, TAUS_GENERIC)
    donors: tuple[int, ...] = (1, 3, 7, 15)
    confusing: tuple[int, ...] = (1, 2, 3, 4)
    shown: tuple[tuple[int, ...], ...] = ((0, 1, 3, 8),)
    """Classes of each scatter plot."""
    online: bool = True
    """Whether tables and curves draw Phase II's images afresh; else from cached views."""
    views: int = 10
    test_every: int = 10
    seeds: tuple[int, ...] = ()
    """Of Phase I; Phase II takes the same one, or each of `draws` from every Phase I."""
    draws: tuple[int, ...] = (0, 1, 2, 3, 4)

    @property
    def full_schedule(self) -> bool:
        """Whether results can be held against the published ones: real data at the paper's schedule."""
        return self.preset != "quick" and self.phase1 in (CIFAR_PHASE1, IMAGENET_PHASE1)

    def baselines(self) -> dict[str, Rebalance]:
        """The rows of Tables 1 and 2 that are Phase I alone, in the paper's words."""
        return {
            "CE": Rebalance(),
            **{f"CB (beta={b:g})": Rebalance(beta=b) for b in self.betas},
            **{f"Focal (gamma={g:g})": Rebalance("focal", gamma=g) for g in self.gammas},
        }

    def train(self, method: Rebalance | None = None, factor: float | None = None, balanced: bool = False) -> list[Run]:
        """Phase I, one Run per seed, at an imbalance factor, by default the setting's; balanced: on all images."""
        factor = factor or self.factor
        run = Run(
            "fsa",
            method or Rebalance(),
            self.data,
            Protocol(self.classes, self.classes, 0, exemplars_per_class=0),
            self.phase1,
            self.network,
            order="native",
            inputs=self.inputs,
            longtail=LongTail(factor) if factor and not balanced else None,
            test_every=self.test_every,
        )
        return [replace(run, seed=seed) for seed in self.seeds]

    def look(self, method: Views | Survey, start: Run) -> Run:
        """A Run that trains nothing, on the network of `start`."""
        return replace(start, method=method, schedule=NOTHING, start=start, test_every=0)

    def survey(self, classes: tuple[int, ...], factor: float | None = None, balanced: bool = False) -> list[Run]:
        """What scatter plots and activation maps show, from each Phase I."""
        return [self.look(Survey(classes), start) for start in self.train(factor=factor, balanced=balanced)]

    def tune(
        self,
        method: FSA | Earlier,
        factor: float | None = None,
        draws: Sequence[int] = (),
        views: int | None = None,
        loss: Rebalance | None = None,
    ) -> list[Run]:
        """Phase II from every Phase I (of `loss`), one Run for each of `draws`, its seed, by default Phase I's own.

        views: of each image, whose maps are cached; 0 draws images afresh; by default as the setting has it.
        """
        fsa = method.fsa if isinstance(method, Earlier) else method
        views = (0 if self.online else self.views) if views is None else views
        schedule = replace(self.phase2, batch=fsa.images) if fsa.batch == "head-tail" else self.phase2
        runs = []
        for base in self.train(loss, factor):
            start = self.look(Views(views), base) if views else base
            every = 1 if views else 4  # cached test features make tests cheap
            run = replace(base, method=method, schedule=schedule, start=start, test_every=every)
            runs += [replace(run, seed=seed) for seed in draws or (base.seed,)]
        return runs


CIFAR10 = Setting("cifar", "cifar10", DataSpec("cifar10"), 10)
CIFAR100 = replace(
    CIFAR10,
    role="cifar100",
    data=DataSpec("cifar100"),
    classes=100,
    shown=((0, 1, 2, 90), (25, 26, 27, 70), (50, 51, 52, 53), (40, 60, 80, 99)),
)
QUICK = replace(
    CIFAR10,
    preset="quick",
    data=DataSpec("glyphs", classes=10, per_class=400, test_per_class=100, seed=1),
    network="resnet8-half",
    phase1=replace(CIFAR_PHASE1, epochs=20, milestones=(10,), batch=32),
    phase2=replace(PHASE2, epochs=10),
    factors=(20.0, 100.0),
    strongest=100.0,
    betas=(0.999,),
    gammas=(1.0,),
    shares=(0.5, 0.7, 0.8, 0.9, 0.95),
    taus=((0.3, 0.5, 0.8), (0.2, 0.5)),
    donors=(1, 3, 7),
    confusing=(1, 3),
    online=False,
    test_every=2,
    draws=(0, 1, 2),
)
QUICK100 = replace(
    QUICK,
    role="cifar100",
    data=DataSpec("glyphs", classes=40, per_class=120, test_per_class=25),
    classes=40,
    factors=(50.0,),
    factor=50.0,
    strongest=50.0,
    shown=((0, 1, 2, 36), (10, 11, 12, 30)),
)


def _imagenet(role: str, classes: int, network: str, phase2: Schedule = PHASE2) -> Setting:
    return Setting(
        "imagenet",
        role,
        DataSpec(role),
        classes,
        network,
        IMAGENET_PHASE1,
        phase2,
        IMAGENET_INPUTS,
        factors=(),
        factor=None,
        strongest=None,
        test_every=10,
    )


SETTINGS: dict[str, tuple[Setting, ...]] = {
    "quick": (QUICK, QUICK100),
    "cifar": (
        CIFAR10,
        CIFAR100,
        replace(CIFAR10, role="cifar10-resnet34", network="resnet34"),
        replace(CIFAR100, role="cifar100-resnet34", network="resnet34"),
    ),
    "imagenet": (
        _imagenet("imagenet-lt", 1000, "resnet10-imagenet"),
        _imagenet("places-lt", 365, "resnet152-pretrained"),
        _imagenet("inat2017", 5089, "resnet50-imagenet", INAT_PHASE2),
        _imagenet("inat2018", 8142, "resnet50-imagenet", INAT_PHASE2),
    ),
}
DEFAULT_SEEDS = {"quick": (0,), "cifar": (0, 1, 2), "imagenet": (0,)}


def settings(
    preset: str, seeds: Sequence[int] | None, orders: Sequence[str] | None, epochs_scale: float
) -> tuple[Setting, ...]:
    """The settings of a preset. Seeds are Phase I's; the long-tailed draw keeps its own, Phase II its iterations.

    Raises InputError on an unknown preset or a scale that is not positive.
    """
    if preset not in SETTINGS:
        raise InputError(f"unknown preset {preset!r}; choose one of {', '.join(SETTINGS)}")
    if not 0 < epochs_scale <= 1000:
        raise InputError(f"--epochs-scale must be positive, and at most 1000, got {epochs_scale:g}")
    if orders:
        warnings.warn("fsa learns all classes at once, so --orders is ignored", stacklevel=2)
    chosen = tuple(dict.fromkeys(seeds or DEFAULT_SEEDS[preset]))
    return tuple(replace(s, seeds=chosen, phase1=s.phase1.scaled(epochs_scale)) for s in SETTINGS[preset])


Runs = Mapping[str, list[Run]]
OURS = "FSA (ours)"


def cell(name: str, factor: float) -> str:
    """The name of a method at one imbalance factor, among a figure's Runs."""
    return f"{name} at {factor:g}"


def table(s: Setting) -> Runs:
    """Tables 1 and 2: one-stage baselines, FSA, and its control."""
    runs: dict[str, list[Run]] = {}
    for factor in s.factors:
        runs |= {cell(name, factor): s.train(method, factor) for name, method in s.baselines().items()}
        runs |= {cell(name, factor): s.tune(CONTROLS[name], factor) for name in ("No Aug", OURS)}
    return runs


def large(s: Setting) -> Runs:
    """Table 3: plain and focal Phase I, each with FSA, and the control."""
    focal = Rebalance("focal", gamma=2.0)
    return {
        "Plain model": s.train(),
        "Focal": s.train(focal),
        "No Aug": s.tune(NO_AUG),
        "FSA (ours)": s.tune(FSA()),
        "FSA + focal in phase I (ours)": s.tune(FSA(), loss=focal),
    }


def depths(s: Setting) -> Runs:
    """Table 4: three depths on iNaturalist."""
    runs: dict[str, list[Run]] = {}
    for depth in (50, 101, 152):
        deeper = replace(s, network=f"resnet{depth}-imagenet")
        runs |= {
            cell("CE", depth): deeper.train(),
            cell("No Aug", depth): deeper.tune(NO_AUG),
            cell(OURS, depth): deeper.tune(FSA()),
        }
    return runs


def pair(s: Setting, factor: float | None = None, draws: Sequence[int] = (), views: int | None = None) -> Runs:
    """Phase I, its control and FSA."""
    return {
        "Phase I": s.train(factor=factor),
        "No Aug": s.tune(NO_AUG, factor, draws, views),
        OURS: s.tune(FSA(), factor, draws, views),
    }


def strongest(s: Setting) -> Runs:
    """Fig. 6 and 7: the pair at the strongest imbalance, and what Fig. 6 calls no augmentation."""
    return {**pair(s, s.strongest), "natural batches": s.tune(CONTROLS["natural batches"], s.strongest)}


def gain(s: Setting) -> Runs:
    """The pair from cached views, Phase II repeated from the same Phase I."""
    return pair(s, draws=s.draws, views=s.views)


def controls(s: Setting) -> Runs:
    """Every variant of Phase II from cached views, repeated from the same Phase I."""
    tuned = {name: s.tune(method, draws=s.draws, views=s.views) for name, method in CONTROLS.items()}
    return {"Phase I": s.train(), **tuned}


def sources(s: Setting) -> Runs:
    """The pair from images drawn afresh, and from cached maps of ten views and of one."""
    runs: dict[str, list[Run]] = {"Phase I": s.train()}
    for label, views in sources_of(s).items():
        runs |= {f"{name}, {label}": found for name, found in pair(s, draws=s.draws, views=views).items()}
    return {name: found for name, found in runs.items() if not name.startswith("Phase I,")}


def sources_of(s: Setting) -> dict[str, int]:
    """Where Phase II's maps come from: views of each image that are cached, 0 for none."""
    return {"drawn afresh": 0, f"{s.views} views": s.views, "1 view": 1}


def strong(s: Setting) -> list[float]:
    """Imbalance factors of Fig. 8 and 9: 100 and 200."""
    return [f for f in s.factors if f >= 100]


def shares(s: Setting) -> Runs:
    """Fig. 8: the head's share of the images."""
    return {cell(f"{share:g}", f): s.tune(FSA(share=share), f, views=s.views) for f in strong(s) for share in s.shares}


def blocks(s: Setting) -> Runs:
    """Fig. 9: the block after which features are augmented; images are drawn afresh."""
    methods: dict[str, FSA | Earlier] = {
        "No Aug": NO_AUG,
        "Block2": Earlier(2),
        "Block3": Earlier(1),
        "Block4": FSA(),
    }
    return {cell(name, f): s.tune(method, f, views=0) for f in strong(s) for name, method in methods.items()}


def thresholds(s: Setting) -> Runs:
    """The grid over both thresholds, from cached views."""
    grid = [(a, b) for a in s.taus[0] for b in s.taus[1]]
    tuned = {f"{a:g} {b:g}": s.tune(FSA(tau_specific=a, tau_generic=b), views=s.views) for a, b in grid}
    return {"No Aug": s.tune(NO_AUG, views=s.views), **tuned}


def numbers(s: Setting) -> Runs:
    """Ratio, donors of each tail image and confusing classes, one at a time; the batch stays 128."""
    ratios = {f"ratio {r:g}": FSA(ratio=r) for r in (0.25, 0.5, 0.75)}
    donors = {f"donors {n}": FSA(tail=64 // (1 + n), donors=n) for n in s.donors}
    confusing = {f"confusing {n}": FSA(confusing=n) for n in s.confusing}
    methods = {"ratio U(0, 1)": FSA(), **ratios, **donors, **confusing}
    return {"No Aug": s.tune(NO_AUG, views=s.views), **{n: s.tune(m, views=s.views) for n, m in methods.items()}}


def parts(s: Setting) -> Runs:
    """Fig. 4, 11 and 12: the surveys of Phase I."""
    return {f"classes {', '.join(map(str, c))}": s.survey(c) for c in s.shown}


def motivation(s: Setting) -> Runs:
    """Fig. 3: Phase I on long-tailed data and on all images."""
    return {"long-tailed": s.survey(s.shown[0]), "all images": s.survey(s.shown[0], balanced=True)}
