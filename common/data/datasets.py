"""Data sets by name: the embedded glyphs, CIFAR and image folders, decoded once and kept in a cache on disk.

Imports neither torch nor torchvision until CIFAR's own files are read, so that planning stays quick.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from common.checkpoints import Damaged, checksum, lock, read_json
from common.data import cifar, folders, glyphs, lists
from common.data.cifar import CIFAR
from common.data.coarse import CIFAR20
from common.data.folders import Content, Images
from common.data.listing import LAYOUT
from common.data.names import FOLDER, SUBSETS, assign
from common.errors import InputError

COARSE = {"cifar20": "cifar100"}
"""Data sets that are another's images under coarser labels."""
PER_CLASS = {
    "cifar10": (5000, 1000),
    "cifar100": (500, 100),
    "imagenet": (1281, 50),
    "imagenet-subset": (1281, 50),
    "imagenet-100": (1281, 50),
}
"""Training and test images a class as published; ImageNet's vary, and this is their mean."""
PART = "part-"
"""Before the fingerprint of a data set known by name that has far fewer images than were published."""
FORMAT = 2  # of cache entries; raised when older ones must not be read
_PARTS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True)
class DataSpec:
    """Which data set. The numbers are for glyphs only; None means 100 classes, 500 and 100 images a class."""

    name: str
    """glyphs, cifar10, cifar20, cifar100, imagenet, imagenet-subset, imagenet-100 ... or an image folder's name.
    folder: images of one's own, whatever their folder is called."""
    classes: int | None = None
    per_class: int | None = None
    test_per_class: int | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set at hand. Images are uint8 [n, h, w, 3], or the files where they are too large to hold in memory."""

    name: str
    train_images: Images
    train_labels: np.ndarray
    """int64 [n], positions in `classes`."""
    test_images: Images
    test_labels: np.ndarray
    classes: tuple[str, ...]
    fingerprint: str
    """16 hex digits over images and labels of both splits; over names and sizes where images are files.

    `part-` stands before them where the data set is known by name and has less than nine tenths of the published
    images in a split. Results on it are never held against published numbers.

    The order of images is part of the content: the same pictures read from another source in another order have
    another fingerprint.
    """

    @property
    def embedded(self) -> bool:
        """Whether the program draws the images itself."""
        return self.name == "glyphs"


@dataclass(frozen=True)
class _Source:
    """Where the images come from; `key` changes whenever they may have."""

    key: str
    read: Callable[[], Content]
    fingerprint: str | None = None
    """Known without decoding only where images stay files; these are not cached."""


def load(spec: DataSpec, root: Path | None = None, cache: Path | None = None) -> Dataset:
    """Read a data set, from the cache folder where it holds it, else from its source and into the cache.

    `root` is the data set's own folder or one that holds it by name; None downloads CIFAR into `cache`.
    A cache that cannot be written is done without, with a warning; its folder may be deleted at any time.
    Raises InputError, one line that says what to do, where the data are missing, incomplete or damaged.
    """
    if spec.name in COARSE:
        return coarsen(load(replace(spec, name=COARSE[spec.name]), root, cache), spec.name)
    source = _source(spec, root, cache)
    if cache is None or source.fingerprint:
        return _read(spec.name, source)
    entry = _entry(spec, source, cache)
    if (found := _read_entry(entry)) is not None:  # before locking, so that a read-only cache serves
        return found
    held = _lock(entry)
    with held or nullcontext():
        found = _read_entry(entry) if held else None  # another process may have written it meanwhile
        if found is not None:
            return found
        dataset = _read(spec.name, source)
        if held and _write_entry(entry, dataset):
            return _read_entry(entry) or dataset  # mapped from disk, memory is shared between processes
        return dataset


def fingerprint(spec: DataSpec, root: Path | None = None, cache: Path | None = None) -> str | None:
    """The fingerprint where it is known without decoding: from the cache, or from the listing of large images.

    Raises InputError where `root` lacks the data set or its layout is wrong.
    """
    if spec.name in COARSE:
        fine = fingerprint(replace(spec, name=COARSE[spec.name]), root, cache)
        return coarse_fingerprint(fine) if fine else None
    source = _source(spec, root, cache)
    if source.fingerprint or cache is None:
        return source.fingerprint
    meta = _read_meta(_entry(spec, source, cache))
    return meta["fingerprint"] if meta else None


def coarsen(fine: Dataset, name: str) -> Dataset:
    """CIFAR-100 under its 20 coarse labels: the same images in the same order. InputError on other classes."""
    names = tuple(CIFAR20)
    coarse = {member: i for i, members in enumerate(CIFAR20.values()) for member in members}
    if set(fine.classes) != set(coarse):
        unknown = sorted(set(fine.classes) - set(coarse)) or sorted(set(coarse) - set(fine.classes))
        raise InputError(f"{name} needs CIFAR-100's class names, but {unknown[0]!r} is not in both; check --data")
    table = np.array([coarse[c] for c in fine.classes])
    train, test = table[fine.train_labels], table[fine.test_labels]
    return Dataset(name, fine.train_images, train, fine.test_images, test, names, coarse_fingerprint(fine.fingerprint))


def coarse_fingerprint(fine: str) -> str:
    """Of the same images under coarse labels, 16 hex digits; of a part it is marked as a part's."""
    digits = hashlib.sha256(f"{fine} coarse".encode()).hexdigest()[:16]
    return PART + digits if fine.startswith(PART) else digits


