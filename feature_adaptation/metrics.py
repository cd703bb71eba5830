"""How well adapted features match the true ones: the paper's omega, and the drift they explain. Pure functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def adaptation_quality(adapted: Tensor, true: Tensor) -> float:
    """omega: mean cosine of adapted memory vectors and true features of the same images, [n, d] each."""
    return float(F.cosine_similarity(adapted.double(), true.double(), dim=1).mean())


def explained(adapted: Tensor, own: Tensor, true: Tensor) -> float:
    """Share of the drift a map predicts: 1 - sum|true - adapted|^2 / sum|true - own|^2; nan without drift.

    own [n, d]: the features as first stored. 0 for the identity, 1 for the true features, below 0 for a map that
    leads away.
    """
    total = (true - own).double().square().sum()
    return float(1 - (true - adapted).double().square().sum() / total) if total else float("nan")


def drift_cosine(adapted: Tensor, own: Tensor, true: Tensor) -> float:
    """Mean cosine of predicted and true drift, adapted - own and true - own; 0 where nothing is predicted."""
    return float(F.cosine_similarity((adapted - own).double(), (true - own).double(), dim=1).mean())


def class_means(features: Tensor, labels: Tensor) -> Tensor:
    """Mean of each class [c, d], classes in rising order."""
    _, places, counts = labels.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(counts), features.shape[1], dtype=features.dtype, device=features.device)
    return sums.index_add_(0, places, features) / counts.unsqueeze(1)


def mean_distances(features: Tensor, true: Tensor, labels: Tensor) -> list[float]:
    """Distance of each class's mean to its true mean, classes in rising order (SDC's Fig. 5)."""
    return (class_means(features, labels) - class_means(true, labels)).norm(dim=1).tolist()
