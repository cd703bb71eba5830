"""The Run: everything that decides the outcome of a training run, frozen, and hashed into the name of its folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from common.data.datasets import DataSpec
from common.errors import InputError
from common.splits import Profile

S = TypeVar("S")

Flip = Literal["none", "horizontal", "channels"]
"""How images are flipped for class means: not at all, mirrored, or with their colour channels reversed."""

CIFAR_MEAN = (0.5071, 0.4866, 0.4409)
CIFAR_STD = (0.2009, 0.1984, 0.2023)  # LUCIR's official code; most other code uses larger values
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

KEY = 12
"""Number of hex digits in a Run's key. A Run's hash begins with its key."""

SEEDS_END = 2**31
"""Every seed is smaller than this."""

ADDED = {"added": True}
"""Metadata of a dataclass field added later. At its default it is not hashed, so that older Runs keep their hashes."""


@dataclass(frozen=True)
class Schedule:
    """SGD with a step schedule of the learning rate. Milestones and warm-up count epochs from 0."""

    epochs: int
    lr: float = 0.1
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    batch: int = 128
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False
    warmup: int = 0
    """Epochs over which the learning rate rises linearly to `lr`."""
    warmup_by: Literal["epoch", "step", "third"] = field(default="epoch", metadata=ADDED)
    """How the rate rises. epoch: from lr/warmup in the first warm-up epoch to `lr` in the last. step: from 0, a little
    at every step. third: from lr/3 in the first epoch to `lr` in the one after warm-up (BBN's official code)."""
    drop_last: bool = field(default=False, metadata=ADDED)
    """Whether the last batch of an epoch is left out if it is smaller than `batch`."""
    ahead: int = field(default=0, metadata=ADDED)
    """Epochs by which the rate runs ahead: 1 if the code steps its scheduler before the first epoch (torch >= 1.1)."""

    def check(self) -> None:
        """Raise ValueError on a number of epochs, a batch or a rate that no training can have."""
        for name in ("epochs", "batch", "lr", "warmup", "gamma", "momentum", "weight_decay"):
            if getattr(self, name) < (least := 1 if name == "batch" else 0):
                raise ValueError(f"a schedule's {name} must be {least} or more, got {getattr(self, name)}")
        if self.nesterov and not self.momentum:
            raise ValueError("a schedule with nesterov needs a momentum above 0, got 0")
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"a schedule's milestones must rise, got {', '.join(map(str, self.milestones))}")

    def lr_at(self, epoch: int, done: float = 0.0) -> float:
        """Return the learning rate in `epoch` (from 0).

        done: the share (0 to 1) of the epoch's steps that are over, for a warm-up by step.
        """
        epoch += self.ahead
        if epoch < self.warmup:
            if self.warmup_by == "third":
                return self.lr * (1 + 2 * epoch / self.warmup) / 3
            return self.lr * (epoch + (1 if self.warmup_by == "epoch" else done)) / self.warmup
        return self.lr * self.gamma ** sum(epoch >= m for m in self.milestones)

    def scaled(self, scale: float) -> Schedule:
        """Return this schedule with epochs, milestones and warm-up times `scale`.

        The results are rounded and at least 1, and milestones stay strictly increasing.
        """
        if scale == 1:
            return self
        milestones: list[int] = []
        for milestone in self.milestones:
            milestones.append(max(round(milestone * scale), milestones[-1] + 1 if milestones else 1))
        return replace(
            self,
            epochs=max(1, round(self.epochs * scale)),
            milestones=tuple(milestones),
            warmup=max(1, round(self.warmup * scale)) if self.warmup else 0,
        )


