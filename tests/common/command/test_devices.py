"""Tests GPUs by name, with a process for each. On a CPU a process only sees which GPU it would use."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch
from commands import main, results

from common.command import devices, queue
from common.command.devices import VISIBLE, Gpus
from common.command.launcher import Job, launch
from common.command.plan import Choice, Data, make_plan
from common.errors import InputError
from common.runs import Run
from common.store import Store

SMI = '#!/bin/sh\necho "NVIDIA H100"\necho "NVIDIA H200"\n'


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Return two short Runs on embedded data, and a cache of their images for each folder that a test trains in."""
    choice = Choice(only=("fig5a",), epochs_scale=0.1)
    plan = make_plan("lucir", choice, Store(tmp_path / "plan"), Data(None, tmp_path / "plan/cache"))
    for folder in ("alone", "shared"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "cache").symlink_to(tmp_path / "plan/cache")
    starts = [run.start for run in plan.runs().values() if run.start]
    return [plan.resolved(run, "fp32") for run in starts]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None, bool], None]:
    """(CUDA_VISIBLE_DEVICES, whether CUDA sees GPUs) -> a machine on which torch and nvidia-smi report two GPUs."""

    def make(given: str | None = None, sees: bool = True) -> None:
        (tmp_path / "nvidia-smi").write_text(SMI)
        (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        monkeypatch.setenv(VISIBLE, given or "")
        if given is None:
            monkeypatch.delenv(VISIBLE)
        monkeypatch.setattr(devices, "_taken", [])
        monkeypatch.setattr(torch.cuda, "is_available", lambda: sees and os.environ.get(VISIBLE) != "")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(devices.visible(2)))

    return make


@pytest.mark.parametrize(
    ("given", "device", "seen"),
    [(None, "cuda:1", "1"), (None, "cuda:0", "0"), ("6,4", "cuda:1", "4"), ("GPU-a,GPU-b", "cuda:0", "GPU-a")],
)
def test_one_gpu_is_all_that_cuda_sees(given: str | None, device: str, seen: str, machine: Callable) -> None:
    machine(given)
    assert devices.pinned(device) == "cuda" and os.environ[VISIBLE] == seen
    assert devices.together(device, 9) == ()
    machine(given)
    assert devices.pinned("cuda") == "cuda" and os.environ.get(VISIBLE) == given


def test_a_process_keeps_the_gpu_that_it_has(machine: Callable) -> None:
    machine(None)
    assert devices.pinned("cuda:1") == devices.pinned("cuda:1") == "cuda" and os.environ[VISIBLE] == "1"
    with pytest.raises(InputError, match="--device cuda:0: this process has cuda:1 already"):
        devices.pinned("cuda:0")
    assert devices.pinned("cpu") == "cpu" and os.environ[VISIBLE] == "1"


def test_a_gpu_cannot_be_chosen_once_cuda_is_in_use(machine: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(None)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(InputError, match="--device cuda:1: this process uses CUDA already"):
        devices.pinned("cuda:1")
    assert VISIBLE not in os.environ


@pytest.mark.parametrize(("given", "found"), [(None, ("0", "1")), ("6,4", ("6", "4")), ("6", ()), ("", ())])
def test_cuda_is_all_gpus(given: str | None, found: tuple[str, ...], machine: Callable) -> None:
    machine(given)
    assert devices.together("cuda", 9) == found and devices.together("cpu", 9) == ()
    assert devices.together("cuda", 1) == ()  # which needs no process of its own


def test_a_gpu_that_is_not_there_is_refused(machine: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    machine("6,4")
    with pytest.raises(InputError, match="--device cuda:2: torch sees no such GPU"):
        devices.pinned("cuda:2")
    assert os.environ[VISIBLE] == "6,4"
    assert main(["--list", "--device", "cuda:x"], "lucir") == 2
    assert "unknown device 'cuda:x'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "given", "words"),
    [
        ("auto", None, "GPU 0 (NVIDIA H100), GPU 1 (NVIDIA H200), a process each"),
        ("cuda", "1", "GPU 1 (NVIDIA H200)"),
        ("cuda:1", None, "GPU 1 (NVIDIA H200)"),
        ("cuda:2", None, "no GPU: cuda:2 is not here"),
        ("cpu", None, "the CPU"),
    ],
)
def test_a_listing_says_which(
    device: str, given: str | None, words: str, machine: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(given)
    assert main(["--list", "--only", "fig3a", "--device", device, "--out", str(tmp_path)], "lucir") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"device: {words}"


def test_without_nvidia_there_is_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.describe("auto") == "the CPU" and "none is found" in devices.describe("cuda")


def environment_of(process: int) -> list[bytes]:
    """Return the environment of a process. The system shows it as empty while the process is being started."""
    ends = time.monotonic() + 30
    while not (found := Path(f"/proc/{process}/environ").read_bytes()) and time.monotonic() < ends:
        time.sleep(0.01)
    return found.split(b"\0")


def test_each_gpu_has_a_process_that_sees_it_alone(
    runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results equal those of one process. A process that dies is started again, and its run goes on."""
    made: list[Gpus] = []
    pids: set[int] = set()

    class Watched(Gpus):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)  # type: ignore[arg-type]
            made.append(self)
            seen = [environment_of(gpu.process.pid or 0) for gpu in self.gpus]
            assert b"CUDA_VISIBLE_DEVICES=5" in seen[0] and b"CUDA_VISIBLE_DEVICES=3" in seen[1]
            assert VISIBLE not in os.environ

        def submit(self, run: Run, job: Job) -> Future:
            future = super().submit(run, job)
            if not pids and self.began.wait(60):  # the first run loses its process
                os.kill(self.gpus[0].process.pid or 0, signal.SIGKILL)
            pids.update(gpu.process.pid or 0 for gpu in self.gpus)
            return future

    monkeypatch.delenv(VISIBLE, raising=False)
    alone, shared = (Job(tmp_path / name, None, "cpu", 1, 1) for name in ("alone", "shared"))
    assert all(outcome.problem == "" for outcome in launch(runs, alone, set()))
    monkeypatch.setattr("common.command.launcher.Gpus", Watched)
    images: list[int] = []
    job = Job(shared.out, None, "cpu", 1, 1, gpus=("5", "3"))
    ended = {outcome.run.hash: outcome.problem for outcome in launch(runs, job, set(), images.append)}
    assert len(ended) == 2 and not any(ended.values()) and sum(images) > 0
    assert results(shared.out) == results(alone.out) and len(results(shared.out)) == 2
    assert len(made) == 1 and len(pids) == 3 and os.getpid() not in pids
    for gpu in made[0].gpus:
        gpu.process.join(20)
        assert gpu.process.exitcode == -signal.SIGKILL  # none is left behind


def test_a_command_shares_runs_between_gpus(
    machine: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each GPU trains as many runs at once as the measurement of one GPU says."""
    machine()
    jobs: list[Job] = []
    monkeypatch.setattr(queue, "launch", lambda runs, job, *rest: jobs.append(job) or iter(()))
    monkeypatch.setattr("common.tuning.choose_jobs", lambda device: 3)
    monkeypatch.setattr("common.training.has_bf16", lambda device: True)
    for device, gpus in (("auto", ("0", "1")), ("cuda", ("0", "1")), ("cuda:1", ())):
        main(["--only", "fig5", "--device", device, "--out", str(tmp_path)], "lucir")
        assert (jobs[-1].device, jobs[-1].jobs, jobs[-1].gpus) == ("cuda", 3, gpus)
        assert ("runs on 2 GPUs in bf16, 3 at once on each" in capsys.readouterr().out) == bool(gpus)
