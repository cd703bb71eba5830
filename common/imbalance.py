"""Class weights by effective number, and the baselines that long-tailed papers compare with, as configurations.

`rebalance` has their losses and learners.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from common.runs import ADDED, Protocol
from common.samplers import Kind


def effective_number(counts: Sequence[int] | np.ndarray, beta: float) -> np.ndarray:
    """E_n = (1 - beta^n) / (1 - beta) of Cui et al. (2019), Prop. 1; float64, of the shape of `counts`.

    1 at beta = 0 and near n as beta nears 1. Raises ValueError on beta outside [0, 1) or a count below 1.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must lie in [0, 1), got {beta:g}; at 1 the effective number is n itself, weights 1/n")
    counts = np.asarray(counts, dtype=np.float64)
    if not counts.size or not (counts >= 1).all():
        raise ValueError("every class needs at least one image, but a count is below 1; leave empty classes out")
    if beta == 0:
        return np.ones_like(counts)
    return -np.expm1(counts * np.log(beta)) / (1 - beta)  # exact also where beta^n is all but 1


def class_weights(counts: Sequence[int] | np.ndarray, beta: float) -> np.ndarray:
    """Weights proportional to 1 / E_n that sum to the number of classes (Cui et al. 2019, Sec. 4). float64 [C].

    counts [C]: images of every class in the whole training set. Raises ValueError as `effective_number`.
    """
    inverse = 1 / effective_number(counts, beta)
    return inverse * (inverse.size / inverse.sum())


@dataclass(frozen=True)
class Rebalance:
    """One-stage baselines: a loss, re-weighting and re-sampling, each from the start or deferred.

    CE and focal by default settings; RW: weights; RS: sampler; DRW and DRS: the same with `defer`; LDAM: loss (Cao et
    al. 2019, and its official code).
    """

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "common.rebalance:RebalanceLearner"
    loss: Literal["ce", "focal", "ldam"] = "ce"
    gamma: float = 1.0
    """Of the focal loss, on the softmax's probability of the true class (LDAM's official code)."""
    margin: float = 0.5
    """Largest margin of LDAM, that of the smallest class; the others' are in proportion to n^(-1/4)."""
    scale: float = 30.0
    """Of LDAM's cosines."""
    beta: float = 0.0
    """Class weights by effective number; 0: none. LDAM's code re-weights by 0.9999."""
    sampler: Kind = "uniform"
    defer: int = 0
    """Epoch from which weights and sampler hold: 160 of 200 in DRW and DRS, 0 in RW and RS."""
    reduction: Literal["batch", "weighted_mean"] = "weighted_mean"
    """Weighted losses over the batch size, or over the sum of their weights as in PyTorch and LDAM's code."""
    head_start: Literal["uniform", "ldam", "bbn"] = field(default="uniform", metadata=ADDED)
    """Fresh classifier: uniform, as PyTorch's; ldam: from He's normal, or under LDAM's loss rows of norm 1 (its code);
    bbn: under LDAM's loss columns of norm 1 (FCNorm of BBN's code), else uniform."""

    def check(self, protocol: Protocol) -> None:
        """ValueError on settings that no training can have."""
        effective_number([1], self.beta)
        if self.gamma < 0 or not self.margin >= 0 or not self.scale > 0 or self.defer < 0:
            raise ValueError(f"gamma, margin and defer must not be negative, and scale must be positive: {self}")


@dataclass(frozen=True)
class Retrain:
    """cRT: the classifier trained anew on the features of the Run it starts from (Kang et al. 2020, Sec. 4.1)."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "common.rebalance:RetrainLearner"
    sampler: Kind = "balanced"
    beta: float = 0.0
    """Class weights by effective number; 0: none."""
    fresh: bool = True
    """Whether the classifier is initialised anew; the paper does."""
    norms: Literal["frozen", "train"] = field(default="frozen", metadata=ADDED)
    """BatchNorm in eval mode, or in train mode as in Kang et al.'s code: by batch statistics, which are averaged on."""

    def check(self, protocol: Protocol) -> None:
        """ValueError on a beta outside [0, 1)."""
        effective_number([1], self.beta)


Baseline = Rebalance | Retrain