@dataclass(frozen=True)
class Protocol:
    """A class-incremental protocol: `base` classes first, then `step` more in every phase, and one exemplar budget."""

    classes: int
    base: int
    step: int
    exemplars_per_class: int | None = 20
    exemplars_total: int | None = None
    rounding: Literal["up", "down"] = field(default="up", metadata=ADDED)
    """How each class's share of a total budget is rounded: up (iCaRL, LUCIR), or down to stay within it (DER)."""

    @property
    def sizes(self) -> list[int]:
        """Numbers of classes that arrive in each phase, base phase first. Raises ValueError if they do not divide."""
        rest = self.classes - self.base
        if not 0 <= rest < self.classes or (rest and (self.step < 1 or rest % self.step)):
            raise ValueError(
                f"{self.classes} classes with a base of {self.base} do not divide into phases of {self.step}; "
                "choose base and step so that (classes - base) % step is 0"
            )
        return [self.base] + [self.step] * (rest // self.step if rest else 0)

    @property
    def without_memory(self) -> bool:
        """Whether there are several phases, and no exemplars are kept for them."""
        return len(self.sizes) > 1 and not (self.exemplars_per_class or self.exemplars_total)

    @property
    def fewest_exemplars(self) -> int:
        """The number of exemplars of an old class, if it has enough images, that the last phase trains on."""
        total, old = self.exemplars_total or 0, sum(self.sizes[:-1]) or 1
        shared = total // old if self.rounding == "down" else -(-total // old)
        return shared if self.exemplars_per_class is None else self.exemplars_per_class

    def check(self) -> None:
        """Raise ValueError if the classes do not divide into phases, or the exemplar budget is not usable.

        A usable budget is per class or in total, not both. It is not negative and leaves no class without exemplars.
        """
        per_class, total = self.exemplars_per_class, self.exemplars_total
        if (per_class is None) == (total is None):
            raise ValueError("give exemplars per class or in total, not both and not neither")
        if (asked := total if per_class is None else per_class) and asked < 0:
            raise ValueError(f"exemplars must not be negative, got {asked}")
        if len(self.sizes) > 1 and total and total < self.classes:
            raise ValueError(
                f"{total} exemplars in total for {self.classes} classes leave some without any; "
                "give at least one for each class, or 0 to keep none"
            )


@dataclass(frozen=True)
class Inputs:
    """How images are prepared for the network: their normalisation, and the augmentation that `kind` names.

    crop-flip: zero-pad the raw image by 4 pixels, crop at random, flip with probability 0.5 (CIFAR). resized-crop:
    RandomResizedCrop(size) and flip in training, Resize(size * 8/7) and CenterCrop(size) in testing (ImageNet).
    """

    mean: tuple[float, ...] = CIFAR_MEAN
    std: tuple[float, ...] = CIFAR_STD
    kind: Literal["crop-flip", "resized-crop"] = "crop-flip"
    size: int = field(default=224, metadata=ADDED)
    """Side in pixels of the square image that resized-crop makes."""
    brightness: float = field(default=0.0, metadata=ADDED)
    """With crop-flip, training images are multiplied by a random factor from 1 - this to 1 + this (ColorJitter)."""


@dataclass(frozen=True)
class LongTail:
    """Defines the long-tailed training subset that a Run sees (`splits.longtail_indices`). The test set stays whole."""

    imbalance: float
    """The imbalance factor, largest class / smallest class. Official code calls its inverse `imb_factor` or `RATIO`."""
    profile: Profile = "exp"
    seed: int = 0
    """Seed that samples the subset, 0 as published. It is independent of the Run's seed."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "imbalance", float(self.imbalance))  # 100 and 100.0 are one Run


IMAGENET_INPUTS = Inputs(IMAGENET_MEAN, IMAGENET_STD, "resized-crop")


@dataclass(frozen=True)
class Run:
    """One training run. Two equal Runs give equal Results. No path, device or number of workers is part of a Run."""

    paper: str
    method: Any
    """The method's options: a frozen dataclass. Its class attribute `version` goes up when a fix changes results."""
    data: DataSpec
    protocol: Protocol
    schedule: Schedule
    network: str
    order: str = "1993"
    """Class order: a shuffle's seed, native (the data set's own order), or a published order (`splits.named_order`)."""
    seed: int = 1993
    """Seed of initialisation, batch order and augmentation."""
    inputs: Inputs = Inputs()
    start: Run | None = None
    """The Run whose final state this one starts from, if any."""
    fingerprint: str = ""
    """Fingerprint of the data set's content, filled in once the data have been found."""
    precision: str = ""
    """bf16 or fp32, filled in once the device is known."""
    longtail: LongTail | None = field(default=None, metadata=ADDED)
    """The long-tailed subset to train on; None: all training images."""
    test_every: int = field(default=0, metadata=ADDED)
    """Epochs between tests during training, for curves and the best test epoch; 0: test only at the end."""
    sync_batchnorm: bool = field(default=False, metadata=ADDED)
    """Whether BatchNorm uses all images of a batch if several processes train the run. If not, each uses its own."""

    def __post_init__(self) -> None:
        """Raise InputError if the method is not a frozen dataclass, or a field anywhere in the Run has a value outside
        the choices of its type."""
        kind = type(self.method)
        if not getattr(getattr(kind, "__dataclass_params__", None), "frozen", False):
            name = kind.__name__ if not isinstance(self.method, type) else self.method.__name__
            raise InputError(
                f"a method is a frozen dataclass; put @dataclass(frozen=True) above {name}, and give {name}()"
            )
        check_choices(self)

    def check(self) -> None:
        """Raise InputError if the protocol, a schedule, the method, a seed or the start is invalid.

        Seeds stay below 2^31: torch uses 32 bits of a seed for a network's weights, and methods with two networks add
        2^31 for the second.
        """
        seeds = [self.seed, *([self.longtail.seed] if self.longtail else [])]
        if wrong := [seed for seed in seeds if not 0 <= seed < SEEDS_END]:
            raise InputError(f"a seed must be 0 or more and below 2^31, got {wrong[0]}")
        parts = [getattr(self.method, f.name) for f in dataclasses.fields(self.method)]
        try:
            for part in [self.schedule, *parts]:
                if hasattr(part, "check") and not hasattr(part, "learner"):  # a schedule, say, and no other method
                    part.check()
            self.protocol.check()
            if hasattr(self.method, "check"):
                self.method.check(self.protocol)
        except ValueError as error:
            raise InputError(str(error)) from None
        self._check_start()

    def _check_start(self) -> None:
        """Raise InputError if the method lacks the start that it needs, or if the start is of the wrong kind or order.

        A method that only goes on from another Run has `starts_from`, which says from what; "" is for none. Its
        `accepts(start)`, if it has that too, says whether a start will do.
        """
        needed, name = getattr(self.method, "starts_from", ""), type_name(type(self.method))
        if needed and self.start is None:
            raise InputError(f"{name} starts from {needed}; give its Run a start")
        if self.start is None:
            return
        if needed and not getattr(self.method, "accepts", lambda start: True)(self.start):
            raise InputError(f"{name} starts from {needed}, not from a run of {type_name(type(self.start.method))}")
        if self.start.order != self.order:
            raise InputError(
                f"{name} has class order {self.order} but starts from a run of order {self.start.order}, in which a "
                "label is another class; give both Runs one order"
            )
        self.start.check()

    def resolved(self, fingerprint: str | Callable[[DataSpec], str], precision: str) -> Run:
        """Return this Run with its fingerprint and precision filled in, also in the Runs it starts from.

        fingerprint: one string, or a function of the DataSpec if a start may use another data set.
        """
        start = self.start.resolved(fingerprint, precision) if self.start else None
        content = fingerprint if isinstance(fingerprint, str) else fingerprint(self.data)
        return replace(self, fingerprint=content, precision=precision, start=start)

    @cached_property
    def key(self) -> str:
        """The hash without data fingerprint and precision, 12 hex digits. Figures look up results by it."""
        return _digest(canonical(self.resolved("", "")))[:KEY]

    @cached_property
    def hash(self) -> str:
        """The name of the Run's folder: the key, and 4 hex digits that depend on fingerprint and precision too."""
        return self.key + _digest(canonical(self))[:4]

    @property
    def chain(self) -> list[Run]:
        """The Runs to finish, in order: those this one starts from, then this one."""
        return [*(self.start.chain if self.start else []), self]


@lru_cache
def choices(kind: type) -> dict[str, tuple[Any, ...]]:
    """Return the allowed values of every field of a dataclass whose type lists them (Literal), by the field's name."""
    try:
        hints = get_type_hints(kind)
    except (NameError, TypeError):  # types that only type checkers import, and a plain ClassVar on Python 3.10
        return {}  # cannot be resolved here, so nothing is checked
    found = {f.name: _listed(hints[f.name]) for f in dataclasses.fields(kind)}
    return {name: values for name, values in found.items() if values}


def _listed(hint: Any) -> tuple[Any, ...]:
    """Return the values that a type lists: those of a Literal, or of a union of Literals and None.

    The result is empty if the type includes any other type.
    """
    if get_origin(hint) is Literal:
        return get_args(hint)
    parts = [(None,) if part is NoneType else _listed(part) for part in get_args(hint)]
    united = get_origin(hint) in (Union, UnionType) and all(parts) and parts != [(None,)]
    return tuple(value for part in parts for value in part) if united else ()


def check_choices(value: Any) -> None:
    """Raise InputError if a field of a dataclass, or of one nested in it, has a value that its type does not list, or
    a number that is not finite or does not fit into 64 bits."""
    kind: type = type(value)
    for name, allowed in choices(kind).items():
        found = getattr(value, name)
        if not any(found == each and type(found) is type(each) for each in allowed):
            words = ", ".join(map(str, allowed))
            raise InputError(f"{type_name(kind)}.{name} must be one of {words}, got {found!r}")
    for field_ in dataclasses.fields(value):
        part = getattr(value, field_.name)
        for number in part if isinstance(part, tuple) else (part,):
            if isinstance(number, float) and not math.isfinite(number):
                raise InputError(f"{type_name(kind)}.{field_.name} must be a finite number, got {number}")
            if isinstance(number, int) and number.bit_length() > 63 and field_.name != "seed":  # `Run.check` has seeds
                raise InputError(f"{type_name(kind)}.{field_.name} must fit into 64 bits with its sign")
        if dataclasses.is_dataclass(part) and not isinstance(part, (type, Run)):  # a start checked itself when made
            check_choices(part)


def type_name(kind: type) -> str:
    """Return the name of a class in hashes, records and commands: its own `hashed_as`, or else the name in the code.

    A class that was renamed has `hashed_as: ClassVar[str]`, its first name, so that its Runs keep their hashes.
    """
    return vars(kind).get("hashed_as", kind.__name__)


def canonical(value: Any, name: str = "") -> Any:
    """Return the JSON-ready form of nested dataclasses, which includes class names (`type_name`) and method versions.

    name: the field that holds the value, for error messages. Raises InputError on a value that is neither plain nor a
    dataclass.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: canonical(getattr(value, f.name), f"{type(value).__name__}.{f.name}")
            for f in dataclasses.fields(value)
            if not (f.metadata.get("added") and getattr(value, f.name) == f.default)
        }
        version = getattr(value, "version", None)
        return {"type": type_name(type(value)), **({"version": version} if version is not None else {}), **fields}
    if isinstance(value, (list, tuple)):
        return [canonical(v, name) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise InputError(
        f"{name or 'this'} is {value!r}; a Run holds numbers, words, tuples and dataclasses; a method's learner "
        "is a ClassVar"
    )


def key_of(config: Any) -> str:
    """Return the key of the Run with this canonical form, 12 hex digits."""

    def anywhere(run: Any) -> Any:
        if not isinstance(run, dict):
            return run
        return {**run, "fingerprint": "", "precision": "", "start": anywhere(run.get("start"))}

    return _digest(anywhere(config))[:12]


def is_hash(name: str) -> bool:
    """Return whether a name may be the hash of a Run: 16 hex digits."""
    return len(name) == KEY + 4 and set(name) <= set("0123456789abcdef")


def hash_of(config: Any) -> str:
    """Return the hash of the Run with this canonical form."""
    return key_of(config) + _digest(config)[:4]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
