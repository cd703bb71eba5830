"""Fit maps from the previous feature space to the current one, all to the same pairs of current images.

The paper's map is the MLP. The others are there to compare it with. None of them sees an old image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.resnet import INITIALISING
from feature_adaptation.adapter import FeatureAdapter, fit_adapter
from feature_adaptation.methods import Adaptation
from feature_adaptation.sdc import compensate, mean_shift

Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Pairs:
    """Features of the same images, row by row: old [n, d], new [n, d] and labels [n]."""

    old: Tensor
    new: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if not len(self.old) == len(self.new) == len(self.labels):
            raise ValueError("pairs need the same images on both sides")

    def at(self, rows: Tensor) -> Pairs:
        """Return the pairs at `rows` [k]."""
        return Pairs(self.old[rows], self.new[rows], self.labels[rows])

    def join(self, other: Pairs) -> Pairs:
        """Return these pairs, followed by the other ones."""
        parts = ((self.old, other.old), (self.new, other.new), (self.labels, other.labels))
        return Pairs(*map(torch.cat, parts))


def least_squares(old: Tensor, new: Tensor) -> Tensor:
    """Solve old W = new for W [d, d] by least squares, with a tiny ridge towards the identity.

    Directions that no pair covers thus stay as they are. Where all directions are covered, the ridge is too small for
    fp32 to show.
    """
    x, y = old.double(), new.double()
    gram, eye = x.T @ x, torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    ridge = 1e-9 * gram.diagonal().mean().clamp(min=1e-12) * eye
    return (eye + torch.linalg.solve(gram + ridge, x.T @ (y - x))).to(old)


def on_directions(old: Tensor, new: Tensor, sigma: float, rows: Tensor) -> Tensor:
    """Move every stored vector by SDC: add the drift of unit features to its unit vector, and multiply by its norm."""
    moved = compensate(F.normalize(rows, dim=1), F.normalize(old, dim=1), F.normalize(new, dim=1), sigma)
    return moved * rows.norm(dim=1, keepdim=True)


@torch.no_grad()
def _apply(adapter: FeatureAdapter, rows: Tensor) -> Tensor:
    return torch.cat([adapter(part) for part in rows.split(8192)]) if len(rows) else rows


def fit_map(
    config: Adaptation,
    pairs: Pairs,
    batches: Callable[[int], Iterator[Tensor]],
    classify: Callable[[Tensor, Tensor], Tensor],
    generator: torch.Generator,
    positive: bool = False,
) -> tuple[Transform, float]:
    """Fit the map that `config.map` names. Returns the map and the loss at the end of training, nan if it needs none.

    batches(n): yields batches of the n rows to train on. classify(mapped [b, d], labels [b]): L_cls under the fixed
    head. positive: whether the extractor ends in a ReLU, as the MLP then does too.
    """
    old, new = pairs.old, pairs.new
    nothing = float("nan")
    if config.map == "identity":
        return (lambda rows: rows), nothing
    if config.map == "shift":
        return (lambda rows: mean_shift(rows, old, new)), nothing
    if config.map == "sdc":
        return (lambda rows: on_directions(old, new, config.sigma, rows)), nothing
    if config.map == "linear":
        matrix = least_squares(old, new)
        return (lambda rows: rows @ matrix), nothing
    residual = config.map == "residual"
    with INITIALISING:
        adapter = FeatureAdapter(old.shape[1], config.hidden_layers, config.expansion, residual, positive)
    adapter.initialise(generator).to(old.device)

    def class_loss(mapped: Tensor, rows: Tensor) -> Tensor:
        return classify(mapped, pairs.labels[rows])

    recipe = config.adapter
    loss = fit_adapter(adapter, old, new, batches(len(old)), recipe, config.alpha, class_loss)
    return (lambda rows: _apply(adapter, rows)), loss
