"""Tests the class-balanced learner: the recipe of large images, the top-5 read-out and the starting bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from class_balanced import learner as class_balanced
from class_balanced.methods import ClassBalanced
from common import incremental
from common.data.datasets import Dataset
from common.incremental import Phase
from common.runs import Run, Schedule
from common.store import Store
from common.training import Device, make_sgd

MakeRun = Callable[..., Run]


def trained(run: Run, data: Dataset, out: Path) -> tuple[Any, dict]:
    """Return the learner after training, and its Result."""
    learners: list[Any] = []

    class Watched(class_balanced.ClassBalancedLearner):
        def stages(self, phase: Phase) -> Any:
            learners.append(self)
            self.fresh = self.net.head.weight.detach().clone(), self.net.head.bias.detach().clone()
            for stage in super().stages(phase):
                stage.parameters = list(stage.parameters)
                self.groups = make_sgd(stage).param_groups
                yield stage

    with Store(out).open(run) as workspace:
        result = incremental.run(run, data, Watched, workspace, Device("cpu", "fp32"))
        learners[0].matrices = dict(workspace.confusion)
    return learners[0], result


def test_the_recipe_of_large_images(tail_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """Weights start small and normal, the bias as in the paper. Only matrices and kernels decay (official code)."""
    method = ClassBalanced("focal", beta=0.99, gamma=0.5, recipe="imagenet")
    learner, _ = trained(tail_run(method), tiny_data, tmp_path)
    weight, bias = learner.fresh
    assert weight.std().item() == pytest.approx(0.01, rel=0.3) and weight.abs().max() < 0.05
    assert bias.tolist() == pytest.approx([-np.log(7)] * 8)
    decayed, spared = learner.groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (5e-4, 0)
    names = {id(p): n for n, p in learner.net.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} == {
        "backbone.conv1.weight", "backbone.conv2.weight", "head.weight",
    }  # fmt: skip
    assert len(decayed["params"]) + len(spared["params"]) == len(names)


def test_softmax_on_large_images_spares_its_bias_too(tail_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    learner, _ = trained(tail_run(ClassBalanced(recipe="imagenet")), tiny_data, tmp_path)
    assert any(p is learner.net.head.bias for p in learner.groups[1]["params"])
    assert not learner.fresh[1].any()


def test_top5_is_right_where_the_class_is_among_five(tail_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    run = tail_run(ClassBalanced(recipe="imagenet"), schedule=Schedule(1, lr=0.01, batch=8))
    learner, result = trained(run, tiny_data, tmp_path)
    assert "top5" not in result["phases"][0]["stages"]["main"]  # small images
    large = replace(run, inputs=replace(run.inputs, kind="resized-crop"))
    learner.context = replace(learner.context, run=large)
    images, phase = learner.context.test, Phase(0, 0, 8)
    learner.net.eval()
    with torch.no_grad():
        features = torch.cat([learner.net.features(batch) for batch in images.plain(torch.arange(40))])
        logits, found = learner.net.head(features), learner.readouts(features, phase)
    ranks = (logits > logits.gather(1, images.labels[:, None])).sum(dim=1)
    assert torch.equal((found["top5"] == images.labels[:, None]).any(dim=1), ranks < 5)
    assert torch.equal(found["cnn"] == images.labels, ranks < 1)
    assert found["top5"].shape == (40, 5) and (ranks < 5).sum() > (ranks < 1).sum()
    assert learner.readouts(features[:, :], Phase(0, 0, 3))["top5"].shape == (40, 3)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "focal"])
def test_the_bias_may_start_at_zero(kind: Any, tail_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """The weights stay as they are. The paper's starting bias differs from zero only for losses on sigmoids."""
    starts = {}
    for start in ("prior", "zero"):
        method: Any = ClassBalanced(kind, bias_start=start)
        starts[start] = trained(tail_run(method), tiny_data, tmp_path / start)[0].fresh
    assert torch.equal(starts["prior"][0], starts["zero"][0])
    assert starts["zero"][1].tolist() == [0.0] * 8
    assert starts["prior"][1].tolist() == pytest.approx([0.0 if kind == "softmax" else -np.log(7)] * 8)
