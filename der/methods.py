"""Configurations of the paper's methods. The paper's section or equation stands beside each default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from common.runs import ADDED, Protocol, Run, Schedule
from der.schedule import CLASSIFIER

Init = Literal["normal", "uniform"]
Start = Literal["fresh", "inherit"]
UNPRUNED, MASKED, RANDOM = "DER w/o P", "DER", "random channels"
"""Names in figures: DER without masks, with learned masks and pruning, and with as many channels chosen at random."""


@dataclass(frozen=True)
class DER:
    """DER (Sec. 3) adds a new feature extractor in every step. With `sparsity`, extractors are masked and pruned."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "der.learner:DERLearner"
    expand: bool = True  # False: the ablation with a single network, which every step trains on
    aux: float = 1.0  # lambda_a of Eq. 4, which applies from the second step on
    sparsity: float | None = None  # lambda_s of Eq. 11; None: neither masks nor pruning ("DER w/o P")
    s_max: float = 15.0  # s_max of Eq. 8; the paper tunes this value and does not print it
    mask_rate: float = 1.0
    """The learning rate of the mask logits as a multiple of that of the weights. Short schedules need more than 1."""
    mask_init: Init = "normal"  # HAT's starts of mask logits: N(0, 1), or U(0, 2) to compress; the paper names none
    mask_start: Start = field(default="fresh", metadata=ADDED)
    """Where the mask logits of F_t start, for t > 1. fresh: sampled anew.
    inherit: at the final mask logits of F_(t-1), as loading its state_dict would do."""
    mask_groups: Literal["all", "inner"] = field(default="all", metadata=ADDED)
    """Which channels have masks. all: every channel.
    inner: only those inside blocks, so that all channels of the residual streams stay."""
    mask_bound: float = 6.0  # mask logits are clamped to -mask_bound..mask_bound, as in HAT
    channels: Literal["learned", "random"] = "learned"
    """learned: masks are trained. random: a control whose masks are chosen at random and then held.
    In every group it keeps as many channels as the Run that it starts from did."""
    recalibrate: bool = True  # whether BatchNorm is measured again under binary masks; the paper does not say
    init: Literal["previous", "random"] = "previous"  # what F_t starts from: F_(t-1) (Sec. 3.1), or random weights
    zero_last: bool = field(default=True, metadata=ADDED)
    """Whether the blocks of networks in `model.ZERO_LAST` start as their shortcuts, with a last gamma of 0.
    The official ResNet-32's blocks do not."""
    classifier: Literal["random", "inherit"] = "random"
    """How H_t starts. random: with random weights, as in the official code.
    inherit: with H_(t-1) as its old block, as in the paper; this needs `reset` off."""
    reset: bool = True  # whether both classifiers start again after the warm-up, as in the official code
    finetune: Schedule | None = CLASSIFIER  # the classifier stage (Sec. 3.4), from the second step on; None: left out
    temperature: float = 5.0  # delta, which divides the logits in the classifier stage; 1 on ImageNet-100
    probe: bool = False
    """Whether to add a read-out for the transfer figure (Sec. 4).
    It is a classifier that is fitted to all training images of the classes seen."""

    @property
    def starts_from(self) -> str:
        """From what run these options need to start, if any: see `Run.check`."""
        return "a run of DER with masks, which says how many channels to keep" if self.channels == "random" else ""

    def accepts(self, start: Run) -> bool:
        """Return whether the start has masks."""
        return isinstance(start.method, DER) and start.method.sparsity is not None

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError on a value out of range, and on options that contradict each other or the protocol."""
        if self.sparsity is not None and self.sparsity < 0:
            raise ValueError(f"lambda_s must not be negative, got {self.sparsity:g}")
        if self.aux < 0 or self.temperature <= 0:
            raise ValueError(
                f"lambda_a must be 0 or more and the temperature positive, got {self.aux:g} and {self.temperature:g}"
            )
        if self.s_max <= 1:
            raise ValueError(f"s_max must exceed 1, got {self.s_max:g}")
        if self.mask_rate < 0 or self.mask_bound <= 0:
            raise ValueError(
                f"mask_rate must be 0 or more and mask_bound positive, got {self.mask_rate:g} and {self.mask_bound:g}"
            )
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
    """WA, weight aligning, in DER's recipe (Zhao et al., Maintaining Discrimination and Fairness, CVPR 2020)."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "der.baselines:WALearner"
    temperature: float = 2.0  # temperature of distillation
    reset: bool = True  # whether the classifier starts again after the warm-up

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError on a temperature that is not positive."""
        if self.temperature <= 0:
            raise ValueError(f"WA's temperature must be positive, got {self.temperature:g}")


BIAS = Schedule(epochs=30, lr=0.05, milestones=(15,), batch=128, weight_decay=0.0)
"""The schedule of BiC's bias correction, which learns two numbers a step. The code that DER used for BiC is not
released."""


@dataclass(frozen=True)
class BiC:
    """BiC: distillation, then bias correction, in DER's recipe (Wu et al., Large Scale Incremental Learning, 2019)."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "der.baselines:BiCLearner"
    temperature: float = 2.0
    held_out: float = 0.1  # share of the exemplars held out for bias correction, with as many images of each new class
    bias: Schedule = BIAS
    reset: bool = False
    """Whether the classifier starts again after the warm-up. DER's recipe does this, BiC's own code does not.
    Which of the two the DER paper ran is not known."""

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError on numbers out of range, and where no exemplar of a class is left once one is held out."""
        if self.temperature <= 0 or not 0 < self.held_out < 1:
            raise ValueError(
                "BiC's temperature must be positive and held_out a share between 0 and 1, "
                f"got {self.temperature:g} and {self.held_out:g}"
            )
        if protocol.without_memory:
            raise ValueError("bias correction needs exemplars of every old class")
        if len(protocol.sizes) > 1 and protocol.fewest_exemplars < 2:
            raise ValueError(
                "bias correction holds out one exemplar of each old class, so that a memory of one leaves none to "
                "train on; keep two or more of each class"
            )


Method = DER | WA | BiC
