"""Tests what DER trains in each stage, and what its memory keeps, on a tiny network and tiny images."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from der_runs import B0, MASKED, PLAIN, SCHEDULE, MakeRun, X, equal, states, train
from torch import Tensor

from common.data.datasets import Dataset
from common.incremental import Phase
from common.memory import ExemplarMemory, herd
from der.learner import DERLearner, balanced_subset
from der.model import MaskedResNet

# Stages


def test_both_heads_start_again_after_the_warm_up(
    der_run: MakeRun, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are sampled again in place, exactly once, within the bounds of a fresh linear layer. The extractor stays."""
    resets: list[tuple[int, int]] = []
    original = DERLearner.begin_epoch

    def begin(learner: Any, epoch: int) -> None:
        net = learner.net
        heads = [h for h in (net.head, net.aux) if h is not None]
        before = [h.weight.detach().clone() for h in heads]
        places, body = [h.weight.data_ptr() for h in heads], states(net)
        original(learner, epoch)
        changed = {not torch.equal(h.weight, b) for h, b in zip(heads, before, strict=True)}
        assert len(changed) == 1 and [h.weight.data_ptr() for h in heads] == places
        assert all(equal(a, b) for a, b in zip(states(net), body, strict=True))
        if changed == {True}:
            resets.append((learner.phase.index, epoch))
            assert all(h.weight.abs().max() <= h.weight.shape[1] ** -0.5 for h in heads)

    monkeypatch.setattr(DERLearner, "begin_epoch", begin)
    train(der_run(PLAIN, schedule=replace(SCHEDULE, warmup=2)), tiny_data, tmp_path / "a")
    assert resets == [(0, 2), (1, 2), (2, 2), (3, 2)]
    resets.clear()
    train(der_run(replace(PLAIN, reset=False)), tiny_data, tmp_path / "b")
    assert not resets


