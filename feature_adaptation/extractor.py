"""Stage 1 as a learner: cross-entropy, distillation, feature distillation, and baselines that differ a little."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import InputError
from common.heads import extract
from common.incremental import Context, Learner, Phase
from common.training import Stage
from feature_adaptation import cache
from feature_adaptation.losses import attention_distillation, distillation, sigmoid_loss, similarity_loss, softmax_loss
from feature_adaptation.methods import Extractor
from feature_adaptation.model import WholeHead, spatial_maps


class ExtractorLearner(Learner):
    """Trains Eq. 6 on the current task's images, and on the exemplars where some are kept (iCaRL, EEIL, hybrid)."""

    config: Extractor
    distils = True

    def __init__(self, config: Extractor, context: Context) -> None:
        super().__init__(config, context)
        self.head = partial(WholeHead, total=context.run.protocol.classes)
        self.final_relu, self.nme_flip = config.final_relu, config.nme_flip
        self.held: Tensor | None = None
        self.tested_on: tuple[Tensor, Tensor]  # features and labels of the last test, for the cache
        if config.holdout:
            self.held = _held_out(context, config.holdout)
            everything = torch.ones_like(context.train.labels, dtype=torch.bool)
            context.subset = everything if context.subset is None else context.subset.clone()
            context.subset[self.held] = False

    def main(self, phase: Phase) -> Stage:
        """Return the main stage. It trains all parameters, unless a control freezes some of them."""
        main, c, net = super().main(phase), self.config, self.net
        if phase.num_old and c.frozen:
            main.parameters, main.set_mode, main.loss = net.head.parameters(), net.eval, self.head_loss
        elif phase.num_old and c.freeze_norms:
            trained = (m for m in net.modules() if not isinstance(m, nn.BatchNorm2d))
            main.parameters = [p for m in trained for p in m.parameters(recurse=False)]
            main.set_mode = self.train_without_norms
        return main

    def stages(self, phase: Phase) -> Iterator[Stage]:
        """Yield the main stage and, with `finetune`, balanced fine-tuning on the exemplars."""
        yield self.main(phase)
        if self.config.finetune and phase.num_old:  # EEIL: all classes have the same number of images
            exemplars, net = self.context.memory.all(), self.net
            yield Stage("finetune", self.config.finetune, exemplars, self.loss, net.parameters(), net.train)

    def train_without_norms(self) -> None:
        """Set the network to training mode, except for BatchNorm."""
        self.net.train()
        for module in self.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return Eq. 6: L_CE + lambda L_KD + gamma L_FD (+ LwM's L_AD)."""
        c, head = self.config, self.net.head
        if not (c.attention and self.teacher):
            features = self.net.features(images)
            return self.objective(features, images, labels)
        maps = spatial_maps(self.net, images)
        old_maps = spatial_maps(self.teacher, images)
        attention = attention_distillation(maps, old_maps, head.weight, self.teacher.head.weight[: self.phase.num_old])
        return self.objective(maps.mean(dim=(2, 3)), images, labels) + c.attention * attention

    def head_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss for a frozen extractor, whose head alone is trained (Eq. 4)."""
        return self.objective(self.frozen_features(images), images, labels)

    def objective(self, features: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return Eq. 6, without L_AD, from the features [n, d] of the images."""
        c, num_old, head = self.config, self.phase.num_old, self.net.head
        old_features = old_logits = None
        if self.teacher and (c.distillation or c.features):
            old_features = self.teacher.features(images)
            old_logits = self.teacher.head(old_features)
        if c.loss == "sigmoid":
            logits = head.all_logits(features) if c.nodes == "all" else head(features)
            loss = sigmoid_loss(logits, labels, num_old, old_logits, c.distillation)
        else:
            logits = head(features)
            loss = softmax_loss(logits, labels, 0 if self.context.memory.indices else num_old)
            if old_logits is not None and c.distillation:
                sizes = self.context.run.protocol.sizes[: self.phase.index] if c.per_task else ()
                loss = loss + c.distillation * distillation(logits, old_logits, c.temperature, sizes)
        if old_features is not None and c.features:
            loss = loss + c.features * similarity_loss(features, old_features)  # Eq. 5
        return loss

    def test_set(self, phase: Phase) -> tuple[Tensor, Tensor]:
        """Return features and labels of the test images, or of the held-out training images."""
        if self.held is None:
            self.tested_on = super().test_set(phase)
        else:
            train = self.context.train
            seen = self.held[train.labels[self.held] < phase.seen]
            self.tested_on = extract(self.net, train, seen), train.labels[seen]
        return self.tested_on

    def end_phase(self, phase: Phase) -> dict[str, Any]:
        """Save the features that `keep` asks for."""
        if self.config.keep != "nothing":
            cache.keep_current(self.net, self.teacher, self.context, phase, self.tested_on)
        if self.config.keep == "truth":
            cache.keep_truth(self.net, self.context, phase)
        return {}


def _held_out(context: Context, share: float) -> Tensor:
    """Return training indices to test on instead: `share` of the images of every class that the Run sees.

    The Run's seed chooses them. Raises InputError where the share is none or all of a class.
    """
    labels = context.train.labels.cpu()
    drawn = torch.randperm(len(labels), generator=context.generator("holdout"))
    if context.subset is not None:
        drawn = drawn[context.subset.cpu()[drawn]]
    held = []
    for label in labels[drawn].unique().tolist():
        members = drawn[labels[drawn] == label]
        count = round(share * len(members))
        if not 0 < count < len(members):
            raise InputError(
                f"holdout {share:g} takes {count} of the {len(members)} images of a class; choose another share"
            )
        held.append(members[:count])
    return torch.cat(held).sort().values.to(context.train.labels.device)
