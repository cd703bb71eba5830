"""Tests that killed runs end with the bits of uninterrupted ones, wherever they are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from killed import Killed, assert_same, job, kill_after, outcome, stopped

from common import store, tuning
from common.command import launcher
from common.runs import Protocol, Run, Schedule
from common.store import Store, Workspace
from lucir.methods import LUCIR, Base, ICaRL

MakeRun = Callable[..., Run]
FINETUNE = Schedule(2, lr=0.05, milestones=(1,), batch=8)


@pytest.fixture(autouse=True)
def _save_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SAVE_EVERY", 0)


def test_interrupted_at_any_epoch(tiny_run: MakeRun, tmp_path: Path) -> None:
    """Kills go from before the first checkpoint to the last epoch of the last finetuning."""
    run, epochs = tiny_run(LUCIR(finetune=FINETUNE, finetune_flag=3)), list[int]()
    assert launcher.train(run, job(tmp_path / "whole"), epochs.append) == ""
    expected = outcome(tmp_path / "whole", run)
    assert len(epochs) == 10
    for count in range(1, len(epochs) + 1):
        out = tmp_path / str(count)
        stopped(run, out, count)
        assert Store(out).load(run.hash) is None
        assert launcher.train(run, job(out)) == ""
        assert_same(outcome(out, run), expected, f"interrupted at epoch {count}")


@pytest.mark.parametrize("name", ["icarl, finetuned", "lucir, started"])
def test_interrupted_at_any_save(name: str, tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills come right after each checkpoint: at the end of a stage, of a phase, and of the run before its result."""
    started = name == "lucir, started"
    method, changes = (
        (LUCIR(finetune=FINETUNE), {}) if started else (ICaRL(finetune=FINETUNE), {"protocol": Protocol(8, 4, 2, 12)})
    )
    base = tiny_run(Base("cosine"), protocol=Protocol(4, 4, 0, 0)) if started else None
    run, save, saves = tiny_run(method, start=base, **changes), Workspace._save, list[str]()

    def ready(out: Path) -> Path:
        """Finish the run that it starts from, uninterrupted."""
        nonlocal stop
        if base:
            stop, wanted = 0, stop
            assert launcher.train(base, job(out)) == ""
            stop = wanted
        saves.clear()
        return out

    def counted(workspace: Workspace, *args: Any) -> None:
        save(workspace, *args)
        saves.append(args[0])
        if len(saves) == stop:
            raise Killed

    monkeypatch.setattr(Workspace, "_save", counted)
    stop = 0
    assert launcher.train(run, job(ready(tmp_path / "whole"))) == ""
    expected, total = outcome(tmp_path / "whole", run), len(saves)
    assert saves.count("epoch") == (8 if started else 10) and saves.count("checkpoint") == 3
    for stop in range(1, total + 1):
        out = ready(tmp_path / str(stop))
        with pytest.raises(Killed):
            launcher.train(run, job(out))
        assert launcher.train(run, job(out)) == ""
        assert_same(outcome(out, run), expected, f"interrupted at save {stop}")


def test_interrupted_again_and_again(tiny_run: MakeRun, tmp_path: Path) -> None:
    """Every attempt gets one epoch further. The start's run is trained in the same way."""
    base = tiny_run(Base("cosine"), protocol=Protocol(4, 4, 0, 0))
    run = tiny_run(LUCIR(finetune=FINETUNE), start=base)
    for r in run.chain:
        assert launcher.train(r, job(tmp_path / "whole")) == ""
        attempts = 0
        while not Store(tmp_path / "broken").load(r.hash):
            attempts += 1
            try:
                assert launcher.train(r, job(tmp_path / "broken"), kill_after(2)) == ""
            except Killed:
                continue
        assert attempts == (2 if r is base else 8)
        assert_same(outcome(tmp_path / "broken", r), outcome(tmp_path / "whole", r), "in pieces")


def test_checkpoints_far_apart(tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a checkpoint inside a phase, the phase starts again. Its epochs are logged once."""
    run = tiny_run(LUCIR(finetune=FINETUNE))
    assert launcher.train(run, job(tmp_path / "whole")) == ""
    monkeypatch.setattr(store, "SAVE_EVERY", 1e9)
    for count in (1, 4, 6, 10):
        with pytest.raises(Killed):
            launcher.train(run, job(tmp_path / str(count)), kill_after(count))
        assert launcher.train(run, job(tmp_path / str(count))) == ""
        assert_same(outcome(tmp_path / str(count), run), outcome(tmp_path / "whole", run), str(count))


def test_killed_between_any_two_steps_of_saving(
    tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills come before each file is written, synced or moved into place, from a run's first file to its last."""
    run = tiny_run(ICaRL(), protocol=Protocol(8, 4, 4, 3))
    calls, stop = 0, 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == stop:
                raise Killed
            return function(*args, **options)

        return call

    for module, name in ((os, "fsync"), (os, "replace"), (safetensors.torch, "save_file"), (np, "savez_compressed")):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    assert launcher.train(run, job(tmp_path / "whole")) == ""
    expected, total = outcome(tmp_path / "whole", run), calls
    assert total > 40
    for number in range(1, total):  # the last only follows the result
        out = tmp_path / str(number)
        calls, stop = 0, number
        with pytest.raises(Killed):
            launcher.train(run, job(out))
        stop = 0
        assert launcher.train(run, job(out)) == ""
        assert_same(outcome(out, run), expected, f"killed before call {number}")


def test_a_run_keeps_its_threads(tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    monkeypatch.setattr(tuning, "_measure", lambda *arguments: {"1": 1.0, "2": 2.0, "3": 3.0})
    run = tiny_run(ICaRL())
    with pytest.raises(Killed):
        launcher.train(run, replace(job(tmp_path), threads=3), kill_after(3))
    assert launcher.train(run, job(tmp_path)) == ""
    assert used == [3, 3]


SCRIPT = """
import sys, time
from pathlib import Path
from common.command import launcher
from common import store
from common.data.datasets import DataSpec
from common.runs import Protocol, Run, Schedule
from lucir.methods import LUCIR

store.SAVE_EVERY = 0
out, pause = Path(sys.argv[1]), float(sys.argv[2])
spec = DataSpec("glyphs", classes=6, per_class=20, test_per_class=4)
method = LUCIR(finetune=Schedule(2, lr=0.01, batch=16))
run = Run("lucir", method, spec, Protocol(6, 2, 2, 4), Schedule(3, batch=16), "resnet8-half")
run = run.resolved(launcher.load(spec, None, out / "cache").fingerprint, "fp32")
job = launcher.Job(out, None, "cpu", jobs=1, threads=1)
print(run.hash, launcher.train(run, job, lambda images: time.sleep(pause)))
"""


def test_killed_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """SIGKILL comes in the middle of the last phase. Another process goes on from the checkpoint."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "killed"), "0.1"]
    killed = subprocess.Popen(command, cwd=tmp_path, env=environment)

    def train_here(out: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["", str(tmp_path / out), "0"])
        exec(compile(SCRIPT, "script", "exec"), {})
        return capsys.readouterr().out.split()

    (digest,) = train_here("whole")
    metrics = tmp_path / "killed" / "runs" / digest / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 10:
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL and not metrics.with_name("result.json").exists()
    kept = len(metrics.read_text().splitlines())
    assert train_here("killed") == [digest]
    for name in ("result.json", "checkpoint.safetensors"):
        folders = (tmp_path / out / "runs" / digest for out in ("killed", "whole"))
        assert len({(folder / name).read_bytes() for folder in folders}) == 1, name
    assert 10 <= kept < 13 == len(metrics.read_text().splitlines())
