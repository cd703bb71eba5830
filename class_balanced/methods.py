"""The paper's method as a configuration. The paper's section or equation stands beside each default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from common.imbalance import Baseline
from common.runs import ADDED, Protocol

Kind = Literal["softmax", "sigmoid", "focal"]
Reduction = Literal["batch", "weighted_mean"]


@dataclass(frozen=True)
class ClassBalanced:
    """A base loss with class-balanced weights (Sec. 4.1 to 4.3). beta = 0 gives the base loss itself."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "class_balanced.learner:ClassBalancedLearner"
    loss: Kind = "softmax"  # the base loss; only focal takes a gamma, the others need --gamma 0
    beta: float = 0.0  # Eq. 6: weights 1 / E_n, E_n = (1 - beta^n) / (1 - beta)
    gamma: float = 0.0  # gamma of the focal loss (Eq. 11), which is the sigmoid loss at 0
    reduction: Reduction = "batch"  # sum / batch size, as in the official code; weighted_mean: sum / sum of weights
    recipe: Literal["cifar", "imagenet"] = field(default="cifar", metadata=ADDED)
    """How the classifier starts and what does not decay.
    cifar: Glorot's weights; only the starting bias of sigmoid and focal does not decay.
    imagenet: weights of standard deviation 0.01; biases and BatchNorm do not decay."""

    bias_start: Literal["prior", "zero"] = field(default="prior", metadata=ADDED)
    """The starting bias of the sigmoid and focal losses. zero: 0.
    prior: -log(C - 1), so that every class starts at p = 1/C (Sec. 5.2)."""

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError on a beta outside [0, 1), a negative gamma, or a gamma with another loss than focal."""
        if not 0 <= self.beta < 1:
            raise ValueError(f"beta must lie in [0, 1), got {self.beta:g}")
        if self.gamma < 0:
            raise ValueError(f"gamma must not be negative, got {self.gamma:g}")
        if self.gamma and self.loss != "focal":
            raise ValueError(f"gamma belongs to the focal loss; with {self.loss} it must be 0, not {self.gamma:g}")


Method = ClassBalanced | Baseline
