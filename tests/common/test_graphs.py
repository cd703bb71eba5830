"""Tests captured steps against steps called from Python, with the recorder in place of CUDA, and the thread pool."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from recorder import record
from torch import Tensor, nn

from common import training
from common.command import launcher
from common.command.launcher import Job
from common.data.datasets import Dataset
from common.errors import NotCaptured, RunFailed
from common.loader import DeviceImages
from common.runs import Inputs, Run, Schedule
from common.steps import GraphSteps
from common.store import Store
from common.training import Stage, fit
from lucir.methods import Base

CPU = torch.device("cpu")
SCHEDULE = Schedule(4, lr=0.1, milestones=(2,), batch=16, weight_decay=0.01, warmup=2, warmup_by="step")


def images(n: int = 40) -> DeviceImages:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    return DeviceImages(pixels, torch.arange(n) % 3, Inputs(), CPU)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3))


def trained(net: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], schedule: Schedule = SCHEDULE) -> dict[str, int]:
    """Fit `net`. Returns how many steps were taken in which way."""
    stage = Stage("toy", schedule, torch.arange(40), loss, net.parameters(), net.train, [(net[-1].weight, 1)])  # type: ignore[index]
    return dict(fit(stage, images(), (0,), lambda epoch, optimiser: None, net=net))


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Capture steps with the recorder, as graphs capture them on CUDA."""
    monkeypatch.setattr(training, "capture_for", lambda images: record)


def test_graphs_go_with_their_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """They go by reference count, because each holds memory, and collecting one inside a later capture breaks the
    capture.
    """
    graphs: list[weakref.ref] = []

    def capture(body: Callable[[], None]) -> Callable[[], None]:
        graph = nn.Module()
        graphs.append(weakref.ref(graph))
        again = record(body)
        return partial(lambda graph, body: again(), graph, body)

    monkeypatch.setattr(training, "capture_for", lambda images: capture)
    net = network()
    gc.disable()
    try:
        trained(net, lambda x, y: F.cross_entropy(net(x), y))
        assert len(graphs) == 2 and not any(graph() for graph in graphs)
    finally:
        gc.enable()
    assert all(p.grad is None for p in net.parameters())


def test_replayed_steps_train_as_called_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps have two batch sizes, a rate that rises within an epoch, momentum and frozen rows."""
    called, replayed = network(), network()
    assert trained(called, lambda x, y: F.cross_entropy(called(x), y)) == {"eager": 12}
    monkeypatch.setattr(training, "capture_for", lambda images: record)
    counts = trained(replayed, lambda x, y: F.cross_entropy(replayed(x), y))
    assert counts == {"eager": 2, "captured": 2, "graph": 10}
    before = network().state_dict()
    for name, value in replayed.state_dict().items():
        torch.testing.assert_close(value, called.state_dict()[name], rtol=1e-5, atol=1e-6)
        assert value.dtype == torch.long or not torch.equal(value, before[name])


def test_the_recorder_freezes_what_python_decides(captured: None) -> None:
    """This tests the oracle: a graph loses a change of a Python number, but not a change of a tensor."""
    for inside, lost in ((False, True), (True, False)):
        called, replayed = network(), network()
        results = []
        for net, capture in ((called, None), (replayed, record)):
            count = torch.zeros(()) if inside else 0.0

            def loss(x: Tensor, y: Tensor, net: nn.Module = net) -> Tensor:
                nonlocal count
                count += 1
                return F.cross_entropy(net(x), y) / count

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(training, "capture_for", lambda images, capture=capture: capture)
                trained(net, loss)
            results.append(net[-1].weight)
        assert torch.allclose(*results, atol=1e-6) != lost


@pytest.mark.parametrize(
    "read",
    [
        lambda loss: loss * float(loss.detach()),
        lambda loss: loss if loss > 0 else -loss,
        lambda loss: loss.reshape(1)[loss.detach().reshape(1) > -1].sum(),
        lambda loss: loss * torch.tensor(2.0),
        lambda loss: loss * loss.detach().reshape(1).tolist()[0],
        lambda loss: loss * float(np.asarray(loss.detach())),
    ],
    ids=["float", "branch", "mask", "host", "tolist", "numpy"],
)
def test_a_step_that_cannot_be_captured_ends_the_run(read: Callable[[Tensor], Tensor], captured: None) -> None:
    net = network()
    with pytest.raises(NotCaptured, match="cannot be captured as a CUDA graph: operation not permitted"):
        trained(net, lambda x, y: read(F.cross_entropy(net(x), y)))


def test_a_capture_without_memory_is_no_fault_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def capture(body: Callable[[], None]) -> Callable[[], None]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training, "capture_for", lambda images: capture)
    net = network()
    with pytest.raises(torch.OutOfMemoryError):
        trained(net, lambda x, y: F.cross_entropy(net(x), y))


@pytest.mark.parametrize("passes", [1, 2])
def test_batches_are_counted_once_an_epoch(passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The count at the end of each epoch equals Python's, but no operation of the graph counts."""
    net, counts = network(), []
    number = net[1].num_batches_tracked
    assert isinstance(number, Tensor)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return sum((F.cross_entropy(net(x), y) for _ in range(passes)), torch.zeros(()))

    def capture(body: Callable[[], None]) -> Callable[[], None]:
        before = int(number)
        again = record(body)
        assert int(number) == before and net[1].num_batches_tracked is None

        def replay() -> None:
            before = int(number)
            again()
            assert int(number) == before

        return replay

    monkeypatch.setattr(training, "capture_for", lambda images: capture)
    stage = Stage("toy", SCHEDULE, torch.arange(40), loss, net.parameters(), net.train)
    fit(stage, images(), (0,), lambda *report: counts.append(int(net.state_dict()["1.num_batches_tracked"])), net=net)
    assert counts == [3 * passes * epoch for epoch in (1, 2, 3, 4)] and net[1].num_batches_tracked is number
    assert not net[1]._forward_pre_hooks


