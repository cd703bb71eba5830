"""Class orders and phases of class-incremental protocols. NumPy only, so that planning needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def class_order(num_classes: int, seed: int = 1993) -> np.ndarray:
    """Order in which classes arrive: the legacy NumPy shuffle of 0..C-1 that the field's published orders use.

    Returns int64 [C]. LUCIR and its successors use seed 1993 (official code); training labels are positions in it.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    order = np.arange(num_classes)
    np.random.RandomState(seed).shuffle(order)
    return order


def named_order(name: str, num_classes: int) -> np.ndarray:
    """The class order of a Run: a number is the seed of `class_order`. Raises ValueError on an unknown name."""
    if not name.isdigit():
        raise ValueError(f"unknown class order {name!r}; give the seed of a shuffle, such as 1993")
    return class_order(num_classes, int(name))


def phases(order: Sequence[int] | np.ndarray, base: int, step: int) -> list[np.ndarray]:
    """Class ids of every phase, the base phase first; with base=0 the first phase is an incremental one.

    Raises ValueError where the classes after the base do not divide into steps.
    """
    order = np.asarray(order)
    rest = len(order) - base
    if not 0 <= base <= len(order):
        raise ValueError(f"base must lie between 0 and the {len(order)} classes, got {base}")
    if rest and (step < 1 or rest % step):
        raise ValueError(f"{len(order)} classes - {base} base classes = {rest} do not divide into steps of {step}")
    first = [order[:base]] if base else []
    return first + [order[i : i + step] for i in range(base, len(order), step)] if rest else first


def positions(order: Sequence[int] | np.ndarray) -> np.ndarray:
    """Inverse of a class order: `positions(order)[class_id]` is the training label of that class. int64 [C]."""
    return np.argsort(np.asarray(order))
