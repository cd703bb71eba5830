"""The paper's losses other than cross-entropy, as pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def auxiliary_targets(labels: Tensor, num_old: int) -> Tensor:
    """Return the auxiliary classifier's targets (Sec. 3.2), int64 [n]: 0 for old classes, 1, 2, ... for the new ones.

    labels [n]: positions in the class order. The first `num_old` classes are old.
    """
    return (labels.long() - num_old + 1).clamp(min=0)


def auxiliary(logits: Tensor, labels: Tensor, num_old: int) -> Tensor:
    """Return L_Ha of Eq. 4: cross-entropy over |Y_t| + 1 classes. logits [n, |Y_t| + 1] of the new extractor alone."""
    return F.cross_entropy(logits, auxiliary_targets(labels, num_old))


def weight_share(kernels: Tensor, reading: Tensor, writing: Tensor, total: float) -> Tensor:
    """Return Eq. 10: the sum of K_l |m_(l-1)| |m_l| over the convolutions l, as a share of all `total` weights.

    kernels [L]: K_l. reading [L]: |m_(l-1)|. writing [L]: |m_l|.
    """
    return (kernels * reading * writing).sum() / total


def sparsity(masks: Sequence[Tensor], kernel_sizes: Sequence[int], in_channels: int = 3) -> Tensor:
    """Return Eq. 10 for a plain chain of convolutions: the share of weights that masks [c_l] leave in use, in (0, 1].

    kernel_sizes: weights for each pair of channels, such as 9 for a 3x3 convolution. |m_0| is `in_channels`, since an
    image is never masked. Raises ValueError where there are no masks, or where masks and kernels differ in number.
    """
    if len(masks) != len(kernel_sizes) or not masks:
        raise ValueError(f"one mask and one kernel size a convolution, got {len(masks)} and {len(kernel_sizes)}")
    kernels = torch.tensor(kernel_sizes, dtype=masks[0].dtype, device=masks[0].device)
    writing = torch.stack([m.abs().sum() for m in masks])
    channels = [in_channels, *(len(m) for m in masks)]
    total = sum(k * a * b for k, a, b in zip(kernel_sizes, channels[:-1], channels[1:], strict=True))
    reading = torch.cat([writing.new_tensor([float(in_channels)]), writing[:-1]])
    return weight_share(kernels, reading, writing, total)
