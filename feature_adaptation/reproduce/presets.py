"""Define the presets: data, protocol, schedules, memory sizes and repeats, and how Runs are made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, ClassVar

from common.command import settings as shared
from common.command.own import Folder
from common.command.settings import chosen, repeated
from common.data.datasets import DataSpec
from common.data.names import FOLDER
from common.runs import IMAGENET_INPUTS, Flip, Inputs, Protocol, Run, Schedule
from feature_adaptation.memory import SIZES, Size
from feature_adaptation.methods import ADAPTER, CLASSIFIER, Adaptation, Extractor, Map, Method, Oracle, Recipe
from lucir.methods import FINETUNE, LUCIR
from lucir.reproduce.presets import CIFAR_SCHEDULE as LUCIR_SCHEDULE
from lucir.reproduce.presets import IMAGENET_SCHEDULE as LUCIR_IMAGENET_SCHEDULE

CIFAR_SCHEDULE = Schedule(
    70, lr=2.0, milestones=(49, 63), gamma=0.2, batch=128, weight_decay=1e-5
)  # iCaRL Sec. 4, CIFAR
IMAGENET_SCHEDULE = replace(CIFAR_SCHEDULE, epochs=60, milestones=(20, 30, 40, 50))  # iCaRL Sec. 4
SOFTMAX_LR = 0.1  # our choice: a twentieth of 2.0, since softmax's gradients are not divided by the number of classes
SEEN_LR = 0.5  # our choice for a mean over the classes seen: at 2.0 a ResNet-32 does not learn ten classes in 7 epochs
LATER = 3
"""The number of seeds of stages 2 and 3 where stage 1 is one run. Figures say that only these stages were repeated."""


def highest_rate(method: Extractor) -> float:
    """Return the highest learning rate that the loss of `method` allows: infinity for iCaRL's own loss."""
    if method.loss == "softmax":
        return SOFTMAX_LR
    return SEEN_LR if method.nodes == "seen" else inf


