"""`--preset folder`: trains a paper's methods, for the paper's number of epochs, on the user's own images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

from common import splits
from common.command.settings import Setting
from common.data.datasets import Dataset, DataSpec
from common.data.names import FOLDER
from common.errors import InputError
from common.runs import Schedule

S = TypeVar("S", bound=Setting)
OWN_IMAGES = "images of one's own"
"""The name of the user's images in figures and reports."""
EXEMPLARS = 20
"""Exemplars per class, unless --exemplars gives another number."""
STEPS, LEAST_BATCH = 10, 32
"""A batch is halved while it has more than LEAST_BATCH images and an epoch has fewer than STEPS steps."""
LEAST_SIDE = 8
"""The smallest side of an image in pixels: the three stages of a ResNet reduce it to a feature map of 2 x 2."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of --preset folder. Other presets have the paper's protocol and refuse them.

    Only `train` takes --imbalance with other presets too.
    """

    base: int | None = None
    """--preset folder, class-incremental papers: number of classes in the first phase."""
    phases: int | None = None
    """--preset folder, class-incremental papers: number of phases after the first. They share the other classes
    equally."""
    exemplars: int | None = None
    """--preset folder, class-incremental papers: number of images that are kept of each old class; default: 20."""
    imbalance: float | None = None
    """Long-tailed papers: images of the largest class / images of the smallest, in the subset that is sampled. Default:
    the paper's; with --preset folder, all images. Figures take it with --preset folder only."""

    @property
    def given(self) -> list[str]:
        """The options that the command line gives, as they are typed."""
        return [f"--{f.name}" for f in fields(Options) if getattr(self, f.name) is not None]


@dataclass(frozen=True)
class Folder:
    """Holds what a paper's Setting needs to know of the user's images, and the options of the command."""

    classes: tuple[str, ...]
    counts: tuple[int, ...]
    """Training images of every class."""
    large: bool
    """Whether images have more than 64 pixels."""
    options: Options

    @classmethod
    def from_dataset(cls, dataset: Dataset, options: Options) -> Folder:
        """Describe a data set. Raises InputError if it has one class only, or if its images are too small."""
        counts = np.bincount(dataset.train_labels, minlength=len(dataset.classes))
        if len(counts) < 2:
            raise InputError(f"--data has one class, {dataset.classes[0]!r}; there must be two or more to tell apart")
        images = dataset.train_images
        if isinstance(images, np.ndarray) and min(images.shape[1:3]) < LEAST_SIDE:
            size = f"{images.shape[2]}x{images.shape[1]}"
            raise InputError(f"images of {size} pixels are too small; resize them, such as to 32x32")
        return cls(dataset.classes, tuple(counts.tolist()), not isinstance(images, np.ndarray), options)

    def setting(self, small: S, large: S, fewest: int, /, **changes: Any) -> S:
        """Return a paper's setting with the user's images in place of the paper's, and with `changes`.

        small, large: the settings for images of up to 64 pixels, and for larger ones. fewest: the number of images in
        the shortest epoch, to which the batch size is fitted (see `fit`).
        """
        paper = large if self.large else small
        schedules = {f.name: value for f in fields(paper) if isinstance(value := getattr(paper, f.name), Schedule)}
        fitted: dict[str, Any] = {name: fit(schedule, fewest) for name, schedule in schedules.items()}
        own = {"preset": FOLDER, "role": FOLDER, "data": DataSpec(FOLDER), "classes": len(self.classes)}
        return replace(paper, **fitted | own | changes)

    def network(self, small: str = "resnet32", large: str = "resnet18-imagenet") -> str:
        """Return the name of the network for images of this size."""
        return large if self.large else small

    def incremental(self, paper: str) -> Growth:
        """Return how the classes are divided into phases.

        Raises InputError if the options do not say so, or if they do not fit the classes or the numbers of images.
        """
        options, count = self.options, len(self.classes)
        hint = "" if options.base and options.phases else ": give --base and --phases"
        self._refuse(paper, ("imbalance",), f"which learns classes phase by phase{hint}")
        base, phases = options.base, options.phases
        if base is None or phases is None or base < 2 or phases < 1 or base >= count or (count - base) % phases:
            raise InputError(f"{self._asked()}; {_ways(count, base, phases)}")
        exemplars = EXEMPLARS if options.exemplars is None else options.exemplars
        smallest = int(np.argmin(self.counts))
        if not 1 <= exemplars <= self.counts[smallest]:
            raise InputError(
                f"--exemplars must be 1 to {self.counts[smallest]}, the images of class {self.classes[smallest]!r}, "
                f"got {exemplars}{', the default' if options.exemplars is None else ''}"
            )
        step = (count - base) // phases
        return Growth(base, step, phases, exemplars, min(base, step) * self.counts[smallest])

    def long_tailed(self, paper: str) -> Tail:
        """Return the long-tailed class sizes to train on.

        Raises InputError if the imbalance is impossible, or if none is given and all classes have the same size.
        """
        self._refuse(paper, ("base", "phases", "exemplars"), "which learns all classes at once")
        factor = self.options.imbalance
        if factor is None and len(set(self.counts)) == 1:
            raise InputError(
                f"each of the {len(self.counts)} classes has {self.counts[0]} training images, which is no long tail; "
                "--imbalance 10 draws one whose largest class has 10 times the images of its smallest"
            )
        try:
            sizes = splits.longtail_sizes(self.counts, factor) if factor is not None else np.array(self.counts)
        except ValueError as error:
            raise InputError(f"--imbalance: {error}") from None
        return Tail(factor, sizes)

    def _refuse(self, paper: str, names: Iterable[str], why: str) -> None:
        if wrong := [f"--{name}" for name in names if f"--{name}" in self.options.given]:
            raise InputError(f"{' and '.join(wrong)}: not for {paper}, {why}")

    def _asked(self) -> str:
        base, phases, count = self.options.base, self.options.phases, len(self.classes)
        if base is None or phases is None:
            return f"--preset folder needs --base and --phases here, to divide the {count} classes"
        return f"the {count} classes do not divide into --base {base} and --phases {phases}"


