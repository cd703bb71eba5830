"""Linear and cosine classifiers that grow as classes arrive."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _uniform(rows: int, columns: int, like: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """Rows drawn from U(-1/sqrt(d), 1/sqrt(d)), on the device and in the type of `like`."""
    bound = 1 / math.sqrt(columns)
    fresh = torch.empty(rows, columns).uniform_(-bound, bound, generator=generator)
    return fresh if like is None else fresh.to(like)


class LinearHead(nn.Module):
    """weight [c, d], bias [c]: features [n, d] -> logits [n, c]."""

    def __init__(self, in_features: int, num_classes: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(_uniform(num_classes, in_features, None, generator))
        bound = 1 / math.sqrt(in_features)
        self.bias = nn.Parameter(torch.empty(num_classes).uniform_(-bound, bound, generator=generator))

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight, self.bias)

    def grow(self, count: int, generator: torch.Generator | None = None) -> None:
        """Add `count` freshly initialised classes; the old rows and biases are kept (iCaRL)."""
        fresh = LinearHead(self.weight.shape[1], count, generator).to(self.weight)
        self.weight = nn.Parameter(torch.cat([self.weight.data, fresh.weight.data]))
        self.bias = nn.Parameter(torch.cat([self.bias.data, fresh.bias.data]))


class CosineHead(nn.Module):
    """Cosine normalisation, LUCIR Eq. 4: logits = scale * cos(weight row, feature), no bias.

    weight [c, d] is stored un-normalised; scale (the paper's eta) is one learnable scalar that starts at 1.
    """

    def __init__(self, in_features: int, num_classes: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(_uniform(num_classes, in_features, None, generator))
        self.scale = nn.Parameter(torch.ones(()))

    def cosines(self, features: Tensor) -> Tensor:
        """features [n, d] -> cosines [n, c], before the scale."""
        return F.linear(F.normalize(features, dim=1), F.normalize(self.weight, dim=1))

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * self.cosines(features)

    def grow(self, count: int, generator: torch.Generator | None = None) -> None:
        """Add `count` freshly initialised rows; the old rows and the scale are kept."""
        fresh = _uniform(count, self.weight.shape[1], self.weight, generator)
        self.weight = nn.Parameter(torch.cat([self.weight.data, fresh]))
