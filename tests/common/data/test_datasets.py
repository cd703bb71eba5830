"""Data sets: what is read from each kind of source, the line a user gets when it is wrong, and the cache.

Everything runs on tiny folders and on imitations of torchvision's files.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data import cifar as cifar_files
from common.data import datasets, folders, glyphs
from common.data.datasets import DataSpec, load
from common.data.names import PUBLISHED
from common.data.synsets import IMAGENET
from common.errors import InputError

TINY_GLYPHS = DataSpec("glyphs", classes=3, per_class=4, test_per_class=2)


def write_image(path: Path, seed: int, size: tuple[int, int] = (8, 6), mode: str = "RGB") -> np.ndarray:
    """Save a random picture of (width, height) and return its RGB pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels).convert(mode)
    image.save(path)
    return np.asarray(image.convert("RGB"))


def write_tree(root: Path, classes: tuple[str, ...] = ("ant", "bee"), test: str = "test", **options: object) -> Path:
    """Two training images and one test image a class."""
    for c, name in enumerate(classes):
        for i in range(2):
            write_image(root / "train" / name / f"{i}.png", 10 * c + i, **options)  # type: ignore[arg-type]
        write_image(root / test / name / "0.png", 10 * c + 5, **options)  # type: ignore[arg-type]
    return root


def fails(name: str, root: Path | None, *parts: str, cache: Path | None = None) -> None:
    """Loading ends in an InputError of one line that contains the parts."""
    with pytest.raises(InputError) as caught:
        load(DataSpec(name), root, cache)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


# Image folders


def test_folder_is_decoded_in_order(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "toy", classes=("bee", "ant"))
    data = load(DataSpec("toy"), root)
    assert (data.name, data.classes, data.embedded) == ("toy", ("ant", "bee"), False)
    assert data.train_images.dtype == np.uint8 and data.train_images.shape == (4, 6, 8, 3)
    assert data.train_labels.dtype == np.int64
    assert data.train_labels.tolist() == [0, 0, 1, 1] and data.test_labels.tolist() == [0, 1]
    for image, file in zip(data.train_images, ("ant/0", "ant/1", "bee/0", "bee/1"), strict=True):
        assert (image == np.asarray(Image.open(root / "train" / f"{file}.png"))).all()
    assert (data.test_images[1] == np.asarray(Image.open(root / "test" / "bee" / "0.png"))).all()


def test_folder_is_found_inside_root_and_val_serves_as_test(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "toy", test="val")
    assert datasets.locate(DataSpec("toy"), tmp_path) == root
    (root / "test").mkdir()  # ImageNet's unlabelled test images
    write_image(root / "test" / "unlabelled.png", 1)
    assert load(DataSpec("toy"), tmp_path).fingerprint == load(DataSpec("toy"), root).fingerprint


