"""Simulate what Eq. 10 alone does to the masks over the whole schedule of a Run. Presets take their lambda_s from it.

The simulation sees no images and no loss but the sparsity loss. So it takes seconds where the run takes hours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, ndtri

from common.memory import ExemplarMemory
from common.resnet import backbone
from common.runs import Protocol, Run, Schedule
from der.masks import scale
from der.methods import DER, Init
from der.wiring import IMAGE, Wiring, wiring

SWEEP = 8
"""The number of values of s over which the gradient of an epoch is averaged."""
STRIDE = 0.05
"""The furthest that a logit moves before the gradient is computed again."""


@dataclass(frozen=True)
class NetworkSizes:
    """Holds what the simulation has to know of a network: its wiring, and the sizes of kernels between its groups."""

    plan: Wiring
    kernels: np.ndarray
    """Kernel weights for each pair of channels, [g + 1, g + 1]: rows are the groups read, columns the groups written.
    The image comes last."""

    @classmethod
    def named(cls, network: str) -> NetworkSizes:
        """Return the NetworkSizes of a backbone by name."""
        body = backbone(network, seed=0)
        plan = wiring(body)
        kernels = np.zeros([len(plan.channels) + 1] * 2)
        for name, reads, writes in plan.convs:
            kernels[reads, writes] += body.get_submodule(name).weight[0, 0].numel()  # type: ignore[index, operator, union-attr]
        assert IMAGE == -1
        return cls(plan, kernels)

    @property
    def channels(self) -> np.ndarray:
        """The number of channels in every group before pruning, [g]."""
        return np.array(self.plan.channels)

    def weights(self, channels: np.ndarray) -> float:
        """Return the number of weights of all convolutions when the groups have `channels` [g] channels."""
        sums = np.append(channels, 3.0)
        return float(sums @ self.kernels @ sums)

    def parameters(self, channels: np.ndarray) -> float:
        """Return the size of an extractor with `channels` [g]: the number of convolution weights, gammas and betas."""
        return self.weights(channels) + 2.0 * sum(channels[group] for _, group in self.plan.norms)

    def gradient(self, sums: np.ndarray) -> np.ndarray:
        """Return the derivative of Eq. 10 by one mask of each group, [n, g]. sums [n, g]: each group's sum of masks."""
        sums = np.column_stack([sums, np.full(len(sums), 3.0)])
        return (sums @ (self.kernels + self.kernels.T))[:, :-1] / self.weights(self.channels)


def typical_logits(plan: Wiring, init: Init) -> np.ndarray:
    """Return typical fresh logits [c]: evenly spaced quantiles of N(0, 1) or U(0, 2) in every group."""
    shares = np.concatenate([(np.arange(c) + 0.5) / c for c in plan.channels])
    return ndtri(shares) if init == "normal" else 2 * shares


def simulated(net: NetworkSizes, e: np.ndarray, method: DER, schedule: Schedule, images: int) -> np.ndarray:
    """Return the logits [c] after a schedule with `images` images an epoch, moved by lambda_s times Eq. 10 alone.

    Gradients are those of Eq. 9. An epoch takes a few steps along the mean gradient of its batches. Momentum mu
    multiplies the effect of a gradient by 1 / (1 - mu).
    """
    inner = [method.mask_groups == "all" or group in net.plan.inner for group in range(len(net.channels))]
    learnt = np.repeat(inner, net.channels)
    batches = -(-images // schedule.batch)
    first = np.append(0, np.cumsum(net.channels)[:-1])
    s = np.array([scale(1 + (batches - 1) * (i + 0.5) / SWEEP, batches, method.s_max) for i in range(SWEEP)])
    for epoch in range(schedule.epochs):
        force = (method.sparsity or 0.0) * method.mask_rate * schedule.lr_at(epoch) * batches / (1 - schedule.momentum)
        left = 1.0  # share of the epoch still to go
        while left > 0:
            masks = np.where(learnt, expit(s[:, None] * e), 1.0)
            gradient = net.gradient(np.add.reduceat(masks, first, axis=1)).mean(axis=0)
            move = learnt * force * np.repeat(gradient, net.channels) * expit(e) * expit(-e)
            part = min(left, STRIDE / max(move.max(), 1e-12))
            e = (e - part * move).clip(-method.mask_bound, method.mask_bound)
            left -= part
    return e


def images_of(protocol: Protocol, per_class: int) -> list[int]:
    """Return how many images each step trains on: all of its own classes, and the exemplars of the old classes."""
    memory = ExemplarMemory(protocol.exemplars_per_class, protocol.exemplars_total, rounding=protocol.rounding)
    seen = np.cumsum([0, *protocol.sizes]).tolist()
    exemplars = [0, *(old * memory.size_for(per_class, old) for old in seen[1:-1])]
    return [per_class * new + old for new, old in zip(protocol.sizes, exemplars, strict=True)]


def kept_counts(net: NetworkSizes, e: np.ndarray, method: DER) -> np.ndarray:
    """Return the number of channels in every group [g] that binary masks keep (see `masks.survives`)."""
    groups = np.split(e, np.cumsum(net.channels)[:-1])
    whole = [method.mask_groups == "inner" and group not in net.plan.inner for group in range(len(groups))]
    return np.array([len(g) if w else max(1, (g > 0).sum()) for g, w in zip(groups, whole, strict=True)])


def predicted(run: Run, per_class: int = 500) -> list[np.ndarray]:
    """Return the channels of every group [g] that Eq. 10 alone leaves in the extractor of each step of a Run of `DER`.

    per_class: training images of a class. A step that another Run trained has that Run's schedule.
    """
    method, net = run.method, NetworkSizes.named(run.network)
    e, found = typical_logits(net.plan, method.mask_init), []
    for step, images in enumerate(images_of(run.protocol, per_class)):
        schedule = run.start.schedule if run.start and not step else run.schedule
        start = e if method.mask_start == "inherit" else typical_logits(net.plan, method.mask_init)
        e = simulated(net, start, method, schedule, images)
        found.append(kept_counts(net, e, method))
    return found


def mean_share(run: Run, per_class: int = 500) -> float:
    """Return the percentage of an extractor's parameters that Eq. 10 alone keeps, averaged over steps."""
    net = NetworkSizes.named(run.network)
    sizes = [net.parameters(channels) for channels in predicted(run, per_class)]
    return 100 * float(np.mean(sizes)) / net.parameters(net.channels)


def mean_millions(run: Run, per_class: int = 500) -> float:
    """Return the paper's #Paras by Eq. 10 alone: extractors so far and classifier, averaged over steps, in millions."""
    net, found = NetworkSizes.named(run.network), predicted(run, per_class)
    sizes = np.cumsum([net.parameters(channels) for channels in found])
    widths = np.cumsum([channels[net.plan.features] for channels in found])
    return float(np.mean(sizes + widths * np.cumsum(run.protocol.sizes))) / 1e6
