"""Read-outs beside the classifier's own: without one extractor, and by a classifier fitted to all training images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from common.heads import extract
from common.incremental import Context
from der.expand import Expandable

ITERATIONS, DECAY = 100, 1e-4  # of the fit below; DECAY is that of standardised features' weights


def without(features: Tensor, weight: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """Logits [n, c] with the features of each extractor in turn set to 0. features [n, d], weight [c, d]."""
    logits = features @ weight.T
    parts = zip(features.split(list(widths), dim=1), weight.split(list(widths), dim=1), strict=True)
    return [logits - part @ block.T for part, block in parts]


def fitted(net: Expandable, context: Context, seen: int) -> Callable[[Tensor], Tensor]:
    """A classifier of the `seen` classes on the frozen features of all their training images; features -> classes [n].

    It measures the representation alone: forgetting and new-class bias of the classifier are not in it.
    """
    indices = context.of_classes(0, seen)
    labels, features = context.train.labels[indices], extract(net, context.train, indices)  # type: ignore[arg-type]
    mean, std = features.mean(dim=0), features.std(dim=0).clamp(min=1e-6)
    weight, bias = logistic((features - mean) / std, labels, seen)
    return lambda test: ((test - mean) / std @ weight.T + bias).argmax(dim=1)


def logistic(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Softmax regression by L-BFGS from zero: (weight [c, d], bias [c])."""
    weight = torch.zeros(classes, features.shape[1], device=features.device, requires_grad=True)
    bias = torch.zeros(classes, device=features.device, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(features @ weight.T + bias, labels) + DECAY * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[arg-type]
    return weight.detach(), bias.detach()
