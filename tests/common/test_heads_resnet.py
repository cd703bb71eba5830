"""Tests heads and backbones: closed forms, parameter counts, and a forward pass written anew from the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from common.heads import CosineHead, LinearHead
from common.resnet import BasicBlock, ImageNetResNet, backbone, resnet32
from common.training import Device


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Heads


@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 40))
def test_cosine_head_in_float64(seed: int, scale: float) -> None:
    head = CosineHead(7, 5, generator(seed))
    head.scale.data.fill_(scale)
    features = torch.randn(6, 7, generator=generator(seed + 1))
    x, w = features.double().numpy(), head.weight.detach().double().numpy()
    cosines = (x @ w.T) / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(w, axis=1))
    np.testing.assert_allclose(head.cosines(features).detach(), cosines, atol=1e-6)
    np.testing.assert_allclose(head(features).detach(), scale * cosines, atol=1e-6 * max(1, scale))
    assert head(features).abs().max() <= scale * (1 + 1e-6)


@given(
    seed=st.integers(0, 10**6), rows=st.lists(st.floats(1e-3, 1e3), min_size=5, max_size=5), factor=st.floats(1e-3, 1e3)
)
def test_cosine_head_ignores_lengths(seed: int, rows: list[float], factor: float) -> None:
    head = CosineHead(7, 5, generator(seed))
    features = torch.randn(6, 7, generator=generator(seed + 1))
    before = head(features)
    head.weight.data *= torch.tensor(rows).unsqueeze(1)
    torch.testing.assert_close(head(features * factor), before)


def test_cosine_head_takes_bf16_features_and_leading_dimensions() -> None:
    """Half-precision features are normalised in fp32 along their last dimension, for any dimensions before it."""
    head, features = CosineHead(7, 5, generator(0)), torch.randn(2, 3, 7, generator=generator(1)).bfloat16()
    x, w = features.double().numpy(), head.weight.detach().double().numpy()
    lengths = np.linalg.norm(x, axis=-1, keepdims=True) * np.linalg.norm(w, axis=1)
    found = head.cosines(features)
    assert found.dtype == torch.float32 and found.shape == (2, 3, 5)
    np.testing.assert_allclose(found.detach(), x @ w.T / lengths, atol=1e-6)
    np.testing.assert_allclose(head.cosines(features[0, 0]).detach(), found[0, 0].detach(), atol=1e-6)


def test_cosine_head_parameters() -> None:
    head = CosineHead(64, 50)
    assert [(n, tuple(p.shape)) for n, p in head.named_parameters()] == [("weight", (50, 64)), ("scale", ())]
    assert head.scale.item() == 1 and head.scale.requires_grad
    fixed = CosineHead(64, 50, scale=4).scale
    assert fixed.item() == 4 and fixed.dtype == torch.float32 and not fixed.requires_grad


@pytest.mark.parametrize("kind", [CosineHead, LinearHead])
def test_initialisation_is_uniform_within_one_over_root_d(kind: type) -> None:
    head = kind(16, 2000, generator(0))
    bound = 1 / math.sqrt(16)
    for values in [head.weight, *([head.bias] if kind is LinearHead else [])]:
        assert values.abs().max() <= bound
        assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert torch.equal(head.weight, kind(16, 2000, generator(0)).weight)


def test_loss_at_initial_scale_cannot_be_small() -> None:
    """With eta = 1 and 50 classes, cross-entropy is at least log(1 + 49 exp(-2)), even for the best cosines."""
    logits = torch.full((1, 50), -1.0).index_fill(1, torch.tensor([0]), 1.0)
    assert F.cross_entropy(logits, torch.tensor([0])).item() == pytest.approx(math.log(1 + 49 * math.exp(-2)))


def test_growing_a_cosine_head_keeps_the_old_logits() -> None:
    head, features = CosineHead(8, 5, generator(0)), torch.randn(9, 8, generator=generator(1))
    head.scale.data.fill_(3.5)
    old, before = head.weight.detach().clone(), head(features)
    head.grow(3, generator(2))
    assert torch.equal(head.weight[:5], old) and head.scale.item() == 3.5
    assert head.weight.shape == (8, 8) and head.weight.requires_grad
    torch.testing.assert_close(head(features)[:, :5], before, rtol=0, atol=1e-6)


def test_a_grown_head_is_a_split_head() -> None:
    """In the official code, fc1 and fc2 give logits side by side. They equal one head with stacked rows."""
    head, features = CosineHead(8, 5, generator(0)), torch.randn(9, 8, generator=generator(1))
    head.scale.data.fill_(2.0)
    head.grow(3, generator(2))
    fc1, fc2 = CosineHead(8, 5), CosineHead(8, 3)
    fc1.weight.data, fc2.weight.data = head.weight.data[:5], head.weight.data[5:]
    split = 2.0 * torch.cat([fc1.cosines(features), fc2.cosines(features)], dim=1)
    torch.testing.assert_close(head(features), split)
    assert torch.equal(fc2.weight, CosineHead(8, 3, generator(2)).weight)


def test_growing_a_linear_head_keeps_rows_and_biases() -> None:
    head, features = LinearHead(8, 5, generator(0)), torch.randn(9, 8, generator=generator(1))
    weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
    np.testing.assert_allclose(head(features).detach(), features @ weight.T + bias, rtol=1e-5, atol=1e-6)
    head.grow(3, generator(2))
    assert torch.equal(head.weight[:5], weight) and torch.equal(head.bias[:5], bias)
    fresh = LinearHead(8, 3, generator(2))
    assert torch.equal(head.weight[5:], fresh.weight) and torch.equal(head.bias[5:], fresh.bias)
    assert head(features).shape == (9, 8) and {n for n, _ in head.named_parameters()} == {"weight", "bias"}


# Backbones


@pytest.mark.parametrize(("shortcut", "count"), [("projection", 466256), ("pad", 463504), ("avgpool", 463504)])
def test_parameters_of_resnet32(shortcut: str, count: int) -> None:
    for final_relu in (True, False):
        net = resnet32(shortcut, final_relu)  # type: ignore[arg-type]
        assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize("shortcut", ["projection", "pad", "avgpool"])
def test_images_of_odd_sides_pass_every_shortcut(shortcut: str) -> None:
    """The last row and column are averaged over the pixels that exist."""
    net = resnet32(shortcut).eval()  # type: ignore[arg-type]
    assert net.maps(torch.zeros(1, 3, 15, 13)).shape == (1, 64, 4, 4)
    if shortcut == "avgpool":
        x = torch.arange(9.0).view(1, 1, 3, 3)
        halved = net.stages[1][0].shortcut(x)[0, 8]  # type: ignore[index, operator]
        assert halved.tolist() == [[2.0, 3.5], [6.5, 8.0]]


def test_resnet18_is_torchvisions_with_a_small_stem() -> None:
    from torchvision.models import resnet18

    net, reference = backbone("resnet18", seed=0).eval(), resnet18(num_classes=3).eval()
    reference.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    reference.maxpool, reference.fc = torch.nn.Identity(), torch.nn.Identity()  # type: ignore[assignment]
    assert sum(p.numel() for p in net.parameters()) == 11_168_832
    ours, theirs = net.state_dict(), reference.state_dict()
    assert [v.shape for v in ours.values()] == [v.shape for v in theirs.values()]
    reference.load_state_dict(dict(zip(theirs, ours.values(), strict=True)))
    images = torch.randn(2, 3, 32, 32, generator=generator(0))
    with torch.no_grad():
        torch.testing.assert_close(net(images), reference(images), rtol=1e-4, atol=1e-4)


def reference_features(state: Mapping[str, Tensor], images: Tensor, shortcut: str, final_relu: bool) -> Tensor:
    """Compute a ResNet-32 in eval mode from its parameters, which alternate between convolution and BatchNorm."""
    parts = iter([v.double() for k, v in state.items() if not k.endswith("num_batches_tracked")])

    def conv_bn(x: Tensor, stride: int, padding: int = 1) -> Tensor:
        x = F.conv2d(x, next(parts), stride=stride, padding=padding)
        weight, bias, mean, var = (next(parts).view(-1, 1, 1) for _ in range(4))
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    x = conv_bn(images.double(), 1).clamp(min=0)
    for stage, width in enumerate((16, 32, 64)):
        for block in range(5):
            stride = 2 if stage and not block else 1
            y = conv_bn(conv_bn(x, stride).clamp(min=0), 1)
            if stride == 1:
                y = y + x
            elif shortcut == "projection":
                y = y + conv_bn(x, stride, padding=0)
            else:
                half = x[:, :, ::2, ::2]
                if shortcut == "avgpool":
                    half = (half + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4
                zeros = half.new_zeros(len(x), width // 4, *half.shape[2:])
                y = y + torch.cat([zeros, half, zeros], dim=1)
            last = stage == 2 and block == 4
            x = y if last and not final_relu else y.clamp(min=0)
    assert next(parts, None) is None
    return x.mean(dim=(2, 3))


@pytest.mark.parametrize("final_relu", [True, False])
@pytest.mark.parametrize("shortcut", ["projection", "pad", "avgpool"])
def test_resnet32_in_float64(shortcut: str, final_relu: bool) -> None:
    torch.manual_seed(0)
    net = resnet32(shortcut, final_relu).double()  # type: ignore[arg-type]
    for name, value in net.state_dict().items():  # BatchNorms that do something
        if "running" in name or value.dim() == 1:
            value.copy_(torch.rand_like(value) * 0.5 + 0.6)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        features = net.eval()(images)
    assert features.shape == (2, 64)
    torch.testing.assert_close(features, reference_features(net.state_dict(), images, shortcut, final_relu))


@pytest.mark.parametrize("name", ["resnet32", "resnet8-half"])
def test_only_the_cosine_networks_features_are_negative(name: str) -> None:
    images = torch.randn(4, 3, 32, 32, generator=generator(0))
    plain, cosine = (backbone(name, final_relu, seed=0) for final_relu in (True, False))
    for net in (plain, cosine):
        net.stages[-1][-1].bn2.bias.data.fill_(-3)  # type: ignore[index, union-attr]
    with torch.no_grad():
        assert plain(images).min() >= 0
        assert cosine(images).min() < 0


def test_state_dict_follows_the_data() -> None:
    """The order in which modules are registered decides which random numbers initialise them."""
    names = dict.fromkeys(name.rsplit(".", 1)[0] for name in resnet32().state_dict())
    block = ["conv1", "bn1", "conv2", "bn2"]
    expected = ["conv", "bn"]
    for stage in range(3):
        for index in range(5):
            shortcut = ["shortcut.0", "shortcut.1"] if stage and not index else []
            expected += [f"stages.{stage}.{index}.{part}" for part in block + shortcut]
    assert list(names) == expected


def test_initialisation() -> None:
    torch.manual_seed(0)
    state = resnet32().state_dict()
    for name, value in state.items():
        if value.dim() == 4:  # He et al. with fan-out
            expected = math.sqrt(2 / (value.shape[0] * value.shape[2] * value.shape[3]))
            assert value.std().item() == pytest.approx(expected, rel=0.25), name
        elif name.endswith("weight"):
            assert (value == 1).all()
        elif name.endswith("bias"):
            assert (value == 0).all()


@pytest.mark.parametrize(("shortcut", "pick"), [
    ("pad", lambda x: x[:, :, ::2, ::2]), ("avgpool", lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))),
])  # fmt: skip
def test_shortcuts_without_parameters(shortcut: str, pick: object) -> None:
    block = BasicBlock(4, 8, 2, shortcut).eval()  # type: ignore[arg-type]
    block.bn2.weight.data.zero_()  # silences the residual branch
    x = torch.rand(2, 4, 6, 6, generator=generator(0))
    out = block(x)
    torch.testing.assert_close(out[:, 2:6], pick(x))  # type: ignore[operator]
    assert (out[:, :2] == 0).all() and (out[:, 6:] == 0).all()


@pytest.mark.parametrize("size", ["resnet8-half", "resnet32"])
def test_networks_that_differ_in_their_shortcuts_alone(size: str) -> None:
    """They have the same weights and different outputs, because option A's shortcuts are filled differently."""
    names = (f"{size}-pad-glorot", f"{size}-avgpool") if size == "resnet32" else (f"{size}-pad", f"{size}-avgpool")
    pad, pooled = (backbone(name, seed=3) for name in names)
    assert {n: v.tolist() for n, v in pad.state_dict().items()} == {
        n: v.tolist() for n, v in pooled.state_dict().items()
    }
    kinds = [{m.kind for m in net.modules() if hasattr(m, "kind")} for net in (pad, pooled)]
    assert kinds == [{"pad"}, {"avgpool"}]
    images = torch.randn(2, 3, 32, 32, generator=generator(0))
    assert not torch.allclose(pad(images), pooled(images))


