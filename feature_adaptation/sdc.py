"""Semantic drift compensation (Yu et al., CVPR 2020): old features move with the new images around them."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 2048  # the number of stored rows whose distances are in memory at once


def log_weights(stored: Tensor, old: Tensor, sigma: float) -> Tensor:
    """Return the logarithm of Eq. 11's weights, -d^2 / (2 sigma^2), of every stored row to every old one, [m, n].

    Each row of the result lacks a constant, which a softmax does not see. Both inputs are shifted by the mean of `old`.
    This changes no distance and keeps the products small.
    """
    centre = old.mean(dim=0)
    stored, old = stored - centre, old - centre
    return (stored @ old.T - old.square().sum(dim=1) / 2) / sigma**2


def compensate(stored: Tensor, old: Tensor, new: Tensor, sigma: float = 0.3) -> Tensor:
    """Return stored [m, d] plus the drift new - old [n, d], averaged with weights softmax(-d^2 / 2 sigma^2) (Eq. 9-13).

    d is the distance of a stored row to a row of old. old and new hold the same image in the same row. No input is
    normalised here; `sigma` is meant for unit-norm features. The softmax subtracts the largest exponent, so that rows
    far from all others move with their nearest neighbours instead of by 0 / 0. Raises ValueError on pairs that do not
    match or a sigma that is not positive.
    """
    if old.shape != new.shape or not len(old):
        raise ValueError(f"old and new must be the same images, got {tuple(old.shape)} and {tuple(new.shape)}")
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma:g}")
    drift = new - old
    parts = [log_weights(part, old, sigma).softmax(dim=1) @ drift for part in stored.split(CHUNK)]
    return stored + torch.cat(parts) if parts else stored.clone()


def mean_shift(stored: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """Return stored [m, d] plus the mean drift. SDC becomes this as sigma grows."""
    return stored + (new - old).mean(dim=0)
