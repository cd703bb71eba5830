"""The methods of the paper as configurations; the paper's section or equation stands beside each default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from common.runs import Flip, Protocol, Schedule

FINETUNE = Schedule(epochs=20, lr=0.01, milestones=(10,), batch=128, weight_decay=5e-4)
"""Class-balance finetuning (CBF), official code: 20 epochs, x0.1 at 10, fresh optimiser."""

NO_EXEMPLARS = "class-balance finetuning needs exemplars of every old class; give a memory or finetune=None"


@dataclass(frozen=True)
class Base:
    """Cross-entropy on the first classes: what every variant of a head starts from, and joint training (Sec. 4.1)."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "lucir.learner:BaseLearner"
    head: Literal["linear", "cosine"] = "linear"
    """linear: with bias, last ReLU kept (iCaRL, joint). cosine: Eq. 4, last ReLU removed."""
    scale: float | None = None
    """Fixed eta of the cosine head; None: learnable, starting at 1 (official code)."""

    def check(self, protocol: Protocol) -> None:
        """ValueError on a scale that is not positive."""
        check_scale(self.scale)


@dataclass(frozen=True)
class ICaRL:
    """iCaRL as the paper runs it: softmax cross-entropy and distillation, read out by CNN and by NME (Sec. 3.1)."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "lucir.learner:ICaRLLearner"
    temperature: float = 2.0  # Eq. 2
    weight: float = 1.0  # of the batch-mean KL; official code: T^2 * beta = 1
    finetune: Schedule | None = None  # iCaRL-CBF of the supplement
    nme_flip: Flip = "channels"
    """Flips whose features class means average too. channels: the official code on CIFAR; none: that on ImageNet."""

    def check(self, protocol: Protocol) -> None:
        """ValueError on finetuning without exemplars."""
        if self.finetune and protocol.without_memory:
            raise ValueError(NO_EXEMPLARS)


@dataclass(frozen=True)
class LUCIR:
    """Cosine normalisation, less-forget constraint and inter-class separation (Sec. 3.2-3.4)."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "lucir.learner:LUCIRLearner"
    old: Literal["less-forget", "cosine"] = "less-forget"  # Eq. 6, or Eq. 5: the CN ablation's distillation of cosines
    weight: float = 5.0  # lambda_base, Sec. 4.1; 10 on ImageNet
    direction: Literal["code", "paper", "fixed"] = "code"  # Eq. 7 prints the inverse of what the official code computes
    margin: float | None = 0.5  # m of Eq. 8; None: CN + LC
    negatives: int = 2  # K of Eq. 8
    margin_reduction: Literal["mean", "sum_k"] = "mean"  # the code averages over K, Eq. 8 sums
    imprint: bool = True  # official scripts; not in the paper
    finetune: Schedule | None = FINETUNE  # class-balance finetuning, Sec. 4.1 "Ours"; None: CN + LC + IS
    finetune_flag: Literal[1, 2, 3, 4, 5] = 2
    """What CBF trains: 1 new embeddings; 2 all embeddings; 3 everything; 4 and 5 as 2 without the margin loss."""
    scale: float | None = None  # fixed eta of the cosine head; None: learnable
    nme_flip: Flip = "channels"  # of the class means, as in ICaRL

    def check(self, protocol: Protocol) -> None:
        """ValueError on a scale or K below what there is, on finetuning without exemplars, or on fewer new classes than
        the margin loss takes negatives."""
        check_scale(self.scale)
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
    """ValueError on a fixed eta that is not positive."""
    if scale is not None and scale <= 0:
        raise ValueError(f"the scale of a cosine head must be positive, got {scale:g}; None learns it")


Method = Base | ICaRL | LUCIR
