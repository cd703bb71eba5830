"""Tests stage 1: what it trains and keeps, and that no stage opens an image of an old task."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from adaptation import CPU, KEEPS, MakeRun, adapt, finish, kept, rng, stage1_runs, watch, weights
from torch import Tensor

from common import incremental, memory
from common.data.datasets import Dataset
from common.errors import InputError
from common.incremental import Phase, learner_of
from common.memory import herd, open_context
from common.runs import LongTail, Run, Schedule
from common.store import Store
from common.training import seeded, shuffled
from feature_adaptation.extractor import ExtractorLearner
from feature_adaptation.learner import AdaptationLearner
from feature_adaptation.methods import Adaptation, Extractor, Oracle


@pytest.fixture
def stage1(tiny_run: MakeRun) -> MakeRun:
    return stage1_runs(tiny_run)


# No image of an old task is opened


class Guard:
    """Training images that may be opened only if they belong to the current task, or are kept as exemplars."""

    def __init__(self, images: Any) -> None:
        self.images, self.labels, self.first, self.spared, self.opened = images, images.labels, 0, [], 0

    def _check(self, indices: Tensor) -> None:
        allowed = (self.labels[indices] >= self.first) | torch.isin(indices, torch.tensor(self.spared or [-1]))
        if not allowed.all():
            raise AssertionError("an image of an old task was opened")
        self.opened += len(indices)

    def epoch(self, order: Tensor, *rest: Any) -> Iterator[tuple[Tensor, Tensor]]:
        self._check(order)
        return self.images.epoch(order, *rest)

    def plain(self, indices: Tensor, **options: Any) -> Iterator[Tensor]:
        self._check(indices)
        return self.images.plain(indices, **options)

    def close(self) -> None:
        self.images.close()


def guarded(run: Run, data: Dataset, out: Path, monkeypatch: pytest.MonkeyPatch) -> Guard:
    """Train with the training images under guard. Returns the guard."""
    guards: list[Guard] = []
    opened = memory.open_images

    def open_images(dataset: Any, split: str, *rest: Any) -> Any:
        images = opened(dataset, split, *rest)
        if split == "test":
            return images
        guards.append(Guard(images))
        return guards[0]

    class Guarded(learner_of(run.method)):  # type: ignore[misc]
        def begin_phase(self, phase: Phase) -> None:
            guards[0].first = phase.num_old
            guards[0].spared = self.context.memory.all().tolist()
            super().begin_phase(phase)

    with monkeypatch.context() as patch, Store(out).open(run) as workspace:
        patch.setattr(memory, "open_images", open_images)
        result = incremental.run(run, data, Guarded, workspace, CPU)
        workspace.finish(result, {"commit": "", "dirty": False})
    return guards[0]


@pytest.mark.parametrize("images", [0, 2])
def test_no_old_image_is_opened(
    images: int, stage1: MakeRun, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stage 1 opens images of the current task, and kept ones in the hybrid. Stages 2 and 3 open no image."""
    start = stage1(replace(KEEPS, keep="features"), images)
    assert guarded(start, tiny_data, tmp_path, monkeypatch).opened > 8 * 12
    for method in (Adaptation(), Adaptation(map="sdc", features_per_class=3)):
        child = adapt(start, method)
        assert guarded(child, tiny_data, tmp_path, monkeypatch).opened == 0
        assert Store(tmp_path).load(child.hash)
    with pytest.raises(AssertionError, match="old task"):  # the guard sees what evaluation alone may do
        guarded(stage1(KEEPS, images), tiny_data, tmp_path, monkeypatch)


def test_the_truth_decides_nothing(stage1: MakeRun, tmp_path: Path) -> None:
    """Keeping old images' features for evaluation changes no bit of the networks, caches and accuracies."""
    with_truth, without = stage1(KEEPS), stage1(replace(KEEPS, keep="features"))
    results = [finish(adapt(start), tmp_path) for start in (with_truth, without)]
    for name, value in weights(tmp_path, with_truth).items():
        assert torch.equal(value, weights(tmp_path, without)[name]), name
    for phase in range(3):
        one, other = (kept(tmp_path, run, phase) for run in (with_truth, without))
        assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert next(r.curve("cnn") for r in results) == results[1].curve("cnn")
    assert "omega" in results[0].phases()[2]["quality"] and "omega" not in results[1].phases()[2]["quality"]
    assert not list((tmp_path / "runs" / without.hash).glob("truth-*"))


