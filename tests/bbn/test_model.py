"""Tests BBN's adaptor, loss, network and schedule against the paper's formulas and numbers of the official code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bbn.adaptor import Kind, alpha, progress
from bbn.losses import bilateral_loss
from bbn.model import BBNResNet32, BilateralNet, mix
from bbn.reproduce.presets import CIFAR_SCHEDULE, INVERSE
from common.imbalance import class_weights
from common.rebalance import ldam_margins
from common.resnet import backbone
from common.runs import Schedule
from common.splits import longtail_counts


def batch(n: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


# Adaptor


def test_the_official_parabolic_decay_over_200_epochs() -> None:
    expected = {1: 1.0, 101: 0.75, 142: 0.502975, 143: 0.4959, 200: 0.009975}
    for epoch, value in expected.items():
        assert alpha(epoch, 200) == pytest.approx(value, abs=1e-9)
    values = [alpha(e, 200) for e in range(1, 201)]
    assert next(e for e, v in enumerate(values, 1) if v <= 0.5) == 143 and np.mean(values) == pytest.approx(
        0.669, abs=1e-3
    )


def test_the_official_code_stretches_two_lengths() -> None:
    assert alpha(90, 90) == pytest.approx(1 - 0.89**2) and alpha(180, 180) == pytest.approx(0.198975)
    assert alpha(90, 90, stretch=1.0) == pytest.approx(1 - (89 / 90) ** 2)
    assert alpha(9, 9, stretch=10 / 9) == pytest.approx(1 - 0.8**2)
    assert progress(100, 100) == 0.99 and progress(89, 89) == 88 / 89 and progress(90, 90, "paper") == 1


@given(st.integers(1, 300), st.data())
def test_adaptors_keep_their_order_and_ends(total: int, data: st.DataObject) -> None:
    epoch = data.draw(st.integers(1, total))
    for offset in ("official", "paper"):
        values = {k: alpha(epoch, total, k, offset) for k in ("parabolic_decay", "cosine_decay", "linear_decay")}  # type: ignore[arg-type]
        parabolic, cosine, linear = values.values()
        assert 1 >= parabolic >= cosine - 1e-12 and cosine >= linear - 1e-12 and linear >= -1e-12
        assert alpha(epoch, total, "parabolic_increment", offset) == pytest.approx(1 - parabolic)  # type: ignore[arg-type]
        assert alpha(epoch, total, "equal", offset) == 0.5  # type: ignore[arg-type]
    for kind in ("parabolic_decay", "cosine_decay", "linear_decay"):
        assert alpha(1, total, kind) == 1 and alpha(total, total, kind, "paper") == pytest.approx(0, abs=1e-12)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [np.random.default_rng, lambda seed: torch.Generator().manual_seed(seed)])
def test_beta_draws_follow_their_generator(make) -> None:  # type: ignore[no-untyped-def]
    generator = make(3)
    draws = [alpha(7, 10, "beta", generator=generator) for _ in range(4000)]
    again = make(3)
    assert draws[:5] == [alpha(1, 10, "beta", generator=again) for _ in range(5)] and len(set(draws)) > 3900
    assert min(draws) >= 0 and max(draws) <= 1
    assert np.mean(draws) == pytest.approx(0.5, abs=0.03)
    assert np.var(draws) == pytest.approx(0.25 / 1.4, abs=0.01)  # ab / ((a + b)^2 (a + b + 1)) at a = b = 0.2
    assert 0 <= alpha(1, 1, "beta") <= 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: alpha(0, 10),
        lambda: alpha(11, 10),
        lambda: alpha(1, 2, "cubic"),
        lambda: alpha(1, 2, offset="?"),
        lambda: alpha(1, 2, stretch=0.5),
    ],
)  # type: ignore[arg-type]
def test_bad_epochs_and_words_are_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"epochs count from 1|must be one of|at least 1"):
        call()


# Loss


@given(st.floats(0, 1), st.integers(0, 10_000))
def test_the_loss_is_soft_label_cross_entropy(weight: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    first, second = torch.randint(5, (2, 6), generator=generator)
    soft = weight * F.one_hot(first, 5) + (1 - weight) * F.one_hot(second, 5)
    loss = bilateral_loss(logits, first, second, weight)
    torch.testing.assert_close(loss, F.cross_entropy(logits, soft.double()))
    torch.testing.assert_close(loss, bilateral_loss(logits, second, first, 1 - weight))
    assert bilateral_loss(logits, first, second, 1.0).item() == pytest.approx(F.cross_entropy(logits, first).item())


# Network


@pytest.mark.parametrize(("classes", "total"), [(10, 538_778), (100, 550_388)])
def test_parameters_and_their_order(classes: int, total: int) -> None:
    net = BBNResNet32(classes)
    assert sum(p.numel() for p in net.parameters()) == total
    assert list(dict.fromkeys(name.split(".")[0] for name in net.state_dict())) == [
        "trunk",
        "cb_block",
        "rb_block",
        "classifier",
    ]
    assert sum(p.numel() for p in net.trunk.parameters()) == 389_520
    assert net.trunk(batch(2)).shape == (2, 64, 8, 8) and net.features(batch(2)).shape == (2, 128)
    assert net.classifier.weight.shape == (classes, 128)


def test_the_trunk_and_a_block_are_the_plain_network() -> None:
    """A ResNet-32 with the same weights gives each branch's features."""
    net, plain = BBNResNet32(10).eval(), backbone("resnet32-pad").eval()
    for half, block in enumerate((net.cb_block, net.rb_block)):
        weights = [*net.trunk.state_dict().values(), *block.state_dict().values()]
        plain.load_state_dict(dict(zip(plain.state_dict(), weights, strict=True)))
        torch.testing.assert_close(net.features(batch()).chunk(2, dim=1)[half], plain(batch()))


