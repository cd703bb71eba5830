"""Herding and the exemplar memory: which images of old classes are kept, per class or under a total budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ITERATIONS = 1000  # as in iCaRL's and LUCIR's official code


def herd(features: Tensor, count: int) -> Tensor:
    """Welling's herding as iCaRL and LUCIR run it: the indices of `count` images in rank order.

    features [n, d] are L2-normalised here; their mean is not. The weight vector is updated also when an image is
    picked again, so repeats are skipped, not replaced by the next best. After 1000 iterations, which only large
    exemplar sets reach, it goes on among the images not yet picked, so that exactly `count` distinct ones come back.

    Returns int64 [count] on the features' device. Raises ValueError if count is negative or exceeds n.
    """
    if not 0 <= count <= len(features):
        raise ValueError(f"cannot pick {count} exemplars from {len(features)} images")
    features = F.normalize(features.double(), dim=1, eps=1e-8)
    mean = features.mean(dim=0)
    # argmax <w, x> needs only the scores: updating those with the Gram matrix's rows avoids n x d work per pick.
    # The picks themselves read a number each, so they are made on the CPU.
    gram, step = (features @ features.T).cpu(), (features @ mean).cpu()
    scores, picked = step.clone(), torch.zeros(len(features), dtype=torch.bool)
    ranks: list[int] = []
    for iteration in range(MAX_ITERATIONS + count):
        if len(ranks) == count:
            break
        if iteration >= MAX_ITERATIONS:
            scores = scores.masked_fill(picked, -torch.inf)
        best = int(scores.argmax())
        if not picked[best]:
            picked[best] = True
            ranks.append(best)
        scores = scores + step - gram[best]
    return torch.tensor(ranks, dtype=torch.long, device=features.device)


@dataclass
class ExemplarMemory:
    """Image indices kept for each class, in herding rank. Exactly one of the two budgets is set.

    per_class: fixed number a class, so the memory grows (R_per in LUCIR). total: a fixed budget shared by the classes
    seen so far, ceil(total / seen) each (LUCIR's --fix_budget), or floor (DER); it is capped at a class's size,
    per_class is not.
    """

    per_class: int | None = None
    total: int | None = None
    indices: dict[int, Tensor] = field(default_factory=dict)
    rounding: Literal["up", "down"] = "up"

    def __post_init__(self) -> None:
        if (self.per_class is None) == (self.total is None):
            raise ValueError("give exemplars per class or in total, not both and not neither")

    def quota(self, seen: int) -> int:
        """Exemplars a class once `seen` classes are known."""
        if self.per_class is not None:
            return self.per_class
        total = self.total or 0
        return total // seen if self.rounding == "down" else -(-total // seen)

    def size_for(self, available: int, seen: int) -> int:
        """Exemplars of a class with `available` images; ValueError if a per-class number exceeds them."""
        quota = self.quota(seen)
        if self.per_class is not None and quota > available:
            raise ValueError(f"{quota} exemplars per class asked for, but a class has {available} images")
        return min(quota, available)

    def add(self, label: int, indices: Tensor, features: Tensor, seen: int) -> None:
        """Herd one new class. indices [n] into the training set, features [n, d] of the same images."""
        self.indices[label] = indices[herd(features, self.size_for(len(indices), seen)).to(indices.device)]

    def shrink(self, seen: int) -> None:
        """Truncate every class to the quota at `seen` classes; under a per-class budget nothing changes."""
        quota = self.quota(seen)
        self.indices = {label: kept[:quota] for label, kept in self.indices.items()}

    def all(self) -> Tensor:
        """Indices of every exemplar, class by class. int64 [m]."""
        return torch.cat(list(self.indices.values())) if self.indices else torch.empty(0, dtype=torch.long)
