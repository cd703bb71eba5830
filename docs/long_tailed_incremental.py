"""Trains on long-tailed classes that come in phases: three methods, and five corrections of the bias to large classes.

python docs/long_tailed_incremental.py               # embedded data, ten seeds of each arm, two hours of one core
python docs/long_tailed_incremental.py --preset cifar --epochs-scale 0.05 --orders 1993 --seeds 1993 1 2 --data DIR

A class has between all of its images and a hundredth of them, depending on its place in the data set. The class order
says when it comes. Half of the classes are the base, and five phases follow. Each class keeps 20 images, or all if it
has fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from common.drawing.curves import AVERAGE, average, paired_rows, through
from common.drawing.figures import Comparison, Drawing, Figure, Panel, PublishedFigure, Results, Runs, estimate
from common.drawing.results import Result
from common.imbalance import class_weights
from common.incremental import Learner, Phase
from common.rebalance import weigh
from common.runs import LongTail, Protocol, Run, Schedule
from common.samplers import class_sampler
from common.training import Stage
from der.learner import DERLearner
from der.methods import DER
from lucir.learner import ICaRLLearner, LUCIRLearner
from lucir.methods import LUCIR, ICaRL
from lucir.reproduce.compare import study
from lucir.reproduce.presets import Setting


class Corrected(Learner):
    """Adds class weights, weight aligning or a retrained classifier to the learner that is the other base class."""

    def begin_phase(self, phase: Phase) -> None:
        super().begin_phase(phase)
        self.images = self.context.of_phase(phase)  # before the new classes' exemplars are chosen among them
        counts = self.context.train.labels[self.images].bincount(minlength=phase.seen).cpu().numpy()
        weights = class_weights(counts, self.config.beta)
        self.weights = torch.tensor(weights, dtype=torch.float32, device=self.images.device)

    def entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        if not self.config.beta:
            return super().entropy(logits, labels)
        losses = F.cross_entropy(logits, labels, reduction="none")
        return weigh(losses, self.weights[labels], "weighted_mean")

    def main(self, phase: Phase) -> Stage:
        main = super().main(phase)
        if self.config.align:
            main.on_end = self.align
        return main

    @torch.no_grad()
    def align(self) -> None:
        """Scale the new classes' weights to the mean norm of the old ones (Zhao et al., CVPR 2020), unclamped."""
        weight, old = self.net.head.weight, self.phase.num_old
        if old:
            weight[old:] *= weight[:old].norm(dim=1).mean() / weight[old:].norm(dim=1).mean()

    def stages(self, phase: Phase) -> Iterator[Stage]:
        yield from super().stages(phase)
        if self.config.retrain:
            parameters = [p for name, p in self.net.head.named_parameters() if name != "scale"]
            stage = Stage("retrain", self.config.retrain, self.images, self.retrain_loss, parameters, self.net.eval)
            stage.sampler = class_sampler(self.context.train.labels, "balanced")
            stage.on_epoch = lambda epoch: epoch or self.renew()
            yield stage

    @torch.no_grad()
    def renew(self) -> None:
        """Initialise the classifier anew, as cRT does (Kang et al., ICLR 2020). LUCIR's scale stays."""
        head = self.net.head
        classes, features = head.weight.shape
        fresh = type(head)(features, classes, self.context.generator("retrain", self.phase.index))
        head.load_state_dict({**fresh.state_dict(), **{k: v for k, v in head.state_dict().items() if k == "scale"}})

    def retrain_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.net.head(self.frozen_features(images)), labels)


class CorrectedICaRLLearner(Corrected, ICaRLLearner):
    pass


class CorrectedLUCIRLearner(Corrected, LUCIRLearner):
    pass


class CorrectedDERLearner(Corrected, DERLearner):
    pass


@dataclass(frozen=True)
class Correction:
    """Says what is done about classes of unequal size."""

    beta: float = 0.0
    """beta of the effective numbers that weigh classes in the cross-entropy; 0: no weights."""
    align: bool = False
    retrain: Schedule | None = None
    """Schedule of a new classifier after each phase, on frozen features and balanced classes. None: none."""

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError without exemplars, and as the method's own check does."""
        super().check(protocol)  # type: ignore[misc]
        if protocol.without_memory:
            raise ValueError("corrections count images of every old class; give a memory")


