"""Tests that every image of a folder is either read or refused by name, and none is left out silently."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.datasets import DataSpec, load
from common.data.listing import STUB
from common.errors import InputError


def save(path: Path, level: int = 0, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (level,) * 3).save(path, **options)  # type: ignore[arg-type]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder with the classes a and b, which have an image in each split."""
    for i, place in enumerate(("train/a", "train/b", "test/a", "test/b")):
        save(tmp_path / "toy" / place / "0.png", 10 * i)
    return tmp_path / "toy"


def count(root: Path) -> list[int]:
    """Return the number of training images of each class."""
    return np.bincount(load(DataSpec("toy"), root).train_labels).tolist()


def refuses(root: Path, *parts: str) -> None:
    with pytest.raises(InputError) as caught:
        load(DataSpec("toy"), root)
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in parts), message


def test_images_in_folders_of_a_class_belong_to_it(root: Path) -> None:
    save(root / "train" / "a" / "more" / "still more" / "0.png", 77)
    save(root / "train" / "b" / "only" / "1.png", 78)
    (root / "train" / "b" / "0.png").unlink()
    data = load(DataSpec("toy"), root)
    assert data.train_labels.tolist() == [0, 0, 1]
    assert np.asarray(data.train_images)[:, 0, 0, 0].tolist() == [0, 77, 78]


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [("gif", "GIF"), ("jfif", "JPEG"), ("jpe", "JPEG"), ("pgm", "PPM"), ("tga", "TGA"), ("JP2", "JPEG2000")],
)
def test_every_type_that_pillow_reads_is_taken(suffix: str, kind: str, root: Path) -> None:
    save(root / "train" / "a" / f"1.{suffix}", format=kind)
    assert count(root) == [2, 1]


@pytest.mark.parametrize("name", ["ILSVRC2012_1", "photo.jpg_large", "photo.jpg~"])
def test_an_image_is_known_by_its_content_where_its_name_does_not_tell(name: str, root: Path) -> None:
    save(root / "train" / "a" / name, format="JPEG")
    (root / "train" / "a" / "README").write_text("no image")
    assert count(root) == [2, 1]


@pytest.mark.parametrize("name", ["1.heic", "1.JXL", "1.npy"])
def test_images_that_pillow_does_not_read_are_refused(name: str, root: Path) -> None:
    (root / "train" / "a" / name).write_bytes(b"pixels")
    refuses(root, "1 file is of a type that cannot be read", str(root / "train" / "a" / name))


def test_links_that_lead_nowhere_are_counted(root: Path) -> None:
    for i in range(3):
        (root / "train" / "b" / f"more{i}.png").symlink_to(root / "gone.png")
    refuses(root, "3 links lead nowhere, first", str(root / "train" / "b" / "more"))


def test_a_class_that_leads_nowhere_is_refused(root: Path) -> None:
    for split in ("train", "test"):
        (root / split / "c").symlink_to(root / "gone")
    refuses(root, "1 link leads nowhere", str(root / "train" / "c"))


def test_links_that_lead_somewhere_are_followed(root: Path, tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "1.png")
    (root / "train" / "a" / "1.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    save(tmp_path / "far" / "1.png")
    (root / "train" / "b" / "more").symlink_to(tmp_path / "far")
    assert count(root) == [2, 2]


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to], ids=["symbolic", "hard"])
@pytest.mark.parametrize(("place", "words"), [("test/a", "trained on and tested on"), ("train/b", "in two classes")])
def test_one_file_is_no_two_images(link: Callable[[Path, Path], None], place: str, words: str, root: Path) -> None:
    link(root / place / "1.png", root / "train" / "a" / "0.png")
    refuses(root, str(root / "train" / "a" / "0.png"), str(root / place / "1.png"), f"one file, which would be {words}")


def test_a_folder_of_another_class_below_a_class_is_refused(root: Path) -> None:
    (root / "train" / "a" / "more").symlink_to(root / "test" / "b")
    refuses(root, "train/a/more/0.png", "test/b/0.png", "one file")


def test_an_image_that_is_linked_twice_in_its_class_counts_twice(root: Path) -> None:
    (root / "train" / "a" / "1.png").symlink_to(root / "train" / "a" / "0.png")
    assert count(root) == [2, 1]


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"])
def test_files_that_are_only_called_images_are_refused_however_large_the_others(content: bytes, root: Path) -> None:
    for path in root.glob("*/*/0.png"):
        Image.new("RGB", (80, 80)).save(path)
    (root / "test" / "b" / "1.png").write_bytes(content)
    (root / "test" / "b" / "2.png").write_bytes(content)
    refuses(root, "2 files are empty or a pointer of Git LFS", str(root / "test" / "b" / "1.png"), "run git lfs pull")


def test_tiny_images_are_images(root: Path) -> None:
    """A PNG of one colour has fewer bytes than a pointer."""
    for path in root.glob("*/*/0.png"):
        Image.new("RGB", (8, 8)).save(path)
        assert path.stat().st_size < STUB
    assert count(root) == [1, 1]


def test_a_folder_inside_itself_is_refused(root: Path) -> None:
    (root / "train" / "a" / "again").symlink_to(root / "train" / "a")
    refuses(root, str(root / "train" / "a" / "again"), "a folder around it")


def link_classes(root: Path) -> Path:
    (root / "train" / "b" / "0.png").unlink()
    (root / "train" / "b").rmdir()
    (root / "train" / "b").symlink_to(root / "train" / "a")
    return root / "train" / "b"


def link_splits(root: Path) -> Path:
    (root / "test").rename(root / "was")
    (root / "test").symlink_to(root / "train")
    return root / "test" / "a"


@pytest.mark.parametrize("link", [link_classes, link_splits])
def test_two_classes_or_splits_that_are_one_folder_are_refused(link: Callable[[Path], Path], root: Path) -> None:
    refuses(root, f"{link(root)} and {root / 'train' / 'a'} are one folder")


def test_images_outside_the_classes_are_refused(root: Path) -> None:
    save(root / "test" / "stray.png")
    save(root / "test" / "stray2.png")
    refuses(root, "2 images are outside the class folders", str(root / "test" / "stray.png"))


@pytest.mark.parametrize("name", ["__MACOSX", "@eaDir", "lost+found", ".git"])
def test_by_products_of_other_programs_are_no_classes(name: str, root: Path) -> None:
    save(root / "train" / name / "0.png")
    save(root / "train" / "a" / name / "1.png")
    save(root / "train" / "a" / "._0.png", format="PNG")
    assert count(root) == [1, 1]


def test_accents_coded_in_two_ways_are_one_class(tmp_path: Path) -> None:
    whole, parts = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    for place in (f"train/{whole}", f"test/{parts}", "train/zebra", "test/zebra"):
        save(tmp_path / place / "0.png")
    assert load(DataSpec("toy"), tmp_path).classes == (whole, "zebra")
    save(tmp_path / "train" / parts / "0.png")
    refuses(tmp_path, "two folders called café", "merge")
