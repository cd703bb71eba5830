"""Class weights by effective number, and the options of the baselines that long-tailed papers compare with.

`common.rebalance` holds the losses and learners of these baselines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from common.runs import ADDED, Protocol
from common.samplers import Kind


def effective_number(counts: Sequence[int] | np.ndarray, beta: float) -> np.ndarray:
    """Return E_n = (1 - beta^n) / (1 - beta) for every count n (Cui et al. 2019, Prop. 1); float64, shaped as `counts`.

    E_n is 1 at beta = 0, and approaches n as beta approaches 1. Raises ValueError on beta outside [0, 1) or a count
    below 1.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must lie in [0, 1), got {beta:g}; at 1 the effective number is n itself, weights 1/n")
    counts = np.asarray(counts, dtype=np.float64)
    if not counts.size or not (counts >= 1).all():
        raise ValueError("every class needs at least one image, but a count is below 1; leave empty classes out")
    if beta == 0:
        return np.ones_like(counts)
    return -np.expm1(counts * np.log(beta)) / (1 - beta)  # stays exact where beta^n is nearly 1


def class_weights(counts: Sequence[int] | np.ndarray, beta: float) -> np.ndarray:
    """Return weights in proportion to 1 / E_n that sum to the number of classes (Cui et al. 2019, Sec. 4); float64 [C].

    counts [C]: images of every class in the whole training set. Raises the ValueErrors of `effective_number`.
    """
    inverse = 1 / effective_number(counts, beta)
    return inverse * (inverse.size / inverse.sum())


@dataclass(frozen=True)
class Rebalance:
    """One-stage baselines that combine a loss with re-weighting or re-sampling, from the first epoch or deferred.

    CE and focal need no further option. RW sets `beta`, RS sets `sampler`; DRW and DRS set `defer` too. LDAM is a loss
    (Cao et al. 2019 and its official code).
    """

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "common.rebalance:RebalanceLearner"
    loss: Literal["ce", "focal", "ldam"] = "ce"
    gamma: float = 1.0
    """Exponent of the focal loss, which uses the softmax probability of the true class (LDAM's official code)."""
    margin: float = 0.5
    """LDAM's largest margin, that of the smallest class. The other margins are in proportion to n^(-1/4)."""
    scale: float = 30.0
    """Factor of LDAM's cosines."""
    beta: float = 0.0
    """beta of the effective numbers that class weights come from; 0: no weights. LDAM's code uses 0.9999."""
    sampler: Kind = "uniform"
    defer: int = 0
    """First epoch in which weights and sampler are used: 160 of 200 in DRW and DRS, 0 in RW and RS."""
    reduction: Literal["batch", "weighted_mean"] = "weighted_mean"
    """Whether weighted losses are divided by the batch size, or by the sum of their weights (PyTorch, LDAM's code)."""
    head_start: Literal["uniform", "ldam", "bbn"] = field(default="uniform", metadata=ADDED)
    """How the classifier is initialised. uniform: as PyTorch does. ldam: He's normal, or rows of norm 1 under LDAM's
    loss (LDAM's code). bbn: columns of norm 1 under LDAM's loss (FCNorm of BBN's code), else uniform."""

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError on options that cannot be trained with."""
        effective_number([1], self.beta)
        if self.gamma < 0 or not self.margin >= 0 or not self.scale > 0 or self.defer < 0:
            raise ValueError(f"gamma, margin and defer must not be negative, and scale must be positive: {self}")


@dataclass(frozen=True)
class Retrain:
    """cRT: trains the classifier anew on the features of the Run it starts from (Kang et al. 2020, Sec. 4.1)."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "common.rebalance:RetrainLearner"
    starts_from: ClassVar[str] = "a run whose features it keeps"
    sampler: Kind = "balanced"
    beta: float = 0.0
    """beta of the effective numbers that class weights come from; 0: no weights."""
    fresh: bool = True
    """Whether the classifier is initialised anew, as in the paper."""
    norms: Literal["frozen", "train"] = field(default="frozen", metadata=ADDED)
    """BatchNorm's mode. frozen: eval. train: uses batch statistics, updates the running ones (Kang et al.'s code)."""

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError on a beta outside [0, 1)."""
        effective_number([1], self.beta)


Baseline = Rebalance | Retrain
