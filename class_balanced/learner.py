"""The class-balanced losses as a learner: how the last layer starts, how classes are weighted, what does not decay."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from class_balanced.losses import class_weights, sample_losses, starting_bias
from class_balanced.methods import ClassBalanced
from common.incremental import Context, Learner, Phase
from common.rebalance import weigh
from common.training import Stage


class ClassBalancedLearner(Learner):
    """Trains softmax, sigmoid or focal loss with class-balanced weights (Sec. 4). At beta = 0 the weights are 1."""

    config: ClassBalanced

    def __init__(self, config: ClassBalanced, context: Context) -> None:
        super().__init__(config, context)
        weights = class_weights(context.counts, config.beta)
        self.weights = torch.tensor(weights, dtype=torch.float32, device=context.device.torch)

    def build(self, classes: int) -> None:
        """Build the network.

        The last layer starts as in the official code, see `ClassBalanced.recipe` and `bias_start`.
        """
        super().build(classes)
        head, generator = self.net.head, self.context.generator("glorot")
        fresh = torch.empty(head.weight.shape)
        if self.config.recipe == "cifar":
            nn.init.xavier_uniform_(fresh, generator=generator)
        else:
            nn.init.normal_(fresh, std=0.01, generator=generator)
        head.weight.data.copy_(fresh)
        head.bias.data.fill_(starting_bias(self.config.loss, classes) if self.config.bias_start == "prior" else 0.0)

    def main(self, phase: Phase) -> Stage:
        """Return the one stage. Some parameters get no weight decay, as the recipe says."""
        main = super().main(phase)
        if self.config.recipe == "imagenet":
            main.no_decay = [p for p in self.net.parameters() if p.ndim == 1]
        elif self.config.loss != "softmax":  # Sec. 5.2: the bias of -log(C - 1) is not decayed
            main.no_decay = [self.net.head.bias]
        return main

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the base losses of a batch, weighted by class and reduced to a scalar."""
        c = self.config
        losses = sample_losses(self.net(images), labels, c.loss, c.gamma)
        return weigh(losses, self.weights[labels], c.reduction)
