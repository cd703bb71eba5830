"""The CIFAR ResNets of He et al. (2016), one name per variant, and the ImageNet ones from timm.

Modules are registered in the order data flows, a shortcut after its block's second BatchNorm.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import InputError

Shortcut = Literal["projection", "pad", "avgpool"]
Init = Literal["kaiming-out", "kaiming-in", "glorot"]


class _PadShortcut(nn.Module):
    """Option A: no parameters; halve the resolution by subsampling or averaging, fill new channels with zeros."""

    def __init__(self, added: int, kind: Shortcut) -> None:
        super().__init__()
        self.added, self.kind = added, kind

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 2, ceil_mode=True) if self.kind == "avgpool" else x[:, :, ::2, ::2]
        return F.pad(x, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: [n, c_in, h, w] -> [n, c_out, h/stride, w/stride]."""

    def __init__(self, c_in: int, c_out: int, stride: int, shortcut: Shortcut, final_relu: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = (
                nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
                if shortcut == "projection"
                else _PadShortcut(c_out - c_in, shortcut)
            )
        self.final_relu = final_relu

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out)) + self.shortcut(x)
        return F.relu(out) if self.final_relu else out


def _stages(blocks: tuple[int, ...], width: int, make: Callable[[int, int, int, bool], nn.Module]) -> nn.Sequential:
    """Stages of blocks, each twice as wide as the last and of half its resolution: make(c_in, c_out, stride, last)."""
    channels, stages = width, []
    for stage, count in enumerate(blocks):
        layers = []
        for block in range(count):
            last = stage == len(blocks) - 1 and block == count - 1
            layers.append(make(channels, width * 2**stage, 2 if stage > 0 and block == 0 else 1, last))
            channels = width * 2**stage
        stages.append(nn.Sequential(*layers))
    return nn.Sequential(*stages)


def pool(maps: Tensor) -> Tensor:
    """Global average pooling, at least in fp32, since bf16 would round the mean to 8 bits: [n, c, h, w] -> [n, c]."""
    return maps.mean(dim=(2, 3), dtype=torch.promote_types(maps.dtype, torch.float32))


