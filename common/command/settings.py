"""Defines `Setting`, what a preset fixes for one data set of a paper, and makes Runs from it."""

from __future__ import annotations

import math
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
"""A pair (class order, seed) for each repeat of an experiment."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One of a paper's data sets under one preset, with its schedule. Packages add fields that their methods need."""

    paper: ClassVar[str]
    """The package's name."""
    unscaled: ClassVar[tuple[str, ...]] = ()
    """Names of the schedules that --epochs-scale does not change."""
    tails: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that hold the imbalance factor of `main`."""

    preset: str
    role: str
    """The name of the paper's data set that this is or, in the quick preset, stands for."""
    data: DataSpec
    classes: int
    network: str
    schedule: Schedule
    inputs: Inputs
    test_every: int = 0
    """Number of epochs between tests during training; 0: the network is tested at the end only."""
    repeats: Repeats = ()
    epochs_scale: float = 1.0

    @property
    def comparable(self) -> bool:
        """Whether the paper's numbers are about these data: not if the data are embedded or the user's own images."""
        return self.preset not in ("quick", FOLDER)

    @property
    def full_schedule(self) -> bool:
        """Whether results can be compared with published ones: the paper's data at the paper's schedule."""
        return self.comparable and self.epochs_scale == 1

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each repeat."""
        return tuple(seed for _, seed in self.repeats)

    def at_once(self) -> Protocol:
        """Return the protocol with all classes in one phase, without exemplars."""
        return Protocol(self.classes, self.classes, 0, exemplars_per_class=0)

    def run(self, method: Any, protocol: Protocol, **changes: Any) -> list[Run]:
        """Return one Run per repeat. changes: fields of the Run that differ from those of the setting."""
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
        """Return this setting with ten repeats in place of one on embedded data, where a single run decides nothing.

        Their seeds are the one given and the nine after it. If the seed chooses the class order, so do the new seeds.
        Other settings are returned unchanged.
        """
        if self.preset != "quick" or len(self.repeats) != 1:
            return self
        ((order, seed),) = self.repeats
        seeds = range(seed, seed + 10)
        return replace(self, repeats=tuple((str(each) if order == str(seed) else order, each) for each in seeds))

    def at_imbalance(self: S, factor: float) -> S:
        """Return this setting with another imbalance factor. Raises InputError if its images are not sampled by one."""
        if not self.tails or getattr(self, self.tails[0]) is None:
            why = "has a long tail of its own" if self.tails else f"is not long-tailed in {self.paper}"
            raise InputError(f"--imbalance: {self.role} {why}; leave the option out")
        if not 1 < factor < math.inf:
            raise InputError(f"--imbalance must be above 1, got {factor:g}")
        return replace(self, **dict.fromkeys(self.tails, factor))  # type: ignore[arg-type]

    def scaled(self: S, scale: float) -> S:
        """Return this setting with every schedule scaled (`Schedule.scaled`), except those named in `unscaled`."""
        schedules = {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Schedule)}
        changed = {name: value.scaled(scale) for name, value in schedules.items() if name not in self.unscaled}
        return replace(self, epochs_scale=scale, **changed)  # type: ignore[arg-type]


def chosen(
    presets: Mapping[str, Sequence[S]],
    preset: str,
    repeats: Sequence[tuple[str, int]],
    epochs_scale: float,
    own: S | None = None,
) -> tuple[S, ...]:
    """Return the settings of one preset, with the given repeats and with schedules scaled by `epochs_scale`.

    own: the setting of the preset `folder`. Raises InputError on an unknown preset, or on a scale that is not above 0
    and at most 1000.
    """
    if own:
        presets = {**presets, FOLDER: (own,)}
    if preset not in presets:
        raise InputError(f"unknown preset {preset!r}; choose one of {', '.join(dict.fromkeys((*presets, FOLDER)))}")
    if not 0 < epochs_scale <= 1000:
        raise InputError(f"--epochs-scale must be positive, and at most 1000, got {epochs_scale:g}")
    return tuple(replace(s.scaled(epochs_scale), repeats=tuple(repeats)) for s in presets[preset])


def repeated(seeds: Sequence[int], orders: Sequence[str] | None) -> Repeats:
    """Return (class order, seed) of each repeat: every pair of the two lists, each once.

    Without `orders`, seed s also chooses class order s.
    """
    names = [str(int(o)) if o.isdecimal() and len(o) <= 10 else o for o in orders or ()]
    pairs = [(name, s) for name in names for s in seeds] if orders else [(str(s), s) for s in seeds]
    return tuple(dict.fromkeys(pairs))


SEEDS = {"quick": (0,), "cifar": (0, 1, 2), "imagenet": (0,), FOLDER: (0,)}
"""The default seeds of the papers that learn all classes at once."""


def repeated_natively(paper: str, preset: str, seeds: Sequence[int] | None, orders: Sequence[str] | None) -> Repeats:
    """Return the repeats for papers that learn all classes at once, in the data set's own order.

    Warns if `orders` are given, since they have no effect there.
    """
    if orders:
        warnings.warn(f"{paper} learns all classes at once, so that a class order means nothing there", stacklevel=3)
    return tuple(dict.fromkeys(("native", seed) for seed in seeds or SEEDS.get(preset, ())))
