"""Head and tail classes (Sec. 4.2). The head is the largest classes that together hold a given share of all images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def head_classes(counts: Sequence[int] | np.ndarray, share: float = 0.9) -> int:
    """Return the smallest h such that the h largest classes hold at least `share` of all images (h_r of Sec. 4.2).

    counts [C]: training images of every class, in any order. Raises ValueError on a share outside (0, 1] or a class
    without images.
    """
    counts = np.sort(np.asarray(counts, dtype=np.int64))[::-1]
    if not 0 < share <= 1:
        raise ValueError(f"the head's share of the images must lie in (0, 1], got {share:g}")
    if not counts.size or counts[-1] < 1:
        raise ValueError("every class needs at least one image to be head or tail")
    return int(np.argmax(counts.cumsum() / counts.sum() >= share)) + 1


def head_and_tail(counts: Sequence[int] | np.ndarray, share: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Return the class ids of the head and of the tail, int64, each from the largest class to the smallest.

    share: the head is the fewest classes that hold this share of all images. Classes of equal size keep their order.
    Raises ValueError as `head_classes` does.
    """
    order = np.argsort(-np.asarray(counts, dtype=np.int64), kind="stable")
    first = head_classes(counts, share)
    return order[:first], order[first:]
