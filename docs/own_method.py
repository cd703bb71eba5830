"""A method of one's own, whole: what it may be told, what it does, and how it compares with iCaRL and LUCIR.

python docs/own_method.py                                            # embedded data, two minutes
python docs/own_method.py --preset cifar --seeds 1993 --data DIR     # the paper's schedule
python docs/own_method.py --help                                     # every option

Copy this file to wherever you like and change it: it needs nothing but the installed packages. `Learner`, in
common/incremental.py, lists what else a method may change; docs/dark_experience.py uses more of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from common.incremental import Learner, Phase
from common.training import Stage
from lucir.reproduce.compare import compare


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


@dataclass(frozen=True)
class BalancedReplay:
    """Cross-entropy on new images and exemplars, each class's logit raised by the log of its share of them.

    The fields tell one run of the method from another. A run that is finished is not trained again, even if this file
    has changed since: it is named then, and `--retrain` trains it anew. A new `version` keeps both.
    """

    version: ClassVar[int] = 1
    learner: ClassVar = BalancedReplayLearner

    strength: float = 1.0


if __name__ == "__main__":  # worker processes import this file too, and must not begin anew
    compare({"Balanced replay": BalancedReplay()})
