"""Cumulative learning: how much of the conventional branch there is in an epoch (Sec. 4.3, Table 4)."""

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
"""Table 4's rows, in its words."""
BETA = 0.2
"""Both parameters of the beta distribution (Table 4)."""


def progress(epoch: int, total_epochs: int, offset: Offset = "official", stretch: float | None = None) -> float:
    """How far training is in `epoch`, counted from 1: T / Tmax in the paper, (T - 1) / Tmax in the official code.

    stretch: the official code's Tmax over the number of epochs; None is its rule, which takes 100 and 200 for 90 and
    180 epochs (iNaturalist) and Tmax itself for all else. Raises ValueError on an epoch outside 1..total_epochs, an
    unknown offset or a stretch below 1.
    """
    if not 1 <= epoch <= total_epochs:
        raise ValueError(f"epochs count from 1 to {total_epochs}, got {epoch}")
    if offset == "paper":
        return epoch / total_epochs
    if offset == "official":
        if stretch is not None and stretch < 1:
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
    """Weight of the conventional branch in [0, 1] (Algorithm 1 and Table 4); 1 - alpha is the re-balancing branch's.

    `generator`, of NumPy or of torch, is for kind beta, a fresh draw at every call; None draws from a new one.
    `stretch` as in `progress`. Raises ValueError as `progress`, and on an unknown kind.
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
    """A NumPy generator seeded by one of torch, which draws no beta distribution from a generator of one's own."""
    if generator is None or isinstance(generator, np.random.Generator):
        return generator or np.random.default_rng()
    import torch

    return np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
