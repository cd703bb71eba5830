"""Tests that the number of threads is chosen from measurements, kept, and recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import torch

from common import graphs, tuning
from common.command import launcher
from common.command.launcher import Job
from common.data.datasets import Dataset
from common.errors import RunFailed
from common.runs import Run
from common.store import Store
from common.training import Device
from lucir.methods import Base


@pytest.mark.parametrize(("rates", "threads"), [
    ({"1": 100}, 1), ({"1": 100, "2": 180}, 2), ({"1": 100, "2": 102}, 1), ({"1": 100, "2": 90, "4": 150}, 4),
    ({"1": 100, "2": 150, "4": 151, "6": 140}, 2),
])  # fmt: skip
def test_more_threads_only_where_they_are_faster(rates: dict[str, float], threads: int) -> None:
    assert tuning.fastest(rates) == threads


def test_a_measurement_is_made_once_and_kept(
    tiny_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def measure(run: Run, device: Device, limit: int) -> dict[str, float]:
        made.append(limit)
        return {"1": 10.0, "2": 19.0}

    monkeypatch.setattr(tuning, "_measure", measure)
    run, memo, device = tiny_run(Base()), tmp_path / "cache/threads.json", Device("cpu", "fp32")
    assert [tuning.choose_threads(run, device, 2, memo)[0] for _ in range(3)] == [2, 2, 2] and made == [2]
    for damaged in ("torn", "17"):
        memo.write_text(damaged)
        made.clear()
        assert tuning.choose_threads(run, device, 2, memo) == (2, {"1": 10.0, "2": 19.0}) and made == [2]
    tuning.choose_threads(run, device, 4, memo)
    assert made == [2, 4] and len(json.loads(memo.read_text()).keys() - {"checksum"}) == 2
    monkeypatch.setattr(tuning, "cpu_name", lambda: "another machine, 2 cores")
    tuning.choose_threads(run, device, 2, memo)
    assert made == [2, 4, 2]


def test_measuring_leaves_no_trace(tiny_run: Callable[..., Run]) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    rates = tuning._measure(tiny_run(Base()), Device("cpu", "fp32"), 3)
    assert list(rates) == ["1", "2", "3"] and all(rate > 0 for rate in rates.values())
    assert torch.get_num_threads() == threads and torch.equal(state, torch.get_rng_state())


def test_the_choice_is_recorded_and_used(
    tiny_run: Callable[..., Run], tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "_measure", lambda *arguments: {"1": 10.0, "2": 19.0, "4": 12.0})
    run = tiny_run(Base())
    assert launcher.train(run, Job(tmp_path, None, "cpu", 1, 4)) == ""
    found, used = Store(tmp_path).load(run.hash), torch.get_num_threads()
    torch.set_num_threads(1)
    assert used == 2
    assert found and found.environment["threads"] == 2
    assert found.environment["images_per_second_by_threads"] == {"1": 10.0, "2": 19.0, "4": 12.0}
    assert isinstance(found.environment["native_bf16"], bool)


@pytest.mark.parametrize(("asked", "threads"), [("3", 3), ("2,1", 2), ("", None), ("0", None), ("many", None)])
def test_omp_num_threads_is_not_overruled(
    asked: str, threads: int | None, tiny_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that the user asks for is taken without measuring. Without such a number, the measurement decides."""
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(tuning, "_measure", lambda *arguments: {"1": 10.0, "2": 11.0, "4": 19.0})
    run = tiny_run(Base())
    assert launcher.train(run, Job(tmp_path, None, "cpu", 1, 4)) == ""
    torch.set_num_threads(1)
    found = Store(tmp_path).load(run.hash)
    assert found and found.environment["threads"] == (threads or 4)
    assert bool(found.environment["images_per_second_by_threads"]) == (threads is None)


@pytest.mark.parametrize(("rates", "runs"), [
    ({1: 100.0}, 1), ({1: 100.0, 2: 180.0, 4: 185.0}, 2), ({1: 50.0, 2: 100.0, 4: 93.1, 8: 107.0}, 2),
    ({4: 93.0, 2: 92.9, 8: 100.0}, 4), ({8: 100.0, 1: 96.0, 4: 20.0}, 1),
])  # fmt: skip
def test_the_fewest_runs_that_come_near_the_best_rate(rates: dict[int, float], runs: int) -> None:
    assert tuning.least_within(rates) == runs
    assert tuning.least_within(rates, share=0.0) == max(rates, key=lambda n: rates[n])


def test_rates_add_up_the_runs_that_are_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread takes 10 steps when it has a turn, which last one second by the clock of the measurement."""
    seconds = count()
    monkeypatch.setattr(tuning.time, "perf_counter", lambda: float(next(seconds)))
    monkeypatch.setattr(tuning, "captured_step", lambda device: lambda: None)
    monkeypatch.setattr(tuning._Bench, "_replay", lambda self, step: 10)
    rates = tuning.rates_side_by_side(Device("cpu", "fp32"), (1, 4, 2), seconds=1.0)
    assert rates == {n: n * 10.0 * tuning.BATCH for n in (1, 4, 2)}


def test_a_run_is_measured_for_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, steps = count(), []
    monkeypatch.setattr(tuning.time, "perf_counter", lambda: float(next(seconds)))
    bench = tuning._Bench(Device("cpu", "fp32"), (1,), seconds=4.0)
    assert bench._replay(lambda: steps.append(1)) == len(steps) == 3  # the clock is read at 0 s, then before each step


def test_the_jobs_of_a_device_are_what_it_does_best(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    def measure(device: Device, counts: tuple[int, ...], seconds: float) -> dict[int, float]:
        asked.append(counts)
        return {n: 10.0 * min(n, 5) for n in counts}

    monkeypatch.setattr(tuning, "rates_side_by_side", measure)
    assert tuning.choose_jobs(Device("cuda", "bf16")) == 6 and asked == [(1, 2, 4, 6, 8, 12, 16)]


def test_a_measurement_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: Device) -> Callable[[], None]:
        raise ValueError("no kernel image")

    monkeypatch.setattr(tuning, "captured_step", broken)
    with pytest.raises(RunFailed, match="ValueError: no kernel image"):
        tuning.rates_side_by_side(Device("cpu", "fp32"), (1, 2), seconds=0.1)


def test_the_measured_step_is_one_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "BATCH", 2)
    nets: list[torch.nn.Module] = []
    backbone = tuning.backbone
    monkeypatch.setattr(tuning, "backbone", lambda *words, **more: nets.append(backbone(*words, **more)) or nets[0])
    step = tuning.captured_step(Device("cpu", "fp32"))
    before = [int(m.num_batches_tracked) for m in nets[0].modules() if isinstance(m, torch.nn.BatchNorm2d)]
    step()
    after = [int(m.num_batches_tracked) for m in nets[0].modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert set(before) == {1} and set(after) == {2} and all(p.grad.abs().sum() > 0 for p in nets[0].parameters())
    assert not graphs.CAPTURING.locked()
