"""Tests what a user's learner may keep: state in checkpoints, and tensors that are found by the exemplars' indices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from killed import Killed, kill_after
from recorder import record
from torch import Tensor

from common import incremental, store, training
from common.data.datasets import Dataset
from common.errors import InputError
from common.incremental import Learner, Phase, frozen_copy
from common.memory import ExemplarMemory
from common.runs import Protocol, Run
from common.store import Store
from common.training import Device, Stage
from lucir.methods import Base

CPU = Device("cpu", "fp32")
MakeRun = Callable[..., Run]


class Taught(Learner):
    """Makes two teachers in `stages`: the network as the phase finds it, and as the phase's first stage leaves it."""

    old: Any = None
    expert: Any = None

    def stages(self, phase: Phase) -> Iterator[Stage]:
        if phase.num_old:
            self.old, self.expert = frozen_copy(self.net, self.context.device), None
        yield self.main(phase)
        self.expert = frozen_copy(self.net, self.context.device)
        last = self.main(phase)
        last.name = "again"
        yield last

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        loss, logits = super().loss(images, labels), self.net(images)
        for teacher in filter(None, (self.old, self.expert)):
            kept = teacher(images)
            loss = loss + F.mse_loss(logits[:, : kept.shape[1]], kept)
        return loss

    def state(self) -> dict[str, Tensor]:
        found = {"old": self.old, "expert": self.expert}
        return {f"{name}.{k}": v for name, net in found.items() if net for k, v in net.state_dict().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        for name in ("old", "expert"):
            if net := getattr(self, name):
                net.load_state_dict({k.partition(".")[2]: v for k, v in state.items() if k.startswith(f"{name}.")})


class Forgetful(Taught):
    """Taught without the hooks that save its state."""

    def state(self) -> dict[str, Tensor]:
        return {}


class Counting(Learner):
    """Weighs a phase by a tensor that grows at the end of each phase, since assigning a tensor also sets its shape."""

    weights = torch.ones(1)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.weights.sum() * super().loss(images, labels)

    def end_phase(self, phase: Phase) -> dict[str, Any]:
        self.weights = torch.cat([self.weights, self.net.head.bias.detach().abs().mean().reshape(1)])
        return {}

    def state(self) -> dict[str, Tensor]:
        return {"weights": self.weights}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.weights = state["weights"]


def result(
    kind: type[Learner], run: Run, data: Dataset, out: Path, progress: Callable[[int], None] | None = None
) -> dict:
    """Train a run to its end, or go on with it. Returns its measurements and the network's last weights."""
    kept: list[Learner] = []

    def make(*arguments: Any) -> Learner:
        kept.append(kind(*arguments))
        return kept[0]

    with Store(out).open(run) as workspace:
        if progress:
            workspace.progress = progress
        found = incremental.run(run, data, make, workspace, CPU)  # type: ignore[arg-type]
    return found | {name: value.tolist() for name, value in kept[0].net.state_dict().items()}


@pytest.mark.parametrize(("kind", "same"), [(Taught, True), (Counting, True), (Forgetful, False)])
def test_what_state_gives_is_there_after_a_kill_at_any_epoch(
    kind: type[Learner],
    same: bool,
    tiny_run: MakeRun,
    tiny_data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the hooks a resume ends elsewhere. So the equal bits come from the hooks."""
    monkeypatch.setattr(store, "SAVE_EVERY", 0)
    run = tiny_run(Base())
    whole = result(kind, run, tiny_data, tmp_path / "whole")
    ends = []
    for count in range(1, len(whole["trace"]["loss"]) + 1):
        out = tmp_path / str(count)
        with pytest.raises(Killed):
            result(kind, run, tiny_data, out, kill_after(count))
        ends.append(result(kind, run, tiny_data, out) == whole)
    assert len(ends) >= 6 and all(ends) == same


# Tensors beside the exemplars


@given(total=st.integers(4, 60), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_tensors_stay_beside_their_exemplars(total: int, sizes: list[int]) -> None:
    """Each row is a function of its index, and is found by that index, however often the memory has shrunk."""
    memory, seen = ExemplarMemory(total=total), 0
    for size in sizes:
        memory.shrink(seen + size)
        for label in range(seen, seen + size):
            indices = 100 * label + torch.randperm(15)
            memory.add(label, indices, torch.randn(15, 4), seen + size)
            kept = memory.indices[label]
            memory.attach(label, {"twice": torch.stack([2.0 * kept, -1.0 * kept], dim=1)})
        seen += size
    everything = memory.all()
    asked = everything[torch.randint(len(everything), (30,))]
    assert torch.equal(memory.lookup("twice")(asked), torch.stack([2.0 * asked, -1.0 * asked], dim=1))
    strangers = torch.tensor([i for i in range(-1, 100 * seen + 1) if i not in everything.tolist()])
    assert memory.lookup("twice")(strangers).isnan().all()


def test_what_cannot_lie_beside_exemplars_is_refused() -> None:
    memory = ExemplarMemory(per_class=2)
    with pytest.raises(InputError, match="'logits' is not kept beside every exemplar"):
        memory.lookup("logits")
    for label in (0, 1):
        memory.add(label, torch.arange(5), torch.randn(5, 3), 2)
    for wrong in (torch.ones(3, 4), torch.ones(2, 4, dtype=torch.long)):
        with pytest.raises(InputError, match="2 exemplars of class 0, must be floats with a row for each"):
            memory.attach(0, {"logits": wrong})
    memory.attach(0, {"logits": torch.ones(2, 4)})
    with pytest.raises(InputError, match="not kept beside every exemplar"):
        memory.lookup("logits")


class Watching(Learner):
    """Counts on the device the indices that its loss receives, and those that do not fit their image's label."""

    wants_indices = True

    def build(self, classes: int) -> None:
        super().build(classes)
        self.wrong, self.seen = torch.zeros(()), torch.zeros(len(self.context.train.labels))

    def loss(self, images: Tensor, labels: Tensor, indices: Tensor) -> Tensor:  # type: ignore[override]
        self.wrong.add_((self.context.train.labels[indices] != labels).sum())
        self.seen.index_add_(0, indices, torch.ones(len(images)))
        return super().loss(images, labels)

    def end_phase(self, phase: Phase) -> dict[str, Any]:
        return {"wrong": int(self.wrong), "seen": self.seen.tolist()}


@pytest.mark.parametrize("captured", [False, True])
def test_a_loss_that_asks_is_told_where_its_images_lie(
    captured: bool, tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if captured:
        monkeypatch.setattr(training, "capture_for", lambda images: record)
    run = tiny_run(Base(), protocol=Protocol(4, 4, 0, exemplars_per_class=0))
    (phase,) = result(Watching, run, tiny_data, tmp_path)["phases"]
    inside = torch.tensor(phase["seen"])
    assert phase["wrong"] == 0 and set(inside.tolist()) == {0.0, float(run.schedule.epochs)}
    assert int((inside > 0).sum()) == 4 * 12