def test_blocks_are_initialised_apart_and_by_their_seed() -> None:
    net, same, other = (BilateralNet("resnet32-pad", 10, seed=seed) for seed in (1, 1, 2))
    for block in (net.cb_block, net.rb_block):
        assert block.conv1.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.03)
    widening = net.trunk[5][0].conv1.weight  # 32 -> 64: there fan-in and fan-out differ
    assert widening.shape == (64, 32, 3, 3) and widening.std().item() == pytest.approx(math.sqrt(2 / 288), rel=0.03)
    assert not torch.equal(net.cb_block.conv1.weight, net.rb_block.conv1.weight)
    pairs = zip(net.cb_block.parameters(), net.rb_block.parameters(), strict=True)
    assert all(a.data_ptr() != b.data_ptr() for a, b in pairs)
    for name in ("trunk.0.weight", "cb_block.conv1.weight", "rb_block.conv1.weight"):
        a, b, c = (n.state_dict()[name] for n in (net, same, other))
        assert torch.equal(a, b) and not torch.equal(a, c)
    bound = 1 / math.sqrt(128)
    assert net.classifier.weight.abs().max() <= bound and net.classifier.weight.std().item() == pytest.approx(
        bound / 3**0.5, rel=0.1
    )


def test_resnet50_has_the_official_size_and_initialisation() -> None:
    net = BilateralNet("resnet50-default", 5089, seed=0)
    assert sum(p.numel() for p in net.parameters()) == 48_820_257 and net.classifier.weight.shape[1] == 4096
    block = net.cb_block
    assert block.conv2.stride == (1, 1) and [len(stage) for stage in list(net.trunk)[-4:]] == [3, 4, 6, 2]
    bound = 1 / math.sqrt(2048)  # kaiming_uniform with a = sqrt(5), over fan in
    assert block.conv1.weight.abs().max() <= bound and block.conv1.weight.std().item() == pytest.approx(
        bound / 3**0.5, rel=0.02
    )
    assert (block.bn3.weight == 1).all()  # no zero gamma
    assert net.trunk[-3][0].conv2.stride == (2, 2)  # the stride on the 3x3 convolution


def test_a_network_without_residual_blocks_is_refused(tiny_net: str) -> None:
    with pytest.raises(ValueError, match="no ResNet with stages"):
        BilateralNet(tiny_net, 3)


def test_the_classifier_is_two_classifiers_added() -> None:
    net, generator = BBNResNet32(7), torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 5, 64, generator=generator)
    w_c, w_r = net.classifier.weight.chunk(2, dim=1)
    expected = 2 * 0.3 * first @ w_c.T + 2 * 0.7 * second @ w_r.T + net.classifier.bias
    torch.testing.assert_close(net.classifier(mix(first, second, 0.3)), expected)


