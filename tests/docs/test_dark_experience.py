"""Tests DER++ of docs/: its loss against a plain loop, and the logits that it keeps with its exemplars."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from dark_experience import DarkExperience, DarkExperienceLearner
from torch import Tensor

from common import incremental
from common.data.datasets import Dataset
from common.incremental import Phase
from common.runs import Protocol, Run
from common.store import Store
from common.training import Device

MakeRun = Callable[..., Run]
METHOD = DarkExperience(alpha=0.3, beta=0.7)


class Stop(Exception):
    """Ends a run where a test takes over."""


@pytest.fixture
def learner(tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> DarkExperienceLearner:
    """Return a learner after phases of 4 and 2 classes, in a third phase of 2.

    Of 16 exemplars in total, 3 are for each known class.
    """
    made: list[DarkExperienceLearner] = []

    class Stopped(DarkExperienceLearner):
        def end_phase(self, phase: Phase) -> dict:
            if phase.index == 1:
                made.append(self)
                raise Stop
            return {}

    run = tiny_run(METHOD, protocol=Protocol(8, 4, 2, None, 16))
    with Store(tmp_path).open(run) as workspace, pytest.raises(Stop):
        incremental.run(run, tiny_data, Stopped, workspace, Device("cpu", "fp32"))
    incremental.begin(made[0], Phase(2, 6, 2))
    return made[0]


def by_hand(logits: np.ndarray, labels: list[int], stored: list[np.ndarray | None]) -> float:
    """Return CE of new images + alpha * mean squared distance to stored logits + beta * CE of old images."""

    def entropy(kept: list[int]) -> float:
        return float(np.mean([np.log(np.exp(logits[i]).sum()) - logits[i][labels[i]] for i in kept]))

    new = [i for i, s in enumerate(stored) if s is None]
    old = [i for i, s in enumerate(stored) if s is not None]
    errors = [(logits[i][k] - value) ** 2 for i in old for k, value in enumerate(stored[i])]  # type: ignore[arg-type]
    return entropy(new) + 0.3 * float(np.mean(errors)) + 0.7 * entropy(old)


def test_the_loss_is_that_of_a_plain_loop(learner: DarkExperienceLearner) -> None:
    """An old exemplar has 4 or 6 stored logits, depending on the phase it came in. A new image has none."""
    memory, train = learner.context.memory, learner.context.train
    new = learner.context.of_classes(6, 8)[:5]
    indices = torch.cat([new, memory.indices[1], memory.indices[5]])[torch.randperm(5 + 3 + 3)]
    images, labels = next(train.epoch(indices, 16, torch.Generator().manual_seed(0)))
    learner.net.eval()
    logits = learner.net(images).detach().double().numpy()
    kept: list[np.ndarray | None] = []
    for index, label in zip(indices.tolist(), labels.tolist(), strict=True):
        if label >= 6:
            kept.append(None)
            continue
        place = memory.indices[label].tolist().index(index)
        kept.append(memory.tensors["logits"][label][place][: 4 if label < 4 else 6].double().numpy())
    expected = by_hand(logits, labels.tolist(), kept)
    assert learner.loss(images, labels, indices).item() == pytest.approx(expected, rel=1e-5)


def test_gradients_are_finite_where_nothing_is_replayed(learner: DarkExperienceLearner) -> None:
    """Unknown logits are NaN, which must not get into a gradient even with a factor of 0."""
    new = learner.context.of_classes(6, 8)[:1]
    images, labels = next(learner.context.train.epoch(new, 16, torch.Generator()))
    learner.loss(images, labels, new).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in learner.net.parameters())


def test_batches_are_half_new_and_half_replayed(learner: DarkExperienceLearner) -> None:
    stage = learner.main(learner.phase)
    order: Tensor = stage.sampler(stage.indices, torch.Generator().manual_seed(1))
    labels = learner.context.train.labels[order]
    assert sorted(order[::2].tolist()) == stage.indices.tolist() and bool((labels[::2] >= 6).all())
    assert bool((labels[1::2] < 6).all()) and set(order[1::2].tolist()) <= set(learner.context.memory.all().tolist())


def test_logits_are_those_of_the_moment(learner: DarkExperienceLearner) -> None:
    """They were stored when their class came, for the classes of that time, and are truncated with their exemplars."""
    memory = learner.context.memory
    assert memory.tensors["logits"].keys() == set(range(6)) == memory.indices.keys()
    for label, rows in memory.tensors["logits"].items():
        known = 4 if label < 4 else 6
        assert rows.shape == (3, 8) and len(memory.indices[label]) == 3
        assert rows[:, :known].isfinite().all() and rows[:, known:].isnan().all()
