"""Tests augmentation and evaluation batches of small images against NumPy, image by image, and torchvision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torchvision.transforms import v2

from common.data.datasets import Dataset
from common.loader import DeviceImages, crop_flip, open_images
from common.runs import CIFAR_MEAN, CIFAR_STD, Inputs
from common.training import shuffled

CPU = torch.device("cpu")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def normalised(images: np.ndarray) -> np.ndarray:
    """uint8 [n, h, w, 3] -> float64 [n, 3, h, w]."""
    return ((images / 255.0 - np.array(CIFAR_MEAN)) / np.array(CIFAR_STD)).transpose(0, 3, 1, 2)


def plain_images(n: int, size: int = 32) -> DeviceImages:
    return DeviceImages(pictures(n, size), torch.arange(n), Inputs(), CPU)


def test_crop_and_flip_one_image_at_a_time() -> None:
    images = pictures(81 * 2, 6)
    down, right = (x.ravel().repeat(2) for x in np.indices((9, 9)))
    flip = np.arange(len(images)) % 2 == 1
    got = crop_flip(torch.from_numpy(images.transpose(0, 3, 1, 2)), *map(torch.from_numpy, (down, right, flip)))
    for i, image in enumerate(images):
        padded = np.zeros((14, 14, 3), np.uint8)
        padded[4:10, 4:10] = image
        expected = padded[down[i] : down[i] + 6, right[i] : right[i] + 6]
        expected = expected[:, ::-1] if flip[i] else expected
        assert np.array_equal(got[i].permute(1, 2, 0).numpy(), expected)


def test_an_epoch_pads_the_raw_image_before_normalising() -> None:
    """Every image is a window of the zero-padded original, flipped or not, so that its border is raw black."""
    images = pictures(24)
    padded = normalised(np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0))))
    offsets = set()
    for batch, labels in plain_images(24).epoch(torch.arange(24), 10, generator(0)):
        for image, label in zip(batch.numpy(), labels.tolist(), strict=True):
            windows = {
                (d, r, f): padded[label][:, d : d + 32, r : r + 32][:, :, :: -1 if f else 1]
                for d in range(9) for r in range(9) for f in (False, True)
            }  # fmt: skip
            (found,) = (key for key, window in windows.items() if np.allclose(image, window, atol=1e-5))
            offsets.add(found)
    assert len(offsets) > 12


def markers(n: int) -> np.ndarray:
    """Return images whose pixels name their row and column, so that crop and flip can be read from them."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(100, 132)[:, None], np.arange(100, 132)
    return np.broadcast_to(image, (n, 32, 32, 3))


def read_marker(image: np.ndarray) -> tuple[int, int, bool]:
    """Return (down, right, flipped) of uint8 [3, 32, 32]. The pixel at the centre is never padding."""
    row, left, right = int(image[0, 16, 16]), int(image[1, 16, 15]), int(image[1, 16, 16])
    flipped = left > right
    column = int(image[1, 16, 15]) if flipped else right
    return row - 100 - 16 + 4, column - 100 - 16 + 4, flipped


def test_offsets_and_flips_are_distributed_as_torchvisions() -> None:
    n = 4000
    images = DeviceImages(markers(n), torch.zeros(n, dtype=torch.long), Inputs((0, 0, 0), (1, 1, 1)), CPU)
    (batch, _), *_ = images.epoch(torch.arange(n), n, generator(0))
    ours = [read_marker(image) for image in (batch * 255).round().numpy()]
    transform = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()])
    torch.manual_seed(0)
    one = torch.from_numpy(markers(1)[0].transpose(2, 0, 1).copy())
    theirs = [read_marker(transform(one).numpy()) for _ in range(600)]
    assert {d for d, _, _ in theirs} == {r for _, r, _ in theirs} == set(range(9))
    for values, bins in (
        ([9 * d + r for d, r, _ in ours], 81), ([d for d, _, _ in ours], 9), ([r for _, r, _ in ours], 9),
        ([int(f) for _, _, f in ours], 2), ([2 * d + f for d, _, f in ours], 18), ([2 * r + f for _, r, f in ours], 18),
        ([r for _, r, _ in theirs], 9), ([int(f) for _, _, f in theirs], 2),
    ):  # fmt: skip
        counts = np.bincount(values, minlength=bins)
        assert len(counts) == bins
        assert chisquare(counts).pvalue > 1e-3


def test_an_epoch_keeps_the_order_given_and_the_partial_batch() -> None:
    images, order = plain_images(50), torch.arange(41, 4, -1)
    batches = list(images.epoch(order, 16, generator(0)))
    assert [len(b) for b, _ in batches] == [16, 16, 5] and [len(labels) for _, labels in batches] == [16, 16, 5]
    assert torch.equal(torch.cat([labels for _, labels in batches]), order)


def test_an_image_drawn_twice_is_augmented_twice() -> None:
    (batch, labels), *_ = plain_images(3).epoch(torch.tensor([1] * 64), 64, generator(0))
    assert (labels == 1).all() and len({image.numpy().tobytes() for image in batch}) > 40


def test_shuffling_takes_every_index_once() -> None:
    indices = torch.arange(5, 42)
    order = shuffled(indices, generator(0))
    assert sorted(order.tolist()) == indices.tolist() and order.tolist() != indices.tolist()
    assert torch.equal(order, shuffled(indices, generator(0)))
    assert not torch.equal(order, shuffled(indices, generator(1)))


def test_the_generator_decides_an_epoch() -> None:
    images, indices = plain_images(30), torch.arange(30)
    first, again, other = (list(images.epoch(indices, 8, generator(s))) for s in (1, 1, 2))
    assert all(torch.equal(a, b) and torch.equal(la, lb) for (a, la), (b, lb) in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for (a, _), (b, _) in zip(first, other, strict=True))


@pytest.mark.parametrize(("flip", "expected"), [
    ("none", lambda x: x), ("horizontal", lambda x: x[:, :, ::-1]), ("channels", lambda x: x[..., ::-1]),
])  # fmt: skip
def test_plain_batches(flip: str, expected: object) -> None:
    """Images come in the given order. Reversed channels are BGR, normalised as if RGB, as in LUCIR's official code."""
    images, rows = plain_images(20), torch.tensor([7, 3, 3, 19, 0])
    batches = list(images.plain(rows, batch=2, flip=flip))  # type: ignore[arg-type]
    assert [len(b) for b in batches] == [2, 2, 1]
    wanted = normalised(expected(pictures(20))[rows.numpy()])  # type: ignore[operator]
    np.testing.assert_allclose(torch.cat(batches).numpy(), wanted, atol=1e-5)


def test_labels_are_positions_in_the_class_order(tiny_data: Dataset) -> None:
    position = np.array([3, 1, 0, 2, 7, 6, 5, 4])
    for split, labels in (("train", tiny_data.train_labels), ("test", tiny_data.test_labels)):
        images = open_images(tiny_data, split, position, Inputs(), CPU)
        assert isinstance(images, DeviceImages)
        assert images.labels.tolist() == [position[label] for label in labels]
        pixels = tiny_data.train_images if split == "train" else tiny_data.test_images
        (batch,) = images.plain(torch.tensor([6]))
        np.testing.assert_allclose(batch.numpy(), normalised(pixels[6:7]), atol=1e-5)  # type: ignore[index]
