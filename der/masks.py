"""Compute channel masks (Sec. 3.3): m = sigmoid(s e), with s annealed in every epoch, and the compensated gradient."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Number = TypeVar("Number", float, Tensor)


def scale(batch: Number, num_batches: int, s_max: float) -> Number:
    """Return s of Eq. 8, which rises linearly from 1/s_max in the first batch of an epoch to s_max in the last.

    batch: the position in the epoch, counted from 1. An epoch of one batch has s_max. Where `batch` is a tensor, as in
    a captured step, s is a tensor too.
    """
    if num_batches == 1:
        return batch * 0 + s_max
    return 1 / s_max + (s_max - 1 / s_max) * (batch - 1) / (num_batches - 1)


class _Mask(torch.autograd.Function):
    """A function with the value sigmoid(s e) and the gradient of sigmoid(e).

    This is what Eq. 9 amounts to. Eq. 9 multiplies the gradient by sigma'(e) / (s sigma'(s e)), and the denominator
    cancels the factor s sigma'(s e) of the chain rule. The division overflows once s e is large, so both factors are
    left out here.
    """

    @staticmethod
    def forward(ctx: Any, e: Tensor, s: float | Tensor, rate: float) -> Tensor:
        ctx.save_for_backward(e)
        ctx.rate = rate
        return torch.sigmoid(s * e)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (e,) = ctx.saved_tensors
        m = torch.sigmoid(e)
        return gradients[0] * m * (1 - m) * ctx.rate, None, None


def mask(e: Tensor, s: float | Tensor, rate: float = 1.0) -> Tensor:
    """Return the mask sigmoid(s e) of Eq. 7, of any shape, with the gradient of Eq. 9: de = dm * sigmoid'(e) * rate.

    rate: the learning rate of e as a multiple of that of the other parameters. SGD without weight decay is linear in
    its gradients, so a gradient `rate` times as large acts like a learning rate `rate` times as large.
    """
    return cast(Tensor, _Mask.apply(e, s, rate))


def survives(e: Tensor) -> Tensor:
    """Return which channels a mask keeps at large s, bool [c]: those with e > 0, and the one with the largest e."""
    return (e > 0) | (e == e.max())
