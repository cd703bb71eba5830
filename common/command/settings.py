"""What a preset fixes: one of a paper's data sets with the schedule on it, and the Runs made from that."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, TypeVar

from common.data.datasets import DataSpec
from common.data.names import FOLDER
from common.errors import InputError
from common.runs import Inputs, Protocol, Run, Schedule

S = TypeVar("S", bound="Setting")
Repeats = tuple[tuple[str, int], ...]
"""(class order, seed) of each repeat."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One of a paper's data sets under one preset. Packages add what their methods need besides."""

    paper: ClassVar[str]
    """The package's name."""
    unscaled: ClassVar[tuple[str, ...]] = ()
    """Names of the schedules that --epochs-scale leaves as they are."""

    preset: str
    role: str
    """Which of the paper's data sets this is, or which one it stands for in the quick preset."""
    data: DataSpec
    classes: int
    network: str
    schedule: Schedule
    inputs: Inputs
    test_every: int = 0
    """Epochs between tests during training; 0: the network is tested at the end only."""
    repeats: Repeats = ()
    epochs_scale: float = 1.0

    @property
    def comparable(self) -> bool:
        """Whether published numbers are about these data; they are not about embedded ones or one's own."""
        return self.preset not in ("quick", FOLDER)

    @property
    def full_schedule(self) -> bool:
        """Whether results can be held against the published ones: the paper's data at the paper's schedule."""
        return self.comparable and self.epochs_scale == 1

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each repeat."""
        return tuple(seed for _, seed in self.repeats)

    def at_once(self) -> Protocol:
        """All classes in one phase, without exemplars."""
        return Protocol(self.classes, self.classes, 0, exemplars_per_class=0)

    def run(self, method: Any, protocol: Protocol, **changes: Any) -> list[Run]:
        """One Run per repeat. `changes` are fields of the Run that differ from the setting's."""
        run = Run(
            self.paper,
            method,
            self.data,
            protocol,
            self.schedule,
            self.network,
            inputs=self.inputs,
            test_every=self.test_every,
        )
        return [replace(run, order=order, seed=seed, **changes) for order, seed in self.repeats]

    def tenfold(self: S) -> S:
        """This setting with ten repeats in place of one on embedded data, where a single one decides nothing.

        Their seeds are the one's own and the nine after it; so are their class orders where the seed chooses the order.
        """
        if self.preset != "quick" or len(self.repeats) != 1:
            return self
        ((order, seed),) = self.repeats
        seeds = range(seed, seed + 10)
        return replace(self, repeats=tuple((str(each) if order == str(seed) else order, each) for each in seeds))

    def scaled(self: S, scale: float) -> S:
        """This setting with every schedule scaled (`Schedule.scaled`), except those named in `unscaled`."""
        schedules = {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Schedule)}
        changed = {name: value.scaled(scale) for name, value in schedules.items() if name not in self.unscaled}
        return replace(self, epochs_scale=scale, **changed)  # type: ignore[arg-type]


def chosen(
    presets: Mapping[str, Sequence[S]], preset: str, repeats: Sequence[tuple[str, int]], epochs_scale: float
) -> tuple[S, ...]:
    """The settings of one preset, with the repeats and the length of schedules asked for.

    Raises InputError on an unknown preset, or on a scale that is not positive.
    """
    if preset not in presets:
        raise InputError(f"unknown preset {preset!r}; choose one of {', '.join(dict.fromkeys((*presets, FOLDER)))}")
    if not 0 < epochs_scale <= 1000:
        raise InputError(f"--epochs-scale must be positive, and at most 1000, got {epochs_scale:g}")
    return tuple(replace(s.scaled(epochs_scale), repeats=tuple(repeats)) for s in presets[preset])


def repeated(seeds: Sequence[int], orders: Sequence[str] | None) -> Repeats:
    """(class order, seed) of each repeat, each once: every pair of the two lists.

    Without `orders`, seed s also chooses class order s.
    """
    names = [str(int(o)) if o.isdecimal() and len(o) <= 10 else o for o in orders or ()]
    pairs = [(name, s) for name in names for s in seeds] if orders else [(str(s), s) for s in seeds]
    return tuple(dict.fromkeys(pairs))


SEEDS = {"quick": (0,), "cifar": (0, 1, 2), "imagenet": (0,), FOLDER: (0,)}
"""The default seeds of the papers that learn all classes at once."""


def repeated_natively(paper: str, preset: str, seeds: Sequence[int] | None, orders: Sequence[str] | None) -> Repeats:
    """The repeats where all classes are learnt at once, in the data set's own order.

    Warns that `orders` mean nothing there.
    """
    if orders:
        warnings.warn(f"{paper} learns all classes at once, so that a class order means nothing there", stacklevel=3)
    return tuple(dict.fromkeys(("native", seed) for seed in seeds or SEEDS.get(preset, ())))
