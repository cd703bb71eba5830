"""The paper's losses as pure functions, in the paper's order. Cosines are not yet multiplied by the scale eta."""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from common.distributed import count_over_batch


def distillation(logits: Tensor, old_logits: Tensor, temperature: float = 2.0) -> Tensor:
    """Return Eq. 2: KL(softmax(old/T) || softmax(new/T)) over the old classes, averaged over the batch.

    logits [n, c], old_logits [n, c_old]. The official code also multiplies by T^2 * beta, which is 1 with its values.
    Raises ValueError on a temperature that is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"the temperature must be positive, got {temperature:g}")
    logits = logits[:, : old_logits.shape[1]]
    return F.kl_div(
        F.log_softmax(logits / temperature, dim=1),
        F.softmax(old_logits.detach() / temperature, dim=1),
        reduction="batchmean",
    )


def cosine_distillation(cosines: Tensor, old_cosines: Tensor) -> Tensor:
    """Return Eq. 5 as the official code computes it: squared differences of cosines, summed over the old classes.

    The result is averaged over the batch. cosines [n, c], old_cosines [n, c_old]. The paper prints the distance without
    the square, and with a stray minus sign.
    """
    return (cosines[:, : old_cosines.shape[1]] - old_cosines.detach()).square().sum(dim=1).mean()


def less_forget(features: Tensor, old_features: Tensor) -> Tensor:
    """Return Eq. 6: the mean of 1 - cos(f, f_old) over all images of the batch.

    features and old_features are [n, d]. The old model gets no gradient. Raises ValueError if the shapes differ.
    """
    if features.shape != old_features.shape:
        raise ValueError(f"old features must be of the same images, got {features.shape} and {old_features.shape}")
    return (1 - F.cosine_similarity(features, old_features.detach(), dim=1)).mean()


def adaptive_weight(
    base: float, num_old: int, num_new: int, direction: Literal["code", "paper", "fixed"] = "code"
) -> float:
    """Return Eq. 7: lambda in a phase that adds `num_new` classes to `num_old`.

    direction: code is base * sqrt(old / new), which made the published numbers; paper is base * sqrt(new / old), as
    printed; fixed is base. Raises ValueError on another direction, or if there are no old or no new classes.
    """
    if num_old < 1 or num_new < 1:
        raise ValueError(f"the weight needs old and new classes, got {num_old} and {num_new}")
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
    """Return Eq. 8, which pushes an exemplar's own cosine above those of its k nearest new classes, by the margin.

    cosines [n, c], labels [n] as positions in the class order. Images of new classes are ignored, and a batch without
    exemplars gives 0. reduction: mean averages over exemplars and negatives (official code); sum_k sums over negatives,
    as printed. Raises ValueError on another reduction, a k below 1, a negative num_old, or fewer than k new classes.
    """
    if k < 1 or num_old < 0 or reduction not in ("mean", "sum_k"):
        raise ValueError(f"k, num_old and reduction cannot be {k}, {num_old} and {reduction!r}")
    if cosines.shape[1] - num_old < k:
        raise ValueError(f"the margin loss needs at least {k} new classes a phase, got {cosines.shape[1] - num_old}")
    own = cosines.gather(1, labels.unsqueeze(1))
    negatives = cosines[:, num_old:].topk(k, dim=1).values
    hinge = (margin - own + negatives).clamp(min=0)
    # A mask, in place of indexing, keeps all shapes the same from batch to batch.
    is_old = (labels < num_old).to(hinge.dtype)
    # With several processes, one process's share of the count may be less than 1.
    total = (hinge.sum(dim=1) * is_old).sum() / count_over_batch(is_old.sum(), len(labels)).clamp(min=1e-6)
    return total / k if reduction == "mean" else total
