"""Tests torchvision's CIFAR files: they are read, refused when damaged, and downloaded."""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from trees import fails

from common.data import cifar as cifar_files
from common.data.datasets import DataSpec, load
from common.errors import InputError


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with an imitation of cifar-100-python/ and of its archive.

    torchvision is made to accept its md5.
    """
    from torchvision.datasets import CIFAR100

    folder = tmp_path / "data" / "cifar-100-python"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    contents: dict[str, dict] = {"meta": {"fine_label_names": [f"c{i:02d}" for i in range(100)]}}
    for name, count in (("train", 300), ("test", 100)):
        pixels = rng.integers(0, 256, (count, 3 * 32 * 32), dtype=np.uint8)
        contents[name] = {"data": pixels, "fine_labels": rng.permutation(count).__mod__(100).tolist()}
    md5 = {}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
        md5[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    archive = folder.parent / CIFAR100.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": md5["meta"]})
    monkeypatch.setattr(CIFAR100, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    return folder.parent


def drop(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_cifar_files_are_read(cifar: Path) -> None:
    data = load(DataSpec("cifar100"), cifar)
    with open(cifar / "cifar-100-python" / "train", "rb") as file:
        raw = pickle.load(file)
    assert (data.train_images == raw["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)).all()
    assert data.train_images.flags.c_contiguous and data.train_labels.dtype == np.int64
    assert data.train_labels.tolist() == raw["fine_labels"] and data.classes[:2] == ("c00", "c01")
    assert load(DataSpec("cifar100"), cifar / "cifar-100-python").fingerprint == data.fingerprint
    drop(cifar / "cifar-100-python")
    assert load(DataSpec("cifar100"), cifar).fingerprint == data.fingerprint  # from the archive
    assert [path.name for path in cifar.iterdir()] == ["cifar-100-python.tar.gz"]


def test_damaged_cifar_is_refused(cifar: Path) -> None:
    extracted, archive = cifar / "cifar-100-python", cifar / "cifar-100-python.tar.gz"
    os.truncate(extracted / "test", 1000)
    fails("cifar100", cifar, str(cifar), "damaged", "cifar-100-python.tar.gz")
    drop(extracted)
    os.truncate(archive, archive.stat().st_size - 1)
    fails("cifar100", cifar, str(cifar), "damaged", "md5")


@pytest.mark.parametrize("name", ["test", "meta"])
def test_a_good_archive_beside_a_half_extracted_folder_is_pointed_at(cifar: Path, name: str) -> None:
    (cifar / "cifar-100-python" / name).unlink()
    fails("cifar100", cifar, f"delete {cifar / 'cifar-100-python'}, so that cifar-100-python.tar.gz beside it is read")
    (cifar / "cifar-100-python.tar.gz").unlink()
    fails("cifar100", cifar, "replace it by a fresh cifar-100-python.tar.gz")


@pytest.mark.parametrize("failing", ["extract", "no folder"])
def test_a_full_disk_is_not_called_a_damaged_archive(
    cifar: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    drop(cifar / "cifar-100-python")
    if failing == "extract":
        monkeypatch.setattr("torchvision.datasets.utils.extract_archive", full)
    else:
        monkeypatch.setattr("tempfile.TemporaryDirectory", full)
    fails("cifar100", cifar, "cifar-100-python.tar.gz is whole but", "No space left", "set TMPDIR")
    with pytest.raises(InputError) as caught:
        load(DataSpec("cifar100"), cifar)
    assert "damaged" not in str(caught.value) and "fresh" not in str(caught.value)


def test_a_full_disk_is_not_called_a_failed_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR100

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CIFAR100, "__init__", full)
    cache = tmp_path / "cache"
    fails("cifar100", None, f"cannot be downloaded into {cache}", "No space left", "make room", cache=cache)


def test_cifar_in_no_folder_names_what_is_looked_for(tmp_path: Path) -> None:
    fails("cifar100", tmp_path, "cifar-100-python/", "cifar-100-python.tar.gz", "train/<class>/*.png")


def serve(answer: bytes | None) -> tuple[str, socket.socket]:
    """Start a server that sends these bytes to whoever connects, or that stays silent."""
    server = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        held = []  # silent connections stay open
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            held.append(connection)
            if answer is not None:
                request = connection.recv(65536)
                head = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer)
                connection.sendall(head + (b"" if request.startswith(b"HEAD") else answer))
                connection.close()

    threading.Thread(target=run, daemon=True).start()
    return f"http://127.0.0.1:{server.getsockname()[1]}/cifar-100-python.tar.gz", server


def test_download_goes_to_the_cache(cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR100

    cache = tmp_path / "cache"
    url, server = serve((cifar / "cifar-100-python.tar.gz").read_bytes())
    monkeypatch.setattr(CIFAR100, "url", url)
    data = load(DataSpec("cifar100"), None, cache)
    server.close()
    assert data.fingerprint == load(DataSpec("cifar100"), cifar).fingerprint
    monkeypatch.setattr(CIFAR100, "__init__", None)  # from now on the cache serves, also a copy given by --data
    assert load(DataSpec("cifar100"), None, cache).fingerprint == data.fingerprint
    assert load(DataSpec("cifar100"), cifar, cache).fingerprint == data.fingerprint


@pytest.mark.parametrize("answer", [None, b"a login page"], ids=["silent", "wrong file"])
def test_failed_download_is_quick_and_leaves_nothing(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None
) -> None:
    from torchvision.datasets import CIFAR100

    cache = tmp_path / "cache"
    url, server = serve(answer)
    monkeypatch.setattr(CIFAR100, "url", url)
    monkeypatch.setattr(cifar_files, "TIMEOUT", 0.2)
    ways = (
        "on a machine with network",
        "--data DIR with torchvision's files (cifar-100-python/",
        "train/<class>/*.png",
    )
    fails("cifar100", None, "could not be downloaded", *ways, "test/<class>/*.png", "quick preset", cache=cache)
    server.close()
    assert not [path for path in cache.iterdir() if path.is_dir()]
    assert socket.getdefaulttimeout() is None
    fails("cifar100", None, "no cache folder", *ways)
