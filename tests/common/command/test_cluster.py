"""Tests what is submitted to a cluster, in which order and how often, and how a job ends. No Slurm is needed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import main, results

from common.command import cluster, launcher, pack
from common.command.board import Alive, Board
from common.command.cluster import Request
from common.command.launcher import Job
from common.command.pack import Pack
from common.command.status import reason
from common.command.waiting import Outcome
from common.runs import Protocol, Run, Schedule
from lucir.methods import Base, ICaRL

MakeRun = Callable[..., Run]
ROOT = Path(__file__).resolve().parents[3]


class Cluster:
    """Stands for Slurm: keeps what is submitted, and trains it in this process when told to."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, list[list[str]]]] = []
        """For each array: the job that it waits for, and the runs of each of its jobs."""
        self.packs: dict[str, Pack] = {}

    def executor(self, folder: Path, after: str) -> SimpleNamespace:
        def submit_array(packs: Sequence[Pack]) -> list[SimpleNamespace]:
            self.sent.append((after, [[run.hash for run in each.runs] for each in packs]))
            ids = [f"{len(self.sent)}_{i}" for i in range(len(packs))]
            self.packs |= dict(zip(ids, packs, strict=True))
            return [SimpleNamespace(job_id=each) for each in ids]

        return SimpleNamespace(submit_array=submit_array)

    def alive(self) -> dict[str, Alive]:
        return {job: Alive(True, "Priority") for job in self.packs}

    def work(self, count: int = 1000) -> None:
        """Let the first jobs come to their end, in the order in which they were submitted."""
        for job in list(self.packs)[:count]:
            each = self.packs.pop(job)
            for outcome in launcher.launch(
                each._ready(), replace(each.job, jobs=1), {r.hash for run in each.runs for r in run.chain[:-1]}
            ):
                pack.note(each.job.out, outcome)


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()
    monkeypatch.setattr(Request, "executor", lambda request, folder, after: found.executor(folder, after))
    monkeypatch.setattr(Board, "alive", lambda board: found.alive())
    return found


def collect(runs: list[Run], out: Path, jobs: int = 1, most: int = 0) -> list[Outcome]:
    """Return the Outcomes that a command sees if it looks at the cluster once."""
    job = Job(out, None, "cpu", jobs, 1, deadline=1.0)
    costs = {each.hash: 1 for run in runs for each in run.chain}
    return list(cluster.launch(runs, job, set(), Request("slurm", 10, most), costs))


def test_starts_go_first_and_nothing_is_submitted_twice(tiny_run: MakeRun, tmp_path: Path, slurm: Cluster) -> None:
    """Everything is in the queue at once.

    A run waits for the job of its start, and a later command collects results.
    """
    base, other = tiny_run(Base(), protocol=Protocol(4, 4, 0, 0)), tiny_run(Base())
    children = [tiny_run(ICaRL(), start=base, seed=seed) for seed in range(3)]
    assert collect([*children, other], tmp_path, jobs=2) == []
    first, *rest = [r.hash for r in children]
    assert slurm.sent == [("", [[base.hash, other.hash]]), ("1_0", [[first, rest[0]], [rest[1]]])]
    assert collect([*children, other], tmp_path, jobs=2) == [] and len(slurm.sent) == 2
    slurm.work()
    ended = {o.run.hash: o.ending for o in collect([*children, other], tmp_path)}
    assert ended == dict.fromkeys([base.hash, other.hash, *(r.hash for r in children)], "finished")
    assert len(slurm.sent) == 2


def test_no_more_jobs_than_asked_for(tiny_run: MakeRun, tmp_path: Path, slurm: Cluster) -> None:
    runs = [tiny_run(Base(), seed=seed) for seed in range(5)]
    for left in (3, 1, 0):
        collect(runs, tmp_path, most=2)
        assert len(slurm.packs) == 2 if left else 1
        slurm.work()
    assert len(results(tmp_path)) == 5 and len(slurm.sent) == 3


def test_a_failure_is_told_once_and_tried_again_by_the_next_command(
    tiny_run: MakeRun, tmp_path: Path, slurm: Cluster
) -> None:
    wild = tiny_run(Base(), schedule=Schedule(3, lr=1e30, batch=16))
    child = tiny_run(ICaRL(), start=wild)
    collect([child], tmp_path)
    slurm.work()
    assert reason(tmp_path / "runs" / wild.hash).startswith("loss not finite")
    assert reason(tmp_path / "runs" / child.hash) == f"not started: run {wild.hash}, which it starts from, failed"
    collect([child], tmp_path)
    assert len(slurm.sent) == 4 and not reason(tmp_path / "runs" / wild.hash)


