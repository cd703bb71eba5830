"""Assigns labels to class folders: published class names in label order, and the spellings that folders may use."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import numpy as np

from common.data.coarse import CIFAR20
from common.data.synsets import IMAGENET
from common.errors import InputError

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100 = tuple(sorted(name for members in CIFAR20.values() for name in members))
_SUBSET_INDICES = np.random.RandomState(1993).choice(1000, 100, replace=False)

FOLDER = "folder"
"""The name of the user's own data set, and of the preset that trains on it."""
PUBLISHED: dict[str, tuple[str, ...]] = {
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "imagenet": IMAGENET,
    "imagenet-lt": IMAGENET,
    "imagenet-subset": tuple(IMAGENET[i] for i in sorted(_SUBSET_INDICES)),
    "imagenet-100": IMAGENET[:100],
}
"""The classes of published data sets, in label order. The order is alphabetical in all of them.

Two data sets have 100 classes of ImageNet: a random choice with seed 1993 (LUCIR), and the first 100 in alphabetical
order (PODNet, DER).
"""
SUBSETS = ("imagenet-subset", "imagenet-100")
_ALIASES = {"plane": "airplane", "aeroplane": "airplane", "car": "automobile", "auto": "automobile"}
_ALIASES |= {"computer_keyboard": "keyboard"} | {t: f"{t}_tree" for t in ("maple", "oak", "palm", "pine", "willow")}
"""Other common names of CIFAR's classes. None of them is a class of another published data set."""


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Sort class names that are not published into label order: numbers by value, then other names by alphabet."""
    return tuple(sorted(names, key=lambda n: (False, int(n), n) if _is_number(n) else (True, 0, n)))


def composed(name: str) -> str:
    """Return the name as most systems write it. On a Mac, an accent may be a separate character."""
    return unicodedata.normalize("NFC", name)


def assign(name: str, where: object, found: Iterable[str], noun: str = "class folders") -> dict[str, str]:
    """Return the classes of the data set called `name`, in label order: class -> its name in `found`.

    If the data set is published, the names are compared with its classes. Case, spaces and hyphens do not matter, and
    common aliases are known. Numbers from 0 up are taken as labels in the published order. A subset of ImageNet takes
    its 100 classes out of all 1000. If only the subset's own classes are found, they need names, because there is no
    agreed order for their numbers. Any other data set keeps the names it has.

    Raises InputError, which begins with `where` and calls the classes `noun`, if a class is missing or a name is not
    one of the classes.
    """
    found = tuple(found)
    if name not in PUBLISHED:
        return {n: n for n in ordered(found)}
    wanted = PUBLISHED[name]
    whole = IMAGENET if name in SUBSETS and len(found) == len(IMAGENET) else wanted
    if len(found) != len(whole):
        counts = "100 or 1000" if name in SUBSETS else str(len(whole))
        raise InputError(
            f"{where} has {len(found)} {noun} but {name} has {counts}; check --data, or give --preset folder"
        )
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
    """Return the published class name that a spelling stands for."""
    plain = name.strip().lower().replace(" ", "_").replace("-", "_")
    return _ALIASES.get(plain, plain)
