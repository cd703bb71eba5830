"""Lists the files of one split of an image folder. An image that cannot be used is an error, and is never dropped."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from common.data.names import composed
from common.errors import InputError

LAYOUT = "train/<class>/*.png and test/<class>/*.png (or val/)"
BY_PRODUCTS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
"""Folders that archivers, network drives and file systems leave behind. They hold copies, or nothing."""
FOREIGN = (".heic", ".heif", ".avif", ".jxl", ".svg", ".raw", ".dng", ".cr2", ".nef", ".arw", ".dcm", ".npy", ".npz")
"""Types of images that Pillow cannot read, or that only some builds can."""
POINTER, STUB = b"version https://git-lfs", 200
"""How a pointer of Git LFS begins, and the bytes that it has at most."""


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one split, grouped by class in label order."""

    folder: Path
    files: tuple[tuple[str, int, int], ...]
    """Each file's name relative to `folder`, its size in bytes, and its modification time in ns."""
    labels: np.ndarray
    """The label of each file, int64 [n]."""

    def __post_init__(self) -> None:
        """Raise InputError on empty files and on pointers of Git LFS. Only files of less than 200 bytes are opened."""
        small = [(self.folder / name, size) for name, size, _ in self.files if size < STUB]
        if stubs := [path for path, size in small if not size or _is_pointer(path)]:
            raise InputError(
                f"{_several(stubs, 'file')} empty or a pointer of Git LFS, first {stubs[0]}; run git lfs pull, copy "
                "the images again, or delete these files"
            )

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths of the files, in the order of `labels`."""
        return tuple(self.folder / name for name, _, _ in self.files)

    def firsts(self) -> list[Path]:
        """Return the path of every class's first file."""
        _, positions = np.unique(self.labels, return_index=True)
        return [self.folder / self.files[i][0] for i in positions]


def class_folders(folder: Path) -> dict[str, str]:
    """Return the visible folders inside `folder`: name with composed accents -> name on disk.

    The result is empty if `folder` does not exist. Raises InputError on links that lead nowhere, and on names that
    differ only in how an accent is encoded.
    """
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        seen = sorted((e for e in entries if _visible(e)), key=lambda e: e.name)
    _refuse_dead_links([Path(e.path) for e in seen if _leads_nowhere(e)])
    found: dict[str, str] = {}
    for name in (e.name for e in seen if e.is_dir()):
        if composed(name) in found:
            raise InputError(f"{folder} has two folders called {name}, whose accents are coded differently; merge them")
        found[composed(name)] = name
    return found


def list_split(folder: Path, classes: Sequence[str]) -> Split:
    """List the images of these class folders, in the order of their names within each class.

    Raises InputError on a class without images, and on images that would be left out: those behind links that lead
    nowhere, of a type that Pillow does not read, or outside the class folders.
    """
    _refuse_stray(folder)
    files: list[tuple[str, int, int]] = []
    counts, lost, foreign = [], [], []
    for name in classes:
        found = []
        for path, entry in _walk(folder / name, name, (folder.resolve(),)):
            if _leads_nowhere(entry):
                lost.append(folder / path)
            elif _is_image(entry):
                found.append((path, entry.stat().st_size, entry.stat().st_mtime_ns))
            elif entry.name.lower().endswith(FOREIGN):
                foreign.append(folder / path)
        files += sorted(found)
        counts.append(len(found))
    _refuse_dead_links(lost)
    if foreign:
        raise InputError(
            f"{_several(foreign, 'file')} of a type that cannot be read, first {foreign[0]}; convert to PNG, or delete"
        )
    if 0 in counts:
        raise InputError(
            f"{folder / classes[counts.index(0)]} holds no images; add some, or delete the class from both splits"
        )
    return Split(folder, tuple(files), np.repeat(np.arange(len(classes), dtype=np.int64), counts))


def _walk(folder: Path, name: str, above: tuple[Path, ...]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield every visible file below `folder`, with its name relative to the split.

    name: the name of `folder` relative to the split. above: the folders that contain `folder`, to detect a link to one.
    """
    real = folder.resolve()
    if real in above:
        raise InputError(f"{folder} is a link to a folder around it; delete the link")
    with os.scandir(folder) as entries:
        visible = [e for e in entries if _visible(e)]
    for entry in visible:
        if entry.is_dir():
            yield from _walk(folder / entry.name, f"{name}/{entry.name}", (*above, real))
        else:
            yield f"{name}/{entry.name}", entry


def _visible(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.name not in BY_PRODUCTS


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def _is_image(entry: os.DirEntry[str]) -> bool:
    """Return whether Pillow reads files of this type, judged by the name or else by the first bytes."""
    if not entry.is_file():
        return False
    suffix = os.path.splitext(entry.name)[1].lower()
    return suffix in _suffixes() or (suffix not in FOREIGN and _is_recognised(entry.path))


@cache
def _suffixes() -> frozenset[str]:
    """Return the suffixes of all image files that Pillow can open."""
    from PIL import Image

    return frozenset(e for e, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def _is_pointer(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:  # an unreadable file is found when it is decoded
        return file.read(len(POINTER)) == POINTER
    return False


def _is_recognised(path: str) -> bool:
    from PIL import Image

    try:
        with Image.open(path):
            return True
    except Exception:  # on other files, Pillow's readers raise nearly any exception
        return False


def _refuse_stray(folder: Path) -> None:
    """Raise InputError if images lie outside the class folders."""
    with os.scandir(folder) as entries:
        stray = sorted(e.path for e in entries if _visible(e) and _is_image(e))
    if stray:
        raise InputError(
            f"{_several(stray, 'image')} outside the class folders, first {stray[0]}; move them into a class, or "
            "delete them"
        )


def _refuse_dead_links(links: Sequence[Path]) -> None:
    """Raise InputError if there are links that lead nowhere."""
    if links:
        count = f"{len(links):,} links lead" if len(links) > 1 else "1 link leads"
        raise InputError(f"{count} nowhere, first {links[0]}; mend the links, or delete them")


def _several(things: Sequence[object], noun: str) -> str:
    return f"{len(things):,} {noun}{'s are' if len(things) > 1 else ' is'}"
