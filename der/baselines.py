"""Train WA and BiC in DER's recipe. The baselines iCaRL and LUCIR come from the `lucir` package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.incremental import Learner, Phase
from common.training import Stage, shuffled
from der.expand import Classifier
from der.methods import WA, BiC
from lucir.losses import distillation


class DistilledLearner(Learner):
    """The training that WA and BiC share: (1 - l) cross-entropy + l distillation, with l = old / all classes."""

    config: WA | BiC
    head = Classifier
    distils = True

    def main(self, phase: Phase) -> Stage:
        main = super().main(phase)
        main.on_epoch = self.begin_epoch
        return main

    def begin_epoch(self, epoch: int) -> None:
        """Start the classifier again after the warm-up, as in DER's recipe, if `reset` is on."""
        if self.config.reset and epoch and epoch == self.context.run.schedule.warmup:
            self.net.head.reset(self.context.generator("head reset", self.phase.index))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return (1 - l) cross-entropy + l distillation. In the first phase it is cross-entropy alone."""
        logits = self.logits(self.net.features(images))
        loss = F.cross_entropy(logits, labels)
        if self.teacher is None:
            return loss
        old = self.teacher(images)
        share = self.phase.num_old / self.phase.seen
        return (1 - share) * loss + share * distillation(logits, old, self.config.temperature)

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits [n, c] of the network that is being trained."""
        return self.net.head(features)

    def summary(self, phase: Phase) -> dict[str, Any]:
        return {"norms": [round(x, 5) for x in self.net.head.weight.norm(dim=1).tolist()]}


class WALearner(DistilledLearner):
    """WA scales the new classes' weights, after each step, to the mean norm of the old classes' weights."""

    config: WA

    def main(self, phase: Phase) -> Stage:
        main = super().main(phase)
        main.on_end = self.align
        return main

    def logits(self, features: Tensor) -> Tensor:
        with torch.no_grad():
            self.net.head.weight.clamp_(min=0)  # so that the norm of a class says how much it is favoured
        return super().logits(features)

    @torch.no_grad()
    def align(self) -> None:
        """Scale the new classes' weights to the mean norm of the old classes' weights."""
        weight, old = self.net.head.weight, self.phase.num_old
        weight.clamp_(min=0)
        if old:
            ratio = weight[:old].norm(dim=1).mean() / weight[old:].norm(dim=1).mean()
            if 0 < ratio < torch.inf:  # otherwise all old or all new weights are 0, and no factor aligns them
                weight[old:] *= ratio


class CorrectedClassifier(Classifier):
    """A classifier that turns the logits of classes `first` and later into alpha * logit + beta (BiC)."""

    first: Tensor

    def __init__(self, in_features: int, num_classes: int, generator: torch.Generator | None = None) -> None:
        super().__init__(in_features, num_classes, generator)
        self.alpha, self.beta = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))
        self.register_buffer("first", torch.zeros((), dtype=torch.long))

    def forward(self, features: Tensor) -> Tensor:
        logits = super().forward(features)
        new = torch.arange(logits.shape[1], device=logits.device) >= self.first
        return torch.where(new, self.alpha * logits + self.beta, logits)

    @torch.no_grad()
    def correct_from(self, first: int) -> None:
        """Count the classes from `first` on as new, and set alpha and beta so that nothing is corrected yet."""
        self.alpha.fill_(1.0)
        self.beta.zero_()
        self.first.fill_(first)


class BiCLearner(DistilledLearner):
    """Bias correction learns two numbers for the new classes' logits, on images held out of training."""

    config: BiC
    head = CorrectedClassifier

    def begin_phase(self, phase: Phase) -> None:
        """Grow the head, and hold images out for bias correction."""
        super().begin_phase(phase)
        self.net.head.correct_from(phase.num_old)
        indices = self.context.of_phase(phase)
        self.train_indices, self.held_out = self.split(indices) if phase.num_old else (indices, indices[:0])

    def split(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Split indices into those to train on and those held out. Every class has the same number of images held out.

        This number is the share `held_out` of the smallest class, but at least one image.
        """
        order = shuffled(indices, self.context.generator("held out", self.phase.index))
        labels = self.context.train.labels[order]
        classes, counts = labels.unique(return_counts=True)
        count = max(1, int(self.config.held_out * int(counts.min())))
        out = torch.cat([(labels == c).nonzero().squeeze(1)[:count] for c in classes])
        rest = torch.ones(len(order), dtype=torch.bool, device=order.device)
        rest[out] = False
        return order[rest], order[out]

    def main(self, phase: Phase) -> Stage:
        main, head = super().main(phase), self.net.head
        main.indices = self.train_indices
        main.parameters = [p for p in self.net.parameters() if p is not head.alpha and p is not head.beta]
        return main

    def stages(self, phase: Phase) -> Iterator[Stage]:
        """Yield the main stage and, from the second step on, bias correction on the images held out."""
        yield self.main(phase)
        if phase.num_old:
            correction = [self.net.head.alpha, self.net.head.beta]
            yield Stage("bias", self.config.bias, self.held_out, self.bias_loss, correction, self.net.eval)

    def logits(self, features: Tensor) -> Tensor:
        """Return logits without a correction. The teacher's logits contain the corrections of earlier steps."""
        return F.linear(features, self.net.head.weight)

    def bias_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return cross-entropy of the corrected logits. Only alpha and beta learn from it."""
        return F.cross_entropy(self.net.head(self.frozen_features(images)), labels)

    def summary(self, phase: Phase) -> dict[str, Any]:
        head = self.net.head
        return super().summary(phase) | {"alpha": round(head.alpha.item(), 5), "beta": round(head.beta.item(), 5)}
