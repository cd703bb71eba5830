"""Data sets on disk: image folders, train/<class>/* with test|val/<class>/*, and torchvision's CIFAR files.

Small images are decoded into memory, large ones stay files. Only reading CIFAR's own files imports torchvision.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from common.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Images: TypeAlias = np.ndarray | tuple[Path, ...]
Content: TypeAlias = tuple[Images, np.ndarray, Images, np.ndarray, tuple[str, ...]]
"""Train images and labels, test images and labels, class names."""

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
SMALL = 64  # pixels; up to this longest side of the first image, all images are decoded into memory
LAYOUT = "train/<class>/*.png and test/<class>/*.png (or val/)"
CIFAR = {
    "cifar10": ("CIFAR10", "cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "cifar100": ("CIFAR100", "cifar-100-python", "cifar-100-python.tar.gz"),
}
"""Torchvision's class, the folder it reads and the archive that holds it."""
TIMEOUT = 15.0  # seconds a download may be silent
_CHUNK = 200  # images decoded per task of the pool
_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one split, grouped by class in label order."""

    folder: Path
    files: tuple[tuple[str, int, int], ...]
    """Name below `folder`, size in bytes and modification time in ns."""
    labels: np.ndarray
    """int64 [n]."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, in the order of `labels`."""
        return tuple(self.folder / name for name, _, _ in self.files)

    def firsts(self) -> list[Path]:
        """The first file of every class."""
        _, positions = np.unique(self.labels, return_index=True)
        return [self.folder / self.files[i][0] for i in positions]


@dataclass(frozen=True, eq=False)
class Tree:
    """An image folder as listed on disk, nothing decoded yet."""

    classes: tuple[str, ...]
    train: Split
    test: Split
    listed: bool = False
    """Whether labels come from list files and not from the folders' names."""

    @property
    def key(self) -> str:
        """Changes when a file is added, removed, renamed, moved or written to."""
        state = hashlib.sha256()
        for split in (self.train, self.test):
            state.update(repr((str(split.folder.resolve()), split.files)).encode())
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


def scan(root: Path, choose: Callable[[tuple[str, ...]], tuple[str, ...]] = lambda classes: classes) -> Tree:
    """List an image folder; `choose` maps its sorted class names to the sorted ones to use.

    The test split is test/, or val/ where test/ has no class folders. Label ids are positions in the sorted names.
    Raises InputError on a missing split, classes that differ between the splits, a class without images, a folder
    that cannot be read, and whatever `choose` raises.
    """
    try:
        train = root / "train"
        classes = _subfolders(train)
        if not classes:
            raise InputError(f"{train} has no class folders; the layout is {LAYOUT}")
        test = next((root / name for name in ("test", "val") if _subfolders(root / name)), None)
        if test is None:
            raise InputError(f"{root} has neither test/<class>/ nor val/<class>/ beside train/; the layout is {LAYOUT}")
        _require_same(classes, train, _subfolders(test), test)
        classes = choose(classes)
        return Tree(classes, _list_split(train, classes), _list_split(test, classes))
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}; check the folder and its rights") from None


def read_image(path: Path) -> np.ndarray:
    """Decode one image to RGB, uint8 [h, w, 3]. Raises InputError naming the file if it cannot be."""
    return np.asarray(open_image(path))


