"""What tells one run of the method from another; part of the run's hash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class BalancedReplay:
    """Cross-entropy on new images and exemplars, each class's logit raised by the log of its share of them."""

    version: ClassVar[int] = 1  # raise it when the code changes what a run of the same settings gives
    learner: ClassVar[str] = "own_method.learner:BalancedReplayLearner"
    strength: float = 1.0
