"""Define the presets: data, networks, schedules and protocols, and how Runs are made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from common.command import settings as shared
from common.command.own import Folder, fit
from common.command.settings import chosen, repeated
from common.data.datasets import DataSpec
from common.errors import InputError
from common.runs import IMAGENET_INPUTS, Inputs, Protocol, Run, Schedule
from der import schedule as recipes
from der.methods import BIAS, DER, WA, BiC, Init, Start
from lucir.methods import FINETUNE as UCIR_FINETUNE
from lucir.methods import LUCIR, ICaRL


@dataclass(frozen=True, kw_only=True)
class Setting(shared.Setting):
    """A `Setting` is one data set with the paper's protocols and schedules. Without a base, `network` is trained."""

    paper: ClassVar[str] = "der"
    unscaled: ClassVar[tuple[str, ...]] = ("finetune", "bias")  # stages whose parameters start afresh

    base_network: str
    """The network of protocols with half of the classes as base (B50)."""
    small_network: str
    """The network of the appendix's table with a smaller extractor."""
    base_schedule: Schedule
    """The schedule of the base classes of B50."""
    finetune: Schedule
    temperature: float
    bias: Schedule
    ucir: LUCIR
    """LUCIR as its own package runs it on these data, but with DER's schedule."""
    b0: tuple[int, ...]
    """The numbers of steps in protocols without a base."""
    b50: tuple[int, ...]
    """The numbers of steps in protocols with a base, after it."""
    total: int
    """The number of exemplars of all classes together (B0)."""
    per_class: int
    """The number of exemplars of each class (B50)."""
    sparsity: float
    """lambda_s for protocols that `tuned` and `tuned_base` do not list."""
    tuned: Mapping[tuple[str, int], float] = field(default_factory=dict)
    """lambda_s by (network, number of steps), without a base. benchmarks/lambda_s.py finds it."""
    tuned_base: Mapping[tuple[str, int], float] = field(default_factory=dict)
    """lambda_s by (network, number of steps), after a base."""
    sparsities: tuple[float, ...]
    """Values of lambda_s in Fig. 1 and in the sensitivity figure."""
    auxiliaries: tuple[float, ...]
    """Values of lambda_a in the sensitivity figure."""
    mask_rate: float = 1.0
    mask_init: Init = "normal"
    mask_start: Start = "fresh"
    base: int | None = None
    """The number of base classes. None: half of the classes."""
    probe: bool = False
    """Whether all runs of DER have the read-out of the transfer figure. If not, that figure has runs of its own."""

    @property
    def first(self) -> int:
        """The number of base classes (B50)."""
        return self.base or self.classes // 2

    @property
    def steps(self) -> int:
        """The number of steps in most figures: 10, or the largest number that a small data set has."""
        steps = self.b0 or self.b50
        return 10 if 10 in steps else max(steps)

    def seen(self, steps: int, base: bool = False) -> list[int]:
        """Return the number of classes seen after each step. With `base`, the first step is the base classes alone."""
        first = self.first if base else 0
        size = (self.classes - first) // steps
        return [first + size * i for i in range(0 if base else 1, steps + 1)]

    def scaled(self, scale: float) -> Setting:
        """Return the setting with every schedule scaled, also the schedule of UCIR's finetuning.

        A shorter schedule gets a `mask_rate` that is larger by the same factor (see README.md). The quick preset keeps
        its rate, which was chosen for its few epochs.
        """
        ucir = replace(self.ucir, finetune=self.ucir.finetune and self.ucir.finetune.scaled(scale))
        rate = round(self.mask_rate / min(scale, 1.0), 2) if self.preset != "quick" else self.mask_rate
        return replace(super().scaled(scale), ucir=ucir, mask_rate=rate)

    def der(self, network: str = "", **changes: Any) -> DER:
        """Return DER without pruning, with the options of this setting. changes: options that differ.

        A ResNet-32 starts with last gammas of 1, as in the official code.
        """
        method = DER(finetune=self.finetune, temperature=self.temperature, probe=self.probe)
        return replace(method, **{"zero_last": network != "resnet32"} | changes)

    def masked(self, steps: int = 0, base: bool = False, network: str = "", **changes: Any) -> DER:
        """Return DER with masks and pruning, and the lambda_s of a protocol: by default, the protocol of most figures.

        steps, base: the number of steps, and whether they follow a base. network: by default that of the protocol.
        """
        tuned, own = (self.tuned_base, self.base_network) if base else (self.tuned, self.network)
        masks = {
            "sparsity": tuned.get((network or own, steps or self.steps), self.sparsity),
            "mask_rate": self.mask_rate,
            "mask_init": self.mask_init,
            "mask_start": self.mask_start,
        }
        return self.der(network or own, **masks | changes)

    def defaults(self) -> tuple[Any, ...]:
        """Return each method with the options of this setting, the paper's own method first."""
        return self.masked(base=not self.b0), WA(), BiC(bias=self.bias), self.ucir, ICaRL(nme_flip="none")

    def main(self, method: Any, network: str = "") -> list[Run]:
        """Return the Runs of `method` as in Table 1: without a base, over `steps` steps.

        Random channels start from the Run that says how many channels learned masks kept. A folder of your own images
        has a base instead; there, random channels raise InputError.
        """
        if isinstance(method, DER) and method.sparsity is None:  # options of masks must not tell these runs apart
            method = replace(method, mask_rate=DER.mask_rate, mask_init=DER.mask_init, mask_start=DER.mask_start)
        if not self.b0:
            if isinstance(method, DER) and method.channels == "random":
                raise InputError("random channels need a run without a base to be as many as: choose another preset")
            return self.b50_runs(method, self.b50[0])
        runs = self.b0_runs(method, self.steps, network)
        if not isinstance(method, DER) or method.channels == "learned":
            return runs
        learned = self.b0_runs(replace(method, channels="learned"), self.steps, network)
        return [replace(run, start=start) for run, start in zip(runs, learned, strict=True)]

    def b0_runs(self, method: Any, steps: int, network: str = "") -> list[Run]:
        """Return the Runs without a base: all classes in `steps` equal steps, and a fixed memory for all together."""
        size = self.classes // steps
        protocol = Protocol(self.classes, size, size, None, self.total, rounding="down")
        return self.run(method, protocol, network=network or self.network)

    def b50_runs(self, method: Any, steps: int) -> list[Run]:
        """Return the Runs with half of the classes as base, and the rest in `steps` steps.

        DER starts from a base model, which has a schedule of its own.
        """
        base = self.first
        protocol = Protocol(self.classes, base, (self.classes - base) // steps, self.per_class)
        runs = self.run(method, protocol, network=self.base_network)
        if not isinstance(method, DER):
            return runs
        alone = Protocol(base, base, 0, exemplars_per_class=0)
        first = replace(method, finetune=None, aux=DER.aux)  # the base does not depend on these
        starts = self.run(first, alone, network=self.base_network, schedule=self.base_schedule)
        return [replace(run, start=start) for run, start in zip(runs, starts, strict=True)]


INPUTS = Inputs((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761), brightness=63 / 255)  # official code
QUICK = Schedule(epochs=8, lr=0.1, milestones=(5, 7), batch=32, weight_decay=5e-4, warmup=1)
QUICK_BASE = replace(QUICK, milestones=(4, 6), warmup=0)


CIFAR = Setting(
    preset="cifar",
    role="cifar100",
    data=DataSpec("cifar100"),
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
    tuned={
        ("resnet18", 5): 0.36,
        ("resnet18", 10): 0.43,
        ("resnet18", 20): 0.55,
        ("resnet18", 50): 0.76,
        ("resnet32", 10): 0.057,
    },
    tuned_base={("resnet18", 2): 0.1, ("resnet18", 5): 0.13, ("resnet18", 10): 0.17},
    sparsities=(0.1, 0.2, 0.43, 0.9),
    auxiliaries=(0.0, 0.25, 0.5, 1.0, 2.0),
    mask_start="inherit",
    inputs=INPUTS,
)
IMAGENET = replace(
    CIFAR,
    preset="imagenet",
    role="imagenet-100",
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
    tuned={("resnet18-preact", 10): 0.28},
    tuned_base={("resnet18-pool", 10): 0.15},
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
            temperature=1.0,  # at 5 a small classifier stage has too few steps to converge
            bias=replace(BIAS, batch=32),
            ucir=LUCIR(finetune=replace(UCIR_FINETUNE, epochs=2, milestones=(1,), batch=32), nme_flip="none"),
            b0=(2, 5),
            b50=(2, 5),
            total=200,
            per_class=10,
            tuned={},
            tuned_base={},
            sparsities=(0.2, 0.5, 1.5),
            auxiliaries=(0.0, 1.0, 4.0),
            mask_rate=10.0,
            mask_start="fresh",
            mask_init="uniform",  # a random half of so few channels learns too little in so few steps
            probe=True,
        ),
    ),
    "cifar": (CIFAR,),
    "imagenet": (
        IMAGENET,
        replace(
            IMAGENET,
            role="imagenet",
            data=DataSpec("imagenet"),
            classes=1000,
            total=20000,
            b50=(),
            tuned={("resnet18-preact", 10): 0.004},
        ),
    ),
}
SEED = 1993
ORDERS = {"quick": ("1993",), "cifar": ("O1", "O2", "O3"), "imagenet": ("1993",)}
"""The default class orders, each with seed 1993: the paper's three on CIFAR-100, one elsewhere."""


