"""Tests large images in files: formats against Pillow, batches against torchvision, and when workers start and end."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.io
from PIL import Image
from scipy.stats import binomtest, ks_2samp
from torch import Tensor, nn
from torchvision.transforms import RandomResizedCrop, v2

from common import files as module
from common.data.folders import read_image
from common.errors import InputError
from common.files import ImageFiles
from common.runs import IMAGENET_INPUTS, Inputs, Schedule
from common.training import Epoch, Stage, fit, momentum

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")  # decoding on the device
CPU = torch.device("cpu")
LEVELS = Inputs((0, 0, 0), (1 / 255,) * 3, "resized-crop", size=32)
"""Inputs that normalise pixels to 0 ... 255."""
ROUNDING = 1.01
"""The number of levels by which a resized tensor may differ from a resized Pillow image."""


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(seed: int, width: int = 100, height: int = 80) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Return seven pictures: a PNG, and JPEGs of which one is grey and one CMYK."""
    folder = tmp_path_factory.mktemp("large")
    modes = {3: "L", 5: "CMYK"}
    found = tuple(folder / f"{i}.{'png' if i == 1 else 'jpg'}" for i in range(7))
    for i, path in enumerate(found):
        smooth(i).convert(modes.get(i, "RGB")).save(path, quality=95)
    return found


def opened(paths: tuple[Path, ...], inputs: Inputs = LEVELS) -> ImageFiles:
    return ImageFiles(paths, torch.arange(len(paths)), inputs, CPU)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read images in this process, since starting workers takes longer than reading seven pictures."""
    whole, alone = module.DataLoader, {"num_workers": 0, "persistent_workers": False}
    monkeypatch.setattr(module, "DataLoader", lambda *a, **k: whole(*a, **(k | alone)))


def same(first: Any, second: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(chain(*first), chain(*second), strict=True))


# Formats

FORMATS: dict[str, tuple[str, Callable[[Image.Image], Image.Image], dict[str, Any]]] = {
    "jpeg": ("a.jpg", lambda x: x, {}),
    "progressive": ("a.JPEG", lambda x: x, {"progressive": True}),
    "full colour": ("a.jpg", lambda x: x, {"subsampling": 0}),
    "grey": ("a.jpg", lambda x: x.convert("L"), {}),
    "cmyk": ("a.jpg", lambda x: x.convert("CMYK"), {}),
    "turned by EXIF": (
        "a.jpg",
        lambda x: x,
        {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"},
    ),
    "png named jpeg": ("a.JPEG", lambda x: x, {"format": "PNG"}),
    "jpeg named png": ("a.png", lambda x: x, {"format": "JPEG"}),
    "palette": ("a.png", lambda x: x.quantize(16), {}),
    "palette with transparency": ("a.png", lambda x: x.quantize(16), {"transparency": 3}),
    "transparent": ("a.png", lambda x: x.convert("RGBA"), {}),
    "16 bit": ("a.png", lambda x: Image.fromarray(np.asarray(x.convert("L")).astype(np.uint16) * 257), {}),
    "webp": ("a.webp", lambda x: x, {}),
    "tiff": ("a.tif", lambda x: x, {}),
}


@pytest.mark.parametrize("where", ["workers", "device"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_reads_as_pillow_does(
    name: str, where: str, here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test images of 70 pixels are cut from pictures of 80, so nothing is resized. EXIF data turn no image."""
    monkeypatch.setenv("REPRO_DECODE", where)
    file, convert, options = FORMATS[name]
    convert(smooth(0)).save(tmp_path / file, **options)
    with Image.open(tmp_path / file) as picture:
        wanted = np.asarray(picture.convert("RGB"))
    if name == "16 bit":  # Pillow cuts these off at 255
        wanted = np.asarray(smooth(0).convert("L").convert("RGB"))
    assert np.array_equal(read_image(tmp_path / file), wanted)
    got = next(opened((tmp_path / file,), replace(LEVELS, size=70)).plain(torch.tensor([0])))[0]
    difference = got.permute(1, 2, 0).numpy() - wanted[5:75, 15:85]
    assert abs(difference).max() < (0.01 if where == "workers" else 1.01)  # two builds of libjpeg may round differently


