"""Measure how well adapted features match the true ones: the paper's omega, and the drift that a map predicts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def adaptation_quality(adapted: Tensor, true: Tensor) -> float:
    """Return omega: the mean cosine of adapted memory vectors and true features of the same images, [n, d] each.

    Raises ValueError if the shapes differ.
    """
    if adapted.shape != true.shape:
        raise ValueError(f"omega compares tensors of one shape, got {tuple(adapted.shape)} and {tuple(true.shape)}")
    return float(F.cosine_similarity(adapted.double(), true.double(), dim=1).mean())


def explained(adapted: Tensor, own: Tensor, true: Tensor) -> float:
    """Return the share of the drift that a map predicts: 1 - sum|true - adapted|^2 / sum|true - own|^2.

    own [n, d]: the features as first stored. The share is 0 for the identity, 1 for the true features, below 0 for a
    map that leads away from the truth, and nan without drift.
    """
    total = (true - own).double().square().sum()
    return float(1 - (true - adapted).double().square().sum() / total) if total else float("nan")


def drift_cosine(adapted: Tensor, own: Tensor, true: Tensor) -> float:
    """Return the mean cosine of the predicted drift, adapted - own, and the true drift, true - own.

    It is 0 where no drift is predicted.
    """
    return float(F.cosine_similarity((adapted - own).double(), (true - own).double(), dim=1).mean())


def class_means(features: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of each class, [c, d], with classes in rising order."""
    _, places, counts = labels.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(counts), features.shape[1], dtype=features.dtype, device=features.device)
    return sums.index_add_(0, places, features) / counts.unsqueeze(1)


def mean_distances(features: Tensor, true: Tensor, labels: Tensor) -> list[float]:
    """Return the distance of each class's mean to its true mean, with classes in rising order (SDC's Fig. 5)."""
    return (class_means(features, labels) - class_means(true, labels)).norm(dim=1).tolist()