class CifarResNet(nn.Module):
    """3x3 stem and a stage of BasicBlocks for each number in `blocks`: [n, 3, 32, 32] -> [n, out_features].

    Each stage doubles the channels and, but for the first, halves the resolution. stem_stride=2 halves it at once: a
    quarter of the work, for presets that run in minutes on a CPU.
    stem_pool: a 3x3 maximum pooling of stride 2 after the stem, for images of 224 pixels (PODNet's stem).
    init: of the convolutions, He's normal by fan out (LUCIR) or fan in (BBN, LDAM), or Glorot's uniform (TensorFlow).
    """

    def __init__(
        self,
        blocks: tuple[int, ...],
        width: int = 16,
        shortcut: Shortcut = "projection",
        final_relu: bool = True,
        stem_stride: int = 1,
        init: Init = "kaiming-out",
        stem_pool: bool = False,
    ) -> None:
        super().__init__()
        if shortcut not in ("projection", "pad", "avgpool"):
            raise ValueError(f"shortcut must be projection, pad or avgpool, got {shortcut!r}")
        self.conv = nn.Conv2d(3, width, 3, stem_stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.stem_pool = stem_pool
        self.stages = _stages(
            blocks, width, lambda c, out, stride, last: BasicBlock(c, out, stride, shortcut, final_relu or not last)
        )
        self.out_features = width * 2 ** (len(blocks) - 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _initialise(module.weight, init)

    def maps(self, x: Tensor) -> Tensor:
        """The map that pooling averages: [n, 3, 32, 32] -> [n, out_features, h, w]."""
        x = F.relu(self.bn(self.conv(x)), inplace=True)
        return self.stages(F.max_pool2d(x, 3, 2, 1) if self.stem_pool else x)

    def forward(self, x: Tensor) -> Tensor:
        return pool(self.maps(x))


class PreActBlock(nn.Module):
    """BN-ReLU-conv twice and a shortcut, then one more BN and ReLU: [n, c_in, h, w] -> [n, c_out, h/stride, w/stride].

    A projection reads the activated input and has no BatchNorm.
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(active)), inplace=True))
        return F.relu(self.bn3(out + (x if self.shortcut is None else self.shortcut(active))))


class PreActResNet(nn.Module):
    """The 18-layer network of DER's ImageNet code, 7x7 stem without BatchNorm: [n, 3, h, w] -> [n, 512]."""

    def __init__(self, blocks: tuple[int, ...] = (2, 2, 2, 2), width: int = 64) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.stages = _stages(blocks, width, lambda c, out, stride, last: PreActBlock(c, out, stride))
        self.out_features = width * 2 ** (len(blocks) - 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _initialise(module.weight, "kaiming-out")

    def forward(self, x: Tensor) -> Tensor:
        return pool(self.stages(F.max_pool2d(self.conv(x), 3, 2, 1)))


def _initialise(weight: Tensor, init: Init) -> None:
    if init == "glorot":
        nn.init.xavier_uniform_(weight)
    else:
        nn.init.kaiming_normal_(weight, mode="fan_in" if init == "kaiming-in" else "fan_out", nonlinearity="relu")


def resnet32(shortcut: Shortcut = "projection", final_relu: bool = True, init: Init = "kaiming-out") -> CifarResNet:
    """ResNet-32: 466,256 parameters with projection shortcuts (LUCIR), 463,504 with "pad" or "avgpool" (option A).

    final_relu=False leaves out the last ReLU, as cosine classifiers need features of either sign (LUCIR).
    """
    return CifarResNet((5, 5, 5), shortcut=shortcut, final_relu=final_relu, init=init)


def resnet18(final_relu: bool = True) -> CifarResNet:
    """ResNet-18 for 32x32 images (DER, FSA): full width, 3x3 stem, no pooling, 11,168,832 parameters.

    [n, 3, 32, 32] -> [n, 512]; final_relu=False as in `resnet32`.
    """
    return CifarResNet((2, 2, 2, 2), width=64, final_relu=final_relu)


def resnet34() -> CifarResNet:
    """ResNet-34 for 32x32 images (FSA), as `resnet18`: 21,276,992 parameters."""
    return CifarResNet((3, 4, 6, 3), width=64)


class ImageNetResNet(nn.Module):
    """timm's ResNet-10, -18, -50, -101 or -152: [n, 3, h, w] -> [n, 512 or 2048]; final_relu as `resnet32`.

    From scratch, or with timm's ImageNet weights, which are downloaded. ResNet-10 is ResNet-18 with one block a stage.
    default_init: convolutions as PyTorch makes them (BBN's official code), not He's normal.
    """

    def __init__(
        self, depth: int = 18, final_relu: bool = True, default_init: bool = False, pretrained: bool = False
    ) -> None:
        super().__init__()
        import timm  # slow to import, and only ImageNet needs it

        # torchvision's initialisation, as in LUCIR's official code, keeps the last BatchNorm's weight of a block at 1.
        self.architecture: dict[str, Any] = {"model_name": f"resnet{max(depth, 18)}"}
        if depth == 10:
            self.architecture["layers"] = (1, 1, 1, 1)
        body: Any = timm.create_model(**self.architecture, pretrained=pretrained, num_classes=0, zero_init_last=False)
        if not final_relu:
            setattr(body.layer4[-1], "act2" if depth < 50 else "act3", nn.Identity())
        if default_init:
            for module in body.modules():
                if isinstance(module, nn.Conv2d):
                    module.reset_parameters()
        self.body, self.final_relu = body, final_relu
        self.out_features = body.num_features

    def maps(self, x: Tensor) -> Tensor:
        """The map that pooling averages: [n, 3, h, w] -> [n, out_features, h / 32, w / 32]."""
        return self.body.forward_features(x)

    def forward(self, x: Tensor) -> Tensor:
        return pool(self.maps(x))


def parts(body: nn.Module) -> tuple[list[nn.Module], list[Any]]:
    """(stem, stages) of a ResNet, the body's own modules: one after another they give `body.maps`.

    Raises ValueError on any other network.
    """
    if isinstance(body, CifarResNet):
        pool = [nn.MaxPool2d(3, 2, 1)] if body.stem_pool else []
        return [body.conv, body.bn, nn.ReLU(inplace=True), *pool], list(body.stages)
    if isinstance(body, ImageNetResNet):
        net: Any = body.body
        return [net.conv1, net.bn1, net.act1, net.maxpool], [net.layer1, net.layer2, net.layer3, net.layer4]
    raise ValueError(f"{type(body).__name__} is no ResNet with stages")


BACKBONES: dict[str, Callable[[bool], nn.Module]] = {
    "resnet8-half": lambda final_relu: CifarResNet((1, 1, 1), final_relu=final_relu, stem_stride=2),
    "resnet8-half-pad": lambda final_relu: CifarResNet((1, 1, 1), 16, "pad", final_relu, stem_stride=2),
    "resnet8-half-avgpool": lambda final_relu: CifarResNet((1, 1, 1), 16, "avgpool", final_relu, stem_stride=2),
    "resnet32": lambda final_relu: resnet32(final_relu=final_relu),
    "resnet32-pad": lambda final_relu: resnet32("pad", final_relu, "kaiming-in"),  # BBN, LDAM
    "resnet32-avgpool": lambda final_relu: resnet32("avgpool", final_relu, "glorot"),  # Class-Balanced Loss
    "resnet32-pad-glorot": lambda final_relu: resnet32("pad", final_relu, "glorot"),  # the same but for its shortcuts
    "resnet18": resnet18,
    "resnet34": lambda final_relu: resnet34(),
    "resnet10-imagenet": lambda final_relu: ImageNetResNet(10, final_relu),
    "resnet18-pool": lambda final_relu: CifarResNet(  # PODNet's stem for ImageNet
        (2, 2, 2, 2), width=64, final_relu=final_relu, stem_pool=True
    ),
    "resnet18-preact": lambda final_relu: PreActResNet(),  # DER on ImageNet from no base; its last ReLU always stays
    "resnet18-imagenet": lambda final_relu: ImageNetResNet(18, final_relu),
    "resnet50-imagenet": lambda final_relu: ImageNetResNet(50, final_relu),
    "resnet50-default": lambda final_relu: ImageNetResNet(50, final_relu, default_init=True),  # BBN
    "resnet101-imagenet": lambda final_relu: ImageNetResNet(101, final_relu),
    "resnet152-imagenet": lambda final_relu: ImageNetResNet(152, final_relu),
    "resnet152-pretrained": lambda final_relu: ImageNetResNet(152, final_relu, pretrained=True),
}


INITIALISING = threading.Lock()
"""Held where torch's own initialisers draw: from one generator a process, which runs in threads share."""


def backbone(name: str, final_relu: bool = True, seed: int | None = None) -> nn.Module:
    """A backbone by name, initialised from `seed` where one is given. Raises InputError on an unknown name."""
    if name not in BACKBONES:
        raise InputError(f"unknown network {name!r}; choose one of {', '.join(BACKBONES)}")
    with INITIALISING, torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return BACKBONES[name](final_relu)