def open_image(path: Path) -> Image:
    """As `read_image`, but a Pillow image of mode RGB: a part can be cut before its pixels are copied to an array."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
    except Exception as error:  # damaged files make Pillow's readers raise nearly anything
        raise InputError(f"cannot read the image {path} ({_line(error)}); replace it or delete it") from None


def _subfolders(folder: Path) -> tuple[str, ...]:
    """Sorted names of the visible folders inside; none where there is no such folder."""
    if not folder.is_dir():
        return ()
    with os.scandir(folder) as entries:
        return tuple(sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(".")))


def _require_same(train_classes: tuple[str, ...], train: Path, test_classes: tuple[str, ...], test: Path) -> None:
    for names, others, lacking in ((train_classes, test_classes, test), (test_classes, train_classes, train)):
        missing = sorted(set(names) - set(others))
        if missing:
            shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            raise InputError(
                f"{lacking} lacks classes that the other split has: {shown}; {train.name}/ and {test.name}/ must hold "
                "the same class folders"
            )


def _list_split(folder: Path, classes: tuple[str, ...]) -> Split:
    files: list[tuple[str, int, int]] = []
    counts = []
    for name in classes:
        with os.scandir(folder / name) as entries:
            found = sorted((e for e in entries if _is_image(e)), key=lambda e: e.name)
            infos = [(e.name, e.stat()) for e in found]
        if not infos:
            raise InputError(
                f"{folder / name} holds no images ({' '.join(e[1:] for e in EXTENSIONS)}); add some, or delete the "
                "class from both splits"
            )
        files += [(f"{name}/{file}", info.st_size, info.st_mtime_ns) for file, info in infos]
        counts.append(len(infos))
    return Split(folder, tuple(files), np.repeat(np.arange(len(classes), dtype=np.int64), counts))


def _is_image(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.name.lower().endswith(EXTENSIONS) and entry.is_file()


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


def has_cifar(name: str, folder: Path) -> bool:
    """Whether the folder holds torchvision's files of this data set, extracted or not."""
    return name in CIFAR and ((folder / CIFAR[name][1]).is_dir() or (folder / CIFAR[name][2]).is_file())


def read_cifar(name: str, folder: Path | None, cache: Path | None) -> Content:
    """Torchvision's files, compared with their md5, from `folder`, which stays as it is, or downloaded into `cache`.

    Raises InputError on a damaged or incomplete copy, or where there is none and no network.
    """
    if folder is None:
        return _download_cifar(name, cache)
    _, extracted, archive = CIFAR[name]
    try:
        if (folder / extracted).is_dir():
            return _parse_cifar(name, folder)
        with tempfile.TemporaryDirectory() as temporary:
            _extract_cifar(name, folder / archive, temporary)
            return _parse_cifar(name, Path(temporary))
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{name} in {folder} is damaged, incomplete or cannot be read ({_line(error)}); replace it by a fresh "
            f"{archive}"
        ) from None


def _download_cifar(name: str, cache: Path | None) -> Content:
    if cache is None:
        raise InputError(_ways(name, "no cache folder to download it into"))
    target = cache / f"{name}-download"
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        return _parse_cifar(name, target, download=True)
    except (OSError, RuntimeError, HTTPException) as error:
        shutil.rmtree(target, ignore_errors=True)  # half a download would only be in the way of the next attempt
        raise InputError(_ways(name, _line(error))) from None
    finally:
        socket.setdefaulttimeout(before)


def _ways(name: str, reason: str) -> str:
    _, extracted, archive = CIFAR[name]
    return (
        f"{name} is not here and could not be downloaded ({reason}). Get it in one of three ways: let it download on a "
        f"machine with network; --data DIR with torchvision's files ({extracted}/ or {archive}); --data DIR with "
        f"images in {LAYOUT}. The quick preset needs none of this"
    )


def _extract_cifar(name: str, archive: Path, target: str) -> None:
    from torchvision import datasets

    if not datasets.utils.check_integrity(archive, getattr(datasets, CIFAR[name][0]).tgz_md5):
        raise RuntimeError(f"the md5 of {archive.name} is not the published one")
    datasets.utils.extract_archive(str(archive), target)


def _parse_cifar(name: str, folder: Path, download: bool = False) -> Content:
    from torchvision import datasets

    source = getattr(datasets, CIFAR[name][0])
    train, test = (source(folder, train=split == "train", download=download) for split in ("train", "test"))
    images = [np.ascontiguousarray(part.data) for part in (train, test)]
    labels = [np.array(part.targets, np.int64) for part in (train, test)]
    return images[0], labels[0], images[1], labels[1], tuple(train.classes)


def _line(error: Exception) -> str:
    """The error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__
