"""Tests long-tailed data sets from list files: what is read, which counts are checked, and the line for a mistake."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.command import cli
from common.data import lists
from common.data.coarse import CIFAR20
from common.data.datasets import Dataset, DataSpec, coarsen, fingerprint, load
from common.errors import InputError

TRAIN = ["images/a.png 1", "images/b.png 0", "images/c d.png\t1", "", "images/e.png 2", "images/f.png 0"]
TEST = ["images/u.png 2", "images/v.png 0", "images/w.png 1"]
FINE_TO_COARSE = [
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7,
    6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10,
    16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16,
    12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
]  # fmt: skip
"""The coarse label of each CIFAR-100 class, with classes in alphabetical order, as the archive pairs the labels."""


@pytest.fixture
def lists_of() -> dict[str, list[str]]:
    return {"train.txt": list(TRAIN), "test.txt": list(TEST)}


def write(folder: Path, files: dict[str, list[str]], side: int = 8) -> Path:
    """Write lists and the images that they name, each image in a colour of its own."""
    (folder / "images").mkdir(parents=True)
    for i, name in enumerate(("a", "b", "c d", "e", "f", "u", "v", "w", "x")):
        Image.new("RGB", (side, side), (10 * i, 0, 0)).save(folder / f"images/{name}.png")
    for name, lines in files.items():
        (folder / name).write_text("\n".join(lines))
    return folder


def test_images_are_grouped_by_the_lists_own_labels(tmp_path: Path, lists_of: dict[str, list[str]]) -> None:
    data = load(DataSpec("mine"), write(tmp_path / "mine", lists_of), tmp_path / "cache")
    assert data.classes == ("0", "1", "2")
    assert data.train_labels.tolist() == [0, 0, 1, 1, 2] and data.test_labels.tolist() == [0, 1, 2]
    assert np.asarray(data.train_images)[:, 0, 0, 0].tolist() == [10, 40, 0, 20, 30]  # b f | a "c d" | e
    assert np.asarray(data.test_images)[:, 0, 0, 0].tolist() == [60, 70, 50]
    assert data.fingerprint == load(DataSpec("mine"), tmp_path, tmp_path / "cache").fingerprint


def test_published_names_and_large_images(tmp_path: Path, lists_of: dict[str, list[str]]) -> None:
    """As published, a name precedes the split. test is preferred to val. Labels are part of the content."""
    files = {
        "ImageNet_LT_train.txt": TRAIN,
        "ImageNet_LT_test.txt": TEST,
        "ImageNet_LT_val.txt": [*TEST, "images/x.png 0"],
    }
    folder = write(tmp_path / "mine", files, side=80)
    data = load(DataSpec("mine"), folder)
    assert [path.name for path in data.train_images] == ["b.png", "f.png", "a.png", "c d.png", "e.png"]
    assert len(data.test_labels) == 3
    before = fingerprint(DataSpec("mine"), folder)
    (folder / "ImageNet_LT_test.txt").unlink()
    assert len(load(DataSpec("mine"), folder).test_labels) == 4
    (folder / "ImageNet_LT_test.txt").write_text("\n".join([TEST[0], "images/v.png 1", "images/w.png 0"]))
    assert data.fingerprint == before != fingerprint(DataSpec("mine"), folder)


def test_published_counts_are_required(
    tmp_path: Path, lists_of: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "inat2018", lists_of)
    with pytest.raises(
        InputError, match=r"has 3 classes, .* test images, but inat2018 has 8,142 classes, 437,513 training and 24,426"
    ):
        load(DataSpec("inat2018"), tmp_path)
    monkeypatch.setitem(lists.PUBLISHED, "inat2018", (3, 5, len(TEST) + 1))
    with pytest.raises(InputError, match="inat2018 has 3 classes, 5 training"):
        load(DataSpec("inat2018"), tmp_path)
    monkeypatch.setitem(lists.PUBLISHED, "inat2018", (3, 5, len(TEST)))
    assert len(load(DataSpec("inat2018"), folder).classes) == 3
    assert lists.PUBLISHED["inat2017"][:2] == (5089, 579_184)


def test_image_folders_of_a_known_data_set_are_counted_too(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "places-lt" / split / "abbey").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "places-lt" / split / "abbey" / "0.png")
    with pytest.raises(
        InputError, match="has 1 classes, 1 training and 1 test images, but places-lt has 365 classes, 62,500"
    ):
        load(DataSpec("places-lt"), tmp_path)


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("train.txt", [*TRAIN, "images/g.png 1"], "line 7 names .*g.png, which is not there"),
        ("test.txt", ["gone/a.png 1"], "line 1 names .*gone/a.png, which is not there"),
        ("train.txt", [*TRAIN, "images/a.png"], "line 7 is 'images/a.png', not a path and a class number"),
        ("train.txt", ["3"], "line 1 is '3', not"),
        ("train.txt", ["images/a.png -1"], "not a path and a class number"),
        ("train.txt", ["images/a.png one"], "not a path and a class number"),
        ("train.txt", ["images/a.png 99999999999999999999"], "not a path and a class number"),
        ("train.txt", ["images/a.png 0", "images/b.png 900000000"], "has no image of class 1; labels go from 0"),
        ("train.txt", ["images/a.png 1"], "has no image of class 0"),
        ("train.txt", ["", " "], "names no images"),
        ("test.txt", ["images/u.png 3"], "has class 3, which .*train.txt has not"),
        ("test.txt", ["images/u.png 0", "images/v.png 2"], "test.txt has no image of class 1, which .*train.txt has"),
        ("train.txt", None, "does not hold"),
        ("test.txt", None, "has no test.txt or val.txt"),
        ("a_train.txt", ["images/a.png 0"], ""),
        ("test.txt", ["\udcff"], "cannot be read as text"),
        ("train.txt", [*TRAIN, "images/b.png 0"], r"line 7 names images/b.png, as line 2 does \(an image counts once"),
        ("train.txt", [*TRAIN, "./images/b.png 1"], r"line 7 .* as line 2 does \(there as class 0, here as 1\)"),
        (
            "test.txt",
            [*TEST, "images/../images/c d.png 1"],
            "line 4 names .*c d.png, which line 3 of",
        ),
        ("train.txt", ["images/a.png ٣"], "not a path and a class number"),
        ("train.txt", ["images/a\u2028b.png 0"], "line 1 names .*a\u2028b.png, which is not there"),
    ],
)
def test_a_mistake_in_a_list_is_one_clear_line(
    name: str, lines: list[str] | None, message: str, tmp_path: Path, lists_of: dict[str, list[str]]
) -> None:
    folder = write(tmp_path / "mine", lists_of)
    if lines is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    if not message:  # a plain name wins over others
        assert len(load(DataSpec("mine"), folder).classes) == 3
        return
    with pytest.raises(InputError, match=message) as caught:
        load(DataSpec("mine"), folder)
    assert "\n" not in str(caught.value)


def test_marks_that_other_programs_leave_do_not_matter(tmp_path: Path, lists_of: dict[str, list[str]]) -> None:
    """These are a byte order mark before the first line, and a Mac's hidden file next to a list."""
    folder = write(tmp_path / "mine", {"my_train.txt": TRAIN, "my_test.txt": TEST})
    plain = load(DataSpec("mine"), folder)
    (folder / "my_train.txt").write_text("\n".join(TRAIN), encoding="utf-8-sig")
    (folder / "._my_train.txt").write_bytes(b"\0\x05\x16\x07")
    assert load(DataSpec("mine"), folder).fingerprint == plain.fingerprint


