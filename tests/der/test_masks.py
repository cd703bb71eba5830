"""Tests masks, their gradient, Eq. 10, pruning and schedules against the formulas, written out anew."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from common.resnet import BasicBlock, CifarResNet, PreActResNet, backbone, resnet32
from common.runs import Schedule
from der.losses import auxiliary, auxiliary_targets, sparsity
from der.masks import mask, scale, survives
from der.model import MaskedResNet, extractor, masked, masked_resnet18, masked_resnet32
from der.prune import Filled, count_flops, count_parameters, load_pruned, prune, recalibrate
from der.schedule import CIFAR, CIFAR_BASE, IMAGENET, learning_rates
from der.wiring import IMAGE, wiring

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet32": lambda: backbone("resnet32", seed=0),
    "half": lambda: backbone("resnet8-half", seed=0),
    "four stages": lambda: CifarResNet((2, 1, 1, 2), width=4),
    "pooled stem": lambda: CifarResNet((1, 1), width=8, stem_pool=True),
    "preact": lambda: PreActResNet((2, 1, 1), width=6),
}


def lived(body: nn.Module) -> nn.Module:
    """Give BatchNorms values as after training. None has its initial value, so that every path matters."""
    generator = torch.Generator().manual_seed(1)
    for norm in body.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in ((norm.weight, -1, 1.5), (norm.bias, -1, 1), (norm.running_mean, -1, 1)):
                tensor.data.uniform_(low, high, generator=generator)
            norm.running_var.data.uniform_(0.5, 2, generator=generator)  # type: ignore[union-attr]
    return body


def images(count: int = 3, side: int = 32) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(2))


# Eq. 7 to 9


@given(st.integers(2, 400), st.floats(1.5, 400))
def test_s_rises_linearly_and_starts_anew(batches: int, s_max: float) -> None:
    values = [scale(b, batches, s_max) for b in range(1, batches + 1)]
    assert values[0] == pytest.approx(1 / s_max) and values[-1] == pytest.approx(s_max)
    steps = [b - a for a, b in pairwise(values)]
    assert all(step == pytest.approx((s_max - 1 / s_max) / (batches - 1), rel=1e-6) for step in steps)
    on_device = scale(torch.tensor(float(batches)), batches, s_max)
    assert float(on_device) == pytest.approx(s_max, rel=1e-5)


def test_an_epoch_of_one_batch_is_hard() -> None:
    assert scale(1, 1, 15.0) == 15.0
    assert float(scale(torch.tensor(1.0), 1, 15.0)) == 15.0


def test_masks_go_from_soft_to_binary() -> None:
    e = torch.linspace(-6, 6, 101)
    e = e[e.abs() > 0.01]
    m = mask(e, 3.0)
    assert ((m > 0) & (m <= 1)).all() and (m.diff() >= 0).all()
    torch.testing.assert_close(m, 1 / (1 + (-3 * e).exp()))
    torch.testing.assert_close(mask(e, 1 / 400), torch.full_like(e, 0.5), atol=4e-3, rtol=0)
    torch.testing.assert_close(mask(e, 1e5), (e > 0).float())
    assert survives(e).tolist() == (e > 0).tolist()


def test_a_group_never_empties() -> None:
    assert survives(torch.tensor([-3.0, -1.0, -2.0])).tolist() == [False, True, False]


@pytest.mark.parametrize("s", [1 / 15, 1.0, 15.0, torch.tensor(4.0)])
def test_the_gradient_is_that_of_s_equal_to_1(s: float | Tensor) -> None:
    e = torch.randn(50, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(50, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(mask(e, s), e, upstream)
    derivative = torch.sigmoid(e) * (1 - torch.sigmoid(e))
    torch.testing.assert_close(gradient, upstream * derivative)
    (faster,) = torch.autograd.grad(mask(e, s, 30.0), e, upstream)
    torch.testing.assert_close(faster, 30 * gradient)


def test_the_gradient_is_hats_over_s_max() -> None:
    """HAT multiplies the true gradient by s_max / s * (cosh(s e) + 1) / (cosh(e) + 1)."""
    e, s, s_max = torch.linspace(-2, 2, 41, dtype=torch.float64, requires_grad=True), 7.0, 15.0
    upstream = torch.linspace(-1, 1, 41, dtype=torch.float64)
    (true,) = torch.autograd.grad(torch.sigmoid(s * e), e, upstream)
    hat = s_max / s * ((s * e).cosh() + 1) / (e.cosh() + 1) * true
    (ours,) = torch.autograd.grad(mask(e, s), e, upstream)
    torch.testing.assert_close(ours, (hat / s_max).detach())


@pytest.mark.parametrize("s", [1e2, 1e4, 1e6])
def test_the_gradient_is_finite_where_the_quotient_overflows(s: float) -> None:
    e = torch.tensor([-6.0, -1.0, 1e-3, 1.0, 6.0], requires_grad=True)
    mask(e, s).sum().backward()
    assert e.grad is not None and e.grad.isfinite().all() and (e.grad > 0).all()


# Losses


def test_old_classes_share_the_first_auxiliary_target() -> None:
    labels = torch.tensor([0, 3, 9, 10, 11, 14])
    targets = auxiliary_targets(labels, 10)
    assert targets.tolist() == [0, 0, 0, 1, 2, 5] and targets.dtype == torch.long
    logits = torch.randn(6, 6)
    log_p = logits.log_softmax(1)
    expected = -(log_p[0, 0] + log_p[1, 0] + log_p[2, 0] + log_p[3, 1] + log_p[4, 2] + log_p[5, 5]) / 6
    torch.testing.assert_close(auxiliary(logits, labels, 10), expected)


def test_sparsity_by_hand() -> None:
    ones = [torch.ones(4), torch.ones(6)]
    assert float(sparsity(ones, [9, 1])) == 1.0
    m = [torch.tensor([0.5, 0, 0, 1]), torch.tensor([1.0, 0, 0, 0, 0, 0.25])]
    assert float(sparsity(m, [9, 1])) == pytest.approx((9 * 3 * 1.5 + 1.5 * 1.25) / (9 * 3 * 4 + 4 * 6))
    assert float(sparsity(ones[:1], [49], in_channels=1)) == 1.0
    with pytest.raises(ValueError, match="one kernel size a convolution"):
        sparsity(m, [9])


def test_a_networks_sparsity_is_what_pruning_keeps() -> None:
    model = masked_resnet18(seed=0)
    assert float(model.sparsity([torch.ones(c) for c in model.wiring.channels])) == pytest.approx(1.0)
    convs = sum(m.weight.numel() for m in prune(model).modules() if isinstance(m, nn.Conv2d))
    assert float(model.sparsity(model.hard())) == pytest.approx(convs / 11_159_232, rel=1e-5)
    e = model.e.detach().requires_grad_()
    soft = torch.sigmoid(2 * e).split(model.wiring.channels)
    total = torch.zeros(())
    for name, reads, writes in model.wiring.convs:
        conv: Any = model.body.get_submodule(name)
        total = total + conv.weight[0, 0].numel() * (3 if reads == IMAGE else soft[reads].sum()) * soft[writes].sum()
    torch.testing.assert_close(model.sparsity(model.soft(2.0)), total / 11_159_232)


# Wiring and pruning


def test_wiring_covers_the_network_and_follows_its_shapes() -> None:
    for make in NETWORKS.values():
        body = make()
        plan = wiring(body)
        named = {n for n, m in body.named_modules() if isinstance(m, nn.Conv2d)}
        assert {name for name, _, _ in plan.convs} == named
        assert {name for name, _ in plan.norms} == {n for n, m in body.named_modules() if isinstance(m, nn.BatchNorm2d)}
        for name, reads, writes in plan.convs:
            out, into = body.get_submodule(name).weight.shape[:2]  # type: ignore[union-attr, misc]
            assert out == plan.channels[writes] and into == (3 if reads == IMAGE else plan.channels[reads])
        assert plan.channels[plan.features] == body.out_features


@pytest.mark.parametrize("name", NETWORKS)
def test_pruned_outputs_are_the_masked_ones(name: str) -> None:
    model = masked(lived(NETWORKS[name]()), generator=torch.Generator().manual_seed(3)).eval()
    x = images()
    with torch.no_grad():
        expected = model(x)
        pruned, narrow = prune(model), prune(model, fill=False)
        torch.testing.assert_close(pruned(x), expected, atol=1e-5, rtol=1e-6)
        kept = model.kept_channels()[model.wiring.features]
        torch.testing.assert_close(narrow(x), expected[:, kept], atol=1e-5, rtol=1e-6)
        assert expected.abs().max() > 0.01
    assert count_parameters(pruned) < count_parameters(model)
    torch.testing.assert_close(model(x), expected)  # pruning leaves the masked network as it is


@pytest.mark.parametrize("name", NETWORKS)
def test_masked_outputs_are_those_of_masks_after_every_batchnorm(name: str) -> None:
    """Masks folded into BatchNorm equal hooks that multiply BatchNorm's output, with soft masks in train mode too."""
    model = masked(lived(NETWORKS[name]()), generator=torch.Generator().manual_seed(3)).train()
    x, masks = images(), [m.detach() for m in model.soft(2.0)]
    folded = model(x, masks)
    hooks = [
        model.body.get_submodule(n).register_forward_hook(lambda mod, args, out, g=g: out * masks[g].view(-1, 1, 1))
        for n, g in model.wiring.norms
    ]
    torch.testing.assert_close(folded, model.body(x), atol=1e-5, rtol=1e-5)
    assert hooks


