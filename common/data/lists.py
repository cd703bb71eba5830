"""Reads data sets given as list files: train.txt with test.txt or val.txt, one line `path label` for each image.

ImageNet-LT, Places-LT and iNaturalist are published in this form. A name may come before the split, as in
ImageNet_LT_train.txt. Paths are relative to the folder of the lists.
"""

from __future__ import annotations

import os
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import numpy as np

from common.data.folders import Tree
from common.data.listing import Split
from common.data.names import SUBSETS, assign
from common.errors import InputError

Lines: TypeAlias = dict[str, tuple[int, int]]
"""Path of an image -> the number of the line that names it, and the label there."""

PUBLISHED = {
    "imagenet-lt": (1000, 115_846, 50_000),
    "places-lt": (365, 62_500, 36_500),
    "inat2017": (5089, 579_184, 95_986),
    "inat2018": (8142, 437_513, 24_426),
}
"""Published numbers of classes, training images and test images of long-tailed data sets (Liu et al. 2019; Cui et al.
2019)."""


def find(folder: Path, split: str) -> Path | None:
    """Return the list of a split in `folder`, or None: for train it is train.txt, or the only file *_train.txt.

    Raises InputError if there are several.
    """
    if (plain := folder / f"{split}.txt").is_file():
        return plain
    found = sorted(path for path in folder.glob(f"*_{split}.txt") if not path.name.startswith("."))
    if len(found) > 1:
        names = " and ".join(path.name for path in found[:2])
        raise InputError(f"{folder} has several lists of the {split} split, {names}; keep one")
    return found[0] if found else None


def scan(folder: Path, name: str) -> Tree:
    """Return the images that the lists in `folder` name, grouped by class, with the lists' own labels.

    Raises InputError on a missing list, a line that is not `path label`, an image that is missing or listed twice, a
    label without training or test images, and labels that the data set called `name` does not have.
    """
    train = find(folder, "train")
    test = find(folder, "test") or find(folder, "val")
    if train is None or test is None:
        lacking = "train.txt" if train is None else "test.txt or val.txt"
        raise InputError(f"{folder} has no {lacking}; both splits need a list, a line `path label` for each image")
    (training, trained_on), (testing, tested_on) = _read(train), _read(test)
    labels = np.unique(training.labels)
    if (empty := np.flatnonzero(labels != np.arange(len(labels)))).size:
        raise InputError(f"{train} has no image of class {empty[0]}; labels go from 0 up without gaps")
    tested = np.unique(testing.labels)
    if tested[-1] >= len(labels):
        raise InputError(f"{test} has class {tested[-1]}, which {train} has not")
    if (untested := np.setdiff1d(labels, tested)).size:
        raise InputError(f"{test} has no image of class {untested[0]}, which {train} has")
    for image, (number, _) in tested_on.items():
        if image in trained_on:
            raise InputError(
                f"{test} line {number} names {image}, which line {trained_on[image][0]} of {train} names too; no image "
                "may be in both: delete a line"
            )
    return Tree(_classes(name, train, len(labels)), training, testing, listed=True)


def _classes(name: str, train: Path, count: int) -> tuple[str, ...]:
    """Return the class names of the labels 0, 1 ... Raises InputError if the data set `name` has other labels."""
    if name in PUBLISHED:  # these data sets are published as lists; `require_published` compares the numbers
        return tuple(map(str, range(count)))
    if name in SUBSETS:
        raise InputError(f"{train} has numbers for classes, which {name} has no agreed ones of; pass class folders")
    return tuple(assign(name, train, map(str, range(count)), "classes"))


def require_published(name: str, folder: Path, tree: Tree) -> None:
    """Raise InputError if a published data set does not have its published numbers of classes and images."""
    if name not in PUBLISHED:
        return
    found = (len(tree.classes), len(tree.train.labels), len(tree.test.labels))
    if found != PUBLISHED[name]:
        here, known = ("{:,} classes, {:,} training and {:,} test images".format(*n) for n in (found, PUBLISHED[name]))
        raise InputError(f"{folder} has {here}, but {name} has {known}; check --data")


def _read(path: Path) -> tuple[Split, Lines]:
    """Read one list: the images that it names, and the line that names each of them."""
    folder, files, labels = path.parent, [], []
    lines: Lines = {}
    for number, line in enumerate(_lines(path), 1):
        if not (words := line.rsplit(maxsplit=1)):
            continue
        if len(words) < 2 or not _is_label(words[1]):
            raise InputError(f"{path} line {number} is {line.strip()[:80]!r}, not a path and a class number")
        name, label = words[0].strip(), int(words[1])
        name, info = _found(folder, name) or (name, None)
        if info is None:
            raise InputError(
                f"{path} line {number} names {folder / name}, which is not there; complete the images, or mend the list"
            )
        first, before = lines.setdefault(os.path.normpath(folder / name), (number, label))
        if first != number:
            problem = "an image counts once" if label == before else f"there as class {before}, here as {label}"
            raise InputError(f"{path} line {number} names {name}, as line {first} does ({problem}); delete one of them")
        files.append((name, info.st_size, info.st_mtime_ns))
        labels.append(label)
    if not files:
        raise InputError(f"{path} names no images")
    order = np.argsort(labels, kind="stable")
    return Split(folder, tuple(files[i] for i in order), np.asarray(labels, dtype=np.int64)[order]), lines


def _is_label(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) <= 9


def _found(folder: Path, name: str) -> tuple[str, os.stat_result] | None:
    """Return an image's name as the disk spells it (accents may differ in encoding) and its `stat`; None if missing."""
    for form in dict.fromkeys((name, *(unicodedata.normalize(f, name) for f in ("NFC", "NFD")))):
        with suppress(OSError, ValueError):  # a null character raises the latter
            return form, (folder / form).stat()
    return None


def _lines(path: Path) -> list[str]:
    """Return the lines of a text file. Raises InputError if it is not UTF-8.

    A name may hold other separators, such as U+2028, at which `splitlines` would cut it.
    """
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text ({error}); save it as UTF-8") from None
