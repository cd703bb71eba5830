"""Pure functions from predictions to the numbers the papers report. Accuracies are in percent."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # torch only where a tensor is given: figures and reports run without it
    from torch import Tensor


def average_incremental_accuracy(per_phase: Sequence[float]) -> float:
    """Unweighted mean of the accuracy after every phase, the base phase included (LUCIR Sec. 4.1, iCaRL)."""
    return float(np.mean(per_phase))


def nearest_mean(features: Tensor, means: Tensor) -> Tensor:
    """Nearest-mean-of-exemplars prediction: argmin of squared Euclidean distance, both as given.

    features [n, d], means [c, d] -> int64 [n]. ||f||^2 is the same for all classes and left out.
    """
    return (means.square().sum(dim=1) - 2 * features @ means.T).argmin(dim=1)


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts [true, predicted], int64 [c, c]. predictions [n], or [n, k]: where none of k is right the first counts.

    Integers of any width. Raises ValueError on a label or a prediction that is none of the classes.
    """
    labels, predictions = (np.asarray(x).astype(np.int64, casting="same_kind") for x in (labels, predictions))
    if predictions.ndim == 2:
        hit = (predictions == labels[:, None]).any(axis=1)
        predictions = np.where(hit, labels, predictions[:, 0])
    for name, found in (("label", labels), ("prediction", predictions)):
        if (wrong := found[(found < 0) | (found >= num_classes)]).size:
            raise ValueError(f"{name} {wrong[0]} is none of the {num_classes} classes")
    return np.bincount(labels * num_classes + predictions, minlength=num_classes**2).reshape(num_classes, num_classes)


def accuracy(confusion: np.ndarray) -> float:
    """Top-1 accuracy, percent."""
    return 100.0 * float(np.trace(confusion)) / float(confusion.sum())


def group_accuracies(confusion: np.ndarray, sizes: Sequence[int]) -> list[float]:
    """Accuracy on each consecutive group of classes, predicting among all seen (one row of the accuracy matrix)."""
    edges = np.cumsum([0, *sizes])
    return [100.0 * float(np.trace(confusion[a:b, a:b])) / float(confusion[a:b].sum()) for a, b in pairwise(edges)]


def class_accuracies(confusion: np.ndarray) -> np.ndarray:
    """Accuracy of every class, percent, float64 [c]."""
    return 100.0 * np.diag(confusion) / confusion.sum(axis=1)


def shot_accuracies(confusion: np.ndarray, counts: Sequence[int] | np.ndarray) -> dict[str, float]:
    """Mean accuracy, percent, of the classes of many (> 100), medium (20 to 100) and few (< 20) training images.

    counts [c]: training images of each class. Groups without classes are left out (Liu et al. 2019, Sec. 5.1).
    """
    counts, found = np.asarray(counts), class_accuracies(confusion)
    groups = {"many": counts > 100, "medium": (counts >= 20) & (counts <= 100), "few": counts < 20}
    return {name: float(found[inside].mean()) for name, inside in groups.items() if inside.any()}


def confusion_rates(confusion: np.ndarray, num_old: int) -> dict[str, float]:
    """Share of old-class images predicted as a new class and the reverse, percent; empty without old classes."""
    old, new = confusion[:num_old], confusion[num_old:]
    if not len(old) or not len(new):
        return {}
    return {
        "old_to_new": 100.0 * float(old[:, num_old:].sum()) / float(old.sum()),
        "new_to_old": 100.0 * float(new[:, :num_old].sum()) / float(new.sum()),
    }


def forgetting(accuracy_matrix: Sequence[Sequence[float]]) -> float:
    """Mean over groups of (best accuracy before the last phase - accuracy after it), Chaudhry et al. 2018, points.

    Row t holds the accuracy on groups 0..t after phase t. Zero with a single phase.
    """
    last = len(accuracy_matrix) - 1
    if last < 1:
        return 0.0
    drops = [max(accuracy_matrix[t][g] for t in range(g, last)) - accuracy_matrix[last][g] for g in range(last)]
    return float(np.mean(drops))