def locate(spec: DataSpec, root: Path | None) -> Path | None:
    """The data set's folder: `root` or one inside it; None for glyphs and for CIFAR without `root`.

    Raises InputError where `root` is missing or holds neither torchvision's files nor train/.
    """
    name = COARSE.get(spec.name, spec.name)
    if name == "glyphs" or (root is None and name in CIFAR):
        return None
    if name in ("", ".", "..") or Path(name).name != name:
        raise InputError(f"{name!r} is not the name of a data set; pass a plain name, and its folder with --data")
    if root is None:
        what = "--preset folder" if name == FOLDER else name
        raise InputError(f"{what} needs --data DIR, a folder with {LAYOUT}; the quick preset needs no data")
    if not root.is_dir():
        raise InputError(f"--data {root} is not a folder; pass one that holds {name}")
    inside = (name, "imagenet") if name in SUBSETS else () if name == FOLDER else (name,)
    candidates = [*(root / n for n in inside), root]
    files = ""
    if name in CIFAR:
        _, extracted, archive = CIFAR[name]
        files = f"{extracted}/, {archive} or "
        candidates += [root.parent] if root.name == extracted else []
    for folder in candidates:
        if cifar.has_cifar(name, folder) or (folder / "train").is_dir() or lists.find(folder, "train"):
            return folder
    listed = " or train.txt and test.txt" if name in (*lists.PUBLISHED, FOLDER) else ""
    if name == FOLDER:
        raise InputError(f"--data {root} has no {LAYOUT}{listed}; sort the images into folders like these")
    raise InputError(f"--data {root} does not hold {name}: neither it nor {root / name} has {files}{LAYOUT}{listed}")


def _source(spec: DataSpec, root: Path | None, cache: Path | None) -> _Source:
    if spec.name == "glyphs":
        return _glyphs(spec)
    if spec != DataSpec(spec.name):
        names = ", ".join(f.name for f in fields(DataSpec)[1:])
        raise InputError(f"{spec.name} comes as it is: {names} can be chosen for glyphs only")
    folder = locate(spec, root)
    if folder is None or cifar.has_cifar(spec.name, folder):
        # Checked by md5 when read, so that every copy has the same content: one cache entry serves them all.
        return _Source("torchvision's files", partial(cifar.read_cifar, spec.name, folder, cache))
    if lists.find(folder, "train") and (spec.name in lists.PUBLISHED or not (folder / "train").is_dir()):
        tree = lists.scan(folder, spec.name)
    else:
        tree = folders.scan(folder, partial(assign, spec.name, folder / "train"))
    lists.require_published(spec.name, folder, tree)
    return _Source(tree.key, tree.read, _marked(spec.name, tree.fingerprint, *tree.labels) if tree.large() else None)


