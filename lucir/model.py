"""Weight imprinting of new class embeddings: in the official code, not in the paper."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def imprint(class_features: Sequence[Tensor], old_weight: Tensor) -> Tensor:
    """Initial embeddings [k, d] of new classes: unit mean of unit features, times the old embeddings' mean norm.

    class_features: the features [n, d] of each new class under the previous model, eval mode, un-augmented.
    old_weight [c, d]: the raw rows of the old classes.
    """
    means = torch.stack([F.normalize(features, dim=1).mean(dim=0) for features in class_features])
    return F.normalize(means, dim=1) * old_weight.norm(dim=1).mean()
