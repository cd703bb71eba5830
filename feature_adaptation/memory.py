"""Count the memory that old classes take, with one function for all methods, and choose the rows that a class keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # sizes need no torch, so figures that only show sizes do not load it
    from torch import Tensor

FLOAT = 4  # bytes of a stored number, fp32


@dataclass(frozen=True)
class Size:
    """The number of classes, and the sizes of a feature and an image, on one data set. Memory is counted from these."""

    classes: int
    dim: int
    """The dimension of a feature."""
    image: int
    """The bytes of an uncompressed image."""
    jpeg: int
    """The bytes of a JPEG. CIFAR-100 has about 1,300 on average at quality 95. At 256 pixels 15 to 25 kB are usual."""


SIZES = {
    "cifar100": Size(100, 64, 32 * 32 * 3, 1300),
    "imagenet100": Size(100, 512, 256 * 256 * 3, 20_000),
    "imagenet1000": Size(1000, 512, 256 * 256 * 3, 20_000),
}


def preserved(size: Size, features_per_class: float = 0, images_per_class: float = 0, jpeg: bool = False) -> float:
    """Return the MB (1e6 bytes) of preserved data once all classes are known.

    Every comparison at equal bytes uses this. Labels, networks and maps are not counted, and neither is the previous
    network, which exists during a task only.
    """
    image = size.jpeg if jpeg else size.image
    return size.classes * (features_per_class * size.dim * FLOAT + images_per_class * image) / 1e6


def megabytes(
    dataset: str = "cifar100",
    features_per_class: float = 0,
    images_per_class: float = 0,
    image_bytes: float | None = None,
) -> float:
    """Return the MB (1e6 bytes) that L features and P images a class take on cifar100, imagenet100 or imagenet1000.

    image_bytes: the bytes of one image, such as a JPEG's. None: uncompressed images of 32x32x3 or 256x256x3. Raises
    ValueError on another data set or a negative number.
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
    """Return the position of every row within its class, int64 [n]. Rows of a class lie together.

    In a memory this is the herding rank.
    """
    import torch

    _, counts = torch.unique_consecutive(labels, return_counts=True)
    firsts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    return torch.arange(len(labels), device=labels.device) - firsts


def among_first(labels: Tensor, count: int | None) -> Tensor:
    """Return which rows are among the first `count` of their class, bool [n]. None: all are."""
    return ranks(labels) < (len(labels) if count is None else count)