def test_the_classifier_stage_trains_the_classifier_alone(der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """It trains a fresh classifier on a balanced subset of D_t and M_(t-1), but not in the first step."""
    seen: list[int] = []
    before: dict[str, Any] = {}

    def watch(learner: Any, phase: Phase, when: str) -> None:
        net, labels = learner.net, learner.context.train.labels
        if when == "before main":
            memory = learner.context.memory
            before["pool"] = {c: len(k) for c, k in memory.indices.items()} | {
                c: 12 for c in range(phase.num_old, phase.seen)
            }
            counts = torch.bincount(labels[learner.balanced_indices]).tolist()
            assert counts == [min(before["pool"].values())] * phase.seen
            assert set(learner.balanced_indices.tolist()) <= set(learner.indices.tolist())
        if when == "before classifier":
            assert phase.index > 0
            before["states"], before["head"] = states(net), net.head.weight.detach().clone()
        if when == "after classifier":
            seen.append(phase.index)
            assert all(equal(a, b) for a, b in zip(states(net), before["states"], strict=True))
            assert not torch.equal(net.head.weight, before["head"])

    learner = train(der_run(PLAIN), tiny_data, tmp_path, watch)
    assert seen == [1, 2, 3]
    logits = learner.net.eval()(X)
    labels = torch.tensor([0, 1, 2, 3, 4])
    torch.testing.assert_close(learner.classifier_loss(X, labels), F.cross_entropy(logits / 5, labels))
    start = learner.net.head.weight.detach().clone()
    stage = list(DERLearner.stages(learner, learner.phase))[1]
    stage.on_epoch(0)
    assert not torch.equal(learner.net.head.weight, start)
    again = learner.net.head.weight.detach().clone()
    stage.on_epoch(1)
    assert torch.equal(learner.net.head.weight, again)


def test_s_is_annealed_in_every_epoch(
    der_run: MakeRun, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During training, s rises linearly from 1/s_max in an epoch's first batch to s_max in its last, in every step."""
    seen: dict[int, list[Tensor]] = {}
    original = DERLearner.masks

    def masks(learner: Any) -> Any:
        made = original(learner)
        e, m = (t.detach().double() for t in (learner.net.new.e, torch.cat(made)))
        small = e.abs().argsort()[12]  # one of 48 logits for which neither rounding nor saturation hides s
        seen.setdefault(learner.phase.index, []).append(m[small].logit() / e[small])
        return made

    monkeypatch.setattr(DERLearner, "masks", masks)
    train(der_run(MASKED), tiny_data, tmp_path)
    for phase, images in enumerate((24, 24 + 12, 24 + 12, 24 + 12)):
        epoch = torch.linspace(1 / 15, 15, math.ceil(images / 16), dtype=torch.float64)
        expected = epoch.repeat(SCHEDULE.epochs)
        torch.testing.assert_close(torch.stack(seen[phase]), expected, rtol=1e-3, atol=1e-3)


def test_logits_are_clamped_before_use(der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    learner = train(der_run(MASKED), tiny_data, tmp_path)
    learner.net.extractors[-1] = MaskedResNet(learner.net.make(), torch.linspace(-8, 8, 48))
    learner.batches = 3
    clamped = torch.linspace(-8, 8, 48).clamp(-6, 6)
    for _ in range(2):  # an epoch begins the anneal anew
        learner.begin_epoch(0)
        for s in (1 / 15, (1 / 15 + 15) / 2, 15):
            torch.testing.assert_close(torch.cat(learner.masks()), torch.sigmoid(s * clamped))
    assert learner.net.new.e.abs().max() == 6


def test_sparsity_is_a_term_of_the_loss(der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """By Eq. 11, losses of one batch at lambda_s 2 and 0, at the same s, differ by twice the share in use."""

    def watch(learner: Any, phase: Phase, when: str) -> None:
        if when != "before main":
            return
        losses, new = [], learner.net.new
        for weight in (2.0, 0.0):
            learner.config = replace(MASKED, sparsity=weight)
            learner.batch.fill_(1)
            losses.append(learner.loss(X, torch.tensor([0, 1, 0, 1, 0])))
        learner.config = MASKED
        s = 1 / 15 + (15 - 1 / 15) / (learner.batches - 1)  # in the second batch
        torch.testing.assert_close(losses[0] - losses[1], 2 * new.sparsity(new.soft(s)), atol=1e-4, rtol=1e-4)

    train(der_run(MASKED), tiny_data, tmp_path, watch)


def test_masks_move_at_their_own_rate_and_without_decay(der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    moved = {}
    for rate in (0.0, 1.0, 50.0):
        ends: list[Tensor] = []

        def watch(learner: Any, phase: Phase, when: str, ends: list[Tensor] = ends) -> None:
            if when == "before main" and phase.index == 0:
                e = learner.net.new.e
                ends.extend([e.detach().clone(), e.detach()])

        train(der_run(replace(MASKED, mask_rate=rate)), tiny_data, tmp_path / str(rate), watch)
        moved[rate] = float((ends[1] - ends[0]).abs().mean())
    assert moved[0.0] == 0 and 0 < 10 * moved[1.0] < moved[50.0]


def test_more_sparsity_keeps_less(der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    kept = [
        sum(train(der_run(replace(MASKED, sparsity=w)), tiny_data, tmp_path / str(w)).result["summary"]["parameters"])
        for w in (0.0, 20.0)
    ]
    assert kept[1] < kept[0]


def test_the_single_network_is_trained_on(der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    learner = train(der_run(replace(PLAIN, expand=False, aux=0.0)), tiny_data, tmp_path)
    assert len(learner.net.extractors) == 1 and learner.net.head.weight.shape == (8, 16)
    assert "classifier" in learner.result["phases"][1]["stages"]


# Memory and herding


def test_a_budget_that_holds(der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """Each class keeps floor(M / seen) exemplars at most, which begin its herding order. Step t trains on M_(t-1)."""
    kept: list[dict[int, list[int]]] = []
    sizes: list[int] = []

    def watch(learner: Any, phase: Phase, when: str) -> None:
        if when == "before main":
            sizes.append(len(learner.indices))
        if when == "after main":
            kept.append({c: k.tolist() for c, k in learner.context.memory.indices.items()})

    protocol = replace(B0, exemplars_total=21)
    learner = train(der_run(PLAIN, protocol=protocol), tiny_data, tmp_path, watch)
    assert [{len(k) for k in memory.values()} for memory in kept] == [{10}, {5}, {3}, {2}]
    assert sizes == [24, 24 + 20, 24 + 20, 24 + 18]
    for earlier, later in pairwise(kept):
        assert all(earlier[c][: len(later[c])] == later[c] for c in earlier)
    labels = learner.context.train.labels
    assert all((labels[torch.tensor(k)] == c).all() for c, k in kept[-1].items())


def test_train_set_sizes_of_the_paper() -> None:
    """For CIFAR-100 in 10 steps with 2000 exemplars, sizes are those of a log of the official code."""
    memory = ExemplarMemory(total=2000, rounding="down")
    sizes = [5000 + (min(memory.quota(10 * t), 500) * 10 * t if t else 0) for t in range(10)]
    assert sizes == [5000, 7000, 7000, 6980, 7000, 7000, 6980, 6960, 7000, 6980]
    assert min(memory.quota(2), 500) == 500  # B0 with 50 steps: capped at the class's size


def test_herding_is_the_greedy_one() -> None:
    features = torch.rand(30, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    unit = features / features.norm(dim=1, keepdim=True)
    mean, picked = unit.mean(0), list[int]()
    w = mean.clone()
    while len(picked) < 8:
        best = int((unit @ w).argmax())
        if best not in picked:
            picked.append(best)
        w = w + mean - unit[best]
    assert herd(features, 8).tolist() == picked == herd(features, 8).tolist()


def test_balanced_subsets() -> None:
    labels = torch.tensor([0] * 5 + [1] * 3 + [2] * 7)
    out = balanced_subset(torch.arange(15), labels, torch.Generator().manual_seed(0))
    assert torch.bincount(labels[out]).tolist() == [3, 3, 3] and len(out.unique()) == 9
