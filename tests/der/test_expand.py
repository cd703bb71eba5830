"""Tests how extractors, classifiers and masks change from step to step, on a tiny network and tiny images."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from der_runs import MASKED, PLAIN, MakeRun, X, equal, states, train
from torch import Tensor

from common.command import launcher
from common.command.launcher import Job
from common.data.datasets import Dataset
from common.incremental import Phase
from common.resnet import CifarResNet, backbone
from common.store import Store
from der.learner import random_mask_logits
from der.methods import DER
from der.model import MaskedResNet
from der.wiring import wiring

# Extractors


@pytest.mark.parametrize("method", [PLAIN, MASKED], ids=["plain", "masked"])
def test_frozen_extractors_keep_their_bits(method: DER, der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """Weights, BatchNorm buffers and outputs stay.

    The extractors stay in eval mode without gradients in every mode of the network.
    """
    known: list[tuple[dict[str, Tensor], Tensor]] = []

    def watch(learner: Any, phase: Phase, when: str) -> None:
        net = learner.net
        frozen = list(net.extractors[:-1])
        net.train()
        assert net.training and net.new.training and not any(m.training for f in frozen for m in f.modules())
        assert not any(p.requires_grad for f in frozen for p in f.parameters())
        assert len(frozen) == phase.index
        for f, (state, output) in zip(frozen, known, strict=False):
            assert equal(dict(f.state_dict()), state)
            assert torch.equal(f(X), output) and all(p.grad is None for p in f.parameters())
        if when == "before main":
            assert len(known) == phase.index
        if when == "after main":
            new = net.new.eval()
            known.append((states(net)[-1], new(X).detach()))

    train(der_run(method), tiny_data, tmp_path, watch)
    assert len(known) == 4


def test_the_new_extractor_begins_as_the_last_one(der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    def watch(learner: Any, phase: Phase, when: str) -> None:
        if when == "before main" and phase.index:
            old, new = learner.net.extractors[-2:]
            assert equal(dict(old.state_dict()), dict(new.state_dict()))
            assert not {t.data_ptr() for t in old.state_dict().values()} & {
                t.data_ptr() for t in new.state_dict().values()
            }
            assert all(p.requires_grad for p in new.parameters())

    train(der_run(PLAIN), tiny_data, tmp_path, watch)


def test_with_masks_it_begins_unpruned_with_fresh_masks(der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    full: dict[int, dict[str, Tensor]] = {}
    fresh: list[Tensor] = []

    def watch(learner: Any, phase: Phase, when: str) -> None:
        net = learner.net
        if when == "before main":
            assert isinstance(net.new, MaskedResNet) and net.full is None
            fresh.append(net.new.e.detach().clone())
            if phase.index:
                assert equal(dict(net.new.body.state_dict()), full[phase.index - 1])
        if when == "after main":
            full[phase.index] = {k: v.clone() for k, v in net.full.body.state_dict().items()}
            assert wiring(net.full.body).channels == wiring(net.make()).channels
            assert type(net.new) is CifarResNet

    train(der_run(MASKED), tiny_data, tmp_path, watch)
    assert len(fresh) == 4 and not torch.equal(fresh[0], fresh[1])


def test_masks_can_begin_as_the_previous_ones_ended(der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """They equal the previous ones bit for bit, also through a checkpoint, and have memory of their own."""
    ended: list[Tensor] = []

    def watch(learner: Any, phase: Phase, when: str) -> None:
        if when == "before main":
            e = learner.net.new.e
            learner.first = e.detach().clone()
            if ended:
                assert torch.equal(e, ended[-1])
                assert learner.net.initial[phase.index] == learner.net.new.sparsity(learner.net.new.hard())
        if when == "after main":
            ended.append(learner.net.full.e.clone())
            assert not torch.equal(ended[-1], learner.first)
            loaded = copy.deepcopy(learner.net)
            loaded.load_state_dict(learner.net.state_dict())
            assert torch.equal(loaded.full.e, ended[-1])

    train(der_run(replace(MASKED, mask_start="inherit")), tiny_data, tmp_path, watch)
    assert len(ended) == 4


def test_inner_masks_leave_the_streams_whole(der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """Masks of the streams are 1 at every s. A lambda_s as large as this prunes everything that has a mask."""
    widths: list[int] = []

    def watch(learner: Any, phase: Phase, when: str) -> None:
        net = learner.net
        if when == "before main":
            net.new.clamp(6.0)
            for s in (1 / 400, 1 / 15, 15.0):
                streams = [m for g, m in enumerate(net.new.soft(s)) if g not in net.new.wiring.inner]
                assert all((m == 1).all() for m in streams)
            assert all((m < 1).all() for g, m in enumerate(net.new.soft(1.0)) if g in net.new.wiring.inner)
        if when == "after main":
            widths.append(net.widths[-1])
            plan = wiring(net.new)
            assert [c for g, c in enumerate(plan.channels) if g in plan.inner] == [1] * len(plan.inner)

    method = replace(MASKED, mask_groups="inner", sparsity=100.0)
    summary = train(der_run(method), tiny_data, tmp_path, watch).result["summary"]
    assert widths == [wiring(backbone("tiny")).channels[-1]] * 4
    assert all(0 < share < 1 for share in summary["initial_share"])


@pytest.mark.parametrize("init", ["previous", "random"])
def test_a_random_start_is_an_option(init: Any, der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    same: list[bool] = []

    def watch(learner: Any, phase: Phase, when: str) -> None:
        if when == "before main" and phase.index:
            old, new = learner.net.extractors[-2:]
            same.append(torch.equal(old.conv.weight, new.conv.weight))

    train(der_run(replace(PLAIN, init=init)), tiny_data, tmp_path, watch)
    assert same == [init == "previous"] * 3


# Pruning in the course of a run


def test_a_pruned_network_takes_the_masked_ones_place(der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """Features stay the same, and so do the classifier's columns for them. BatchNorm is measured under binary masks."""
    seen: list[int] = []

    def watch(learner: Any, phase: Phase, when: str) -> None:
        if when == "before main" and not phase.index:
            original = learner.net.replace_new

            def replaced(pruned: Any, features: Tensor) -> None:
                masked = learner.net.new
                assert masked.body.bn.num_batches_tracked == -(-len(learner.indices) // 16)  # measured anew
                before, x = learner.net.eval()(X), masked.eval()(X)
                original(pruned, features)
                torch.testing.assert_close(learner.net.eval()(X), before, atol=1e-5, rtol=1e-5)
                torch.testing.assert_close(learner.net.new(X), x[:, features], atol=1e-5, rtol=1e-5)
                seen.append(learner.phase.index)

            learner.net.replace_new = replaced

    learner = train(der_run(MASKED), tiny_data, tmp_path, watch)
    assert seen == [0, 1, 2, 3]
    net = learner.net
    assert net.head.weight.shape == (8, sum(net.widths)) and net.aux is None and not hasattr(net.head, "bias")
    assert net.widths == [wiring(f).channels[-1] for f in net.extractors]
    summary = learner.result["summary"]
    assert summary["parameters"] == [sum(p.numel() for p in f.parameters()) for f in net.extractors]
    assert summary["full_parameters"] > max(summary["parameters"]) and len(summary["initial_share"]) == 4


def test_states_rebuild_the_shapes_they_were_saved_with(der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """A newly built network takes any state of the run, from inside a step or after it, and needs nothing else."""
    taken: list[tuple[dict[str, Tensor], Tensor]] = []

    def watch(learner: Any, phase: Phase, when: str) -> None:
        state = {k: v.clone() for k, v in learner.net.state_dict().items()}
        taken.append((state, copy.deepcopy(learner.net).eval()(X).detach()))

    learner = train(der_run(MASKED), tiny_data, tmp_path, watch)
    for state, output in taken:
        learner.build(2)
        torch.save(state, tmp_path / "state.pt")
        learner.net.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        torch.testing.assert_close(learner.net.eval()(X), output, atol=0, rtol=0)
        assert all(p.requires_grad == (f is learner.net.new) for f in learner.net.extractors for p in f.parameters())


def test_random_channels_need_a_run_that_says_how_many(der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"DER starts from a run of DER with masks.* give its Run a start"):
        train(der_run(replace(MASKED, channels="random")), tiny_data, tmp_path)


def test_random_channels_are_as_many_as_learned(der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    learned = der_run(MASKED)
    assert launcher.train(learned, Job(tmp_path, None, "cpu", 1, 1)) == ""
    logits: list[tuple[Tensor, Tensor]] = []

    def watch(learner: Any, phase: Phase, when: str) -> None:
        if when == "before main":
            logits.append((learner.net.new.e, learner.net.new.e.detach().clone()))

    control = replace(der_run(replace(MASKED, channels="random")), start=learned)
    learner = train(control, tiny_data, tmp_path, watch)
    assert all(torch.equal(now, before) for now, before in logits)  # held
    result = Store(tmp_path).load(learned.hash)
    assert result and learner.net.channels() == result.values["summary"]["channels"]
    assert len(learner.result["phases"]) == 4 and "main" in learner.result["phases"][0]["stages"]  # its own first step


def test_chosen_logits() -> None:
    first, second = (random_mask_logits((8, 4), (3, 1), torch.Generator().manual_seed(seed)) for seed in (0, 1))
    for e in (first, second):
        assert (e[:8] > 0).sum() == 3 and (e[8:] > 0).sum() == 1 and (e.abs() == 1).all()
    assert not torch.equal(first, second)


# Features and classifiers


@pytest.mark.parametrize("method", [PLAIN, MASKED], ids=["plain", "masked"])
def test_super_features_and_heads(method: DER, der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """Old features keep their places.

    H_t is [n_seen, features], H^a is [|Y_t| + 1, new features]; neither has a bias.
    """
    before: list[Tensor] = []

    def watch(learner: Any, phase: Phase, when: str) -> None:
        net = learner.net.eval()
        features = net.features(X)
        if when == "before main":
            for u in before[-1:]:
                assert torch.equal(features[:, : u.shape[1]], u)
            assert net.head.weight.shape == (phase.seen, features.shape[1])
            assert (net.aux is None) == (phase.index == 0)
            if net.aux is not None:
                assert net.aux.weight.shape == (phase.num_new + 1, 16)
            assert [n for n, _ in net.head.named_parameters()] == ["weight"]
        if when == "after main":
            before.append(features.detach())

    train(der_run(method), tiny_data, tmp_path, watch)


def test_inheriting_keeps_the_old_block(der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    ends: list[Tensor] = []

    def watch(learner: Any, phase: Phase, when: str) -> None:
        weight = learner.net.head.weight
        if when == "before main" and ends:
            old = ends[-1]
            assert torch.equal(weight[: old.shape[0], : old.shape[1]], old)
            assert not torch.equal(weight[old.shape[0] :, : old.shape[1]], old[: phase.num_new])
        if when in ("after main", "after classifier"):
            ends.append(weight.detach().clone())

    train(der_run(replace(PLAIN, classifier="inherit", reset=False)), tiny_data, tmp_path, watch)


def test_the_auxiliary_loss_is_the_new_extractors_alone(der_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    def watch(learner: Any, phase: Phase, when: str) -> None:
        if when != "before main" or not phase.index:
            return
        net = copy.deepcopy(learner.net).train()
        labels = torch.tensor([0, 1, phase.num_old, phase.num_old + 1, 0])
        targets = torch.tensor([0, 0, 1, 2, 0])
        loss = F.cross_entropy(net.aux(net.newest_columns(net.features(X))), targets)
        loss.backward()
        assert net.head.weight.grad is None and net.new.conv.weight.grad.abs().sum() > 0
        assert all(p.grad is None for f in net.extractors[:-1] for p in f.parameters())
        whole = learner.loss(X, labels)
        net = learner.net
        without = F.cross_entropy(net(X), labels)
        net.zero_grad()
        aux = F.cross_entropy(net.aux(net.newest_columns(net.features(X))), targets)
        torch.testing.assert_close(whole, without + 2.0 * aux, atol=1e-4, rtol=1e-4)

    train(der_run(replace(PLAIN, aux=2.0)), tiny_data, tmp_path, watch)
