"""Tests once what every method promises. `methods.EVERY` is the list of methods."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killed import Killed, assert_same, job, log, outcome
from methods import EVERY, Get
from recorder import record

from common import store, training
from common.command import launcher
from common.runs import Run
from common.store import Result, Store, Workspace, read_state


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder where runs are trained without interruption, from Python.

    Runs that tests share are trained once.
    """
    return tmp_path_factory.mktemp("whole")


def beside(run: Run, whole: Path, out: Path) -> None:
    """Finish `run` and its starts in `whole`, and copy the starts to `out`."""
    Store(out)
    for link in run.chain:
        assert launcher.train(link, job(whole)) == ""
        if link is not run:
            shutil.copytree(whole / "runs" / link.hash, out / "runs" / link.hash)


def results(run: Run, *folders: Path) -> list[Result]:
    """Return what a finished run has measured, from each folder."""
    found = [Store(folder).load(run.hash) for folder in folders]
    assert all(found)
    return [result for result in found if result]


@pytest.mark.parametrize("name", EVERY)
def test_a_run_killed_again_and_again_ends_with_the_same_bits(
    name: str, get: Get, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills come right before each save, when an epoch or a phase is over but not kept, and right after it."""
    run, save, kills = EVERY[name](get), Workspace._save, 0
    beside(run, whole, tmp_path)

    def killed(workspace: Workspace, *args: Any) -> None:
        if kills % 2:
            save(workspace, *args)
        raise Killed

    monkeypatch.setattr(Workspace, "_save", killed)
    monkeypatch.setattr(store, "SAVE_EVERY", 0)
    while kills < 100:
        try:
            assert launcher.train(run, job(tmp_path)) == ""
            break
        except Killed:
            kills += 1
    (result,) = results(run, tmp_path)
    assert kills >= 2 * len(result.phases()) > 0
    assert_same(outcome(tmp_path, run), outcome(whole, run), name)


@pytest.mark.parametrize("name", EVERY)
def test_a_captured_step_trains_as_one_called_from_python(
    name: str, get: Get, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stage is captured once for each batch size, and then replayed. Losses and weights are the same."""
    run = EVERY[name](get)
    beside(run, whole, tmp_path)
    monkeypatch.setattr(training, "capture_for", lambda images: record)
    assert launcher.train(run, job(tmp_path)) == ""
    eager, graph = results(run, whole, tmp_path)
    called, taken = (dict.fromkeys(("eager", "captured", "graph"), 0) | r.environment["steps"] for r in (eager, graph))
    stages = {(line["phase"], line["stage"]) for line in log(tmp_path, run)}
    assert taken["captured"] == taken["eager"] <= 2 * len(stages), "a stage goes on in Python"
    assert taken["eager"] + taken["graph"] == called["eager"]
    losses = [r.values["trace"].get("loss", []) for r in (graph, eager)]
    np.testing.assert_allclose(*losses, rtol=1e-3, atol=1e-4)
    states = [read_state(out / "runs" / run.hash / "checkpoint.safetensors") for out in (tmp_path, whole)]
    assert states[0] and states[1]
    torch.testing.assert_close(states[0].tensors, states[1].tensors, rtol=1e-3, atol=1e-4, equal_nan=True)