def test_learners_have_the_current_tasks_file_alone(
    stage1: MakeRun, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before evaluation, map and classifier of task t read only the file phase-t. Oracles also read the truth."""
    start = stage1()
    finish(start, tmp_path)
    read: list[str] = []
    opened = incremental.Workspace.kept
    monkeypatch.setattr(
        incremental.Workspace, "kept", lambda self, run, name: read.append(name) or opened(self, run, name)
    )
    monkeypatch.setattr(AdaptationLearner, "end_phase", lambda self, phase: {})
    for method, truth in ((Adaptation(), set()), (Oracle(map="mlp-true-pairs"), {"truth-0", "truth-1", "truth-2"})):
        by_phase: list[list[str]] = []

        class Noted(learner_of(method)):  # type: ignore[misc]
            def begin_phase(self, phase: Phase, by_phase: list[list[str]] = by_phase) -> None:
                read.clear()
                super().begin_phase(phase)
                by_phase.append(list(read))

        with Store(tmp_path).open(run := adapt(start, method)) as workspace:
            incremental.run(run, tiny_data, Noted, workspace, CPU)
        assert {n for names in by_phase for n in names if n.startswith("truth")} == truth
        if not truth:
            assert by_phase == [["phase-0"], ["phase-1"], ["phase-2"]]


# Stage 1


def test_without_distillation_it_is_fine_tuning(stage1: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """With lambda = gamma = 0, the loss is binary cross-entropy over all nodes, old and future ones too.

    A loop gives the same bits.
    """
    run = stage1(Extractor(distillation=0.0))
    states: list[dict[str, Tensor]] = []
    nets: list[Any] = []

    class Watched(learner_of(Extractor)):  # type: ignore[misc]
        def begin_phase(self, phase: Phase) -> None:
            super().begin_phase(phase)
            nets.append((copy.deepcopy(self.net), phase))

        def end_phase(self, phase: Phase) -> dict[str, Any]:
            states.append({k: v.clone() for k, v in self.net.state_dict().items()})
            return {}

    with Store(tmp_path).open(run) as workspace:
        incremental.run(run, tiny_data, Watched, workspace, CPU)
    context = open_context(run, tiny_data, CPU)
    for (net, phase), state in zip(nets, states, strict=True):
        optimiser = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=0.01, fused=True)
        for epoch, lr in enumerate((0.1, 0.01)):
            net.train()
            optimiser.param_groups[0]["lr"] = 0.1 * 0.1**epoch if epoch else lr
            generator = seeded(torch.device("cpu"), run.seed, "phase", phase.index, "main", epoch)
            order = shuffled(context.of_classes(phase.num_old, phase.seen), generator)
            for images, labels in context.train.epoch(order, 16, generator):
                logits = F.linear(net.features(images), net.head.weight, net.head.bias)
                targets = F.one_hot(labels, 8).float()
                optimiser.zero_grad()
                F.binary_cross_entropy_with_logits(logits, targets).backward()
                optimiser.step()
        assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())
        assert state["head.weight"].shape[0] == 8


@pytest.mark.parametrize(
    ("method", "images"),
    [
        (Extractor(features=0.1), 0),
        (Extractor(features=0.1), 2),
        (Extractor(loss="softmax"), 0),
        (Extractor(loss="softmax", per_task=True, finetune=Schedule(1, 0.01, batch=8)), 2),
        (Extractor(frozen=True), 0),
        (Extractor(freeze_norms=True), 0),
    ],
    ids=["FD", "hybrid", "softmax", "EEIL", "frozen", "BatchNorm frozen"],
)
def test_what_stage_1_trains(
    method: Extractor, images: int, stage1: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    """The test checks which weights move in an incremental task. The teacher never moves."""
    before: list[dict[str, Tensor]] = []
    checked = []

    def seen(learner: Any, phase: Phase) -> None:
        state = {k: v.clone() for k, v in learner.net.state_dict().items()}
        if phase.num_old:
            still = {k for k, v in before[-1].items() if torch.equal(v, state[k][: len(v)] if v.ndim else state[k])}
            body = {k for k in state if k.startswith("backbone")}
            norms = {k for k in body if ".bn" in k}
            assert still == (body if method.frozen else norms if method.freeze_norms else set())
            teacher = learner.teacher.state_dict()
            assert all(torch.equal(v, teacher[k]) for k, v in before[-1].items())
            assert not any(p.requires_grad or p.grad is not None for p in learner.teacher.parameters())
            checked.append(phase.index)
        before.append(state)

    watch(stage1(method, images), tiny_data, tmp_path, seen)
    assert checked == [1, 2]


@pytest.mark.parametrize(
    "method",
    [
        Extractor(distillation=0.7, features=0.3),
        Extractor(loss="softmax", features=0.3),
        Extractor(distillation=0.0, features=0.3),
        Extractor(features=0.0),
        Extractor(nodes="seen", features=0.3),
    ],
)
def test_the_sum_of_stage_1(method: Extractor, stage1: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """Each term of Eq. 6 is written out for a batch. The previous network is the teacher of both distillations."""
    checked = []

    def seen(learner: Any, phase: Phase) -> None:
        if not phase.num_old:
            return
        net, teacher, old = learner.net.eval(), learner.teacher, phase.num_old
        images = next(learner.context.train.plain(torch.arange(96)))
        labels = old + torch.arange(96) % phase.num_new
        with torch.no_grad():
            logits, before = net(images), teacher(images)
            cosine = F.cosine_similarity(net.features(images), teacher.features(images), dim=1).mean()
            assert logits.shape[1] == phase.seen and before.shape[1] == old
            if method.loss == "sigmoid":
                nodes = 8 if method.nodes == "all" else phase.seen
                every = net.features(images) @ net.head.weight.T + net.head.bias
                p, y, lwf = every[:, :nodes].sigmoid(), F.one_hot(labels, nodes).float(), method.distillation
                y[:, :old] = before.sigmoid() if lwf else 0.0
                losses = -(y * p.log() + (1 - y) * (1 - p).log())
                terms = (losses[:, old:].sum() + (lwf or 1.0) * losses[:, :old].sum()) / (nodes * len(labels))
            else:
                terms = F.cross_entropy(logits[:, old:], labels - old)
                p, q = (logits[:, :old] / 2).softmax(1), (before / 2).softmax(1)
                terms += 4 * (q * (q / p).log()).sum(1).mean()
            expected = terms + method.features * (1 - cosine)
            torch.testing.assert_close(learner.loss(images, labels), expected, atol=1e-5, rtol=1e-4)
            assert (logits[:, :old] - before).abs().max() > 1e-3 and cosine < 0.9999
        checked.append(phase.index)

    watch(stage1(method), tiny_data, tmp_path, seen)
    assert checked == [1, 2]


def test_no_class_is_predicted_before_it_comes(stage1: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """The head has rows for all classes from task 1 on.

    Read-outs ignore classes to come, however high their logits are.
    """
    checked = []

    def seen(learner: Any, phase: Phase) -> None:
        head = learner.net.head
        assert head.weight.shape[0] == 8
        features = torch.randn(50, head.weight.shape[1], generator=rng(3))
        with torch.no_grad():
            expected = (features @ head.weight[: phase.seen].T + head.bias[: phase.seen]).argmax(dim=1)
            head.bias[phase.seen :] += 1000.0
            assert torch.equal(learner.readouts(features, phase)["cnn"], expected)
            head.bias[phase.seen :] -= 1000.0
        if phase.num_old:
            assert learner.teacher.head(features).shape[1] == phase.num_old
        checked.append(phase.seen)

    watch(stage1(Extractor()), tiny_data, tmp_path, seen)
    assert checked == [4, 6, 8]


def test_means_of_icarl_are_those_of_exemplars_and_their_mirror_images(
    stage1: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    """As in iCaRL's code, a mean is over unit features of each exemplar and of its mirror image."""

    def seen(learner: Any, phase: Phase) -> None:
        net, kept_images = learner.net.eval(), learner.context.memory.indices
        means = []
        for label in range(phase.seen):
            images = next(learner.context.train.plain(kept_images[label]))
            with torch.no_grad():
                both = [F.normalize(net.features(x), dim=1).mean(dim=0) for x in (images, images.flip(3))]
            means.append(F.normalize(both[0] + both[1], dim=0))
        torch.testing.assert_close(learner.exemplar_means(), torch.stack(means), atol=1e-5, rtol=1e-4)

    watch(stage1(Extractor(nme_flip="horizontal"), 3), tiny_data, tmp_path, seen)


def test_what_is_kept_of_a_task(stage1: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """Both extractors' features have equal rows, in herding order by class.

    Head and test features are kept. Extraction repeats itself.
    """
    nets: list[Any] = []
    run = stage1(KEEPS, 3)
    watch(run, tiny_data, tmp_path, lambda learner, phase: nets.append((learner, copy.deepcopy(learner.net))))
    learner = nets[0][0]
    train_images, test = learner.context.train, learner.context.test
    exemplars = learner.context.memory.indices
    for t, (first, last) in enumerate(((0, 4), (4, 6), (6, 8))):
        found, net = kept(tmp_path, run, t), nets[t][1]
        running = {k: v.clone() for k, v in net.state_dict().items()}
        indices = found["indices"]
        assert (
            sorted(indices.tolist())
            == ((train_images.labels >= first) & (train_images.labels < last)).nonzero().flatten().tolist()
        )
        assert torch.equal(train_images.labels[indices], found["labels"])
        again = [incremental.extract(net, train_images, indices) for _ in range(2)]
        assert torch.equal(*again) and all(torch.equal(v, running[k]) for k, v in net.state_dict().items())
        torch.testing.assert_close(again[0], found["new"])
        for label in range(first, last):
            mine = found["labels"] == label
            assert herd(found["new"][mine], 12).tolist() == list(range(12))  # in herding order already
            assert indices[mine][:3].tolist() == exemplars[label].tolist()  # images are a prefix of the features
        seen = (test.labels < last).nonzero().flatten()
        torch.testing.assert_close(incremental.extract(net, test, seen), found["test"])
        assert torch.equal(found["weight"], net.head.weight[:last]) and torch.equal(found["bias"], net.head.bias[:last])
        assert torch.equal(found["test_labels"], test.labels[seen])
        if t:
            torch.testing.assert_close(incremental.extract(nets[t - 1][1], train_images, indices), found["old"])
            old = torch.cat([exemplars[c] for c in range(first)])
            torch.testing.assert_close(incremental.extract(net, train_images, old), found["image_new"])
            assert torch.equal(train_images.labels[old], found["image_labels"])
        truth = kept(tmp_path, run, t, "truth")
        assert set(truth) == {str(i) for i in range(t + 1)}
        torch.testing.assert_close(truth[str(t)], found["new"])
        origin = kept(tmp_path, run, 0)["indices"]
        torch.testing.assert_close(incremental.extract(net, train_images, origin), truth["0"])


def test_held_out_images_are_tested_on_and_not_trained_on(stage1: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    run = stage1(Extractor(holdout=0.25, keep="features"))
    learners: list[Any] = []
    watch(run, tiny_data, tmp_path, lambda learner, phase: learners.append(learner))
    held, labels = learners[0].held, learners[0].context.train.labels
    assert torch.bincount(labels[held]).tolist() == [3] * 8
    trained = torch.cat([kept(tmp_path, run, t)["indices"] for t in range(3)])
    assert not set(trained.tolist()) & set(held.tolist()) and len(trained) + len(held) == len(labels)
    assert torch.equal(kept(tmp_path, run, 1)["test_labels"], labels[held][labels[held] < 6])


def test_images_are_held_out_of_a_long_tailed_subset(stage1: MakeRun, tiny_data: Dataset) -> None:
    """Of 8 classes with 12 down to 4 images, a quarter of each class is held out, and no image outside the subset is
    used.
    """
    run = stage1(Extractor(holdout=0.25), longtail=LongTail(3))
    context = open_context(run, tiny_data, CPU)
    before = context.subset
    assert before is not None
    learner = ExtractorLearner(run.method, context)
    counts = torch.bincount(context.train.labels[before])
    assert learner.held is not None and context.subset is not None and before[learner.held].all()
    held = torch.bincount(context.train.labels[learner.held])
    assert held.tolist() == [round(0.25 * n) for n in counts.tolist()] and counts.min() < counts.max()
    assert torch.equal(
        context.subset.nonzero(), (before & ~torch.isin(torch.arange(len(before)), learner.held)).nonzero()
    )


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_a_share_that_holds_out_none_or_all_of_a_class_is_refused(
    share: float, stage1: MakeRun, tiny_data: Dataset
) -> None:
    run = stage1(Extractor(holdout=share))
    context = open_context(run, tiny_data, CPU)
    with pytest.raises(InputError, match="of the 12 images of a class"):
        ExtractorLearner(run.method, context)
