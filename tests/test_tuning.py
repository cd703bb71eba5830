"""The number of threads: chosen from measurements, kept, and recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common import launcher, tuning
from common.datasets import Dataset
from common.launcher import Job
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
    assert made == [2, 4] and len(json.loads(memo.read_text())) == 2
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
