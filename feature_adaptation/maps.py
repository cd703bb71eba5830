"""Maps from the previous feature space to the current one, all fitted to the same pairs of current images.

The paper's is the MLP. The others are what it is compared with; none sees an old image.
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
    """Row-aligned features of the same images: before [n, d], after [n, d], labels [n]."""

    old: Tensor
    new: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if not len(self.old) == len(self.new) == len(self.labels):
            raise ValueError("pairs need the same images on both sides")

    def at(self, rows: Tensor) -> Pairs:
        return Pairs(self.old[rows], self.new[rows], self.labels[rows])

    def join(self, other: Pairs) -> Pairs:
        parts = ((self.old, other.old), (self.new, other.new), (self.labels, other.labels))
        return Pairs(*map(torch.cat, parts))


def least_squares(old: Tensor, new: Tensor) -> Tensor:
    """W [d, d] with old W = new in the least-squares sense, a hair's breadth of ridge towards the identity.

    So directions that no pair has are left as they are; where all are there, the ridge is beyond float's precision.
    """
    x, y = old.double(), new.double()
    gram, eye = x.T @ x, torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    ridge = 1e-9 * gram.diagonal().mean().clamp(min=1e-12) * eye
    return (eye + torch.linalg.solve(gram + ridge, x.T @ (y - x))).to(old)


def on_directions(old: Tensor, new: Tensor, sigma: float, rows: Tensor) -> Tensor:
    """SDC at every stored vector: the drift of unit features is added to the unit vector, and both times its norm."""
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
    """The map of `config.map` and the loss it was left with (nan without training).

    batches(n): the batches of rows to train on; classify(mapped [b, d], labels [b]): L_cls under the fixed head;
    positive: whether the extractor ends in a ReLU, and so the MLP.
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
