"""Tests BBN and its baselines on a tiny network: each branch's images, what is trained, capture and resuming."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from bbn.adaptor import alpha
from bbn.baselines import spreads
from bbn.methods import BBN, Ensemble, Mixup, Probe, UnitFeatures
from bbn.model import BilateralNet
from bbn.streams import bilateral, steps
from common import incremental
from common.command.estimates import cost
from common.data.datasets import Dataset
from common.imbalance import Rebalance
from common.incremental import Phase, learner_of
from common.runs import Run, Schedule
from common.samplers import class_probabilities
from common.splits import longtail_counts
from common.steps import StepNumbers
from common.store import Store
from common.training import Device, Stage

CPU = Device("cpu", "fp32")
COUNTS = longtail_counts(8, 12, 4.0)
TOTAL = int(COUNTS.sum())
MakeRun = Callable[..., Run]


def train(run: Run, data: Dataset, out: Path) -> Any:
    """Train a run. Returns its learner with `before`, `stage`, `result` and `batches`, the labels of every step."""

    class Watched(learner_of(run.method)):  # type: ignore[misc]
        def stages(self, phase: Phase) -> Iterator[Stage]:
            self.before = {k: v.clone() for k, v in self.net.state_dict().items()}
            for stage in super().stages(phase):
                self.stage, self.batches, loss = stage, [], stage.loss

                def watched(images: Tensor, labels: Tensor, loss: Any = loss) -> Tensor:
                    self.batches.append(labels)
                    return loss(images, labels)

                stage.loss = watched
                yield stage

        def begin_phase(self, phase: Phase) -> None:
            learners.append(self)
            super().begin_phase(phase)

    learners: list[Any] = []
    with Store(out).open(run) as workspace:
        result = incremental.run(run, data, Watched, workspace, CPU)
        workspace.finish(result, {"commit": "", "dirty": False})
    learners[0].result = result
    return learners[0]


# The two samplers


@given(st.integers(1, 60), st.integers(1, 16), st.booleans(), st.integers(0, 99))
def test_every_step_has_a_uniform_half_and_another(count: int, batch: int, drop_last: bool, seed: int) -> None:
    labels = torch.arange(100) % 5
    indices = torch.randperm(100, generator=torch.Generator().manual_seed(seed))[:count]
    schedule = Schedule(1, batch=batch, drop_last=drop_last)
    order = bilateral(labels, "reversed", schedule)(indices, torch.Generator().manual_seed(seed))
    parts = [part.chunk(2) for part in order.split(2 * batch)]
    assert len(parts) == steps(schedule, count) and all(len(a) == len(b) for a, b in parts)
    uniform = torch.cat([a for a, _ in parts]).tolist()
    assert len(set(uniform)) == len(uniform) and set(order.tolist()) <= set(indices.tolist())
    if not drop_last:
        assert sorted(uniform) == sorted(indices.tolist())
    elif count >= batch:
        assert len(parts) == count // batch and len(uniform) == len(parts) * batch


@pytest.mark.parametrize("kind", ["reversed", "balanced", "uniform"])
def test_the_other_half_is_drawn_as_it_should_be(kind: Any) -> None:
    counts = np.array([60, 20, 5, 3])
    labels = torch.arange(4).repeat_interleave(torch.from_numpy(counts))
    sampler, generator = bilateral(labels, kind, Schedule(1, batch=8)), torch.Generator().manual_seed(0)
    halves = [part.chunk(2)[1] for _ in range(1200) for part in sampler(torch.arange(88), generator).split(16)]
    drawn = torch.cat(halves)
    expected = class_probabilities(counts, kind)
    assert len(drawn) > 1e5
    assert chisquare(np.bincount(labels[drawn], minlength=4), expected * len(drawn)).pvalue > 1e-4
    images = np.bincount(drawn, minlength=88)
    assert chisquare(images, np.repeat(expected / counts, counts) * len(drawn)).pvalue > 1e-4
    first = halves[0].tolist() + halves[1].tolist()
    assert kind != "reversed" or len(set(first)) < len(first)  # with replacement


def test_an_epoch_of_bbn_is_as_long_as_its_uniform_sampler(
    bbn_run: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    learner = train(bbn_run(BBN()), tiny_data, tmp_path)
    assert len(learner.batches) == 4 * (TOTAL // 8) and {len(b) for b in learner.batches} == {16}
    assert learner.result["trace"]["images"] == [2 * (TOTAL // 8 * 8)] * 4
    uniform, other = (torch.cat([b.chunk(2)[i] for b in learner.batches]) for i in (0, 1))
    assert (uniform >= 4).float().mean() < (other >= 4).float().mean()
    run = learner.context.run
    assert cost(run, tiny_data) == 2 * cost(replace(run, method=Rebalance()), tiny_data)


# BBN


def test_alpha_follows_the_adaptor(bbn_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    for name, method in {
        "official": BBN(),
        "paper": BBN(offset="paper"),
        "linear": BBN(adaptor="linear_decay"),
    }.items():
        trace = train(bbn_run(method), tiny_data, tmp_path / name).result["trace"]["alpha"]
        assert trace == pytest.approx([alpha(e, 4, method.adaptor, method.offset) for e in range(1, 5)])
    learner = train(bbn_run(BBN(adaptor="beta")), tiny_data, tmp_path / "beta")
    values = learner.alphas.values
    assert len(values) == TOTAL // 8 == len(set(values.tolist())) and values.min() >= 0 and values.max() <= 1
    assert learner.alphas.place.item() == len(values)  # every step took its own number
    assert learner.result["trace"]["alpha"][-1] == pytest.approx(values.mean().item(), abs=1e-5)


def test_a_step_is_equations_1_to_3(bbn_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    learner = train(bbn_run(BBN()), tiny_data, tmp_path)
    learner.net.eval()
    images, labels = torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2, 5, 6, 7])
    learner.alphas.set([0.3] * len(learner.alphas.values))
    f_c, f_r = learner.net.branch_features(images[:3], images[3:])
    w_c, w_r = learner.net.classifier.weight.chunk(2, dim=1)
    z = 2 * (0.3 * f_c @ w_c.T + 0.7 * f_r @ w_r.T) + learner.net.classifier.bias
    expected = 0.3 * F.cross_entropy(z, labels[:3]) + 0.7 * F.cross_entropy(z, labels[3:])
    torch.testing.assert_close(learner.loss(images, labels), expected)


def test_nothing_reaches_the_rebalancing_branch_in_the_first_epoch(
    bbn_run: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    """Only weight decay and BatchNorm's statistics could change it, and here there is no decay."""
    first = replace(bbn_run(BBN()).schedule, epochs=1, milestones=(), weight_decay=0.0)
    learner = train(bbn_run(BBN(), schedule=first), tiny_data, tmp_path)
    after, width = learner.net.state_dict(), learner.net.width
    for name, value in learner.before.items():
        if name == "classifier.weight":
            same = [torch.equal(a, b) for a, b in zip(value.chunk(2, 1), after[name].chunk(2, 1), strict=True)]
            assert same == [False, True] and value.shape[1] == 2 * width
        elif name.startswith("rb_block") and "running" not in name and "tracked" not in name:
            assert torch.equal(value, after[name]), name
        else:
            assert not torch.equal(value, after[name]), name
    count = TOTAL // 8
    assert [after[f"{n}.num_batches_tracked"].item() for n in ("trunk.1", "cb_block.bn1", "rb_block.bn1")] == [
        2 * count, count, count
    ]  # fmt: skip