@dataclass(frozen=True, kw_only=True)
class Setting(shared.Setting):
    """A `Setting` is one data set with the paper's protocol and schedule, and the repeats of stage 1."""

    paper: ClassVar[str] = "feature_adaptation"

    size: Size
    """The sizes from which memory is counted on these data."""
    task_sizes: tuple[int, ...]
    """The numbers of classes a task in Fig. 3. Every other figure has `classes_per_task`."""
    classes_per_task: int
    base: int | None = None
    """The number of classes of the first task. None: as many as every other task has."""
    lucir_schedule: Schedule
    finetune: Schedule
    """The schedule of EEIL's and LUCIR's balanced fine-tuning."""
    available: int
    """The number of training images of each class, which is also the most features that a class can keep."""
    features: tuple[int, ...]
    """Values of L in Fig. 2, the features kept of each class."""
    images: tuple[int, ...]
    """Values of P in Fig. 2, the images that iCaRL keeps of each class. The last is the usual budget, which EEIL keeps.
    """
    lucir_images: tuple[int, ...]
    """Values of P for LUCIR in Fig. 2."""
    hybrids: tuple[tuple[int, int], ...]
    """Values of (P, L) for the hybrid."""
    small: int
    """L in figures where memory is short: a tenth of the usual budget or less."""
    every_method: bool = True
    """Whether Fig. 3 has every method at each of `task_sizes`. If not, some methods are at `classes_per_task` alone."""
    gamma: float = 0.05  # gamma of Eq. 6, whose value in the paper is not known; Fig. 5 sweeps it
    gamma_maps: tuple[Map, ...] = ("identity", "linear", "residual", "mlp")
    """The maps at each gamma of Fig. 5. With little drift, a map may do more harm than no map."""
    gammas: tuple[float, ...] = (0.0, 0.01, 0.05, 0.1, 0.5, 1.0)
    alphas: tuple[float | None, ...] = (1.0, 10.0, 100.0, 1000.0, None)
    expansions: tuple[int, ...] = (1, 4, 16, 32)
    deep: tuple[int, ...] = (4, 16)  # expansions with two hidden layers, which have 4.5 million parameters at 32 d
    sigma: float = 0.3  # bandwidths of SDC, as in its paper
    adapter: Recipe = ADAPTER
    classifier: Recipe = CLASSIFIER
    truth: bool = True
    """Whether the features of old images under later extractors are kept for evaluation. On ImageNet they are too
    large."""

    @property
    def later_seeds(self) -> int:
        """The number of seeds of stages 2 and 3 for each run of stage 1."""
        return LATER if self.comparable and len(self.repeats) == 1 else 1

    @property
    def budget(self) -> int:
        """The number of images that exemplar methods usually keep of each class."""
        return self.images[-1]

    def protocol(self, task_size: int | None = None, images: int = 0) -> Protocol:
        """Return the protocol of `task_size` classes a task, with `images` exemplars of each class."""
        task_size = task_size or self.classes_per_task
        return Protocol(self.classes, self.base or task_size, task_size, exemplars_per_class=images)

    def stage1(self, task_size: int | None = None, images: int = 0, **changes: Any) -> list[Run]:
        """Return Runs of stage 1, one for each repeat: LwF with feature distillation. changes: options that differ."""
        return self.extract(replace(self.extractor(), **changes), task_size, images)

    def extractor(self) -> Extractor:
        """Return the usual stage 1: LwF with feature distillation, which leaves features for stages 2 and 3."""
        return Extractor(features=self.gamma, keep="truth" if self.truth else "features")

    def extract(self, method: Extractor, task_size: int | None = None, images: int = 0) -> list[Run]:
        """Return Runs of any stage 1, at a learning rate that its loss allows."""
        schedule = replace(self.schedule, lr=min(self.schedule.lr, highest_rate(method)))
        return self.run(method, self.protocol(task_size, images), schedule=schedule)

    def adapt(self, stage1: Sequence[Run], method: Adaptation | None = None, **changes: Any) -> list[Run]:
        """Return Runs of stages 2 and 3 that start from runs of stage 1.

        By default the method is the paper's, with all features. changes: options that differ.
        """
        method = replace(self.adaptation(method or Adaptation()), **changes)
        return self.after(stage1, replace(method, sigma=self.sigma) if method.map == "sdc" else method)

    def adaptation(self, method: Adaptation) -> Adaptation:
        """Return `method` with the recipes of this setting."""
        return replace(method, adapter=self.adapter, classifier=self.classifier)

    def after(self, stage1: Sequence[Run], method: Adaptation) -> list[Run]:
        """Return Runs of stages 2 and 3 by `method` as it is, after runs of stage 1."""
        return [
            replace(run, method=method, start=run, seed=run.seed + k) for run in stage1 for k in range(self.later_seeds)
        ]

    def defaults(self) -> tuple[Method, ...]:
        """Return each method with the options of this setting, the paper's own method first."""
        adaptations = self.adaptation(Adaptation()), self.adaptation(Oracle())
        return *adaptations, self.extractor(), self.lucir_method()

    def main(self, method: Method) -> list[Run]:
        """Return the Runs of `method` as in Fig. 3.

        Stages 2 and 3 follow the usual stage 1, which keeps true features for an `Oracle`. LUCIR keeps the usual number
        of images.
        """
        if isinstance(method, Adaptation):
            return self.after(self.stage1(keep="truth") if isinstance(method, Oracle) else self.stage1(), method)
        if isinstance(method, Extractor):
            return self.extract(method)
        return self.run(method, self.protocol(images=self.budget), schedule=self.lucir_schedule)

    def kept(self, count: int) -> int | None:
        """Return the option `features_per_class` that keeps `count` features. It is None if these are all features."""
        return None if count >= self.available else count

    # Baselines, with the network's own classifier

    def icarl(self, images: int, task_size: int | None = None, total: bool = False) -> list[Run]:
        """Return Runs of iCaRL as published: sigmoids, distillation and exemplars.

        Its read-outs are NME, with mirrored exemplars, and CNN. total: the classes seen so far share the budget of the
        last task, as in iCaRL's paper.
        """
        runs = self.stage1(task_size, images, features=0.0, keep="nothing", nme_flip="horizontal")
        if not total:
            return runs
        shared = replace(self.protocol(task_size), exemplars_per_class=None, exemplars_total=images * self.classes)
        return [replace(run, protocol=shared) for run in runs]

    def eeil(self, images: int, task_size: int | None = None) -> list[Run]:
        """Return Runs in the style of EEIL: softmax, one distillation for each task, balanced fine-tuning."""
        changes = {"loss": "softmax", "features": 0.0, "per_task": True, "finetune": self.finetune}
        return self.stage1(task_size, images, keep="nothing", **changes)

    def lucir(self, images: int, task_size: int | None = None) -> list[Run]:
        """Return Runs of LUCIR with the schedule of its paper."""
        return self.run(self.lucir_method(), self.protocol(task_size, images), schedule=self.lucir_schedule)

    def lucir_method(self) -> LUCIR:
        """Return LUCIR with the options that its own package has."""
        large = self.inputs.kind == "resized-crop"
        flip: Flip = "none" if large or self.preset == FOLDER else "channels"
        return LUCIR(weight=10.0 if large else 5.0, finetune=self.finetune, nme_flip=flip)

    def joint(self) -> list[Run]:
        """Return Runs on all classes at once, which are the bound."""
        return self.run(Extractor(distillation=0.0), self.at_once())