@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.95])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("where", ["workers", "device"])
def test_a_truncated_file_is_named(
    where: str, suffix: str, keep: float, here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPRO_DECODE", where)
    path = tmp_path / f"broken.{suffix}"
    smooth(0).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(InputError, match=rf"^cannot read the image .*broken\.{suffix} \(.*replace it or delete it$"):
        next(opened((path,)).plain(torch.tensor([0])))


# Batches


def test_test_images_are_resized_and_cut_as_by_pillow(here: None, paths: tuple[Path, ...]) -> None:
    rows = torch.tensor([5, 3, 0, 5, 1])
    batches = list(opened(paths, IMAGENET_INPUTS).plain(rows, batch=2))
    assert [tuple(b.shape) for b in batches] == [(2, 3, 224, 224), (2, 3, 224, 224), (1, 3, 224, 224)]
    assert all(b.is_contiguous(memory_format=torch.channels_last) for b in batches)
    mean, std = (np.array(x).reshape(3, 1, 1) for x in (IMAGENET_INPUTS.mean, IMAGENET_INPUTS.std))
    for image, row in zip(torch.cat(batches), rows.tolist(), strict=True):
        with Image.open(paths[row]) as picture:
            wanted = picture.convert("RGB").resize((320, 256), Image.Resampling.BILINEAR).crop((48, 16, 272, 240))
        levels = 255 * (image.double().numpy() * std + mean)
        assert abs(levels - np.asarray(wanted).transpose(2, 0, 1)).max() < ROUNDING


def test_flips(here: None, paths: tuple[Path, ...]) -> None:
    """Reversed channels are BGR, normalised as if they were RGB, as for small images."""
    rows, inputs = torch.arange(3), Inputs((0.1, 0.2, 0.3), (1, 2, 4), "resized-crop", 32)
    raw, plain, mirrored, reversed_ = (
        next(opened(paths, use).plain(rows, flip=flip))  # type: ignore[arg-type]
        for use, flip in ((LEVELS, "none"), (inputs, "none"), (inputs, "horizontal"), (inputs, "channels"))
    )
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (inputs.mean, inputs.std))
    torch.testing.assert_close(plain, (raw / 255 - mean) / std)
    assert torch.equal(mirrored, plain.flip(3))
    torch.testing.assert_close(reversed_, (raw.flip(1) / 255 - mean) / std)


def test_training_images_are_cut_as_by_torchvision_on_pillow(here: None, paths: tuple[Path, ...]) -> None:
    """The same seeds give the same windows and flips."""
    order = [3, 0, 6, 2, 1, 5, 4] * 3
    seeds = torch.randint(2**31, (len(order),), generator=generator(4)).tolist()
    (batch, labels), *_ = opened(paths).epoch(torch.tensor(order), len(order), generator(4))
    assert labels.tolist() == order
    for image, row, seed in zip(batch, order, seeds, strict=True):
        torch.manual_seed(seed)
        with Image.open(paths[row]) as picture:
            wanted = v2.RandomHorizontalFlip()(v2.RandomResizedCrop(32)(picture.convert("RGB")))
        assert (image - v2.functional.pil_to_tensor(wanted)).abs().max() < ROUNDING


def test_windows_are_distributed_as_torchvisions(here: None, tmp_path: Path) -> None:
    """Pixels of this picture name their column and row, so that the corners of a window show where it lies."""
    height, width, n = 150, 200, 600
    row, column = np.mgrid[:height, :width]
    Image.fromarray(np.stack([column, row, 0 * row], 2).astype(np.uint8)).save(tmp_path / "a.png")
    (batch, _), *_ = opened((tmp_path / "a.png",)).epoch(torch.zeros(n, dtype=torch.long), n, generator(0))
    left, right, top, bottom = batch[:, 0, 0, 0], batch[:, 0, 0, -1], batch[:, 1, 0, 0], batch[:, 1, -1, 0]
    wide, high = (right - left).abs() * 32 / 31, (bottom - top) * 32 / 31
    torch.manual_seed(1)
    theirs = np.array([RandomResizedCrop.get_params(torch.empty(3, height, width), [0.08, 1.0], [3 / 4, 4 / 3])
                       for _ in range(2000)])  # fmt: skip
    ours = (top - high / 64 + 0.5, torch.minimum(left, right) - wide / 64 + 0.5, high, wide)
    for got, wanted in zip(ours, theirs.T, strict=True):
        assert ks_2samp(got.round().numpy(), wanted).pvalue > 1e-3
    assert binomtest(int((right < left).sum()), n).pvalue > 1e-3


def test_an_epoch(here: None, paths: tuple[Path, ...]) -> None:
    order, state = torch.tensor([6, 2, 0, 4, 2]), torch.get_rng_state()
    first, again, other = (list(opened(paths).epoch(order, 2, generator(s))) for s in (1, 1, 2))
    assert [tuple(b.shape) for b, _ in first] == [(2, 3, 32, 32), (2, 3, 32, 32), (1, 3, 32, 32)]
    assert torch.cat([labels for _, labels in first]).tolist() == order.tolist()
    assert same(first, again)
    images, others = (torch.cat([b for b, _ in epoch]) for epoch in (first, other))
    assert all(not torch.equal(a, b) for a, b in zip(images, others, strict=True))
    assert not torch.equal(images[1], images[4])  # an image that comes twice is augmented twice
    assert torch.equal(torch.get_rng_state(), state)  # other threads draw from it


