"""Batches for training and evaluation. Small images are stored on the device as uint8 and augmented there.

Large images, such as ImageNet's, are read from files as they are needed, behind the same interface (`common.files`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.data.datasets import Dataset
from common.errors import InputError
from common.runs import Flip, Inputs

BRIGHTNESS_UNIT = 2**16  # a plan holds integers, so brightness factors are stored in units of 2^-16
PAD = 4  # pixels of zero padding around a CIFAR image before the random crop

Share = Callable[[Tensor], Tensor]
"""Selects one process's part of a batch: tensor [..., images of the batch] -> tensor [..., images of this process]."""


def no_share(batch: Tensor) -> Tensor:
    """Return the whole batch: the Share of a process that trains alone."""
    return batch


class Images(Protocol):
    """A set of labelled images. Labels are positions in the class order."""

    labels: Tensor

    def epoch(
        self, order: Tensor, batch: int, generator: torch.Generator, share: Share = no_share
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images of `order`, in that order, as augmented batches (float [b, 3, h, w], labels [b]).

        The last batch may be smaller. An index that occurs twice is augmented anew each time. share: a function that
        takes a part of every batch. The order and the augmentation of images do not depend on it.
        """

    def plain(self, indices: Tensor, batch: int = 0, flip: Flip = "none") -> Iterator[Tensor]:
        """Yield un-augmented batches in the given order. `flip` mirrors them or reverses their colour channels.

        batch: images per batch; 0 chooses a number that suits the device. On a CPU, batches above about 100 only take
        more memory.
        """

    def close(self) -> None:
        """End whatever serves the epochs of a stage, such as worker processes. Another epoch may follow."""


def decodes_on_device() -> bool:
    """Return whether REPRO_DECODE says that JPEGs are decoded on the device. Raises InputError on an unknown value."""
    where = os.environ.get("REPRO_DECODE", "workers")
    if where not in ("workers", "device"):
        raise InputError(f"REPRO_DECODE={where}: choose workers (the default) or device")
    return where == "device"


def open_images(dataset: Dataset, split: str, position: np.ndarray, inputs: Inputs, device: torch.device) -> Images:
    """Return the train or test images of a data set, with labels mapped through `position` (see `splits.positions`)."""
    images = dataset.train_images if split == "train" else dataset.test_images
    labels = dataset.train_labels if split == "train" else dataset.test_labels
    mapped = torch.from_numpy(position[np.asarray(labels)]).to(device)
    if isinstance(images, np.ndarray):
        return DeviceImages(images, mapped, inputs, device)
    from common.files import ImageFiles  # this imports torchvision, which small images do not need

    return ImageFiles(images, mapped, inputs, device)


def scale_and_shift(inputs: Inputs, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return scale and shift, float [1, 3, 1, 1] each: x * scale + shift is (x / 255 - mean) / std for bytes x."""
    std = torch.tensor(inputs.std, device=device).view(1, 3, 1, 1)
    return 1 / (255 * std), -torch.tensor(inputs.mean, device=device).view(1, 3, 1, 1) / std


class DeviceImages:
    """All images as one uint8 tensor [n, 3, h, w] on the device, which crops, flips and normalises whole batches.

    On a CPU the tensor is a view of the array [n, h, w, 3], which is channels_last already. If the array is mapped from
    disk, the tensor takes no memory of its own, and processes share its pages.
    """

    def __init__(self, images: np.ndarray, labels: Tensor, inputs: Inputs, device: torch.device) -> None:
        images = np.require(images, requirements=["C", "W"])  # torch needs this layout; a cached array has it already
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).to(device)
        self.labels = labels
        self.scale, self.shift = scale_and_shift(inputs, device)
        self.brightness = inputs.brightness

    def _normalise(self, images: Tensor) -> Tensor:
        return (images * self.scale + self.shift).contiguous(memory_format=torch.channels_last)

    def plan(self, order: Tensor, generator: torch.Generator) -> Tensor:
        """Return a plan of one epoch, int64 [4, n], whose rows are: image index, shift down, shift right, flip.

        The random numbers are sampled on the CPU, whatever the device. If brightness varies, a fifth row holds its
        factors in units of 2^-16.
        """
        shifts = torch.randint(2 * PAD + 1, (2, len(order)), generator=generator)
        flips = torch.rand(len(order), generator=generator) < 0.5
        rows = [order.cpu()[None], shifts, flips[None]]
        if self.brightness:
            factors = 1 + self.brightness * (2 * torch.rand(1, len(order), generator=generator) - 1)
            rows.append((factors.clamp(min=0) * BRIGHTNESS_UNIT).long())
        return torch.cat(rows).to(self.images.device)

    def take(self, plan: Tensor) -> tuple[Tensor, Tensor]:
        """Return the augmented batch (images, labels) that some columns of a plan describe."""
        rows, down, right, flip, *factors = plan
        images = crop_flip(self.images[rows], down, right, flip.bool())
        if factors:
            images = brighten(images, factors[0] / BRIGHTNESS_UNIT)
        return self._normalise(images), self.labels[rows]

    def epoch(
        self, order: Tensor, batch: int, generator: torch.Generator, share: Share = no_share
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield augmented batches, see `Images`."""
        for part in self.plan(order, generator).split(batch, dim=1):
            yield self.take(share(part))

    def plain(self, indices: Tensor, batch: int = 0, flip: Flip = "none") -> Iterator[Tensor]:
        """Yield un-augmented batches, see `Images`."""
        for rows in indices.split(batch or (5000 if self.images.is_cuda else 100)):
            images = self.images[rows]
            if flip != "none":
                images = images.flip(3 if flip == "horizontal" else 1)
            yield self._normalise(images)

    def close(self) -> None:
        """Do nothing: these images need no workers."""


def crop_flip(images: Tensor, down: Tensor, right: Tensor, flip: Tensor) -> Tensor:
    """Zero-pad uint8 [b, c, h, w] by 4, crop each image at its own offset, and mirror the images where `flip` is true.

    down, right [b]: offsets from 0 to 8. flip: bool [b]. Padding comes before normalisation, as in torchvision's
    RandomCrop(32, padding=4) on a PIL image.
    """
    height, width = images.shape[2:]
    windows = F.pad(images, (PAD, PAD, PAD, PAD)).unfold(2, height, 1).unfold(3, width, 1)
    rows = torch.arange(len(images), device=images.device)
    cropped = windows[rows, :, down, right]
    return torch.where(flip.view(-1, 1, 1, 1), cropped.flip(3), cropped)


def brighten(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply uint8 images [b, c, h, w] by factors [b], clamp to 255 and round down, as PIL does. Returns float."""
    return (images * factors.view(-1, 1, 1, 1)).clamp(max=255).floor()
