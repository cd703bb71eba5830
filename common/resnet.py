"""The CIFAR ResNets of He et al. (2016) and their variants, and timm's ResNets for ImageNet. Each has a name.

Modules are registered in the order data flows. A shortcut comes after its block's second BatchNorm.
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
    """A shortcut without parameters (option A): halves the resolution, and fills new channels with zeros.

    The kind "pad" subsamples, and "avgpool" averages.
    """

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
    """Return stages of blocks; each stage doubles the width and halves the resolution of the one before.

    blocks: blocks of each stage. make: (c_in, c_out, stride, whether the block is the network's last) -> a block.
    """
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
    """Average over all positions: [n, c, h, w] -> [n, c]. At least in fp32, as bf16 would round the mean to 8 bits."""
    return maps.mean(dim=(2, 3), dtype=torch.promote_types(maps.dtype, torch.float32))


class CifarResNet(nn.Module):
    """A 3x3 stem, then a stage of BasicBlocks for each number in `blocks`: [n, 3, 32, 32] -> [n, out_features].

    Every stage after the first doubles the channels and halves the resolution.
    stem_stride: 2 halves the resolution in the stem, which leaves a quarter of the work, for quick runs on a CPU.
    stem_pool: adds a 3x3 maximum pooling of stride 2 after the stem, for images of 224 pixels (PODNet's stem).
    init: initialisation of the convolutions: He's normal by fan-out (LUCIR) or fan-in (BBN, LDAM), or Glorot's uniform
    (TensorFlow).
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
        """Return the feature map before pooling: [n, 3, 32, 32] -> [n, out_features, h, w]."""
        x = F.relu(self.bn(self.conv(x)), inplace=True)
        return self.stages(F.max_pool2d(x, 3, 2, 1) if self.stem_pool else x)

    def forward(self, x: Tensor) -> Tensor:
        return pool(self.maps(x))


class PreActBlock(nn.Module):
    """A pre-activation block: [n, c_in, h, w] -> [n, c_out, h/stride, w/stride].

    It applies BN-ReLU-convolution twice, adds the shortcut, and ends with one more BN and ReLU. A projection shortcut
    reads the activated input and has no BatchNorm.
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
    """The 18-layer network of DER's ImageNet code, whose 7x7 stem has no BatchNorm: [n, 3, h, w] -> [n, 512]."""

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
    """Initialise a convolution's weight in place, as `init` names it."""
    if init == "glorot":
        nn.init.xavier_uniform_(weight)
    else:
        nn.init.kaiming_normal_(weight, mode="fan_in" if init == "kaiming-in" else "fan_out", nonlinearity="relu")


def resnet32(shortcut: Shortcut = "projection", final_relu: bool = True, init: Init = "kaiming-out") -> CifarResNet:
    """Return a ResNet-32, which maps [n, 3, 32, 32] -> [n, 64].

    It has 466,256 parameters with projection shortcuts (LUCIR), and 463,504 with "pad" or "avgpool" (option A).
    final_relu=False leaves out the last ReLU, because cosine classifiers need features of either sign (LUCIR).
    """
    return CifarResNet((5, 5, 5), shortcut=shortcut, final_relu=final_relu, init=init)


def resnet18(final_relu: bool = True) -> CifarResNet:
    """Return a ResNet-18 for 32x32 images (DER, FSA), which maps [n, 3, 32, 32] -> [n, 512].

    It has full width, a 3x3 stem without pooling, and 11,168,832 parameters. final_relu: as in `resnet32`.
    """
    return CifarResNet((2, 2, 2, 2), width=64, final_relu=final_relu)


def resnet34() -> CifarResNet:
    """Return a ResNet-34 for 32x32 images (FSA), built like `resnet18`, with 21,276,992 parameters."""
    return CifarResNet((3, 4, 6, 3), width=64)


class ImageNetResNet(nn.Module):
    """timm's ResNet of 10, 18, 50, 101 or 152 layers: [n, 3, h, w] -> [n, 512 or 2048].

    ResNet-10 is ResNet-18 with one block in each stage. final_relu: as in `resnet32`. default_init: initialise the
    convolutions with PyTorch's default (BBN's official code), not with He's normal. pretrained: start from timm's
    ImageNet weights, which are downloaded.
    """

    def __init__(
        self, depth: int = 18, final_relu: bool = True, default_init: bool = False, pretrained: bool = False
    ) -> None:
        super().__init__()
        import timm  # slow to import, and only ImageNet needs it

        # zero_init_last=False: torchvision's initialisation, which LUCIR's official code uses, starts the last
        # BatchNorm of a block with weight 1.
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
        """Return the feature map before pooling: [n, 3, h, w] -> [n, out_features, h / 32, w / 32]."""
        return self.body.forward_features(x)

    def forward(self, x: Tensor) -> Tensor:
        return pool(self.maps(x))


def parts(body: nn.Module) -> tuple[list[nn.Module], list[Any]]:
    """Return the stem and the stages of a ResNet, as lists of its own modules.

    Applying all of them in order computes `body.maps`. Raises ValueError if `body` is no ResNet with stages.
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
    "resnet32-pad-glorot": lambda final_relu: resnet32("pad", final_relu, "glorot"),  # the same with other shortcuts
    "resnet18": resnet18,
    "resnet34": lambda final_relu: resnet34(),
    "resnet10-imagenet": lambda final_relu: ImageNetResNet(10, final_relu),
    "resnet18-pool": lambda final_relu: CifarResNet(  # PODNet's stem for ImageNet
        (2, 2, 2, 2), width=64, final_relu=final_relu, stem_pool=True
    ),
    "resnet18-preact": lambda final_relu: PreActResNet(),  # DER on ImageNet without a base; always has its last ReLU
    "resnet18-imagenet": lambda final_relu: ImageNetResNet(18, final_relu),
    "resnet50-imagenet": lambda final_relu: ImageNetResNet(50, final_relu),
    "resnet50-default": lambda final_relu: ImageNetResNet(50, final_relu, default_init=True),  # BBN
    "resnet101-imagenet": lambda final_relu: ImageNetResNet(101, final_relu),
    "resnet152-imagenet": lambda final_relu: ImageNetResNet(152, final_relu),
    "resnet152-pretrained": lambda final_relu: ImageNetResNet(152, final_relu, pretrained=True),
}


INITIALISING = threading.Lock()
"""Held while torch's initialisers sample, because they use the one generator that all threads of a process share."""


def backbone(name: str, final_relu: bool = True, seed: int | None = None) -> nn.Module:
    """Return the backbone of this name, initialised from `seed` if given. Raises InputError on an unknown name."""
    if name not in BACKBONES:
        raise InputError(f"unknown network {name!r}; choose one of {', '.join(BACKBONES)}")
    with INITIALISING, torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return BACKBONES[name](final_relu)
