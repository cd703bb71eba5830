"""Tests whole runs: the cost of a step and of a run, capture of many steps, and the baselines in DER's recipe."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from der_runs import CPU, FINETUNE, MASKED, PLAIN, SCHEDULE, MakeRun, X, train
from recorder import record
from torch.utils.flop_counter import FlopCounterMode

from common import incremental, resnet, training
from common.command import launcher
from common.command.estimates import cost
from common.command.launcher import Job
from common.data.datasets import Dataset
from common.incremental import Phase, learner_of
from common.resnet import CifarResNet
from common.runs import Protocol
from common.store import Store
from der.methods import DER, WA, BiC

# Cost and capture


def test_a_step_costs_one_more_forward_a_frozen_extractor(der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """FLOPs of a training step are counted in each step of a run. Nothing frozen has a backward pass."""
    costs: list[int] = []

    def watch(learner: Any, phase: Phase, when: str) -> None:
        if when == "before main":
            learner.net.train()
            with FlopCounterMode(display=False) as counter:
                learner.loss(X, torch.tensor([0, 1, 0, 1, 0])).backward()
            costs.append(counter.get_total_flops())
            learner.net.zero_grad()

    learner = train(der_run(PLAIN), tiny_data, tmp_path, watch)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        learner.net.extractors[0](X)
    one, heads = counter.get_total_flops(), 5 * 2 * 3 * (8 * 64 + 3 * 16)
    assert all(b - a <= one + heads for a, b in pairwise(costs))


@pytest.mark.parametrize("method", [PLAIN, WA(), replace(PLAIN, expand=False)], ids=["plain", "WA", "single"])
def test_an_estimate_counts_the_images_that_are_trained(
    method: Any, der_run: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    run = der_run(method)
    assert cost(run, tiny_data) == sum(train(run, tiny_data, tmp_path).result["trace"]["images"])


def test_capture_survives_50_steps(der_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In B0 with 50 steps, the network grows in each step, and no stage falls back to Python."""
    monkeypatch.setattr(training, "capture_for", lambda images: record)
    monkeypatch.setitem(resnet.BACKBONES, "tiny", lambda relu: CifarResNet((1,), 8, final_relu=relu, stem_stride=2))
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (100, 32, 32, 3), dtype=np.uint8), np.repeat(np.arange(50), 2)
    dataset = Dataset("noise", images, labels, images, labels, tuple(map(str, range(50))), "0123456789abcdef")
    protocol, schedule = Protocol(50, 1, 1, None, 50, rounding="down"), replace(SCHEDULE, epochs=2, batch=16)
    run = der_run(replace(PLAIN, finetune=None), protocol=protocol, schedule=schedule)
    with Store(tmp_path).open(run) as workspace:
        incremental.run(run, dataset, learner_of(DER), workspace, CPU)
    assert workspace.steps["captured"] == workspace.steps["eager"] <= 2 * 50
    assert workspace.steps["graph"] >= 50


# Baselines


def test_weight_aligning_equals_norms(der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    def watch(learner: Any, phase: Phase, when: str) -> None:
        weight = learner.net.head.weight.detach()
        if when == "after main":
            assert (weight >= 0).all()
            if phase.index:
                old, new = weight[: phase.num_old].norm(dim=1).mean(), weight[phase.num_old :].norm(dim=1).mean()
                torch.testing.assert_close(old, new)

    learner = train(der_run(WA()), tiny_data, tmp_path, watch)
    labels = torch.tensor([0, 1, 6, 7, 2])
    logits, old = learner.net.train()(X), learner.teacher(X)
    p, log_q = (old / 2).softmax(1), (logits[:, :6] / 2).log_softmax(1)
    expected = 0.25 * F.cross_entropy(logits, labels) + 0.75 * (p * (p.log() - log_q)).sum(1).mean()
    torch.testing.assert_close(learner.loss(X, labels), expected, atol=1e-4, rtol=1e-4)


def test_bias_correction_learns_two_numbers_on_held_out_images(
    der_run: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    before: dict[str, Any] = {}

    def watch(learner: Any, phase: Phase, when: str) -> None:
        head, labels = learner.net.head, learner.context.train.labels
        if when == "before main" and phase.index:
            out, rest = set(learner.held_out.tolist()), set(learner.train_indices.tolist())
            assert not out & rest and len(set(torch.bincount(labels[learner.held_out]).tolist())) == 1
            assert head.alpha.item() == 1 and head.beta.item() == 0
        if when == "before bias":
            before["weight"] = head.weight.detach().clone()
        if when == "after bias":
            assert torch.equal(head.weight, before["weight"]) and head.alpha.item() != 1 and head.beta.item() != 0
            features = torch.rand(3, 16)
            raw, logits = features @ head.weight.T, head(features)
            torch.testing.assert_close(logits[:, : phase.num_old], raw[:, : phase.num_old])
            torch.testing.assert_close(logits[:, phase.num_old :], head.alpha * raw[:, phase.num_old :] + head.beta)

    train(der_run(BiC(bias=FINETUNE)), tiny_data, tmp_path, watch)


def test_a_base_of_its_own_schedule(der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """In B50, the base Run is masked and pruned, and the other Runs go on from it."""
    base = der_run(replace(MASKED, finetune=None), protocol=Protocol(4, 4, 0, 0), schedule=replace(SCHEDULE, warmup=0))
    assert launcher.train(base, Job(tmp_path, None, "cpu", 1, 1)) == ""
    run = replace(der_run(MASKED, protocol=Protocol(8, 4, 2, 3)), start=base)
    learner = train(run, tiny_data, tmp_path)
    found = Store(tmp_path).load(base.hash)
    assert found and learner.result["summary"]["channels"][0] == found.values["summary"]["channels"][0]
    assert learner.result["phases"][0]["stages"]["start"]["cnn"] == found.values["phases"][0]["stages"]["main"]["cnn"]
    assert len(learner.net.extractors) == 3
