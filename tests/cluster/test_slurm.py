"""Jobs of a real Slurm: submitted once, requeued with what they have saved, and collected by a later command.

`python -m pytest -m slurm tests/cluster` runs these; they take minutes and need root.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from common.command import cluster, launcher
from common.command.cluster import Request
from common.command.launcher import Job
from common.command.waiting import Outcome
from common.data.datasets import DataSpec, load
from common.runs import Run
from common.store import Store
from lucir.methods import Base
from lucir.reproduce import presets

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm")]
ROOT = Path(__file__).resolve().parents[2]
FIG3A = ["lucir", "--only", "fig3a", "--epochs-scale", "0.1", "--launcher", "slurm", "--slurm-time", "10"]


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # jobs import the packages from where they were submitted


def reproduce(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from common.command.cli import main; main()", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def tiny(cache: Path, epochs: int, lr: float = 0.01) -> Run:
    """A run on 160 embedded images of 4 classes."""
    (setting, *_) = presets.settings("quick", (), (), 1.0)
    small = replace(setting, data=DataSpec("glyphs", 4, 40, 5), classes=4, repeats=(("1993", 0),))
    (run,) = small.base_runs(Base(), 4)
    run = replace(run, schedule=replace(run.schedule, epochs=epochs, milestones=(), lr=lr))
    return run.resolved(load(run.data, None, cache).fingerprint, "fp32")


def collect(runs: list[Run], out: Path, minutes: int = 10, wait: float = 240) -> list[Outcome]:
    job = Job(out, None, "cpu", jobs=1, threads=1, deadline=time.time() + wait)
    return list(cluster.launch(runs, job, set(), Request("slurm", minutes), dict.fromkeys([r.hash for r in runs], 1)))


def submitted(out: Path) -> list[str]:
    """The ids of all jobs that were ever submitted."""
    return [json.loads(line)["job"] for line in (out / "cluster/jobs.jsonl").read_text().splitlines()]


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def restarts(job: str) -> int:
    return int(said("scontrol", "show", "job", job).split("Restarts=")[1].split()[0])


def until(done: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.2)


def begin_again(job: str) -> None:
    """Slurm lets a requeued job wait for two minutes; not here."""
    until(lambda: said("squeue", "-h", "-j", job, "-o", "%T %r").strip() == "PENDING BeginTime")
    said("scontrol", "update", f"jobid={job}", "starttime=now")


def assert_as_if_never_stopped(run: Run, out: Path, alone: Path) -> None:
    assert launcher.train(run, Job(alone, None, "cpu", jobs=1, threads=1)) == ""
    found, expected = Store(out).load(run.hash), Store(alone).load(run.hash)
    assert found and expected and found.values == expected.values


def test_a_later_command_collects_what_an_earlier_one_submitted(tmp_path: Path) -> None:
    """Also given twice while its jobs wait: nothing is submitted again. The start goes first."""
    said("scontrol", "update", "partitionname=main", "state=down")
    first = reproduce(*FIG3A, "--out", str(tmp_path), "--minutes", "0.02")
    assert first.returncode == 130 and "the same command goes on" in first.stderr, first.stderr
    twice = reproduce(*FIG3A, "--out", str(tmp_path), "--minutes", "0.02")
    assert "in the queue already, runs: 2" in twice.stdout, twice.stdout
    standing = reproduce("status", "--out", str(tmp_path)).stdout
    assert "queued   Base" in standing and "Dependency" in standing and "0 finished, 2 queued" in standing, standing
    said("scontrol", "update", "partitionname=main", "state=up")
    last = reproduce(*FIG3A, "--out", str(tmp_path))
    assert last.returncode == 0 and "1 of 1 figures" in last.stdout, last.stdout + last.stderr
    assert reproduce("status", "--out", str(tmp_path)).stdout == "2 finished\n"
    assert len(submitted(tmp_path)) == 2


def test_a_preempted_job_goes_on_where_it_was(tmp_path: Path) -> None:
    run = tiny(tmp_path / "cache", 200)
    log = tmp_path / "runs" / run.hash / "metrics.jsonl"
    assert collect([run], tmp_path, wait=1) == []
    (job,) = submitted(tmp_path)
    until(lambda: log.exists() and len(log.read_text().splitlines()) > 20)
    said("scontrol", "requeue", job)
    begin_again(job)
    assert [o.ending for o in collect([run], tmp_path)] == ["finished"]
    assert submitted(tmp_path) == [job] and restarts(job) == 1
    epochs = [json.loads(line)["epoch"] for line in log.read_text().splitlines()]
    assert epochs == list(range(1, 201))
    assert_as_if_never_stopped(run, tmp_path, tmp_path / "alone")


def test_a_job_that_reaches_its_time_requeues_itself(tmp_path: Path) -> None:
    """The limit is two minutes; the run is held still until that is near."""
    run = tiny(tmp_path / "cache", 200)
    assert collect([run], tmp_path, minutes=2, wait=1) == []
    (job,) = submitted(tmp_path)
    until(lambda: Store(tmp_path).trained(run) > 0)
    (process,) = processes(job)
    os.kill(process, signal.SIGSTOP)
    until(lambda: told_to_save(job))
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGCONT)
    begin_again(job)
    half = Store(tmp_path).trained(run)
    while not (ended := collect([run], tmp_path, minutes=2, wait=2)):
        if "BeginTime" in said("squeue", "-h", "-j", job, "-o", "%r"):  # a slow machine takes several turns
            begin_again(job)
    assert [o.ending for o in ended] == ["finished"]
    assert submitted(tmp_path) == [job] and restarts(job) >= 1 and half < Store(tmp_path).trained(run)
    assert_as_if_never_stopped(run, tmp_path, tmp_path / "alone")


def told_to_save(job: str) -> bool:
    """Whether a job of two minutes has run for longer than 90 seconds, or has been put back already."""
    state, clock = said("squeue", "-h", "-j", job, "-o", "%T %M").split()
    minutes, seconds = clock.split(":")
    return state != "RUNNING" or 60 * int(minutes) + int(seconds) >= 95


def processes(job: str) -> list[int]:
    """The Python processes of a job."""
    found = list[int]()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if (
                b"submitit.core._submit" in words
                and f"SLURM_JOB_ID={job}\0".encode() in (folder / "environ").read_bytes()
            ):
                found += [int(folder.name)] if b"srun" not in words[0] else []
    return found


def test_a_failing_run_says_why_and_holds_up_what_begins_from_it(tmp_path: Path) -> None:
    wild = tiny(tmp_path / "cache", 3, lr=1e30)
    child, sound = replace(wild, start=wild, seed=1), tiny(tmp_path / "cache", 1)
    ended = {o.run.hash: (o.ending, o.problem) for o in collect([wild, child, sound], tmp_path)}
    assert ended[sound.hash] == ("finished", "")
    assert ended[wild.hash][0] == "failed" and ended[wild.hash][1].startswith("loss not finite in stage main, epoch 1")
    assert ended[child.hash] == ("failed", f"not started: run {wild.hash}, which it starts from, failed")
    standing = reproduce("status", "--out", str(tmp_path)).stdout.splitlines()
    assert any(line.startswith("failed ") and line.endswith(ended[wild.hash][1]) for line in standing), standing
    assert standing[-1] == "1 finished, 2 failed"


def test_a_partition_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    ended = reproduce(*FIG3A, "--out", str(tmp_path), "--slurm-partition", "nowhere")
    assert ended.returncode == 2 and "slurm refuses the jobs: " in ended.stderr, ended.stderr
    assert "Invalid partition" in ended.stderr and ended.stderr.count("\n") == 1