def test_inference_is_training_at_one_half() -> None:
    net = BBNResNet32(10).eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    torch.testing.assert_close(net(batch(), batch(), 0.5), net(batch()), rtol=0, atol=1e-6)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())  # BatchNorm's buffers included
    named = net(x_uniform=batch(), x_reversed=batch(seed=1), alpha=0.5)
    torch.testing.assert_close(named, net(batch(), batch(seed=1), 0.5))
    with pytest.raises(ValueError, match="two batches need an alpha"):
        net(batch(), batch())
    with pytest.raises(ValueError, match="training takes two batches"):
        net.train()(batch())


@pytest.mark.parametrize(("weight", "silent"), [(1.0, "rb"), (0.0, "cb"), (0.4, "")])
def test_which_branch_gets_gradients(weight: float, silent: str) -> None:
    net = BBNResNet32(10).train()
    labels = torch.arange(4)
    bilateral_loss(net(batch(), batch(seed=1), weight), labels, labels + 1, torch.tensor(weight)).backward()
    halves = dict(zip(("cb", "rb"), net.classifier.weight.grad.chunk(2, dim=1), strict=True))  # type: ignore[union-attr]
    for name, block in (("cb", net.cb_block), ("rb", net.rb_block)):
        moved = [p.grad is not None and bool((p.grad != 0).any()) for p in block.parameters()]
        assert any(moved) != (name == silent) and (all(moved) or name == silent)
        assert bool((halves[name] != 0).any()) != (name == silent)
    assert all((p.grad != 0).any() for p in net.trunk.parameters())  # type: ignore[union-attr]


@pytest.mark.parametrize(("concatenated", "passes"), [(False, 2), (True, 1)])
def test_the_trunk_normalises_each_batch_by_itself(concatenated: bool, passes: int) -> None:
    net = BilateralNet("resnet32-pad", 10, seed=0, concatenated=concatenated).train()
    first, second = batch(8), 3 * batch(8, seed=1) + 1
    logits = net(first, second, 0.5)
    counts = [
        net.get_buffer(f"{name}.num_batches_tracked").item() for name in ("trunk.1", "cb_block.bn1", "rb_block.bn1")
    ]
    assert counts == [passes, 1, 1]
    alone = BilateralNet("resnet32-pad", 10, seed=0).train()
    alone.classifier.load_state_dict(net.classifier.state_dict())
    f_c, f_r = alone.cb_block(alone.trunk(first)).mean((2, 3)), alone.rb_block(alone.trunk(second)).mean((2, 3))
    assert torch.allclose(logits, alone.classifier(torch.cat([f_c, f_r], dim=1)), atol=1e-5) != concatenated
    if not concatenated:  # the reversed batch last
        torch.testing.assert_close(net.trunk[1].running_mean, alone.trunk[1].running_mean)


# Schedule and weights


def test_the_rate_is_the_official_one_of_torch_1_0() -> None:
    rates = [CIFAR_SCHEDULE.lr_at(epoch - 1) for epoch in range(1, 201)]
    assert rates[:6] == pytest.approx([0.1 / 3, 0.14 / 3, 0.06, 0.22 / 3, 0.26 / 3, 0.1])
    assert rates[119:121] == pytest.approx([0.1, 1e-3]) and rates[159:161] == pytest.approx([1e-3, 1e-5])


def test_newer_schedulers_are_one_epoch_early() -> None:
    early = Schedule(200, milestones=(120, 160), gamma=0.01, warmup=5, warmup_by="third", ahead=1)
    assert [early.lr_at(e) for e in range(5)] == pytest.approx([0.14 / 3, 0.06, 0.22 / 3, 0.26 / 3, 0.1])
    assert early.lr_at(118) == pytest.approx(0.1) and early.lr_at(119) == pytest.approx(1e-3)


def test_the_codes_weights_are_inverse_frequencies() -> None:
    for classes, largest in ((10, 5000), (100, 500)):
        counts = longtail_counts(classes, largest, 50)
        weights, inverse = class_weights(counts, INVERSE), 1 / counts
        assert weights.sum() == pytest.approx(classes)
        np.testing.assert_allclose(weights, classes * inverse / inverse.sum(), rtol=3e-3)
        margins = ldam_margins(torch.from_numpy(counts))
        assert margins[-1] == margins.max() == 0.5


def test_the_adaptors_words_are_the_contracts() -> None:
    from typing import get_args

    words = {"parabolic_decay", "linear_decay", "cosine_decay", "parabolic_increment", "equal", "beta"}
    assert set(get_args(Kind)) == words
