"""The method of the paper as a configuration; the paper's section or equation stands beside each default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from common.imbalance import Baseline
from common.runs import ADDED, Protocol

Kind = Literal["softmax", "sigmoid", "focal"]
Reduction = Literal["batch", "weighted_mean"]


@dataclass(frozen=True)
class ClassBalanced:
    """A base loss and its class-balanced form (Sec. 4.1 to 4.3); beta = 0 is the base loss itself."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "class_balanced.learner:ClassBalancedLearner"
    loss: Kind = "softmax"  # the base loss; focal takes a gamma, the others --gamma 0
    beta: float = 0.0  # Eq. 6: weights 1 / E_n, E_n = (1 - beta^n) / (1 - beta)
    gamma: float = 0.0  # Eq. 11, of the focal loss; at 0 it is the sigmoid loss
    reduction: Reduction = "batch"  # the official sum / batch size; weighted_mean is what ports use
    recipe: Literal["cifar", "imagenet"] = field(default="cifar", metadata=ADDED)
    """cifar: Glorot's classifier, only a starting bias not decayed. imagenet: N(0, 0.01), nor any bias or BatchNorm."""

    bias_start: Literal["prior", "zero"] = field(default="prior", metadata=ADDED)
    """Of the sigmoid and focal losses: -log(C - 1), so that every class starts at 1/C (Sec. 5.2), or 0."""

    def check(self, protocol: Protocol) -> None:
        """ValueError on a beta outside [0, 1), a negative gamma, or a gamma where it has no meaning."""
        if not 0 <= self.beta < 1:
            raise ValueError(f"beta must lie in [0, 1), got {self.beta:g}")
        if self.gamma < 0:
            raise ValueError(f"gamma must not be negative, got {self.gamma:g}")
        if self.gamma and self.loss != "focal":
            raise ValueError(f"gamma belongs to the focal loss; with {self.loss} it must be 0, not {self.gamma:g}")


Method = ClassBalanced | Baseline
