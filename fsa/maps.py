"""Feature maps in place of images: the cache that Phase II samples from, and a backbone that only pools."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from common.errors import RunFailed
from common.loader import DeviceImages
from common.resnet import parts, pool
from common.runs import Flip


class Pool(nn.Module):
    """A backbone that only pools, because its input is the last feature map: [n, c, h, w] -> [n, c]."""

    def maps(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return pool(x)


class Maps(DeviceImages):
    """Cached maps [m, views, c, h, w] behind the interface of images. A batch takes a random view of each image.

    labels [n]: of a whole set of images. indices [m]: those images whose maps are cached, in this order.
    """

    def __init__(self, maps: Tensor, labels: Tensor, indices: Tensor) -> None:
        self.images, self.labels = maps, labels
        self.rows = torch.zeros_like(labels)
        self.rows[indices] = torch.arange(len(indices), device=labels.device)

    def plan(self, order: Tensor, generator: torch.Generator) -> Tensor:
        """Return a plan of one epoch, int64 [2, n], whose rows are image index and view."""
        views = torch.randint(self.images.shape[1], (len(order),), generator=generator)
        return torch.stack([order.cpu(), views]).to(self.images.device)

    def take(self, plan: Tensor) -> tuple[Tensor, Tensor]:
        """Return the batch (maps, labels) that some columns of a plan describe."""
        order, views = plan
        rows = self.rows[order] * self.images.shape[1] + views
        return self.images.flatten(0, 1).index_select(0, rows), self.labels[order]

    def plain(self, indices: Tensor, batch: int = 0, flip: Flip = "none") -> Iterator[Tensor]:
        """Yield the first view of each image. `flip` is ignored."""
        for rows in indices.split(batch or 1000):
            yield self.images[self.rows[rows], 0]


def halves(body: nn.Module, behind: int) -> tuple[nn.Module, nn.Module]:
    """Divide a ResNet before its last `behind` stages.

    The first part takes images to feature maps, and the second part takes these maps to the last feature map. Both
    share the modules of `body`. Raises RunFailed if `body` is no ResNet of `common.resnet`, or has too few stages.
    """
    try:
        stem, stages = parts(body)
    except ValueError as error:
        raise RunFailed(str(error)) from None
    if not 0 < behind < len(stages):
        raise RunFailed(f"the network has {len(stages)} stages, which leaves none in front of {behind}")
    return nn.Sequential(*stem, *stages[:-behind]), nn.Sequential(*stages[-behind:])
