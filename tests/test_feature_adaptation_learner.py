"""What stage 1 trains and keeps, what stages 2 and 3 make of it, and that no image of an old task is opened."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from recorder import record
from safetensors.torch import load_file
from torch import Tensor

from common import incremental
from common.datasets import Dataset
from common.incremental import Phase
from common.launcher import Job, train
from common.memory import herd
from common.runs import Protocol, Run, Schedule
from common.store import Result, Store
from common.training import Device, seeded, shuffled
from feature_adaptation.cache import Current, Source
from feature_adaptation.learner import LEARNERS, AdaptationLearner
from feature_adaptation.methods import Adaptation, Extractor, Oracle, Recipe

MakeRun = Callable[..., Run]
CPU = Device("cpu", "fp32")
SHORT = {"adapter": Recipe(40, 1e-3, "adam", batch=8), "classifier": Recipe(60, 0.05, "sgd", batch=8)}
PROTOCOL = Protocol(8, 4, 2, exemplars_per_class=0)
KEEPS = Extractor(features=0.1, keep="truth")


@pytest.fixture
def stage1(tiny_run: MakeRun) -> MakeRun:
    """(method, **changes) -> a Run of stage 1 over tasks of 4, 2 and 2 classes."""

    def make(method: Any = KEEPS, images: int = 0, **changes: Any) -> Run:
        protocol = replace(PROTOCOL, exemplars_per_class=images)
        return replace(tiny_run(method), paper="feature_adaptation", protocol=protocol, **changes)

    return make


def adapt(start: Run, method: Adaptation | None = None, **changes: Any) -> Run:
    return replace(start, method=replace(method or Adaptation(), **{**SHORT, **changes}), start=start)


def finish(run: Run, out: Path) -> Result:
    """Train a run and what it starts from."""
    job = Job(out, None, "cpu", 1, 1)
    for link in run.chain:
        assert Store(out).load(link.hash) or train(link, job) == ""
    result = Store(out).load(run.hash)
    assert result
    return result


def kept(out: Path, run: Run, phase: int, kind: str = "phase") -> dict[str, Tensor]:
    return load_file(out / "runs" / run.hash / f"{kind}-{phase}.safetensors")


def weights(out: Path, run: Run) -> dict[str, Tensor]:
    return load_file(out / "runs" / run.hash / "checkpoint.safetensors")


def watch(run: Run, data: Dataset, out: Path, seen: Callable[[Any, Phase], None]) -> None:
    """Train `run`, whose start is finished, calling seen(learner, phase) at the end of each phase."""

    class Watched(LEARNERS[type(run.method)]):  # type: ignore[misc]
        def end_phase(self, phase: Phase) -> dict[str, Any]:
            found = super().end_phase(phase)
            seen(self, phase)
            return found

    with Store(out).open(run) as workspace:
        incremental.run(run, data, Watched, workspace, CPU)


# No image of an old task is opened


class Guard:
    """Training images that may be opened only if they are of the current task, or kept as exemplars."""

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


def guarded(run: Run, data: Dataset, out: Path, monkeypatch: pytest.MonkeyPatch) -> Guard:
    """Train with the training images under guard; returns it."""
    guards: list[Guard] = []
    opened = incremental.open_images

    def open_images(dataset: Any, split: str, *rest: Any) -> Any:
        images = opened(dataset, split, *rest)
        if split == "test":
            return images
        guards.append(Guard(images))
        return guards[0]

    class Guarded(LEARNERS[type(run.method)]):  # type: ignore[misc]
        def begin_phase(self, phase: Phase) -> None:
            guards[0].first = phase.num_old
            guards[0].spared = self.context.memory.all().tolist()
            super().begin_phase(phase)

    with monkeypatch.context() as patch, Store(out).open(run) as workspace:
        patch.setattr(incremental, "open_images", open_images)
        result = incremental.run(run, data, Guarded, workspace, CPU)
        workspace.finish(result, {"commit": "", "dirty": False})
    return guards[0]


@pytest.mark.parametrize("images", [0, 2])
def test_no_old_image_is_opened(
    images: int, stage1: MakeRun, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stage 1 opens the current task's images (hybrid: and the kept ones); stages 2 and 3 open none at all."""
    start = stage1(replace(KEEPS, keep="features"), images)
    assert guarded(start, tiny_data, tmp_path, monkeypatch).opened > 8 * 12
    for method in (Adaptation(), Adaptation(map="sdc", features_per_class=3)):
        child = adapt(start, method)
        assert guarded(child, tiny_data, tmp_path, monkeypatch).opened == 0
        assert Store(tmp_path).load(child.hash)
    with pytest.raises(AssertionError, match="old task"):  # the guard sees what evaluation alone may do
        guarded(stage1(KEEPS, images), tiny_data, tmp_path, monkeypatch)


