"""The options of the paper's methods. Each default names the paper's section or equation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from common.runs import Flip, Protocol, Schedule

FINETUNE = Schedule(epochs=20, lr=0.01, milestones=(10,), batch=128, weight_decay=5e-4)
"""Class-balance finetuning (CBF) in the official code: 20 epochs with a fresh optimiser, rate times 0.1 at epoch 10."""

NO_EXEMPLARS = "class-balance finetuning needs exemplars of every old class; give a memory or finetune=None"


@dataclass(frozen=True)
class Base:
    """Cross-entropy training: the base model that other methods start from, and joint training (Sec. 4.1)."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "lucir.learner:BaseLearner"
    head: Literal["linear", "cosine"] = "linear"
    """linear: has a bias and keeps the last ReLU (iCaRL, joint). cosine: Eq. 4, without the last ReLU."""
    scale: float | None = None
    """Fixed eta of the cosine head; None: eta is learnt and starts at 1 (official code)."""

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError on a scale that is not positive."""
        check_scale(self.scale)


@dataclass(frozen=True)
class ICaRL:
    """iCaRL as the paper runs it: trained with softmax cross-entropy and distillation, read out by CNN and by NME
    (Sec. 3.1)."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "lucir.learner:ICaRLLearner"
    temperature: float = 2.0  # T of Eq. 2
    weight: float = 1.0  # weight of the distillation, averaged over the batch; official code: T^2 * beta = 1
    finetune: Schedule | None = None  # schedule of class-balance finetuning (iCaRL-CBF of the supplement); None: off
    nme_flip: Flip = "channels"
    """Flipped images that class means include. channels: official code on CIFAR; none: official code on ImageNet."""

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError on numbers that are out of range, or on finetuning without exemplars."""
        if self.weight < 0 or self.temperature <= 0:
            raise ValueError(
                "iCaRL's weight must be 0 or more and its temperature positive, "
                f"got {self.weight:g} and {self.temperature:g}"
            )
        if self.finetune and protocol.without_memory:
            raise ValueError(NO_EXEMPLARS)


@dataclass(frozen=True)
class LUCIR:
    """LUCIR combines cosine normalisation, a less-forget constraint and inter-class separation (Sec. 3.2-3.4)."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "lucir.learner:LUCIRLearner"
    old: Literal["less-forget", "cosine"] = "less-forget"  # loss on old knowledge: Eq. 6, or Eq. 5 (the CN ablation)
    weight: float = 5.0  # lambda_base of Eq. 7 (Sec. 4.1); 10 on ImageNet
    direction: Literal["code", "paper", "fixed"] = "code"  # ratio in Eq. 7, which the paper prints inverted
    margin: float | None = 0.5  # m of Eq. 8; None: no margin loss (CN + LC)
    negatives: int = 2  # K of Eq. 8, nearest new classes that serve as negatives
    margin_reduction: Literal["mean", "sum_k"] = "mean"  # mean over the K negatives (code), or their sum (Eq. 8)
    imprint: bool = True  # whether new embeddings are imprinted, as in the official scripts; not in the paper
    finetune: Schedule | None = FINETUNE  # class-balance finetuning (CBF), Sec. 4.1; None: off (CN + LC + IS)
    finetune_flag: Literal[1, 2, 3, 4, 5] = 2
    """What CBF trains. 1: new embeddings; 2: all embeddings; 3: everything; 4 and 5: like 2, but no margin loss."""
    scale: float | None = None  # fixed eta of the cosine head; None: eta is learnt
    nme_flip: Flip = "channels"  # flipped images that class means include, as in ICaRL

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError on numbers that are out of range, on finetuning without exemplars, or on phases with too few
        new classes for `negatives`."""
        check_scale(self.scale)
        if self.weight < 0 or (self.margin is not None and self.margin < 0):
            raise ValueError(f"LUCIR's weight and margin must be 0 or more, got {self.weight:g} and {self.margin}")
        if self.negatives < 1:
            raise ValueError(f"the margin loss takes 1 or more new classes as negatives, got {self.negatives}")
        if self.finetune and protocol.without_memory:
            raise ValueError(NO_EXEMPLARS)
        smallest = min(protocol.sizes[1:], default=self.negatives)
        if self.margin is not None and smallest < self.negatives:
            raise ValueError(
                f"the margin loss takes K = {self.negatives} new classes as negatives, but a phase has {smallest}; "
                "use fewer and larger phases, or train LUCIR with --negatives 1 or --margin None"
            )


def check_scale(scale: float | None) -> None:
    """Raise ValueError on a fixed eta that is not positive."""
    if scale is not None and scale <= 0:
        raise ValueError(f"the scale of a cosine head must be positive, got {scale:g}; None learns it")


Method = Base | ICaRL | LUCIR
