"""The Runs behind each figure, per preset: experiments are data. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from common.datasets import DataSpec
from common.errors import InputError
from common.runs import IMAGENET_INPUTS, Inputs, Protocol, Run, Schedule, repeated
from feature_adaptation.memory import SIZES, Size
from feature_adaptation.methods import ADAPTER, CLASSIFIER, Adaptation, Extractor, Oracle, Recipe
from lucir.experiments import CIFAR_SCHEDULE as LUCIR_SCHEDULE
from lucir.experiments import IMAGENET_SCHEDULE as LUCIR_IMAGENET_SCHEDULE
from lucir.methods import FINETUNE, LUCIR

CIFAR_SCHEDULE = Schedule(70, lr=2.0, milestones=(49, 63), gamma=0.2, batch=128, weight_decay=1e-5)  # iCaRL Sec. 4
IMAGENET_SCHEDULE = replace(CIFAR_SCHEDULE, epochs=60, milestones=(20, 30, 40, 50))  # iCaRL Sec. 4
CIFAR_INPUTS = Inputs()
SOFTMAX_LR = 0.1  # ours: a twentieth, as softmax's gradients are not divided by the number of classes
MAPS = ("identity", "shift", "sdc", "linear", "residual", "mlp")
Runs = Mapping[str, list[Run]]


@dataclass(frozen=True)
class Setting:
    """One data set with the paper's protocol and schedule on it, and the repeats asked for."""

    preset: str
    data: DataSpec
    size: Size
    network: str
    classes: int
    steps: tuple[int, ...]
    """Classes a task of Fig. 3; every figure else is at `step`."""
    step: int
    schedule: Schedule
    lucir_schedule: Schedule
    finetune: Schedule
    """EEIL's and LUCIR's balanced fine-tuning."""
    features: tuple[int, ...]
    """L of Fig. 2."""
    images: tuple[int, ...]
    """P of the exemplar methods in Fig. 2; the last is the usual budget."""
    hybrids: tuple[tuple[int, int], ...]
    """(P, L) of the hybrid."""
    small: int
    """L where memory is short: a tenth of the usual budget or less."""
    gamma: float = 0.05  # of Eq. 6, ours: chosen on held-out training images
    gammas: tuple[float, ...] = (0.0, 0.01, 0.05, 0.1, 0.5, 1.0)
    alphas: tuple[float | None, ...] = (1.0, 10.0, 100.0, 1000.0, None)
    expansions: tuple[int, ...] = (1, 4, 16, 32)
    adapter: Recipe = ADAPTER
    classifier: Recipe = CLASSIFIER
    inputs: Inputs = CIFAR_INPUTS
    truth: bool = True
    """Whether old images' later features are kept for evaluation: too much of ImageNet."""
    repeats: tuple[tuple[str, int], ...] = ()
    """(class order, seed) of each run of stage 1."""
    later: int = 1
    """Seeds of stages 2 and 3 on each run of stage 1."""

    @property
    def full_schedule(self) -> bool:
        """Whether results can be held against published ones: real data at the full schedule."""
        return self.preset != "quick" and self.schedule in (CIFAR_SCHEDULE, IMAGENET_SCHEDULE)

    @property
    def budget(self) -> int:
        """Images a class that exemplar methods usually keep."""
        return self.images[-1]

    def protocol(self, step: int | None = None, images: int = 0) -> Protocol:
        step = step or self.step
        return Protocol(self.classes, step, step, exemplars_per_class=images)

    def stage1(self, step: int | None = None, images: int = 0, **changes: Any) -> list[Run]:
        """LwF with feature distillation and what differs from it by `changes`, one Run a repeat."""
        method = replace(Extractor(features=self.gamma, keep="truth" if self.truth else "features"), **changes)
        schedule = self.schedule if method.loss == "sigmoid" else replace(self.schedule, lr=self.softmax_lr)
        return self._runs(method, self.protocol(step, images), schedule)

    @property
    def softmax_lr(self) -> float:
        return min(SOFTMAX_LR, self.schedule.lr)

    def _runs(self, method: Any, protocol: Protocol, schedule: Schedule) -> list[Run]:
        run = Run("feature_adaptation", method, self.data, protocol, schedule, self.network, inputs=self.inputs)
        return [replace(run, order=order, seed=seed) for order, seed in self.repeats]

    def adapt(self, stage1: Sequence[Run], method: Adaptation | None = None, **changes: Any) -> list[Run]:
        """Stages 2 and 3 on runs of stage 1: the paper's with all features, or what differs from it by `changes`."""
        method = replace(method or Adaptation(), adapter=self.adapter, classifier=self.classifier, **changes)
        return [replace(run, method=method, start=run, seed=run.seed + k) for run in stage1 for k in range(self.later)]

    # Baselines, with the network's own classifier

    def icarl(self, images: int, step: int | None = None) -> list[Run]:
        """iCaRL as published: sigmoids, distillation, exemplars; read out by NME and CNN."""
        return self.stage1(step, images, features=0.0, keep="nothing")

    def eeil(self, images: int, step: int | None = None) -> list[Run]:
        """EEIL-style: softmax, one distillation a task, balanced fine-tuning."""
        changes = {"loss": "softmax", "features": 0.0, "per_task": True, "finetune": self.finetune}
        return self.stage1(step, images, keep="nothing", **changes)

    def lucir(self, images: int, step: int | None = None) -> list[Run]:
        """LUCIR with the schedule of its paper."""
        large = self.inputs.kind == "resized-crop"
        method = LUCIR(weight=10.0 if large else 5.0, finetune=self.finetune, nme_flip="none" if large else "channels")
        return self._runs(method, self.protocol(step, images), self.lucir_schedule)

    def joint(self) -> list[Run]:
        """All classes at once: the bound."""
        protocol = Protocol(self.classes, self.classes, 0, exemplars_per_class=0)
        return self._runs(Extractor(distillation=0.0), protocol, self.schedule)


