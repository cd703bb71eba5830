"""Define the presets: data, networks, schedules and losses of each data set, and how Runs are made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from class_balanced.methods import ClassBalanced, Method
from common.command import settings as shared
from common.command.own import Folder
from common.command.settings import chosen, repeated_natively
from common.data.datasets import DataSpec
from common.imbalance import Rebalance, Retrain
from common.runs import IMAGENET_INPUTS, Inputs, LongTail, Run, Schedule

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
IMAGENET_SCHEDULE = Schedule(  # Sec. 5.3: Goyal et al.'s recipe
    epochs=90,
    lr=0.4,
    milestones=(30, 60, 80),
    batch=1024,
    weight_decay=1e-4,
    nesterov=True,
    warmup=5,
    warmup_by="step",
    drop_last=True,
)
RETRAIN_SCHEDULE = Schedule(epochs=20, lr=0.1, milestones=(10, 15), weight_decay=2e-4, drop_last=True)
"""The schedule of cRT's classifier: a tenth of the epochs, as on ImageNet-LT. Kang et al. give none for CIFAR."""
QUICK_SCHEDULE = replace(CIFAR_SCHEDULE, epochs=18, milestones=(14, 16), batch=16, warmup=1)
INPUTS = Inputs(mean=(128 / 255,) * 3, std=(128 / 255,) * 3)
"""Inputs are x / 128 - 1 for pixels x in 0..255, as in the official code."""
INAT_INPUTS = Inputs((0.466, 0.471, 0.380), (0.195, 0.194, 0.192), "resized-crop")
BETAS = (0.9, 0.99, 0.999, 0.9999)  # Sec. 5.2
GAMMAS = (0.5, 1.0, 2.0)
FACTORS = (200.0, 100.0, 50.0, 20.0, 10.0)  # imbalance factors of Fig. 8 to 10
DEPTHS = (50, 101, 152)  # numbers of layers in Table 3
LARGE_SOFTMAX = ClassBalanced(recipe="imagenet")
LARGE_FOCAL = ClassBalanced("focal", beta=0.999, gamma=0.5, recipe="imagenet")  # Table 3
LARGE = (("Softmax", 224), ("CB focal", 224), ("CB focal", 320))  # losses and pixels of Table 3


@dataclass(frozen=True, kw_only=True)
class Setting(shared.Setting):
    """A `Setting` is one data set with the paper's schedule and a grid of losses, betas and imbalance factors."""

    paper: ClassVar[str] = "class_balanced"
    tails: ClassVar[tuple[str, ...]] = ("closeup_factor", "factor")

    retrain: Schedule
    """The schedule of cRT's classifier."""
    factors: tuple[float, ...] = FACTORS
    betas: tuple[float, ...] = BETAS
    gammas: tuple[float, ...] = GAMMAS
    factor: float | None = 50.0
    """The imbalance factor of Fig. 5 and of the loss curves. None: the images as they are."""
    closeup_factor: float | None = 50.0
    """The imbalance factor of figures that look closer than the paper's. None: the images as they are."""
    closeup: tuple[str, ...]
    """The rows of the grid in the figures that look closer."""
    balanced: bool = True
    """Whether Table 2 has a column for the whole training set."""
    shortcuts: tuple[str, str] = ("resnet32-pad-glorot", "resnet32-avgpool")
    """Two networks that differ in option A's shortcuts alone: by subsampling, as in BBN's and LDAM's code, and by
    averaging."""
    focal_lr: float = 1.0
    """The learning rate of focal loss on large images as a multiple of that of softmax (official code)."""

    @property
    def table2_factors(self) -> tuple[float, ...]:
        """The imbalance factors of Table 2's columns."""
        return (*self.factors, 1.0) if self.balanced else self.factors

    def models(self) -> dict[str, ClassBalanced]:
        """Return the rows of Fig. 8 to 10 by the paper's names: SM, SM_0.9, ..., Focal_2.0_0.9999."""
        focal = {f"Focal_{g:.1f}": ClassBalanced("focal", gamma=g) for g in self.gammas}
        bases = {"SM": ClassBalanced("softmax"), "SGM": ClassBalanced("sigmoid"), **focal}
        return {
            f"{name}_{beta:g}" if beta else name: replace(base, beta=beta)
            for name, base in bases.items()
            for beta in (0.0, *self.betas)
        }

    def base_models(self) -> dict[str, ClassBalanced]:
        """Return the rows without class weights."""
        return {name: model for name, model in self.models().items() if not model.beta}

    def softmax_models(self) -> dict[str, ClassBalanced]:
        """Return the rows of softmax, over beta."""
        return {name: model for name, model in self.models().items() if model.loss == "softmax"}

    def beta_models(self) -> dict[str, ClassBalanced]:
        """Return the rows of Fig. 5: softmax, sigmoid, and focal loss of the smallest gamma, over beta."""
        return self._of_gamma(self.gammas[0])

    def curve_models(self) -> dict[str, ClassBalanced]:
        """Return the rows of each loss without class weights and at the largest beta.

        Focal loss has the gamma of the authors' re-run of their code, if the grid has that gamma.
        """
        models = self._of_gamma(1.0 if 1.0 in self.gammas else self.gammas[0])
        return {name: model for name, model in models.items() if model.beta in (0, self.betas[-1])}

    def _of_gamma(self, gamma: float) -> dict[str, ClassBalanced]:
        """Return the rows of all losses, with focal loss at one gamma."""
        return {name: m for name, m in self.models().items() if m.loss != "focal" or m.gamma == gamma}

    def defaults(self) -> tuple[Method, ...]:
        """Return each method with the options of this setting, the paper's own method first."""
        own = LARGE_FOCAL if self.preset == "imagenet" else self.models()[self.closeup[-1]]
        return own, Rebalance(), Retrain()

    def main(self, method: Method) -> list[Run]:
        """Return the Runs of `method` at `closeup_factor`. cRT starts from the Runs of softmax."""
        if isinstance(method, Retrain):
            starts = self.main(LARGE_SOFTMAX if self.preset == "imagenet" else ClassBalanced())
            return [replace(run, method=method, schedule=self.retrain, start=run) for run in starts]
        runs = self.runs(method, None if self.preset == "imagenet" else self.closeup_factor)
        faster = self.focal_lr if method.loss == "focal" else 1.0
        return [replace(run, schedule=replace(run.schedule, lr=run.schedule.lr * faster)) for run in runs]

    def runs(self, method: Method, factor: float | None) -> list[Run]:
        """Return one Run of `method` for each seed, on the long-tailed subset of an imbalance factor.

        factor None: all images. The subset is sampled with seed 0.
        """
        return self.run(method, self.at_once(), longtail=LongTail(factor) if factor else None)


