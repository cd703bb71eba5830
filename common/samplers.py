"""Samplers that choose each image's class: uniform over images, class-balanced, reversed or square-root.

Torch is imported only when images are sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:  # probabilities do not need torch, so figures of them do not import it
    import torch
    from torch import Tensor

Kind = Literal["uniform", "balanced", "reversed", "sqrt"]
_POWERS: dict[str, float] = {"uniform": 1.0, "balanced": 0.0, "reversed": -1.0, "sqrt": 0.5}


def class_probabilities(counts: Sequence[int] | np.ndarray, kind: Kind = "uniform") -> np.ndarray:
    """Return the probability that a sampled image belongs to each class; float64 [C].

    counts [C]: images of each class. The probabilities are in proportion to n_i (uniform: every image alike), 1
    (balanced), 1 / n_i (reversed, BBN Eq. 4) or sqrt(n_i) (sqrt). Raises ValueError on an unknown kind or a class
    without images.
    """
    if kind not in _POWERS:
        raise ValueError(f"unknown sampler {kind!r}; choose one of {', '.join(get_args(Kind))}")
    counts = np.asarray(counts, dtype=np.float64)
    if not counts.size or not (counts > 0).all():
        raise ValueError("every class needs at least one image to be drawn")
    shares = counts ** _POWERS[kind]
    return shares / shares.sum()


def class_sampler(labels: Tensor, kind: Kind) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Return a `Stage.sampler`: (indices, CPU generator) -> as many indices, sampled with replacement.

    Each place in the epoch gets a class, by `class_probabilities` of the stage's own counts, and then one of its images
    (BBN Sec. 3 and official code). uniform is different: it visits every image once, in random order.
    labels [n]: labels of the whole training set. Raises ValueError on an unknown kind.
    """
    from common.training import shuffled

    class_probabilities([1], kind)  # raises on an unknown kind before training
    if kind == "uniform":
        return shuffled
    return lambda indices, generator: sample_indices(labels[indices], indices, kind, generator)


def sample_indices(labels: Tensor, indices: Tensor, kind: Kind, generator: torch.Generator) -> Tensor:
    """Sample n of `indices` [n] with replacement: first a class by `class_probabilities`, then one of its images.

    labels [n]: labels of `indices`. With kind uniform all images are equally likely.
    """
    import torch

    by_class = labels.cpu().argsort(stable=True)  # places in `indices`, grouped by class
    counts = labels.cpu().unique(return_counts=True)[1]
    firsts = counts.cumsum(0) - counts
    probabilities = torch.from_numpy(class_probabilities(counts.numpy(), kind))
    sampled = torch.multinomial(probabilities, len(indices), replacement=True, generator=generator)
    within = (torch.rand(len(indices), generator=generator, dtype=torch.float64) * counts[sampled]).long()
    return indices[by_class[firsts[sampled] + within].to(indices.device)]