CIFAR = Setting(
    "cifar",
    DataSpec("cifar100"),
    SIZES["cifar100"],
    network="resnet32",
    classes=100,
    steps=(5, 10, 20),
    step=10,
    schedule=CIFAR_SCHEDULE,
    lucir_schedule=LUCIR_SCHEDULE,
    finetune=FINETUNE,
    features=(5, 10, 20, 50, 100, 240, 500),
    images=(1, 5, 10, 20),
    hybrids=((5, 200), (10, 200)),
    small=20,
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
            steps=(2, 4, 10),
            step=4,
            schedule=Schedule(12, lr=0.5, milestones=(8, 10), gamma=0.2, batch=32, weight_decay=1e-5),
            lucir_schedule=Schedule(12, lr=0.1, milestones=(6, 9), batch=32, weight_decay=5e-4),
            finetune=replace(FINETUNE, epochs=3, milestones=(2,), batch=32),
            features=(2, 6, 20, 60, 120),
            images=(1, 5),
            hybrids=((2, 60),),
            small=6,
            gammas=(0.0, 0.05, 1.0),
            alphas=(1.0, 100.0, None),
            expansions=(1, 16),
            adapter=replace(ADAPTER, steps=400),
            classifier=replace(CLASSIFIER, steps=300),
        ),
    ),
    "cifar": (CIFAR,),
    "imagenet": tuple(
        replace(
            CIFAR,
            preset="imagenet",
            data=DataSpec(data),
            size=SIZES[size],
            network="resnet18-imagenet",
            classes=classes,
            steps=(classes // 10,),
            step=classes // 10,
            schedule=IMAGENET_SCHEDULE,
            lucir_schedule=LUCIR_IMAGENET_SCHEDULE,
            finetune=replace(FINETUNE, weight_decay=1e-4),
            features=(20, 50, 100, 200, 500),
            hybrids=((10, 200),),
            small=200,
            inputs=IMAGENET_INPUTS,
            truth=False,
        )
        for data, size, classes in (("imagenet-subset", "imagenet100", 100), ("imagenet", "imagenet1000", 1000))
    ),
}
DEFAULT_SEEDS = {"quick": (1993,), "cifar": (1993, 0, 1, 2, 3), "imagenet": (1993,)}
LATER = 3
"""Seeds of stages 2 and 3 where stage 1 is one run; the figures say that only these were repeated."""


