"""Interrupted runs end bit for bit where uninterrupted ones do; failures are one line and leave the run resumable."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

from common import incremental, store, tuning
from common.checkpoints import newest
from common.command import launcher
from common.command.launcher import Job, launch, unfinished
from common.errors import InputError
from common.runs import Protocol, Run, Schedule
from common.store import CLOCK, Store, Workspace, read_state
from der.methods import DER
from lucir.methods import LUCIR, Base, ICaRL, Method

MakeRun = Callable[..., Run]
FINETUNE = Schedule(2, lr=0.05, milestones=(1,), batch=8)
METHODS: dict[str, tuple[Method, dict]] = {
    "lucir, everything finetuned": (LUCIR(finetune=FINETUNE, finetune_flag=3), {}),
    "lucir, total budget": (LUCIR(finetune=FINETUNE), {"protocol": Protocol(8, 4, 2, None, 20)}),
    "cn": (LUCIR(old="cosine", margin=None, finetune=None, scale=4.0), {}),
    "icarl": (ICaRL(), {}),
    "icarl, finetuned": (ICaRL(finetune=FINETUNE), {"protocol": Protocol(8, 4, 2, 12)}),
}


class Interrupted(BaseException):
    """Stands for a kill: nothing in the program catches it."""


@pytest.fixture(autouse=True)
def _save_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SAVE_EVERY", 0)


def job(out: Path) -> Job:
    return Job(out, None, "cpu", jobs=1, threads=1)


def kill_after(count: int) -> Callable[[int], None]:
    """A progress callback that interrupts at the count-th epoch: logged, its state not yet saved."""
    left = iter(range(count - 1))

    def progress(images: int) -> None:
        if next(left, None) is None:
            raise Interrupted

    return progress


def outcome(out: Path, run: Run) -> dict[str, Any]:
    """Everything a run leaves that does not depend on the clock."""
    folder = out / "runs" / run.hash
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    state = read_state(folder / "checkpoint.safetensors")
    assert state is not None and not (folder / "epoch.safetensors").exists()
    with np.load(folder / "arrays.npz") as arrays:
        found = {f"arrays/{name}": arrays[name].tobytes() for name in arrays.files}
    return {
        "result": (folder / "result.json").read_text(),
        "metrics": [{k: v for k, v in line.items() if k not in CLOCK} for line in lines],
        **found,
        **{f"tensors/{name}": tensor.numpy().tobytes() for name, tensor in state.tensors.items()},
        "meta": state.meta,
    }


def assert_same(ours: dict[str, Any], expected: dict[str, Any], where: str) -> None:
    assert ours.keys() == expected.keys()
    differing = [name for name in expected if ours[name] != expected[name]]
    assert not differing, f"{where}: {differing}"


@pytest.mark.parametrize("name", METHODS)
def test_interrupted_at_any_epoch(name: str, tiny_run: MakeRun, tmp_path: Path) -> None:
    """From before the first checkpoint to the last epoch of the last finetuning."""
    method, changes = METHODS[name]
    run, epochs = tiny_run(method, **changes), list[int]()
    assert launcher.train(run, job(tmp_path / "whole"), epochs.append) == ""
    expected = outcome(tmp_path / "whole", run)
    assert len(epochs) == (6 if getattr(method, "finetune", None) is None else 10)
    for count in range(1, len(epochs) + 1):
        out = tmp_path / str(count)
        with pytest.raises(Interrupted):
            launcher.train(run, job(out), kill_after(count))
        assert Store(out).load(run.hash) is None
        assert launcher.train(run, job(out)) == ""
        assert_same(outcome(out, run), expected, f"interrupted at epoch {count}")


@pytest.mark.parametrize("name", ["lucir, total budget", "icarl, finetuned", "lucir, started"])
def test_interrupted_at_any_save(name: str, tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right after each checkpoint: at the end of a stage, of a phase, and of the run before its result is written."""
    started = name == "lucir, started"
    method, changes = (LUCIR(finetune=FINETUNE), {}) if started else METHODS[name]
    base = tiny_run(Base("cosine"), protocol=Protocol(4, 4, 0, 0)) if started else None
    run, save, saves = tiny_run(method, start=base, **changes), Workspace._save, list[str]()

    def ready(out: Path) -> Path:
        """The run it starts from is finished, uninterrupted."""
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
            raise Interrupted

    monkeypatch.setattr(Workspace, "_save", counted)
    stop = 0
    assert launcher.train(run, job(ready(tmp_path / "whole"))) == ""
    expected, total = outcome(tmp_path / "whole", run), len(saves)
    assert saves.count("epoch") == (8 if started else 10) and saves.count("checkpoint") == 3
    for stop in range(1, total + 1):
        out = ready(tmp_path / str(stop))
        with pytest.raises(Interrupted):
            launcher.train(run, job(out))
        assert launcher.train(run, job(out)) == ""
        assert_same(outcome(out, run), expected, f"interrupted at save {stop}")


