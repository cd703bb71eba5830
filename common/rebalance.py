"""Learners and losses of the baselines in `common.imbalance`, which several long-tailed papers compare with."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from common.distributed import count_over_batch
from common.heads import CosineHead, LinearHead
from common.imbalance import Rebalance, Retrain, class_weights
from common.incremental import Context, Learner, Phase
from common.samplers import class_sampler
from common.training import Stage


def weigh(losses: Tensor, weights: Tensor, reduction: str = "batch") -> Tensor:
    """Return the sum of losses [n] times weights [n], divided as `reduction` says.

    batch divides by n, weighted_mean by the sum of the weights. Raises ValueError on another reduction.
    """
    if reduction == "batch":
        return (weights * losses).mean()
    if reduction == "weighted_mean":
        return (weights * losses).sum() / count_over_batch(weights.sum(), len(weights))
    raise ValueError(f"reduction must be batch or weighted_mean, got {reduction!r}")


def softmax_focal(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Return the focal loss of each image [n]: (1 - p)^gamma * -log p, with p the softmax of the true class.

    This is the focal loss of LDAM's official code, without class weights. 1 - p is computed as a sum over the other
    classes, so that its power has a finite gradient even where p rounds to 1.
    """
    log_p = F.log_softmax(logits, dim=1)
    others = torch.arange(logits.shape[1], device=logits.device) != labels.unsqueeze(1)
    log_rest = log_p.masked_fill(~others, -torch.inf).logsumexp(dim=1)
    return -torch.exp(gamma * log_rest) * log_p.gather(1, labels.unsqueeze(1)).squeeze(1)


def ldam_margins(counts: Tensor, largest: float = 0.5) -> Tensor:
    """Return margins in proportion to n^(-1/4) (Cao et al. 2019, Eq. 11); fp32 [C]. The smallest class has `largest`.

    counts [C]: images of every class. Raises ValueError on a class without images.
    """
    if not counts.numel() or counts.min() < 1:
        raise ValueError("every class needs at least one image, but a count is below 1; leave empty classes out")
    margins = counts.double().pow(-0.25)
    return (margins * (largest / margins.max())).float()


def ldam(cosines: Tensor, labels: Tensor, margins: Tensor, scale: float = 30.0) -> Tensor:
    """Return LDAM's loss of each image [n]: the margin is taken off the true class's cosine before cross-entropy.

    cosines [n, c], labels [n], margins [c]. scale: factor of the cosines.
    """
    own = torch.arange(cosines.shape[1], device=cosines.device) == labels.unsqueeze(1)
    return F.cross_entropy(scale * (cosines - own * margins), labels, reduction="none")


@torch.no_grad()
def fresh_head(
    in_features: int, classes: int, generator: torch.Generator | None = None, *, config: Rebalance
) -> LinearHead | CosineHead:
    """Return a baseline's fresh classifier, initialised as `Rebalance.head_start` says."""
    if config.loss == "ldam":
        cosine = CosineHead(in_features, classes, generator, config.scale)
        if config.head_start != "uniform":
            cosine.weight.copy_(F.normalize(cosine.weight, dim=1 if config.head_start == "ldam" else 0))
        return cosine
    linear = LinearHead(in_features, classes, generator)
    if config.head_start == "ldam":
        linear.weight.normal_(0, math.sqrt(2 / in_features), generator=generator)
    return linear


class RebalanceLearner(Learner):
    """Trains with cross-entropy, focal or LDAM loss. Weights and sampler are used from epoch `defer` on."""

    config: Rebalance

    def __init__(self, config: Rebalance, context: Context) -> None:
        super().__init__(config, context)
        self.head = partial(fresh_head, config=config)
        device, counts = context.device.torch, context.counts
        self.target = torch.tensor(class_weights(counts, config.beta), dtype=torch.float32, device=device)
        self.weights = torch.ones_like(self.target)
        self.margins = ldam_margins(torch.from_numpy(counts), config.margin).to(device)
        self.deferred = True

    def main(self, phase: Phase) -> Stage:
        """Return the main stage, which samples uniformly before epoch `defer`, and by `sampler` after it."""
        main = super().main(phase)
        uniform, sampled = (class_sampler(self.context.train.labels, k) for k in ("uniform", self.config.sampler))
        main.on_epoch = self.begin_epoch
        main.sampler = lambda indices, generator: (uniform if self.deferred else sampled)(indices, generator)
        return main

    def begin_epoch(self, epoch: int) -> None:
        """Set the weights and the sampler of an epoch (from 0). Weights change in place: a captured step reads them."""
        self.deferred = epoch < self.config.defer
        self.weights.copy_(torch.ones_like(self.target) if self.deferred else self.target)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the configured loss, weighted by class."""
        c, features = self.config, self.net.features(images)
        if c.loss == "ldam":
            losses = ldam(self.net.head.cosines(features), labels, self.margins, c.scale)
        elif c.loss == "focal":
            losses = softmax_focal(self.net.head(features), labels, c.gamma)
        else:
            losses = F.cross_entropy(self.net.head(features), labels, reduction="none")
        return weigh(losses, self.weights[labels], c.reduction)


class RetrainLearner(Learner):
    """Trains only the classifier, on a backbone without gradients (cRT)."""

    config: Retrain

    def __init__(self, config: Retrain, context: Context) -> None:
        super().__init__(config, context)
        weights = class_weights(context.counts, config.beta)
        self.weights = torch.tensor(weights, dtype=torch.float32, device=context.device.torch)

    def start_from(self, state: dict[str, Tensor]) -> None:
        """Load the final weights of the other Run, except for the classifier if it is to be fresh."""
        head = {f"head.{k}": v for k, v in self.net.head.state_dict().items()} if self.config.fresh else {}
        self.net.load_state_dict({**state, **head})

    def main(self, phase: Phase) -> Stage:
        """Return a main stage that trains only the classifier."""
        main = super().main(phase)
        main.parameters = self.net.head.parameters()
        main.set_mode = self.net.eval if self.config.norms == "frozen" else self.net.train
        main.sampler = class_sampler(self.context.train.labels, self.config.sampler)
        return main

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy on frozen features, weighted by class."""
        losses = F.cross_entropy(self.net.head(self.frozen_features(images)), labels, reduction="none")
        return weigh(losses, self.weights[labels], "weighted_mean")