def test_other_modes_become_rgb_and_hidden_files_are_ignored(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    write_image(root / "train" / "ant" / "0.png", 3, mode="L")
    paletted = write_image(root / "train" / "ant" / "1.png", 4, mode="P")
    (root / "train" / "ant" / ".DS_Store.png").write_text("no image")
    (root / "train" / "ant" / "notes.txt").write_text("no image")
    (root / "train" / ".git").mkdir()
    data = load(DataSpec("toy"), root)
    assert data.train_images.shape == (4, 6, 8, 3) and (data.train_images[1] == paletted).all()
    assert (data.train_images[0][..., 0] == data.train_images[0][..., 2]).all()


def test_every_extension_counts(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    for i, extension in enumerate(("jpg", "jpeg", "webp", "bmp", "ppm", "tif", "PNG")):
        write_image(root / "train" / "ant" / f"more{i}.{extension}", i)
    assert len(load(DataSpec("toy"), root).train_labels) == 4 + 7


def test_large_images_stay_files(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "toy", size=(65, 20))
    write_image(root / "train" / "bee" / "1.png", 1, size=(100, 90))  # sizes may differ
    data = load(DataSpec("toy"), root, tmp_path / "cache")
    files = tuple(root / "train" / name for name in ("ant/0.png", "ant/1.png", "bee/0.png", "bee/1.png"))
    assert data.train_images == files and data.train_labels.tolist() == [0, 0, 1, 1]
    assert datasets.fingerprint(DataSpec("toy"), root) == data.fingerprint
    write_image(root / "train" / "bee" / "1.png", 1, size=(90, 90))
    assert load(DataSpec("toy"), root).fingerprint != data.fingerprint
    (root / "test" / "bee" / "0.png").write_bytes(b"not a picture")
    fails("toy", root, str(root / "test" / "bee" / "0.png"))


def test_images_of_64_pixels_are_small(tmp_path: Path) -> None:
    assert load(DataSpec("toy"), write_tree(tmp_path, size=(64, 64))).train_images.shape == (4, 64, 64, 3)


def test_missing_folders_are_named(tmp_path: Path) -> None:
    fails("toy", tmp_path / "nowhere", "nowhere", "not a folder")
    fails("toy", None, "toy needs --data", "train/<class>/*.png", "quick preset")
    fails("toy", tmp_path, str(tmp_path), "train/<class>/*.png")
    fails("../toy", tmp_path, "'../toy'", "plain name")
    write_image(tmp_path / "train" / "flat.png", 1)
    fails("toy", tmp_path, str(tmp_path / "train"), "no class folders")
    write_image(tmp_path / "train" / "ant" / "0.png", 1)
    fails("toy", tmp_path, str(tmp_path), "neither test/<class>/ nor val/<class>/")


def test_class_sets_that_differ_are_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path, classes=tuple("abcdefg"))
    for name in "bcdef":
        (root / "test" / name / "0.png").rename(root / "test" / f"{name}.png")
        (root / "test" / name).rmdir()
    fails("toy", root, f"{root / 'test'} lacks", "b, c, d and 2 more")
    for name in "bcdef":
        (root / "test" / name).mkdir()
    (root / "test" / "z").mkdir()
    fails("toy", root, f"{root / 'train'} lacks", ": z;")


def test_class_without_images_is_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    (root / "train" / "cow").mkdir()
    (root / "train" / "cow" / "notes.txt").touch()
    write_image(root / "test" / "cow" / "0.png", 1)
    fails("toy", root, str(root / "train" / "cow"), "holds no images")


@pytest.mark.parametrize("keep", [0, 60])
def test_damaged_image_is_named(tmp_path: Path, keep: int) -> None:
    path = write_tree(tmp_path) / "train" / "bee" / "1.png"
    path.write_bytes(path.read_bytes()[:keep])
    fails("toy", tmp_path, str(path), "replace it or delete it")


def test_small_images_of_another_size_are_named(tmp_path: Path) -> None:
    path = write_tree(tmp_path) / "test" / "bee" / "0.png"
    write_image(path, 1, size=(6, 8))
    fails("toy", tmp_path, f"{path} has 6x8 pixels", "has 8x6", "resize")


def test_class_counts_of_known_names(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    for name, count in (("cifar10", "10"), ("cifar100", "100"), ("imagenet", "1000"), ("imagenet-subset", "100 or")):
        fails(name, root, "2 class folders", f"{name} has {count}")


def test_imagenet_subset_is_that_of_lucir(tmp_path: Path) -> None:
    names = list(IMAGENET)
    drawn = sorted(np.random.RandomState(1993).choice(names, 100, replace=False))
    image = tmp_path / "one.png"
    write_image(image, 1)
    for split in ("train", "val"):
        for name in names:
            folder = tmp_path / "imagenet" / split / name
            folder.mkdir(parents=True)
            if name in drawn:
                os.link(image, folder / "0.png")  # the other classes are not even listed
    data = load(DataSpec("imagenet-subset"), tmp_path)
    assert list(data.classes) == drawn and data.train_labels.tolist() == list(range(100))
    taken = write_tree(tmp_path / "imagenet-subset", classes=tuple(drawn))
    assert datasets.locate(DataSpec("imagenet-subset"), tmp_path) == taken
    assert len(load(DataSpec("imagenet-subset"), taken).classes) == 100


def test_counts_are_for_glyphs_only(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"per_class.*glyphs only"):
        load(DataSpec("cifar10", per_class=5), tmp_path)


# Fingerprints


@pytest.mark.parametrize(("train", "test", "part"), [(9, 9, False), (8, 9, True), (9, 8, True), (10, 10, False)])
def test_far_fewer_images_than_published_mark_the_fingerprint(
    train: int, test: int, part: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 10 published images a class a tenth may be missing; small and large images and coarse labels alike."""
    for name in ("cifar10", "cifar100"):
        monkeypatch.setitem(datasets.PER_CLASS, name, (10, 10))
        for side in (4, 65) if name == "cifar10" else (4,):
            root = tmp_path / name / str(side)
            image = root / "one.png"
            write_image(image, 1, size=(side, 4))
            for split, count in (("train", train), ("test", test)):
                for c in PUBLISHED[name]:
                    (root / split / c).mkdir(parents=True)
                    for i in range(count):
                        os.link(image, root / split / c / f"{i}.png")
            cache = tmp_path / "cache"
            data = load(DataSpec(name), root, cache)
            assert data.fingerprint.startswith("part-") == part
            assert datasets.fingerprint(DataSpec(name), root, cache) == data.fingerprint
    coarse = load(DataSpec("cifar20"), root, cache)
    assert coarse.fingerprint.startswith("part-") == part
    assert not load(DataSpec("mine"), root).fingerprint.startswith("part-")


def test_fingerprint_depends_on_every_pixel_and_on_the_order(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    found = [load(DataSpec("toy"), root).fingerprint]
    assert len(found[0]) == 16 and int(found[0], 16) >= 0
    path = root / "test" / "bee" / "0.png"
    pixels = np.asarray(Image.open(path)).copy()
    pixels[-1, -1, -1] ^= 1
    Image.fromarray(pixels).save(path)
    found.append(load(DataSpec("toy"), root).fingerprint)
    (root / "train" / "ant" / "0.png").rename(root / "train" / "ant" / "2.png")
    found.append(load(DataSpec("toy"), root).fingerprint)
    assert len(set(found)) == 3
    (root / "train" / "ant" / "2.png").rename(root / "train" / "ant" / "0.png")
    assert load(DataSpec("toy"), root).fingerprint == found[1]


def test_planning_needs_no_decoding(tmp_path: Path) -> None:
    spec, root, cache = DataSpec("toy"), write_tree(tmp_path / "toy"), tmp_path / "cache"
    assert datasets.fingerprint(spec, root, cache) is None
    assert not cache.exists()
    data = load(spec, root, cache)
    assert datasets.fingerprint(spec, root, cache) == data.fingerprint
    assert datasets.fingerprint(spec, root, None) is None
    code = (
        "import sys; from pathlib import Path; from common.data.datasets import DataSpec, fingerprint;"
        "print(fingerprint(DataSpec('toy'), Path(sys.argv[1]), Path(sys.argv[2])));"
        "print([m for m in ('torch', 'torchvision', 'matplotlib') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(root), str(cache)]
    folder = Path(datasets.__file__).parents[2]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.split("\n")
    assert answer[:2] == [data.fingerprint, "[]"]


# The cache


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The images decoded since the start of the test."""
    seen: list[Path] = []
    original = folders.read_image
    monkeypatch.setattr(folders, "read_image", lambda path: (seen.append(path), original(path))[1])
    return seen


def images_of(seen: list[Path]) -> int:
    """How many images were decoded since the last call, beside the first, which tells small from large."""
    count = sum(path.name != "0.png" or "ant" not in path.parts or "test" in path.parts for path in seen)
    seen.clear()
    return count


def test_cache_serves_until_a_file_changes(tmp_path: Path, decoded: list[Path]) -> None:
    spec, root, cache = DataSpec("toy"), write_tree(tmp_path / "toy"), tmp_path / "cache"
    first = load(spec, root, cache)
    assert images_of(decoded) == 5
    second = load(spec, root, cache)
    assert images_of(decoded) == 0
    assert isinstance(second.train_images, np.memmap) and second.train_images.mode == "c"  # writes never reach the disk
    for part in ("train_images", "train_labels", "test_images", "test_labels"):
        assert (getattr(first, part) == getattr(second, part)).all()
    assert (first.classes, first.fingerprint) == (second.classes, second.fingerprint)
    path = root / "train" / "bee" / "1.png"
    before = path.stat()
    write_image(path, 99)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert load(spec, root, cache).fingerprint != first.fingerprint
    assert images_of(decoded) == 5


@pytest.mark.parametrize("damage", ["truncated", "removed", "no meta", "meta cut", "meta is a list"])
def test_damaged_cache_is_rebuilt(tmp_path: Path, decoded: list[Path], damage: str) -> None:
    spec, root, cache = DataSpec("toy"), write_tree(tmp_path / "toy"), tmp_path / "cache"
    want = load(spec, root, cache).fingerprint
    (entry,) = (path for path in cache.iterdir() if path.is_dir())
    images, meta = entry / "train_images.npy", entry / "meta.json"
    if damage == "truncated":
        os.truncate(images, images.stat().st_size - 10)
    elif damage == "removed":
        images.unlink()
    else:
        meta.write_text({"no meta": "", "meta cut": meta.read_text()[:30], "meta is a list": "[]"}[damage])
    (cache / f"{entry.name}.part").mkdir()  # of a process that was killed
    images_of(decoded)
    assert load(spec, root, cache).fingerprint == want and images_of(decoded) == 5
    assert load(spec, root, cache).fingerprint == want and images_of(decoded) == 0
    assert not list(cache.glob("*.part"))


def test_two_at_once_decode_once(tmp_path: Path, decoded: list[Path]) -> None:
    spec, root, cache = DataSpec("toy"), write_tree(tmp_path / "toy"), tmp_path / "cache"
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(load(spec, root, cache).fingerprint)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1 and images_of(decoded) == 5


def test_unwritable_cache_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, root = DataSpec("toy"), write_tree(tmp_path / "toy")
    want = load(spec, root).fingerprint
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="cannot write the data cache"):
        assert load(spec, root, tmp_path / "file" / "cache").fingerprint == want

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert load(spec, root, tmp_path / "cache").fingerprint == want
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_failed_read_leaves_no_entry(tmp_path: Path) -> None:
    path = write_tree(tmp_path / "toy") / "train" / "bee" / "1.png"
    path.write_bytes(b"")
    fails("toy", tmp_path, str(path), cache=tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


# Glyphs


def test_glyphs_are_generated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load(TINY_GLYPHS, None, tmp_path)
    assert data.embedded and data.train_images.shape == (12, 32, 32, 3) and len(data.test_labels) == 6
    assert data.classes == tuple(glyphs.CHARACTERS[:3])
    calls: list[tuple] = []
    original = glyphs.generate
    monkeypatch.setattr(glyphs, "generate", lambda *a: (calls.append(a), original(*a))[1])
    assert load(TINY_GLYPHS, tmp_path / "ignored", tmp_path).fingerprint == data.fingerprint and not calls
    other = DataSpec("glyphs", classes=3, per_class=4, test_per_class=2, seed=1)
    assert datasets.fingerprint(other, None, tmp_path) is None
    assert load(other, None, tmp_path).fingerprint != data.fingerprint and calls == [(3, 4, 2, 1)]
    monkeypatch.setattr(datasets, "version", lambda _: "0.0")  # another matplotlib draws other characters
    assert datasets.fingerprint(TINY_GLYPHS, None, tmp_path) is None


def test_glyphs_numbers_are_checked() -> None:
    with pytest.raises(InputError, match="num_classes"):
        load(DataSpec("glyphs", classes=0))


# Torchvision's CIFAR files


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an imitation of cifar-100-python/ and its archive, whose md5 torchvision takes for real."""
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
    """A server that sends these bytes to whoever connects, or that stays silent."""
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
