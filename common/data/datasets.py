"""Opens data sets by name: the embedded glyphs, CIFAR and image folders. A cache on disk keeps the decoded images.

The module imports neither torch nor torchvision until it reads CIFAR's own files, so that planning stays quick.
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
from common.data.listing import LAYOUT, class_folders
from common.data.names import FOLDER, SUBSETS, assign
from common.errors import InputError

COARSE = {"cifar20": "cifar100"}
"""Data sets with the images of another one under coarser labels -> that other data set."""
PER_CLASS = {
    "cifar10": (5000, 1000),
    "cifar100": (500, 100),
    "imagenet": (1281, 50),
    "imagenet-subset": (1281, 50),
    "imagenet-100": (1281, 50),
}
"""Published numbers of training and test images per class. ImageNet's classes vary in size; this is their mean."""
PART = "part-"
"""Marks the fingerprint of a data set that has a published name but far fewer images than were published."""
FORMAT = 2  # version of the cache's entries, raised when older ones must not be read
_PARTS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True)
class DataSpec:
    """Names a data set. The numbers are for glyphs only.

    None stands for 100 classes, and for 500 training and 100 test images in each.
    """

    name: str
    """glyphs, cifar10, cifar20, cifar100, imagenet, imagenet-subset, imagenet-100 ... or the name of an image folder.
    The name "folder" stands for the user's own images, whatever their folder is called."""
    classes: int | None = None
    per_class: int | None = None
    test_per_class: int | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Dataset:
    """An open data set. Images are uint8 [n, h, w, 3], or file paths if they are too large to keep in memory."""

    name: str
    train_images: Images
    train_labels: np.ndarray
    """int64 [n], positions in `classes`."""
    test_images: Images
    test_labels: np.ndarray
    classes: tuple[str, ...]
    fingerprint: str
    """Hash of both splits' images and labels, or of names and sizes if images are files: 16 hex digits.

    The prefix `part-` marks a data set that has a published name but less than nine tenths of the published images in a
    split. Results on such a part are never compared with published numbers.

    The order of images matters: the same images in another order, from another source, have another fingerprint.
    """

    @property
    def embedded(self) -> bool:
        """Whether the program makes the images itself."""
        return self.name == "glyphs"


@dataclass(frozen=True)
class _ImageSource:
    """A place that images are read from. `key` changes whenever the images may have changed."""

    key: str
    read: Callable[[], Content]
    fingerprint: str | None = None
    """The data set's fingerprint if images stay files, else None. Files are neither decoded for it nor cached."""


def load(spec: DataSpec, root: Path | None = None, cache: Path | None = None) -> Dataset:
    """Read a data set from the cache, or else from its source, and then write it to the cache.

    root: the data set's own folder, or a folder that holds it by name; None downloads CIFAR into `cache`. cache: a
    folder that may be deleted at any time; if it cannot be written to, the function warns and goes on without it.
    Raises InputError, one line that says what to do, if the data are missing, incomplete or damaged.
    """
    if spec.name in COARSE:
        return coarsen(load(replace(spec, name=COARSE[spec.name]), root, cache), spec.name)
    source = _source(spec, root, cache)
    if cache is None or source.fingerprint:
        return _read(spec.name, source)
    entry = _entry(spec, source, cache)
    if (found := _read_entry(entry)) is not None:  # read before locking, so that a read-only cache can be used
        return found
    held = _lock(entry)
    with held or nullcontext():
        found = _read_entry(entry) if held else None  # another process may have written it meanwhile
        if found is not None:
            return found
        dataset = _read(spec.name, source)
        if held and _write_entry(entry, dataset):
            return _read_entry(entry) or dataset  # arrays mapped from disk share memory between processes
        return dataset


def fingerprint(spec: DataSpec, root: Path | None = None, cache: Path | None = None) -> str | None:
    """Return the fingerprint if it is known without decoding, from the cache or the list of large images; else None.

    Raises InputError if `root` lacks the data set or its layout is wrong.
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
    """Return CIFAR-100 under its 20 coarse labels, with the same images in the same order.

    Raises InputError if `fine` has other classes than CIFAR-100.
    """
    names = tuple(CIFAR20)
    coarse = {member: i for i, members in enumerate(CIFAR20.values()) for member in members}
    if set(fine.classes) != set(coarse):
        unknown = sorted(set(fine.classes) - set(coarse)) or sorted(set(coarse) - set(fine.classes))
        raise InputError(f"{name} needs CIFAR-100's class names, but {unknown[0]!r} is not in both; check --data")
    table = np.array([coarse[c] for c in fine.classes])
    train, test = table[fine.train_labels], table[fine.test_labels]
    return Dataset(name, fine.train_images, train, fine.test_images, test, names, coarse_fingerprint(fine.fingerprint))


def coarse_fingerprint(fine: str) -> str:
    """Return the fingerprint of the same images under coarse labels, 16 hex digits; a part's stays marked as such."""
    digits = hashlib.sha256(f"{fine} coarse".encode()).hexdigest()[:16]
    return PART + digits if fine.startswith(PART) else digits


