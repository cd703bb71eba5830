"""Tests jobs of a real Slurm: they are submitted once, requeued with what they have saved, and collected later.

`python -m pytest -m slurm tests/cluster` runs these tests. They take minutes and need root.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from held import Held

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
PATIENCE = 900  # seconds; on an idle machine a few are enough
FIG3A = ["lucir", "--only", "fig3a", "--epochs-scale", "0.1", "--launcher", "slurm", "--slurm-time", "10"]


@pytest.fixture(autouse=True)
def let_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Return the file that lets held runs go.

    Jobs import packages from the folder of submission, and `held` from here.
    """
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests/cluster"))
    monkeypatch.setenv("LET_GO", str(tmp_path / "let-go"))
    yield tmp_path / "let-go"
    said("scontrol", "update", "partitionname=main", "state=up")  # a failed test leaves nothing to the next
    said("scancel", "--me")


def reproduce(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from common.command.cli import main; main()", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)


def tiny(cache: Path, epochs: int, method: Base | None = None, lr: float = 0.01) -> Run:
    """Return a run on 40 embedded images of 4 classes."""
    (setting, *_) = presets.settings("quick", (), (), 1.0)
    small = replace(setting, data=DataSpec("glyphs", 4, 10, 5), classes=4, repeats=(("1993", 0),))
    (run,) = small.base_runs(method or Base(), 4)
    run = replace(run, schedule=replace(run.schedule, epochs=epochs, milestones=(), lr=lr, batch=16))
    return run.resolved(load(run.data, None, cache).fingerprint, "fp32")


def collect(runs: list[Run], out: Path, minutes: int = 10, wait: float = PATIENCE) -> list[Outcome]:
    job = Job(out, None, "cpu", jobs=1, threads=1, deadline=time.time() + wait)
    return list(cluster.launch(runs, job, set(), Request("slurm", minutes), dict.fromkeys([r.hash for r in runs], 1)))


def submitted(out: Path) -> list[str]:
    """Return the ids of all jobs that were ever submitted."""
    return [json.loads(line)["job"] for line in (out / "cluster/jobs.jsonl").read_text().splitlines()]


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def state(job: str) -> str:
    """Return the state of a job that Slurm knows, with the reason if the job waits."""
    return said("squeue", "-h", "-j", job, "-o", "%T %r").strip()


def restarts(job: str) -> int:
    return int(said("scontrol", "show", "job", job).split("Restarts=")[1].split()[0])


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > end:
            pytest.fail(said("scontrol", "show", "job"))
        time.sleep(0.2)


def begin_again(job: str) -> None:
    """Start a requeued job in two seconds instead of Slurm's two minutes.

    Sooner, Slurm could take it for the old job.
    """
    until(lambda: state(job) == "PENDING BeginTime")
    said("scontrol", "update", f"jobid={job}", "starttime=now+2", "timelimit=10")


def first_epochs(run: Run, out: Path) -> list[str]:
    """Wait for the log of a run in a job, and return it with the times that its epochs took."""
    log = out / "runs" / run.hash / "metrics.jsonl"
    until(lambda: log.exists() and log.read_text().count("\n") > 2)
    return log.read_text().splitlines()[:2]


def assert_went_on(run: Run, out: Path, before: list[str]) -> None:
    """Assert that the log holds every epoch once, and still the lines from before the job was requeued."""
    lines = (out / "runs" / run.hash / "metrics.jsonl").read_text().splitlines()
    assert lines[: len(before)] == before
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, run.schedule.epochs + 1))


def assert_as_if_never_stopped(run: Run, out: Path, alone: Path) -> None:
    assert launcher.train(run, Job(alone, None, "cpu", jobs=1, threads=1)) == ""
    found, expected = Store(out).load(run.hash), Store(alone).load(run.hash)
    assert found and expected and found.values == expected.values


def test_a_later_command_collects_what_an_earlier_one_submitted(tmp_path: Path) -> None:
    """If the command is given again while its jobs wait, nothing is submitted again. Starts come first."""
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


def test_a_preempted_job_goes_on_where_it_was(tmp_path: Path, let_go: Path) -> None:
    run = tiny(tmp_path / "cache", 200, Held())
    assert collect([run], tmp_path, wait=1) == []
    (job,) = submitted(tmp_path)
    before = first_epochs(run, tmp_path)
    said("scontrol", "requeue", job)
    begin_again(job)
    let_go.touch()
    assert [o.ending for o in collect([run], tmp_path)] == ["finished"]
    assert submitted(tmp_path) == [job] and restarts(job) == 1
    assert_went_on(run, tmp_path, before)
    assert_as_if_never_stopped(run, tmp_path, tmp_path / "alone")


def test_a_job_that_reaches_its_time_requeues_itself(tmp_path: Path, let_go: Path) -> None:
    """The test cuts the job's limit while the job runs. Slurm looks at limits every half minute."""
    run = tiny(tmp_path / "cache", 200, Held())
    assert collect([run], tmp_path, wait=1) == []
    (job,) = submitted(tmp_path)
    before = first_epochs(run, tmp_path)
    said("scontrol", "update", f"jobid={job}", "timelimit=2")  # the job is told to save two minutes before its end
    begin_again(job)
    assert Store(tmp_path).trained(run) < run.schedule.epochs * 40
    let_go.touch()
    assert [o.ending for o in collect([run], tmp_path)] == ["finished"]
    assert submitted(tmp_path) == [job] and restarts(job) == 1
    assert_went_on(run, tmp_path, before)
    assert_as_if_never_stopped(run, tmp_path, tmp_path / "alone")


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