def test_weight_decay_alone_moves_the_silent_branch(bbn_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """At alpha = 1 the branch's gradients are zero, not absent.

    So the optimiser still shrinks its weights, W_r among them.
    """
    decayed = replace(bbn_run(BBN()).schedule, epochs=1, milestones=(), weight_decay=0.1, momentum=0.0, nesterov=False)
    learner = train(bbn_run(BBN(), schedule=decayed), tiny_data, tmp_path)
    after, kept = learner.net.state_dict(), (1 - 0.05 * 0.1) ** (TOTAL // 8)
    torch.testing.assert_close(after["rb_block.conv1.weight"], kept * learner.before["rb_block.conv1.weight"])
    w_r = [state["classifier.weight"].chunk(2, dim=1)[1] for state in (learner.before, after)]
    torch.testing.assert_close(w_r[1], kept * w_r[0])


@pytest.mark.parametrize("method", [BBN(adaptor="beta"), Mixup()])
@pytest.mark.parametrize("seed", [0, 2**31 - 6])
def test_draws_belong_to_their_epoch(
    method: Any, seed: int, bbn_run: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    """Each epoch and each seed samples other numbers.

    One epoch always samples the same, so that resuming needs no state.
    """
    learner = train(bbn_run(method, seed=seed), tiny_data, tmp_path)
    numbers = learner.alphas if isinstance(method, BBN) else learner.shares
    found = []
    for epoch in (0, 1, 0):
        learner.begin_epoch(epoch)
        found.append(numbers.values.tolist())
    assert found[0] == found[2] != found[1]
    learner.context.run = replace(learner.context.run, seed=seed + 5)
    learner.begin_epoch(0)
    assert numbers.values.tolist() != found[0]


def test_a_stretched_tmax_is_a_matter_of_the_method_not_of_the_epochs(
    bbn_run: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    """A schedule that is scaled to 90 epochs has nothing to do with iNaturalist's 90 epochs."""
    learner = train(bbn_run(BBN()), tiny_data, tmp_path / "plain")
    learner.context.run = replace(learner.context.run, schedule=replace(learner.context.run.schedule, epochs=90))
    learner.begin_epoch(89)
    assert learner.mean_alpha == pytest.approx(1 - (89 / 90) ** 2)
    trace = train(bbn_run(BBN(stretch=10 / 9)), tiny_data, tmp_path / "stretched").result["trace"]["alpha"]
    assert trace == pytest.approx([1 - (0.9 * e / 4) ** 2 for e in range(4)], abs=1e-6)


def test_readouts_are_the_paper_s_and_each_branch_alone(bbn_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    learner = train(bbn_run(BBN(), test_every=2), tiny_data, tmp_path)
    net, features = learner.net, torch.randn(50, 2 * learner.net.width)
    found = learner.readouts(features, Phase(0, 0, 8))
    half, weight, bias = net.width, net.classifier.weight, net.classifier.bias
    assert torch.equal(found["cnn"], net.classifier(features).argmax(1))
    for name, part in (("cb", slice(half)), ("rb", slice(half, None))):
        assert torch.equal(found[name], (2 * features[:, part] @ weight[:, part].T + bias).argmax(1))
    values, trace = learner.result["phases"][0]["stages"]["main"], learner.result["trace"]
    assert trace["cnn all"] == [
        None,
        pytest.approx(trace["test_accuracy"][1]),
        None,
        pytest.approx(values["cnn"]["accuracy"]),
    ]
    assert trace["rb few"][-1] == pytest.approx(values["rb"]["few"], abs=1e-3)
    summary = learner.result["summary"]
    squares = np.square(summary["norms_cb"]) + np.square(summary["norms_rb"])
    np.testing.assert_allclose(squares, np.square(summary["norms"]), rtol=1e-4)
    assert len(summary["norms"]) == 8


def test_draws_hand_out_each_number_once() -> None:
    numbers = StepNumbers(3, torch.device("cpu"))
    for values in ([0.1, 0.2, 0.3], [0.5, 0.25, 0.0]):
        numbers.set(values)
        assert [numbers.next().item() for _ in range(3)] == pytest.approx(values)


# Baselines


@pytest.mark.parametrize("partners", ["batch", "reversed"])
@pytest.mark.parametrize("layer", ["input", "features"])
def test_mixup_mixes_images_or_features_and_both_labels(
    layer: Any, partners: Any, bbn_run: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    learner = train(bbn_run(Mixup(layer, partners=partners)), tiny_data, tmp_path)
    shares = learner.shares.values
    assert len(set(shares.tolist())) == len(shares) and shares.min() >= 0 and shares.max() <= 1
    assert {len(b) for b in learner.batches} == {16 if partners == "reversed" else 8}
    if partners == "reversed":  # most partners, and few other images, are of the smaller half of the classes
        uniform, other = (torch.cat([b.chunk(2)[i] for b in learner.batches]) for i in (0, 1))
        assert (uniform >= 4).float().mean() < 0.4 < 0.6 < (other >= 4).float().mean()
    net = learner.net.eval()
    learner.shares.set([0.3] * len(shares))
    images, labels = torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2, 5, 6, 7])
    if partners == "reversed":
        (x, y), (a, b) = images.chunk(2), labels.chunk(2)
    else:
        x, y, a, b = images, images[[1, 2, 3, 4, 5, 0]], labels, labels[[1, 2, 3, 4, 5, 0]]
    logits = net(0.3 * x + 0.7 * y) if layer == "input" else net.head(0.3 * net.features(x) + 0.7 * net.features(y))
    expected = 0.3 * F.cross_entropy(logits, a) + 0.7 * F.cross_entropy(logits, b)
    torch.testing.assert_close(learner.loss(images, labels), expected)


def test_an_ensemble_is_two_networks_trained_apart(bbn_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """The first network equals a cross-entropy run on the same batches, so it gets no gradient of the second."""
    learner = train(bbn_run(Ensemble("balanced")), tiny_data, tmp_path)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    learner.net.train().zero_grad()
    half = F.cross_entropy(learner.net.first(images[:4]), labels[:4])
    half.backward()
    alone = [p.grad.clone() for p in learner.net.first.parameters()]
    learner.net.zero_grad()
    learner.loss(images, labels).backward()
    for p, expected in zip(learner.net.first.parameters(), alone, strict=True):
        torch.testing.assert_close(p.grad, expected)
    assert all((p.grad != 0).any() for p in learner.net.second.parameters())
    learner.net.eval()
    features = learner.net.features(images)
    found = learner.readouts(features, Phase(0, 0, 8))
    both = learner.net.first(images).softmax(1) + learner.net.second(images).softmax(1)
    assert torch.equal(found["cnn"], both.argmax(1))
    assert torch.equal(found["second"], learner.net.second(images).argmax(1))
    assert learner.result["summary"] == {"counts": COUNTS.tolist()}
    for name in ("head.weight", "backbone.conv.weight"):
        assert not torch.equal(learner.before[f"first.{name}"], learner.before[f"second.{name}"])


def test_unit_features_have_length_one_and_their_spread(bbn_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    learner = train(bbn_run(UnitFeatures(Rebalance(beta=0.99))), tiny_data, tmp_path)
    features = learner.net.features(torch.randn(5, 3, 32, 32))
    torch.testing.assert_close(features.norm(dim=1), torch.ones(5))
    summary = learner.result["summary"]
    assert len(summary["spread_train"]) == len(summary["spread_test"]) == 8
    known = spreads(torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 1.0], [1.0, 1.0]]), torch.tensor([0, 0, 1, 1]))
    assert known == [1.0, 0.0]
    indices = learner.context.of_classes(2, 3)
    rows = incremental.extract(learner.net, learner.context.train, indices)
    assert summary["spread_train"][2] == pytest.approx((rows - rows.mean(0)).norm(dim=1).mean().item(), abs=1e-4)


@pytest.mark.parametrize("branch", ["cb", "rb"])
def test_a_probe_trains_a_classifier_on_one_branch_alone(
    branch: Any, bbn_run: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    base = train(bbn_run(BBN()), tiny_data, tmp_path)
    learner = train(bbn_run(Probe(branch), start=base.context.run), tiny_data, tmp_path)
    assert isinstance(base.net, BilateralNet)
    images = torch.randn(4, 3, 32, 32)
    expected = base.net.eval().features(images).chunk(2, dim=1)[branch == "rb"]
    torch.testing.assert_close(learner.net.eval().features(images), expected)
    assert not torch.equal(learner.before["head.weight"], learner.net.head.weight)
    assert learner.net.head.weight.shape == (8, base.net.width)
