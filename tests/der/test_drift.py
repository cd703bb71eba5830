"""Tests the simulation of Eq. 10 on masks against autograd, SGD and pruning, and the presets' lambda_s."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.lambda_s import protocols
from common.resnet import BACKBONES, CifarResNet, backbone
from common.runs import Protocol, Schedule
from der.drift import NetworkSizes, images_of, mean_millions, mean_share, predicted, simulated, typical_logits
from der.masks import scale
from der.methods import DER
from der.model import MaskedResNet, inner_only
from der.prune import count_parameters, prune
from der.reproduce import arms
from der.reproduce.presets import settings

SCHEDULE = Schedule(5, lr=0.1, milestones=(3,), batch=10, warmup=2)
METHOD = DER(sparsity=0.4, mask_rate=3.0, mask_bound=1.6)


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> NetworkSizes:
    monkeypatch.setitem(BACKBONES, "small", lambda relu: CifarResNet((2, 1), width=8))
    return NetworkSizes.named("small")


def masked(e: np.ndarray, network: str = "small") -> MaskedResNet:
    return MaskedResNet(backbone(network, seed=0), torch.from_numpy(e.copy()))


def by_sgd(model: MaskedResNet, method: DER, batches: int) -> np.ndarray:
    """Return the logits after SCHEDULE by torch.optim.SGD, batch by batch, on the sparsity loss of training."""
    sgd = torch.optim.SGD([model.e], lr=0.1, momentum=0.9)
    for epoch in range(SCHEDULE.epochs):
        sgd.param_groups[0]["lr"] = SCHEDULE.lr_at(epoch)
        for batch in range(1, batches + 1):
            model.clamp(method.mask_bound)
            sgd.zero_grad()
            masks = model.soft(scale(batch, batches, method.s_max), method.mask_rate)
            ((method.sparsity or 0) * model.sparsity(masks)).backward()
            sgd.step()
    model.clamp(method.mask_bound)
    return model.e.detach().numpy()


def test_the_gradient_is_that_of_the_sparsity(net: NetworkSizes) -> None:
    e = np.random.default_rng(0).normal(size=net.channels.sum())
    masks = [m.detach().requires_grad_() for m in masked(e).soft(2.0)]
    masked(e).sparsity(masks).backward()
    gradient = net.gradient(np.array([[float(m.sum().detach()) for m in masks]]))[0]
    for expected, ours in zip(masks, gradient, strict=True):
        np.testing.assert_allclose(expected.grad, ours, rtol=1e-6)


@pytest.mark.parametrize("groups", ["all", "inner"])
def test_logits_end_where_sgd_leads_them(net: NetworkSizes, groups: Any) -> None:
    """They end within a tenth of the longest way, which the start of momentum explains. Clamped logits do too."""
    method, e = replace(METHOD, mask_groups=groups), typical_logits(net.plan, "normal")
    start = torch.from_numpy(e)
    model = masked((inner_only(start, net.plan) if groups == "inner" else start).numpy())
    expected, ours = by_sgd(model, method, 40), simulated(net, e, method, SCHEDULE, 400)
    free = expected < 1e6
    assert free.all() == (groups == "all")
    np.testing.assert_allclose(ours[free], expected[free], atol=0.1 * np.abs(expected - e)[free].max())
    assert np.abs(expected - e)[free].max() > 0.3


def test_parameters_are_those_of_the_pruned_network(net: NetworkSizes) -> None:
    for network in ("small", "resnet32"):
        own = NetworkSizes.named(network)
        e = np.random.default_rng(1).normal(size=own.channels.sum())
        model = masked(e, network)
        channels = np.array([int(kept.sum()) for kept in model.kept_channels()])
        assert own.parameters(channels) == count_parameters(prune(model, fill=False))
        assert own.parameters(own.channels) == count_parameters(model)


def test_images_of_a_step() -> None:
    """With 2000 exemplars, 10 steps of 10 classes give the numbers of a log of the official code.

    A second protocol has a base of 50 classes.
    """
    train = images_of(Protocol(100, 10, 10, None, 2000, rounding="down"), 500)
    assert train == [5000, 7000, 7000, 6980, 7000, 7000, 6980, 6960, 7000, 6980]
    assert images_of(Protocol(100, 50, 25, 20), 500) == [25000, 12500 + 1000, 12500 + 1500]


def test_a_run_step_by_step(net: NetworkSizes) -> None:
    """Inherited logits go on from step to step, and fresh ones do not. Without lambda_s, half of all channels stay."""
    (s,) = settings("quick", None, None, 1.0)
    run = replace(s.b0_runs(METHOD, 2)[0], network="small", schedule=SCHEDULE)
    run = replace(run, method=replace(METHOD, mask_bound=6.0, sparsity=0.15))
    fresh = predicted(run, 100)
    inherited = predicted(replace(run, method=replace(run.method, mask_start="inherit")), 100)
    assert (fresh[0] == inherited[0]).all() and inherited[1].sum() < fresh[1].sum() < net.channels.sum() / 2
    untouched = predicted(replace(run, method=replace(METHOD, sparsity=0.0)), 100)
    assert all((channels == net.channels / 2).all() for channels in untouched)
    sizes = [net.parameters(channels) for channels in fresh]
    heads = fresh[0][-1] * 10, (fresh[0][-1] + fresh[1][-1]) * 20
    expected = (sizes[0] + heads[0] + sum(sizes) + heads[1]) / 2
    assert mean_millions(run, 100) == pytest.approx(expected / 1e6)
    assert mean_share(run, 100) == pytest.approx(50 * sum(sizes) / net.parameters(net.channels))


def test_the_presets_keep_what_the_paper_prints() -> None:
    """This covers lambda_s of three protocols; `python -m benchmarks.lambda_s` covers all."""
    quickly = {p.name: p for p in protocols()}
    for name in (
        "cifar100 resnet18, 5 steps",
        "cifar100 resnet18, 2 steps after a base",
        "cifar100 resnet32, 10 steps",
    ):
        protocol = quickly[name]
        assert protocol.kept(protocol.run.method.sparsity) == pytest.approx(protocol.share, rel=0.05)


def test_the_arms_are_alike_in_what_eq_10_leaves() -> None:
    """Each arm keeps about 8 % over two steps of five epochs, except for the arm with the earlier lambda_s."""
    (s,) = settings("cifar", [0], ["O1"], 0.03)
    shares = {name: mean_share(runs[0]) for name, runs in arms.arms(s).items() if runs[0].method.sparsity}
    assert shares.pop("lambda_s 0.5") < 3
    whole, part = (run.protocol for run in (s.main(s.der())[0], arms.arms(s)["masks"][0]))
    assert images_of(part, 500) == images_of(whole, 500)[:2] and part.exemplars_total == whole.exemplars_total
    assert len(shares) == 7 and all(7 < share < 9.5 for share in shares.values()), shares
