"""Tests the queue and its time budget: the order of runs, what is cut off and goes on, and the rehearsal of a GPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from adaptation import adapt, finish, stage1_runs
from commands import main, results

from common import incremental
from common.checkpoints import read_state
from common.command import launcher, queue
from common.command.launcher import Job, launch
from common.command.parts import Part
from common.command.plan import PAPERS
from common.command.waiting import Outcome, Waiting
from common.errors import NotCaptured
from common.runs import IMAGENET_INPUTS, Protocol, Run, Schedule
from common.store import Store
from common.training import Device
from lucir.methods import LUCIR, Base, ICaRL

MakeRun = Callable[..., Run]
ROOT = Path(__file__).resolve().parents[3]
FINETUNE = Schedule(2, lr=0.05, milestones=(1,), batch=8)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


# The rehearsal


def test_fifteen_minutes_of_a_gpu_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two papers share a queue that the clock cuts off. States move to a fresh folder, and records come back.

    As on such a machine there is neither `.git` nor tyro. The results equal those of the two commands alone, bit for
    bit.
    """
    lines = ["lucir --only fig3a --epochs-scale 0.1", "bbn --only fig4 --epochs-scale 0.1"]
    monkeypatch.setattr("common.command.parts.cores", lambda: 1)  # one thread a run, as below
    for line in lines:
        paper, *words = line.split()
        where = ["--precision", "fp32", "--jobs", "1", "--device", "cpu", "--out", str(tmp_path / "alone")]
        assert main([*words, *where], paper) == 0
    expected = results(tmp_path / "alone")
    assert len(expected) == 6

    (tmp_path / "queue.txt").write_text("# in order of value\n" + "\n".join(lines) + "\n")
    for package in ("common", *PAPERS):
        shutil.copytree(ROOT / package, tmp_path / "copy" / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "copy" / "tyro.py").write_text("raise ImportError('not installed here')\n")

    def there(out: str, minutes: str) -> subprocess.CompletedProcess[str]:
        words = ["--precision", "fp32", "--jobs", "2", "--device", "cpu", "--out", str(tmp_path / out)]
        words += ["--minutes", minutes, "--record", str(tmp_path / "records")]
        return subprocess.run(
            [sys.executable, "-m", "common.command.queue", str(tmp_path / "queue.txt"), *words],
            cwd=tmp_path / "copy",
            env=os.environ | {"REPRO_COMMIT": COMMIT, "PYTHONPATH": str(tmp_path / "copy")},
            preexec_fn=one_core if hasattr(os, "sched_setaffinity") else None,
            capture_output=True,
            text=True,
            timeout=200,
        )

    for out in ("first", "second"):  # the images are prepared beforehand
        (tmp_path / out).mkdir()
        (tmp_path / out / "cache").symlink_to(tmp_path / "alone/cache")
    first = there("first", "0.0001")
    assert first.returncode == 130 and "the same command goes on" in first.stderr, first.stderr
    assert not results(tmp_path / "first") and len(list(tmp_path.glob("first/runs/*/epoch.safetensors"))) == 1
    (tmp_path / "first/runs").rename(tmp_path / "second/runs")
    second = there("second", "60")
    assert second.returncode == 0, second.stderr
    assert results(tmp_path / "second") == expected
    records = {p.stem: json.loads(p.read_text()) for p in tmp_path.glob("records/*/*.json")}
    assert records.keys() == expected.keys()
    for digest, record in records.items():
        assert record["phases"] == expected[digest]["phases"]
        assert (record["environment"]["commit"], record["environment"]["dirty"]) == (COMMIT, False)
    assert {p.parent.name for p in tmp_path.glob("second/quick-x0.1/*/report.html")} == {"lucir", "bbn"}


def one_core() -> None:
    """Pretend that there is a single core: every run has one thread, and no measurement decides the last bits."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:1]))


# The time budget


@pytest.fixture
def pair(tiny_run: MakeRun) -> list[Run]:
    """Return a run with finetuning over two phases, and a run that starts from a base model."""
    base = tiny_run(Base(), protocol=Protocol(4, 4, 0, 0))
    return [tiny_run(LUCIR(finetune=FINETUNE)), tiny_run(ICaRL(), start=base)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_command_gets_an_epoch_further_whatever_its_budget(
    jobs: int, pair: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first run is started. Its epoch is saved, although the last save was a moment ago."""
    monkeypatch.setattr(launcher, "Processes", lambda attempt, jobs, prepare: launcher.Threads(attempt, jobs))
    assert [o.ending for o in launch(pair, Job(tmp_path / "whole", None, "cpu", 1, 1), set())] == ["finished"] * 3
    late, images = Job(tmp_path / "late", None, "cpu", jobs, 1, deadline=1.0), list[int]()
    endings, store = list[list[str]](), Store(late.out)
    while not endings or "out of time" in endings[-1] or len(results(late.out)) < 3:
        finished, before = set(results(late.out)), len(images)
        endings.append([o.ending for o in launch(pair, late, finished, images.append)])
        assert len(images) == before + 1 or endings[-1] == ["finished"]  # one epoch, or the end of a run
        assert len(endings) < 40
    assert results(late.out) == results(tmp_path / "whole")
    assert all(len(each) == 1 for each in endings)  # one run a command
    assert len(images) == sum(len(r["trace"]["epoch"]) for r in results(late.out).values())  # no epoch twice
    assert not [r for r in pair if store.load(r.hash) is None]


