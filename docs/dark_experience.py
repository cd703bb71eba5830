"""Trains DER++, Dark Experience Replay (Buzzega et al., NeurIPS 2020): a learner that keeps logits with its exemplars.

python docs/dark_experience.py            # compares it with iCaRL and LUCIR; has the options of docs/own_method.py

The package `der` holds another method of the same name.
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
from common.runs import Protocol
from common.training import Stage, shuffled
from lucir.reproduce.compare import compare


class DarkExperienceLearner(Learner):
    """Trains with cross-entropy on new images and on as many exemplars, plus the distance to the exemplars' logits.

    It deviates from the paper: exemplars are herded at the end of a phase, not sampled while a stream goes by. Their
    logits are stored at that moment, without augmentation. Both terms use the same sampled exemplars.
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
        """Return every new image once, and after each of them an exemplar sampled at random."""
        kept = self.context.memory.all()
        drawn = kept[torch.randint(len(kept), (len(new),), generator=generator).to(kept.device)]
        return torch.stack([shuffled(new, generator), drawn], dim=1).flatten()

    def loss(self, images: Tensor, labels: Tensor, indices: Tensor) -> Tensor:  # type: ignore[override]
        """Return the loss of DER++. It uses masks in place of indexing, since a captured step can read nothing back."""
        logits = self.net(images)
        entropy = F.cross_entropy(logits, labels, reduction="none")
        if not self.phase.num_old:
            return entropy.mean()
        replayed = labels < self.phase.num_old
        stored = self.stored(indices)[:, : self.phase.seen]
        known = ~stored.isnan()  # false for new images, and for classes that came after the exemplar
        errors = (logits - stored).masked_fill(~known, 0.0).square()
        new, old, distance = mean(entropy, ~replayed), mean(entropy, replayed), mean(errors, known)
        return new + self.config.alpha * distance + self.config.beta * old

    @torch.no_grad()
    def remember(self, indices: Tensor) -> dict[str, Tensor]:
        """Return the logits of new exemplars, with room for the classes to come."""
        logits = self.net.head(extract(self.net, self.context.train, indices))
        room = self.context.run.protocol.classes - logits.shape[1]
        return {"logits": F.pad(logits, (0, room), value=torch.nan)}


def mean(values: Tensor, where: Tensor) -> Tensor:
    """Return the mean of the values at which a mask of the same shape is true, or 0 if it is true nowhere."""
    return (values * where).sum() / count_over_batch(where.sum(), len(where)).clamp(min=1e-6)


@dataclass(frozen=True)
class DarkExperience:
    """The options of DER++: alpha weighs replayed logits, beta weighs replayed labels."""

    version: ClassVar[int] = 1
    learner: ClassVar[type] = DarkExperienceLearner

    alpha: float = 0.2  # this and beta are not tuned
    beta: float = 0.5

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError without exemplars. It is called before any training."""
        if protocol.without_memory:
            raise ValueError("DER++ replays exemplars of every old class; give a memory")


if __name__ == "__main__":
    compare({"DER++": DarkExperience()})
