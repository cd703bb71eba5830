"""Image folders: train/<class>/* with test|val/<class>/*.

Small images are decoded into memory, large ones stay files.
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

SMALL = 64  # pixels; up to this longest side of the first image, all images are decoded into memory
_CHUNK = 200  # images decoded per task of the pool
_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True, eq=False)
class Tree:
    """An image folder as listed on disk, nothing decoded yet."""

    classes: tuple[str, ...]
    train: Split
    test: Split
    listed: bool = False
    """Whether labels come from list files and not from the folders' names."""

    @property
    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the training and the test images."""
        return self.train.labels, self.test.labels

    @property
    def key(self) -> str:
        """Changes when a file is added, removed, renamed, moved or written to, or gets another label."""
        state = hashlib.sha256(repr(self.classes).encode())
        for split in (self.train, self.test):
            state.update(repr((str(split.folder.resolve()), split.files)).encode())
            state.update(split.labels.tobytes())
        return state.hexdigest()

    @property
    def fingerprint(self) -> str:
        """Of large images: sha256 over names below the split, file sizes and listed labels, 16 hex digits."""
        names = [[file[:2] for file in split.files] for split in (self.train, self.test)]
        state = hashlib.sha256(repr(names).encode())
        for split in (self.train, self.test) if self.listed else ():
            state.update(split.labels.tobytes())
        return state.hexdigest()[:16]

    def large(self) -> bool:
        """Whether the first training image is too large for all to be decoded. InputError if it is unreadable."""
        return max(read_image(self.train.firsts()[0]).shape[:2]) > SMALL

    def read(self) -> Content:
        """The images: uint8 [n, h, w, 3] of small ones, else the files, of which each class's first is tried.

        Raises InputError naming the file on an unreadable image, or on a small one that differs in size.
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
    """List an image folder. `assign` maps the classes to use, in label order, to names of class folders.

    The test split is test/, or val/ where test/ has no class folders. Folders inside a class folder belong to it.
    Raises InputError on a missing split, classes that differ between the splits, a class without images, images that
    would be left out, a folder that cannot be read, and whatever `assign` raises.
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
    """Decode one image to RGB, uint8 [h, w, 3]. Raises InputError naming the file if it cannot be."""
    return np.asarray(open_image(path))


def _require_same(train_classes: Iterable[str], train: Path, test_classes: Iterable[str], test: Path) -> None:
    for names, others, lacking in ((train_classes, test_classes, test), (test_classes, train_classes, train)):
        missing = sorted(set(names) - set(others))
        if missing:
            shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            raise InputError(
                f"{lacking} lacks classes that the other split has: {shown}; {train.name}/ and {test.name}/ must hold "
                "the same class folders"
            )


def _require_distinct(folders: Sequence[Path]) -> None:
    seen: dict[Path, Path] = {}
    for folder in folders:
        if (other := seen.setdefault(folder.resolve(), folder)) != folder:
            raise InputError(f"{folder} and {other} are one folder; every class needs images of its own, also to test")


def _decode(paths: tuple[Path, ...], first: Path) -> np.ndarray:
    """All images as uint8 [n, h, w, 3], the size being that of `first`."""
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
