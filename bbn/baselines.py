"""Learners of the baselines in the paper's tables: mixup, ensembles, unit features. `common.rebalance` has the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bbn.adaptor import in_numpy
from bbn.losses import bilateral_loss
from bbn.methods import Ensemble, Mixup, UnitFeatures
from bbn.model import SECOND, Unit
from bbn.streams import in_pairs, steps
from common.errors import InputError
from common.heads import LinearHead, Net, extract
from common.incremental import Context, Learner, Phase
from common.rebalance import RebalanceLearner
from common.resnet import backbone
from common.runs import Run
from common.steps import StepNumbers
from common.training import Stage


class MixupLearner(Learner):
    """Mixes two images, or their features, by a share that is sampled for each batch. The loss uses the same share."""

    config: Mixup

    def main(self, phase: Phase) -> Stage:
        """Return the main stage, with pairs of batches if partners come from the reversed sampler."""
        main = super().main(phase)
        self.shares = StepNumbers(steps(main.schedule, len(main.indices)), self.context.device.torch)
        main.on_epoch = self.begin_epoch
        if self.config.partners == "reversed":
            return in_pairs(main, self.context.train.labels, "reversed")
        main.parts = 0  # each image is mixed with the next one of the batch, so a batch must stay whole
        return main

    def begin_epoch(self, epoch: int) -> None:
        """Sample the shares of an epoch's batches from the beta distribution."""
        generator, strength = in_numpy(self.context.generator("shares", epoch)), self.config.strength
        self.shares.set(generator.beta(strength, strength, len(self.shares.values)))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of mixed images or features, in the proportion that they are mixed in."""
        share, net = self.shares.next(), self.net
        first, second = images.chunk(2) if self.config.partners == "reversed" else (images, None)
        if self.config.layer == "features":  # the batches pass through the network one at a time, as in BBN
            first = net.features(first)
            second = None if second is None else net.features(second)
        mixed = share * first + (1 - share) * (next_in_batch(first) if second is None else second)
        logits = net.head(mixed) if self.config.layer == "features" else net(mixed)
        own, other = (labels, next_in_batch(labels)) if second is None else labels.chunk(2)
        return bilateral_loss(logits, own, other, share)


def next_in_batch(batch: Tensor) -> Tensor:
    """Return the next item of the batch for each item. Batches are in random order, so this is a random partner."""
    return torch.cat([batch[1:], batch[:1]])


class Pair(nn.Module):
    """Two networks that see the same images: images [n, 3, h, w] -> both networks' features [n, 2d]."""

    def __init__(self, first: Net, second: Net) -> None:
        super().__init__()
        self.first, self.second = first, second

    def features(self, images: Tensor) -> Tensor:
        """Return the concatenated features of both networks, fp32 [n, 2d]."""
        return torch.cat([self.first.features(images), self.second.features(images)], dim=1)


class EnsembleLearner(Learner):
    """Trains two networks in one run. Neither gets gradients of the other, so each trains as if it were alone."""

    config: Ensemble
    net: Any  # a Pair

    def build(self, classes: int) -> None:
        """Make two networks of the same kind, initialised differently."""
        run, device = self.context.run, self.context.device
        members = []
        for number in range(2):
            body: Any = backbone(run.network, seed=run.seed + SECOND * number)
            head = LinearHead(body.out_features, classes, self.context.generator("head", number))
            members.append(Net(body, head, device))
        self.net = Pair(*members)

    def main(self, phase: Phase) -> Stage:
        """Return the main stage, in which each network has its own sampler."""
        return in_pairs(super().main(phase), self.context.train.labels, self.config.sampler)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of both networks' cross-entropies, each on its own half of the batch."""
        members = zip((self.net.first, self.net.second), images.chunk(2), labels.chunk(2), strict=True)
        return torch.stack([F.cross_entropy(net(x), y) for net, x, y in members]).sum()

    @classmethod
    def exported(cls, run: Run, left: Callable[[Run], dict[str, Tensor]]) -> tuple[Run, dict[str, Tensor]]:
        """Raise InputError: no single network maps images to the ensemble's predictions."""
        raise InputError(
            f"run {run.hash}: Ensemble is two networks, whose probabilities are averaged; to export one alone, train "
            f"Rebalance with its sampler, uniform or {run.method.sampler}"
        )

    def readouts(self, features: Tensor, phase: Phase) -> dict[str, Tensor]:
        """Return predictions by the mean of both posteriors, and by the posterior of each network."""
        members = zip((self.net.first, self.net.second), features.chunk(2, dim=1), strict=True)
        first, second = (net.head(half).softmax(dim=1) for net, half in members)
        return {
            "cnn": (first + second).argmax(dim=1),
            "first": first.argmax(dim=1),
            "second": second.argmax(dim=1),
        }

    def summary(self, phase: Phase) -> dict[str, Any]:
        """Return the class sizes alone, since there are two heads."""
        return {"counts": self.context.counts.tolist()}


class UnitLearner(RebalanceLearner):
    """Trains a baseline on unit features, and measures each class's distance to its centre (supplement, Fig. 6)."""

    def __init__(self, config: UnitFeatures, context: Context) -> None:
        super().__init__(config.baseline, context)

    def build(self, classes: int) -> None:
        """Make the baseline's network, with features scaled to unit length."""
        super().build(classes)
        self.net.backbone = nn.Sequential(self.net.backbone, Unit())

    def summary(self, phase: Phase) -> dict[str, Any]:
        """Add the mean distance of each class's features to their centre, on both splits."""
        context = self.context
        parts = {
            "train": (context.train, context.of_classes(0, phase.seen)),
            "test": (context.test, torch.arange(len(context.test.labels), device=context.device.torch)),
        }
        spread = {
            f"spread_{name}": spreads(extract(self.net, images, indices), images.labels[indices])
            for name, (images, indices) in parts.items()
        }
        return super().summary(phase) | spread


def spreads(features: Tensor, labels: Tensor) -> list[float]:
    """Return for each class the mean L2 distance of its features from their mean. features [n, d], labels [n]."""
    classes = [features[labels == c] for c in range(int(labels.max()) + 1)]
    return [round(float((f - f.mean(dim=0)).norm(dim=1).mean()), 5) for f in classes]