# Workers


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pretend that every machine has two cores, for two workers. No worker may be left at the end."""
    monkeypatch.setattr(module, "WORKERS", 2)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: range(2), raising=False)
    yield
    assert workers() == set()


def workers() -> set[int | None]:
    return {process.pid for process in multiprocessing.active_children()}


def test_one_set_of_workers_serves_all_epochs_and_ends_on_close(
    two_cores: None, paths: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, order = opened(paths), torch.arange(7)
    first = list(images.epoch(order, 2, generator(0)))
    running = workers()
    assert len(running) == 2
    next(iter(images.epoch(order.flip(0), 2, generator(1))))  # left after one batch, others being read ahead
    second = list(images.epoch(order[:5], 3, generator(2)))
    assert workers() == running
    images.close()
    assert workers() == set()
    next(iter(images.plain(order, batch=1)))
    assert workers() == set()
    third = list(images.epoch(order, 2, generator(0)))
    images.close()
    assert same(first, third)
    request: Any = (order[:5], 3, generator(2))
    with monkeypatch.context() as patch:
        whole, alone = module.DataLoader, {"num_workers": 0, "persistent_workers": False}
        patch.setattr(module, "DataLoader", lambda *a, **k: whole(*a, **(k | alone)))
        assert same(second, opened(paths).epoch(*request))  # the worker does not matter


def test_a_damaged_file_ends_the_epoch_in_one_line_and_the_workers(two_cores: None, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    smooth(0).save(good)
    bad.write_bytes(good.read_bytes()[:700])
    images, order = opened((good, bad)), torch.tensor([0, 0, 0, 1, 0])
    with pytest.raises(InputError) as training, closing(images):
        list(images.epoch(order, 1, generator(0)))
    with pytest.raises(InputError) as testing:
        list(images.plain(order, 1))
    assert workers() == set()  # though the errors' tracebacks refer to them
    for caught in (training, testing):
        assert str(caught.value).startswith(f"cannot read the image {bad} (") and "\n" not in str(caught.value)


def test_resuming_at_an_epoch_gives_the_same_bits(two_cores: None, paths: tuple[Path, ...]) -> None:
    def train(epochs: int, weights: Tensor | None = None, resume: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        layer, last = nn.Linear(3, 7), dict[str, Tensor]()
        with torch.no_grad():
            layer.weight.copy_(torch.linspace(-1, 1, 21).view(7, 3) if weights is None else weights)
            layer.bias.zero_()
        layer.bias.requires_grad_(False)

        def loss(images: Tensor, labels: Tensor) -> Tensor:
            return nn.functional.cross_entropy(layer(images.mean((2, 3)) / 255), labels)

        def save(epoch: Epoch, optimiser: torch.optim.SGD) -> None:
            last.update({name: buffer.clone() for name, buffer in momentum(optimiser).items()})

        stage = Stage("a", Schedule(epochs, lr=0.1, batch=3), torch.arange(7), loss, layer.parameters(), layer.train)
        images = opened(paths)
        fit(stage, images, (5,), save, resume)
        assert workers() == set()  # at the end of the stage, and not of the images
        return layer.weight.detach(), last

    whole, _ = train(3)
    half, buffers = train(1)
    resumed, _ = train(3, half, (1, buffers))
    assert not torch.equal(whole, half)
    assert torch.equal(whole, resumed)


def test_a_loss_that_fails_ends_the_workers(two_cores: None, paths: tuple[Path, ...]) -> None:
    def loss(images: Tensor, labels: Tensor) -> Tensor:
        assert len(workers()) == 2
        raise ZeroDivisionError

    layer, images = nn.Linear(1, 1), opened(paths)
    stage = Stage("a", Schedule(2, lr=0.1, batch=1), torch.arange(7), loss, layer.parameters(), layer.train)
    with pytest.raises(ZeroDivisionError):
        fit(stage, images, (5,), lambda epoch, optimiser: None)
    assert workers() == set()


# Decoding on the device


def test_decoding_on_the_device_gives_the_same_batches(
    two_cores: None, paths: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    order = torch.arange(7)
    with closing(opened(paths)) as images:
        epoch, plain = list(images.epoch(order, 3, generator(0))), list(images.plain(order, 3))
    monkeypatch.setenv("REPRO_DECODE", "device")
    with closing(opened(paths)) as images:
        assert same(epoch, images.epoch(order, 3, generator(0)))
        assert all(torch.equal(a, b) for a, b in zip(plain, images.plain(order, 3), strict=True))


def test_what_the_device_cannot_decode_is_an_error(
    here: None, paths: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("no such decoder")

    monkeypatch.setenv("REPRO_DECODE", "device")
    monkeypatch.setattr(torchvision.io, "decode_jpeg", refuse)
    with pytest.raises(InputError, match=r"no such decoder.*unset REPRO_DECODE"):
        next(opened(paths).plain(torch.arange(2)))
    monkeypatch.setenv("REPRO_DECODE", "gpu")
    with pytest.raises(InputError, match="REPRO_DECODE=gpu"):
        opened(paths)
