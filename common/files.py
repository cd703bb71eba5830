"""Large images stay files: worker processes decode, cut and resize them, the device normalises whole batches.

Images travel as bytes, a quarter of what floats take. No recorded run reads files, so pixels may differ from those of
torchvision's transforms on Pillow images: resizing a tensor rounds differently, by one of 256 levels.
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
from common.loader import Share, decodes_on_device, scale_and_shift, whole
from common.runs import Flip, Inputs

Transform = Callable[[Any], Tensor]
"""RGB image, of Pillow or uint8 [3, h, w] -> uint8 [3, size, size]. It may draw from torch's global generator."""

SCALE, RATIO = [0.08, 1.0], [3 / 4, 4 / 3]  # of a window's area and of its sides, as in RandomResizedCrop
WORKERS = 8  # at most, and no more than there are cores

_drawing = threading.Lock()
"""The global generator belongs to all threads; a worker process has its own."""


def augmented(image: Any, size: int) -> Tensor:
    """RandomResizedCrop and RandomHorizontalFlip, with their draws.

    Only the window becomes a tensor: Pillow is slow at copying pixels out, and slower than torch at resizing.
    """
    window = F.crop(image, *RandomResizedCrop.get_params(image, SCALE, RATIO))
    resized = F.resize(_tensor(window), [size, size])
    return F.horizontal_flip(resized) if torch.rand(1) < 0.5 else resized


def centred(image: Any, size: int) -> Tensor:
    """Resize and CenterCrop: seven eighths of the short side."""
    return F.center_crop(F.resize(_tensor(image), [round(size * 8 / 7)]), [size])


def _tensor(image: Any) -> Tensor:
    return image if isinstance(image, Tensor) else pil_to_tensor(image)


def transformed(image: Any, transform: Transform, seed: int) -> Tensor:
    """The image [size, size, 3] after a transform whose draws depend on the seed alone. Other draws do not change."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed takes 0.1 ms to seed every kind of device
        return transform(image).permute(1, 2, 0)


class _Plan:
    """The batches of one pass, in lists of (file, seed). Workers outlive a pass, so its rows are set anew for each."""

    def __init__(self, files: tuple[Path, ...]) -> None:
        self.files = files
        self.parts: list[tuple[Tensor, Tensor]] = []

    def set(self, rows: Tensor, seeds: Tensor, batch: int, share: Share = whole) -> None:
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
    """Item (file, seed) -> (uint8 [bytes] of a grey or RGB JPEG, else the RGB pixels [h, w, 3]; file, seed)."""

    def __getitem__(self, item: tuple[Path, int]) -> tuple[np.ndarray, Path, int]:
        path, seed = item
        with suppress(Exception), Image.open(path) as image:  # Pillow's readers raise nearly anything
            if image.format == "JPEG" and image.mode in ("L", "RGB"):
                return np.fromfile(path, np.uint8), path, seed
        return read_image(path), path, seed


class ImageFiles:
    """Large images read by worker processes, with torchvision's ImageNet transforms on uint8 tensors.

    One set of workers serves all epochs until `close`; an epoch ends, or is dropped, before the next begins. Each pass
    of `plain` has its own workers, which end with it. A worker is sent the files it reads, and is two batches ahead at
    most, so that its memory does not grow with the data set.

    With REPRO_DECODE=device in the environment, workers only read the files: JPEGs are decoded on the device (nvJPEG on
    CUDA), where they are cut and resized too. It is tested on a CPU and was never tried on CUDA. Nothing falls back
    silently: a JPEG that the device cannot decode ends the run with an InputError.
    """

    def __init__(self, files: tuple[Path, ...], labels: Tensor, inputs: Inputs, device: torch.device) -> None:
        self.labels, self.files, self.device, size = labels, files, device, inputs.size
        self.augment, self.centre = partial(augmented, size=size), partial(centred, size=size)
        # In the layout and size of an image: three channels that vary fastest are slow to repeat along a batch.
        self.scale, self.shift = (
            x.expand(1, 3, size, size).contiguous(memory_format=torch.channels_last)
            for x in scale_and_shift(inputs, device)
        )
        self.plan = _Plan(files)
        self.workers: DataLoader | None = None  # of the epochs
        self.on_device = decodes_on_device()

    def epoch(
        self, order: Tensor, batch: int, generator: torch.Generator, share: Share = whole
    ) -> Iterator[tuple[Tensor, Tensor]]:
        self.plan.set(order, torch.randint(2**31, (len(order),), generator=generator), batch, share)
        if self.workers is None:
            self.workers = self._start(self.plan, self.augment)
        for images, rows in zip(self._read(self.workers, self.augment), map(share, order.split(batch)), strict=True):
            yield self._normalise(images), self.labels[rows]

    def close(self) -> None:
        """End the workers of the epochs; another epoch starts new ones."""
        if self.workers is not None:
            _end(self.workers)
        self.workers = None

    def plain(self, indices: Tensor, batch: int = 0, flip: Flip = "none") -> Iterator[Tensor]:
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
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return DataLoader(
            _Encoded() if self.on_device else _Pixels(transform),
            batch_sampler=plan,  # type: ignore[arg-type]
            collate_fn=list if self.on_device else None,
            num_workers=max(1, min(WORKERS, len(plan.parts), cores)),
            pin_memory=self.device.type == "cuda" and not self.on_device,
            persistent_workers=True,
            generator=torch.Generator(),  # else it draws from the one that all threads share
        )

    def _read(self, workers: DataLoader, transform: Transform) -> Iterator[Tensor]:
        """The batches of the plan on the device: uint8 [b, 3, size, size], channels_last."""
        try:
            for batch in workers:
                if self.on_device:
                    yield self._decode(batch, transform)
                else:
                    yield batch.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        except InputError as error:  # a worker puts its traceback before the message
            raise InputError(str(error).rpartition("InputError: ")[2].strip()) from None

    def _decode(self, items: list[tuple[np.ndarray, Path, int]], transform: Transform) -> Tensor:
        """What `_Encoded` read, decoded and transformed on the device."""
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
            with _drawing:
                images.append(transformed(image, transform, seed))
        return torch.stack(images).permute(0, 3, 1, 2)

    def _normalise(self, images: Tensor) -> Tensor:
        return images.float().mul_(self.scale).add_(self.shift)


def _end(workers: DataLoader) -> None:
    """End worker processes at once. By themselves they end with the last reference, which a traceback may hold."""
    if workers._iterator is not None:
        workers._iterator._shutdown_workers()  # type: ignore[attr-defined]
