"""Dark Experience Replay, DER++ (Buzzega et al., NeurIPS 2020): a learner that keeps logits beside its exemplars.

python docs/dark_experience.py            # beside iCaRL and LUCIR; the options are those of docs/own_method.py

It is not the DER of the package `der`, which is another method of the same name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from common.distributed import count_over_batch
from common.heads import extract
from common.incremental import Learner, Phase
from common.training import Stage, shuffled
from lucir.reproduce.compare import compare


class DarkExperienceLearner(Learner):
    """Cross-entropy on new images; on as many exemplars, cross-entropy too and the distance to their stored logits.

    Where it deviates: exemplars are herded at a phase's end, not drawn as a stream goes by, and their logits are those
    of that moment, without augmentation. One draw of exemplars serves both terms.
    """

    config: DarkExperience
    wants_indices = True

    def begin_phase(self, phase: Phase) -> None:
        super().begin_phase(phase)
        if phase.num_old:
            self.stored = self.context.memory.lookup("logits")

    def main(self, phase: Phase) -> Stage:
        main = super().main(phase)
        if phase.num_old:
            main.indices, main.sampler = self.context.of_classes(phase.num_old, phase.seen), self.with_replay
        return main

    def with_replay(self, new: Tensor, generator: torch.Generator) -> Tensor:
        """Every new image once, and after each an exemplar drawn at random."""
        kept = self.context.memory.all()
        drawn = kept[torch.randint(len(kept), (len(new),), generator=generator).to(kept.device)]
        return torch.stack([shuffled(new, generator), drawn], dim=1).flatten()

    def loss(self, images: Tensor, labels: Tensor, indices: Tensor) -> Tensor:  # type: ignore[override]
        """The objective of DER++. A captured step reads nothing back, so that masks stand for choices of rows."""
        logits = self.net(images)
        entropy = F.cross_entropy(logits, labels, reduction="none")
        if not self.phase.num_old:
            return entropy.mean()
        replayed = labels < self.phase.num_old
        stored = self.stored(indices)[:, : self.phase.seen]
        known = ~stored.isnan()  # not of new images, nor for classes that came after the exemplar
        errors = (logits - stored).masked_fill(~known, 0.0).square()
        new, old, distance = mean(entropy, ~replayed), mean(entropy, replayed), mean(errors, known)
        return new + self.config.alpha * distance + self.config.beta * old

    @torch.no_grad()
    def remember(self, indices: Tensor) -> dict[str, Tensor]:
        """The logits of new exemplars, with room for the classes to come."""
        logits = self.net.head(extract(self.net, self.context.train, indices))
        room = self.context.run.protocol.classes - logits.shape[1]
        return {"logits": F.pad(logits, (0, room), value=torch.nan)}


def mean(values: Tensor, where: Tensor) -> Tensor:
    """The mean of the values where a mask of the same shape holds; 0 where it holds nowhere."""
    return (values * where).sum() / count_over_batch(where.sum(), len(where)).clamp(min=1e-6)


@dataclass(frozen=True)
class DarkExperience:
    """How much replayed logits and replayed labels count."""

    version: ClassVar[int] = 1
    learner: ClassVar = DarkExperienceLearner

    alpha: float = 0.2  # this and beta are not tuned
    beta: float = 0.5


if __name__ == "__main__":
    compare({"DER++": DarkExperience()})
