"""Tests stages 2 and 3: how the memory moves and grows, what is trained on it, and what is measured."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adaptation import CPU, KEEPS, MakeRun, adapt, finish, kept, stage1_runs, watch
from torch import Tensor

from common import incremental
from common.command.launcher import Job, train
from common.data.datasets import Dataset
from common.incremental import Phase, learner_of
from common.runs import Protocol, Run
from common.store import Store
from common.training import seeded
from feature_adaptation import adapter
from feature_adaptation.cache import KeptFeatures, TaskFeatures
from feature_adaptation.methods import Adaptation, Oracle, Recipe
from feature_adaptation.reproduce.presets import settings


@pytest.fixture
def stage1(tiny_run: MakeRun) -> MakeRun:
    return stage1_runs(tiny_run)


def test_the_memory_grows_and_moves(stage1: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """|M^t| = |M^(t-1)| + sum of min(L, n_c), and M^1 = V^1. Old labels keep their order, and old vectors change."""
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
    """The fixed head teaches the map and learns nothing. The classifier starts as its copy and covers all classes."""
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
        assert len({tuple(r.curve("stage1")) for r in results.values()}) <= 2  # stage 1's own head, from two starts


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
    """omega and explained drift are computed from the files, for the identity, the MLP and the oracle, and one step at
    t = i + 1.
    """
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
    """The space turns by a known rotation between two tasks. Stale vectors mislead, moved and true ones do not."""
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
            result = incremental.run(run, tiny_data, learner_of(method), workspace, CPU)
        accuracies[method.map] = result["phases"][1]["stages"]["start"]["cnn"]["groups"][0]
    assert accuracies["true"] >= accuracies["linear"] - 1 > accuracies["identity"] + 20


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
        current = KeptFeatures(workspace, run, torch.device("cpu")).current(1)
    assert (
        isinstance(current, TaskFeatures) and len(current.new) == len(current.old) == 24 and len(current.image_new) == 0
    )


def test_the_map_is_fitted_to_current_images(stage1: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """Every pair is one current image before and after, in the hybrid too. Old images' pairs join only on request."""
    for images in (0, 2):
        start = stage1(KEEPS, images)
        finish(start, tmp_path)
        for more in (False, True)[: images + 1]:
            checked = []

            def seen(
                learner: Any, phase: Phase, start: Run = start, more: bool = more, checked: list = checked
            ) -> None:
                if not phase.num_old:
                    return
                fitted, held = learner.pairs(phase)
                now = kept(tmp_path, start, phase.index)
                current = fitted.at(fitted.labels >= phase.num_old).join(held)
                for mine, all_rows in ((current.old, now["old"]), (current.new, now["new"])):
                    assert torch.equal(mine[mine[:, 0].argsort()], all_rows[all_rows[:, 0].argsort()])
                place = (current.old[:, None] == now["old"][None]).all(dim=2).float().argmax(dim=1)
                assert torch.equal(current.new, now["new"][place])  # the same image on both sides
                others = fitted.at(fitted.labels < phase.num_old)
                assert torch.equal(others.old, now["image_old"] if more else now["image_old"][:0])
                assert len(held.labels) == 2 and int(held.labels.min()) >= phase.num_old
                checked.append(phase.index)

            watch(adapt(start, exemplar_pairs=more, features_per_class=4), tiny_data, tmp_path, seen)
            assert checked == [1, 2]


@pytest.mark.parametrize("balanced", [True, False])
def test_the_classifier_sees_classes_alike(
    balanced: bool, stage1: MakeRun, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 2 kept rows of an old class and 12 of a new one, classes are sampled equally often, or by their rows."""
    start = stage1()
    finish(start, tmp_path)
    drawn: list[Tensor] = []

    def batches(indices: Tensor, sampler: Any, recipe: Recipe, generator: torch.Generator) -> Iterator[Tensor]:
        for batch in adapter.batches(indices, sampler, recipe, generator):
            drawn.append(batch)
            yield batch

    monkeypatch.setattr("feature_adaptation.learner.batches", batches)
    method = Adaptation(map="identity", features_per_class=2, current="all", balanced=balanced)
    long = Recipe(400, 0.01, "sgd", batch=12)
    watch(adapt(start, method, classifier=long), tiny_data, tmp_path, lambda learner, phase: None)
    rows = torch.cat(drawn[-400:])  # of the last task: 6 old classes of 2 rows, 2 new ones of 12
    old = float((rows < 12).float().mean())
    assert old == pytest.approx(0.75 if balanced else 12 / 36, abs=0.03)


def test_a_network_that_keeps_its_last_relu(stage1: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """Its features and adapted features are not negative. By default, features have either sign."""
    for relu in (True, False):
        start = stage1(replace(KEEPS, final_relu=relu))
        finish(start, tmp_path)
        assert bool((kept(tmp_path, start, 1)["new"] < 0).any()) is not relu
        rows: list[Tensor] = []
        watch(adapt(start), tiny_data, tmp_path, lambda learner, phase, rows=rows: rows.append(learner.net.rows[:48]))
        assert bool((rows[-1] < 0).any()) is not relu


def test_a_hybrid_without_images_is_the_method() -> None:
    """Its Runs are the same, so its results are too. With one image a class, its Runs differ."""
    for preset in ("quick", "cifar"):
        s = settings(preset, None, None, 1.0)[0]
        plain, none, one = (s.adapt(runs) for runs in (s.stage1(), s.stage1(images=0), s.stage1(images=1)))
        assert plain == none and {r.key for r in plain}.isdisjoint(r.key for r in one)
