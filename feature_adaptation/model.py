"""What stages 1 to 3 add to `common`'s networks: spatial maps, a head for all classes, and a memory of features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.heads import LinearHead, Net


def spatial_maps(net: Net, images: Tensor) -> Tensor:
    """Return the last stage's output before pooling, fp32 [n, d, h, w]. Its spatial mean is `net.features(images)`.

    Raises TypeError on a network that is not one of `common.resnet`.
    """
    maps: Any = getattr(net.backbone, "maps", None)
    if maps is None:
        raise TypeError(f"no spatial maps of a {type(net.backbone).__name__}")
    with net.device.autocast():
        return maps(images).float()


class WholeHead(LinearHead):
    """A LinearHead that has the rows of all `total` classes of a Run from the first task on, as in iCaRL's code.

    At first `num_classes` classes count as seen. `grow` counts more of them as seen and adds no rows.
    """

    def __init__(
        self, in_features: int, num_classes: int, generator: torch.Generator | None = None, *, total: int
    ) -> None:
        super().__init__(in_features, total, generator)
        self.seen = num_classes

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits of the classes seen, [n, seen], for features [n, d]. Read-outs and teachers use them."""
        return F.linear(features, self.weight[: self.seen], self.bias[: self.seen])

    def all_logits(self, features: Tensor) -> Tensor:
        """Return the logits of all classes, [n, total], for features [n, d]. Classes to come are included."""
        return super().forward(features)

    def grow(self, count: int, generator: torch.Generator | None = None) -> None:
        """Count `count` more classes as seen."""
        self.seen += count


class FeatureMemory(nn.Module):
    """The feature classifier g~ and the memory M^t that trains it. A checkpoint of stages 2 and 3 holds both.

    The memory has rows [m, d], their labels [m] and their tasks of origin [m]. Rows of a class lie together in herding
    order, and classes lie in order of arrival. scale: the mean norm of the current task's features.
    """

    rows: Tensor
    labels: Tensor
    tasks: Tensor
    scale: Tensor

    def __init__(self, head: LinearHead) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("rows", head.weight.data.new_zeros(0, head.weight.shape[1]))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.long, device=head.weight.device))
        self.register_buffer("tasks", torch.zeros(0, dtype=torch.long, device=head.weight.device))
        self.register_buffer("scale", head.weight.data.new_ones(()))

    def remember(self, rows: Tensor, labels: Tensor, task: int) -> None:
        """Add a task's rows at the end: M^t is M^(t-1) with these rows."""
        tasks = torch.full_like(labels, task)
        self.rows, self.labels = torch.cat([self.rows, rows]), torch.cat([self.labels, labels])
        self.tasks = torch.cat([self.tasks, tasks])

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state as a Module does, but for a memory of any length."""
        for name in ("rows", "labels", "tasks"):
            setattr(self, name, torch.empty_like(state_dict[name], device=self.rows.device))
        return super().load_state_dict(state_dict, strict, assign)
