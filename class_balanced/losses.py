"""The paper's losses as pure functions, in its order: effective number, class weights, class-balanced losses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from class_balanced.methods import Kind, Reduction
from common.imbalance import class_weights, effective_number
from common.rebalance import weigh

__all__ = ["class_balanced_loss", "class_weights", "effective_number", "sample_losses", "starting_bias"]


def sample_losses(logits: Tensor, labels: Tensor, kind: Kind = "softmax", gamma: float = 0.0) -> Tensor:
    """Return the base loss of every sample, [n], before any class weight. logits [n, c], labels [n].

    softmax: cross-entropy (Sec. 4.1). sigmoid: binary cross-entropy, summed over the classes (Sec. 4.2). focal: the
    sigmoid loss with every term multiplied by (1 - p_t)^gamma (Sec. 4.3). gamma is for focal alone. Raises ValueError
    on another kind. A label that is no class is refused as by F.cross_entropy: an error on a CPU, a failed assertion on
    a GPU.
    """
    if kind == "softmax":
        return F.cross_entropy(logits, labels, reduction="none")
    if kind not in ("sigmoid", "focal"):
        raise ValueError(f"the loss must be softmax, sigmoid or focal, got {kind!r}")
    # scatter_ refuses a label that is no class. A comparison with all classes would let it pass as a row of False.
    own = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, labels.long().unsqueeze(1), True)
    z = torch.where(own, logits, -logits)  # z_t of Sec. 4.2: p_t = sigmoid(z_t)
    losses = -F.logsigmoid(z)
    if kind == "focal":  # as exp of a logarithm: (1 - p)^gamma has no finite gradient at p = 1 where gamma < 1
        losses = losses * torch.exp(gamma * F.logsigmoid(-z))
    return losses.sum(dim=1)


def class_balanced_loss(
    logits: Tensor,
    labels: Tensor,
    counts: Sequence[int] | np.ndarray,
    beta: float,
    kind: Kind = "softmax",
    gamma: float = 0.0,
    reduction: Reduction = "batch",
) -> Tensor:
    """Return the mean of base losses times class weights (Eq. 6 and later), a scalar. logits [n, c], labels [n].

    counts [c]: images of every class in the whole training set. reduction: batch divides by the batch size, as the
    official code does. weighted_mean divides by the sum of the weights, as `torch.nn.CrossEntropyLoss(weight=)` does.
    Raises ValueError on a beta outside [0, 1), an empty class, counts of another length, a negative gamma, a gamma with
    another loss than focal, and an unknown kind or reduction.
    """
    weights = class_weights(counts, beta)
    if weights.shape != logits.shape[1:]:
        raise ValueError(f"{weights.size} counts given for logits of {logits.shape[1]} classes")
    if not 0 <= gamma < math.inf or (gamma and kind != "focal"):
        raise ValueError(
            f"gamma must be a number and not negative, and is for the focal loss alone, got {gamma:g} for {kind}"
        )
    labels, precise = labels.long(), torch.promote_types(logits.dtype, torch.float32)
    of_class = torch.as_tensor(weights, dtype=precise, device=logits.device)
    return weigh(sample_losses(logits.to(precise), labels, kind, gamma), of_class.index_select(0, labels), reduction)


def starting_bias(kind: Kind, classes: int) -> float:
    """Return the bias of a fresh classifier (Sec. 5.2).

    It is 0 for softmax. For the other losses it is -log(C - 1), so that every class starts at p = 1/C.
    """
    return 0.0 if kind == "softmax" else -float(np.log(max(classes - 1, 1)))