def test_the_truth_decides_nothing(stage1: MakeRun, tmp_path: Path) -> None:
    """With and without old images' features for evaluation: the same networks, caches and accuracies, to the bit."""
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
    """Until evaluation, task t's map and classifier read phase-t and nothing else; oracles read the truth."""
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

        class Noted(LEARNERS[type(method)]):  # type: ignore[misc]
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
    """lambda = gamma = 0, to the bit: binary cross-entropy of the new nodes, by a loop written out."""
    run = stage1(Extractor(distillation=0.0))
    states: list[dict[str, Tensor]] = []
    nets: list[Any] = []

    class Watched(LEARNERS[Extractor]):  # type: ignore[misc]
        def begin_phase(self, phase: Phase) -> None:
            super().begin_phase(phase)
            nets.append((copy.deepcopy(self.net), phase))

        def end_phase(self, phase: Phase) -> dict[str, Any]:
            states.append({k: v.clone() for k, v in self.net.state_dict().items()})
            return {}

    with Store(tmp_path).open(run) as workspace:
        incremental.run(run, tiny_data, Watched, workspace, CPU)
    context = incremental._context(run, tiny_data, CPU)
    for (net, phase), state in zip(nets, states, strict=True):
        optimiser = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=0.01, fused=True)
        for epoch, lr in enumerate((0.1, 0.01)):
            net.train()
            optimiser.param_groups[0]["lr"] = 0.1 * 0.1**epoch if epoch else lr
            generator = seeded(torch.device("cpu"), run.seed, "phase", phase.index, "main", epoch)
            order = shuffled(context.of_classes(phase.num_old, phase.seen), generator)
            for images, labels in context.train.epoch(order, 16, generator):
                logits = net(images)
                targets = F.one_hot(labels - phase.num_old, phase.num_new).float()
                new = F.binary_cross_entropy_with_logits(logits[:, phase.num_old :], targets, reduction="sum")
                optimiser.zero_grad()
                (new / logits.numel()).backward()
                optimiser.step()
        assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())
        if phase.num_old:
            old = slice(phase.num_old)
            decay = states[phase.index - 1]["head.weight"] - state["head.weight"][old]
            assert decay.abs().max() < 0.05  # old rows: weight decay alone


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
    """Which weights move in an incremental task; the teacher never does."""
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
    ("method", "images"),
    [(Extractor(features=0.1), 0), (Extractor(loss="softmax", per_task=True), 2), (Extractor(frozen=True), 0)],
)
def test_the_step_can_be_captured(
    method: Extractor, images: int, stage1: MakeRun, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replayed steps end with the weights of steps called from Python."""
    run = stage1(method, images)
    states: list[dict[str, Tensor]] = []
    for capture in (None, record):
        monkeypatch.setattr("common.training.capture_for", lambda images, capture=capture: capture)
        watch(run, tiny_data, tmp_path / str(capture), lambda learner, phase: states.append(learner.net.state_dict()))
    for name, value in states[2].items():
        torch.testing.assert_close(value, states[-1][name], rtol=1e-4, atol=1e-6)


def test_what_is_kept_of_a_task(stage1: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """Row-aligned features of both extractors, classes by herding, the head, the test features; extraction repeats."""
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
        assert torch.equal(found["weight"], net.head.weight) and torch.equal(found["test_labels"], test.labels[seen])
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


# Stages 2 and 3


def test_the_memory_grows_and_moves(stage1: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """|M^t| = |M^(t-1)| + sum of min(L, n_c); old labels stay in their order, old vectors change; M^1 = V^1."""
    start = stage1()
    finish(start, tmp_path)
    for count, per_class in ((None, 12), (5, 5), (1, 1), (50, 12)):
        memories: list[tuple[Tensor, Tensor, Tensor]] = []

        def seen(learner: Any, phase: Phase, memories: list = memories) -> None:
            net = learner.net
            memories.append((net.rows.clone(), net.labels.clone(), net.tasks.clone()))
            assert (learner.map is None) == (phase.num_old == 0)
            assert net.head.weight.shape[0] == phase.seen

        watch(adapt(start, features_per_class=count), tiny_data, tmp_path, seen)
        assert [len(rows) for rows, _, _ in memories] == [4 * per_class, 6 * per_class, 8 * per_class]
        v1 = kept(tmp_path, start, 0)
        first = torch.cat([v1["new"][v1["labels"] == c][:per_class] for c in range(4)])
        assert torch.equal(memories[0][0], first)
        for (a, labels_a, tasks_a), (b, labels_b, tasks_b) in itertools.pairwise(memories):
            assert torch.equal(labels_a, labels_b[: len(a)]) and torch.equal(tasks_a, tasks_b[: len(a)])
            assert (a != b[: len(a)]).any(dim=1).all()
        new = kept(tmp_path, start, 2)
        assert torch.equal(memories[2][0][6 * per_class :][0], new["new"][0])
        assert memories[2][2].unique_consecutive().tolist() == [0, 1, 2]


def test_only_the_map_is_trained_in_stage_2(stage1: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """The fixed head teaches the map and learns nothing; the classifier starts as its copy and covers all classes."""
    start = stage1()
    finish(start, tmp_path)
    digest = {p.name: p.read_bytes() for p in (tmp_path / "runs" / start.hash).glob("*.safetensors")}
    checked = []

    def seen(learner: Any, phase: Phase) -> None:
        now = learner.now
        head = kept(tmp_path, start, phase.index)
        assert torch.equal(now.weight, head["weight"]) and now.weight.grad is None and not now.weight.requires_grad
        readouts = learner.readouts(now.test, phase)
        assert all(int(p.min()) >= 0 and int(p.max()) < phase.seen for p in readouts.values())
        if phase.num_old:
            rows = learner.net.rows[:5].clone().requires_grad_()
            learner.class_loss(rows, learner.net.labels[:5]).backward()
            assert rows.grad.abs().sum() > 0 and now.weight.grad is None
            checked.append(phase.index)

    watch(adapt(start), tiny_data, tmp_path, seen)
    assert checked == [1, 2]
    assert digest == {p.name: p.read_bytes() for p in (tmp_path / "runs" / start.hash).glob("*.safetensors")}
    untrained = adapt(start, classifier=Recipe(1, 0.0, "sgd"), norm="none", map="identity")
    copies: list[Any] = []
    watch(untrained, tiny_data, tmp_path, lambda learner, phase: copies.append((learner.net.head.weight, learner)))
    assert torch.equal(copies[-1][0], copies[-1][1].now.weight)
    predictions = copies[-1][1].readouts(copies[-1][1].now.test, Phase(2, 6, 2))
    assert torch.equal(predictions["cnn"], predictions["stage1"])


def test_every_map_and_option_runs(stage1: MakeRun, tmp_path: Path) -> None:
    start, hybrid = stage1(), stage1(KEEPS, 2)
    variants = [Adaptation(map=m, features_per_class=4) for m in ("identity", "shift", "sdc", "linear", "residual")]  # type: ignore[arg-type]
    variants += [
        Adaptation(alpha=None, hidden_layers=2, expansion=2),
        Adaptation(norm="match"),
        Adaptation(norm="none"),
    ]
    variants += [
        Adaptation(loss="sigmoid", fresh=True),
        Adaptation(current="all", balanced=False, features_per_class=3),
    ]
    variants += [Oracle(), Oracle(map="mlp-true-pairs")]
    runs = [adapt(start, v) for v in variants] + [adapt(hybrid, exemplar_pairs=True, features_per_class=5)]
    results = {run.hash: finish(run, tmp_path) for run in runs}
    assert len(results) == len(runs)
    for result in results.values():
        assert all(np.isfinite(result.curve(name)).all() for name in ("cnn", "stage1", "ncm"))
        assert len({tuple(r.curve("stage1")) for r in results.values()}) <= 2  # stage 1's own head, of two starts


def test_hybrid_features_are_exact_where_the_image_is_kept(stage1: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    start = stage1(KEEPS, 2)
    finish(start, tmp_path)
    for count, per_class in ((5, 5), (0, 2), (1, 2)):

        def seen(learner: Any, phase: Phase, per_class: int = per_class, count: int = count) -> None:
            net, t = learner.net, phase.index
            assert torch.bincount(net.labels).tolist() == [per_class] * phase.seen
            if not t:
                return
            truth = kept(tmp_path, start, t, "truth")
            labels = kept(tmp_path, start, 0)["labels"]
            for c in range(4):
                true, mine = truth["0"][labels == c][:per_class], net.rows[net.labels == c]
                torch.testing.assert_close(mine[:2], true[:2])
                if count == 5:
                    assert (mine[2:] - true[2:]).abs().amax(dim=1).min() > 1e-4

        watch(adapt(start, features_per_class=count), tiny_data, tmp_path, seen)


def test_quality_by_hand(stage1: MakeRun, tmp_path: Path) -> None:
    """omega and explained drift from the files, for the identity, the MLP and the oracle; one step at t = i + 1."""
    start = stage1()
    finish(start, tmp_path)
    for method in (Adaptation(map="identity"), Adaptation(), Oracle()):
        result = finish(adapt(start, method), tmp_path)
        quality = [p["quality"] for p in result.phases()]
        assert [q["omega"][-1] for q in quality] == [1.0, 1.0, 1.0]
        assert all(-1 <= o <= 1 for q in quality for o in q["omega"])
        if method.map == "identity":
            assert quality[2]["explained"] == [0.0, 0.0]
            assert quality[1]["omega"][0] == pytest.approx(quality[1]["step_before"], abs=1e-4)
            own, true = kept(tmp_path, start, 0)["new"], kept(tmp_path, start, 2, "truth")["0"]
            expected = float(F.cosine_similarity(own, true).mean())
            assert quality[2]["omega"][0] == pytest.approx(expected, abs=1e-4)
            drift = (F.normalize(own, dim=1) - F.normalize(true, dim=1)).norm(dim=1).mean()
            assert quality[2]["drift"][0] == quality[2]["residual"][0] == pytest.approx(float(drift), abs=1e-4)
        if method.map == "mlp":
            assert quality[1]["omega"][0] == pytest.approx(quality[1]["step"], abs=1e-4)  # spec invariant 19
            assert quality[2]["step"] != pytest.approx(quality[2]["omega"][0], abs=1e-4)
            assert 0 <= quality[1]["called_new"] <= 100 and -1 <= quality[1]["held"] <= 1
        if method.map == "true":
            assert quality[2]["explained"] == [1.0, 1.0] and quality[2]["omega"] == [1.0, 1.0, 1.0]
        assert set(quality[2]["arrows"]) == {"stored", "adapted", "true"}


def test_true_features_beat_stale_ones_after_a_rotation(tmp_path: Path, tiny_run: MakeRun, tiny_data: Dataset) -> None:
    """A space that turns by a known rotation between two tasks: stale vectors mislead, moved and true ones do not."""
    generator = seeded(torch.device("cpu"), "fixture")
    means = torch.eye(8)[:6] * 4
    rotation = torch.roll(torch.eye(8), 3, dims=0)  # a permutation: old classes land on each other's axes
    noise = torch.randn(3, 6, 40, 8, generator=generator)
    before, test, _ = (means[:, None] + noise).unbind()
    start = replace(tiny_run(KEEPS), paper="feature_adaptation", protocol=Protocol(6, 3, 3, exemplars_per_class=0))
    accuracies = {}
    labels = torch.arange(6).repeat_interleave(40)

    def of(rows: Tensor, classes: range) -> Tensor:
        return rows[list(classes)].reshape(-1, 8)

    files = {}
    for t, classes in enumerate((range(3), range(3, 6))):
        turn = rotation if t else torch.eye(8)
        now, seen = of(before, classes) @ turn, range(classes.stop)
        none = now[:0]
        files[f"phase-{t}"] = {
            "labels": torch.tensor(list(classes)).repeat_interleave(40), "new": now,
            "old": of(before, classes) if t else none, "weight": torch.zeros(classes.stop, 8),
            "bias": torch.zeros(classes.stop), "test": of(test, seen) @ turn,
            "test_labels": labels[: 40 * classes.stop],
            "image_labels": labels[:0], "image_new": none, "image_old": none,
        }  # fmt: skip
        files[f"truth-{t}"] = {str(i): of(before, range(3 * i, 3 * i + 3)) @ turn for i in range(t + 1)}
    store = Store(tmp_path)
    with store.open(start) as workspace:
        for name, tensors in files.items():
            workspace.keep(name, tensors)
        workspace.boundary({"net/x": torch.zeros(1)}, {"phase": 2})
    for method in (Adaptation(map="identity"), Adaptation(map="linear"), Oracle()):
        run = adapt(start, method, classifier=Recipe(200, 0.1, "sgd", batch=32))
        with store.open(run) as workspace:
            result = incremental.run(run, tiny_data, LEARNERS[type(method)], workspace, CPU)
        accuracies[method.map] = result["phases"][1]["stages"]["start"]["cnn"]["groups"][0]
    assert accuracies["true"] >= accuracies["linear"] - 1 > accuracies["identity"] + 20


def test_a_killed_run_ends_with_the_same_bits(
    stage1: MakeRun, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = stage1(KEEPS, 2)
    child = adapt(start, features_per_class=4)
    whole = finish(child, tmp_path / "whole")
    finish(start, tmp_path / "cut")
    for stop in (1, 2):

        class Killed(AdaptationLearner):
            def end_phase(self, phase: Phase, stop: int = stop) -> dict[str, Any]:
                if phase.index == stop:
                    raise KeyboardInterrupt
                return super().end_phase(phase)

        with pytest.raises(KeyboardInterrupt), Store(tmp_path / "cut").open(child) as workspace:
            incremental.run(child, tiny_data, Killed, workspace, CPU)
    cut = finish(child, tmp_path / "cut")
    assert cut.values == whole.values
    a, b = (weights(tmp_path / name, child) for name in ("whole", "cut"))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_missing_cache_says_what_to_do(stage1: MakeRun, tmp_path: Path) -> None:
    start = stage1()
    finish(start, tmp_path)
    (tmp_path / "runs" / start.hash / "phase-1.safetensors").unlink()
    problem = train(adapt(start), Job(tmp_path, None, "cpu", 1, 1))
    assert "phase-1.safetensors" in problem and "delete" in problem and start.hash in problem


def test_a_loss_that_is_not_finite_stops_the_run(stage1: MakeRun, tmp_path: Path) -> None:
    start = stage1()
    finish(start, tmp_path)
    wild = adapt(start, classifier=Recipe(50, 1e38, "sgd", batch=8))
    assert "not finite in stage classifier" in train(wild, Job(tmp_path, None, "cpu", 1, 1))


def test_the_source_reads_every_field(stage1: MakeRun, tmp_path: Path) -> None:
    run = stage1()
    finish(run, tmp_path)
    with Store(tmp_path).open(run) as workspace:
        current = Source(workspace, run, torch.device("cpu")).current(1)
    assert isinstance(current, Current) and len(current.new) == len(current.old) == 24 and len(current.image_new) == 0
