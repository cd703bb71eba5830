"""Defines a whole method of your own: its options, its learner, and a comparison with iCaRL and LUCIR.

python docs/own_method.py                                            # embedded data, two minutes
python docs/own_method.py --preset cifar --seeds 1993 --data DIR     # the paper's schedule
python docs/own_method.py --help                                     # every option

Copy this file to wherever you like and change it. It needs only the installed packages. `Learner` in
common/incremental.py lists what else a method may change. docs/dark_experience.py uses more of that.
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
    """Trains with balanced softmax (Ren et al., NeurIPS 2020) instead of distillation."""

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
    """Cross-entropy on new images and exemplars. In training, strength * log(images of a class) is added to its logit.

    A run is identified by this file's name, these fields and `version`, not by the code. So if you change the code, a
    finished run is not trained again, and a note names it. `--retrain` replaces its result. A new `version` keeps both.
    """

    version: ClassVar[int] = 1
    learner: ClassVar[type] = BalancedReplayLearner

    strength: float = 1.0


if __name__ == "__main__":  # worker processes import this file too, and must not begin anew
    compare({"Balanced replay": BalancedReplay()})