def test_interrupted_again_and_again(tiny_run: MakeRun, tmp_path: Path) -> None:
    """Every attempt gets one epoch further; the start's run is trained the same way."""
    base = tiny_run(Base("cosine"), protocol=Protocol(4, 4, 0, 0))
    run = tiny_run(LUCIR(finetune=FINETUNE), start=base)
    for r in run.chain:
        assert launcher.train(r, job(tmp_path / "whole")) == ""
        attempts = 0
        while not Store(tmp_path / "broken").load(r.hash):
            attempts += 1
            try:
                assert launcher.train(r, job(tmp_path / "broken"), kill_after(2)) == ""
            except Interrupted:
                continue
        assert attempts == (2 if r is base else 8)
        assert_same(outcome(tmp_path / "broken", r), outcome(tmp_path / "whole", r), "in pieces")


def test_checkpoints_far_apart(tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no checkpoint inside a phase, the phase starts again; its epochs are logged once."""
    run = tiny_run(LUCIR(finetune=FINETUNE))
    assert launcher.train(run, job(tmp_path / "whole")) == ""
    monkeypatch.setattr(store, "SAVE_EVERY", 1e9)
    for count in (1, 4, 6, 10):
        with pytest.raises(Interrupted):
            launcher.train(run, job(tmp_path / str(count)), kill_after(count))
        assert launcher.train(run, job(tmp_path / str(count))) == ""
        assert_same(outcome(tmp_path / str(count), run), outcome(tmp_path / "whole", run), str(count))


def test_a_torn_line_and_a_torn_checkpoint_are_left_behind(tiny_run: MakeRun, tmp_path: Path) -> None:
    run = tiny_run(LUCIR(finetune=FINETUNE))
    assert launcher.train(run, job(tmp_path / "whole")) == ""
    with pytest.raises(Interrupted):
        launcher.train(run, job(tmp_path / "torn"), kill_after(5))
    folder = tmp_path / "torn" / "runs" / run.hash
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"phase": 1, "sta')
    (folder / "epoch.part").write_bytes(b"half a checkpoint")
    assert launcher.train(run, job(tmp_path / "torn")) == ""
    assert_same(outcome(tmp_path / "torn", run), outcome(tmp_path / "whole", run), "torn")


# Damage


def stopped(run: Run, out: Path, count: int = 5) -> Path:
    """The folder of a run interrupted at an epoch; at the fifth of `LUCIR` both checkpoints have one before them."""
    with pytest.raises(Interrupted):
        launcher.train(run, job(out), kill_after(count))
    return out / "runs" / run.hash


def flip(path: Path) -> None:
    """One bit of the last tensor."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


FILES = [f"{name}{which}.safetensors" for name in ("epoch", "checkpoint") for which in ("", ".previous")]


@pytest.mark.parametrize("harm", [flip, tear, empty, Path.unlink])
@pytest.mark.parametrize("names", [FILES[:1], FILES[:2], FILES[2:3], FILES[:3], [FILES[0], FILES[2]]], ids=str)
def test_a_damaged_checkpoint_is_left_for_the_one_before(
    names: list[str], harm: Callable[[Path], None], tiny_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """It is named, and the run ends with the bits of one that was never stopped; so it does when stopped again."""
    run = tiny_run(LUCIR(finetune=FINETUNE))
    assert launcher.train(run, job(tmp_path / "whole")) == ""
    folder = stopped(run, tmp_path / "cut", 9)
    assert all((folder / name).exists() for name in FILES)
    for name in names:
        harm(folder / name)
    stopped(run, tmp_path / "cut", 1)
    notes = capsys.readouterr().err
    assert [name in notes for name in FILES] == [name in names and harm is not Path.unlink for name in FILES]
    assert launcher.train(run, job(tmp_path / "cut")) == ""
    assert_same(outcome(tmp_path / "cut", run), outcome(tmp_path / "whole", run), str(names))


def test_how_much_is_trained_again_after_damage(tiny_run: MakeRun, tmp_path: Path) -> None:
    """An epoch more where the one before is whole; from the phase before where the phase's beginning is damaged."""
    run = tiny_run(LUCIR(finetune=FINETUNE))
    for names, left in ((), 2), (FILES[:1], 3), (FILES[:2], 4), (FILES[2:3], 8):
        out = tmp_path / "-".join(names)
        folder = stopped(run, out, 9)  # the eighth epoch, the second of the last phase, is saved
        for name in names:
            flip(folder / name)
        epochs = list[int]()
        assert launcher.train(run, job(out), epochs.append) == ""
        assert len(epochs) == left, names


def test_without_a_whole_checkpoint_the_run_says_so(tiny_run: MakeRun, tmp_path: Path) -> None:
    run = tiny_run(LUCIR(finetune=FINETUNE))
    folder = stopped(run, tmp_path, 9)
    before = {path.name: path.stat().st_size for path in folder.iterdir()}
    for name in FILES:
        flip(folder / name)
    problem = launcher.train(run, job(tmp_path))
    assert all(str(folder / name) in problem for name in FILES[2:]) and f"delete {folder}" in problem
    assert {path.name: path.stat().st_size for path in folder.iterdir()} == before


def test_a_log_shorter_than_the_checkpoint(tiny_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """As a power cut may leave it: the run goes on from where the log ends, or before."""
    run = tiny_run(LUCIR(finetune=FINETUNE))
    assert launcher.train(run, job(tmp_path / "whole")) == ""
    metrics = stopped(run, tmp_path / "cut", 9) / "metrics.jsonl"
    metrics.write_text("".join(line + "\n" for line in metrics.read_text().splitlines()[:7]))
    assert launcher.train(run, job(tmp_path / "cut")) == ""
    assert "epoch.safetensors counts 8 epochs, but the log holds 7" in capsys.readouterr().err
    assert_same(outcome(tmp_path / "cut", run), outcome(tmp_path / "whole", run), "short log")


def test_killed_between_any_two_steps_of_saving(
    tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each file written, synced or moved into place, from the first to the last of a run."""
    run = tiny_run(ICaRL(), protocol=Protocol(8, 4, 4, 3))
    calls, stop = 0, 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == stop:
                raise Interrupted
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
        with pytest.raises(Interrupted):
            launcher.train(run, job(out))
        stop = 0
        assert launcher.train(run, job(out)) == ""
        assert_same(outcome(out, run), expected, f"killed before call {number}")


# What was written before checkpoints had checksums


def as_before(folder: Path) -> None:
    """The folder as the first versions wrote it: whole states, no checksum, nothing before the last."""
    boundary, inside = newest(folder, 10**9)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    for name, saved in (("checkpoint", boundary), ("epoch", inside)):
        if saved:
            meta = {k: v for k, v in saved.meta.items() if k not in ("boundary", "frozen")}
            path = folder / f"{name}.safetensors"
            safetensors.torch.save_file(saved.tensors, path, metadata={"meta": json.dumps(meta)})


@pytest.mark.parametrize("paper", ["lucir", "der"])
@pytest.mark.parametrize("count", [2, 6, 9])
def test_a_run_half_done_in_the_first_layout_goes_on(
    count: int, paper: str, tiny_run: MakeRun, der_run: MakeRun, tmp_path: Path
) -> None:
    if paper == "der":
        run = der_run(DER(finetune=FINETUNE), schedule=Schedule(2, lr=0.05, batch=16))
    else:
        run = tiny_run(LUCIR(finetune=FINETUNE))
    assert launcher.train(run, job(tmp_path / "whole")) == ""
    as_before(stopped(run, tmp_path / "cut", count))
    stopped(run, tmp_path / "cut", 1)  # an epoch in today's layout may build on a boundary in the first
    epochs = list[int]()
    assert launcher.train(run, job(tmp_path / "cut"), epochs.append) == ""
    assert_same(outcome(tmp_path / "cut", run), outcome(tmp_path / "whole", run), "first layout")
    assert len(epochs) == len(outcome(tmp_path / "whole", run)["metrics"]) - count + 1


def test_a_run_starts_from_one_finished_in_the_first_layout(tiny_run: MakeRun, tmp_path: Path) -> None:
    runs = family(tiny_run)
    for out in ("whole", "before"):
        assert launcher.train(runs["cosine"], job(tmp_path / out)) == ""
    as_before(tmp_path / "before" / "runs" / runs["cosine"].hash)
    for out in ("whole", "before"):
        assert launcher.train(runs["ours"], job(tmp_path / out)) == ""
    assert_same(outcome(tmp_path / "before", runs["ours"]), outcome(tmp_path / "whole", runs["ours"]), "start")


def test_a_run_keeps_its_threads(tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    monkeypatch.setattr(tuning, "_measure", lambda *arguments: {"1": 1.0, "2": 2.0, "3": 3.0})
    run = tiny_run(ICaRL())
    with pytest.raises(Interrupted):
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
    """SIGKILL in the middle of the last phase; another process goes on from its checkpoint."""
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


# Failures


def test_busy(tiny_run: MakeRun, tmp_path: Path) -> None:
    run = tiny_run(ICaRL())
    with Store(tmp_path).open(run):
        problem = launcher.train(run, job(tmp_path))
    assert problem == f"run {run.hash} is being worked on by another process"
    assert launcher.train(run, job(tmp_path)) == ""


def test_a_loss_that_is_not_finite(tiny_run: MakeRun, tmp_path: Path) -> None:
    """The rate explodes in the third epoch: one line says where; the second epoch's checkpoint stays."""
    run = tiny_run(ICaRL(), schedule=Schedule(4, lr=0.1, milestones=(2,), gamma=1e30, batch=16))
    problem = launcher.train(run, job(tmp_path))
    assert problem == "loss not finite in stage main, epoch 3, lr 1e+29"
    folder = tmp_path / "runs" / run.hash
    state = read_state(folder / "epoch.safetensors")
    assert state is not None and (state.meta["epoch"], state.meta["lines"]) == (2, 2)
    assert all(torch.isfinite(t).all() for t in state.tensors.values())
    assert not (folder / "result.json").exists()
    assert launcher.train(run, job(tmp_path)) == problem


def test_a_finished_run_is_not_trained_again(
    tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(ICaRL())
    assert launcher.train(run, job(tmp_path)) == ""
    before = outcome(tmp_path, run)
    monkeypatch.setattr(incremental, "run", lambda *args: pytest.fail("trained again"))
    assert launcher.train(run, job(tmp_path)) == ""
    assert_same(outcome(tmp_path, run), before, "again")


def test_two_threads_begin_in_one_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have written their part before either moves it into place."""
    both, write_text = threading.Barrier(2, timeout=60), Path.write_text

    def write_and_wait(path: Path, *args: Any, **kwargs: Any) -> int:
        written = write_text(path, *args, **kwargs)
        both.wait()
        return written

    monkeypatch.setattr(Path, "write_text", write_and_wait)
    with ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(Store, [tmp_path, tmp_path]))) == 2
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["FORMAT"]


def test_results_of_another_format(tiny_run: MakeRun, tmp_path: Path) -> None:
    run = tiny_run(ICaRL())
    assert launcher.train(run, job(tmp_path)) == ""
    (tmp_path / "runs" / "FORMAT").write_text("0\n")
    with pytest.raises(InputError, match="written by another version"):
        Store(tmp_path)
    assert "written by another version" in launcher.train(run, job(tmp_path))


def test_images_that_changed_since(tiny_run: MakeRun, tmp_path: Path) -> None:
    run = tiny_run(ICaRL()).resolved("another", "fp32")
    assert launcher.train(run, job(tmp_path)) == (
        "the noise images changed while runs were under way; start the command again"
    )


FULL = OSError(errno.ENOSPC, "No space left on device")
# What safetensors raises in place of the OSError, as seen on a full tmpfs.
FULL_CHECKPOINT = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("target", "error", "after"),
    [
        pytest.param("safetensors.torch.save_file", FULL_CHECKPOINT, 0, id="first checkpoint"),
        pytest.param("safetensors.torch.save_file", FULL_CHECKPOINT, 3, id="fourth checkpoint"),
        pytest.param("common.store.write_atomic", FULL, 1, id="config.json"),
        pytest.param("common.store.write_atomic", FULL, 3, id="result.json"),
        pytest.param("numpy.savez_compressed", FULL, 0, id="arrays.npz"),
        pytest.param("os.fsync", FULL, 1, id="second sync"),
        pytest.param("os.fsync", FULL, 9, id="tenth sync"),
    ],
)
def test_disk_full(
    target: str, error: Exception, after: int, tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out, calls = tiny_run(LUCIR(finetune=FINETUNE)), tmp_path / "full", []
    assert launcher.train(run, job(tmp_path / "whole")) == ""
    with monkeypatch.context() as patch:
        module, name = target.rsplit(".", 1)
        write = getattr(sys.modules[module], name)

        def full(*args: Any, **options: Any) -> Any:
            calls.append(args)
            if len(calls) > after:
                raise error
            return write(*args, **options)

        patch.setattr(target, full)
        problem = launcher.train(run, job(out))
    assert problem == f"disk full while writing {out}; free some space and run the same command, it goes on"
    assert launcher.train(run, job(out)) == ""
    assert_same(outcome(out, run), outcome(tmp_path / "whole", run), "after a full disk")


def test_a_bug_is_one_line_and_a_traceback(
    tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def broken(*args: object) -> None:
        raise KeyError("weight")

    monkeypatch.setattr(incremental, "run", broken)
    assert launcher.train(tiny_run(ICaRL()), job(tmp_path)) == "KeyError: 'weight'"
    assert "Traceback" in capsys.readouterr().err


# Several runs


def family(tiny_run: MakeRun) -> dict[str, Run]:
    """Two base models, and two runs that start from each."""
    protocol = Protocol(4, 4, 0, 0)
    cosine, linear = (tiny_run(Base(head), protocol=protocol) for head in ("cosine", "linear"))  # type: ignore[arg-type]
    return {
        "cosine": cosine,
        "linear": linear,
        "ours": tiny_run(LUCIR(finetune=None), start=cosine),
        "cn": tiny_run(LUCIR(finetune=None, old="cosine", margin=None), start=cosine),
        "icarl": tiny_run(ICaRL(), start=linear),
    }


def test_unfinished_puts_starts_first_and_each_run_once(tiny_run: MakeRun) -> None:
    runs = family(tiny_run)
    wanted = [runs["ours"], runs["icarl"], runs["cn"], runs["cosine"]]
    names = {run.hash: name for name, run in runs.items()}
    assert [names[r.hash] for r in unfinished(wanted, set())] == ["cosine", "ours", "linear", "icarl", "cn"]
    done = {runs["cosine"].hash, runs["cn"].hash}
    assert [names[r.hash] for r in unfinished(wanted, done)] == ["ours", "linear", "icarl"]
    assert unfinished([runs["ours"]], {runs["ours"].hash}) == []  # a finished run needs its start no more


def test_a_failed_run_blocks_its_children_only(
    tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = family(tiny_run)
    names, trained = {run.hash: name for name, run in runs.items()}, []
    real = incremental.run

    def sometimes(spec: Run, *args: Any) -> dict:
        trained.append(names[spec.hash])
        if names[spec.hash] == "cosine":
            raise OSError(errno.EIO, "Input/output error")
        return real(spec, *args)

    monkeypatch.setattr(incremental, "run", sometimes)
    ended = {names[o.run.hash]: o.problem for o in launch(runs.values(), job(tmp_path), set())}
    blocked = f"not started: run {runs['cosine'].hash}, which it starts from, failed"
    assert ended == {
        "cosine": "OSError: [Errno 5] Input/output error",
        "ours": blocked,
        "cn": blocked,
        "linear": "",
        "icarl": "",
    }
    assert trained == ["cosine", "linear", "icarl"]

    monkeypatch.setattr(incremental, "run", real)
    finished = {run.hash for run in runs.values() if Store(tmp_path).load(run.hash)}
    again = {names[o.run.hash]: o.problem for o in launch(runs.values(), job(tmp_path), finished)}
    assert again == {"cosine": "", "ours": "", "cn": ""}


def test_the_state_a_run_starts_from_is_gone(tiny_run: MakeRun, tmp_path: Path) -> None:
    runs = family(tiny_run)
    for problem in [o.problem for o in launch([runs["cosine"]], job(tmp_path), set())]:
        assert problem == ""
    path = tmp_path / "runs" / runs["cosine"].hash / "checkpoint.safetensors"
    flip(path)
    problem = launcher.train(runs["ours"], job(tmp_path))
    assert "final state" in problem and f"{path} is damaged (tensor " in problem and str(path.parent) in problem
    path.unlink()
    assert f"{path} is gone; delete {path.parent} to train it again" in launcher.train(runs["ours"], job(tmp_path))
