"""What is kept of old classes: its size, which is the same function for every method, and which rows a class keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # sizes alone need none, so that figures of them do not load it
    from torch import Tensor

FLOAT = 4  # bytes of a stored number, fp32


@dataclass(frozen=True)
class Size:
    """One data set as memory sees it."""

    classes: int
    dim: int
    """Of a feature."""
    image: int
    """Bytes of an uncompressed image."""
    jpeg: int
    """Bytes of a JPEG: about 1,300 on average for CIFAR-100 at quality 95; at 256 pixels 15 to 25 kB are usual."""


SIZES = {
    "cifar100": Size(100, 64, 32 * 32 * 3, 1300),
    "imagenet100": Size(100, 512, 256 * 256 * 3, 20_000),
    "imagenet1000": Size(1000, 512, 256 * 256 * 3, 20_000),
}


def preserved(size: Size, features_per_class: float = 0, images_per_class: float = 0, jpeg: bool = False) -> float:
    """MB (1e6 bytes) of preserved data once all classes are known: the accounting of every equal-bytes comparison.

    Labels, networks, maps and the previous network, which lives during a task only, are not counted.
    """
    image = size.jpeg if jpeg else size.image
    return size.classes * (features_per_class * size.dim * FLOAT + images_per_class * image) / 1e6


def megabytes(
    dataset: str = "cifar100",
    features_per_class: float = 0,
    images_per_class: float = 0,
    image_bytes: float | None = None,
) -> float:
    """MB (1e6 bytes) that L features and P images a class take: cifar100, imagenet100 or imagenet1000.

    image_bytes: of one image, such as a JPEG's; None: uncompressed, 32x32x3 and 256x256x3. Raises ValueError on
    another data set or a negative number.
    """
    if dataset not in SIZES:
        raise ValueError(f"unknown data set {dataset!r}; choose one of {', '.join(SIZES)}")
    if min(features_per_class, images_per_class, image_bytes or 0) < 0:
        raise ValueError("features, images and bytes must not be negative")
    size = SIZES[dataset]
    if image_bytes is not None:
        per_class = features_per_class * size.dim * FLOAT + images_per_class * image_bytes
        return size.classes * per_class / 1e6
    return preserved(size, features_per_class, images_per_class)


def ranks(labels: Tensor) -> Tensor:
    """Position of every row within its class, int64 [n]: in a memory, its herding rank. Classes lie together."""
    import torch

    _, counts = torch.unique_consecutive(labels, return_counts=True)
    firsts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    return torch.arange(len(labels), device=labels.device) - firsts


def first(labels: Tensor, count: int | None) -> Tensor:
    """Which rows are among the first `count` of their class, bool [n]; None: all."""
    return ranks(labels) < (len(labels) if count is None else count)
