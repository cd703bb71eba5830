"""Reads torchvision's files of CIFAR, extracted or not, and downloads them if need be. Their md5 is always checked."""

from __future__ import annotations

import errno
import shutil
import socket
import tarfile
import tempfile
from http.client import HTTPException
from pathlib import Path

import numpy as np

from common.data.decoding import one_line
from common.data.folders import Content
from common.data.listing import LAYOUT
from common.errors import InputError

CIFAR = {
    "cifar10": ("CIFAR10", "cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "cifar100": ("CIFAR100", "cifar-100-python", "cifar-100-python.tar.gz"),
}
"""Data set -> torchvision's class, the folder that this class reads, and the archive of the folder."""
NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
"""The system's errors for a lack of disk space or of the right to write."""
TIMEOUT = 15.0  # seconds without any data after which a download fails


def has_cifar(name: str, folder: Path) -> bool:
    """Return whether the folder holds torchvision's files of this data set, extracted or not."""
    return name in CIFAR and ((folder / CIFAR[name][1]).is_dir() or (folder / CIFAR[name][2]).is_file())


def read_cifar(name: str, folder: Path | None, cache: Path | None) -> Content:
    """Read torchvision's files from `folder`, or download them into `cache` if `folder` is None. Their md5 is checked.

    `folder` is left unchanged. Raises InputError if the copy is damaged or incomplete, if there is no room to unpack
    it, or if there is neither a copy nor a network.
    """
    if folder is None:
        return _download_cifar(name, cache)
    _, extracted, archive = CIFAR[name]
    unpacked, packed = (folder / extracted).is_dir(), (folder / archive).is_file()
    try:
        return _parse_cifar(name, folder) if unpacked else _read_archive(name, folder / archive)
    except (OSError, RuntimeError) as error:
        remedy = f"replace it by a fresh {archive}"
        if unpacked and packed:
            remedy = f"delete {folder / extracted}, so that {archive} beside it is read"
        raise InputError(
            f"{name} in {folder} is damaged, incomplete or cannot be read ({one_line(error)}); {remedy}"
        ) from None


def _read_archive(name: str, archive: Path) -> Content:
    """Unpack the archive into a temporary folder and read it. Raises RuntimeError if it is damaged."""
    from torchvision import datasets

    if not datasets.utils.check_integrity(archive, getattr(datasets, CIFAR[name][0]).tgz_md5):
        raise RuntimeError(f"the md5 of {archive.name} is not the published one")
    try:  # from here on the archive is whole, and only the disk can fail
        with tempfile.TemporaryDirectory() as temporary:
            _check_members(archive)
            datasets.utils.extract_archive(str(archive), temporary)
            return _parse_cifar(name, Path(temporary))
    except tarfile.TarError as error:
        raise RuntimeError(f"{archive.name} cannot be unpacked: {one_line(error)}") from None
    except OSError as error:
        raise InputError(
            f"{archive} is whole but cannot be unpacked for want of a place ({one_line(error)}); set TMPDIR to a "
            "folder with 400 MB of room that you can write to, or unpack the archive beside itself"
        ) from None


def _check_members(archive: Path) -> None:
    """Raise RuntimeError if an archive holds anything but files and folders below its own folder, such as links."""
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = Path(member.name).parts
            if ".." in parts or Path(member.name).is_absolute() or not (member.isfile() or member.isdir()):
                raise RuntimeError(f"{archive.name} holds {member.name!r}, which is no file of its folder")


def _download_cifar(name: str, cache: Path | None) -> Content:
    """Download the data set into `cache` and read it. Raises InputError if that fails."""
    if cache is None:
        raise InputError(_ways(name, "no cache folder to download it into"))
    target = cache / f"{name}-download"
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        return _parse_cifar(name, target, download=True)
    except (OSError, RuntimeError, HTTPException) as error:
        shutil.rmtree(target, ignore_errors=True)  # an incomplete download would only disturb the next attempt
        if getattr(error, "errno", None) in NO_PLACE:
            raise InputError(
                f"{name} cannot be downloaded into {cache} ({one_line(error)}); make room, or choose another --out"
            ) from None
        raise InputError(_ways(name, one_line(error))) from None
    finally:
        socket.setdefaulttimeout(before)


def _ways(name: str, reason: str) -> str:
    """Return an error message that lists the ways to get the data set."""
    _, extracted, archive = CIFAR[name]
    return (
        f"{name} is not here and could not be downloaded ({reason}). Get it in one of three ways: let it download on a "
        f"machine with network; --data DIR with torchvision's files ({extracted}/ or {archive}); --data DIR with "
        f"images in {LAYOUT}. The quick preset needs none of this"
    )


def _parse_cifar(name: str, folder: Path, download: bool = False) -> Content:
    """Read both splits with torchvision's class, which downloads them first if asked to."""
    from torchvision import datasets

    source = getattr(datasets, CIFAR[name][0])
    train, test = (source(folder, train=split == "train", download=download) for split in ("train", "test"))
    images = [np.ascontiguousarray(part.data) for part in (train, test)]
    labels = [np.array(part.targets, np.int64) for part in (train, test)]
    return images[0], labels[0], images[1], labels[1], tuple(train.classes)
