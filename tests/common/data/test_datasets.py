"""Tests data sets: what is read from each kind of source, the error line if the source is wrong, and the cache.

Everything runs on tiny folders and on imitations of torchvision's files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import fails, write_image, write_tree

from common.data import datasets, folders, glyphs
from common.data.datasets import DataSpec, load
from common.data.names import PUBLISHED
from common.data.synsets import IMAGENET
from common.errors import InputError

TINY_GLYPHS = DataSpec("glyphs", classes=3, per_class=4, test_per_class=2)


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
    fails("toy", tmp_path / "nowhere", "nowhere", "not a folder", "that holds toy")
    fails("folder", tmp_path / "nowhere", "not a folder", "that holds train/<class>/*.png")
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


@pytest.mark.parametrize(("keep", "remedy"), [(0, "copy the images again"), (60, "replace it or delete it")])
def test_damaged_image_is_named(tmp_path: Path, keep: int, remedy: str) -> None:
    path = write_tree(tmp_path) / "train" / "bee" / "1.png"
    path.write_bytes(path.read_bytes()[:keep])
    fails("toy", tmp_path, str(path), remedy)


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
    """With 10 published images a class, a tenth may be missing.

    This holds for small images, large ones and coarse labels.
    """
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
    shutil.copytree(tmp_path / "cifar10" / "4", tmp_path / "mine")
    assert not load(DataSpec("mine"), tmp_path).fingerprint.startswith("part-")


def test_a_long_tailed_copy_is_not_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its largest class is whole. Records of long-tailed runs depend on the fingerprint of such a copy."""
    monkeypatch.setitem(datasets.PER_CLASS, "cifar10", (10, 2))
    write_image(tmp_path / "one.png", 1, size=(4, 4))
    for split, counts in (("train", range(10, 0, -1)), ("test", [2] * 10)):
        for name, count in zip(PUBLISHED["cifar10"], counts, strict=True):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                os.link(tmp_path / "one.png", tmp_path / split / name / f"{i}.png")
    assert not load(DataSpec("cifar10"), tmp_path).fingerprint.startswith("part-")


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
    """Return the images decoded since the start of the test."""
    seen: list[Path] = []
    original = folders.read_image
    monkeypatch.setattr(folders, "read_image", lambda path: (seen.append(path), original(path))[1])
    return seen


def images_of(seen: list[Path]) -> int:
    """Count the images decoded since the last call, without the first image, which tells small data from large."""
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
    path.write_bytes(path.read_bytes()[:60])
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
