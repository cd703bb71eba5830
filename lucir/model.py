"""Weight imprinting, which initialises new class embeddings. It is in the official code but not in the paper."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def imprint(class_features: Sequence[Tensor], old_weight: Tensor) -> Tensor:
    """Return initial embeddings [k, d] of new classes.

    Each is the mean of the class's normalised features, normalised again, times the mean norm of the old embeddings.
    class_features: the features [n, d] of each of the k new classes, from the previous model in eval mode, on
    un-augmented images. old_weight [c, d]: the raw weights of the old classes. Raises ValueError if there
    is no old or no new class, or a new class without images.
    """
    if not len(old_weight) or not class_features or not all(len(features) for features in class_features):
        raise ValueError("imprinting needs old classes, and images of every new one")
    means = torch.stack([F.normalize(features, dim=1).mean(dim=0) for features in class_features])
    return F.normalize(means, dim=1) * old_weight.norm(dim=1).mean()
