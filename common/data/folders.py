"""Reads image folders of the layout train/<class>/* with test|val/<class>/*.

Small images are decoded into memory. Large images stay files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from common.data.decoding import open_image
from common.data.listing import LAYOUT, Split, class_folders, list_split
from common.errors import InputError

Images: TypeAlias = np.ndarray | tuple[Path, ...]
Content: TypeAlias = tuple[Images, np.ndarray, Images, np.ndarray, tuple[str, ...]]
"""Train images and labels, test images and labels, class names."""

SMALL = 64  # pixels; if the first image's longest side is at most this, all images are decoded into memory
_CHUNK = 200  # images decoded per task of the pool
_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True, eq=False)
class Tree:
    """The list of an image folder's classes and files. No image has been decoded yet."""

    classes: tuple[str, ...]
    train: Split
    test: Split
    listed: bool = False
    """Whether labels come from list files and not from the folders' names."""

    @property
    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """The labels of the training images and of the test images."""
        return self.train.labels, self.test.labels

    @property
    def key(self) -> str:
        """A hash that changes when a file is added, removed, renamed, moved, written to, or given another label."""
        state = hashlib.sha256(repr(self.classes).encode())
        for split in (self.train, self.test):
            state.update(repr((str(split.folder.resolve()), split.files)).encode())
            state.update(split.labels.tobytes())
        return state.hexdigest()

    @property
    def fingerprint(self) -> str:
        """The fingerprint of large images: 16 hex digits of a sha256 over file names, file sizes and listed labels.

        Names are relative to the split's folder.
        """
        names = [[file[:2] for file in split.files] for split in (self.train, self.test)]
        state = hashlib.sha256(repr(names).encode())
        for split in (self.train, self.test) if self.listed else ():
            state.update(split.labels.tobytes())
        return state.hexdigest()[:16]

    def refuse_shared(self) -> None:
        """Raise InputError if links put one file into both splits, or into two classes. It asks the disk again."""
        seen: dict[tuple[int, int], tuple[Split, Path, int]] = {}
        for split in (self.train, self.test):
            for path, label in zip(split.paths, split.labels.tolist(), strict=True):
                info = path.stat()
                other, first, known = seen.setdefault((info.st_dev, info.st_ino), (split, path, label))
                if info.st_ino and (other is not split or known != label):  # some file systems number no files
                    what = "in two classes" if other is split else "trained on and tested on"
                    raise InputError(
                        f"{first} and {path} are links to one file, which would be {what}; delete one of them"
                    )

    def large(self) -> bool:
        """Return whether images are too large to be kept decoded in memory. The first image decides.

        Raises InputError if it is unreadable.
        """
        return max(read_image(self.train.firsts()[0]).shape[:2]) > SMALL

    def read(self) -> Content:
        """Return the data set's content: small images as uint8 [n, h, w, 3], large ones as paths of files.

        Only the first large image of each class is decoded, as a check. Raises InputError, which names the file,
        on an unreadable image, or on a small image of another size than the first.
        """
        train, test = self.train, self.test
        if self.large():
            with ThreadPoolExecutor(_THREADS) as pool:
                for _ in pool.map(read_image, train.firsts() + test.firsts()):
                    pass
            return train.paths, train.labels, test.paths, test.labels, self.classes
        first = train.firsts()[0]
        return _decode(train.paths, first), train.labels, _decode(test.paths, first), test.labels, self.classes


def scan(root: Path, assign: Callable[[Iterable[str]], Mapping[str, str]]) -> Tree:
    """List the classes and files of an image folder.

    assign: maps the names of all class folders to the classes to use, in label order: class -> name of its folder.
    The test split is test/, or val/ if test/ has no class folders. Folders inside a class folder belong to the class.
    Raises InputError on a missing split, classes that differ between the splits, a class without images, images that
    would be left out, and a folder that cannot be read. Errors of `assign` are passed on.
    """
    try:
        train = root / "train"
        found = class_folders(train)
        if not found:
            raise InputError(f"{train} has no class folders; the layout is {LAYOUT}")
        splits = ((root / name, class_folders(root / name)) for name in ("test", "val"))
        test, tested = next(((folder, names) for folder, names in splits if names), (root, {}))
        if not tested:
            raise InputError(f"{root} has neither test/<class>/ nor val/<class>/ beside train/; the layout is {LAYOUT}")
        _require_same(found, train, tested, test)
        classes = assign(found)
        here, there = ([names[n] for n in classes.values()] for names in (found, tested))
        _require_distinct([*(train / n for n in here), *(test / n for n in there)])
        return Tree(tuple(classes), list_split(train, here), list_split(test, there))
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}; check the folder and its rights") from None


def read_image(path: Path) -> np.ndarray:
    """Decode one image to RGB, uint8 [h, w, 3]. Raises InputError, which names the file, if that is impossible."""
    return np.asarray(open_image(path))


def _require_same(train_classes: Iterable[str], train: Path, test_classes: Iterable[str], test: Path) -> None:
    """Raise InputError if one split has classes that the other lacks."""
    for names, others, lacking in ((train_classes, test_classes, test), (test_classes, train_classes, train)):
        missing = sorted(set(names) - set(others))
        if missing:
            shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            raise InputError(
                f"{lacking} lacks classes that the other split has: {shown}; {train.name}/ and {test.name}/ must hold "
                "the same class folders"
            )


def _require_distinct(folders: Sequence[Path]) -> None:
    """Raise InputError if two class folders are the same folder, through a link."""
    seen: dict[Path, Path] = {}
    for folder in folders:
        if (other := seen.setdefault(folder.resolve(), folder)) != folder:
            raise InputError(f"{folder} and {other} are one folder; every class needs images of its own, also to test")


def _decode(paths: tuple[Path, ...], first: Path) -> np.ndarray:
    """Decode all images to uint8 [n, h, w, 3]. Raises InputError if one differs in size from the image `first`."""
    shape = read_image(first).shape
    images = np.empty((len(paths), *shape), np.uint8)

    def fill(start: int) -> None:
        for i, path in enumerate(paths[start : start + _CHUNK], start):
            image = read_image(path)
            if image.shape != shape:
                sizes = [f"{s[1]}x{s[0]}" for s in (image.shape, shape)]
                raise InputError(
                    f"{path} has {sizes[0]} pixels but {first} has {sizes[1]}; images of up to {SMALL} pixels must "
                    "all have one size: resize them"
                )
            images[i] = image

    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(fill, range(0, len(paths), _CHUNK)):
            pass
    return images