CIFAR10 = Setting(
    preset="cifar",
    role="cifar10",
    data=DataSpec("cifar10"),
    classes=10,
    network="resnet32-avgpool",
    schedule=CIFAR_SCHEDULE,
    retrain=RETRAIN_SCHEDULE,
    inputs=INPUTS,
    test_every=2,  # as in the official code
    closeup=("SM", "SM_0.9999", "Focal_2.0_0.9999"),
)
CIFAR20 = replace(CIFAR10, role="cifar20", data=DataSpec("cifar20"), classes=20)
CIFAR100 = replace(
    CIFAR10,
    role="cifar100",
    data=DataSpec("cifar100"),
    classes=100,
    closeup_factor=100.0,
    closeup=("SM", "SM_0.9999", "Focal_1.0_0.9"),
)


def _quick(
    setting: Setting, classes: int, per_class: int, factor: float, betas: tuple[float, ...], epochs: int = 18
) -> Setting:
    """Return a setting on embedded data that stands for one of the paper's: smaller, shorter, one imbalance factor.

    The smallest class has 15 images. With fewer, a loss that gives them more weight has next to nothing to learn from.
    """
    return replace(
        setting,
        preset="quick",
        data=DataSpec("glyphs", classes=classes, per_class=per_class, test_per_class=1000 // classes),
        classes=classes,
        network="resnet8-half",
        shortcuts=("resnet8-half-pad", "resnet8-half-avgpool"),
        schedule=QUICK_SCHEDULE.scaled(epochs / QUICK_SCHEDULE.epochs),
        factors=(factor,),
        betas=betas,
        gammas=(0.5,),
        factor=factor,
        closeup_factor=factor,
        closeup=("SM", f"SM_{betas[-1]:g}", f"Focal_0.5_{betas[0]:g}"),
        balanced=False,
        test_every=3,
        retrain=replace(RETRAIN_SCHEDULE, epochs=4, milestones=(2, 3), batch=16),
    )


def _imagenet(role: str, data: str, classes: int, inputs: Inputs, focal_lr: float) -> Setting:
    """Return the setting of one data set of large images."""
    return replace(
        CIFAR10,
        preset="imagenet",
        role=role,
        data=DataSpec(data),
        classes=classes,
        network="resnet50-imagenet",
        schedule=IMAGENET_SCHEDULE,
        inputs=inputs,
        factors=(),
        test_every=1,
        focal_lr=focal_lr,
    )


SETTINGS: dict[str, tuple[Setting, ...]] = {
    "quick": (
        _quick(CIFAR10, 10, 300, 20.0, (0.99, 0.999)),
        _quick(CIFAR20, 20, 150, 10.0, (0.99,)),
        _quick(CIFAR100, 20, 300, 20.0, (0.99, 0.999), epochs=12),  # has twice the images of the first
    ),
    "cifar": (CIFAR10, CIFAR20, CIFAR100),
    "imagenet": (
        _imagenet("inat2017", "inat2017", 5089, INAT_INPUTS, 4.0),
        _imagenet("inat2018", "inat2018", 8142, INAT_INPUTS, 4.0),
        _imagenet("ilsvrc2012", "imagenet", 1000, IMAGENET_INPUTS, 2.0),
    ),
}


def on_folder(folder: Folder) -> Setting:
    """Return the setting of a folder of your own images. Raises InputError if the images have no long tail.

    Large images get a batch of 256, since there are fewer than in ImageNet, and Goyal et al.'s rate for that batch.
    """
    tail = folder.long_tailed("class_balanced")
    large = SETTINGS["imagenet"][2]
    return folder.setting(
        CIFAR10,
        replace(large, schedule=replace(large.schedule, lr=0.1, batch=256)),
        tail.images,
        network=folder.network("resnet32-avgpool"),
        factors=(),
        factor=tail.factor,
        closeup_factor=tail.factor,
        focal_lr=1.0,
        closeup=("SM", "SM_0.999", "Focal_0.5_0.999"),  # beta and gamma of every large data set, Table 3
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
    return chosen(SETTINGS, preset, repeated_natively("class_balanced", preset, seeds, orders), epochs_scale, own)
