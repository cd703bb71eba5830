"""Channel masks (Sec. 3.3): m = sigmoid(s e), s annealed in every epoch, and the compensated gradient."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Number = TypeVar("Number", float, Tensor)


def scale(batch: Number, num_batches: int, s_max: float) -> Number:
    """Eq. 8: s of a batch, counted from 1, of `num_batches` in an epoch: linear from 1/s_max to s_max.

    An epoch of one batch has s_max. `batch` may be a tensor, as in a captured step, and so is s then.
    """
    if num_batches == 1:
        return batch * 0 + s_max
    return 1 / s_max + (s_max - 1 / s_max) * (batch - 1) / (num_batches - 1)


class _Mask(torch.autograd.Function):
    """Forward sigmoid(s e); backward as if it were sigmoid(e).

    That is what Eq. 9 comes to: it multiplies the gradient by sigma'(e) / (s sigma'(s e)), which cancels the factor
    s sigma'(s e) of the chain rule. Dividing by it overflows once s e is large; leaving both out cannot.
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
    """Eq. 7 with the gradient of Eq. 9: sigmoid(s e), of any shape; de = dm * sigmoid'(e) * rate.

    rate: the learning rate of e over that of the other parameters. SGD without weight decay is linear in its
    gradients, so that a gradient `rate` times as large is a learning rate `rate` times as large.
    """
    return cast(Tensor, _Mask.apply(e, s, rate))


def kept(e: Tensor) -> Tensor:
    """Which channels a mask keeps once s is large, bool [c]: e > 0, and always the largest."""
    return (e > 0) | (e == e.max())