def on_folder(folder: Folder) -> Setting:
    """Return the setting of a folder of your own images. Raises InputError where the classes do not divide as asked."""
    asked = folder.incremental("der")
    paper = IMAGENET if folder.large else CIFAR
    finetune = paper.ucir.finetune and fit(paper.ucir.finetune, asked.images)
    return folder.setting(
        CIFAR,
        IMAGENET,
        asked.images,
        network=folder.network(large=IMAGENET.network),
        base_network=folder.network(large=IMAGENET.base_network),
        ucir=replace(paper.ucir, finetune=finetune),
        base=asked.base,
        b0=(),
        b50=(asked.phases,),
        sparsity=0.15 if folder.large else 0.057,  # the same network's lambda_s in a similar protocol, see `tuned`
        per_class=asked.exemplars,
    )


def settings(
    preset: str,
    seeds: Sequence[int] | None,
    orders: Sequence[str] | None,
    epochs_scale: float,
    folder: Folder | None = None,
) -> tuple[Setting, ...]:
    """Return the settings of a preset.

    Seeds without `orders` also choose the class order. Orders without `seeds` get seed 1993. Raises InputError on an
    unknown preset or a scale that is not positive.
    """
    repeats = repeated(seeds or (SEED,), orders if orders or seeds else ORDERS.get(preset))
    own = on_folder(folder) if folder else None
    return chosen(SETTINGS, preset, repeats, epochs_scale, own)
