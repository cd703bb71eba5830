"""What DER trains in each step and what it leaves alone, on a tiny network and tiny images."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from recorder import record
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from common import incremental, launcher, resnet, training
from common.datasets import Dataset
from common.incremental import Phase
from common.launcher import Job
from common.memory import ExemplarMemory, herd
from common.resnet import CifarResNet
from common.runs import Protocol, Run, Schedule
from common.store import Store, Workspace
from common.training import Device, Stage
from der.learner import LEARNERS, DERLearner, balanced, chosen
from der.methods import DER, WA, BiC
from der.model import MaskedResNet
from der.wiring import wiring

CPU = Device("cpu", "fp32")
MakeRun = Callable[..., Run]
FINETUNE = Schedule(3, lr=0.1, milestones=(2,), batch=16, weight_decay=5e-4)
PLAIN, MASKED = DER(finetune=FINETUNE), DER(finetune=FINETUNE, sparsity=0.5, mask_rate=20.0)
SCHEDULE = Schedule(4, lr=0.05, milestones=(3,), batch=16, weight_decay=5e-4, warmup=1)
B0 = Protocol(8, 2, 2, None, 12, rounding="down")


@pytest.fixture
def make(tiny_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """(method, **changes) -> a Run of 4 steps of 2 classes on a small ResNet.

    Narrower ones crash: oneDNN's backward of a strided 1x1 convolution writes past its memory below 8 channels.
    """
    monkeypatch.setitem(resnet.BACKBONES, "tiny", lambda relu: CifarResNet((1, 1), 8, final_relu=relu, stem_stride=2))

    def make_run(method: Any, **changes: Any) -> Run:
        fields = {"protocol": B0, "schedule": SCHEDULE, "paper": "der"} | changes
        return replace(tiny_run(method), **fields)

    return make_run


def train(run: Run, dataset: Dataset, out: Path, watch: Callable[[Any, Phase, str], Any] = lambda *a: None) -> Any:
    """Train a run; its learner. watch(learner, phase, when) is called before and after each stage."""
    learners: list[Any] = []

    class Watched(LEARNERS[type(run.method)]):  # type: ignore[misc]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            learners.append(self)

        def stages(self, phase: Phase) -> Iterator[Stage]:
            for stage in super().stages(phase):
                watch(self, phase, f"before {stage.name}")
                yield stage
                watch(self, phase, f"after {stage.name}")

    with Store(out).open(run) as workspace:
        result = incremental.run(run, dataset, Watched, workspace, CPU)
    learners[0].result = result
    return learners[0]


def states(net: Any) -> list[dict[str, Tensor]]:
    return [{k: v.clone() for k, v in f.state_dict().items()} for f in net.extractors]


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


X = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


# Extractors


@pytest.mark.parametrize("method", [PLAIN, MASKED], ids=["plain", "masked"])
def test_frozen_extractors_keep_their_bits(method: DER, make: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """Weights, BatchNorm buffers and outputs; in eval mode without gradients whatever the network is put in."""
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

    train(make(method), tiny_data, tmp_path, watch)
    assert len(known) == 4


def test_the_new_extractor_begins_as_the_last_one(make: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    def watch(learner: Any, phase: Phase, when: str) -> None:
        if when == "before main" and phase.index:
            old, new = learner.net.extractors[-2:]
            assert equal(dict(old.state_dict()), dict(new.state_dict()))
            assert not {t.data_ptr() for t in old.state_dict().values()} & {
                t.data_ptr() for t in new.state_dict().values()
            }
            assert all(p.requires_grad for p in new.parameters())

    train(make(PLAIN), tiny_data, tmp_path, watch)


def test_with_masks_it_begins_unpruned_with_fresh_masks(make: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
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
            full[phase.index] = {k: v.clone() for k, v in net.full.state_dict().items()}
            assert wiring(net.full).channels == wiring(net.make()).channels
            assert type(net.new) is CifarResNet

    train(make(MASKED), tiny_data, tmp_path, watch)
    assert len(fresh) == 4 and not torch.equal(fresh[0], fresh[1])


@pytest.mark.parametrize("init", ["previous", "random"])
def test_a_random_start_is_an_option(init: Any, make: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    same: list[bool] = []

    def watch(learner: Any, phase: Phase, when: str) -> None:
        if when == "before main" and phase.index:
            old, new = learner.net.extractors[-2:]
            same.append(torch.equal(old.conv.weight, new.conv.weight))

    train(make(replace(PLAIN, init=init)), tiny_data, tmp_path, watch)
    assert same == [init == "previous"] * 3


# Pruning in the course of a run


def test_a_pruned_network_takes_the_masked_ones_place(make: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """Same features, and the classifier's columns of the kept ones; BatchNorm measured under binary masks."""
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

    learner = train(make(MASKED), tiny_data, tmp_path, watch)
    assert seen == [0, 1, 2, 3]
    net = learner.net
    assert net.head.weight.shape == (8, sum(net.widths)) and net.aux is None and not hasattr(net.head, "bias")
    assert net.widths == [wiring(f).channels[-1] for f in net.extractors]
    summary = learner.result["summary"]
    assert summary["parameters"] == [sum(p.numel() for p in f.parameters()) for f in net.extractors]
    assert summary["full_parameters"] > max(summary["parameters"]) and len(summary["initial_share"]) == 4