def test_a_capture_made_again_counts_once(captured: None) -> None:
    net, rows = network(), torch.arange(40)

    def capture(body: Callable[[], None]) -> Callable[[], None]:
        body()
        steps.next.sub_(16)  # the first attempt has come to nothing
        return record(body)

    steps = GraphSteps(images(), lambda x, y, rows: net(x).sum().backward(), capture, net.train())
    for step in steps.epoch(rows[:32], 16, torch.Generator()):
        step()
    assert net[1].num_batches_tracked == 2


def test_layers_that_do_not_train_are_not_counted(captured: None) -> None:
    net = network()
    stage = Stage(
        "toy", SCHEDULE, torch.arange(40), lambda x, y: F.cross_entropy(net(x), y), net.parameters(), net.eval
    )
    fit(stage, images(), (0,), lambda *report: None, net=net)
    assert net[1].num_batches_tracked == 0


@pytest.mark.parametrize(("value", "message"), [(1e38, ""), (math.inf, "weights not"), (math.nan, "weights not")])
def test_only_weights_that_are_not_finite_end_a_run(value: float, message: str) -> None:
    """1e38 is a finite weight, though its square is infinite in fp32."""
    net = network()
    idle = nn.Parameter(torch.full((3, 3), 1e38))
    net.register_parameter("idle", idle)
    stage = Stage("toy", replace(SCHEDULE, weight_decay=0.0), torch.arange(40), lambda x, y: F.cross_entropy(net(x), y),
                  net.parameters(), net.train)  # fmt: skip
    stage.on_epoch = lambda epoch: idle.data[1].fill_(value)
    with pytest.raises(RunFailed, match=message) if message else nullcontext():
        fit(stage, images(), (0,), lambda *report: None)


@pytest.mark.parametrize("resumed_at", [0, 2])
def test_an_epoch_of_another_length_is_captured_anew(monkeypatch: pytest.MonkeyPatch, resumed_at: int) -> None:
    """The plan's buffer and the counter fit the new length, and a resume keeps its momentum and its rate."""

    def weights_and_steps() -> tuple[Tensor, dict[str, int]]:
        net, lengths = network(), iter([40, 24, 24, 40][resumed_at:])
        parameters = list(net.parameters())
        stage = Stage("toy", SCHEDULE, torch.arange(40), lambda x, y: F.cross_entropy(net(x), y), parameters, net.train)
        stage.sampler = lambda indices, generator: indices[: next(lengths)]
        resume = (resumed_at, {str(i): torch.full_like(p, 0.1) for i, p in enumerate(parameters)})
        return net[-1].weight, fit(stage, images(), (0,), lambda *report: None, resume if resumed_at else None)

    called, steps = weights_and_steps()
    monkeypatch.setattr(training, "capture_for", lambda images: record)
    replayed, taken = weights_and_steps()
    assert steps == {"eager": 5 if resumed_at else 10}
    assert taken["eager"] == 2 and taken["eager"] + taken["graph"] == steps["eager"]
    torch.testing.assert_close(called, replayed, rtol=1e-5, atol=1e-6)
    assert not torch.equal(called, network()[-1].weight)


def test_drop_last_needs_one_graph(captured: None) -> None:
    net = network()
    counts = trained(net, lambda x, y: F.cross_entropy(net(x), y), replace(SCHEDULE, drop_last=True))
    assert counts == {"eager": 1, "captured": 1, "graph": 7}


def test_threads_of_one_process_train_what_processes_do(
    tiny_run: Callable[..., Run], tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool for CUDA streams runs on a CPU here. It gives the results of single runs, and reports every failure."""
    runs = [tiny_run(Base(), seed=seed) for seed in range(3)] + [tiny_run(Base(), schedule=replace(SCHEDULE, lr=1e30))]
    for run in runs[:3]:
        assert launcher.train(run, Job(tmp_path / "alone", None, "cpu", 1, 1)) == ""
    monkeypatch.setattr(launcher, "Processes", lambda attempt, jobs, prepare: launcher.Threads(attempt, jobs))
    seen: list[int] = []
    ended = {o.run.hash: o.problem for o in launcher.launch(runs, Job(tmp_path, None, "cpu", 2, 1), set(), seen.append)}
    assert [bool(ended[run.hash]) for run in runs] == [False, False, False, True] and sum(seen) > 0
    for run in runs[:3]:
        together, alone = (Store(out).load(run.hash) for out in (tmp_path, tmp_path / "alone"))
        assert together and alone and together.values == alone.values


def test_stopping_threads_leaves_runs_that_go_on(
    tiny_run: Callable[..., Run], tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(Base(), schedule=Schedule(40, lr=0.1, batch=16))
    assert launcher.train(run, Job(tmp_path / "alone", None, "cpu", 1, 1)) == ""
    job = Job(tmp_path, None, "cpu", 2, 1)
    pool = launcher.Threads(launcher.attempt, job.jobs)
    monkeypatch.setattr("common.store.SAVE_EVERY", 0.0)
    future = pool.submit(run, job)
    assert pool.queue.get(timeout=60) > 0  # it trains
    pool.kill()
    assert "goes on from its last saved epoch" in future.result().problem
    store = Store(tmp_path)
    assert store.load(run.hash) is None and store.trained(run) > 0
    assert launcher.train(run, job) == ""
    finished, alone = store.load(run.hash), Store(tmp_path / "alone").load(run.hash)
    assert finished and alone and finished.values == alone.values
