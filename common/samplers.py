"""How often each class is drawn: uniform over images, class-balanced, reversed, square-root; torch only to draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:  # probabilities alone need none, so that figures of them do not load it
    import torch
    from torch import Tensor

Kind = Literal["uniform", "balanced", "reversed", "sqrt"]
_POWERS: dict[str, float] = {"uniform": 1.0, "balanced": 0.0, "reversed": -1.0, "sqrt": 0.5}


def class_probabilities(counts: Sequence[int] | np.ndarray, kind: Kind = "uniform") -> np.ndarray:
    """Probability that a drawn image is of each class, float64 [C], for `counts` [C] images a class.

    uniform: n_i / n, every image alike; balanced: 1 / C; reversed: 1 / n_i (BBN Eq. 4); sqrt: sqrt(n_i); normalised.
    Raises ValueError on an unknown kind or a class without images.
    """
    if kind not in _POWERS:
        raise ValueError(f"unknown sampler {kind!r}; choose one of {', '.join(get_args(Kind))}")
    counts = np.asarray(counts, dtype=np.float64)
    if not counts.size or not (counts > 0).all():
        raise ValueError("every class needs at least one image to be drawn")
    shares = counts ** _POWERS[kind]
    return shares / shares.sum()


def class_sampler(labels: Tensor, kind: Kind) -> Callable[[Tensor, torch.Generator], Tensor]:
    """A `Stage.sampler`: (indices, CPU generator) -> as many indices, drawn with replacement on the CPU.

    For every place a class is drawn by `class_probabilities` of the stage's own counts, then one of its images
    (BBN Sec. 3 and official code). uniform visits every image once, in random order. labels [n] are of the whole
    training set. Raises ValueError on an unknown kind.
    """
    from common.training import shuffled

    class_probabilities([1], kind)  # an unknown kind is found before training
    if kind == "uniform":
        return shuffled
    return lambda indices, generator: draw(labels[indices], indices, kind, generator)


def draw(labels: Tensor, indices: Tensor, kind: Kind, generator: torch.Generator) -> Tensor:
    """As many of `indices` as there are, with replacement: a class by `class_probabilities`, then one of its images.

    labels [n] are those of `indices` [n]. With kind uniform every draw takes every image alike.
    """
    import torch

    by_class = labels.cpu().argsort(stable=True)  # places in `indices`, grouped by class
    counts = labels.cpu().unique(return_counts=True)[1]
    firsts = counts.cumsum(0) - counts
    probabilities = torch.from_numpy(class_probabilities(counts.numpy(), kind))
    drawn = torch.multinomial(probabilities, len(indices), replacement=True, generator=generator)
    within = (torch.rand(len(indices), generator=generator, dtype=torch.float64) * counts[drawn]).long()
    return indices[by_class[firsts[drawn] + within].to(indices.device)]