def test_seed_decides_the_initialisation_and_nothing_else() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (backbone("resnet8-half", seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["conv.weight"], other["conv.weight"])
    cosine = backbone("resnet8-half", final_relu=False, seed=1).state_dict()
    assert all(torch.equal(first[k], cosine[k]) for k in first)


def test_without_a_seed_the_global_generator_decides() -> None:
    torch.manual_seed(7)
    first = backbone("resnet8-half").state_dict()
    second = backbone("resnet8-half").state_dict()
    torch.manual_seed(7)
    assert torch.equal(first["conv.weight"], backbone("resnet8-half").state_dict()["conv.weight"])
    assert not torch.equal(first["conv.weight"], second["conv.weight"])


def test_errors() -> None:
    with pytest.raises(ValueError, match="unknown network 'vgg'"):
        backbone("vgg")
    with pytest.raises(ValueError, match="shortcut must be"):
        resnet32("identity")  # type: ignore[arg-type]


def test_imagenet_resnet18_is_torchvisions() -> None:
    from torchvision.models import resnet18

    net, reference = ImageNetResNet().eval(), resnet18(num_classes=3).eval()
    reference.fc = torch.nn.Identity()  # type: ignore[assignment]
    reference.load_state_dict(net.body.state_dict())
    images = torch.randn(2, 3, 64, 64, generator=generator(0))
    with torch.no_grad():
        torch.testing.assert_close(net(images), reference(images), rtol=1e-4, atol=1e-4)
        assert net(images).min() >= 0
        cosine = ImageNetResNet(final_relu=False).eval()
        cosine.load_state_dict(net.state_dict())
        features = cosine(images)
    assert features.shape == (2, 512) and features.min() < 0
    assert (net.body.layer1[0].bn2.weight == 1).all()


@pytest.mark.parametrize("name", ["resnet8-half", "resnet32", "resnet18-preact", "resnet10-imagenet"])
def test_features_are_pooled_in_fp32(name: str) -> None:
    """Autocast makes maps in bf16. Their mean keeps the bits that bf16 would drop."""
    net, images = backbone(name, seed=0).eval(), torch.randn(2, 3, 64, 64, generator=generator(0))
    seen = []
    last = net.body.layer4 if name.endswith("imagenet") else net.stages  # type: ignore[union-attr]
    last.register_forward_hook(lambda module, inputs, output: seen.append(output))  # type: ignore[union-attr, operator]
    with torch.no_grad(), Device("cpu", "bf16").autocast():
        features = net(images)
    assert seen[0].dtype == torch.bfloat16 and features.dtype == torch.float32
    torch.testing.assert_close(features, seen[0].double().mean(dim=(2, 3)).float(), rtol=1e-6, atol=1e-7)


def test_autocast_keeps_no_converted_weights() -> None:
    """All threads share autocast's cache, and weights that one run converts must not reach another run."""
    with Device("cpu", "bf16").autocast():
        assert not torch.is_autocast_cache_enabled()