def locate(spec: DataSpec, root: Path | None) -> Path | None:
    """Return the data set's folder, which is `root` or inside it. None for glyphs, and for CIFAR without `root`.

    Raises InputError if `root` is missing, or holds neither torchvision's files, nor train/, nor list files.
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
        raise InputError(f"--data {root} is not a folder; pass one that holds {LAYOUT if name == FOLDER else name}")
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


def _source(spec: DataSpec, root: Path | None, cache: Path | None) -> _ImageSource:
    """Return where a data set's images come from. Raises InputError if it is not there."""
    if spec.name == "glyphs":
        return _glyphs(spec)
    if spec != DataSpec(spec.name):
        names = ", ".join(f.name for f in fields(DataSpec)[1:])
        raise InputError(f"{spec.name} comes as it is: {names} can be chosen for glyphs only")
    folder = locate(spec, root)
    if folder is None or cifar.has_cifar(spec.name, folder):
        # Reading checks the md5, so every copy has the same content, and one cache entry serves them all.
        return _ImageSource("torchvision's files", partial(cifar.read_cifar, spec.name, folder, cache))
    if _as_lists(spec.name, folder):
        tree = lists.scan(folder, spec.name)
    else:
        tree = folders.scan(folder, partial(assign, spec.name, folder / "train"))
    lists.require_published(spec.name, folder, tree)
    if spec.name not in (*PER_CLASS, *lists.PUBLISHED):  # those may hold an image twice, stored as links to one file
        tree.refuse_shared()
    return _ImageSource(
        tree.key, tree.read, _marked(spec.name, tree.fingerprint, *tree.labels) if tree.large() else None
    )


def _as_lists(name: str, folder: Path) -> bool:
    """Return whether lists say which images a folder has, and not its class folders.

    Raises InputError if the user's own images have both, since images and labels may differ. A list of one split alone
    counts for nothing beside class folders.
    """
    listed = lists.find(folder, "train")
    if not listed or name in lists.PUBLISHED:
        return listed is not None
    if not class_folders(folder / "train"):
        return True
    if name not in PER_CLASS and (lists.find(folder, "test") or lists.find(folder, "val")):
        raise InputError(
            f"{folder} has both lists and class folders, which may differ; rename {listed.name} to use the folders, or "
            "the folder train (and mend the paths in the lists) to use the lists"
        )
    return False


def _marked(name: str, fingerprint: str, train_labels: np.ndarray, test_labels: np.ndarray) -> str:
    """Return the fingerprint, marked as a part's if the largest class has far fewer images than were published.

    The largest class decides, so that a long-tailed copy, whose largest class is whole, is not marked by mistake.
    """
    if name not in PER_CLASS:
        return fingerprint
    sizes = zip((train_labels, test_labels), PER_CLASS[name], strict=True)
    whole = all(np.bincount(labels).max() >= 0.9 * published for labels, published in sizes)
    return fingerprint if whole else PART + fingerprint


def _glyphs(spec: DataSpec) -> _ImageSource:
    """Return the source of the embedded glyphs, with defaults in place of None."""
    given = (spec.classes, spec.per_class, spec.test_per_class)
    classes, per_class, test = (d if v is None else v for v, d in zip(given, (100, 500, 100), strict=True))

    def read() -> Content:
        try:
            return glyphs.generate(classes, per_class, test, spec.seed)
        except ValueError as error:
            raise InputError(str(error)) from None

    # matplotlib's fonts and FreeType render the characters, so the version of matplotlib is part of the key.
    program = hashlib.sha256(Path(glyphs.__file__).read_bytes()).hexdigest()
    return _ImageSource(repr((classes, per_class, test, spec.seed, version("matplotlib"), program)), read)


def _read(name: str, source: _ImageSource) -> Dataset:
    """Read a data set from its source, and compute its fingerprint."""
    content = source.read()
    found = source.fingerprint or _marked(name, _digest_arrays(*content[:4]), content[1], content[3])
    return Dataset(name, *content, fingerprint=found)


def _digest_arrays(*arrays: Any) -> str:
    """Return 16 hex digits of a sha256 over the shapes and bytes of arrays."""
    state = hashlib.sha256()
    for array in arrays:
        state.update(repr(array.shape).encode())
        state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()[:16]


def _entry(spec: DataSpec, source: _ImageSource, cache: Path) -> Path:
    """Return the folder of a cached data set, which holds its arrays as .npy files, and meta.json."""
    return cache / f"{spec.name}-{hashlib.sha256(repr((FORMAT, source.key)).encode()).hexdigest()[:16]}"


def _read_meta(entry: Path) -> dict | None:
    """Return meta.json of a complete entry; None if there is no entry, or if the size of a file differs from it."""
    try:
        meta = read_json(entry / "meta.json", "it is made again")
        whole = all((entry / name).stat().st_size == size for name, size in meta["bytes"].items())
    except (OSError, Damaged, KeyError, TypeError, AttributeError):
        return None
    return meta if whole else None


def _read_entry(entry: Path) -> Dataset | None:
    """Read a data set from its cache entry; None if the entry is missing, incomplete or changed."""
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
    """Replace an entry atomically by a data set. Returns False, with a warning, if the disk refuses it."""
    part = entry.with_name(f"{entry.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)  # a killed process may have left it
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
    """Lock an entry against other processes. Returns None, with a warning, if the cache cannot be written."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        return lock(entry.with_name(f"{entry.name}.lock")).acquire()
    except (OSError, NotImplementedError) as error:  # file systems without locks raise the latter
        _warn_no_cache(entry.parent, error)
        return None


def _warn_no_cache(cache: Path, error: Exception) -> None:
    warnings.warn(f"cannot write the data cache {cache} ({error}); going on without it", stacklevel=2)
