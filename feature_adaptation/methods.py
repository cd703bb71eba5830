"""Configurations of the methods. The paper's section or equation stands beside each default.

The paper's code is not public, and many of its values are not known. "our choice" marks a value of this reproduction.
README.md lists them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from common.runs import Flip, Protocol, Run, Schedule
from lucir.methods import LUCIR

Map = Literal["mlp", "residual", "linear", "sdc", "shift", "identity"]
OracleMap = Literal["mlp-true-pairs", "true"]
ROWS_PER_IMAGE = 100  # features that train in about the time of one image; estimates of the time left use it


@dataclass(frozen=True)
class Recipe:
    """How a small network on features is trained. The learning rate falls along a half cosine over `steps` steps."""

    steps: int
    lr: float
    optimiser: Literal["adam", "sgd"]
    batch: int = 128
    weight_decay: float = 0.0

    def check(self) -> None:
        """Raise ValueError on numbers that no training can have."""
        if self.steps < 0 or self.batch < 1 or self.lr < 0 or self.weight_decay < 0:
            raise ValueError(
                "steps, learning rate and weight decay must be 0 or more and a batch 1 or more, got "
                f"{self.steps}, {self.lr:g}, {self.weight_decay:g} and {self.batch}"
            )


ADAPTER = Recipe(steps=1500, lr=1e-3, optimiser="adam")  # our choice: about 40 epochs of 4,500 pairs
CLASSIFIER = Recipe(steps=1500, lr=0.1, optimiser="sgd", weight_decay=1e-4)  # our choice


@dataclass(frozen=True)
class Extractor:
    """Stage 1 trains the network on the current task's images (Eq. 2-6). iCaRL and others have only this stage."""

    version: ClassVar[int] = 2
    learner: ClassVar[str] = "feature_adaptation.extractor:ExtractorLearner"
    loss: Literal["sigmoid", "softmax"] = "sigmoid"  # sigmoid: as in iCaRL
    nodes: Literal["all", "seen"] = "all"
    """The classes over which the sigmoid loss is a mean.
    all: all classes of the Run from task 1 on, with target 0 for those to come, as in iCaRL's code.
    seen: the classes seen so far, as in iCaRL's Algorithm 3, which needs a smaller learning rate."""
    distillation: float = 1.0  # lambda of Eq. 4, the weight of distillation; 0: none
    features: float = 0.0  # gamma of Eq. 6, the weight of feature distillation; the paper's value is not known
    attention: float = 0.0  # weight of LwM's attention distillation, which is not part of the paper's loss
    temperature: float = 2.0  # temperature of softmax distillation; sigmoid distillation has none
    final_relu: bool = False  # our choice: features have either sign, as in iCaRL's code; True: the ResNet as published
    per_task: bool = False  # EEIL: distillation has one softmax for each task
    finetune: Schedule | None = None  # EEIL: balanced fine-tuning on the exemplars; None: left out
    nme_flip: Flip = "none"  # NME averages an exemplar with its image flipped like this; iCaRL's code: horizontal
    frozen: bool = False  # control: the extractor stays as task 1 left it, and only the head is trained
    freeze_norms: bool = False  # control: BatchNorm's statistics and weights stay as task 1 left them
    holdout: float = 0.0  # share of the training images to test on instead, to choose hyper-parameters
    keep: Literal["nothing", "features", "truth"] = "nothing"
    """What the run leaves on disk for stages 2 and 3. nothing: no features. features: those of the current images.
    truth: those of old images too, which only evaluation and the oracles read."""

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError on numbers out of range, fine-tuning without exemplars, or attention when frozen."""
        if not 0 <= self.holdout < 1:
            raise ValueError(f"holdout must be a share below 1, got {self.holdout:g}")
        if self.temperature <= 0 or min(self.distillation, self.features, self.attention) < 0:
            raise ValueError(
                "the temperature must be positive, and the weights of distillation, features and attention 0 or more, "
                f"got {self.temperature:g}, {self.distillation:g}, {self.features:g} and {self.attention:g}"
            )
        if self.finetune and protocol.without_memory:
            raise ValueError("balanced fine-tuning needs exemplars")
        if self.attention and self.frozen:
            raise ValueError("a frozen extractor has no attention to distil")


@dataclass(frozen=True)
class Adaptation:
    """Stages 2 and 3 train a map and a classifier on the features that an Extractor's run has kept (Eq. 7, Sec. 3)."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "feature_adaptation.learner:AdaptationLearner"
    starts_from: ClassVar[str] = "a run of Extractor with keep=features or keep=truth"
    needs: ClassVar[tuple[str, ...]] = ("features", "truth")
    """What the Extractor may have kept."""
    map: Map = "mlp"
    """The map that moves old features into the new space. mlp: the paper's.
    residual, linear, sdc, shift, identity: maps that the paper's is compared with."""
    features_per_class: int | None = None  # L, the features kept of each class, first in herding order; None: all
    alpha: float | None = 100.0  # our choice: the weight of L_sim in Eq. 7; None: L_sim alone
    hidden_layers: int = 1  # our choice; 1 is Linear, ReLU, Linear
    expansion: int = 16  # hidden units for each feature dimension: d' = 16 d
    sigma: float = 0.3  # bandwidth of SDC, on unit-norm features
    norm: Literal["unit", "match", "none"] = "unit"
    """The norm of features that classifiers see, since L_sim leaves the norm free.
    unit: all have the mean norm of the current features. match: a mapped feature keeps the norm it had.
    none: norms stay as they come."""
    exemplar_pairs: bool = False  # hybrid: whether the exemplars' pairs train the map too
    loss: Literal["sigmoid", "softmax"] = "softmax"  # our choice: the loss of the feature classifier
    balanced: bool = True  # Sec. 3: whether features of small classes are sampled more often
    current: Literal["kept", "all"] = "kept"
    """Which features of the current classes train the feature classifier. kept: those in the memory.
    all: all of them, since they are still at hand."""
    fresh: bool = False  # whether the feature classifier starts from random weights instead of stage 1's head
    adapter: Recipe = ADAPTER  # how the map is trained
    classifier: Recipe = CLASSIFIER  # how the feature classifier is trained

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError on numbers out of range, a memory that is empty or a total, and pairs without exemplars."""
        if self.map in ("mlp", "residual", "mlp-true-pairs") and min(self.hidden_layers, self.expansion) < 1:
            raise ValueError(
                f"hidden_layers and expansion must be at least 1, got {self.hidden_layers} and {self.expansion}"
            )
        if self.map == "sdc" and self.sigma <= 0:
            raise ValueError(f"sigma must be positive, got {self.sigma:g}")
        if self.alpha is not None and self.alpha <= 0:
            raise ValueError(f"alpha must be positive, or None for L_sim alone, got {self.alpha:g}")
        if self.features_per_class is not None and self.features_per_class < 0:
            raise ValueError(f"features_per_class must be at least 0, got {self.features_per_class}")
        if self.features_per_class == 0 and not protocol.exemplars_per_class:
            raise ValueError("no features and no images per class leave nothing to train the classifier on")
        if protocol.exemplars_total is not None:
            raise ValueError("stages 2 and 3 keep a number of images a class, not a total")
        if self.exemplar_pairs and not protocol.exemplars_per_class:
            raise ValueError("exemplar_pairs needs images per class")

    def accepts(self, start: Run) -> bool:
        """Return whether the start has kept the features that are needed."""
        return isinstance(start.method, Extractor) and start.method.keep in self.needs

    def cost(self, run: Run, images: int) -> int:
        """Return the number of features that all phases train on, divided by `ROWS_PER_IMAGE`. No image is opened."""
        phases, trained = len(run.protocol.sizes), self.map in ("mlp", "residual", "mlp-true-pairs")
        adapter = (phases - 1) * self.adapter.steps * self.adapter.batch if trained else 0
        return (adapter + phases * self.classifier.steps * self.classifier.batch) // ROWS_PER_IMAGE


@dataclass(frozen=True)
class Oracle(Adaptation):
    """A reference, not a method: its memory looks at the true features of old images.

    mlp-true-pairs: the MLP is fitted to the old images' own pairs. true: the memory holds the true features.
    """

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "feature_adaptation.learner:OracleLearner"
    starts_from: ClassVar[str] = "a run of Extractor with keep=truth"
    needs: ClassVar[tuple[str, ...]] = ("truth",)
    map: OracleMap = "true"  # type: ignore[assignment]


Method = Extractor | Adaptation | Oracle | LUCIR
