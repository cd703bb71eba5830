"""Feature maps in place of images: the cache that Phase II draws from, and the backbone that is left, which pools."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from common.errors import RunFailed
from common.loader import DeviceImages
from common.resnet import parts, pool
from common.runs import Flip


class Pool(nn.Module):
    """A backbone whose input is the last map already: [n, c, h, w] -> [n, c]."""

    def maps(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return pool(x)


class Maps(DeviceImages):
    """Maps [m, views, c, h, w] behind the interface of images; a batch takes a random view of each.

    labels [n] are those of a whole set of images, of which `indices` [m] are kept, in this order.
    """

    def __init__(self, maps: Tensor, labels: Tensor, indices: Tensor) -> None:
        self.images, self.labels = maps, labels
        self.rows = torch.zeros_like(labels)
        self.rows[indices] = torch.arange(len(indices), device=labels.device)

    def plan(self, order: Tensor, generator: torch.Generator) -> Tensor:
        """An epoch drawn ahead, int64 [2, n]: image and view."""
        views = torch.randint(self.images.shape[1], (len(order),), generator=generator)
        return torch.stack([order.cpu(), views]).to(self.images.device)

    def take(self, plan: Tensor) -> tuple[Tensor, Tensor]:
        order, views = plan
        rows = self.rows[order] * self.images.shape[1] + views
        return self.images.flatten(0, 1).index_select(0, rows), self.labels[order]

    def plain(self, indices: Tensor, batch: int = 0, flip: Flip = "none") -> Iterator[Tensor]:
        """The first view of each; `flip` cannot be had."""
        for rows in indices.split(batch or 1000):
            yield self.images[self.rows[rows], 0]


def halves(body: nn.Module, behind: int) -> tuple[nn.Module, nn.Module]:
    """A ResNet cut before its last `behind` stages: images to maps, and maps to the last map. They share its modules.

    Raises RunFailed on a network that is no ResNet of `common.resnet`, or one with too few stages.
    """
    try:
        stem, stages = parts(body)
    except ValueError as error:
        raise RunFailed(str(error)) from None
    if not 0 < behind < len(stages):
        raise RunFailed(f"the network has {len(stages)} stages, which leaves none in front of {behind}")
    return nn.Sequential(*stem, *stages[:-behind]), nn.Sequential(*stages[-behind:])