@dataclass(frozen=True)
class CorrectedICaRL(Correction, ICaRL):
    learner: ClassVar[type] = CorrectedICaRLLearner


@dataclass(frozen=True)
class CorrectedLUCIR(Correction, LUCIR):
    learner: ClassVar[type] = CorrectedLUCIRLearner


@dataclass(frozen=True)
class CorrectedDER(Correction, DER):
    learner: ClassVar[type] = CorrectedDERLearner


PLAIN, BETA = "plain", 0.99  # beta of the effective number; it is not tuned


def runs(s: Setting, method: Any) -> list[Run]:
    """Return the Runs of a method on the protocol of all arms. Every Run trains its own base phase."""
    data = replace(s.data, per_class=500) if s.preset == "quick" else s.data  # the smallest classes have 5 of them
    protocol = Protocol(s.classes, s.base, (s.classes - s.base) // s.phases, exemplars_per_class=20)
    return s.tenfold().run(method, protocol, data=data, longtail=LongTail(100.0))


def later(s: Setting, lr: float) -> Schedule:
    """Return the schedule of a stage that trains the classifier alone: always ten epochs."""
    return replace(s.finetune, epochs=10, milestones=(5,), lr=lr)


def methods(s: Setting) -> Runs:
    """Return the Runs of each method: without its own correction, with class-balanced loss, with a new classifier."""
    plain = {"iCaRL": CorrectedICaRL(), "LUCIR": CorrectedLUCIR(finetune=None),
             "DER": CorrectedDER(finetune=None, zero_last=False)}  # fmt: skip
    changes: dict[str, dict[str, Any]] = {PLAIN: {}, "CB loss": {"beta": BETA}, "cRT": {"retrain": later(s, 0.1)}}
    return {(name, c): runs(s, replace(m, **change)) for name, m in plain.items() for c, change in changes.items()}


def corrections(s: Setting) -> Runs:
    """Return the Runs of iCaRL and five corrections.

    The cosine head distils cosines, as in LUCIR's ablation. CBF trains on exemplars, of which small classes have fewer.
    """
    icarl = CorrectedICaRL()
    arms = {
        PLAIN: icarl,
        "cosine head": CorrectedLUCIR(old="cosine", margin=None, finetune=None),
        "CBF": replace(icarl, finetune=later(s, 0.01)),
        "weight aligning": replace(icarl, align=True),
        "CB loss": replace(icarl, beta=BETA),
        "cRT": replace(icarl, retrain=later(s, 0.1)),
    }
    return {("iCaRL", name): runs(s, method) for name, method in arms.items()}


def at_end(result: Result, shots: str) -> float:
    """Return the accuracy after the last phase on classes of many, medium or few training images."""
    return result.readout("cnn")[shots]


MEASURES: dict[str, Callable[[Result], float]] = {
    AVERAGE: partial(average, readout="cnn"),
    **{f"accuracy at the end (%), {shots}": partial(at_end, shots=shots) for shots in ("many", "medium", "few")},
}


def drawing(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw average accuracy and final accuracy by class size. Rows also hold the paired gain of each correction."""
    arms = {", ".join(key): group for key, group in results.items() if group}
    rows, curves = list[Comparison](), []
    for name, measure in MEASURES.items():
        found = {arm: estimate([measure(result) for result in group]) for arm, group in arms.items()}
        curves.append(through(name, list(found), list(found.values())))
        rows += [Comparison(name, arm, None, "", value) for arm, value in found.items()]
    for plain in (arm for arm in arms if arm.endswith(PLAIN)):
        beside = {arm: (arm, "cnn") for arm in arms if arm.split(", ")[0] == plain.split(", ")[0]}
        rows += paired_rows(arms, beside, plain, published)
    note = f"the classifier's read-out; class weights with beta {BETA:g}, which is not tuned"
    return Drawing([Panel("", "", "accuracy (%)", curves, kind="bars")] if arms else [], rows, note)


FIGURES = [
    Figure("methods", "Long-tailed and incremental: three methods with and without correction", methods, drawing),
    Figure("corrections", "Long-tailed and incremental: five corrections of iCaRL", corrections, drawing),
]

if __name__ == "__main__":
    study(FIGURES)
