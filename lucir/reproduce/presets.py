"""The presets: the paper's protocol and schedule on each data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from common.command import settings as shared
from common.command.own import Folder
from common.command.settings import chosen, repeated
from common.data.datasets import DataSpec
from common.data.names import FOLDER
from common.errors import InputError
from common.runs import IMAGENET_INPUTS, Flip, Inputs, Protocol, Run, Schedule
from lucir.methods import FINETUNE, LUCIR, Base, ICaRL, Method

CIFAR_SCHEDULE = Schedule(epochs=160, lr=0.1, milestones=(80, 120), batch=128, weight_decay=5e-4)  # Sec. 4.1
IMAGENET_SCHEDULE = Schedule(epochs=90, lr=0.1, milestones=(30, 60), batch=128, weight_decay=1e-4)  # Sec. 4.1
QUICK_SCHEDULE = Schedule(epochs=8, lr=0.1, milestones=(4, 6), batch=32, weight_decay=5e-4)
PHASES = {1: "fig5a", 2: "fig5b", 5: "fig5c", 10: "fig5d"}
"""Number of incremental phases -> its panel of Fig. 5."""


@dataclass(frozen=True, kw_only=True)
class Setting(shared.Setting):
    """A data set with the paper's protocol and schedule for it."""

    paper: ClassVar[str] = "lucir"

    base: int
    phases: int = 5
    """Incremental phases of the main comparison."""
    small_base: int
    """Number of base classes in the supplement's Fig. 4."""
    finetune: Schedule
    exemplars: int
    sweep: tuple[int, ...]
    """Numbers of exemplars per class in Fig. 7(b)."""
    scales: tuple[float, ...]
    """Fixed values of eta that are compared with a learnable eta."""
    weight: float
    """lambda_base of Eq. 7."""
    nme_flip: Flip

    @property
    def total(self) -> int:
        """The fixed memory of the supplement's Fig. 5: 2000 on CIFAR-100, in the end 20 exemplars per class."""
        return self.exemplars * self.classes

    def lucir(self, **changes: object) -> LUCIR:
        """Return the paper's method in this setting. `changes` make an ablation of it."""
        method = LUCIR(weight=self.weight, finetune=self.finetune, nme_flip=self.nme_flip)
        return replace(method, **changes)  # type: ignore[arg-type]

    def icarl(self, **changes: object) -> ICaRL:
        """Return iCaRL in this setting. `changes` make a variant of it."""
        return replace(ICaRL(nme_flip=self.nme_flip), **changes)  # type: ignore[arg-type]

    def runs(
        self,
        method: Method,
        phases: int,
        exemplars: int | None = None,
        total: int | None = None,
        base: int | None = None,
    ) -> list[Run]:
        """Return one Run per repeat of `method` over `phases` incremental phases, which starts from a base model.

        The base model has the method's kind of head. exemplars: per class; total: for all classes together instead.
        Raises InputError if the classes after the base do not divide into the phases.
        """
        base = base or self.base
        rest = self.classes - base
        if not 1 <= phases <= rest or rest % phases:
            ways = ", ".join(str(n) for n in range(1, rest + 1) if not rest % n)
            raise InputError(f"{rest} classes do not divide into {phases} phases; choose one of {ways}")
        per_class = None if total else exemplars or self.exemplars
        protocol = Protocol(self.classes, base, rest // phases, per_class, total)
        head = "cosine" if isinstance(method, LUCIR) else "linear"
        start = self.base_runs(Base(head, getattr(method, "scale", None)), base)  # type: ignore[arg-type]
        return [replace(s, method=method, protocol=protocol, start=s) for s in start]

    def defaults(self) -> tuple[Method, ...]:
        """Return every method with this setting's options, the paper's own method first."""
        return self.lucir(), self.icarl(), Base()

    def main(self, method: Method) -> list[Run]:
        """Return one Run per repeat of `method`, as in Fig. 5(c). A `Base` learns all classes at once."""
        return self.base_runs(method, self.classes) if isinstance(method, Base) else self.runs(method, self.phases)

    def base_runs(self, method: Base, classes: int) -> list[Run]:
        """Return one Run per repeat of cross-entropy training on the first `classes` classes, without exemplars."""
        return self.run(method, Protocol(classes, classes, 0, exemplars_per_class=0))


CIFAR = Setting(
    preset="cifar",
    role="cifar100",
    data=DataSpec("cifar100"),
    network="resnet32",
    classes=100,
    base=50,
    small_base=30,
    schedule=CIFAR_SCHEDULE,
    finetune=FINETUNE,
    exemplars=20,
    sweep=(1, 5, 10, 20, 30, 40, 50),
    scales=(4.0, 8.0, 16.0, 32.0),
    weight=5.0,
    inputs=Inputs(),
    nme_flip="channels",
)
SETTINGS: dict[str, tuple[Setting, ...]] = {
    "quick": (
        replace(
            CIFAR,
            preset="quick",
            data=DataSpec("glyphs", classes=40, per_class=150, test_per_class=25),
            network="resnet8-half",
            classes=40,
            base=20,
            small_base=12,
            schedule=QUICK_SCHEDULE,
            finetune=replace(FINETUNE, epochs=2, milestones=(1,), batch=32),
            exemplars=6,
            sweep=(1, 6, 15),
            scales=(4.0, 16.0),
        ),
    ),
    "cifar": (CIFAR,),
    "imagenet": tuple(
        replace(
            CIFAR,
            preset="imagenet",
            role=name,
            data=DataSpec(name),
            network="resnet18-imagenet",
            classes=classes,
            base=classes // 2,
            schedule=IMAGENET_SCHEDULE,
            finetune=replace(FINETUNE, weight_decay=1e-4),
            weight=10.0,
            inputs=IMAGENET_INPUTS,
            nme_flip="none",
        )
        for name, classes in (("imagenet-subset", 100), ("imagenet", 1000))
    ),
}
DEFAULT_SEEDS = {"quick": (1993,), "cifar": (1993, 1994, 1995), "imagenet": (1993,), FOLDER: (1993,)}


def on_folder(folder: Folder) -> Setting:
    """Return a Setting for the user's own images. Raises InputError if the classes do not divide as asked."""
    asked = folder.incremental("lucir")
    return folder.setting(
        CIFAR,
        SETTINGS["imagenet"][0],
        asked.images,
        network=folder.network(),
        base=asked.base,
        phases=asked.phases,
        exemplars=asked.exemplars,
        nme_flip="none",  # swapped colour channels are a slip of the official code on CIFAR, and harm coloured images
    )


def settings(
    preset: str,
    seeds: Sequence[int] | None,
    orders: Sequence[str] | None,
    epochs_scale: float,
    folder: Folder | None = None,
) -> tuple[Setting, ...]:
    """Return the settings of a preset.

    Without `orders`, seed s also chooses class order s. With `orders`, every pair of a seed and an order is run.
    Raises InputError on an unknown preset, or a scale that is not positive.
    """
    own = on_folder(folder) if folder else None
    return chosen(SETTINGS, preset, repeated(seeds or DEFAULT_SEEDS.get(preset, ()), orders), epochs_scale, own)
