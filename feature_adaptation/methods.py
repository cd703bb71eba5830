"""The methods as configurations; the paper's section or equation stands beside each default.

No code is public and many values are not known. "ours" marks a choice of this reproduction; README.md lists them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from common.runs import Flip, Protocol, Run, Schedule
from lucir.methods import LUCIR

Map = Literal["mlp", "residual", "linear", "sdc", "shift", "identity"]
OracleMap = Literal["mlp-true-pairs", "true"]
ROWS_PER_IMAGE = 100  # features trained on in about the time of one image, for estimates of the time left


@dataclass(frozen=True)
class Recipe:
    """How a small network on features is trained: a number of steps, its rate falling along a half cosine."""

    steps: int
    lr: float
    optimiser: Literal["adam", "sgd"]
    batch: int = 128
    weight_decay: float = 0.0


ADAPTER = Recipe(steps=1500, lr=1e-3, optimiser="adam")  # ours: about 40 epochs of 4,500 pairs
CLASSIFIER = Recipe(steps=1500, lr=0.1, optimiser="sgd", weight_decay=1e-4)  # ours


@dataclass(frozen=True)
class Extractor:
    """Stage 1: the network, trained on the current task's images (Eq. 2-6), and the baselines that stop there."""

    version: ClassVar[int] = 2
    learner: ClassVar[str] = "feature_adaptation.extractor:ExtractorLearner"
    loss: Literal["sigmoid", "softmax"] = "sigmoid"  # as iCaRL
    nodes: Literal["all", "seen"] = "all"
    """What the sigmoid loss is a mean over: all classes of the Run from task 1 on, those to come with target 0 (iCaRL's
    code), or the classes seen so far (iCaRL's Algorithm 3), which needs a smaller learning rate."""
    distillation: float = 1.0  # lambda of Eq. 4; 0: none
    features: float = 0.0  # gamma of Eq. 6, feature distillation; its value in the paper is not known
    attention: float = 0.0  # of LwM's attention distillation; not part of the paper's total
    temperature: float = 2.0  # of distillation with softmax; with sigmoid there is none
    final_relu: bool = False  # ours: features of either sign, as in iCaRL's code; True: the ResNet as published
    per_task: bool = False  # EEIL: one softmax a task in the distillation
    finetune: Schedule | None = None  # EEIL: balanced fine-tuning on the exemplars
    nme_flip: Flip = "none"  # of exemplars whose features are averaged with the image's own; iCaRL's code: horizontal
    frozen: bool = False  # control: the extractor of task 1 for ever, its head alone is trained
    freeze_norms: bool = False  # control: BatchNorm's statistics and weights stay as task 1 left them
    holdout: float = 0.0  # share of the training images to test on instead, for hyper-parameters
    keep: Literal["nothing", "features", "truth"] = "nothing"
    """What to leave for stages 2 and 3: nothing; the current images' features; also those of old images, which
    only evaluation and the oracles read."""

    def check(self, protocol: Protocol) -> None:
        """ValueError on a share that is none, or fine-tuning without exemplars."""
        if not 0 <= self.holdout < 1:
            raise ValueError(f"holdout must be a share below 1, got {self.holdout:g}")
        if self.finetune and protocol.without_memory:
            raise ValueError("balanced fine-tuning needs exemplars")
        if self.attention and self.frozen:
            raise ValueError("a frozen extractor has no attention to distil")


@dataclass(frozen=True)
class Adaptation:
    """Stages 2 and 3, from the features that an Extractor's run has kept (Eq. 7, Sec. 3)."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "feature_adaptation.learner:AdaptationLearner"
    map: Map = "mlp"
    """mlp: the paper's. residual, linear, sdc, shift, identity: what it is compared with."""
    features_per_class: int | None = None  # L, the first in herding order; None: all
    alpha: float | None = 100.0  # of L_sim in Eq. 7, ours; None: L_sim alone
    hidden_layers: int = 1  # ours: Linear, ReLU, Linear
    expansion: int = 16  # hidden units a feature dimension, d' = 16 d
    sigma: float = 0.3  # of SDC, on unit features
    norm: Literal["unit", "match", "none"] = "unit"
    """Of features before the classifiers, since L_sim leaves the norm free. unit: all at the current mean norm;
    match: a mapped feature keeps the norm it had; none: as they come."""
    exemplar_pairs: bool = False  # hybrid: the exemplars' pairs train the map too
    loss: Literal["sigmoid", "softmax"] = "softmax"  # of the feature classifier, ours
    balanced: bool = True  # Sec. 3: features of small classes are drawn more often
    current: Literal["kept", "all"] = "kept"
    """Features of the current classes that train the feature classifier: those kept, or all, as they are at hand."""
    fresh: bool = False  # the feature classifier starts anew instead of from stage 1's head
    adapter: Recipe = ADAPTER
    classifier: Recipe = CLASSIFIER

    def check(self, protocol: Protocol) -> None:
        """ValueError on a memory that does not exist."""
        if self.features_per_class is not None and self.features_per_class < 0:
            raise ValueError(f"features_per_class must be at least 0, got {self.features_per_class}")
        if self.features_per_class == 0 and not protocol.exemplars_per_class:
            raise ValueError("no features and no images per class leave nothing to train the classifier on")
        if protocol.exemplars_total is not None:
            raise ValueError("stages 2 and 3 keep a number of images a class, not a total")
        if self.exemplar_pairs and not protocol.exemplars_per_class:
            raise ValueError("exemplar_pairs needs images per class")

    def cost(self, run: Run, images: int) -> int:
        """What all phases train on, in images' worth: features alone, however many images there are."""
        phases, trained = len(run.protocol.sizes), self.map in ("mlp", "residual", "mlp-true-pairs")
        adapter = (phases - 1) * self.adapter.steps * self.adapter.batch if trained else 0
        return (adapter + phases * self.classifier.steps * self.classifier.batch) // ROWS_PER_IMAGE


@dataclass(frozen=True)
class Oracle(Adaptation):
    """A memory that looks at the true features of old images: a bound, not a method.

    mlp-true-pairs: the MLP fitted to old images' own pairs; true: their features themselves.
    """

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "feature_adaptation.learner:OracleLearner"
    map: OracleMap = "true"  # type: ignore[assignment]


Method = Extractor | Adaptation | Oracle | LUCIR
