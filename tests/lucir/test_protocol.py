"""Tests exemplars, the sizes of stages, what each phase is tested on, and bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lucir_runs import CPU, FINETUNE, METHODS, MakeRun, train, unchanged

from common import incremental
from common.command import plan
from common.data.datasets import Dataset
from common.errors import InputError
from common.incremental import Context, Phase, extract, learner_of
from common.loader import DeviceImages
from common.memory import ExemplarMemory, herd, open_context
from common.runs import Inputs, LongTail, Protocol, Schedule
from common.splits import class_order, longtail_counts
from common.store import Store
from common.training import Stage
from lucir.learner import LUCIRLearner
from lucir.methods import LUCIR, Base, ICaRL, Method


@pytest.mark.parametrize("protocol", [Protocol(8, 4, 2, 3), Protocol(8, 4, 2, None, 20)])
def test_exemplars_over_the_phases(protocol: Protocol, tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """Herding chooses them with the network before finetuning. Later phases leave them or cut them short."""
    chosen: dict[int, list[int]] = {}

    def watch(learner: Any, phase: Phase, stage: Stage) -> Any:
        def end() -> None:
            images = learner.context.train
            for label in range(phase.num_old, phase.seen):
                indices = (images.labels == label).nonzero().squeeze(1)
                chosen[label] = indices[herd(extract(learner.net, images, indices), 12)].tolist()

        return end if stage.name == "main" else None

    learner = train(tiny_run(METHODS["lucir"], protocol=protocol), tiny_data, tmp_path, watch)
    quotas = [3, 3, 3] if protocol.exemplars_per_class else [5, 4, 3]
    for kept, seen, quota in zip(learner.kept, (4, 6, 8), quotas, strict=True):
        assert kept == {label: chosen[label][:quota] for label in range(seen)}


@pytest.mark.parametrize("method", [LUCIR(imprint=False), ICaRL(finetune=FINETUNE)])
def test_cifars_sizes(method: Method, tiny_run: MakeRun) -> None:
    """Each new class has 500 images and each old one 20: 6000 to 6800 in five phases. CBF takes 20 of every class."""
    labels = torch.arange(100).repeat(500)
    images = DeviceImages(np.zeros((50000, 1, 1, 3), np.uint8), labels, Inputs(), CPU.torch)
    run = tiny_run(method, protocol=Protocol(100, 50, 10, 20))
    memory = ExemplarMemory(per_class=20)
    learner = learner_of(method)(method, Context(run, CPU, images, images, memory))
    learner.build(50)
    sizes = []
    for phase in [Phase(0, 0, 50), *(Phase(i + 1, 50 + 10 * i, 10) for i in range(5))]:
        incremental.begin(learner, phase)
        stages = learner.stages(phase)
        main = next(stages)
        counts = labels[main.indices].bincount(minlength=100).tolist()
        assert counts == [20] * phase.num_old + [500] * phase.num_new + [0] * (100 - phase.seen)
        assert len(set(main.indices.tolist())) == len(main.indices)
        for label in range(phase.num_old, phase.seen):
            memory.indices[label] = (labels == label).nonzero().squeeze(1)[7:27]
        finetune = next(stages, None)
        assert (finetune is None) == (phase.num_old == 0)
        sizes.append((len(main.indices), len(finetune.indices) if finetune else 0))
        if finetune:
            assert sorted(finetune.indices.tolist()) == sorted(memory.all().tolist())
    assert sizes == [(25000, 0), (6000, 1200), (6200, 1400), (6400, 1600), (6600, 1800), (6800, 2000)]


def test_each_phase_is_tested_on_the_classes_seen(tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """The confusion matrix has 5 images for each class seen, in training order.

    Accuracy is that of the final network.
    """
    run = tiny_run(LUCIR(finetune=None), order="7")
    with Store(tmp_path).open(run) as workspace:
        result = incremental.run(run, tiny_data, LUCIRLearner, workspace, CPU)
        confusion = workspace.confusion["cnn"]
    assert [p["classes"] for p in result["phases"]] == [4, 6, 8] and [p["num_old"] for p in result["phases"]] == [
        0,
        4,
        6,
    ]
    assert confusion.sum(axis=1).tolist() == [5] * 8
    last = result["phases"][-1]["stages"]["main"]["cnn"]
    assert last["accuracy"] == pytest.approx(100 * np.trace(confusion) / 40)
    assert last["groups"] == pytest.approx([100 * np.trace(confusion[a:b, a:b]) / (5 * (b - a)) for a, b in
                                            ((0, 4), (4, 6), (6, 8))])  # fmt: skip
    order = class_order(8, 7)
    learner = train(run, tiny_data, tmp_path / "again")
    images = learner.context.test
    assert images.labels.tolist() == [order.tolist().index(c) for c in tiny_data.test_labels]
    with torch.no_grad():
        predicted = learner.net.eval()(next(iter(images.plain(torch.arange(40))))).argmax(1)
    assert np.array_equal(confusion, np.histogram2d(images.labels, predicted, bins=8, range=[[0, 8]] * 2)[0])


def test_learning_happens(tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """The base classes are learned well above chance, and so are each later phase's classes."""
    run = tiny_run(METHODS["lucir"], schedule=Schedule(12, lr=0.1, milestones=(8,), batch=8))
    result = train(run, tiny_data, tmp_path).result["phases"]
    assert result[0]["stages"]["main"]["cnn"]["accuracy"] > 75
    assert result[-1]["stages"]["finetune"]["cnn"]["accuracy"] > 50


