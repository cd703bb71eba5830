"""Writes small image folders, and checks how loading fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.datasets import DataSpec, load
from common.errors import InputError


def write_image(path: Path, seed: int, size: tuple[int, int] = (8, 6), mode: str = "RGB") -> np.ndarray:
    """Save a random picture of (width, height) and return its RGB pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels).convert(mode)
    image.save(path)
    return np.asarray(image.convert("RGB"))


def write_tree(root: Path, classes: tuple[str, ...] = ("ant", "bee"), test: str = "test", **options: object) -> Path:
    """Write two training images and one test image of each class."""
    for c, name in enumerate(classes):
        for i in range(2):
            write_image(root / "train" / name / f"{i}.png", 10 * c + i, **options)  # type: ignore[arg-type]
        write_image(root / test / name / "0.png", 10 * c + 5, **options)  # type: ignore[arg-type]
    return root


def fails(name: str, root: Path | None, *parts: str, cache: Path | None = None) -> None:
    """Assert that loading ends in an InputError of one line that contains the parts."""
    with pytest.raises(InputError) as caught:
        load(DataSpec(name), root, cache)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
