"""Data sets given as list files, train.txt with test.txt or val.txt, a line `path label` each: ImageNet-LT, iNaturalist.

A name may stand before the split, as in ImageNet_LT_train.txt. Paths are relative to the folder of the lists.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from common.errors import InputError
from common.folders import Split, Tree

PUBLISHED = {
    "imagenet-lt": (1000, 115_846),
    "places-lt": (365, 62_500),
    "inat2017": (5089, 579_184),
    "inat2018": (8142, 437_513),
}
"""Classes and training images of the long-tailed data sets known by name (Liu et al. 2019; Cui et al. 2019, Table 1)."""


def find(folder: Path, split: str) -> Path | None:
    """The list of a split in `folder`: train.txt, or the one file that ends in _train.txt. InputError on several."""
    if (plain := folder / f"{split}.txt").is_file():
        return plain
    found = sorted(folder.glob(f"*_{split}.txt"))
    if len(found) > 1:
        raise InputError(f"{folder} has several lists of the {split} split, {found[0].name} and {found[1].name}; keep one")
    return found[0] if found else None


def scan(folder: Path) -> Tree:
    """The images that the lists in `folder` name, grouped by class; label ids are the lists' own.

    Raises InputError on a missing list, a line that is not `path label`, an image that is not there, or a label
    without training images.
    """
    train = find(folder, "train")
    test = find(folder, "test") or find(folder, "val")
    if train is None or test is None:
        lacking = "train.txt" if train is None else "test.txt or val.txt"
        raise InputError(f"{folder} has no {lacking}; lists of both splits are needed, a line `path label` for each image")
    splits = _read(train), _read(test)
    counts = np.bincount(splits[0].labels)
    if not counts.all():
        raise InputError(f"{train} has no image of class {int(counts.argmin())}; labels go from 0 up without gaps")
    if (top := int(splits[1].labels.max())) >= len(counts):
        raise InputError(f"{test} has class {top}, which {train} has not")
    return Tree(tuple(map(str, range(len(counts)))), *splits, listed=True)


def require_published(name: str, folder: Path, tree: Tree) -> None:
    """InputError where a data set known by name has not its published numbers of classes and training images."""
    if name not in PUBLISHED:
        return
    found = (len(tree.classes), len(tree.train.labels))
    if found != PUBLISHED[name]:
        classes, images = PUBLISHED[name]
        raise InputError(
            f"{folder} has {found[0]:,} classes and {found[1]:,} training images, but {name} has {classes:,} and "
            f"{images:,}; check --data"
        )


def _read(path: Path) -> Split:
    folder, files, labels = path.parent, [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdecimal():
            raise InputError(f"{path} line {number} is {line.strip()!r}, not a path and a class number")
        try:
            info = (folder / name).stat()
        except OSError:
            raise InputError(
                f"{path} line {number} names {folder / name}, which is not there; complete the images, or mend the list"
            ) from None
        files.append((name, info.st_size, info.st_mtime_ns))
        labels.append(int(label))
    if not files:
        raise InputError(f"{path} names no images")
    order = np.argsort(labels, kind="stable")
    return Split(folder, tuple(files[i] for i in order), np.asarray(labels, dtype=np.int64)[order])
