"""`--preset folder`: images of one's own in place of a paper's, with its methods and its epochs."""

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
"""What figures and reports call them."""
EXEMPLARS = 20
"""Of a class, unless --exemplars says more or fewer."""
STEPS, LEAST_BATCH = 10, 32
"""A batch is halved while an epoch has fewer steps than that; it never gets smaller than that."""
LEAST_SIDE = 8
"""Pixels: three stages of a ResNet leave a map of 2x2 of that."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What --preset folder asks of the images. No other preset takes these options: it has the paper's protocol."""

    base: int | None = None
    """--preset folder, class-incremental papers: classes of the first phase."""
    phases: int | None = None
    """--preset folder, class-incremental papers: phases after the first; they share the other classes equally."""
    exemplars: int | None = None
    """--preset folder, class-incremental papers: images of each old class that are kept; default: 20."""
    imbalance: float | None = None
    """--preset folder, long-tailed papers: largest class / smallest class of the subset to draw; default: no draw."""

    @property
    def given(self) -> list[str]:
        """The options that were given, as they are typed."""
        return [f"--{f.name}" for f in fields(Options) if getattr(self, f.name) is not None]


@dataclass(frozen=True)
class Folder:
    """A folder of images as a paper's Setting needs it, and what a command asks of it."""

    classes: tuple[str, ...]
    counts: tuple[int, ...]
    """Training images of every class."""
    large: bool
    """Whether images have more than 64 pixels."""
    options: Options

    @classmethod
    def of(cls, dataset: Dataset, options: Options) -> Folder:
        """The images at hand. Raises InputError on a single class, and on images too small for a network."""
        counts = np.bincount(dataset.train_labels, minlength=len(dataset.classes))
        if len(counts) < 2:
            raise InputError(f"--data has one class, {dataset.classes[0]!r}; there must be two or more to tell apart")
        images = dataset.train_images
        if isinstance(images, np.ndarray) and min(images.shape[1:3]) < LEAST_SIDE:
            size = f"{images.shape[2]}x{images.shape[1]}"
            raise InputError(f"images of {size} pixels are too small; resize them, such as to 32x32")
        return cls(dataset.classes, tuple(counts.tolist()), not isinstance(images, np.ndarray), options)

    def setting(self, small: S, large: S, fewest: int, /, **changes: Any) -> S:
        """A paper's setting with these images in place of its own, and `changes`.

        small, large: the setting for images of up to 64 pixels, and of more. fewest: images of the shortest epoch,
        by which batches are fitted (`fit`).
        """
        paper = large if self.large else small
        schedules = {f.name: value for f in fields(paper) if isinstance(value := getattr(paper, f.name), Schedule)}
        fitted: dict[str, Any] = {name: fit(schedule, fewest) for name, schedule in schedules.items()}
        own = {"preset": FOLDER, "role": FOLDER, "data": DataSpec(FOLDER), "classes": len(self.classes)}
        return replace(paper, **fitted | own | changes)

    def network(self, small: str = "resnet32", large: str = "resnet18-imagenet") -> str:
        """The network for images of this size."""
        return large if self.large else small

    def incremental(self, paper: str) -> Growth:
        """How classes arrive. Raises InputError where the options do not say so, or ask what is impossible."""
        options, count = self.options, len(self.classes)
        self._refuse(paper, ("imbalance",), "which learns classes phase by phase: give --base and --phases")
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
        """The long tail to learn from. Raises InputError where there is none, or none can be drawn."""
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
    """How classes arrive: `base` first, then `step` in each of `phases` phases."""

    base: int
    step: int
    phases: int
    exemplars: int
    images: int
    """New images of a phase where it has fewest."""


@dataclass(frozen=True)
class Tail:
    """Images of every class, as many as there are or, with an imbalance `factor`, as are drawn."""

    factor: float | None
    counts: np.ndarray

    @property
    def images(self) -> int:
        """Of an epoch."""
        return int(self.counts.sum())


def fit(schedule: Schedule, images: int) -> Schedule:
    """The schedule with a batch that few images allow: halved while an epoch of `images` has fewer than ten steps."""
    batch = schedule.batch
    while batch > LEAST_BATCH and images < STEPS * batch:
        batch //= 2
    return replace(schedule, batch=batch)


def _ways(count: int, base: int | None, phases: int | None) -> str:
    """What would divide so many classes: with the base asked for, or the phases, or with half of the classes first."""
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
