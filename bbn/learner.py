"""BBN and its own baselines as learners: who sees which images, the loss, the read-outs. Loops are `common`'s."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bbn.adaptor import alpha
from bbn.losses import bilateral_loss
from bbn.methods import BBN, Ensemble, Mixup, Probe, Sampler, UnitFeatures
from bbn.model import SECOND, BilateralNet, Branch, Unit, mix
from class_balanced.learner import ClassBalancedLearner
from class_balanced.methods import ClassBalanced
from common import metrics, rebalance
from common.heads import LinearHead
from common.incremental import Context, Learner, Net, Phase, extract
from common.rebalance import RebalanceLearner, RetrainLearner
from common.resnet import backbone
from common.runs import Schedule
from common.samplers import draw
from common.training import Stage, shuffled

WEIGHTS = {"rb": 0.0, "alpha 0.25": 0.25, "cnn": 0.5, "alpha 0.75": 0.75, "cb": 1.0}
"""Read-outs of BBN: alpha in testing. The paper's is 0.5; at 0 and 1 one branch answers alone."""


def steps(schedule: Schedule, images: int) -> int:
    """Steps of an epoch over so many images, counted as `fit` counts them."""
    whole = images // schedule.batch
    return max(whole, 1) if schedule.drop_last else math.ceil(images / schedule.batch)


def bilateral(labels: Tensor, kind: Sampler, schedule: Schedule) -> Callable[[Tensor, torch.Generator], Tensor]:
    """A `Stage.sampler` for two branches: `schedule.batch` uniform images, then as many of another sampler, and so on.

    Every index comes at most once among the uniform ones; the others are drawn with replacement (Eq. 4 for reversed).
    Both are as long as `schedule` makes an epoch. labels [n] are of the whole training set.
    """

    def order(indices: Tensor, generator: torch.Generator) -> Tensor:
        used = min(len(indices), steps(schedule, len(indices)) * schedule.batch)
        uniform = shuffled(indices, generator)[:used].split(schedule.batch)
        other = draw(labels[indices], indices, kind, generator)[:used].split(schedule.batch)
        return torch.cat([part for pair in zip(uniform, other, strict=True) for part in pair])

    return order


def in_pairs(stage: Stage, labels: Tensor, kind: Sampler) -> Stage:
    """The stage with twice the batch: its loss gets a uniform half and, after it, one of another sampler."""
    schedule = stage.schedule
    stage.sampler = bilateral(labels, kind, schedule)
    stage.schedule = replace(schedule, batch=2 * schedule.batch)
    return stage


class Draws:
    """A number for each step, set before an epoch; the place moves on the device, so that a captured step finds it."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.values = torch.zeros(count, device=device)
        self.place = torch.zeros(1, dtype=torch.long, device=device)

    def set(self, values: Sequence[float] | np.ndarray) -> None:
        self.values.copy_(torch.as_tensor(np.asarray(values), dtype=torch.float32))
        self.place.zero_()

    def next(self) -> Tensor:
        """This step's number, a scalar."""
        value = self.values.index_select(0, self.place)[0]
        self.place.add_(1)
        return value


