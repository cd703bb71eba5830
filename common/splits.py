"""Class orders, phases and long-tailed subsets. The module needs only NumPy, so that planning needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from common.data.orders import PUBLISHED

Profile = Literal["exp", "step"]


def class_order(num_classes: int, seed: int = 1993) -> np.ndarray:
    """Return the order in which classes arrive, int64 [C]: NumPy's legacy shuffle of 0..C-1, as in published orders.

    LUCIR and its successors use seed 1993 (official code). A training label is a class's position in the order. Raises
    ValueError on fewer than one class.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    order = np.arange(num_classes)
    np.random.RandomState(seed).shuffle(order)
    return order


def named_order(name: str, num_classes: int) -> np.ndarray:
    """Return the class order that a Run's `order` names; int64 [C].

    A number is the seed of `class_order`; native is the data set's own order. O1, O2 and O3 are published orders of 100
    classes. With fewer classes, a published order keeps those that exist, in the same order. Raises ValueError on an
    unknown name, or if there are more classes than a published order has.
    """
    if name == "native":
        return np.arange(num_classes)
    if name in PUBLISHED:
        order = np.array(PUBLISHED[name])
        if num_classes > len(order):
            raise ValueError(f"class order {name} has {len(order)} classes, not {num_classes}; give a seed")
        return order[order < num_classes]
    if not name.isdecimal() or len(name) > 10 or int(name) >= 2**32:
        seed, names = "the seed of a shuffle, such as 1993, below 2^32", ", ".join(PUBLISHED)
        raise ValueError(f"unknown class order {name[:80]!r}; give {seed}, native, or {names}")
    return class_order(num_classes, int(name))


def phases(order: Sequence[int] | np.ndarray, base: int, step: int) -> list[np.ndarray]:
    """Return the class ids of every phase, base phase first. With base=0 there is no base phase.

    Raises ValueError if base is out of range, or if the classes after it do not divide into steps.
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
    """Return the inverse of a class order, int64 [C]: `positions(order)[class_id]` is the class's training label."""
    return np.argsort(np.asarray(order))


def longtail_counts(num_classes: int, max_count: int, imbalance: float, profile: Profile = "exp") -> np.ndarray:
    """Return the number of images of every class, head to tail; int64 [C]. Fractions are cut off, as published.

    exp: class i has max_count * imbalance^(-i / (C - 1)) images (Cui et al. 2019, Sec. 5.1). step: classes of the
    second half have max_count / imbalance images each (Cao et al. 2019). Raises ValueError on an unknown profile, or an
    imbalance factor that is below 1 or leaves a class without images.
    """
    if num_classes < 1 or max_count < 1:
        raise ValueError(f"need at least one class and one image, got {num_classes} classes of {max_count}")
    if not imbalance >= 1:
        raise ValueError(f"the imbalance factor is largest / smallest class, at least 1, got {imbalance:g}")
    ratio = 1 / imbalance
    if profile == "exp":
        shares = [ratio ** (i / max(num_classes - 1, 1)) for i in range(num_classes)]
    elif profile == "step":
        shares = [1.0 if i < num_classes // 2 else ratio for i in range(num_classes)]
    else:
        raise ValueError(f"profile must be exp or step, got {profile!r}")
    counts = np.array([int(max_count * share) for share in shares], dtype=np.int64)
    if counts[-1] < 1:
        raise ValueError(
            f"an imbalance factor of {imbalance:g} leaves classes without images: the largest has {max_count}; "
            "choose a smaller factor"
        )
    return counts


def longtail_sizes(available: Sequence[int] | np.ndarray, imbalance: float, profile: Profile = "exp") -> np.ndarray:
    """Return `longtail_counts` for classes with `available` [C] images each, in the order of the classes; int64 [C].

    The largest class is the head and sets the scale; the smallest ends the tail. Classes of equal size keep their
    order, so in balanced data the first class is the head, as published. Raises ValueError if a class is empty or has
    fewer images than asked for.
    """
    available = np.asarray(available)
    if not available.size or not available.all():
        raise ValueError(f"class {int(available.argmin()) if available.size else 0} has no images")
    wanted = np.empty(len(available), dtype=np.int64)
    wanted[np.argsort(-available, kind="stable")] = longtail_counts(
        len(available), int(available.max()), imbalance, profile
    )
    if (lacking := np.flatnonzero(available < wanted)).size:
        c = int(lacking[0])
        raise ValueError(
            f"an imbalance factor of {imbalance:g} asks for {wanted[c]} images of class {c}, which has {available[c]}; "
            "data that are long-tailed already can be cut by larger factors only"
        )
    return wanted


def longtail_indices(
    labels: Sequence[int] | np.ndarray, imbalance: float, seed: int = 0, profile: Profile = "exp"
) -> np.ndarray:
    """Return the published long-tailed subset: positions in `labels`, class by class; int64 [n].

    Class by class, from label 0 up, one legacy NumPy stream shuffles all images, and the first are kept (LDAM's and
    BBN's official code). So the subset of a larger factor lies within that of a smaller one. `longtail_sizes` says how
    many images are kept, and raises its ValueErrors.
    """
    labels = np.asarray(labels, dtype=np.int64)
    if (labels < 0).any():
        raise ValueError("labels count from 0, but one is negative")
    wanted = longtail_sizes(np.bincount(labels), imbalance, profile)
    stream = np.random.RandomState(seed)
    kept = []
    for c, count in enumerate(wanted):
        members = np.flatnonzero(labels == c)
        stream.shuffle(members)
        kept.append(members[:count])
    return np.concatenate(kept)
