"""Tests the optimisation loop against SGD by hand."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.distributed import synchronise
from common.loader import Share, no_share
from common.resnet import backbone
from common.runs import Schedule
from common.training import Stage, fit


class Numbers:
    """A set of images that are rows of a matrix."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.labels = x, y

    def epoch(
        self, order: Tensor, batch: int, generator: torch.Generator, share: Share = no_share
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in order.split(batch):
            yield self.x[rows], self.labels[rows]

    def close(self) -> None:
        """Do nothing, since there is nothing to close."""


def in_order(indices: Tensor, generator: torch.Generator) -> Tensor:
    return indices


@pytest.mark.parametrize("nesterov", [False, True])
def test_fit_is_sgd_with_momentum_by_hand(nesterov: bool) -> None:
    """NumPy solves the same least squares: decay, momentum, the schedule's rates, frozen rows and mean epoch losses."""
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(7, 3)), rng.integers(0, 3, 7), rng.normal(size=(2, 3))
    schedule = Schedule(4, lr=0.1, milestones=(2,), gamma=0.5, batch=3, momentum=0.8, weight_decay=0.1,
                        nesterov=nesterov, warmup=1)  # fmt: skip
    parameter = torch.nn.Parameter(torch.from_numpy(w.copy()))
    images = Numbers(torch.from_numpy(x), torch.from_numpy(y))
    reported = []

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return ((a @ parameter.T).sum(1) - b).square().mean()

    stage = Stage("toy", schedule, torch.arange(7), loss, [parameter], lambda: None, [(parameter, 1)], sampler=in_order)
    fit(stage, images, (0,), lambda epoch, optimiser: reported.append((epoch.epoch, epoch.lr, epoch.loss)))  # type: ignore[arg-type]
    velocity, expected = np.zeros_like(w), []
    for epoch, lr in enumerate([0.1, 0.1, 0.05, 0.05]):
        total = 0.0
        for rows in ([0, 1, 2], [3, 4, 5], [6]):
            residual = (x[rows] @ w.T).sum(1) - y[rows]
            total += (residual**2).sum()
            gradient = np.tile(2 * residual @ x[rows] / len(rows), (2, 1)) + 0.1 * w
            velocity = 0.8 * velocity + gradient if epoch or rows[0] else gradient
            w[1] -= lr * (gradient + 0.8 * velocity if nesterov else velocity)[1]
        expected.append((epoch + 1, lr, total / 7))
    np.testing.assert_allclose(parameter.detach(), w, rtol=1e-10)
    np.testing.assert_allclose(reported, expected, rtol=1e-6)


def test_momentum_does_not_outlive_a_stage() -> None:
    parameter = torch.nn.Parameter(torch.ones(1, 1, dtype=torch.float64))
    images = Numbers(torch.ones(1, 1), torch.zeros(1))
    stage = Stage("toy", Schedule(1, lr=0.1, momentum=0.9, weight_decay=0), torch.arange(1),
                  lambda a, b: parameter.sum(), [parameter], lambda: None)  # fmt: skip
    for expected in (0.9, 0.8, 0.7):
        fit(stage, images, (0,), lambda epoch, optimiser: None)  # type: ignore[arg-type]
        assert parameter.item() == pytest.approx(expected)


def test_batchnorm_is_synchronised_in_place() -> None:
    """It stays torch's BatchNorm2d, and references to a layer or its parameters stay valid.

    One process computes the same.
    """
    net, images = backbone("resnet8-half", seed=0), torch.rand(4, 3, 32, 32)
    copied, layers = copy.deepcopy(net), [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    parameters = list(net.parameters())
    synchronise(net)
    assert layers and all(isinstance(layer, nn.SyncBatchNorm) for layer in layers)
    assert layers == [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(ours is before for ours, before in zip(net.parameters(), parameters, strict=True))
    assert torch.equal(net(images), copied(images))
    torch.testing.assert_close(net.state_dict(), copied.state_dict(), rtol=0, atol=0)
    assert torch.equal(net.eval()(images), copied.eval()(images))
