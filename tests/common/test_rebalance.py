"""Tests long-tailed learners on a tiny network: their start, what they train, and when weights and samplers change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare
from torch import Tensor, nn

from class_balanced.methods import ClassBalanced
from common import incremental
from common.command.plan import check, class_counts
from common.data.datasets import Dataset
from common.errors import InputError
from common.heads import CosineHead
from common.imbalance import Rebalance, Retrain
from common.incremental import Phase, learner_of
from common.rebalance import ldam, ldam_margins, softmax_focal, weigh
from common.resnet import backbone
from common.runs import LongTail, Protocol, Run, Schedule
from common.splits import longtail_counts, longtail_indices
from common.store import Store
from common.training import Device, Stage, make_sgd

CPU = Device("cpu", "fp32")
ALL = Protocol(8, 8, 0, exemplars_per_class=0)
FACTOR = 6.0
COUNTS = longtail_counts(8, 12, FACTOR)
MakeRun = Callable[..., Run]


def train(run: Run, data: Dataset, out: Path, watch: Callable[[Any, Stage], None] = lambda *a: None) -> Any:
    """Train a run. Returns its learner with `before`, `result` and `seen`, the training indices of every epoch."""

    class Watched(learner_of(run.method)):  # type: ignore[misc]
        def stages(self, phase: Phase) -> Iterator[Stage]:
            self.before, self.seen = {k: v.clone() for k, v in self.net.state_dict().items()}, []
            for stage in super().stages(phase):
                sampler = stage.sampler

                def record(indices: Tensor, generator: torch.Generator, sampler: Any = sampler) -> Tensor:
                    self.seen.append(sampler(indices, generator))
                    return self.seen[-1]

                stage.sampler = record
                watch(self, stage)
                yield stage

        def begin_phase(self, phase: Phase) -> None:
            learners.append(self)
            super().begin_phase(phase)

    learners: list[Any] = []
    with Store(out).open(run) as workspace:
        result = incremental.run(run, data, Watched, workspace, CPU)
        learners[0].tested_images = {int(c.sum()) for c in workspace.confusion.values()}
        workspace.finish(result, {"commit": "", "dirty": False})
    learners[0].result = result
    return learners[0]


# What a long-tailed run sees and reports


def test_only_the_subset_is_trained_on_and_everything_tested(
    tail_run: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    learner = train(tail_run(ClassBalanced(), test_every=2), tiny_data, tmp_path)
    subset = set(longtail_indices(tiny_data.train_labels, FACTOR).tolist())
    assert [set(order.tolist()) for order in learner.seen] == [subset] * 4
    assert learner.context.counts.tolist() == COUNTS.tolist() == learner.result["summary"]["counts"]
    for c in range(8):
        assert len(learner.context.of_classes(c, c + 1)) == COUNTS[c]
    values = learner.result["phases"][0]["stages"]["main"]["cnn"]
    assert values["few"] == values["accuracy"] and "many" not in values
    assert learner.tested_images == {len(tiny_data.test_labels)}
    tested = learner.result["trace"]["test_accuracy"]
    assert tested[0] is tested[2] is None and tested[1] is not None and tested[3] == values["accuracy"]


def test_balanced_data_have_no_groups(tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    run = replace(tiny_run(ClassBalanced()), protocol=ALL, order="native")
    result = train(run, tiny_data, tmp_path).result
    assert "few" not in result["phases"][0]["stages"]["main"]["cnn"] and "counts" not in result["summary"]
    assert "test_accuracy" not in result["trace"]


# Class-balanced loss


@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "focal"])
def test_a_step_is_the_official_one(kind: Any, tail_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """Training ends where a loop with torch.optim.SGD and written-out losses ends. The bias is the paper's."""
    import copy

    method = ClassBalanced(kind, beta=0.9, gamma=0.5 if kind == "focal" else 0.0)
    schedule = Schedule(2, lr=0.1, batch=8, weight_decay=0.05, drop_last=True, warmup=1, warmup_by="step")
    nets: list[Any] = []
    learner = train(
        tail_run(method, schedule=schedule), tiny_data, tmp_path, lambda w, s: nets.append(copy.deepcopy(w.net))
    )
    net, images = nets[0], learner.context.train
    assert net.head.bias.tolist() == pytest.approx([0.0 if kind == "softmax" else -np.log(7)] * 8)
    assert net.head.weight.abs().max() <= np.sqrt(6 / (8 + 8)) and net.head.weight.abs().max() > 0.5

    alpha = 10 * (1 - 0.9) / (1 - 0.9 ** COUNTS.astype(float))
    alpha = torch.from_numpy(8 * alpha / alpha.sum()).float()
    spared = [net.head.bias] if kind != "softmax" else []
    others = [p for p in net.parameters() if not any(p is s for s in spared)]
    groups = [{"params": others, "weight_decay": 0.05}, {"params": spared or [nn.Parameter(torch.zeros(1))]}]
    sgd = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    net.train()
    from common.training import seeded

    for epoch, order in enumerate(learner.seen):
        generator = seeded(torch.device("cpu"), learner.context.run.seed, "phase", 0, "main", epoch)
        torch.randperm(len(order), generator=generator)  # the order's draw comes first
        order = order[: len(order) // 8 * 8]
        for step, (batch, labels) in enumerate(images.epoch(order, 8, generator)):
            logits = net(batch)
            target = F.one_hot(labels, 8).float()
            if kind == "softmax":
                losses = F.cross_entropy(logits, labels, reduction="none")
            else:
                losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
                if kind == "focal":
                    losses = losses * torch.where(target == 1, (-logits).sigmoid(), logits.sigmoid()) ** 0.5
                losses = losses.sum(dim=1)
            for group in sgd.param_groups:
                group["lr"] = 0.1 * step / (len(order) // 8) if epoch == 0 else 0.1
            sgd.zero_grad()
            ((alpha[labels] * losses).sum() / 8).backward()
            sgd.step()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(learner.net.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_only_the_biased_starts_are_spared_weight_decay(tail_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    decays = {}
    for kind in ("softmax", "sigmoid", "focal"):

        def watch(learner: Any, stage: Stage, kind: str = kind) -> None:
            stage.parameters = list(stage.parameters)
            sgd = make_sgd(stage)
            decays[kind] = [(len(g["params"]), g["weight_decay"]) for g in sgd.param_groups]

        train(tail_run(ClassBalanced(kind)), tiny_data, tmp_path / kind, watch)
    total = decays["softmax"][0][0]
    assert decays["softmax"] == [(total, 5e-4)]
    assert decays["sigmoid"] == decays["focal"] == [(total - 1, 5e-4), (1, 0.0)]


@pytest.mark.parametrize(
    ("name", "head", "total"), [("avgpool", 10, 464_154), ("avgpool", 100, 470_004), ("pad", 10, 464_154)]
)
def test_parameter_counts(name: str, head: int, total: int) -> None:
    body: Any = backbone(f"resnet32-{name}", seed=0)
    assert sum(p.numel() for p in body.parameters()) + 64 * head + head == total


def test_initialisations_of_the_two_networks() -> None:
    """Glorot's uniform uses fan in and out, He's normal fan in. The test looks at a kernel from 32 to 64 channels."""
    glorot, he = (backbone(f"resnet32-{name}", seed=1) for name in ("avgpool", "pad"))
    weights = [net.stages[2][0].conv1.weight for net in (glorot, he)]  # type: ignore[union-attr, index]
    bound = np.sqrt(6 / (9 * 32 + 9 * 64))
    assert weights[0].abs().max() <= bound and weights[0].std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
    assert weights[1].std().item() == pytest.approx(np.sqrt(2 / (9 * 32)), rel=0.03)


# Baselines


def test_softmax_focal_is_the_textbook_formula() -> None:
    logits = 3 * torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(9) % 4
    p = logits.softmax(1)[torch.arange(9), labels]
    torch.testing.assert_close(softmax_focal(logits, labels, 1.5), -((1 - p) ** 1.5) * p.log())
    for size in (50.0, 1e4):
        extreme = torch.tensor([[size, 0.0], [0.0, size]]).requires_grad_()
        losses = softmax_focal(extreme, torch.tensor([0, 0]), 0.5)
        losses.sum().backward()
        assert extreme.grad is not None and extreme.grad.isfinite().all() and losses.isfinite().all()


def test_ldam_is_cross_entropy_of_cosines_with_margins() -> None:
    margins = ldam_margins(torch.tensor([625, 81, 16]), 0.5)
    torch.testing.assert_close(margins, torch.tensor([0.2, 1 / 3, 0.5]))
    cosines = torch.tensor([[0.3, 0.1, -0.2], [0.0, 0.4, 0.9]], dtype=torch.float64)
    logits = 30 * torch.tensor([[0.3 - 0.2, 0.1, -0.2], [0.0, 0.4, 0.9 - 0.5]], dtype=torch.float64)
    losses = ldam(cosines, torch.tensor([0, 2]), margins.double())
    expected = -logits.log_softmax(1)[torch.arange(2), torch.tensor([0, 2])]
    torch.testing.assert_close(losses, expected, rtol=1e-6, atol=1e-6)


def test_both_reductions() -> None:
    losses, weights = torch.tensor([1.0, 4.0]), torch.tensor([3.0, 0.5])
    assert weigh(losses, weights).item() == pytest.approx(2.5)
    assert weigh(losses, weights, "weighted_mean").item() == pytest.approx(5 / 3.5)


def test_ldam_trains_a_cosine_classifier_of_fixed_scale(tail_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    learner = train(tail_run(Rebalance("ldam")), tiny_data, tmp_path)
    assert isinstance(learner.net.head, CosineHead) and learner.net.head.scale.item() == 30
    assert not torch.equal(learner.before["head.weight"], learner.net.head.weight)


def test_deferred_weights_and_samplers_change_at_their_epoch(
    tail_run: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    """Until epoch `defer` a run is plain cross-entropy, bit for bit. From then on it differs."""
    states: dict[str, list[Tensor]] = {}
    methods = {
        "plain": Rebalance(),
        "drw": Rebalance(beta=0.999, defer=2),
        "drs": Rebalance(sampler="balanced", defer=2),
        "rw": Rebalance(beta=0.999),
        "rs": Rebalance(sampler="balanced"),
    }
    learners = {}
    for name, method in methods.items():

        def watch(learner: Any, stage: Stage, name: str = name) -> None:
            begin = stage.on_epoch

            def on_epoch(epoch: int) -> None:
                states.setdefault(name, []).append(learner.net.head.weight.detach().clone())
                begin(epoch)

            stage.on_epoch = on_epoch

        learners[name] = train(tail_run(method), tiny_data, tmp_path / name, watch)
    for name, same in {"drw": 3, "drs": 3, "rw": 1, "rs": 1}.items():
        equal = [torch.equal(a, b) for a, b in zip(states["plain"], states[name], strict=True)]
        assert equal == [True] * same + [False] * (4 - same), name
    labels = learners["drs"].context.train.labels
    orders = [np.bincount(labels[order], minlength=8) for order in learners["drs"].seen]
    assert orders[0].tolist() == orders[1].tolist() == COUNTS.tolist() != orders[2].tolist()
    late = learners["drw"].weights.numpy()
    np.testing.assert_allclose(late, learners["rw"].weights.numpy())
    assert late.sum() == pytest.approx(8) and late[-1] > late[0]


def test_retraining_changes_the_classifier_alone(tail_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """BatchNorm's running statistics belong to the extractor. The classifier starts again on balanced classes."""
    base = train(tail_run(Rebalance(), schedule=Schedule(1, batch=8)), tiny_data, tmp_path)
    start = base.context.run
    learner = train(tail_run(Retrain(), start=start), tiny_data, tmp_path)
    moved = train(tail_run(Retrain(norms="train"), start=start), tiny_data, tmp_path)
    final = learner.net.state_dict()
    for name, value in base.net.state_dict().items():
        assert torch.equal(final[name], value) != name.startswith("head."), name
    assert not torch.equal(learner.before["head.weight"], base.net.state_dict()["head.weight"])
    classes = np.bincount(learner.context.train.labels[torch.cat(learner.seen)], minlength=8)
    assert chisquare(classes).pvalue > 1e-3 > chisquare(4 * COUNTS).pvalue
    for name, value in learner.before.items():  # BatchNorm in train mode: its averages move, and nothing else
        ours = moved.net.state_dict()[name]
        counted = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(ours, value) != (counted or name.startswith("head.")), name
    steps = sum(-(-len(order) // moved.context.run.schedule.batch) for order in moved.seen)
    counts = {k: v for k, v in learner.before.items() if k.endswith("num_batches_tracked")}
    assert counts and all(moved.net.state_dict()[name] == before + steps for name, before in counts.items())
    kept = train(tail_run(Retrain(fresh=False), start=start), tiny_data, tmp_path)
    assert torch.equal(kept.before["head.weight"], base.net.state_dict()["head.weight"])


# Bad input


def test_a_factor_the_data_cannot_give_is_found_before_training(tail_run: MakeRun, tiny_data: Dataset) -> None:
    assert class_counts(tail_run(Rebalance()), tiny_data).tolist() == COUNTS.tolist()
    for factor, message in ((13.0, "leaves classes without images"), (0.5, "at least 1")):
        with pytest.raises(ValueError, match=message):
            class_counts(tail_run(Rebalance(), longtail=LongTail(factor)), tiny_data)
    with pytest.raises(InputError, match="all of the 8 classes, not on 4"):
        check(tail_run(Rebalance(), protocol=Protocol(4, 4, 0, 0)), tiny_data)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (ClassBalanced(beta=1.0), "beta must lie in"),
        (ClassBalanced("sigmoid", gamma=1.0), "focal loss; with sigmoid it must be 0, not 1"),
        (ClassBalanced("focal", gamma=-1.0), "must not be negative"),
        (Rebalance(beta=1.0), "beta must lie in"),
        (Rebalance("focal", gamma=-1.0), "must not be negative"),
        (Rebalance(defer=-1), "must not be negative"),
        (Retrain(beta=-0.5), "beta must lie in"),
    ],
)
def test_impossible_methods_are_found_before_training(method: Any, message: str, tail_run: MakeRun) -> None:
    with pytest.raises(InputError, match=message):
        check(tail_run(method), None)


@pytest.mark.parametrize("counts", [[5, 0], []])
def test_ldam_has_no_margin_for_an_empty_class(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="at least one image"):
        ldam_margins(torch.tensor(counts))
