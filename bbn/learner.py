"""The learner of BBN: which branch sees which images, the loss, and the read-outs. `common` has the training loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbn.adaptor import alpha
from bbn.losses import bilateral_loss
from bbn.methods import BBN, TESTING, Probe
from bbn.model import BilateralNet, Branch, mix
from bbn.streams import in_pairs, steps
from common import metrics
from common.heads import LinearHead, Net
from common.incremental import Learner, Phase
from common.rebalance import RetrainLearner
from common.steps import StepNumbers
from common.training import Stage


class BBNLearner(Learner):
    """Trains one branch on uniform and the other on re-balanced images, and mixes both by alpha (Sec. 4)."""

    config: BBN
    net: Any  # a BilateralNet

    def build(self, classes: int) -> None:
        """Make the bilateral network."""
        run, device, generator = self.context.run, self.context.device, self.context.generator("head", 0)
        net = BilateralNet(
            run.network, classes, device, run.seed, generator, concatenated=self.config.passes == "concatenated"
        )
        self.net = net.to(device.torch, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def main(self, phase: Phase) -> Stage:
        """Return the main stage, in which each branch has its own sampler."""
        main = super().main(phase)
        self.alphas = StepNumbers(steps(main.schedule, len(main.indices)), self.context.device.torch)
        main.on_epoch = self.begin_epoch
        return in_pairs(main, self.context.train.labels, self.config.sampler)

    def begin_epoch(self, epoch: int) -> None:
        """Set alpha for every step of an epoch. Epochs count from 0.

        All steps share one alpha, but the adaptor `beta` samples one for each step.
        """
        epochs, c, count = self.context.run.schedule.epochs, self.config, len(self.alphas.values)
        generator = self.context.generator("alpha", epoch)
        samples = count if c.adaptor == "beta" else 1
        values = [alpha(epoch + 1, epochs, c.adaptor, c.offset, generator, c.stretch) for _ in range(samples)]
        self.alphas.set(np.resize(values, count))
        self.mean_alpha = float(np.mean(values))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of Eq. 1 to 3."""
        weight = self.alphas.next()
        (uniform, rebalanced), (y_c, y_r) = images.chunk(2), labels.chunk(2)
        return bilateral_loss(self.net(uniform, rebalanced, weight), y_c, y_r, weight)

    def readouts(self, features: Tensor, phase: Phase) -> dict[str, Tensor]:
        """Return predictions at alpha = 0.5, as in the paper, with each branch alone, and at values in between."""
        f_c, f_r = features.chunk(2, dim=1)
        return {name: self.net.classifier(mix(f_c, f_r, weight)).argmax(dim=1) for name, weight in TESTING.items()}

    def trace(self, phase: Phase) -> dict[str, float]:
        """Return the epoch's alpha, averaged over its steps."""
        return {"alpha": round(self.mean_alpha, 6)}

    def tested(self, confusions: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the accuracy of both branches together and of each alone, on all classes and on groups by size."""
        return {
            f"{name} {group}": round(value, 4)
            for name in ("cnn", "cb", "rb")
            for group, value in {
                "all": metrics.accuracy(confusions[name]),
                **metrics.shot_accuracies(confusions[name], self.context.counts),
            }.items()
        }

    def summary(self, phase: Phase) -> dict[str, Any]:
        """Add the norms of W_c and of W_r (Fig. 4). `norms` holds the norms of both together."""
        halves = zip(("norms_cb", "norms_rb"), self.net.classifier.weight.chunk(2, dim=1), strict=True)
        return super().summary(phase) | {k: [round(x, 5) for x in w.norm(dim=1).tolist()] for k, w in halves}


class ProbeLearner(RetrainLearner):
    """Trains a new classifier on the features of one branch, which stays as BBN left it."""

    config: Probe  # type: ignore[assignment]

    def build(self, classes: int) -> None:
        """Make a network of the trunk, one branch's block and a fresh classifier."""
        body = Branch(self.context.run.network)
        head = LinearHead(body.out_features, classes, self.context.generator("head", 0))
        self.net = Net(body, head, self.context.device)

    def start_from(self, state: dict[str, Tensor]) -> None:
        """Load the trunk and the branch's block from BBN's final weights. The classifier stays fresh."""
        block = f"{self.config.branch}_block."
        body = {k: v for k, v in state.items() if k.startswith("trunk.")}
        body |= {"block." + k.removeprefix(block): v for k, v in state.items() if k.startswith(block)}
        self.net.backbone.load_state_dict(body)
