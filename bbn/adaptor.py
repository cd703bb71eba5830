"""Cumulative learning: the weight alpha of the conventional branch in each epoch (Sec. 4.3, Table 4)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    import torch

Kind = Literal["parabolic_decay", "linear_decay", "cosine_decay", "parabolic_increment", "equal", "beta"]
Offset = Literal["official", "paper"]
ADAPTORS: dict[str, Kind] = {
    "Equal weight": "equal",
    "beta-distribution": "beta",
    "Parabolic increment": "parabolic_increment",
    "Linear decay": "linear_decay",
    "Cosine decay": "cosine_decay",
    "Parabolic decay": "parabolic_decay",
}
"""Row of Table 4 -> kind of adaptor."""
BETA = 0.2
"""Both parameters of the beta distribution (Table 4)."""


def progress(epoch: int, total_epochs: int, offset: Offset = "official", stretch: float | None = None) -> float:
    """Return how far training has come in `epoch` T, counted from 1.

    offset: paper is T / Tmax, official is (T - 1) / Tmax. stretch: Tmax of the official code divided by the number of
    epochs. None: as in that code, where Tmax is 100 for 90 epochs and 200 for 180 (iNaturalist), and otherwise the
    number of epochs. Raises ValueError on an epoch outside 1..total_epochs, an unknown offset, or a stretch below 1.
    """
    if not 1 <= epoch <= total_epochs:
        raise ValueError(f"epochs count from 1 to {total_epochs}, got {epoch}")
    if offset == "paper":
        return epoch / total_epochs
    if offset == "official":
        if stretch is not None and not stretch >= 1:
            raise ValueError(f"stretch must be at least 1, got {stretch:g}")
        if stretch is None:
            stretch = 10 / 9 if total_epochs in (90, 180) else 1.0
        return (epoch - 1) / (total_epochs * stretch)
    raise ValueError(f"offset must be one of {', '.join(get_args(Offset))}, got {offset!r}")


def alpha(
    epoch: int,
    total_epochs: int,
    kind: Kind = "parabolic_decay",
    offset: Offset = "official",
    generator: np.random.Generator | torch.Generator | None = None,
    stretch: float | None = None,
) -> float:
    """Return alpha in [0, 1], the weight of the conventional branch (Algorithm 1 and Table 4).

    The re-balancing branch has the weight 1 - alpha. Kind beta samples a number at every call, from `generator` (of
    NumPy or torch), or from a new generator if None. offset, stretch: as in `progress`. Raises the ValueErrors of
    `progress`, and ValueError on an unknown kind.
    """
    t = progress(epoch, total_epochs, offset, stretch)
    if kind == "parabolic_decay":
        return 1 - t**2
    if kind == "linear_decay":
        return 1 - t
    if kind == "cosine_decay":
        return math.cos(t * math.pi / 2)
    if kind == "parabolic_increment":
        return t**2
    if kind == "equal":
        return 0.5
    if kind == "beta":
        return float(in_numpy(generator).beta(BETA, BETA))
    raise ValueError(f"the adaptor must be one of {', '.join(get_args(Kind))}, got {kind!r}")


def in_numpy(generator: np.random.Generator | torch.Generator | None) -> np.random.Generator:
    """Return a NumPy generator, seeded by a torch generator if one is given.

    The reason is that torch cannot sample a beta distribution from a given generator.
    """
    if generator is None or isinstance(generator, np.random.Generator):
        return generator or np.random.default_rng()
    import torch

    return np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
