"""The options of the paper's method. Each default names its section or algorithm.

Phase I is plain training (`common.imbalance.Rebalance`, or a class-balanced loss). The methods here start from a run of
Phase I.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from common.imbalance import Rebalance
from common.runs import ADDED, Protocol, Run
from fsa.splits import head_classes

STEPS = 100
"""Iterations of Phase II that count as one epoch: 64 epochs are the paper's 6,400 iterations."""

Scaling = Literal["min-max", "relu-max"]


@dataclass(frozen=True)
class FSA:
    """Phase II (Sec. 4.2, Algorithm 1): tunes the classifier on batches of head images and augmented tail images.

    It starts from Phase I and trains on images, or from `Views` of Phase I and trains on cached feature maps. A batch
    has `tail` real tail images, `donors` augmented samples for each, and as many head images as both together.
    """

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "fsa.learner:FSALearner"
    starts_from: ClassVar[str] = "a run of Phase I, or of Views of one"
    steps: ClassVar[int] = STEPS
    batch: Literal["head-tail", "natural", "balanced"] = "head-tail"
    """How batches are made. natural and balanced are controls without augmentation: all images, or all classes, are
    equally likely."""
    share: float = 0.9  # h_r: the head holds this share of the images (Sec. 5.1)
    tail: int = 16  # N_t, real tail images in a batch; the batch size is 128 = 2 N_t (1 + N_a)
    donors: int = 3  # N_a, augmented samples for each real tail image; 0: no augmentation
    confusing: int = 3  # N_f, confusing classes of each tail class
    donor_classes: Literal["confusing", "random"] = "confusing"  # head classes that donors come from; random: a control
    pool: Literal["head", "all"] = "head"
    """Classes among which confusing ones are sought. The text says all others; Fig. 5 and h_r imply the head."""
    tau_specific: float | None = 0.5
    """A location is class-specific above this activation; None: every location. The paper gives no value. At 0.5 for
    both thresholds, the two parts are complements."""
    tau_generic: float | None = 0.5  # a location is class-generic below this activation; None: every location
    scaling: Scaling = field(default="min-max", metadata=ADDED)
    """How activation maps are scaled to [0, 1]. relu-max sets negative values to 0 and divides by the greatest."""
    cam_weights: Literal["phase1", "current"] = field(default="phase1", metadata=ADDED)
    """Which classifier makes the activation maps in Phase II: Phase I's, or the current one."""
    ratio: float | None = None  # gamma, the share of class-specific vectors; None: uniform in (0, 1) for each sample
    fusion: Literal["draw", "mixup"] = "draw"
    """draw: sample vectors of both images (Algorithm 1). mixup: mix the pooled features in the ratio, a control."""
    offline: bool = field(default=False, metadata=ADDED)
    """Whether every epoch repeats the tail images and fused samples of the first, as if computed in advance."""
    tail_draw: Literal["images", "classes"] = "images"
    """Which tail images are equally likely in a batch: all images (Algorithm 1), or all classes."""
    head_draw: Literal["images", "classes"] = "images"  # as tail_draw, for head images

    @property
    def images(self) -> int:
        """The number of images in a head-tail batch that pass through the network: 2 N_t (1 + N_a)."""
        return 2 * self.tail * (1 + self.donors)

    def cost(self, run: Run, images: int) -> int:
        """Return the number of images that Phase II trains on, which does not depend on `images`."""
        return run.schedule.epochs * self.steps * run.schedule.batch

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError on numbers that make no batch, and on thresholds or ratios out of range."""
        if self.tail < 1 or self.donors < 0 or self.confusing < 1:
            raise ValueError(f"no batch has {self.tail} tail images, {self.donors} donors of {self.confusing} classes")
        if not 0 < self.share < 1:
            raise ValueError(f"the head's share of the images must lie in (0, 1), got {self.share:g}")
        if self.ratio is not None and not 0 <= self.ratio <= 1:
            raise ValueError(f"the share of class-specific vectors must lie in [0, 1], got {self.ratio:g}")
        for tau in (self.tau_specific, self.tau_generic):
            if tau is not None and not 0 < tau < 1:
                raise ValueError(f"a threshold on maps in [0, 1] must lie in (0, 1), got {tau:g}")

    def check_counts(self, counts: np.ndarray) -> None:
        """Raise ValueError if classes with so many images [c] have no tail."""
        if self.batch == "head-tail" and head_classes(counts, self.share) == len(counts):
            raise ValueError(f"all {len(counts)} classes are the head of {self.share:g} of the images; lower the share")


@dataclass(frozen=True)
class EarlierBlock:
    """The ablation of Fig. 9: augments features after an earlier block, and tunes every layer after that block.

    It starts from Phase I. Vectors of a donor's map that are not class-generic, and more up to the ratio, are replaced
    by class-specific vectors of the tail image. The donor's layout stays.
    """

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "fsa.learner:EarlierBlockLearner"
    starts_from: ClassVar[str] = "a run of Phase I"
    hashed_as: ClassVar[str] = "Earlier"
    behind: int = 1
    """Number of blocks (stages) after the one whose features are augmented: 1 means Block3 of four."""
    fsa: FSA = FSA()

    def cost(self, run: Run, images: int) -> int:
        """Return the same number as `FSA.cost`."""
        return self.fsa.cost(run, images)

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError if no block follows, without donors or head-tail batches, or as `FSA.check` does."""
        self.fsa.check(protocol)
        if self.behind < 1 or not self.fsa.donors or self.fsa.batch != "head-tail":
            raise ValueError(
                "augmentation after an earlier block needs a block behind it, donors and head-tail batches"
            )

    def check_counts(self, counts: np.ndarray) -> None:
        """Raise ValueError as `FSA.check_counts` does."""
        self.fsa.check_counts(counts)


@dataclass(frozen=True)
class Views:
    """Caches feature maps of `views` augmented views of every image, for Phase II to sample from. Trains nothing."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "fsa.learner:ViewsLearner"
    starts_from: ClassVar[str] = "a run of Phase I"
    views: int = 10

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError on fewer than one view."""
        if self.views < 1:
            raise ValueError(f"at least one view of each image, got {self.views}")


@dataclass(frozen=True)
class Survey:
    """Measures what figures show of Phase I's feature space, for a few classes. Trains nothing."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "fsa.survey:SurveyLearner"
    starts_from: ClassVar[str] = "a run of Phase I"
    classes: tuple[int, ...] = (0, 1, 7, 8)
    """Classes in the scatter plots. The last one is the tail class whose augmented features are shown."""
    points: int = 100
    """Largest number of test images of each class."""
    pictures: int = 8
    """Number of test images whose activation maps are shown. Their classes go from head to tail."""
    fsa: FSA = FSA()

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError on classes that do not exist, or as `FSA.check` does."""
        self.fsa.check(protocol)
        if not self.classes or min(self.classes) < 0 or max(self.classes) >= protocol.classes:
            raise ValueError(f"classes {self.classes} are not all among the {protocol.classes}")
        if self.points < 1 or self.pictures < 1:
            raise ValueError(f"a survey needs points and pictures, got {self.points} and {self.pictures}")


Method = FSA | EarlierBlock | Views | Survey | Rebalance