def test_training_starts_from_the_base_run(tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    base = tiny_run(Base("cosine"), protocol=Protocol(4, 4, 0, 0))
    store = Store(tmp_path)
    with store.open(base) as workspace:
        incremental.run(base, tiny_data, learner_of(Base), workspace, CPU)
        trained = workspace.state_of(base)
    learner = train(tiny_run(METHODS["lucir"], start=base), tiny_data, tmp_path)
    begin = learner.before[1, "main"]
    assert torch.equal(begin["head.weight"][:4], trained["head.weight"])
    assert unchanged({k: v for k, v in begin.items() if k != "head.weight"}, trained) == begin.keys() - {"head.weight"}
    assert list(learner.result["phases"][0]["stages"]) == ["start"]
    alone = train(tiny_run(METHODS["lucir"]), tiny_data, tmp_path)
    ends = (x.after[2, "finetune"] for x in (learner, alone))
    assert unchanged(*ends) == begin.keys()  # training the base phase in the run itself is the same


# Input found wrong before training


def test_more_negatives_than_new_classes() -> None:
    LUCIR(negatives=2).check(Protocol(8, 4, 2))
    LUCIR(negatives=3, margin=None).check(Protocol(8, 4, 2))
    LUCIR(negatives=3).check(Protocol(8, 8, 0))
    with pytest.raises(ValueError, match="K = 3 new classes as negatives, but a phase has 2"):
        LUCIR(negatives=3).check(Protocol(8, 4, 2))


@pytest.mark.parametrize(("changes", "message"), [
    ({"method": LUCIR(negatives=3)}, "K = 3"),
    ({"protocol": Protocol(8, 3, 2)}, "do not divide"),
    ({"protocol": Protocol(16, 8, 4)}, "the protocol has 16 classes but noise has 8"),
    ({"protocol": Protocol(8, 4, 2, 13)}, "13 exemplars per class asked for, but class '0' has 12"),
])  # fmt: skip
def test_bad_input_is_found_before_training(changes: dict, message: str, tiny_run: MakeRun, tiny_data: Dataset) -> None:
    plan.check(tiny_run(LUCIR()), tiny_data)
    plan.check(tiny_run(LUCIR(), protocol=Protocol(8, 4, 2, None, 1000)), tiny_data)
    with pytest.raises(InputError, match=message):
        plan.check(replace(tiny_run(LUCIR()), **changes), tiny_data)


def test_threshold_moving_counts_the_images_of_the_long_tailed_subset(tiny_run: MakeRun, tiny_data: Dataset) -> None:
    run = tiny_run(ICaRL(), protocol=Protocol(8, 4, 2, exemplars_per_class=2), longtail=LongTail(6), order="native")
    context = open_context(run, tiny_data, CPU)
    learner: Any = learner_of(ICaRL)(run.method, context)
    sizes = longtail_counts(8, 12, 6).tolist()
    for phase in (Phase(0, 0, 4), Phase(1, 4, 2)):
        learner.build(phase.seen)
        next(learner.stages(phase))
        old = [min(2, n) for n in sizes[: phase.num_old]]
        assert learner.counts.tolist() == old + sizes[phase.num_old : phase.seen]
    assert context.counts.tolist() == sizes  # the context still has all counts