def settings(
    preset: str, seeds: Sequence[int] | None, orders: Sequence[str] | None, epochs_scale: float
) -> tuple[Setting, ...]:
    """The settings of a preset. Without `orders`, seed s also chooses class order s; with them, every pair is run.

    epochs_scale is stage 1's: stages 2 and 3 count steps. Raises InputError on an unknown preset or a scale that is
    not positive.
    """
    if preset not in SETTINGS:
        raise InputError(f"unknown preset {preset!r}; choose one of {', '.join(SETTINGS)}")
    if not 0 < epochs_scale <= 1000:
        raise InputError(f"--epochs-scale must be positive, and at most 1000, got {epochs_scale:g}")
    repeats = repeated(seeds or DEFAULT_SEEDS[preset], orders)
    later = LATER if len(repeats) == 1 and preset != "quick" else 1
    return tuple(
        replace(
            s,
            repeats=repeats,
            later=later,
            schedule=s.schedule.scaled(epochs_scale),
            lucir_schedule=s.lucir_schedule.scaled(epochs_scale),
            finetune=s.finetune.scaled(epochs_scale),
        )
        for s in SETTINGS[preset]
    )


# Figures


def memory(s: Setting) -> Runs:
    """Fig. 2 and Table 1: one point a memory size and method."""
    main = s.stage1()
    runs = {f"FA {count}": s.adapt(main, features_per_class=count) for count in s.features}
    for images, features in s.hybrids:
        runs[f"hybrid {images} {features}"] = s.adapt(s.stage1(images=images), features_per_class=features)
    for images in s.images:
        runs[f"iCaRL {images}"] = s.icarl(images)
    for images in s.images[-2:]:
        runs[f"LUCIR {images}"] = s.lucir(images)
    return {**runs, f"EEIL {s.budget}": s.eeil(s.budget), "LwF": lwf(s), "LwF+FD": main, "joint": s.joint()}


def lwf(s: Setting, step: int | None = None) -> list[Run]:
    return s.stage1(step, features=0.0)


def finetuning(s: Setting, step: int | None = None) -> list[Run]:
    return s.stage1(step, features=0.0, distillation=0.0)


def frozen(s: Setting, step: int | None = None) -> list[Run]:
    """The extractor of task 1 for ever: kept features never go stale, so the identity is exact."""
    kept = "features"
    return s.adapt(s.stage1(step, features=0.0, frozen=True, keep=kept), map="identity")


def tasks(s: Setting) -> Runs:
    """Fig. 3: every method at each number of classes a task."""
    runs: dict[str, list[Run]] = {}
    for step in s.steps:
        main = s.stage1(step)
        runs |= {
            f"FA (MLP) {step}": s.adapt(main),
            f"FA (no map) {step}": s.adapt(main, map="identity"),
            f"true features {step}": s.adapt(main, Oracle()),
            f"frozen extractor {step}": frozen(s, step),
            f"iCaRL {step}": s.icarl(s.budget, step),
            f"LUCIR {step}": s.lucir(s.budget, step),
            f"LwF+FD {step}": main,
            f"LwF {step}": lwf(s, step),
            f"fine-tuning {step}": finetuning(s, step),
        }
    return {**runs, "joint": s.joint()}


def anchors(s: Setting) -> Runs:
    """iCaRL's Table 1a: LwF.MC and iCaRL, whose hyper-parameters stage 1 takes over."""
    return {
        f"{n} {step}": r for step in s.steps for n, r in (("LwF", lwf(s, step)), ("iCaRL", s.icarl(s.budget, step)))
    }


