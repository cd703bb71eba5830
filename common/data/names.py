"""Which label a class folder gets: class names as published, in label order, and how a folder may spell them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import numpy as np

from common.data.coarse import CIFAR20
from common.data.synsets import IMAGENET
from common.errors import InputError

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100 = tuple(sorted(name for members in CIFAR20.values() for name in members))
_DRAWN = np.random.RandomState(1993).choice(1000, 100, replace=False)

FOLDER = "folder"
"""The name of a data set of one's own, and of the preset that is about it."""
PUBLISHED: dict[str, tuple[str, ...]] = {
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "imagenet": IMAGENET,
    "imagenet-lt": IMAGENET,
    "imagenet-subset": tuple(IMAGENET[i] for i in sorted(_DRAWN)),
    "imagenet-100": IMAGENET[:100],
}
"""The classes of the data sets known by name, in label order. The order is alphabetical in all of them.

Two are 100 classes of ImageNet: a draw with seed 1993 (LUCIR), and the first in alphabetical order (PODNet, DER).
"""
SUBSETS = ("imagenet-subset", "imagenet-100")
_ALIASES = {"plane": "airplane", "aeroplane": "airplane", "car": "automobile", "auto": "automobile"}
_ALIASES |= {"computer_keyboard": "keyboard"} | {t: f"{t}_tree" for t in ("maple", "oak", "palm", "pine", "willow")}
"""Other names in use for classes of CIFAR. None of them is a class of another known data set."""


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in label order where nothing is published: numbers by value, then the others by alphabet."""
    return tuple(sorted(names, key=lambda n: (False, int(n), n) if _is_number(n) else (True, 0, n)))


def composed(name: str) -> str:
    """The name as most systems write it; on a Mac an accent may be a letter of its own."""
    return unicodedata.normalize("NFC", name)


def assign(name: str, where: object, found: Iterable[str], noun: str = "class folders") -> dict[str, str]:
    """The classes of the data set called `name`, in label order, and which of the names in `found` stands for each.

    Folders of a data set known by name are compared with its published classes. Case, spaces and hyphens do not
    matter, and usual aliases are known. Numbers from 0 up are labels: the published order is the only one in use.
    Of ImageNet's 1000 classes a subset takes its 100; a subset by itself has no order that all agree on, so that its
    folders need names. Another data set keeps the names it has.

    Raises InputError, which begins with `where` and calls its classes `noun`, if a class is missing or a name is not
    one of the classes.
    """
    found = tuple(found)
    if name not in PUBLISHED:
        return {n: n for n in ordered(found)}
    wanted = PUBLISHED[name]
    whole = IMAGENET if name in SUBSETS and len(found) == len(IMAGENET) else wanted
    if len(found) != len(whole):
        counts = "100 or 1000" if name in SUBSETS else str(len(whole))
        raise InputError(f"{where} has {len(found)} {noun} but {name} has {counts}; check --data")
    numbered = whole is not wanted or name not in SUBSETS
    if numbered and all(map(_is_number, found)) and sorted(map(int, found)) == list(range(len(whole))):
        by_class = {whole[int(n)]: n for n in found}
    else:
        by_class = {_class_of(n): n for n in found}
    unknown = [n for c, n in by_class.items() if c not in whole]
    if unknown or len(by_class) < len(whole):
        which = f"{unknown[0]!r}, which is not one of" if unknown else "two names for one of"
        numbers = f", or number them 0 to {len(whole) - 1} in that order" if numbered else ""
        raise InputError(
            f"{where} has {which} {name}'s classes ({', '.join(whole[:3])} ... {whole[-1]}); name the classes as "
            f"published{numbers}, or check --data"
        )
    return {c: by_class[c] for c in wanted}


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def _class_of(name: str) -> str:
    """A published class name from one of its spellings."""
    plain = name.strip().lower().replace(" ", "_").replace("-", "_")
    return _ALIASES.get(plain, plain)
