"""Tests the real CIFAR-100 from the image folder that REPRO_CIFAR100 names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from common.data.datasets import DataSpec, load
from common.runs import CIFAR_MEAN


def test_cifar100_from_a_folder_is_whole(cifar100: Path, tmp_path: Path) -> None:
    """Counts, channel means and the alphabetical order of classes are the published ones."""
    data = load(DataSpec("cifar100"), cifar100, tmp_path)
    assert data.train_images.shape == (50_000, 32, 32, 3)
    assert data.test_images.shape == (10_000, 32, 32, 3)
    assert np.bincount(data.train_labels).tolist() == [500] * 100
    assert np.bincount(data.test_labels).tolist() == [100] * 100
    assert (data.classes[0], data.classes[99]) == ("apple", "worm")
    np.testing.assert_allclose(np.asarray(data.train_images[::7]).mean(axis=(0, 1, 2)) / 255, CIFAR_MEAN, atol=3e-3)
    if (cifar100 / "train").is_dir():  # torchvision's files hold the images in another order
        assert data.fingerprint == "123fff178151842b"  # committed records name it
    again = load(DataSpec("cifar100"), cifar100, tmp_path)
    assert again.fingerprint == data.fingerprint