def quality(s: Setting) -> Runs:
    """Fig. 4: omega of the MLP, and of no map at all, with and without feature distillation."""
    stages = {"with L_FD": s.stage1(), "without L_FD": lwf(s)}
    return {f"{m} {name}": s.adapt(runs, map=m) for name, runs in stages.items() for m in ("mlp", "identity")}


def gammas(s: Setting) -> Runs:
    """Fig. 5 (gamma), on held-out training images: the network's own head, no map, and the MLP."""
    runs = {}
    for gamma in s.gammas:
        stage1 = s.stage1(features=gamma, holdout=0.1, keep="features")
        runs |= {f"head {gamma:g}": stage1, f"mlp {gamma:g}": s.adapt(stage1)}
        runs[f"identity {gamma:g}"] = s.adapt(stage1, map="identity")
    return runs


def validated(s: Setting) -> list[Run]:
    return s.stage1(holdout=0.1, keep="features")


def alphas(s: Setting) -> Runs:
    """Fig. 5 (alpha), on held-out training images."""
    return {str(alpha): s.adapt(validated(s), alpha=alpha) for alpha in s.alphas}


def widths(s: Setting) -> Runs:
    """Fig. 6 (hidden size), on held-out training images: one and two hidden layers."""
    stage1 = validated(s)
    return {
        f"{layers} {expansion}": s.adapt(stage1, hidden_layers=layers, expansion=expansion)
        for layers in (1, 2)
        for expansion in s.expansions
        if layers == 1 or expansion <= 16
    }


def distilled(s: Setting) -> Runs:
    """Table 2: L_KD against L_KD + L_FD, for the network's head and for adapted features; two controls."""
    stages = {
        "L_KD": lwf(s),
        "L_KD + L_FD": s.stage1(),
        "no distillation": finetuning(s),
        "L_KD + L_FD, BatchNorm of task 1": s.stage1(freeze_norms=True, keep="features"),
        "L_KD + LwM's attention": s.stage1(features=0.0, attention=0.1, keep="features"),
    }
    heads = {f"head {name}": runs for name, runs in stages.items()}
    return heads | {f"FA {name}": s.adapt(runs) for name, runs in stages.items()}


def balance(s: Setting) -> Runs:
    """Table 3: classes drawn alike or by their rows, which differ where all current features train g~ too."""
    main, small = s.stage1(), {"features_per_class": s.small}
    return {
        "kept rows": s.adapt(main, **small),
        "all current, balanced": s.adapt(main, **small, current="all"),
        "all current, unbalanced": s.adapt(main, **small, current="all", balanced=False),
    }


def maps(s: Setting) -> Runs:
    """Every map on the same memory and pairs, and two oracles."""
    main = s.stage1()
    runs = {name: s.adapt(main, map=name) for name in MAPS}
    runs["mlp, L_sim alone"] = s.adapt(main, alpha=None)
    runs["mlp on true pairs"] = s.adapt(main, Oracle(map="mlp-true-pairs"))
    return {**runs, "true features": s.adapt(main, Oracle())}


def drift(s: Setting) -> Runs:
    """True against predicted drift: some maps of `maps`."""
    return {name: runs for name, runs in maps(s).items() if name in ("identity", "sdc", "linear", "mlp")}


def choices(s: Setting) -> Runs:
    """What the paper leaves open, one choice changed at a time, on the same run of stage 1."""
    main, small = s.stage1(), {"features_per_class": s.small}
    hybrid = s.stage1(images=s.hybrids[0][0])
    return {
        "default": s.adapt(main, **small),
        "two hidden layers": s.adapt(main, **small, hidden_layers=2),
        "norms matched": s.adapt(main, **small, norm="match"),
        "norms as they come": s.adapt(main, **small, norm="none"),
        "sigmoid classifier": s.adapt(main, **small, loss="sigmoid"),
        "classifier from scratch": s.adapt(main, **small, fresh=True),
        "softmax in stage 1": s.adapt(s.stage1(loss="softmax", keep="features"), **small),
        "hybrid": s.adapt(hybrid, **small),
        "hybrid, exemplars train the map": s.adapt(hybrid, **small, exemplar_pairs=True),
    }
