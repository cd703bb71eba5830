"""The method of the paper as configurations; section or algorithm stands beside each default.

Phase I is plain training (`common.imbalance.Rebalance`, or a class-balanced loss); what follows starts from its run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from common.imbalance import Rebalance
from common.runs import ADDED, Protocol, Run

STEPS = 100
"""Iterations of Phase II that its log calls an epoch: 64 epochs are the paper's 6,400 iterations."""

Scaling = Literal["min-max", "relu-max"]


@dataclass(frozen=True)
class FSA:
    """Phase II (Sec. 4.2, Algorithm 1): the classifier tuned on batches of which the tail's half is augmented.

    It starts from Phase I and draws images afresh, or from `Views` of it and draws among cached feature maps. A batch
    has `tail` real tail images, `donors` augmented samples for each, and as many head images as both.
    """

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "fsa.learner:FSALearner"
    steps: ClassVar[int] = STEPS
    batch: Literal["head-tail", "natural", "balanced"] = "head-tail"
    """natural and balanced: controls without augmentation, every image or every class alike."""
    share: float = 0.9  # h_r: the head holds this share of the images (Sec. 5.1)
    tail: int = 16  # N_t, from a batch of 128 = 2 N_t (1 + N_a)
    donors: int = 3  # N_a; 0: no augmentation
    confusing: int = 3  # N_f
    donor_classes: Literal["confusing", "random"] = "confusing"
    pool: Literal["head", "all"] = "head"
    """Among which classes confusing ones are sought; the text says all others, Fig. 5 and h_r imply the head."""
    tau_specific: float | None = 0.5
    """Not given in the paper; with 0.5 for both the two parts are complements. None: every location counts."""
    tau_generic: float | None = 0.5
    scaling: Scaling = field(default="min-max", metadata=ADDED)
    """Of activation maps to [0, 1]; relu-max leaves out what is below zero and divides by the greatest."""
    cam_weights: Literal["phase1", "current"] = field(default="phase1", metadata=ADDED)
    """Whose classifier makes the maps in Phase II."""
    ratio: float | None = None  # gamma, the share of class-specific vectors; None: uniform in (0, 1) for each sample
    fusion: Literal["draw", "mixup"] = "draw"
    """mixup: pooled features of tail image and donor mixed in the ratio, a control."""
    offline: bool = field(default=False, metadata=ADDED)
    """Tail images and what is fused from them stay those of the first epoch, as if computed in advance."""
    tail_draw: Literal["images", "classes"] = "images"
    """Of the tail's images in a batch: every image alike (Algorithm 1), or every class alike."""
    head_draw: Literal["images", "classes"] = "images"

    @property
    def images(self) -> int:
        """Images of a head-tail batch that pass through the network: 2 N_t (1 + N_a)."""
        return 2 * self.tail * (1 + self.donors)

    def cost(self, run: Run, images: int) -> int:
        """Images that Phase II draws, however many there are."""
        return run.schedule.epochs * self.steps * run.schedule.batch

    def check(self, protocol: Protocol) -> None:
        """ValueError on numbers that make no batch, and on thresholds or ratios that mean nothing."""
        if self.tail < 1 or self.donors < 0 or self.confusing < 1:
            raise ValueError(f"no batch has {self.tail} tail images, {self.donors} donors of {self.confusing} classes")
        if not 0 < self.share < 1:
            raise ValueError(f"the head's share of the images must lie in (0, 1), got {self.share:g}")
        if self.ratio is not None and not 0 <= self.ratio <= 1:
            raise ValueError(f"the share of class-specific vectors must lie in [0, 1], got {self.ratio:g}")
        for tau in (self.tau_specific, self.tau_generic):
            if tau is not None and not 0 < tau < 1:
                raise ValueError(f"a threshold on maps in [0, 1] must lie in (0, 1), got {tau:g}")


@dataclass(frozen=True)
class Earlier:
    """The ablation of Fig. 9: features augmented after an earlier block, and every layer after it tuned.

    It starts from Phase I. Locations of a donor's map that are not class-generic, and more up to the ratio, take
    class-specific vectors of the tail image; the donor's layout stays.
    """

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "fsa.learner:EarlierLearner"
    behind: int = 1
    """Blocks (stages) behind the one whose features are augmented: 1 is Block3 of four."""
    fsa: FSA = FSA()

    def cost(self, run: Run, images: int) -> int:
        """As of `FSA`."""
        return self.fsa.cost(run, images)

    def check(self, protocol: Protocol) -> None:
        """ValueError where no block lies behind, or as `FSA.check`."""
        self.fsa.check(protocol)
        if self.behind < 1 or not self.fsa.donors or self.fsa.batch != "head-tail":
            raise ValueError(
                "augmentation after an earlier block needs a block behind it, donors and head-tail batches"
            )


@dataclass(frozen=True)
class Views:
    """Nothing is trained: feature maps of `views` augmented views of every image, kept for Phase II to draw from."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "fsa.learner:ViewsLearner"
    views: int = 10

    def check(self, protocol: Protocol) -> None:
        """ValueError without a view."""
        if self.views < 1:
            raise ValueError(f"at least one view of each image, got {self.views}")


@dataclass(frozen=True)
class Survey:
    """Nothing is trained: what the figures show of Phase I's feature space, for the `classes` given."""

    version: ClassVar[int] = 1
    learner: ClassVar[str] = "fsa.survey:SurveyLearner"
    classes: tuple[int, ...] = (0, 1, 7, 8)
    """Of the scatter plots; the last is the tail class whose augmented features are shown."""
    points: int = 100
    """Test images of each class, at most."""
    pictures: int = 8
    """Test images whose activation maps are shown; their classes go from head to tail."""
    fsa: FSA = FSA()

    def check(self, protocol: Protocol) -> None:
        """ValueError on classes that there are not, or as `FSA.check`."""
        self.fsa.check(protocol)
        if not self.classes or max(self.classes) >= protocol.classes:
            raise ValueError(f"classes {self.classes} are not all among the {protocol.classes}")


Method = FSA | Earlier | Views | Survey | Rebalance
