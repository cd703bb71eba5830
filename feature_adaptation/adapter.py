"""Stage 2: the feature adaptation network, and how it is fitted to pairs of features (Eq. 7)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from common.errors import RunFailed
from feature_adaptation.losses import similarity_loss
from feature_adaptation.methods import Recipe

Sampler = Callable[[Tensor, torch.Generator], Tensor]


class FeatureAdapter(nn.Module):
    """The feature adaptation network phi: features [n, d] -> [n, d].

    By default it is Linear, ReLU, Linear, with 16 d hidden units. At d = 64 it has 132,160 parameters. residual: the
    network gives x + phi(x), which starts as the identity. positive: it ends in a ReLU, for an extractor that ends in
    one. Raises ValueError where dim, hidden_layers or expansion is below 1.
    """

    def __init__(
        self, dim: int, hidden_layers: int = 1, expansion: int = 16, residual: bool = False, positive: bool = False
    ) -> None:
        super().__init__()
        if dim < 1 or hidden_layers < 1 or expansion < 1:
            raise ValueError("dim, hidden_layers and expansion must be at least 1")
        widths = [dim, *[expansion * dim] * hidden_layers]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.hidden, self.last = nn.Sequential(*layers), nn.Linear(widths[-1], dim)
        self.residual, self.positive = residual, positive
        if residual:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    def forward(self, features: Tensor) -> Tensor:
        moved = self.last(self.hidden(features))
        moved = features + moved if self.residual else moved
        return moved.relu() if self.positive else moved

    def initialise(self, generator: torch.Generator) -> FeatureAdapter:
        """Initialise as torch does for a Linear, U(-1/sqrt(d), 1/sqrt(d)), from a generator on the CPU.

        The last layer of a residual network stays 0.
        """
        for layer in (*self.hidden, *([] if self.residual else [self.last])):
            if isinstance(layer, nn.Linear):
                bound = layer.in_features**-0.5
                for p in (layer.weight, layer.bias):
                    p.data.copy_(torch.empty(p.shape).uniform_(-bound, bound, generator=generator))
        return self


def batches(indices: Tensor, sampler: Sampler, recipe: Recipe, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield `recipe.steps` batches of indices, in one pass of the sampler after another.

    A set that is smaller than a batch is one batch.
    """
    taken = 0
    while taken < recipe.steps:
        for batch in sampler(indices, generator).split(recipe.batch):
            if taken == recipe.steps:
                return
            taken += 1
            yield batch


def descend(
    name: str,
    loss: Callable[[Tensor], Tensor],
    parameters: list[nn.Parameter],
    rows: Iterator[Tensor],
    recipe: Recipe,
) -> float:
    """Minimise loss(batch of indices). Returns the mean loss over the last tenth of the steps.

    name: the stage, for the error message. Raises RunFailed where the mean loss or a parameter is not finite.
    """
    optimiser: torch.optim.Optimizer
    if recipe.optimiser == "adam":
        optimiser = torch.optim.Adam(parameters, recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    else:
        optimiser = torch.optim.SGD(parameters, recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
    tail = max(1, recipe.steps // 10)
    total = torch.zeros((), device=parameters[0].device)
    for step, batch in enumerate(rows):
        value = loss(batch)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        schedule.step()
        if step >= recipe.steps - tail:
            total += value.detach()
    mean = float(total) / tail
    if not math.isfinite(mean) or not all(bool(p.isfinite().all()) for p in parameters):
        raise RunFailed(f"loss not finite in stage {name}, lr {recipe.lr:g}")
    return mean


def fit_adapter(
    adapter: FeatureAdapter,
    old: Tensor,
    new: Tensor,
    rows: Iterator[Tensor],
    recipe: Recipe,
    alpha: float | None,
    classify: Callable[[Tensor, Tensor], Tensor],
) -> float:
    """Fit phi to pairs by Eq. 7 divided by alpha: 1 - cos(new, phi(old)) + classify(phi(old), rows) / alpha.

    Returns the last mean loss (see `descend`). old, new [n, d]: the same image in the same row, under the previous and
    the current extractor. classify: (mapped features [b, d], their row numbers [b]) -> L_cls under the fixed head,
    whose gradient reaches phi alone. alpha None: the first term alone. Divided by alpha, losses of different alpha can
    be compared. Adam's steps do not depend on such a factor.
    """

    def loss(batch: Tensor) -> Tensor:
        mapped = adapter(old[batch])
        similar = similarity_loss(mapped, new[batch])
        return similar if alpha is None else similar + classify(mapped, batch) / alpha

    return descend("adapter", loss, list(adapter.parameters()), rows, recipe)
