"""Data sets given as list files: train.txt with test.txt or val.txt, a line `path label` for each image.

So ImageNet-LT, Places-LT and iNaturalist are published. A name may stand before the split, as in ImageNet_LT_train.txt.
Paths are relative to the folder of the lists.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from common.data.folders import Split, Tree
from common.errors import InputError

PUBLISHED = {
    "imagenet-lt": (1000, 115_846, 50_000),
    "places-lt": (365, 62_500, 36_500),
    "inat2017": (5089, 579_184, 95_986),
    "inat2018": (8142, 437_513, 24_426),
}
"""Classes, training and test images of the long-tailed data sets known by name (Liu et al. 2019; Cui et al. 2019)."""


def find(folder: Path, split: str) -> Path | None:
    """The list of a split in `folder`: train.txt, or the one file that ends in _train.txt. InputError on several."""
    if (plain := folder / f"{split}.txt").is_file():
        return plain
    found = sorted(folder.glob(f"*_{split}.txt"))
    if len(found) > 1:
        names = " and ".join(path.name for path in found[:2])
        raise InputError(f"{folder} has several lists of the {split} split, {names}; keep one")
    return found[0] if found else None


def scan(folder: Path) -> Tree:
    """The images that the lists in `folder` name, grouped by class; label ids are the lists' own.

    Raises InputError on a missing list, a line that is not `path label`, an image that is not there, or a label
    without training or test images.
    """
    train = find(folder, "train")
    test = find(folder, "test") or find(folder, "val")
    if train is None or test is None:
        lacking = "train.txt" if train is None else "test.txt or val.txt"
        raise InputError(f"{folder} has no {lacking}; both splits need a list, a line `path label` for each image")
    splits = _read(train), _read(test)
    labels = np.unique(splits[0].labels)
    if (empty := np.flatnonzero(labels != np.arange(len(labels)))).size:
        raise InputError(f"{train} has no image of class {empty[0]}; labels go from 0 up without gaps")
    tested = np.unique(splits[1].labels)
    if tested[-1] >= len(labels):
        raise InputError(f"{test} has class {tested[-1]}, which {train} has not")
    if (untested := np.setdiff1d(labels, tested)).size:
        raise InputError(f"{test} has no image of class {untested[0]}, which {train} has")
    return Tree(tuple(map(str, range(len(labels)))), *splits, listed=True)


def require_published(name: str, folder: Path, tree: Tree) -> None:
    """InputError where a data set known by name has not its published numbers of classes and images."""
    if name not in PUBLISHED:
        return
    found = (len(tree.classes), len(tree.train.labels), len(tree.test.labels))
    if found != PUBLISHED[name]:
        here, known = ("{:,} classes, {:,} training and {:,} test images".format(*n) for n in (found, PUBLISHED[name]))
        raise InputError(f"{folder} has {here}, but {name} has {known}; check --data")


def _read(path: Path) -> Split:
    folder, files, labels = path.parent, [], []
    for number, line in enumerate(_lines(path), 1):
        if not (words := line.rsplit(maxsplit=1)):
            continue
        if len(words) < 2 or not words[1].isdecimal() or len(words[1]) > 9:
            raise InputError(f"{path} line {number} is {line.strip()[:80]!r}, not a path and a class number")
        name = words[0].strip()
        try:
            info = (folder / name).stat()
        except OSError:
            raise InputError(
                f"{path} line {number} names {folder / name}, which is not there; complete the images, or mend the list"
            ) from None
        files.append((name, info.st_size, info.st_mtime_ns))
        labels.append(int(words[1]))
    if not files:
        raise InputError(f"{path} names no images")
    order = np.argsort(labels, kind="stable")
    return Split(folder, tuple(files[i] for i in order), np.asarray(labels, dtype=np.int64)[order])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text ({error})") from None
