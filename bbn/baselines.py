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
from common.steps import Draws
from common.training import Stage


class MixupLearner(Learner):
    """Mixes two images, or their features, by a share that is sampled for each batch. The loss uses the same share."""

    config: Mixup

    def main(self, phase: Phase) -> Stage:
        main = super().main(phase)
        self.shares = Draws(steps(main.schedule, len(main.indices)), self.context.device.torch)
        main.on_epoch = self.begin_epoch
        if self.config.partners == "reversed":
            return in_pairs(main, self.context.train.labels, "reversed")
        main.parts = 0  # each image is mixed with the next one of the batch, so a batch must stay whole
        return main

    def begin_epoch(self, epoch: int) -> None:
        generator, strength = in_numpy(self.context.generator("shares", epoch)), self.config.strength
        self.shares.set(generator.beta(strength, strength, len(self.shares.values)))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        share, net = self.shares.next(), self.net
        first, second = images.chunk(2) if self.config.partners == "reversed" else (images, None)
        if self.config.layer == "features":  # the batches pass through the network one at a time, as in BBN
            first = net.features(first)
            second = None if second is None else net.features(second)
        mixed = share * first + (1 - share) * (beside(first) if second is None else second)
        logits = net.head(mixed) if self.config.layer == "features" else net(mixed)
        own, other = (labels, beside(labels)) if second is None else labels.chunk(2)
        return bilateral_loss(logits, own, other, share)


def beside(batch: Tensor) -> Tensor:
    """Return the next item of the batch for each item. Batches are in random order, so this is a random partner."""
    return torch.cat([batch[1:], batch[:1]])


class Pair(nn.Module):
    """Two networks that see the same images: images [n, 3, h, w] -> both networks' features [n, 2d]."""

    def __init__(self, first: Net, second: Net) -> None:
        super().__init__()
        self.first, self.second = first, second

    def features(self, images: Tensor) -> Tensor:
        return torch.cat([self.first.features(images), self.second.features(images)], dim=1)


class EnsembleLearner(Learner):
    """Trains two networks in one run. Neither gets gradients of the other, so each trains as if it were alone."""

    config: Ensemble
    net: Any  # a Pair

    def build(self, classes: int) -> None:
        run, device = self.context.run, self.context.device
        members = []
        for number in range(2):
            body: Any = backbone(run.network, seed=run.seed + SECOND * number)
            head = LinearHead(body.out_features, classes, self.context.generator("head", number))
            members.append(Net(body, head, device))
        self.net = Pair(*members)

    def main(self, phase: Phase) -> Stage:
        return in_pairs(super().main(phase), self.context.train.labels, self.config.sampler)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        members = zip((self.net.first, self.net.second), images.chunk(2), labels.chunk(2), strict=True)
        return torch.stack([F.cross_entropy(net(x), y) for net, x, y in members]).sum()

    @classmethod
    def exported(cls, run: Run, left: Callable[[Run], dict[str, Tensor]]) -> tuple[Run, dict[str, Tensor]]:
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
        return {"counts": self.context.counts.tolist()}


class UnitLearner(RebalanceLearner):
    """Trains a baseline on unit features, and measures each class's distance to its centre (supplement, Fig. 6)."""

    def __init__(self, config: UnitFeatures, context: Context) -> None:
        super().__init__(config.baseline, context)

    def build(self, classes: int) -> None:
        super().build(classes)
        self.net.backbone = nn.Sequential(self.net.backbone, Unit())

    def summary(self, phase: Phase) -> dict[str, Any]:
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
    """Return each class's mean L2 distance between its features and their mean. features [n, d], labels [n]."""
    classes = [features[labels == c] for c in range(int(labels.max()) + 1)]
    return [round(float((f - f.mean(dim=0)).norm(dim=1).mean()), 5) for f in classes]
