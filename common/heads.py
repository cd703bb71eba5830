"""Linear and cosine classifiers (heads) that grow, the network of a backbone and a head, and feature extraction."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.distributed import gathered
from common.graphs import wait
from common.loader import Images
from common.runs import Flip
from common.training import Device

WIDE = 2**21
"""Networks with this many parameters or more, such as ResNet-18, extract features in batches of half the size."""


def _uniform(rows: int, columns: int, like: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """Sample rows [rows, d = columns] from U(-1/sqrt(d), 1/sqrt(d)), on the device and in the type of `like`."""
    bound = 1 / math.sqrt(columns)
    fresh = torch.empty(rows, columns).uniform_(-bound, bound, generator=generator)
    return fresh if like is None else fresh.to(like)


class LinearHead(nn.Module):
    """A linear classifier with weight [c, d] and bias [c]: features [n, d] -> logits [n, c]."""

    def __init__(self, in_features: int, num_classes: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(_uniform(num_classes, in_features, None, generator))
        bound = 1 / math.sqrt(in_features)
        self.bias = nn.Parameter(torch.empty(num_classes).uniform_(-bound, bound, generator=generator))

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight, self.bias)

    def grow(self, count: int, generator: torch.Generator | None = None) -> None:
        """Add `count` freshly initialised classes, and keep the old rows and biases (iCaRL)."""
        fresh = LinearHead(self.weight.shape[1], count, generator).to(self.weight)
        self.weight = nn.Parameter(torch.cat([self.weight.data, fresh.weight.data]))
        self.bias = nn.Parameter(torch.cat([self.bias.data, fresh.bias.data]))


class CosineHead(nn.Module):
    """A classifier with cosine normalisation, LUCIR Eq. 4: logits = scale * cos(weight row, feature), without a bias.

    weight [c, d] is stored un-normalised. scale (the paper's eta) is one scalar that is learnt and starts at 1; a
    number given as `scale` is fixed instead.
    """

    def __init__(
        self, in_features: int, num_classes: int, generator: torch.Generator | None = None, scale: float | None = None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(_uniform(num_classes, in_features, None, generator))
        self.scale = nn.Parameter(torch.tensor(float(1 if scale is None else scale)), requires_grad=scale is None)

    def cosines(self, features: Tensor) -> Tensor:
        """Return the cosines [..., c] of features [..., d] of any floating type, unscaled, in the weight's type."""
        return F.linear(F.normalize(features.to(self.weight.dtype), dim=-1), F.normalize(self.weight, dim=1))

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * self.cosines(features)

    def grow(self, count: int, generator: torch.Generator | None = None) -> None:
        """Add `count` freshly initialised rows, and keep the old rows and the scale."""
        fresh = _uniform(count, self.weight.shape[1], self.weight, generator)
        self.weight = nn.Parameter(torch.cat([self.weight.data, fresh]))


class Net(nn.Module):
    """A backbone under autocast and an fp32 head: images [n, 3, h, w] -> logits [n, c]."""

    head: Any  # a LinearHead or a CosineHead

    def __init__(self, body: nn.Module, head: LinearHead | CosineHead, device: Device) -> None:
        super().__init__()
        self.backbone, self.head, self.device = body, head, device
        self.to(device.torch, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, images: Tensor) -> Tensor:
        """Return the pooled features before any normalisation, fp32 [n, d]."""
        with self.device.autocast():
            features = self.backbone(images)
        return features.float()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def frozen_copy(net: nn.Module, device: Device) -> Any:
    """Return a teacher: a deep copy in eval mode without gradients, whose BatchNorm statistics never change.

    In bf16 precision, the copy stores the weights of convolutions in bf16. Outputs do not change, since autocast would
    otherwise round the weights to bf16 at every call.
    """
    teacher = copy.deepcopy(net).eval().requires_grad_(False)
    if device.precision == "bf16":
        for module in teacher.modules():
            if isinstance(module, nn.Conv2d):
                module.to(torch.bfloat16)
    return teacher


@torch.no_grad()
def extract(net: Net, images: Images, indices: Tensor, flip: Flip = "none") -> Tensor:
    """Return features of un-augmented images in eval mode, fp32 [n, d]. Several processes share the work."""
    net.eval()
    most = 5000 if sum(p.numel() for p in net.parameters()) < WIDE else 2500

    def features_of(rows: Tensor) -> Tensor:
        return torch.cat([net.features(part) for batch in images.plain(rows, flip=flip) for part in batch.split(most)])

    features = gathered(features_of, indices)
    wait(features.device)
    return features
