"""The losses of the paper as pure functions, in its order. Cosines are taken before the scale eta."""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from common.training import of_batch


def distillation(logits: Tensor, old_logits: Tensor, temperature: float = 2.0) -> Tensor:
    """Eq. 2: KL(softmax(old/T) || softmax(new/T)) over the old classes, mean over the batch.

    logits [n, c], old_logits [n, c_old]. The official T^2 * beta = 1, so nothing multiplies it.
    """
    logits = logits[:, : old_logits.shape[1]]
    return F.kl_div(
        F.log_softmax(logits / temperature, dim=1),
        F.softmax(old_logits.detach() / temperature, dim=1),
        reduction="batchmean",
    )


def cosine_distillation(cosines: Tensor, old_cosines: Tensor) -> Tensor:
    """Eq. 5 as the official code computes it: squared differences of the old classes' cosines, summed, batch mean.

    cosines [n, c], old_cosines [n, c_old]. The paper prints the distance un-squared and with a stray minus sign.
    """
    return (cosines[:, : old_cosines.shape[1]] - old_cosines.detach()).square().sum(dim=1).mean()


def less_forget(features: Tensor, old_features: Tensor) -> Tensor:
    """Eq. 6: mean over the batch of 1 - cos(f, f_old), all samples; [n, d] each. No gradient to the old model."""
    return (1 - F.cosine_similarity(features, old_features.detach(), dim=1)).mean()


def adaptive_weight(
    base: float, num_old: int, num_new: int, direction: Literal["code", "paper", "fixed"] = "code"
) -> float:
    """Eq. 7: lambda of a phase with `num_new` classes after `num_old`.

    code: base * sqrt(old / new), which made the published numbers; paper: base * sqrt(new / old), as printed; fixed:
    base. Raises ValueError on another direction.
    """
    if direction == "code":
        return base * math.sqrt(num_old / num_new)
    if direction == "paper":
        return base * math.sqrt(num_new / num_old)
    if direction == "fixed":
        return base
    raise ValueError(f"direction must be code, paper or fixed, got {direction!r}")


def margin_ranking(
    cosines: Tensor,
    labels: Tensor,
    num_old: int,
    k: int = 2,
    margin: float = 0.5,
    reduction: Literal["mean", "sum_k"] = "mean",
) -> Tensor:
    """Eq. 8: each exemplar's own cosine exceeds those of its k nearest new classes by the margin.

    cosines [n, c], labels [n] positions in the class order; samples of new classes are ignored, and a batch without
    exemplars gives 0. mean: over exemplars and negatives (official code); sum_k: summed over negatives as printed.
    Raises ValueError where fewer than k classes are new.
    """
    if cosines.shape[1] - num_old < k:
        raise ValueError(f"the margin loss needs at least {k} new classes a phase, got {cosines.shape[1] - num_old}")
    own = cosines.gather(1, labels.unsqueeze(1))
    negatives = cosines[:, num_old:].topk(k, dim=1).values
    hinge = (margin - own + negatives).clamp(min=0)
    # A mask in place of indexing keeps shapes fixed from batch to batch.
    is_old = (labels < num_old).to(hinge.dtype)
    # The count over all processes may be less than 1 for each.
    total = (hinge.sum(dim=1) * is_old).sum() / of_batch(is_old.sum(), len(labels)).clamp(min=1e-6)
    return total / k if reduction == "mean" else total
