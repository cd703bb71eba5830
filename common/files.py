"""Reads large images from files: worker processes decode, crop and resize; the device normalises whole batches.

Workers send images as bytes, which take a quarter of the space of floats. Pixels may differ by one of 256 levels from
those of torchvision's transforms on Pillow images, because resizing a tensor rounds differently. No recorded run is
affected, since none reads images from files.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import pil_to_tensor
from torchvision.transforms.v2 import functional as F

from common.data.decoding import open_image
from common.data.folders import read_image
from common.errors import InputError
from common.loader import Share, decodes_on_device, no_share, scale_and_shift
from common.runs import Flip, Inputs

Transform = Callable[[Any], Tensor]
"""RGB image (Pillow, or uint8 [3, h, w]) -> uint8 [3, size, size]. It may sample from torch's global generator."""

SCALE, RATIO = [0.08, 1.0], [3 / 4, 4 / 3]  # range of a crop's area and of its aspect ratio, as in RandomResizedCrop
WORKERS = 8  # most worker processes; never more than there are cores

_global_rng_lock = threading.Lock()
"""Guards torch's global generator, which all threads of a process share. A worker process has its own."""


def augmented(image: Any, size: int) -> Tensor:
    """Apply RandomResizedCrop and RandomHorizontalFlip, sampling the same random numbers as torchvision's transforms.

    Only the crop is converted to a tensor, because Pillow is slow at copying pixels out. Torch then resizes the crop
    faster than Pillow would.
    """
    window = F.crop(image, *RandomResizedCrop.get_params(image, SCALE, RATIO))
    resized = F.resize(_tensor(window), [size, size])
    return F.horizontal_flip(resized) if torch.rand(1) < 0.5 else resized


def centred(image: Any, size: int) -> Tensor:
    """Apply Resize and CenterCrop: the crop's side is seven eighths of the image's short side."""
    return F.center_crop(F.resize(_tensor(image), [round(size * 8 / 7)]), [size])


def _tensor(image: Any) -> Tensor:
    return image if isinstance(image, Tensor) else pil_to_tensor(image)


