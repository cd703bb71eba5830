"""Tests which label a class gets: published orders, aliases, numbers, and names that fit no published class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.coarse import CIFAR20
from common.data.datasets import DataSpec, load
from common.data.names import CIFAR10, PUBLISHED, assign, ordered
from common.data.synsets import IMAGENET
from common.errors import InputError

FINE = sorted(name for members in CIFAR20.values() for name in members)
TUTORIAL = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def write(root: Path, folders: dict[str, int]) -> Path:
    """Write one image for each split of each class folder, with the given grey level."""
    for split in ("train", "test"):
        for folder, level in folders.items():
            (root / split / folder).mkdir(parents=True)
            Image.new("RGB", (4, 4), (level,) * 3).save(root / split / folder / "0.png")
    return root


def levels(name: str, root: Path) -> list[int]:
    """Return the grey levels of the training images in label order."""
    data = load(DataSpec(name), root)
    assert data.train_labels.tolist() == sorted(data.train_labels.tolist())
    return np.asarray(data.train_images)[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    "names", [CIFAR10, TUTORIAL, tuple(map(str, range(10))), tuple(f"{i:02d}" for i in range(10)),
              ("Airplane", "AUTOMOBILE", *CIFAR10[2:]), ("aeroplane", "auto", *CIFAR10[2:])],
)  # fmt: skip
def test_cifar10_has_its_published_labels_whatever_its_folders_are_called(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    root = write(tmp_path, {folder: i for i, folder in enumerate(names)})
    assert levels("cifar10", root) == list(range(10))
    data = load(DataSpec("cifar10"), root)
    assert data.classes == CIFAR10
    assert load(DataSpec("cifar10"), write(tmp_path / "b", {c: i for i, c in enumerate(CIFAR10)})).fingerprint == (
        data.fingerprint
    )


@pytest.mark.parametrize("style", ["{i}", "{i:03d}", "{spaced}"])
def test_cifar100_under_numbers_or_spaces_is_cifar100(style: str, tmp_path: Path) -> None:
    folders = {style.format(i=i, spaced=name.replace("_", " ").title()): i for i, name in enumerate(FINE)}
    root = write(tmp_path, folders)
    assert levels("cifar100", root) == list(range(100))
    assert list(load(DataSpec("cifar100"), root).classes) == FINE
    coarse = load(DataSpec("cifar20"), root)
    assert coarse.classes[coarse.train_labels[FINE.index("trout")]] == "fish"


def test_cifar100_has_aliases_too() -> None:
    others = {name.removesuffix("_tree") if name != "keyboard" else "computer keyboard": name for name in FINE}
    assert [others[n] for n in assign("cifar100", "DIR", sorted(others)).values()] == FINE


def test_numbers_of_an_unknown_data_set_sort_as_numbers(tmp_path: Path) -> None:
    root = write(tmp_path, {str(i): i for i in range(12)} | {"other": 12})
    assert levels("mine", root) == list(range(13))
    assert load(DataSpec("mine"), root).classes == (*map(str, range(12)), "other")
    assert ordered(["b", "a", "10", "9", "x1", "010"]) == ("9", "010", "10", "a", "b", "x1")


@pytest.mark.parametrize(
    ("name", "found", "message"),
    [
        ("cifar10", [*CIFAR10[:9], "lorry"], r"'lorry', which is not one of cifar10's .*airplane, automobile"),
        ("cifar10", ["car", *CIFAR10[1:]], "has two names for one of cifar10's"),
        ("cifar10", [str(i) for i in range(1, 11)], "has '1', which is not one of.*number them 0 to 9"),
        ("cifar100", [*FINE[:99], "zebra"], "'zebra'"),
        ("imagenet", [*IMAGENET[:999], "n00000001"], "'n00000001'"),
        ("imagenet", [f"class{i}" for i in range(1000)], "'class0'"),
        ("imagenet-lt", [f"class{i}" for i in range(1000)], "'class0'"),
        ("imagenet-100", IMAGENET[1:101], f"'{IMAGENET[100]}'"),
        ("imagenet-subset", IMAGENET[:100], "is not one of imagenet-subset's"),
        ("imagenet-subset", [str(i) for i in range(100)], "'0', which is not one of"),
    ],
)  # fmt: skip
def test_names_that_fit_no_published_class_are_refused(name: str, found: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        assign(name, "DIR/train", found)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("DIR/train ")


def test_loading_refuses_them(tmp_path: Path) -> None:
    root = write(tmp_path, dict.fromkeys((*CIFAR10[:9], "lorry"), 0))
    with pytest.raises(InputError, match="'lorry'"):
        load(DataSpec("cifar10"), root)
    assert len(load(DataSpec("vehicles"), root).classes) == 10  # under a name of the user's own


@pytest.mark.parametrize("numbered", [False, True])
@pytest.mark.parametrize("name", ["imagenet-subset", "imagenet-100"])
def test_a_subset_takes_its_classes_of_all_of_imagenet(name: str, numbered: bool) -> None:
    found = [str(i) for i in range(1000)] if numbered else IMAGENET
    chosen = assign(name, "DIR", found)
    assert tuple(chosen) == PUBLISHED[name] and list(chosen) == sorted(chosen)
    assert all(IMAGENET[int(folder)] == c if numbered else folder == c for c, folder in chosen.items())
    assert tuple(assign(name, "DIR", PUBLISHED[name])) == PUBLISHED[name]


def test_published_names_are_whole_and_in_label_order() -> None:
    for name, count in {"cifar10": 10, "cifar100": 100, "imagenet": 1000, "imagenet-subset": 100}.items():
        assert len(set(PUBLISHED[name])) == count and list(PUBLISHED[name]) == sorted(PUBLISHED[name])
    assert (IMAGENET[0], IMAGENET[207], IMAGENET[999]) == ("n01440764", "n02099601", "n15075141")