def test_pruned_outputs_survive_save_and_load() -> None:
    model = masked(lived(resnet32()), generator=torch.Generator().manual_seed(3)).eval()
    x, file = images(), io.BytesIO()
    torch.save(prune(model).state_dict(), file)
    file.seek(0)
    loaded = load_pruned(resnet32(), torch.load(file, weights_only=True)).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model(x), atol=1e-5, rtol=1e-6)
    assert isinstance(loaded, Filled)


def test_the_narrowest_network_still_runs() -> None:
    model = MaskedResNet(lived(CifarResNet((1, 1), width=4)), -torch.rand(4 + 4 + 8 + 8) - 0.1).eval()
    pruned = prune(model, fill=False)
    assert wiring(pruned).channels == (1, 1, 1, 1) and pruned(images()).shape == (3, 1)
    torch.testing.assert_close(prune(model)(images()), model(images()), atol=1e-5, rtol=1e-6)


def test_bad_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="only a network with masks"):
        prune(resnet32())
    with pytest.raises(ValueError, match="projection shortcuts"):
        masked(resnet32("pad"))
    with pytest.raises(ValueError, match="not Linear"):
        masked(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="mask logits"):
        MaskedResNet(resnet32(), torch.zeros(3))


def test_counts() -> None:
    assert count_parameters(masked_resnet18(seed=0)) == count_parameters(backbone("resnet18")) == 11_168_832
    assert count_parameters(masked_resnet32(seed=0)) == 466_256
    assert count_parameters(backbone("resnet18-pool")) == 11_168_832
    # 3x3 stem at 32x32, then each convolution's weights times the pixels it writes
    plain = CifarResNet((1, 1), width=4)
    expected = 1024 * (27 * 4 + 2 * 9 * 16) + 256 * (9 * 4 * 8 + 9 * 64 + 32)
    assert count_flops(plain) == expected
    full, pruned = masked_resnet32(seed=0), prune(masked_resnet32(seed=0))
    assert 0.1 < count_flops(pruned) / count_flops(full) < 0.5