def transformed(image: Any, transform: Transform, seed: int) -> Tensor:
    """Return the transformed image, uint8 [size, size, 3].

    The transform's random numbers depend on `seed` alone, and the state of torch's global generator is left unchanged.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed takes 0.1 ms to seed every kind of device
        return transform(image).permute(1, 2, 0)


class _Plan:
    """The batches of one pass over the images, each a list of (file, seed).

    Workers outlive a pass, so `set` replaces the rows before every pass.
    """

    def __init__(self, files: tuple[Path, ...]) -> None:
        self.files = files
        self.parts: list[tuple[Tensor, Tensor]] = []

    def set(self, rows: Tensor, seeds: Tensor, batch: int, share: Share = no_share) -> None:
        """Set the rows, the seeds and the batch size of the next pass, and the part that this process takes."""
        self.parts = list(zip(*(map(share, each.split(batch)) for each in (rows.cpu(), seeds)), strict=True))

    def __iter__(self) -> Iterator[list[tuple[Path, int]]]:
        for rows, seeds in self.parts:
            yield [(self.files[row], seed) for row, seed in zip(rows.tolist(), seeds.tolist(), strict=True)]


class _Pixels(torch.utils.data.Dataset):
    """Item (file, seed) -> uint8 [size, size, 3]. The seed makes the augmentation independent of the worker."""

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def __getitem__(self, item: tuple[Path, int]) -> Tensor:
        path, seed = item
        return transformed(open_image(path), self.transform, seed)


class _Encoded(torch.utils.data.Dataset):
    """Item (file, seed) -> (data, file, seed), where data is uint8.

    The data are the file's bytes [n] for a grey or RGB JPEG, and the RGB pixels [h, w, 3] for any other image.
    """

    def __getitem__(self, item: tuple[Path, int]) -> tuple[np.ndarray, Path, int]:
        path, seed = item
        with suppress(Exception), Image.open(path) as image:  # Pillow's readers raise nearly anything
            if image.format == "JPEG" and image.mode in ("L", "RGB"):
                return np.fromfile(path, np.uint8), path, seed
        return read_image(path), path, seed


class ImageFiles:
    """Large images that worker processes read, with torchvision's ImageNet transforms on uint8 tensors.

    One set of workers serves all epochs until `close`. An epoch must end, or be dropped, before the next begins. Each
    pass of `plain` has its own workers, which end with the pass. The main process sends a worker the names of the files
    to read, and a worker is at most two batches ahead. So its memory does not grow with the data set.

    With REPRO_DECODE=device in the environment, workers only read the files. The device then decodes, crops and resizes
    JPEGs (with nvJPEG on CUDA). This is tested on a CPU and was never tried on CUDA. Nothing falls back silently: a
    JPEG that the device cannot decode ends the run with an InputError.
    """

    def __init__(self, files: tuple[Path, ...], labels: Tensor, inputs: Inputs, device: torch.device) -> None:
        self.labels, self.files, self.device, size = labels, files, device, inputs.size
        self.augment, self.centre = partial(augmented, size=size), partial(centred, size=size)
        # Both have the layout and size of an image: broadcasting [1, 3, 1, 1] over a channels_last batch is slow.
        self.scale, self.shift = (
            x.expand(1, 3, size, size).contiguous(memory_format=torch.channels_last)
            for x in scale_and_shift(inputs, device)
        )
        self.plan = _Plan(files)
        self.workers: DataLoader | None = None  # those that serve the epochs
        self.on_device = decodes_on_device()

    def epoch(
        self, order: Tensor, batch: int, generator: torch.Generator, share: Share = no_share
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield augmented batches, see `common.loader.Images`."""
        self.plan.set(order, torch.randint(2**31, (len(order),), generator=generator), batch, share)
        if self.workers is None:
            self.workers = self._start(self.plan, self.augment)
        for images, rows in zip(self._read(self.workers, self.augment), map(share, order.split(batch)), strict=True):
            yield self._normalise(images), self.labels[rows]

    def close(self) -> None:
        """End the workers that serve the epochs. Another epoch starts new ones."""
        if self.workers is not None:
            _end(self.workers)
        self.workers = None

    def plain(self, indices: Tensor, batch: int = 0, flip: Flip = "none") -> Iterator[Tensor]:
        """Yield un-augmented batches, see `common.loader.Images`."""
        plan = _Plan(self.files)
        plan.set(indices, torch.zeros(len(indices), dtype=torch.long), batch or 100)
        workers = self._start(plan, self.centre)
        try:
            for images in self._read(workers, self.centre):
                if flip != "none":
                    images = images.flip(3 if flip == "horizontal" else 1)
                yield self._normalise(images)
        finally:
            _end(workers)

    def _start(self, plan: _Plan, transform: Transform) -> DataLoader:
        """Start worker processes for the batches of a plan."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return DataLoader(
            _Encoded() if self.on_device else _Pixels(transform),
            batch_sampler=plan,  # type: ignore[arg-type]
            collate_fn=list if self.on_device else None,
            num_workers=max(1, min(WORKERS, len(plan.parts), cores)),
            pin_memory=self.device.type == "cuda" and not self.on_device,
            persistent_workers=True,
            generator=torch.Generator(),  # without one, DataLoader would sample from the generator all threads share
        )

    def _read(self, workers: DataLoader, transform: Transform) -> Iterator[Tensor]:
        """Yield the batches of the workers' plan, on the device: uint8 [b, 3, size, size], channels_last."""
        try:
            for batch in workers:
                if self.on_device:
                    yield self._decode(batch, transform)
                else:
                    yield batch.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        except InputError as error:  # a worker puts its traceback before the message
            raise InputError(str(error).rpartition("InputError: ")[2].strip()) from None

    def _decode(self, items: list[tuple[np.ndarray, Path, int]], transform: Transform) -> Tensor:
        """Decode and transform on the device what `_Encoded` read: uint8 [b, 3, size, size].

        Raises InputError if a file is damaged, or if the device cannot decode a JPEG.
        """
        from torchvision.io import ImageReadMode, decode_jpeg  # deprecated since 0.29

        encoded = [torch.from_numpy(data) for data, _, _ in items if data.ndim == 1]
        try:
            decoded = iter(decode_jpeg(encoded, ImageReadMode.RGB, device=self.device) if encoded else ())
        except RuntimeError as error:
            for _, path, _ in items:
                open_image(path)  # raises InputError where a file is damaged
            reason = str(error).splitlines()[0]
            raise InputError(f"REPRO_DECODE=device cannot decode a JPEG ({reason}); unset REPRO_DECODE") from None
        images = []
        for data, _, seed in items:
            image = next(decoded) if data.ndim == 1 else torch.from_numpy(data.copy()).permute(2, 0, 1).to(self.device)
            with _global_rng_lock:
                images.append(transformed(image, transform, seed))
        return torch.stack(images).permute(0, 3, 1, 2)

    def _normalise(self, images: Tensor) -> Tensor:
        return images.float().mul_(self.scale).add_(self.shift)


def _end(workers: DataLoader) -> None:
    """End worker processes at once. Left alone they end with the last reference to them, which a traceback may hold."""
    if workers._iterator is not None:
        workers._iterator._shutdown_workers()  # type: ignore[attr-defined]