def test_an_accent_may_be_coded_in_another_way_on_disk(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", {"train.txt": ["images/caf\u00e9.png 0"], "test.txt": ["images/u.png 0"]})
    (folder / "images" / "a.png").rename(folder / "images" / "cafe\u0301.png")
    assert len(load(DataSpec("mine"), folder).train_labels) == 1


def test_the_users_lists_and_class_folders_are_not_chosen_between(
    tmp_path: Path, lists_of: dict[str, list[str]]
) -> None:
    folder = write(tmp_path, lists_of)
    (folder / "train").mkdir()  # without class folders it may hold the images of the list
    assert len(load(DataSpec("folder"), folder).classes) == 3
    (folder / "train" / "a").mkdir()
    for name in ("folder", "mine"):
        with pytest.raises(InputError, match=r"has both lists and class folders.*rename train.txt to use the folders"):
            load(DataSpec(name), folder)


def test_a_list_of_one_split_beside_class_folders_is_only_a_file(tmp_path: Path) -> None:
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / place / "0.png")
    (tmp_path / "train.txt").write_text("notes on the training images\n")
    assert load(DataSpec("folder"), tmp_path).classes == ("a", "b")


def test_a_changed_label_is_not_served_from_the_cache(tmp_path: Path) -> None:
    """The images keep their order, so that only their labels reveal the change."""
    before = ["images/a.png 0", "images/b.png 0", "images/e.png 1"]
    folder = write(tmp_path / "mine", {"train.txt": before, "test.txt": ["images/u.png 0", "images/v.png 1"]})
    assert load(DataSpec("mine"), folder, tmp_path / "cache").train_labels.tolist() == [0, 0, 1]
    (folder / "train.txt").write_text("\n".join(before).replace("b.png 0", "b.png 1"))
    assert load(DataSpec("mine"), folder, tmp_path / "cache").train_labels.tolist() == [0, 1, 1]


