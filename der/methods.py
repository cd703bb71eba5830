"""The methods of the paper as configurations; the paper's section or equation stands beside each default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from common.runs import ADDED, Protocol, Schedule
from der.schedule import CLASSIFIER

Init = Literal["normal", "uniform"]
Start = Literal["fresh", "inherit"]
UNPRUNED, MASKED, RANDOM = "DER w/o P", "DER", "random channels"
"""Names in figures: without masks, with learned masks and pruning, with as many channels drawn at random."""


@dataclass(frozen=True)
class DER:
    """Dynamically expandable representation; with `sparsity`, extractors are masked and pruned (Sec. 3)."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "der.learner:DERLearner"
    expand: bool = True  # False: the ablation's single network, trained on
    aux: float = 1.0  # lambda_a of Eq. 4, from the second step on
    sparsity: float | None = None  # lambda_s of Eq. 11; None: no masks, "DER w/o P"
    s_max: float = 15.0  # Eq. 8; the paper tunes it and gives no value
    mask_rate: float = 1.0
    """Learning rate of the mask logits over that of the weights; short schedules need more than 1."""
    mask_init: Init = "normal"  # the paper does not say; HAT: N(0, 1), or U(0, 2) to compress
    mask_start: Start = field(default="fresh", metadata=ADDED)
    """Logits of F_t's masks, t > 1: drawn anew, or F_(t-1)'s as they ended, as its state_dict would carry them."""
    mask_groups: Literal["all", "inner"] = field(default="all", metadata=ADDED)
    """inner: only the channels inside blocks have masks; those of the residual streams all stay."""
    mask_bound: float = 6.0  # logits are kept within, as in HAT
    channels: Literal["learned", "random"] = "learned"
    """random: the control, masks drawn at random and held, with as many channels as the Run it starts from kept."""
    recalibrate: bool = True  # BatchNorm measured anew under binary masks; the paper does not say
    init: Literal["previous", "random"] = "previous"  # of F_t, Sec. 3.1
    zero_last: bool = field(default=True, metadata=ADDED)
    """Whether blocks of the networks in `model.ZERO_LAST` start as their shortcuts. The official ResNet-32's do not."""
    classifier: Literal["random", "inherit"] = "random"
    """random: the official code. inherit: the paper's, H_(t-1) as the old block of H_t; with `reset` off."""
    reset: bool = True  # both classifiers start again after the warm-up (official code)
    finetune: Schedule | None = CLASSIFIER  # classifier stage, Sec. 3.4; from the second step on
    temperature: float = 5.0  # delta of the classifier stage; 1 on ImageNet-100
    probe: bool = False
    """Also a read-out by a classifier fitted to all training images of the classes seen, for transfer (Sec. 4)."""

    def check(self, protocol: Protocol) -> None:
        """ValueError on what no run can be."""
        if self.sparsity is not None and self.sparsity < 0:
            raise ValueError(f"lambda_s must not be negative, got {self.sparsity:g}")
        if self.s_max <= 1:
            raise ValueError(f"s_max must exceed 1, got {self.s_max:g}")
        if self.sparsity is None and self.channels == "random":
            raise ValueError("random channels need masks: give lambda_s")
        if self.classifier == "inherit" and self.reset:
            raise ValueError("what is inherited would start again after the warm-up: give reset=False with 'inherit'")
        if self.sparsity is not None and not self.expand:
            raise ValueError("a single network that is trained on cannot be pruned after each step")
        if self.finetune and protocol.without_memory:
            raise ValueError("the classifier stage needs exemplars of every old class; give a memory or finetune=None")


@dataclass(frozen=True)
class WA:
    """Maintaining Discrimination and Fairness (Zhao et al., CVPR 2020) in DER's recipe: weight aligning."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "der.baselines:WALearner"
    temperature: float = 2.0
    reset: bool = True


BIAS = Schedule(epochs=30, lr=0.05, milestones=(15,), batch=128, weight_decay=0.0)
"""Bias correction has two numbers a step to learn; the code DER used for BiC is not released."""


@dataclass(frozen=True)
class BiC:
    """Large Scale Incremental Learning (Wu et al., CVPR 2019) in DER's recipe: distillation, then bias correction."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "der.baselines:BiCLearner"
    temperature: float = 2.0
    held_out: float = 0.1  # share of the exemplars kept for bias correction, as many of each new class
    bias: Schedule = BIAS
    reset: bool = False  # DER's recipe has it, BiC's own code does not; which the paper ran is not known

    def check(self, protocol: Protocol) -> None:
        """ValueError without exemplars to hold out."""
        if protocol.without_memory:
            raise ValueError("bias correction needs exemplars of every old class")


Method = DER | WA | BiC
