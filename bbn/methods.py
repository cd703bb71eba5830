"""The method of the paper and its own baselines as configurations; the source stands beside each default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from bbn.adaptor import Kind as Adaptor
from bbn.adaptor import Offset
from class_balanced.methods import ClassBalanced
from common.imbalance import Baseline, Rebalance
from common.runs import ADDED, Protocol, Run

Sampler = Literal["reversed", "balanced", "uniform"]
TESTING = {"rb": 0.0, "alpha 0.25": 0.25, "cnn": 0.5, "alpha 0.75": 0.75, "cb": 1.0}
"""Alpha in testing by BBN's read-outs. The paper's is 0.5 (Sec. 4.3); at 0 and 1 one branch answers alone."""


@dataclass(frozen=True)
class BBN:
    """Two branches on a shared trunk, and cumulative learning that shifts from one to the other (Sec. 4)."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "bbn.learner:BBNLearner"
    adaptor: Adaptor = "parabolic_decay"  # Algorithm 1 and Table 4
    offset: Offset = "official"  # (T - 1) / Tmax in the code, T / Tmax in the paper
    sampler: Sampler = "reversed"  # of the re-balancing branch, Eq. 4 and Table 3; each draws with replacement
    passes: Literal["separate", "concatenated"] = "separate"
    """Through the trunk: a batch of each branch, with BatchNorm statistics of its own (code), or both as one batch."""
    stretch: float = field(default=1.0, metadata=ADDED)
    """Tmax over the number of epochs, where the offset is official: the code takes 100 for iNaturalist's 90."""

    def cost(self, run: Run, images: int) -> int:
        """Training images of `run`, where one sampler alone takes so many: there are two."""
        return 2 * images

    def check(self, protocol: Protocol) -> None:
        """ValueError on a stretch that makes alpha negative."""
        if not self.stretch >= 1:
            raise ValueError(f"stretch must be at least 1, got {self.stretch:g}")


@dataclass(frozen=True)
class Probe:
    """A classifier trained anew on one branch's frozen features (Table 5). It starts from a run of BBN."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "bbn.learner:ProbeLearner"
    branch: Literal["cb", "rb"] = "cb"
    norms: ClassVar[Literal["frozen"]] = "frozen"
    sampler: Literal["uniform", "balanced"] = "uniform"  # not stated; cross-entropy as in Fig. 2's first row
    beta: float = 0.0


@dataclass(frozen=True)
class Mixup:
    """Mixup (Zhang et al. 2018) and manifold mixup (Verma et al. 2019), with partners from the batch or reversed."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "bbn.baselines:MixupLearner"
    layer: Literal["input", "features"] = "input"
    """features: the pooled ones. The paper names no layer; BagofTricks-LT mixes there."""
    strength: float = 1.0  # both parameters of the share's beta distribution; not stated, 1 in BagofTricks-LT
    partners: Literal["batch", "reversed"] = "batch"  # reversed: Table 1's "two samplers"

    def cost(self, run: Run, images: int) -> int:
        """Training images of `run`, where one sampler alone takes so many."""
        return 2 * images if self.partners == "reversed" else images

    def check(self, protocol: Protocol) -> None:
        """ValueError on a strength that no beta distribution has."""
        if not self.strength > 0:
            raise ValueError(f"mixup's strength must be positive, got {self.strength:g}")


@dataclass(frozen=True)
class Ensemble:
    """Two whole networks trained apart, one on uniform and one on re-balanced images, averaged in testing (Table 6)."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "bbn.baselines:EnsembleLearner"
    sampler: Sampler = "reversed"

    def cost(self, run: Run, images: int) -> int:
        """Training images of `run`, where one network alone takes so many: there are two."""
        return 2 * images


@dataclass(frozen=True)
class UnitFeatures:
    """A baseline whose features are scaled to unit length before its classifier (supplement, Fig. 6)."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "bbn.baselines:UnitLearner"
    baseline: Rebalance

    def check(self, protocol: Protocol) -> None:
        """ValueError as its baseline's."""
        self.baseline.check(protocol)


Method = BBN | Probe | Mixup | Ensemble | UnitFeatures | ClassBalanced | Baseline
