"""The learners of iCaRL and LUCIR: head, loss, and what a phase begins and ends with. `common` has loops and data."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.heads import CosineHead
from common.incremental import Context, Learner, Phase, by_class
from common.training import Stage
from lucir.losses import adaptive_weight, cosine_distillation, distillation, less_forget, margin_ranking
from lucir.methods import LUCIR, Base, ICaRL
from lucir.model import imprint


class BaseLearner(Learner):
    """Trains base models and joint training, with cross-entropy on a linear or a cosine head."""

    config: Base

    def __init__(self, config: Base, context: Context) -> None:
        super().__init__(config, context)
        if config.head == "cosine":
            self.head, self.final_relu = partial(CosineHead, scale=config.scale), False

    def trace(self, phase: Phase) -> dict[str, float]:
        """Return the head's scale and norms, see `head_trace`."""
        return head_trace(self.net.head, phase)


class ICaRLLearner(Learner):
    """Trains iCaRL with softmax cross-entropy and distillation of old logits (LUCIR Sec. 3.1, footnote 1)."""

    config: ICaRL
    distils = True

    def __init__(self, config: ICaRL, context: Context) -> None:
        super().__init__(config, context)
        self.nme_flip = config.nme_flip
        self.counts: Tensor | None = None

    def main(self, phase: Phase) -> Stage:
        """Return the main stage, and count each class's training images for threshold moving."""
        labels = self.context.train.labels
        self.counts = torch.tensor(self.context.counts[: phase.seen], device=labels.device)
        if phase.num_old:
            self.counts[: phase.num_old].clamp_(max=self.context.memory.quota(phase.num_old))
        return super().main(phase)

    def stages(self, phase: Phase) -> Iterator[Stage]:
        """Yield the main stage and, with `finetune`, class-balance finetuning."""
        yield self.main(phase)
        if self.config.finetune and phase.num_old:  # iCaRL-CBF trains only the classifier, on balanced exemplars
            exemplars, parameters = self.context.memory.all(), self.net.head.parameters()
            yield Stage("finetune", self.config.finetune, exemplars, self.finetune_loss, parameters, self.net.eval)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the `objective` with the network's features."""
        return self.objective(self.net.features(images), images, labels)

    def objective(self, features: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of cross-entropy and weighted distillation (Eq. 1 and 2)."""
        logits = self.net.head(features)
        loss = self.entropy(logits, labels)  # Eq. 1
        if self.teacher is not None:
            old_logits = self.teacher(images)
            loss = loss + self.config.weight * distillation(logits, old_logits, self.config.temperature)  # Eq. 2
        return loss

    def finetune_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the `objective` with frozen features."""
        return self.objective(self.frozen_features(images), images, labels)

    def readouts(self, features: Tensor, phase: Phase) -> dict[str, Tensor]:
        """Add threshold moving (`tm`, supplement), and CNN without bias, with unit weight norms, and with both."""
        predictions = super().readouts(features, phase)
        head = self.net.head
        unit = F.normalize(head.weight, dim=1)
        logits, bias = head(features), head.bias
        # iCaRL-TM divides each posterior by the class's share of the training images.
        prior = self.counts.clamp(min=1).log() if self.counts is not None else 0.0
        predictions["tm"] = (logits - prior).argmax(dim=1)
        predictions["no-bias"] = (logits - bias).argmax(dim=1)
        # Multiplying by the mean norm keeps the logits' scale, so that the bias has the same influence as before.
        rescaled = features @ unit.T * head.weight.norm(dim=1).mean()
        predictions["unit-weights"] = (rescaled + bias).argmax(dim=1)
        predictions["unit-weights-no-bias"] = rescaled.argmax(dim=1)
        return predictions


class LUCIRLearner(Learner):
    """Trains the paper's method and its ablations (Sec. 3.2-3.4), with class-balance finetuning."""

    config: LUCIR
    final_relu = False
    distils = True

    def __init__(self, config: LUCIR, context: Context) -> None:
        super().__init__(config, context)
        self.head, self.nme_flip = partial(CosineHead, scale=config.scale), config.nme_flip

    def begin_phase(self, phase: Phase) -> None:
        """Grow the head, imprint the weights of new classes, and set the phase's less-forget weight (Eq. 7)."""
        if not phase.num_old:
            return
        super().begin_phase(phase)
        if self.config.imprint:
            weight, classes = self.net.head.weight.data, by_class(self.teacher, self.context, phase)
            weight[phase.num_old :] = imprint([f for _, f in classes.values()], weight[: phase.num_old])
        self.weight = adaptive_weight(self.config.weight, phase.num_old, phase.num_new, self.config.direction)

    def main(self, phase: Phase) -> Stage:
        """Return the main stage. With the less-forget constraint, old embeddings stay fixed."""
        main = super().main(phase)
        if self.config.old == "less-forget":  # the old embeddings are fixed (Sec. 3.3)
            main.frozen_rows = [(self.net.head.weight, phase.num_old)]
        return main

    def stages(self, phase: Phase) -> Iterator[Stage]:
        """Yield the main stage and, with `finetune`, class-balance finetuning."""
        yield self.main(phase)
        if self.config.finetune and phase.num_old:
            yield self.finetune_stage(phase)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return Eq. 9 with the network's features."""
        return self.objective(self.net.features(images), images, labels, self.config.margin)

    def objective(self, features: Tensor, images: Tensor, labels: Tensor, margin: float | None) -> Tensor:
        """Return Eq. 9: cross-entropy + lambda * less-forget + margin ranking."""
        c, head, num_old = self.config, self.net.head, self.phase.num_old
        cosines = head.cosines(features)
        loss = self.entropy(head.scale * cosines, labels)  # Eq. 1 and 4
        if num_old:
            old_features = self.teacher.features(images)
            if c.old == "less-forget":
                loss = loss + self.weight * less_forget(features, old_features)  # Eq. 6 and 7
            else:
                loss = loss + cosine_distillation(cosines, self.teacher.head.cosines(old_features))  # Eq. 5
            if margin is not None:
                loss = loss + margin_ranking(cosines, labels, num_old, c.negatives, margin, c.margin_reduction)  # Eq. 8
        return loss

    def finetune_stage(self, phase: Phase) -> Stage:
        """Return the class-balance finetuning stage, on exemplars of all classes seen.

        It trains the head's weights. With `finetune_flag` 1 it trains only those of new classes, with 3 the whole
        network. It never trains eta (official code).
        """
        head, flag, schedule = self.net.head, self.config.finetune_flag, self.config.finetune
        assert schedule is not None
        exemplars = self.context.memory.all()
        if flag == 3:
            parameters = [p for p in self.net.parameters() if p is not head.scale]
            return Stage("finetune", schedule, exemplars, self.loss, parameters, self.net.train)
        frozen = [(head.weight, phase.num_old)] if flag == 1 else []
        return Stage("finetune", schedule, exemplars, self.finetune_loss, [head.weight], self.net.eval, frozen)

    def finetune_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return Eq. 9 with a frozen extractor. `finetune_flag` 4 and 5 leave out the margin loss."""
        margin = None if self.config.finetune_flag in (4, 5) else self.config.margin
        return self.objective(self.frozen_features(images), images, labels, margin)

    def trace(self, phase: Phase) -> dict[str, float]:
        """Return eta and the norms of the embeddings, see `head_trace`."""
        return head_trace(self.net.head, phase)


def head_trace(head: Any, phase: Phase) -> dict[str, float]:
    """Return the mean weight norms of old and new classes, and eta of a cosine head, to plot over training."""
    norms = head.weight.detach().norm(dim=1)
    trace = {"norm_new": round(float(norms[phase.num_old :].mean()), 5)}
    if phase.num_old:
        trace["norm_old"] = round(float(norms[: phase.num_old].mean()), 5)
    if isinstance(head, CosineHead):
        trace["scale"] = round(head.scale.item(), 5)
    return trace