def test_recalibration_is_the_average_over_batches() -> None:
    model = masked(lived(CifarResNet((1,), width=4)), generator=torch.Generator().manual_seed(3))
    batches = list(images(12).split(4))
    recalibrate(model, batches)
    stem: Any = model.body.conv
    out = stem(torch.cat(batches)).detach()
    norm: Any = model.body.bn
    torch.testing.assert_close(norm.running_mean, out.mean(dim=(0, 2, 3)), atol=1e-5, rtol=1e-5)
    variances = torch.stack([stem(b).detach().var(dim=(0, 2, 3)) for b in batches])
    torch.testing.assert_close(norm.running_var, variances.mean(0), atol=1e-5, rtol=1e-5)
    assert norm.momentum == 0.1
    # the second convolution reads what binary masks leave, and its statistics are of that
    inner: Any = model.body.stages[0][0].bn1  # type: ignore[index]
    hidden = F.relu(F.batch_norm(stem(batches[0]), None, None, norm.weight, norm.bias, True)) * model.hard()[0].view(
        -1, 1, 1
    )
    first: Any = model.body.stages[0][0].conv1  # type: ignore[index]
    recalibrate(model, batches[:1])
    torch.testing.assert_close(inner.running_mean, first(hidden).mean(dim=(0, 2, 3)).detach(), atol=1e-5, rtol=1e-4)


# Schedules


def test_the_cifar_recipe() -> None:
    rates = learning_rates()
    assert len(rates) == 170
    assert rates[:10] == pytest.approx([0.01 * (e + 1) for e in range(10)])
    assert rates[10:110] == pytest.approx([0.1] * 100)
    assert rates[110:130] == pytest.approx([0.01] * 20) and rates[130:] == pytest.approx([0.001] * 40)


def test_other_lengths_and_recipes() -> None:
    assert learning_rates(17) == pytest.approx([0.1] * 11 + [0.01] * 2 + [0.001] * 4)
    assert len(learning_rates(1)) == 1
    imagenet = learning_rates(220, IMAGENET)
    drops = [e for e in range(20, 220) if imagenet[e] < imagenet[e - 1] * 0.5]
    assert drops == [80, 140, 180, 200] and imagenet[19] == pytest.approx(0.1)
    base = learning_rates(200, CIFAR_BASE)
    assert base[0] == base[59] == 0.1 and base[60] == pytest.approx(0.01) and base[160] == pytest.approx(1e-4)
    assert isinstance(CIFAR, Schedule) and CIFAR.warmup == 10
    with pytest.raises(ValueError, match="at least one epoch"):
        learning_rates(0)


def test_blocks_start_as_shortcuts() -> None:
    """They do so in the official code's first extractor, but not in the shallow network of the quick preset."""
    for name, gamma in (("resnet18", 0.0), ("resnet18-pool", 0.0), ("resnet32", 0.0), ("resnet8-half", 1.0)):
        blocks = [m for m in extractor(name, 0).modules() if isinstance(m, BasicBlock)]
        assert blocks and all((b.bn2.weight == gamma).all() and (b.bn1.weight == 1).all() for b in blocks)


def test_the_logits_start_as_asked() -> None:
    normal, uniform = masked_resnet32(seed=0), masked_resnet32(seed=0, init="uniform")
    assert 0.4 < (normal.e > 0).float().mean() < 0.6 and normal.e.std().item() == pytest.approx(1, abs=0.1)
    assert (uniform.e > 0).all() and uniform.e.max() < 2
    assert math.isclose(float(uniform.sparsity(uniform.hard())), 1.0, rel_tol=1e-6)
