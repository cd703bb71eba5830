"""The method itself: what differs from cross-entropy on a growing head."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from common.incremental import Learner, Phase
from common.training import Stage
from own_method.methods import BalancedReplay


class BalancedReplayLearner(Learner):
    """Balanced softmax (Ren et al., NeurIPS 2020) instead of distillation."""

    config: BalancedReplay

    def main(self, phase: Phase) -> Stage:
        main = super().main(phase)  # all images of the new classes and the exemplars of the old
        counts = self.context.train.labels[main.indices].bincount(minlength=phase.seen)
        self.prior = self.config.strength * counts.log()
        return main

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.net(images) + self.prior, labels)