def test_a_job_that_vanishes_is_a_failure_with_its_last_line(
    tiny_run: MakeRun, tmp_path: Path, slurm: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(Base())

    def killed(seconds: float) -> None:
        slurm.packs.clear()
        (tmp_path / "cluster/1_0_0_log.err").write_text("first\nslurmstepd: error: OUT OF MEMORY\n\n")

    monkeypatch.setattr("time.sleep", killed)
    job = Job(tmp_path, None, "cpu", 1, 1)
    (ended,) = cluster.launch([run], job, set(), Request("slurm", 10), {run.hash: 1})
    assert (ended.ending, ended.problem) == ("failed", "slurmstepd: error: OUT OF MEMORY")


# Inside a job


@pytest.fixture
def _signals() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def told(number: int, run: Run, out: Path, minutes: int = 10) -> tuple[Pack, list[object]]:
    """Run a job that gets a signal after its second epoch. Returns the job, and what it put back into the queue."""
    log, again = out / "runs" / run.hash / "metrics.jsonl", list[object]()
    work = Pack((run,), Job(out, None, "cpu", 1, 1), minutes, grace=60)

    def requeue(*_: object) -> None:
        again.append(work.checkpoint())
        raise SystemExit

    def send() -> None:
        while not log.exists() or len(log.read_text().splitlines()) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)
        if number == signal.SIGTERM:
            work.over.result(60)
            time.sleep(0.2)  # it waits now for what comes after the signal
            os.kill(os.getpid(), signal.SIGUSR2)

    signal.signal(signal.SIGUSR2, requeue)  # as submitit does
    threading.Thread(target=send, daemon=True).start()
    with pytest.raises(SystemExit):
        work()
    return work, again


@pytest.mark.usefixtures("_signals")
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM])
def test_a_job_that_is_told_to_end_saves_and_goes_on_later(number: int, tiny_run: MakeRun, tmp_path: Path) -> None:
    run = tiny_run(Base(), schedule=Schedule(60, lr=0.01, batch=16))
    _, (again,) = told(number, run, tmp_path)
    epochs = len((tmp_path / "runs" / run.hash / "metrics.jsonl").read_text().splitlines())
    assert 2 <= epochs < 60 and (tmp_path / "runs" / run.hash / "epoch.safetensors").exists()
    again.function()  # type: ignore[attr-defined]
    assert launcher.train(run, Job(tmp_path / "alone", None, "cpu", 1, 1)) == ""
    assert results(tmp_path) == results(tmp_path / "alone")


@pytest.mark.usefixtures("_signals")
def test_a_signal_after_all_has_ended_is_no_error(tiny_run: MakeRun, tmp_path: Path) -> None:
    work = Pack((tiny_run(Base(), schedule=Schedule(1, lr=0.01, batch=16)),), Job(tmp_path, None, "cpu", 1, 1), 10, 60)
    work()
    assert work.checkpoint().function.runs == work.runs and len(results(tmp_path)) == 1


@pytest.mark.usefixtures("_signals")
def test_a_job_that_saves_nothing_in_its_time_is_not_requeued(
    tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pack, "_states", lambda work: {})
    run = tiny_run(Base(), schedule=Schedule(60, lr=0.01, batch=16))
    assert told(signal.SIGUSR2, run, tmp_path, minutes=0)[1] == [None]
    assert "give it more by --slurm-time" in reason(tmp_path / "runs" / run.hash)


# submitit's local executor


def test_jobs_on_this_machine(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """submitit's local jobs stand in for Slurm: a base model, iCaRL from it, and `reproduce status`."""
    pytest.importorskip("submitit")
    monkeypatch.chdir(ROOT)
    words = ["--only", "fig3a", "--epochs-scale", "0.1", "--out", str(tmp_path), "--launcher", "local"]
    assert main([*words, "--minutes", "0.001"], "lucir") == 130
    (line,) = (tmp_path / "cluster/jobs.jsonl").read_text().splitlines()
    assert main(words, "lucir") == 0
    assert len(results(tmp_path)) == 2 and (tmp_path / "quick-x0.1/lucir/report.html").exists()
    lines = (tmp_path / "cluster/jobs.jsonl").read_text().splitlines()
    assert lines[0] == line and len({json.loads(each)["job"] for each in lines}) == 2
    capfd.readouterr()
    assert main(["status", "--out", str(tmp_path)]) == 0
    assert capfd.readouterr().out == "2 finished\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--launcher", "cloud"], "unknown launcher 'cloud'"),
        (["--launcher", "slurm", "--slurm-time", "0"], "--slurm-time is in minutes"),
        (["--launcher", "slurm", "--slurm-extra", "account"], "write key=value"),
    ],
)
def test_what_a_cluster_cannot_be_asked(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--only", "fig3a", "--out", str(tmp_path), *words], "lucir") == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1
