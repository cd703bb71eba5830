"""Add two read-outs to the classifier's own: without one extractor, and by a classifier fitted to all images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from common.heads import extract
from common.incremental import Context
from der.expand import Expandable

ITERATIONS, DECAY = 100, 1e-4  # of the fit in `logistic`; DECAY acts on the weights of standardised features


def logits_without_each(features: Tensor, weight: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """Return the logits [n, c] without each extractor in turn: its features are set to 0.

    features [n, d], weight [c, d], widths: the number of features of every extractor.
    """
    logits = features @ weight.T
    parts = zip(features.split(list(widths), dim=1), weight.split(list(widths), dim=1), strict=True)
    return [logits - part @ block.T for part, block in parts]


def fit_probe(net: Expandable, context: Context, seen: int) -> Callable[[Tensor], Tensor]:
    """Fit a classifier of the `seen` classes to the frozen features of all their training images.

    Returns a function from features [n, d] to classes [n]. This classifier measures the representation alone:
    forgetting and new-class bias of the network's own classifier do not affect it.
    """
    indices = context.of_classes(0, seen)
    labels, features = context.train.labels[indices], extract(net, context.train, indices)  # type: ignore[arg-type]
    mean, std = features.mean(dim=0), features.std(dim=0).clamp(min=1e-6)
    weight, bias = logistic((features - mean) / std, labels, seen)
    return lambda test: ((test - mean) / std @ weight.T + bias).argmax(dim=1)


def logistic(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Fit a softmax regression by L-BFGS from zero. Returns (weight [c, d], bias [c])."""
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
