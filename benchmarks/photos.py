"""Measures how fast large images are loaded: by our loader, the usual ImageFolder, and torchvision's fastest way."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sides import BATCH, Table
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms import v2

from common.files import ImageFiles
from common.runs import IMAGENET_INPUTS as INPUTS
from common.training import Device

PHOTOS, EPOCHS = 512, 4


def photos(repeats: int, device: Device) -> Table:
    """Return how many images per second of CPU time each loader augments and puts on the device in batches.

    The CPU time is that of the main process and one worker. It does not include other work of the machine. A worker's
    time is counted when the worker ends: our worker ends after the epochs of a stage, the others after each epoch.
    """
    rates: Table = {}
    with tempfile.TemporaryDirectory() as folder, _one_core():
        _write(Path(folder))
        sides = _sides(Path(folder), device.torch)
        for repeat in range(repeats + 1):  # the first repeat warms up
            for name, stage in sides.items():
                started = _cpu_seconds()
                stage()
                if repeat:
                    rates.setdefault(name, []).append(EPOCHS * PHOTOS / (_cpu_seconds() - started))
    return rates


@contextmanager
def _one_core() -> Iterator[None]:
    """Use one thread, on one core if the system allows it: several would wait for each other, which costs CPU time."""
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    torch.set_num_threads(1)
    if cores:
        os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if cores:
            os.sched_setaffinity(0, cores)


def _sides(folder: Path, device: torch.device) -> dict[str, Callable[[], None]]:
    files = tuple(sorted(folder.glob("*/*.jpg")))
    ours = ImageFiles(files, torch.zeros(len(files), dtype=torch.long, device=device), INPUTS, device)

    def stage() -> None:
        for _ in range(EPOCHS):
            order = torch.randperm(len(files), device=device)
            for _ in ours.epoch(order, BATCH, torch.Generator()):
                pass
        ours.close()

    pillow = transforms.Compose([
        transforms.RandomResizedCrop(INPUTS.size), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
        transforms.Normalize(INPUTS.mean, INPUTS.std),
    ])  # fmt: skip
    tensors = v2.Compose([
        v2.RandomResizedCrop(INPUTS.size), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(INPUTS.mean, INPUTS.std),
    ])  # fmt: skip
    return {
        "(a) ours": stage,
        "(c) ImageFolder, Pillow": _conventional(ImageFolder(folder, pillow), device),
        "(d) torchvision.io, v2 on tensors": _conventional(ImageFolder(folder, tensors, loader=_tensor), device),
    }


def _conventional(images: ImageFolder, device: torch.device) -> Callable[[], None]:
    loader = DataLoader(images, BATCH, shuffle=True, num_workers=1, pin_memory=device.type == "cuda")

    def stage() -> None:
        for _ in range(EPOCHS):
            for batch, _ in loader:
                batch.to(device, non_blocking=True)

    return stage


def _tensor(path: str) -> Tensor:
    return decode_image(read_file(path), ImageReadMode.RGB)


def _write(folder: Path) -> None:
    """Write JPEGs of 500 x 375 pixels, ImageNet's usual size, cut from the two photographs that scikit-learn ships."""
    (folder / "class").mkdir()
    whole, rng = load_sample_images().images, np.random.default_rng(0)
    for i in range(PHOTOS):
        image = whole[i % 2]
        down, right = rng.integers(image.shape[0] - 374), rng.integers(image.shape[1] - 499)
        window = Image.fromarray(image[down : down + 375, right : right + 500])
        window.save(folder / "class" / f"{i}.jpg", quality=95)


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)