def test_a_command_gets_further_from_a_finished_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished base model must not count as progress, or the command would never end. Missing records are written."""
    monkeypatch.setattr("common.command.parts.cores", lambda: 1)
    words = ["--only", "fig3a", "--epochs-scale", "0.25", "--device", "cpu", "--jobs", "1", "--out", str(tmp_path)]
    steps, code = [0], 130
    while code == 130:
        code = main([*words, "--minutes", "0.0001"], "lucir")
        epochs = sum(len(p.read_text().splitlines()) for p in tmp_path.glob("runs/*/metrics.jsonl"))
        steps.append(epochs + len(results(tmp_path)))
        assert steps[-1] > steps[-2], steps
    assert code == 0 and len(steps) == 7  # from 0: for each of two runs, two epochs and the end
    assert main([*words, "--record", str(tmp_path / "records")], "lucir") == 0
    child = next(digest for digest, r in results(tmp_path).items() if len(r["phases"]) > 1)
    assert [p.stem for p in tmp_path.glob("records/lucir/*.json")] == [child]


def test_runs_side_by_side_share_the_cores(pair: list[Run], tiny_run: MakeRun) -> None:
    """A run that may use all cores runs alone. Runs with one thread run side by side."""
    whole, first, second = tiny_run(Base(), seed=1), tiny_run(Base(), seed=2), tiny_run(Base(), seed=3)
    waiting = Waiting([first, whole, second], {whole.hash: 2}, most=2)
    assert list(waiting.ready([], 8)) == [first, second]
    assert list(waiting.ready([first], 8)) == []
    assert list(waiting.ready([], 8)) == [whole]


def test_large_images_get_one_run_at_a_time_on_a_gpu(tiny_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.tuning.choose_jobs", lambda device: 6)
    small = tiny_run(Base())
    large = replace(small, inputs=IMAGENET_INPUTS)
    gpu = Device("cuda", "bf16")
    assert [queue._jobs(gpu, runs) for runs in ([small] * 3, [small, large], [small])] == [6, 1, 1]


def test_what_is_under_way_at_the_deadline_is_saved(
    tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs side by side stop after their epoch. The third is not started, and no run counts as failed."""
    monkeypatch.setattr(launcher, "Processes", lambda attempt, jobs, prepare: launcher.Threads(attempt, jobs))
    monkeypatch.setattr("common.store.SAVE_EVERY", 1e9)
    now = [0.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    runs = [tiny_run(Base(), seed=seed, schedule=Schedule(2000, lr=0.1, batch=16)) for seed in range(3)]

    def progress(images: int) -> None:
        now[0] = 100.0

    ended = {o.run.hash: o.ending for o in launch(runs, Job(tmp_path, None, "cpu", 2, 1, 50.0), set(), progress)}
    assert ended == {run.hash: "out of time" for run in runs[:2]}
    for run in runs[:2]:
        state = read_state(tmp_path / "runs" / run.hash / "epoch.safetensors")
        lines = (tmp_path / "runs" / run.hash / "metrics.jsonl").read_text().splitlines()
        assert state and state.meta["epoch"] == len(lines) < 2000


def test_a_run_that_fails_again_and_again_does_not_use_up_the_budget(tiny_run: MakeRun, tmp_path: Path) -> None:
    wild, sound = tiny_run(Base(), schedule=Schedule(3, lr=1e30, batch=16)), tiny_run(Base())
    ended = [o.ending for o in launch([wild, sound], Job(tmp_path, None, "cpu", 1, 1, deadline=1.0), set())]
    assert ended == ["failed", "out of time"]


def test_phases_without_epochs_stop_between_two(tiny_run: MakeRun, tmp_path: Path) -> None:
    """Feature adaptation trains its maps in loops of its own. A command finishes a phase and begins no other."""
    run = adapt(stage1_runs(tiny_run)())
    whole, start = finish(run, tmp_path / "whole"), finish(run.start, tmp_path)  # type: ignore[arg-type]
    late, lines = Job(tmp_path, None, "cpu", 1, 1, deadline=1.0), list[int]()
    while (ended := launcher.attempt(run, late).ending) == "out of time":
        lines.append(len((tmp_path / "runs" / run.hash / "metrics.jsonl").read_text().splitlines()))
    found = Store(tmp_path).load(run.hash)
    assert start and ended == "finished" and found and found.values == whole.values
    assert lines == sorted(set(lines)) and len(lines) == len(run.protocol.sizes) - 1


# Steps that cannot be captured


def test_what_cannot_be_captured_is_trained_at_the_end(
    pair: list[Run], tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its steps are called from Python, and its environment says why. Runs that start from it wait."""
    eager, real, (ours, child) = list[bool](), incremental.run, pair
    base, other = child.start, tiny_run(Base(), seed=5)
    assert base

    @contextmanager
    def eagerly() -> Iterator[None]:
        eager.append(True)
        yield
        eager.clear()

    def sometimes(spec: Run, *rest: Any) -> dict:
        if spec.hash == base.hash and not eager:
            raise NotCaptured("the training step cannot be captured: why")
        return real(spec, *rest)

    monkeypatch.setattr("common.graphs.eagerly", eagerly)
    monkeypatch.setattr(incremental, "run", sometimes)
    ended = [(o.run.hash, o.ending) for o in launch([child, ours, other], Job(tmp_path, None, "cpu", 1, 1), set())]
    finished = [(run.hash, "finished") for run in (ours, other, base, child)]
    assert ended == [(base.hash, "not captured"), *finished]
    environments = {run.hash: Store(tmp_path).load(run.hash).environment for run in (ours, other, base, child)}  # type: ignore[union-attr]
    assert environments[base.hash]["eager"] == "the training step cannot be captured: why"
    assert not any("eager" in environments[run.hash] for run in (ours, other, child))


# The file


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lucir --jobs 3", "--jobs belongs to the queue command"),
        ("lucir --out=elsewhere", "--out belongs to the queue command"),
        ("lucir --only fig99", "unknown figure 'fig99'"),
        ("all --only nothing", "unknown figure 'nothing'"),
        ("lucir --seeds -1", "--seeds must be 0 or more"),
        ("lucir --sed 1", "--sed"),
        ("lucir --help", "--help has no place in a queue"),
        ("nobody --only fig3", "unknown command 'nobody'"),
        ("lucir --only 'fig3", "No closing quotation"),
    ],
)
def test_a_wrong_line_is_named_before_any_training(
    line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "queue.txt"
    file.write_text(f"# first\nlucir --only fig3a --epochs-scale 0.1\n{line}  # here\n")
    assert main(["queue", str(file), "--out", str(tmp_path)]) == 2
    errors = capsys.readouterr().err
    assert f"{file}, line 3: " in errors and message in errors and errors.count("\n") == 1
    assert not list(tmp_path.glob("runs/*/metrics.jsonl"))


@pytest.mark.parametrize(("words", "message"), [
    ([], "queue begins with a file"), (["--minutes", "1", "one.txt"], "queue begins with a file"),
    (["nowhere.txt"], "nowhere.txt cannot be read"), (["empty.txt"], "has no line"),
    (["one.txt", "--minutes", "0"], "--minutes must be more than 0"), (["one.txt", "--minutes", "nan"], "--minutes"),
    (["one.txt", "--preset", "cifar"], "--preset"),
])  # fmt: skip
def test_a_wrong_queue_is_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    (tmp_path / "one.txt").write_text("lucir --only fig3a\n")
    assert main(["queue", *words]) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_lines_share_a_queue_and_figures_wait_for_a_gpu(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs follow the file's order, each once, with the threads of its own line.

    On a CPU, figures are drawn in between.
    """
    events, asked = list[str](), dict[str, Any]()

    def fake(runs: Any, job: Job, finished: set[str], advance: Any, threads: dict[str, int]) -> Iterator[Outcome]:
        asked.update(runs=list(runs), jobs=job.jobs, threads=[threads[r.hash] for r in runs])
        for run in asked["runs"]:
            events.append(f"{run.paper} ends")
            yield Outcome(run, "for a reason", "failed")

    draw = Part.draw
    monkeypatch.setattr(Part, "draw", lambda part: (events.append(f"{part.plan.paper} is drawn"), draw(part)))
    monkeypatch.setattr(queue, "launch", fake)
    monkeypatch.setattr(queue, "cores", lambda: 2)
    monkeypatch.setattr("common.command.parts.cores", lambda: 2)
    monkeypatch.setattr("common.training.choose_device", lambda *words: Device(device, "fp32"))
    file = tmp_path / "queue.txt"
    file.write_text("feature_adaptation --only stage1\nlucir --only fig3a\nlucir --only fig3 --epochs-scale 1\n")
    assert main(["queue", str(file), "--jobs", "8", "--out", str(tmp_path)]) == 1
    papers = [run.paper for run in asked["runs"]]
    assert papers == ["feature_adaptation", "lucir", "lucir"] and asked["jobs"] == 3
    assert asked["threads"] == [2, 2, 2]  # apart from starts, each line needs a single run
    if device == "cuda":
        lines = ("feature_adaptation", "lucir", "lucir")
        assert events == [f"{paper} ends" for paper in papers] + [f"{paper} is drawn" for paper in lines]
    else:
        assert events[:2] == ["feature_adaptation ends", "feature_adaptation is drawn"] and len(events) > 6
    assert capsys.readouterr().err.count("failed: ") == 3