def _marked(name: str, fingerprint: str, train_labels: np.ndarray, test_labels: np.ndarray) -> str:
    """The fingerprint, marked where the data set has far fewer images a class than were published.

    The largest class counts: a long-tailed copy, whose first class is whole, is no part of the data set by mistake.
    """
    if name not in PER_CLASS:
        return fingerprint
    sizes = zip((train_labels, test_labels), PER_CLASS[name], strict=True)
    whole = all(np.bincount(labels).max() >= 0.9 * published for labels, published in sizes)
    return fingerprint if whole else PART + fingerprint


def _glyphs(spec: DataSpec) -> _Source:
    given = (spec.classes, spec.per_class, spec.test_per_class)
    classes, per_class, test = (d if v is None else v for v, d in zip(given, (100, 500, 100), strict=True))

    def read() -> Content:
        try:
            return glyphs.generate(classes, per_class, test, spec.seed)
        except ValueError as error:
            raise InputError(str(error)) from None

    # The characters are drawn by matplotlib's fonts and FreeType.
    program = hashlib.sha256(Path(glyphs.__file__).read_bytes()).hexdigest()
    return _Source(repr((classes, per_class, test, spec.seed, version("matplotlib"), program)), read)


def _read(name: str, source: _Source) -> Dataset:
    content = source.read()
    found = source.fingerprint or _marked(name, _digest_arrays(*content[:4]), content[1], content[3])
    return Dataset(name, *content, fingerprint=found)


def _digest_arrays(*arrays: Any) -> str:
    state = hashlib.sha256()
    for array in arrays:
        state.update(repr(array.shape).encode())
        state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()[:16]


def _entry(spec: DataSpec, source: _Source, cache: Path) -> Path:
    """The folder of a cached data set: the arrays as .npy and meta.json."""
    return cache / f"{spec.name}-{hashlib.sha256(repr((FORMAT, source.key)).encode()).hexdigest()[:16]}"


def _read_meta(entry: Path) -> dict | None:
    """meta.json of a whole entry; None where there is none or a file has not the size it was written with."""
    try:
        meta = read_json(entry / "meta.json", "it is made again")
        whole = all((entry / name).stat().st_size == size for name, size in meta["bytes"].items())
    except (OSError, Damaged, KeyError, TypeError, AttributeError):
        return None
    return meta if whole else None


def _read_entry(entry: Path) -> Dataset | None:
    meta = _read_meta(entry)
    if meta is None:
        return None
    try:
        arrays = [np.load(entry / f"{part}.npy", mmap_mode="c" if "images" in part else None) for part in _PARTS]
    except (OSError, ValueError, EOFError):
        return None
    if _digest_arrays(*arrays) != meta["fingerprint"].removeprefix(PART):
        warnings.warn(f"the data cache {entry} holds other bytes than were written; it is made again", stacklevel=1)
        return None
    images, labels, test_images, test_labels = arrays
    return Dataset(meta["name"], images, labels, test_images, test_labels, tuple(meta["classes"]), meta["fingerprint"])


def _write_entry(entry: Path, dataset: Dataset) -> bool:
    """Replace an entry by these arrays, atomically; False, with a warning, where the disk does not take them."""
    part = entry.with_name(f"{entry.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
        part.mkdir()
        for name in _PARTS:
            np.save(part / f"{name}.npy", getattr(dataset, name))
        sizes = {path.name: path.stat().st_size for path in part.iterdir()}
        meta = {"name": dataset.name, "classes": dataset.classes, "fingerprint": dataset.fingerprint, "bytes": sizes}
        (part / "meta.json").write_text(json.dumps({**meta, "checksum": checksum(meta)}), encoding="utf-8")
        shutil.rmtree(entry, ignore_errors=True)
        os.replace(part, entry)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        _warn_no_cache(entry.parent, error)
        return False
    return True


def _lock(entry: Path) -> AbstractContextManager | None:
    """Hold the entry against other processes; None, with a warning, where the cache cannot be written."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        return lock(entry.with_name(f"{entry.name}.lock")).acquire()
    except (OSError, NotImplementedError) as error:  # the latter from file systems without locks
        _warn_no_cache(entry.parent, error)
        return None


def _warn_no_cache(cache: Path, error: Exception) -> None:
    warnings.warn(f"cannot write the data cache {cache} ({error}); going on without it", stacklevel=2)
