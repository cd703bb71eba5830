"""Pure functions that turn predictions into the numbers that papers report. Accuracies are in percent."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # figures and reports run without torch
    from torch import Tensor


def average_incremental_accuracy(per_phase: Sequence[float]) -> float:
    """Return the unweighted mean of the accuracies after every phase, base phase included (LUCIR Sec. 4.1, iCaRL)."""
    return float(np.mean(per_phase))


def nearest_mean(features: Tensor, means: Tensor) -> Tensor:
    """Predict the class whose mean is nearest (nearest mean of exemplars): features [n, d], means [c, d] -> int64 [n].

    The distance is the squared Euclidean one, and neither argument is normalised here. ||f||^2 is left out, as it is
    the same for all classes.
    """
    return (means.square().sum(dim=1) - 2 * features @ means.T).argmin(dim=1)


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the images of every pair [true, predicted]; int64 [c, c].

    labels [n] and predictions, of any integer type. Predictions are [n], or [n, k] for top-k. With top-k, an image
    counts as predicted right if its true class is among the k, and otherwise by the first of the k. Raises ValueError
    on a label or a prediction outside the classes, or if there are not as many predictions as labels.
    """
    labels, predictions = (np.asarray(x).astype(np.int64, casting="same_kind") for x in (labels, predictions))
    if labels.ndim != 1 or len(predictions) != len(labels):
        raise ValueError(f"every label needs a prediction, got shapes {labels.shape} and {predictions.shape}")
    if predictions.ndim == 2:
        hit = (predictions == labels[:, None]).any(axis=1)
        predictions = np.where(hit, labels, predictions[:, 0])
    for name, found in (("label", labels), ("prediction", predictions)):
        if (wrong := found[(found < 0) | (found >= num_classes)]).size:
            raise ValueError(f"{name} {wrong[0]} is none of the {num_classes} classes")
    return np.bincount(labels * num_classes + predictions, minlength=num_classes**2).reshape(num_classes, num_classes)


def accuracy(confusion: np.ndarray) -> float:
    """Return the accuracy in percent. Raises ValueError without test images."""
    if (found := _share(np.trace(confusion), confusion)) is None:
        raise ValueError("there are no test images to measure an accuracy on")
    return found


def _share(count: int, images: np.ndarray) -> float | None:
    """Return `count` in percent of the test images in a part of a confusion matrix; None if the part has no images."""
    total = float(images.sum())
    return 100.0 * float(count) / total if total else None


def group_accuracies(confusion: np.ndarray, sizes: Sequence[int]) -> list[float | None]:
    """Return the accuracy on each consecutive group of classes, with predictions among all classes seen.

    The list is one row of the accuracy matrix. A group without test images is None. sizes: classes in each group.
    """
    edges = np.cumsum([0, *sizes])
    return [_share(np.trace(confusion[a:b, a:b]), confusion[a:b]) for a, b in pairwise(edges)]


def class_accuracies(confusion: np.ndarray) -> np.ndarray:
    """Return the accuracy of every class, percent, float64 [c]; nan for a class without test images."""
    images = confusion.sum(axis=1)
    return np.where(images > 0, 100.0 * np.diag(confusion) / np.maximum(images, 1), np.nan)


def shot_accuracies(confusion: np.ndarray, counts: Sequence[int] | np.ndarray) -> dict[str, float]:
    """Return mean accuracies, percent, of classes with many (> 100), medium (20 to 100) and few (< 20) training images.

    counts [c]: training images of each class. Classes without test images do not count, and groups without any class
    that counts are left out. Source: Liu et al. 2019, Sec. 5.1.
    """
    counts, found = np.asarray(counts), class_accuracies(confusion)
    groups = {"many": counts > 100, "medium": (counts >= 20) & (counts <= 100), "few": counts < 20}
    tested = np.isfinite(found)
    return {name: float(found[inside & tested].mean()) for name, inside in groups.items() if (inside & tested).any()}


def confusion_rates(confusion: np.ndarray, num_old: int) -> dict[str, float]:
    """Return the shares, percent, of old-class images predicted as a new class, and of the reverse.

    The dictionary is empty if there are no old or no new classes. A share without test images is left out.
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
    """Return the mean over groups of (best accuracy before the last phase - accuracy after it), in percentage points.

    Row t of the matrix holds the accuracies on groups 0..t after phase t. Groups without test images (None) do not
    count. The result is zero for a single phase. Source: Chaudhry et al. 2018.
    """
    last = len(accuracy_matrix) - 1
    drops = []
    for group in range(last):
        *before, after = [accuracy_matrix[t][group] for t in range(group, last + 1)]
        if after is not None:
            drops.append(max(value for value in before if value is not None) - after)
    return float(np.mean(drops)) if drops else 0.0
