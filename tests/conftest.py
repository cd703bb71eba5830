"""Holds fixtures of several test files: one thread, a tiny network, a tiny data set, and makers of runs on them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from tiny import TinyMaps, TinyNet

from common import resnet
from common.command import launcher
from common.data.datasets import Dataset, DataSpec
from common.resnet import CifarResNet
from common.runs import LongTail, Protocol, Run, Schedule
from fsa.methods import FSA

settings.register_profile("repository", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("repository")

CLASSES, PER_CLASS, TEST_PER_CLASS = 8, 12, 5


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    os.environ.pop("OMP_NUM_THREADS", None)  # it would decide the threads of runs
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk at each of thousands of tiny checkpoints. Only a power cut would show the difference."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def cifar100() -> Path:
    """Return the folder that REPRO_CIFAR100 names, with torchvision's files or an image folder."""
    folder = os.environ.get("REPRO_CIFAR100")
    if not folder:
        pytest.skip("REPRO_CIFAR100 is not set to a folder with CIFAR-100")
    if not Path(folder).is_dir():
        pytest.skip(f"REPRO_CIFAR100={folder} is not a folder")
    return Path(folder)


@pytest.fixture
def tiny_net(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a network that is small enough to train in a blink."""
    monkeypatch.setitem(resnet.BACKBONES, "tiny", TinyNet)
    return "tiny"


@pytest.fixture(scope="session")
def tiny_data() -> Dataset:
    """Return 8 classes of 12 training and 5 test images: each class has a colour and a pattern, under noise."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (CLASSES, 1, 8, 8, 3)).repeat(4, axis=2).repeat(4, axis=3)
    colours = 255 * (np.arange(CLASSES)[:, None] >> np.arange(3) & 1).reshape(CLASSES, 1, 1, 1, 3)
    patterns = (blocks + colours) // 2

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        noise = rng.integers(0, 256, (CLASSES, count, 32, 32, 3))
        images = ((patterns + noise) // 2).astype(np.uint8).reshape(-1, 32, 32, 3)
        return images, np.repeat(np.arange(CLASSES), count)

    train, test = split(PER_CLASS), split(TEST_PER_CLASS)
    return Dataset("noise", *train, *test, tuple(map(str, range(CLASSES))), "0123456789abcdef")


@pytest.fixture
def tiny_run(tiny_net: str, tiny_data: Dataset, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """(method, **changes) -> a Run of 4 base classes and 2 phases of 2 on the tiny data, known to the launcher."""
    monkeypatch.setattr(launcher, "_load", lambda spec, root, cache: tiny_data)

    def make(method: Any, **changes: Any) -> Run:
        fields = {
            "data": DataSpec("noise"),
            "protocol": Protocol(CLASSES, 4, 2, exemplars_per_class=3),
            "schedule": Schedule(2, lr=0.1, milestones=(1,), batch=16, weight_decay=0.01),
            "network": tiny_net,
            "fingerprint": tiny_data.fingerprint,
            "precision": "fp32",
        }
        return Run("lucir", method, **(fields | changes))

    return make


@pytest.fixture
def tail_run(tiny_run: Callable[..., Run]) -> Callable[..., Run]:
    """(method, **changes) -> a Run on a long-tailed subset of the tiny data, factor 6, all classes at once."""

    def make(method: Any, **changes: Any) -> Run:
        everything = Protocol(CLASSES, CLASSES, 0, exemplars_per_class=0)
        fields = {"protocol": everything, "order": "native", "longtail": LongTail(6), "schedule": Schedule(4, batch=8)}
        return replace(tiny_run(method), paper="class_balanced", **(fields | changes))

    return make


@pytest.fixture
def bbn_run(tiny_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """(method, **changes) -> a Run of `bbn` on a long-tailed subset, factor 4, with a ResNet of two tiny stages."""
    monkeypatch.setitem(resnet.BACKBONES, "tiny-resnet", lambda relu: CifarResNet((1, 2), 4, "pad", stem_stride=2))
    schedule = Schedule(4, lr=0.05, milestones=(3,), batch=8, nesterov=True, drop_last=True)

    def make(method: Any, **changes: Any) -> Run:
        everything = Protocol(CLASSES, CLASSES, 0, exemplars_per_class=0)
        fields = {"protocol": everything, "order": "native", "longtail": LongTail(4.0), "schedule": schedule}
        return replace(tiny_run(method), paper="bbn", network="tiny-resnet", **(fields | changes))

    return make


@pytest.fixture
def der_run(tiny_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """(method, **changes) -> a Run of DER over 4 steps of 2 classes on a small ResNet.

    Narrower networks crash: oneDNN's backward of a strided 1x1 convolution writes past its memory below 8 channels.
    """
    from der_runs import B0, SCHEDULE

    small = partial(resnet.CifarResNet, (1, 1), 8, stem_stride=2)
    monkeypatch.setitem(resnet.BACKBONES, "tiny", lambda relu: small(final_relu=relu))

    def make(method: Any, **changes: Any) -> Run:
        fields = {"paper": "der", "protocol": B0, "schedule": SCHEDULE}
        return replace(tiny_run(method), **(fields | changes))

    return make


@pytest.fixture
def get(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Callable[..., Run]]:
    """Return a function from the name of a fixture of this file to the fixture. `methods` makes its Runs with it."""
    monkeypatch.setitem(resnet.BACKBONES, "tiny-maps", TinyMaps)
    monkeypatch.setattr(FSA, "steps", 4)
    return request.getfixturevalue