def test_states_rebuild_the_shapes_they_were_saved_with(make: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """A network as built takes any state of the run, in the middle of a step or after it, without other knowledge."""
    taken: list[tuple[dict[str, Tensor], Tensor]] = []

    def watch(learner: Any, phase: Phase, when: str) -> None:
        state = {k: v.clone() for k, v in learner.net.state_dict().items()}
        taken.append((state, copy.deepcopy(learner.net).eval()(X).detach()))

    learner = train(make(MASKED), tiny_data, tmp_path, watch)
    for state, output in taken:
        learner.build(2)
        torch.save(state, tmp_path / "state.pt")
        learner.net.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        torch.testing.assert_close(learner.net.eval()(X), output, atol=0, rtol=0)
        assert all(p.requires_grad == (f is learner.net.new) for f in learner.net.extractors for p in f.parameters())


def test_random_channels_are_as_many_as_learned(make: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    learned = make(MASKED)
    assert launcher.train(learned, Job(tmp_path, None, "cpu", 1, 1)) == ""
    logits: list[tuple[Tensor, Tensor]] = []

    def watch(learner: Any, phase: Phase, when: str) -> None:
        if when == "before main":
            logits.append((learner.net.new.e, learner.net.new.e.detach().clone()))

    control = replace(make(replace(MASKED, channels="random")), start=learned)
    learner = train(control, tiny_data, tmp_path, watch)
    assert all(torch.equal(now, before) for now, before in logits)  # held
    result = Store(tmp_path).load(learned.hash)
    assert result and learner.net.channels() == result.values["summary"]["channels"]
    assert len(learner.result["phases"]) == 4 and "main" in learner.result["phases"][0]["stages"]  # its own first step


def test_chosen_logits() -> None:
    e, generator = torch.randn(12), torch.Generator().manual_seed(0)
    out = chosen(e, (8, 4), [3, 1], generator)
    assert (out[:8] > 0).sum() == 3 and (out[8:] > 0).sum() == 1
    torch.testing.assert_close(out.abs(), e.abs().clamp(min=1e-3))


# Features and classifiers


@pytest.mark.parametrize("method", [PLAIN, MASKED], ids=["plain", "masked"])
def test_super_features_and_heads(method: DER, make: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """Old features keep their places; H_t is [n_seen, features], H^a [|Y_t| + 1, new features], both without biases."""
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

    train(make(method), tiny_data, tmp_path, watch)


def test_inheriting_keeps_the_old_block(make: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    ends: list[Tensor] = []

    def watch(learner: Any, phase: Phase, when: str) -> None:
        weight = learner.net.head.weight
        if when == "before main" and ends:
            old = ends[-1]
            assert torch.equal(weight[: old.shape[0], : old.shape[1]], old)
            assert not torch.equal(weight[old.shape[0] :, : old.shape[1]], old[: phase.num_new])
        if when in ("after main", "after classifier"):
            ends.append(weight.detach().clone())

    train(make(replace(PLAIN, classifier="inherit")), tiny_data, tmp_path, watch)


def test_the_auxiliary_loss_reaches_the_new_extractor_alone(make: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    def watch(learner: Any, phase: Phase, when: str) -> None:
        if when != "before main" or not phase.index:
            return
        net = copy.deepcopy(learner.net).train()
        labels = torch.tensor([0, 1, phase.num_old, phase.num_old + 1, 0])
        targets = torch.tensor([0, 0, 1, 2, 0])
        loss = F.cross_entropy(net.aux(net.of_new(net.features(X))), targets)
        loss.backward()
        assert net.head.weight.grad is None and net.new.conv.weight.grad.abs().sum() > 0
        assert all(p.grad is None for f in net.extractors[:-1] for p in f.parameters())
        whole = learner.loss(X, labels)
        net = learner.net
        without = F.cross_entropy(net(X), labels)
        net.zero_grad()
        aux = F.cross_entropy(net.aux(net.of_new(net.features(X))), targets)
        torch.testing.assert_close(whole, without + 2.0 * aux, atol=1e-4, rtol=1e-4)

    train(make(replace(PLAIN, aux=2.0)), tiny_data, tmp_path, watch)


# Stages


def test_both_heads_start_again_after_the_warm_up(
    make: MakeRun, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place, exactly once, within the bounds of a fresh linear layer; the extractor is untouched."""
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
    train(make(PLAIN, schedule=replace(SCHEDULE, warmup=2)), tiny_data, tmp_path / "a")
    assert resets == [(0, 2), (1, 2), (2, 2), (3, 2)]
    resets.clear()
    train(make(replace(PLAIN, reset=False)), tiny_data, tmp_path / "b")
    assert not resets


def test_the_classifier_stage_trains_the_classifier_alone(make: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """On a balanced subset of D_t and M_(t-1), from a fresh start; not in the first step."""
    seen: list[int] = []
    before: dict[str, Any] = {}

    def watch(learner: Any, phase: Phase, when: str) -> None:
        net, labels = learner.net, learner.context.train.labels
        if when == "before main":
            memory = learner.context.memory
            before["pool"] = {c: len(k) for c, k in memory.indices.items()} | {
                c: 12 for c in range(phase.num_old, phase.seen)
            }
            counts = torch.bincount(labels[learner.balanced]).tolist()
            assert counts == [min(before["pool"].values())] * phase.seen
            assert set(learner.balanced.tolist()) <= set(learner.indices.tolist())
        if when == "before classifier":
            assert phase.index > 0
            before["states"], before["head"] = states(net), net.head.weight.detach().clone()
        if when == "after classifier":
            seen.append(phase.index)
            assert all(equal(a, b) for a, b in zip(states(net), before["states"], strict=True))
            assert not torch.equal(net.head.weight, before["head"])

    learner = train(make(PLAIN), tiny_data, tmp_path, watch)
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


def test_s_is_annealed_in_every_epoch(make: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    learner = train(make(MASKED), tiny_data, tmp_path)
    learner.net.extractors[-1] = MaskedResNet(learner.net.make(), torch.linspace(-8, 8, 48))
    learner.batches = 3
    for _ in range(2):
        learner.begin_epoch(0)
        for s in (1 / 15, (1 / 15 + 15) / 2, 15):
            torch.testing.assert_close(torch.cat(learner.masks()), torch.sigmoid(s * learner.net.new.e.detach()))
    assert learner.net.new.e.abs().max() == 6  # clamped before use


def test_masks_move_at_their_own_rate_and_without_decay(make: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    moved = {}
    for rate in (0.0, 1.0, 50.0):
        ends: list[Tensor] = []

        def watch(learner: Any, phase: Phase, when: str, ends: list[Tensor] = ends) -> None:
            if when == "before main" and phase.index == 0:
                e = learner.net.new.e
                ends.extend([e.detach().clone(), e])

        train(make(replace(MASKED, mask_rate=rate)), tiny_data, tmp_path / str(rate), watch)
        moved[rate] = float((ends[1] - ends[0]).abs().mean())
    assert moved[0.0] == 0 and 0 < 10 * moved[1.0] < moved[50.0]


def test_more_sparsity_keeps_less(make: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    kept = [
        sum(train(make(replace(MASKED, sparsity=w)), tiny_data, tmp_path / str(w)).result["summary"]["parameters"])
        for w in (0.0, 20.0)
    ]
    assert kept[1] < kept[0]


def test_the_single_network_is_trained_on(make: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    learner = train(make(replace(PLAIN, expand=False, aux=0.0)), tiny_data, tmp_path)
    assert len(learner.net.extractors) == 1 and learner.net.head.weight.shape == (8, 16)
    assert "classifier" in learner.result["phases"][1]["stages"]


# Cost, capture, resuming


def test_a_step_costs_one_more_forward_a_frozen_extractor(make: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """FLOPs of a training step in each step of a run: no backward through what is frozen."""
    costs: list[int] = []

    def watch(learner: Any, phase: Phase, when: str) -> None:
        if when == "before main":
            learner.net.train()
            with FlopCounterMode(display=False) as counter:
                learner.loss(X, torch.tensor([0, 1, 0, 1, 0])).backward()
            costs.append(counter.get_total_flops())
            learner.net.zero_grad()

    learner = train(make(PLAIN), tiny_data, tmp_path, watch)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        learner.net.extractors[0](X)
    one, heads = counter.get_total_flops(), 5 * 2 * 3 * (8 * 64 + 3 * 16)
    assert all(b - a <= one + heads for a, b in pairwise(costs))


@pytest.mark.parametrize(
    "method",
    [PLAIN, MASKED, WA(), BiC(bias=FINETUNE), replace(PLAIN, expand=False)],
    ids=["plain", "masked", "WA", "BiC", "single"],
)
def test_every_stage_is_captured(
    method: Any, make: MakeRun, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the recorder in place of CUDA graphs: no stage goes on in Python, and losses are those of Python."""
    run, found = make(method), {}
    for path, capture in (("eager", None), ("graph", record)):
        monkeypatch.setattr(training, "capture_for", lambda images, capture=capture: capture)
        assert launcher.train(run, Job(tmp_path / path, None, "cpu", 1, 1)) == ""
        found[path] = Store(tmp_path / path).load(run.hash)
    eager, graph = found["eager"], found["graph"]
    assert eager and graph
    steps = graph.environment["steps"]
    stages = 7 if not isinstance(method, WA) else 4
    assert steps["eager"] <= 2 * stages and steps["captured"] == steps["eager"]
    assert steps["eager"] + steps["graph"] == eager.environment["steps"]["eager"]
    np.testing.assert_allclose(graph.values["trace"]["loss"], eager.values["trace"]["loss"], rtol=1e-3, atol=1e-4)
    if method is MASKED:
        assert graph.values["summary"]["channels"] == eager.values["summary"]["channels"]


def test_capture_survives_50_steps(make: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """B0 with 50 steps: the network grows in each, and no stage falls back to Python."""
    monkeypatch.setattr(training, "capture_for", lambda images: record)
    monkeypatch.setitem(resnet.BACKBONES, "tiny", lambda relu: CifarResNet((1,), 8, final_relu=relu, stem_stride=2))
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (100, 32, 32, 3), dtype=np.uint8), np.repeat(np.arange(50), 2)
    dataset = Dataset("noise", images, labels, images, labels, tuple(map(str, range(50))), "0123456789abcdef")
    protocol, schedule = Protocol(50, 1, 1, None, 14, rounding="down"), replace(SCHEDULE, epochs=2, batch=16)
    run = make(replace(PLAIN, finetune=None), protocol=protocol, schedule=schedule)
    with Store(tmp_path).open(run) as workspace:
        incremental.run(run, dataset, LEARNERS[DER], workspace, CPU)
    assert workspace.steps["captured"] == workspace.steps["eager"] <= 2 * 50
    assert workspace.steps["graph"] >= 50


@pytest.mark.parametrize("method", [PLAIN, MASKED, WA(), BiC(bias=FINETUNE)], ids=["plain", "masked", "WA", "BiC"])
def test_a_run_stopped_anywhere_ends_the_same(
    method: Any, make: MakeRun, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after every save in turn, inside either stage: the same Result and weights, bit for bit."""
    monkeypatch.setattr("common.store.SAVE_EVERY", 0.0)
    run = make(method, schedule=replace(SCHEDULE, epochs=2, milestones=(1,)))
    assert launcher.train(run, Job(tmp_path / "whole", None, "cpu", 1, 1)) == ""
    whole = Store(tmp_path / "whole").load(run.hash)
    job = Job(tmp_path / "parts", None, "cpu", 1, 1)

    save, stops = Workspace._save, 0

    def save_and_stop(self: Workspace, *args: Any) -> None:
        save(self, *args)
        raise KeyboardInterrupt

    monkeypatch.setattr(Workspace, "_save", save_and_stop)
    while stops < 60:
        try:
            assert launcher.train(run, job) == ""
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 8
    parts = Store(tmp_path / "parts").load(run.hash)
    assert whole and parts and whole.values == parts.values
    weights = [(tmp_path / n / "runs" / run.hash / "checkpoint.safetensors").read_bytes() for n in ("whole", "parts")]
    from safetensors.torch import load

    a, b = map(load, weights)
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# Memory and herding


def test_a_budget_that_holds(make: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """floor(M / seen) a class, herding prefixes, within the class's images; step t trains on M_(t-1)."""
    kept: list[dict[int, list[int]]] = []
    sizes: list[int] = []

    def watch(learner: Any, phase: Phase, when: str) -> None:
        if when == "before main":
            sizes.append(len(learner.indices))
        if when == "after main":
            kept.append({c: k.tolist() for c, k in learner.context.memory.indices.items()})

    protocol = replace(B0, exemplars_total=21)
    learner = train(make(PLAIN, protocol=protocol), tiny_data, tmp_path, watch)
    assert [{len(k) for k in memory.values()} for memory in kept] == [{10}, {5}, {3}, {2}]
    assert sizes == [24, 24 + 20, 24 + 20, 24 + 18]
    for earlier, later in pairwise(kept):
        assert all(earlier[c][: len(later[c])] == later[c] for c in earlier)
    labels = learner.context.train.labels
    assert all((labels[torch.tensor(k)] == c).all() for c, k in kept[-1].items())


def test_train_set_sizes_of_the_paper() -> None:
    """CIFAR-100 in 10 steps with 2000 exemplars: what a log of the official code lists."""
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
    out = balanced(torch.arange(15), labels, torch.Generator().manual_seed(0))
    assert torch.bincount(labels[out]).tolist() == [3, 3, 3] and len(out.unique()) == 9


# Baselines


def test_weight_aligning_equals_norms(make: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    def watch(learner: Any, phase: Phase, when: str) -> None:
        weight = learner.net.head.weight.detach()
        if when == "after main":
            assert (weight >= 0).all()
            if phase.index:
                old, new = weight[: phase.num_old].norm(dim=1).mean(), weight[phase.num_old :].norm(dim=1).mean()
                torch.testing.assert_close(old, new)

    learner = train(make(WA()), tiny_data, tmp_path, watch)
    labels = torch.tensor([0, 1, 6, 7, 2])
    logits, old = learner.net.train()(X), learner.teacher(X)
    p, log_q = (old / 2).softmax(1), (logits[:, :6] / 2).log_softmax(1)
    expected = 0.25 * F.cross_entropy(logits, labels) + 0.75 * (p * (p.log() - log_q)).sum(1).mean()
    torch.testing.assert_close(learner.loss(X, labels), expected, atol=1e-4, rtol=1e-4)


def test_bias_correction_learns_two_numbers_on_held_out_images(
    make: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    before: dict[str, Any] = {}

    def watch(learner: Any, phase: Phase, when: str) -> None:
        head, labels = learner.net.head, learner.context.train.labels
        if when == "before main" and phase.index:
            out, rest = set(learner.held_out.tolist()), set(learner.kept.tolist())
            assert not out & rest and len(set(torch.bincount(labels[learner.held_out]).tolist())) == 1
            assert float(head.alpha) == 1 and float(head.beta) == 0
        if when == "before bias":
            before["weight"] = head.weight.detach().clone()
        if when == "after bias":
            assert torch.equal(head.weight, before["weight"]) and float(head.alpha) != 1 and float(head.beta) != 0
            features = torch.rand(3, 16)
            raw, logits = features @ head.weight.T, head(features)
            torch.testing.assert_close(logits[:, : phase.num_old], raw[:, : phase.num_old])
            torch.testing.assert_close(logits[:, phase.num_old :], head.alpha * raw[:, phase.num_old :] + head.beta)

    train(make(BiC(bias=FINETUNE)), tiny_data, tmp_path, watch)


def test_a_base_of_its_own_schedule(make: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """B50: the base Run is masked and pruned, and the others go on from it."""
    base = make(replace(MASKED, finetune=None), protocol=Protocol(4, 4, 0, 0), schedule=replace(SCHEDULE, warmup=0))
    assert launcher.train(base, Job(tmp_path, None, "cpu", 1, 1)) == ""
    run = replace(make(MASKED, protocol=Protocol(8, 4, 2, 3)), start=base)
    learner = train(run, tiny_data, tmp_path)
    found = Store(tmp_path).load(base.hash)
    assert found and learner.result["summary"]["channels"][0] == found.values["summary"]["channels"][0]
    assert learner.result["phases"][0]["stages"]["start"]["cnn"] == found.values["phases"][0]["stages"]["main"]["cnn"]
    assert len(learner.net.extractors) == 3