class BBNLearner(Learner):
    """Uniform images in one branch, re-balanced ones in the other, mixed by alpha (Sec. 4)."""

    config: BBN
    net: Any  # a BilateralNet

    def build(self, classes: int) -> None:
        run, device, generator = self.context.run, self.context.device, self.context.generator("head", 0)
        net = BilateralNet(
            run.network, classes, device, run.seed, generator, concatenated=self.config.passes == "concatenated"
        )
        self.net = net.to(device.torch, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def stages(self, phase: Phase) -> Iterator[Stage]:
        for main in super().stages(phase):
            self.alphas = Draws(steps(main.schedule, len(main.indices)), self.context.device.torch)
            main.on_epoch = self.begin_epoch
            yield in_pairs(main, self.context.train.labels, self.config.sampler)

    def begin_epoch(self, epoch: int) -> None:
        """Alpha of every step of an epoch (from 0): one value, but a draw a step from the beta distribution."""
        run, c, count = self.context.run, self.config, len(self.alphas.values)
        generator = np.random.default_rng((run.seed, epoch))
        draws = count if c.adaptor == "beta" else 1
        values = [alpha(epoch + 1, run.schedule.epochs, c.adaptor, c.offset, generator) for _ in range(draws)]
        self.alphas.set(np.resize(values, count))
        self.mean_alpha = float(np.mean(values))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Eq. 1 to 3."""
        weight = self.alphas.next()
        (uniform, rebalanced), (y_c, y_r) = images.chunk(2), labels.chunk(2)
        return bilateral_loss(self.net(uniform, rebalanced, weight), y_c, y_r, weight)

    def readouts(self, features: Tensor, phase: Phase) -> dict[str, Tensor]:
        """The paper's at alpha = 0.5, each branch alone, and in between."""
        f_c, f_r = features.chunk(2, dim=1)
        return {name: self.net.classifier(mix(f_c, f_r, weight)).argmax(dim=1) for name, weight in WEIGHTS.items()}

    def trace(self, phase: Phase) -> dict[str, float]:
        return {"alpha": round(self.mean_alpha, 6)}

    def tested(self, confusions: dict[str, np.ndarray]) -> dict[str, float]:
        """Accuracy of both branches together and of each alone, on many-, medium- and few-shot classes."""
        return {
            f"{name} {group}": round(value, 4)
            for name in ("cnn", "cb", "rb")
            for group, value in {
                "all": metrics.accuracy(confusions[name]),
                **metrics.shot_accuracies(confusions[name], self.context.counts),
            }.items()
        }

    def summary(self, phase: Phase) -> dict[str, Any]:
        """With the norms of W_c and W_r apart (Fig. 4); those of both side by side are `norms`."""
        halves = zip(("norms_cb", "norms_rb"), self.net.classifier.weight.chunk(2, dim=1), strict=True)
        return super().summary(phase) | {k: [round(x, 5) for x in w.norm(dim=1).tolist()] for k, w in halves}


class ProbeLearner(RetrainLearner):
    """A new classifier on the features of one branch, which stay as BBN left them."""

    config: Probe  # type: ignore[assignment]

    def build(self, classes: int) -> None:
        body = Branch(self.context.run.network)
        head = LinearHead(body.out_features, classes, self.context.generator("head", 0))
        self.net = Net(body, head, self.context.device)

    def start_from(self, state: dict[str, Tensor]) -> None:
        block = f"{self.config.branch}_block."
        body = {k: v for k, v in state.items() if k.startswith("trunk.")}
        body |= {"block." + k.removeprefix(block): v for k, v in state.items() if k.startswith(block)}
        self.net.backbone.load_state_dict(body)


class MixupLearner(Learner):
    """Two images, or their features, mixed by a share that is drawn for each batch; the loss by the same share."""

    config: Mixup

    def stages(self, phase: Phase) -> Iterator[Stage]:
        for main in super().stages(phase):
            self.shares = Draws(steps(main.schedule, len(main.indices)), self.context.device.torch)
            main.on_epoch = self.begin_epoch
            yield main if self.config.partners == "batch" else in_pairs(main, self.context.train.labels, "reversed")

    def begin_epoch(self, epoch: int) -> None:
        generator, strength = np.random.default_rng((self.context.run.seed, epoch)), self.config.strength
        self.shares.set(generator.beta(strength, strength, len(self.shares.values)))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        share, net = self.shares.next(), self.net
        first, second = images.chunk(2) if self.config.partners == "reversed" else (images, None)
        if self.config.layer == "features":  # each batch passes by itself, as in BBN
            first = net.features(first)
            second = None if second is None else net.features(second)
        mixed = share * first + (1 - share) * (beside(first) if second is None else second)
        logits = net.head(mixed) if self.config.layer == "features" else net(mixed)
        own, other = (labels, beside(labels)) if second is None else labels.chunk(2)
        return bilateral_loss(logits, own, other, share)


def beside(batch: Tensor) -> Tensor:
    """The next item of a batch for each item. Batches come in random order, so that it is a random partner."""
    return torch.cat([batch[1:], batch[:1]])


class Pair(nn.Module):
    """Two networks side by side: images [n, 3, h, w] -> the features of both [n, 2d]."""

    def __init__(self, first: Net, second: Net) -> None:
        super().__init__()
        self.first, self.second = first, second

    def features(self, images: Tensor) -> Tensor:
        return torch.cat([self.first.features(images), self.second.features(images)], dim=1)


class EnsembleLearner(Learner):
    """Two networks in one run: no gradient of one reaches the other, so each trains as if it were alone."""

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

    def stages(self, phase: Phase) -> Iterator[Stage]:
        for main in super().stages(phase):
            yield in_pairs(main, self.context.train.labels, self.config.sampler)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        members = zip((self.net.first, self.net.second), images.chunk(2), labels.chunk(2), strict=True)
        return torch.stack([F.cross_entropy(net(x), y) for net, x, y in members]).sum()

    def readouts(self, features: Tensor, phase: Phase) -> dict[str, Tensor]:
        """The mean of both posteriors, and each member's."""
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
    """A baseline on unit features, and how far each class's lie from their centre (supplement, Fig. 6)."""

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
    """Mean L2 distance of each class's features [n, d] from their mean."""
    classes = [features[labels == c] for c in range(int(labels.max()) + 1)]
    return [round(float((f - f.mean(dim=0)).norm(dim=1).mean()), 5) for f in classes]


LEARNERS: dict[type, type[Learner]] = {
    BBN: BBNLearner,
    Probe: ProbeLearner,
    Mixup: MixupLearner,
    Ensemble: EnsembleLearner,
    UnitFeatures: UnitLearner,
    ClassBalanced: ClassBalancedLearner,
    **rebalance.LEARNERS,
}
