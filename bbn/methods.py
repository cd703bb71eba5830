"""The options of the paper's method and of its own baselines. Each default names its source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from bbn.adaptor import Kind as Adaptor
from bbn.adaptor import Offset
from class_balanced.methods import ClassBalanced
from common.imbalance import Baseline, Rebalance, effective_number
from common.runs import ADDED, Protocol, Run

Sampler = Literal["reversed", "balanced", "uniform"]
TESTING = {"rb": 0.0, "alpha 0.25": 0.25, "cnn": 0.5, "alpha 0.75": 0.75, "cb": 1.0}
"""BBN's read-out -> alpha in testing. The paper uses 0.5 (Sec. 4.3). At 0 and 1, one branch predicts alone."""


@dataclass(frozen=True)
class BBN:
    """BBN has two branches on a shared trunk. Cumulative learning shifts from one branch to the other (Sec. 4)."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "bbn.learner:BBNLearner"
    adaptor: Adaptor = "parabolic_decay"  # how alpha changes over the epochs (Algorithm 1 and Table 4)
    offset: Offset = "official"  # alpha is a function of (T - 1) / Tmax in the code (official), T / Tmax in the paper
    sampler: Sampler = "reversed"  # sampler of the re-balancing branch (Eq. 4, Table 3), always with replacement
    passes: Literal["separate", "concatenated"] = "separate"
    """How both batches pass the trunk. separate: each has its own BatchNorm statistics (code). concatenated: as one."""
    stretch: float = field(default=1.0, metadata=ADDED)
    """Tmax over the number of epochs, for the official offset. The code uses Tmax = 100 for iNaturalist's 90 epochs."""

    def cost(self, run: Run, images: int) -> int:
        """Return the number of training images of `run`, which has two samplers. images: the number for one."""
        return 2 * images

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError on a stretch that would make alpha negative."""
        if not self.stretch >= 1:
            raise ValueError(f"stretch must be at least 1, got {self.stretch:g}")


@dataclass(frozen=True)
class Probe:
    """Trains a new classifier on one branch's frozen features (Table 5). It starts from a run of BBN."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "bbn.learner:ProbeLearner"
    starts_from: ClassVar[str] = "a run of BBN"
    branch: Literal["cb", "rb"] = "cb"
    norms: ClassVar[Literal["frozen"]] = "frozen"
    sampler: Literal["uniform", "balanced"] = "uniform"  # not in the paper; uniform as for the CE classifier of Fig. 2
    beta: float = 0.0

    def accepts(self, start: Run) -> bool:
        """Return whether the start has the branches of BBN."""
        return isinstance(start.method, BBN)

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError on a beta outside [0, 1)."""
        effective_number([1], self.beta)


@dataclass(frozen=True)
class Mixup:
    """Trains on mixed images (mixup, Zhang et al. 2018) or mixed features (manifold mixup, Verma et al. 2019)."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "bbn.baselines:MixupLearner"
    layer: Literal["input", "features"] = "input"
    """What is mixed. features: the pooled features, as in BagofTricks-LT; the paper names no layer."""
    strength: float = 1.0  # both parameters of the share's beta distribution: 1 in BagofTricks-LT; not in the paper
    partners: Literal["batch", "reversed"] = "batch"  # where partners come from; reversed: Table 1's "two samplers"

    def cost(self, run: Run, images: int) -> int:
        """Return the number of training images of `run`. images: the number for one sampler."""
        return 2 * images if self.partners == "reversed" else images

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError on a strength that no beta distribution can have."""
        if not self.strength > 0:
            raise ValueError(f"mixup's strength must be positive, got {self.strength:g}")


@dataclass(frozen=True)
class Ensemble:
    """Two separate networks, one trained on uniform and one on re-balanced images. Testing averages them (Table 6)."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "bbn.baselines:EnsembleLearner"
    sampler: Sampler = "reversed"

    def cost(self, run: Run, images: int) -> int:
        """Return the number of training images of `run`, which has two networks. images: the number for one."""
        return 2 * images


@dataclass(frozen=True)
class UnitFeatures:
    """A baseline whose features are scaled to unit length before its classifier (supplement, Fig. 6)."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "bbn.baselines:UnitLearner"
    baseline: Rebalance

    def check(self, protocol: Protocol) -> None:
        """Raise the ValueErrors of the baseline's `check`."""
        self.baseline.check(protocol)


Method = BBN | Probe | Mixup | Ensemble | UnitFeatures | ClassBalanced | Baseline
