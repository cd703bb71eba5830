"""Provides two sides of the comparisons: our training step through fit(), and the same step on one fixed batch."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from common.graphs import cuda_graph
from common.heads import LinearHead
from common.incremental import Net
from common.loader import DeviceImages
from common.resnet import backbone
from common.runs import Inputs, Schedule
from common.training import Device, Epoch, Stage, fit, make_sgd

CLASSES, BATCH = 50, 128
Table = dict[str, list[float]]


class Ours:
    """Holds a network and random images on the device, and trains on them through fit()."""

    def __init__(self, network: str, steps: int, device: Device) -> None:
        self.count, self.device = steps * BATCH, device
        self.pixels, self.labels = random_images(self.count)
        labels = torch.from_numpy(self.labels).to(device.torch)
        self.images = DeviceImages(self.pixels, labels, Inputs(), device.torch)
        body = backbone(network, seed=0)
        self.net = Net(body, LinearHead(body.out_features, CLASSES), device)  # type: ignore[arg-type]

    def loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.net(images), labels)

    def epochs(self, number: int, after_first: Callable[[], object] = lambda: None) -> list[float]:
        """Train one stage of `number` epochs, and return the seconds of each epoch as fit() reports them.

        after_first: called after the first epoch, in which CUDA graphs are captured.
        """
        seconds: list[float] = []

        def after_epoch(epoch: Epoch, optimiser: torch.optim.SGD) -> None:
            seconds.append(epoch.seconds)
            if epoch.epoch == 1:
                after_first()

        indices = torch.arange(self.count, device=self.device.torch)
        schedule = Schedule(epochs=number, lr=0.01, batch=BATCH)
        stage = Stage("bench", schedule, indices, self.loss, self.net.parameters(), self.net.train)
        fit(stage, self.images, (0,), after_epoch)
        return seconds

    def fixed_batch(self) -> Callable[[], None]:
        """Return the same training step on one batch that is ready. Its speed is the limit that the hardware sets.

        On CUDA this step is a captured graph too, so it only lacks the cutting and augmenting of batches.
        """
        rows = torch.arange(BATCH, device=self.device.torch)
        images, labels = next(iter(self.images.plain(rows, BATCH))), self.images.labels[rows]
        stage = Stage("bench", Schedule(1, lr=0.01), rows, self.loss, self.net.parameters(), self.net.train)
        optimiser = make_sgd(stage, lr_in_tensor=self.device.type == "cuda")

        def step() -> None:
            optimiser.zero_grad(set_to_none=True)
            self.loss(images, labels).backward()
            optimiser.step()

        self.net.train()
        step()
        return cuda_graph(step) if self.device.type == "cuda" else step


def random_images(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), rng.integers(0, CLASSES, count)


def synchronise(device: Device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def timed(action: Callable[[], object], device: Device) -> float:
    synchronise(device)
    started = time.perf_counter()
    action()
    synchronise(device)
    return time.perf_counter() - started
