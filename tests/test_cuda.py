"""Tests runs of every package on a real GPU: captured, side by side, and next to a run that cannot be captured.

The tests are skipped without a GPU. REPRO_TEST_DEVICE=cpu rehearses them without one.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from methods import CASES, Get

from common.command import launcher
from common.command.launcher import Job, warm_up
from common.graphs import cuda_graph, eagerly
from common.runs import Run
from common.store import Result, Store
from common.training import Device
from common.tuning import rates_side_by_side

DEVICE = os.environ.get("REPRO_TEST_DEVICE", "cuda")
CUDA = DEVICE == "cuda"
WAYS = ("new", "torch") if CUDA else ("new",)
pytestmark = pytest.mark.skipif(
    CUDA and not torch.cuda.is_available(), reason="needs a GPU; REPRO_TEST_DEVICE=cpu rehearses it on a CPU"
)
needs_cuda = pytest.mark.skipif(not CUDA, reason="what graphs do on a GPU")


def ended(run: Run, out: Path) -> Result:
    for link in run.chain:
        assert launcher.train(link, Job(out, None, DEVICE, 1, 1)) == ""
    found = Store(out).load(run.hash)
    assert found
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", CASES)
def test_every_learner_is_captured(name: str, precision: str, get: Get, tmp_path: Path) -> None:
    run = CASES[name](get)
    result = ended(run.resolved(run.fingerprint, precision), tmp_path)
    taken = result.environment["steps"]
    assert not CUDA or taken.get("captured", 0) == taken.get("eager", 0)
    assert np.isfinite(result.values["trace"].get("loss", [0.0])).all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_a_graph_trains_as_python_does(
    name: str, way: str, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = CASES[name](get)
    monkeypatch.setenv("REPRO_CAPTURE", way)
    graph = ended(run, tmp_path / "graph")
    with eagerly():
        eager = ended(run, tmp_path / "eager")
    assert "graph" not in eager.environment["steps"]
    for a, b in zip(graph.values["trace"].get("loss", []), eager.values["trace"].get("loss", []), strict=True):
        assert a == pytest.approx(b, rel=0.02, abs=1e-3)  # cuDNN's backward sums in no fixed order


def side_by_side(runs: list[Run], out: Path) -> dict[str, str]:
    """Train runs in eight threads of this process. Returns problems by hash."""
    return {o.run.hash: o.problem for o in launcher.launch(runs, Job(out, None, DEVICE, 8, 1), set())}


@pytest.mark.parametrize("way", WAYS)
def test_all_at_once(way: str, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process captures, takes first steps, evaluates and herds for different learners, with three seeds of each."""
    monkeypatch.setattr(launcher, "Processes", lambda attempt, jobs, prepare: launcher.Threads(attempt, jobs))
    monkeypatch.setenv("REPRO_CAPTURE", way)
    first = [CASES[name](get) for name in CASES]
    assert not any(warm_up(run, Job(tmp_path, None, DEVICE, 8, 1)) for run in first)
    runs = [replace(run, seed=run.seed + i) for run in first for i in range(3)]
    assert not any(side_by_side(runs, tmp_path).values())


@needs_cuda
def test_a_step_that_cannot_be_captured_fails_alone(get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This needs our own capture.

    Before torch 2.12, a failed `torch.cuda.graph` spoils later captures of the process.
    """
    from lucir.learner import ICaRLLearner

    monkeypatch.setenv("REPRO_CAPTURE", "new")
    loss = ICaRLLearner.loss
    monkeypatch.setattr(ICaRLLearner, "loss", lambda self, x, y: loss(self, x, y) * (loss(self, x, y).item() > 0))
    bad, others = CASES["iCaRL"](get), [CASES[name](get) for name in ("LUCIR", "BBN", "LDAM-DRW")]
    problems = side_by_side([bad, *others], tmp_path)
    assert "captured" in problems[bad.hash] and not any(problems[run.hash] for run in others)
    later = [replace(run, seed=7) for run in others]
    assert not any(side_by_side(later, tmp_path).values())
    torch.cuda.empty_cache()
    with eagerly():
        assert launcher.train(bad, Job(tmp_path, None, DEVICE, 1, 1)) == ""


@needs_cuda
def test_a_capture_that_a_device_wait_breaks_is_made_again() -> None:
    """Another thread waits for the whole device in the middle of the first capture."""
    total, bodies = torch.zeros((), device="cuda"), []

    def body() -> None:
        bodies.append(1)
        if len(bodies) == 1:
            thread = threading.Thread(target=_device_wait)
            thread.start()
            thread.join()
        total.add_(1)

    again = cuda_graph(body)
    again()
    assert total.item() == 1 and len(bodies) <= 2


def _device_wait() -> None:
    with suppress(RuntimeError):  # refused while another stream captures
        torch.cuda.synchronize()


@needs_cuda
def test_runs_side_by_side_are_measured() -> None:
    rates = rates_side_by_side(Device("cuda", "bf16"), (1, 2), seconds=0.2)
    assert set(rates) == {1, 2} and all(rate > 0 for rate in rates.values())