def test_lists_of_a_known_data_set_give_its_labels(tmp_path: Path) -> None:
    train = [f"images/{name}.png {i}" for i, name in enumerate(("a", "b", "e"))]
    folder = write(tmp_path / "cifar10", {"train.txt": train, "test.txt": TEST})
    with pytest.raises(InputError, match="has 3 classes but cifar10 has 10"):
        load(DataSpec("cifar10"), folder)
    with pytest.raises(InputError, match="imagenet-100 has no agreed ones of; pass class folders"):
        load(DataSpec("imagenet-100"), folder)
    for i in range(3, 10):
        for split in ("train", "test"):
            Image.new("RGB", (8, 8)).save(folder / "images" / f"{split}{i}.png")
    for split, lines in (("train", train), ("test", TEST)):
        lines = [*lines, *(f"images/{split}{i}.png {i}" for i in range(3, 10))]
        (folder / f"{split}.txt").write_text("\n".join(lines))
    assert load(DataSpec("cifar10"), folder).classes[:3] == ("airplane", "automobile", "bird")


def test_several_lists_of_a_split_are_not_guessed_between(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", {"a_train.txt": TRAIN, "b_train.txt": TRAIN, "test.txt": TEST})
    with pytest.raises(InputError, match=r"several lists of the train split, a_train.txt and b_train.txt; keep one"):
        load(DataSpec("mine"), folder)


@pytest.mark.parametrize(
    ("lines", "message"),
    [(["images/gone.png 0"], "gone.png, which is not there"), (["images/a.png"], "not a path and a class number")],
)
def test_the_command_stops_before_training(
    lines: list[str], message: str, tmp_path: Path, lists_of: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "inat2018", lists_of | {"train.txt": lines})
    words = [
        "--preset",
        "imagenet",
        "--only",
        "table3-inat2018",
        "--data",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
    ]
    with pytest.raises(SystemExit) as ended:
        cli.main(words, paper="class_balanced")
    error = capsys.readouterr().err
    assert ended.value.code == 2 and message in error and error.count("\n") == 1
    assert not list((tmp_path / "out" / "runs").glob("*/config.json"))


# CIFAR-100's coarse labels


def cifar100_classes() -> tuple[str, ...]:
    return tuple(sorted(name for members in CIFAR20.values() for name in members))


def test_coarse_labels_are_cifars() -> None:
    classes = cifar100_classes()
    assert len(set(classes)) == 100 and list(CIFAR20) == sorted(CIFAR20) and len(CIFAR20) == 20
    coarse = {name: i for i, members in enumerate(CIFAR20.values()) for name in members}
    assert [coarse[name] for name in classes] == FINE_TO_COARSE


def fine(classes: tuple[str, ...]) -> Dataset:
    labels = np.arange(200) % len(classes)
    return Dataset(
        "cifar100",
        np.zeros((200, 1, 1, 3), np.uint8),
        labels,
        np.zeros((200, 1, 1, 3), np.uint8),
        labels[::-1].copy(),
        classes,
        "f" * 16,
    )


def test_cifar20_has_the_same_images_under_other_labels() -> None:
    source = fine(cifar100_classes())
    data = coarsen(source, "cifar20")
    assert data.train_images is source.train_images
    assert data.train_labels.tolist() == FINE_TO_COARSE * 2 and data.test_labels.tolist() == (FINE_TO_COARSE * 2)[::-1]
    assert data.classes[4] == "fruit_and_vegetables" and data.fingerprint != source.fingerprint
    assert coarsen(fine(cifar100_classes()), "cifar20").fingerprint == data.fingerprint
    with pytest.raises(InputError, match="needs CIFAR-100's class names, but 'c' is not in both"):
        coarsen(fine(("c", *cifar100_classes()[1:])), "cifar20")