CIFAR = Setting(
    preset="cifar",
    role="cifar100",
    data=DataSpec("cifar100"),
    classes=100,
    network="resnet32",
    inputs=Inputs(),
    size=SIZES["cifar100"],
    task_sizes=(5, 10, 20),
    classes_per_task=10,
    schedule=CIFAR_SCHEDULE,
    lucir_schedule=LUCIR_SCHEDULE,
    finetune=FINETUNE,
    available=500,
    features=(5, 10, 20, 50, 100, 240, 500),  # 240 features take as many bytes as 20 images
    images=(1, 5, 10, 20),
    lucir_images=(10, 20),
    hybrids=((10, 120), (10, 200)),  # the first takes as many bytes as 20 images
    small=20,
    sigma=0.2,  # as in SDC's code for CIFAR-100
)
SETTINGS: dict[str, tuple[Setting, ...]] = {
    "quick": (
        replace(
            CIFAR,
            preset="quick",
            data=DataSpec("glyphs", classes=20, per_class=120, test_per_class=30),
            size=Size(20, 64, 32 * 32 * 3, 1300),
            network="resnet8-half",
            classes=20,
            task_sizes=(4, 10),
            classes_per_task=4,
            schedule=Schedule(12, lr=0.5, milestones=(8, 10), gamma=0.2, batch=32, weight_decay=1e-5),
            lucir_schedule=Schedule(12, lr=0.1, milestones=(6, 9), batch=32, weight_decay=5e-4),
            finetune=replace(FINETUNE, epochs=3, milestones=(2,), batch=32),
            available=120,
            features=(2, 6, 30, 120),
            images=(1, 5),
            lucir_images=(5,),
            hybrids=((2, 36),),
            small=6,
            every_method=False,
            gamma_maps=("identity", "mlp"),
            gammas=(0.0, 0.05, 1.0),
            alphas=(1.0, 100.0, None),
            expansions=(1, 4, 16),
            deep=(16,),
            adapter=replace(ADAPTER, steps=400),
            classifier=replace(CLASSIFIER, steps=300),
        ),
    ),
    "cifar": (CIFAR,),
    "imagenet": tuple(
        replace(
            CIFAR,
            preset="imagenet",
            role=data,
            data=DataSpec(data),
            size=SIZES[size],
            network="resnet18-imagenet",
            classes=classes,
            task_sizes=(classes // 10,),
            classes_per_task=classes // 10,
            schedule=IMAGENET_SCHEDULE,
            lucir_schedule=LUCIR_IMAGENET_SCHEDULE,
            finetune=replace(FINETUNE, weight_decay=1e-4),
            available=1300,
            features=(20, 50, 100, 200, 500),
            hybrids=((10, 200),),
            small=200,
            sigma=0.3,
            inputs=IMAGENET_INPUTS,
            truth=False,
        )
        for data, size, classes in (("imagenet-subset", "imagenet100", 100), ("imagenet", "imagenet1000", 1000))
    ),
}
DEFAULT_SEEDS = {"quick": (1993,), "cifar": (1993, 0, 1, 2, 3), "imagenet": (1993,), FOLDER: (1993,)}


def on_folder(folder: Folder) -> Setting:
    """Return the setting of a folder of your own images. Raises InputError where the classes do not divide as asked."""
    asked = folder.incremental("feature_adaptation")
    own = folder.setting(
        CIFAR,
        SETTINGS["imagenet"][0],
        asked.images,
        network=folder.network(),
        base=asked.base,
        task_sizes=(asked.step,),
        classes_per_task=asked.step,
        available=max(folder.counts),
        images=(asked.exemplars,),
    )
    share = min(1.0, own.classes / CIFAR.classes)  # a mean over fewer classes takes larger steps at the same rate
    return replace(own, schedule=replace(own.schedule, lr=share * own.schedule.lr))


def settings(
    preset: str,
    seeds: Sequence[int] | None,
    orders: Sequence[str] | None,
    epochs_scale: float,
    folder: Folder | None = None,
) -> tuple[Setting, ...]:
    """Return the settings of a preset.

    Without `orders`, seed s also chooses class order s. With `orders`, every pair of an order and a seed is run.
    epochs_scale acts on stage 1 alone, since stages 2 and 3 count steps. Raises InputError on an unknown preset or a
    scale that is not positive.
    """
    own = on_folder(folder) if folder else None
    return chosen(SETTINGS, preset, repeated(seeds or DEFAULT_SEEDS.get(preset, ()), orders), epochs_scale, own)