@dataclass(frozen=True)
class Growth:
    """Says how many classes each phase brings: `base` in the first, then `step` in each of `phases` phases."""

    base: int
    step: int
    phases: int
    exemplars: int
    images: int
    """A lower bound of the number of new images in a phase."""


@dataclass(frozen=True)
class Tail:
    """Holds the number of training images of every class: all of them, or a sample with the imbalance `factor`."""

    factor: float | None
    counts: np.ndarray

    @property
    def images(self) -> int:
        """The number of images in an epoch."""
        return int(self.counts.sum())


def fit(schedule: Schedule, images: int) -> Schedule:
    """Return the schedule with its batch halved while it is above 32 and an epoch of `images` has under ten steps."""
    batch = schedule.batch
    while batch > LEAST_BATCH and images < STEPS * batch:
        batch //= 2
    return replace(schedule, batch=batch)


def _ways(count: int, base: int | None, phases: int | None) -> str:
    """Return a hint with values of --base or --phases that divide `count` classes.

    The hint keeps the base if that is possible, else the number of phases. Otherwise half of the classes come first.
    """
    if count < 3:
        return "that takes three classes or more: two for the base, and one to come"
    known = base is not None and 2 <= base < count
    by_phases = not known and phases is not None and 1 <= phases <= count - 2
    bases = range(2, count) if by_phases else [base if base is not None and known else max(2, count // 2)]
    each = [phases] if phases is not None and by_phases else range(1, count)
    ways = [(b, p) for b in bases for p in each if not (count - b) % p]
    # LUCIR's margin loss needs two new classes in a phase, so phases of a single class are named only without a choice
    ways = [(b, p) for b, p in ways if count - b > p] or ways
    if by_phases:
        return f"with --phases {phases}, --base may be {_listed(b for b, _ in ways)}"
    return f"with --base {ways[0][0]}, --phases may be {_listed(p for _, p in ways)}"


def _listed(numbers: Iterable[int]) -> str:
    found = [str(n) for n in numbers]
    return " or ".join(filter(None, [", ".join(found[:-1]), found[-1]]))
