"""The paper's losses as pure functions, in the paper's order. None of them reads a value back from the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Turn labels [n] into one-hot targets [n, c]. A label outside 0..c-1 gives a row of zeros."""
    return (labels.unsqueeze(1) == torch.arange(classes, device=labels.device)).float()


def sigmoid_loss(
    logits: Tensor, labels: Tensor, num_old: int, old_logits: Tensor | None = None, weight: float = 1.0
) -> Tensor:
    """Return Eq. 4 with sigmoids, as in iCaRL's code: binary cross-entropy, the mean over batch and nodes.

    logits [n, c], labels [n], old_logits [n, num_old] of the previous network. Old nodes are trained towards the
    previous network's probabilities, with the factor `weight`. All other nodes are trained towards the label, so
    classes that have not come yet have target 0. At weight 1 this is one cross-entropy with one target vector. Without
    old_logits, or at weight 0, every node is trained towards the label (Eq. 2, fine-tuning).
    """
    targets = one_hot(labels, logits.shape[1])
    if old_logits is None or not weight:
        return F.binary_cross_entropy_with_logits(logits, targets)
    targets = torch.cat([old_logits.detach().sigmoid(), targets[:, num_old:]], dim=1)
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (losses[:, num_old:].sum() + weight * losses[:, :num_old].sum()) / logits.numel()


def softmax_loss(logits: Tensor, labels: Tensor, first: int = 0) -> Tensor:
    """Return cross-entropy over the classes first..c-1.

    Without exemplars these are the new classes, so that the loss does not push old logits down.
    """
    return F.cross_entropy(logits[:, first:], labels - first)


def distillation(logits: Tensor, old_logits: Tensor, temperature: float = 2.0, sizes: Sequence[int] = ()) -> Tensor:
    """Return Eq. 3 with softmax: T^2 KL(old || new) over the old classes, batch mean. Equal logits give 0.

    logits [n, c], old_logits [n, num_old]. sizes: the number of classes of each old task. With sizes, each task has a
    softmax of its own, and their losses are summed (EEIL). Raises ValueError on a temperature that is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"the temperature must be positive, got {temperature:g}")
    total = logits.new_zeros(())
    groups = list(sizes) or [old_logits.shape[1]]
    olds, news = old_logits.detach().split(groups, dim=1), logits[:, : old_logits.shape[1]].split(groups, dim=1)
    for old, new in zip(olds, news, strict=True):
        log_new, old_p = (new / temperature).log_softmax(dim=1), (old / temperature).softmax(dim=1)
        total = total + F.kl_div(log_new, old_p, reduction="batchmean") * temperature**2
    return total


def similarity_loss(features: Tensor, target: Tensor) -> Tensor:
    """Return 1 - cos of the rows of two tensors [n, d], batch mean: L_FD of Eq. 5 and L_sim of Eq. 7.

    The target gets no gradient.
    """
    return (1 - F.cosine_similarity(features, target.detach(), dim=1)).mean()


def attention_distillation(maps: Tensor, old_maps: Tensor, weight: Tensor, old_weight: Tensor) -> Tensor:
    """Return LwM's L_AD, a batch mean: the L1 distance between two Grad-CAM maps of norm 1.

    The maps are of the class that the previous network ranks first.

    maps, old_maps [n, d, h, w] are outputs of the last stage. weight [c, d], old_weight [c_old, d] are those of the
    heads. With mean pooling and a linear head, a class's Grad-CAM weights are its row of the head, divided by h w. So
    the map needs no second backward pass, and the new network gets its gradient through both maps and rows.
    """
    best = F.linear(old_maps.mean(dim=(2, 3)), old_weight).argmax(dim=1)

    def attention(maps: Tensor, rows: Tensor) -> Tensor:
        cam = torch.einsum("ndhw,nd->nhw", maps, rows).relu().flatten(1)
        return F.normalize(cam, dim=1)

    old = attention(old_maps, old_weight[best]).detach()
    return (attention(maps, weight[best]) - old).abs().sum(dim=1).mean()
