"""Tests what the loop promises a learner: phase and teacher are set before a phase begins, and hooks of both styles
work.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common import incremental
from common.command.launcher import Job, launch
from common.data.datasets import Dataset
from common.errors import InputError
from common.incremental import Learner, Phase, frozen_copy, learner_of
from common.runs import Run, canonical
from common.store import Store
from common.training import Device, Stage
from lucir.methods import Base

CPU = Device("cpu", "fp32")
MakeRun = Callable[..., Run]


class Distilling(Learner):
    """Adds the squared error to the teacher's logits."""

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.objective(self.net.features(images), images, labels)

    def objective(self, features: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        logits = self.net.head(features)
        loss = F.cross_entropy(logits, labels)
        if self.teacher is None:
            return loss
        old = self.teacher(images)
        return loss + F.mse_loss(logits[:, : old.shape[1]], old)

    def head_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.net.features(images)
        return self.objective(features, images, labels)

    def head_stage(self) -> Stage:
        head, exemplars = self.net.head.parameters(), self.context.memory.all()
        return Stage("head", self.context.run.schedule, exemplars, self.head_loss, head, self.net.eval)


class Given(Distilling):
    """Takes the hooks that `Learner` offers: the head does not decay in the main stage, and is then trained alone."""

    distils = True

    def main(self, phase: Phase) -> Stage:
        main = super().main(phase)
        main.no_decay = [self.net.head.weight]
        return main

    def stages(self, phase: Phase) -> Iterator[Stage]:
        yield self.main(phase)
        yield self.head_stage()

    def head_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.objective(self.frozen_features(images), images, labels)


class Alone(Given):
    """The same learner without a teacher."""

    distils = False


class ByHand(Distilling):
    """The same learner without `distils`, `main` and `frozen_features`. Its own `phase` is a number."""

    def begin_phase(self, phase: Phase) -> None:
        self.phase = phase.index  # type: ignore[assignment]
        self.teacher = frozen_copy(self.net, self.context.device) if phase.num_old else None
        super().begin_phase(phase)

    def stages(self, phase: Phase) -> Iterator[Stage]:
        for main in super().stages(phase):
            main.no_decay = [self.net.head.weight]
            yield main
        yield self.head_stage()


@dataclass(frozen=True)
class Outside:
    """A method whose learner is the class itself."""

    learner: ClassVar[type] = Alone
    version: ClassVar[int] = 1


def trained(kind: type[Learner], run: Run, data: Dataset, out: Path) -> tuple[dict, dict[str, Tensor]]:
    """Return the result of a run, and the last state of its network."""
    learners: list[Any] = []

    class Kept(kind):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            learners.append(self)

    with Store(out).open(run) as workspace:
        result = incremental.run(run, data, Kept, workspace, CPU)
    return result, learners[0].net.state_dict()


def test_either_style_of_hooks_trains_the_same(tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    run = tiny_run(Base())
    (ours, net), (theirs, same) = (trained(kind, run, tiny_data, tmp_path / kind.__name__) for kind in (Given, ByHand))
    assert ours == theirs and all(list(phase["stages"]) == ["main", "head"] for phase in ours["phases"])
    assert net.keys() == same.keys() and all(torch.equal(net[name], same[name]) for name in net)
    alone, _ = trained(Alone, run, tiny_data, tmp_path / "alone")
    assert alone["phases"][0] == ours["phases"][0] and alone["trace"]["loss"] != ours["trace"]["loss"]


@pytest.mark.parametrize("distils", [True, False])
def test_phase_and_teacher_are_there_when_a_phase_begins(
    distils: bool, tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    """The teacher is the network of all old classes, as the phase before left it. It does not change."""
    left: list[dict[str, Tensor]] = []

    class Watched(Given):
        def begin_phase(self, phase: Phase) -> None:
            assert self.phase is phase and (self.teacher is not None) == bool(distils and phase.num_old)
            if self.teacher:
                assert len(self.teacher.head.weight) == phase.num_old and not self.teacher.training
                assert not any(p.requires_grad for p in self.teacher.parameters())
            super().begin_phase(phase)

        def end_phase(self, phase: Phase) -> dict[str, Any]:
            if self.teacher:
                teacher = self.teacher.state_dict()
                assert all(torch.equal(left[-1][name], teacher[name]) for name in teacher)
            left.append({name: tensor.clone() for name, tensor in self.net.state_dict().items()})
            return super().end_phase(phase)

    Watched.distils = distils
    trained(Watched, tiny_run(Base()), tiny_data, tmp_path)
    assert len(left) == 3 and not torch.equal(left[0]["head.weight"], left[1]["head.weight"][:4])


def test_a_result_tells_the_average_of_what_every_phase_measured(
    tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    """It is the mean over phases of the accuracy at their end, for every read-out that all phases have."""

    class Late(Given):
        def readouts(self, features: Tensor, phase: Phase) -> dict[str, Tensor]:
            found = super().readouts(features, phase)
            return found | ({"late": found["cnn"]} if phase.num_old else {})

    result, _ = trained(Late, tiny_run(Base()), tiny_data, tmp_path)
    ends = [phase["stages"]["head"] for phase in result["phases"]]
    assert result["average_accuracy"].keys() == {"cnn", "nme"} and "late" in ends[-1]
    for name, average in result["average_accuracy"].items():
        assert average == pytest.approx(sum(end[name]["accuracy"] for end in ends) / 3)


def test_a_method_names_its_learner_or_is_refused_before_any_training(tiny_run: MakeRun, tmp_path: Path) -> None:
    """The name of the learner is not part of the method's hash."""
    assert learner_of(Outside()) is learner_of(Outside) is Alone
    assert canonical(Outside()) == {"type": "Outside", "version": 1}
    for names, message in (
        (None, "names no learner but None; give it `learner: ClassVar"),
        ("lucir.learner", "names no learner but 'lucir.learner'"),
        ("lucir.learner:LUCIR", "names no learner but 'lucir.learner:LUCIR'"),
        ("lucir.nowhere:LUCIRLearner", "'lucir.nowhere:LUCIRLearner' cannot be loaded: No module named"),
        (Run, "names no learner but <class 'common.runs.Run'>"),
    ):
        wrong = dataclass(frozen=True)(type("Wrong", (), {"learner": names, "version": 1}))()
        job = Job(tmp_path, None, "cpu", 1, 1)
        with pytest.raises(InputError, match=re.escape(message)):
            list(launch([tiny_run(Base()), tiny_run(wrong)], job, set()))
    assert not list(tmp_path.glob("runs/*"))
