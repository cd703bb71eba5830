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
    """Top-1 accuracy, percent. Raises ValueError without test images."""
    if (found := _share(np.trace(confusion), confusion)) is None:
        raise ValueError("there are no test images to measure an accuracy on")
    return found


def _share(count: int, images: np.ndarray) -> float | None:
    """`count` of the test images in a part of a confusion matrix, percent; None where the part has none."""
    total = float(images.sum())
    return 100.0 * float(count) / total if total else None


def group_accuracies(confusion: np.ndarray, sizes: Sequence[int]) -> list[float | None]:
    """Accuracy on each consecutive group of classes, predicting among all seen (one row of the accuracy matrix).

    None for a group without test images.
    """
    edges = np.cumsum([0, *sizes])
    return [_share(np.trace(confusion[a:b, a:b]), confusion[a:b]) for a, b in pairwise(edges)]


def class_accuracies(confusion: np.ndarray) -> np.ndarray:
    """Accuracy of every class, percent, float64 [c]; nan for a class without test images."""
    images = confusion.sum(axis=1)
    return np.where(images > 0, 100.0 * np.diag(confusion) / np.maximum(images, 1), np.nan)


def shot_accuracies(confusion: np.ndarray, counts: Sequence[int] | np.ndarray) -> dict[str, float]:
    """Mean accuracy, percent, of the classes of many (> 100), medium (20 to 100) and few (< 20) training images.

    counts [c]: training images of each class. Classes without test images do not count, and groups without any class
    that counts are left out (Liu et al. 2019, Sec. 5.1).
    """
    counts, found = np.asarray(counts), class_accuracies(confusion)
    groups = {"many": counts > 100, "medium": (counts >= 20) & (counts <= 100), "few": counts < 20}
    tested = np.isfinite(found)
    return {name: float(found[inside & tested].mean()) for name, inside in groups.items() if (inside & tested).any()}


def confusion_rates(confusion: np.ndarray, num_old: int) -> dict[str, float]:
    """Share of old-class images predicted as a new class and the reverse, percent.

    Empty without old classes; a share of no test images is left out.
    """
    old, new = confusion[:num_old], confusion[num_old:]
    if not len(old) or not len(new):
        return {}
    rates = {
        "old_to_new": _share(old[:, num_old:].sum(), old),
        "new_to_old": _share(new[:, :num_old].sum(), new),
    }
    return {name: rate for name, rate in rates.items() if rate is not None}


def forgetting(accuracy_matrix: Sequence[Sequence[float | None]]) -> float:
    """Mean over groups of (best accuracy before the last phase - accuracy after it), Chaudhry et al. 2018, points.

    Row t holds the accuracy on groups 0..t after phase t. Groups without test images (None) do not count. Zero with a
    single phase.
    """
    last = len(accuracy_matrix) - 1
    drops = []
    for group in range(last):
        *before, after = [accuracy_matrix[t][group] for t in range(group, last + 1)]
        if after is not None:
            drops.append(max(value for value in before if value is not None) - after)
    return float(np.mean(drops)) if drops else 0.0
