"""Tests that failures are one line and leave the run resumable, and that other runs go on."""

from __future__ import annotations

import errno
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from killed import assert_same, job, outcome
from safetensors import SafetensorError

from common import incremental, store
from common.command import launcher
from common.command.launcher import launch, unfinished
from common.errors import InputError
from common.runs import Protocol, Run, Schedule
from common.store import Store, read_state
from lucir.methods import LUCIR, Base, ICaRL

MakeRun = Callable[..., Run]
FINETUNE = Schedule(2, lr=0.05, milestones=(1,), batch=8)


@pytest.fixture(autouse=True)
def _save_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SAVE_EVERY", 0)


def test_busy(tiny_run: MakeRun, tmp_path: Path) -> None:
    run = tiny_run(ICaRL())
    with Store(tmp_path).open(run):
        problem = launcher.train(run, job(tmp_path))
    assert problem == f"run {run.hash} is being worked on by another process"
    assert launcher.train(run, job(tmp_path)) == ""


@pytest.mark.parametrize("missing", ["fingerprint", "precision"])
def test_a_run_that_is_not_resolved_is_told_what_to_call(missing: str, tiny_run: MakeRun, tmp_path: Path) -> None:
    problem = launcher.train(tiny_run(ICaRL(), **{missing: ""}), job(tmp_path))
    assert "not resolved" in problem and "run.resolved(fingerprint, precision)" in problem
    changed = launcher.train(tiny_run(ICaRL(), fingerprint="another"), job(tmp_path))
    assert "images changed while runs were under way" in changed
    assert not list(tmp_path.glob("runs/*/metrics.jsonl"))


def test_a_loss_that_is_not_finite(tiny_run: MakeRun, tmp_path: Path) -> None:
    """The rate explodes in the third epoch. One line says where, and the second epoch's checkpoint stays."""
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
    """Both threads have written their part before either moves it into place."""
    both, write_text = threading.Barrier(2, timeout=60), Path.write_text

    def write_and_wait(path: Path, *args: Any, **kwargs: Any) -> int:
        written = write_text(path, *args, **kwargs)
        both.wait()
        return written

    monkeypatch.setattr(Path, "write_text", write_and_wait)
    with ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(Store.prepare, [Store(tmp_path), Store(tmp_path)]))) == 2
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
    """Return two base models, and two runs that start from each."""
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
