"""Tests damaged, torn and old checkpoints: a run goes on from an undamaged one, or says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
from killed import Killed, assert_same, job, kill_after, outcome, stopped

from common import store
from common.checkpoints import newest
from common.command import launcher
from common.runs import Protocol, Run, Schedule
from der.methods import DER
from lucir.methods import LUCIR, Base

MakeRun = Callable[..., Run]
FINETUNE = Schedule(2, lr=0.05, milestones=(1,), batch=8)


@pytest.fixture(autouse=True)
def _save_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SAVE_EVERY", 0)


def flip(path: Path) -> None:
    """Flip one bit of the file's last tensor."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


FILES = [f"{name}{which}.safetensors" for name in ("epoch", "checkpoint") for which in ("", ".previous")]


def test_a_torn_line_and_a_torn_checkpoint_are_left_behind(tiny_run: MakeRun, tmp_path: Path) -> None:
    run = tiny_run(LUCIR(finetune=FINETUNE))
    assert launcher.train(run, job(tmp_path / "whole")) == ""
    with pytest.raises(Killed):
        launcher.train(run, job(tmp_path / "torn"), kill_after(5))
    folder = tmp_path / "torn" / "runs" / run.hash
    with open(folder / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"phase": 1, "sta')
    (folder / "epoch.part").write_bytes(b"half a checkpoint")
    assert launcher.train(run, job(tmp_path / "torn")) == ""
    assert_same(outcome(tmp_path / "torn", run), outcome(tmp_path / "whole", run), "torn")


@pytest.mark.parametrize("harm", [flip, tear, empty, Path.unlink])
@pytest.mark.parametrize("names", [FILES[:1], FILES[:2], FILES[2:3], FILES[:3], [FILES[0], FILES[2]]], ids=str)
def test_a_damaged_checkpoint_is_left_for_the_one_before(
    names: list[str], harm: Callable[[Path], None], tiny_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The damaged file is named, and the run ends with the bits of an undisturbed one, even if stopped again."""
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
    """A damaged newest state costs one epoch, and both states cost the phase.

    A damaged boundary also costs the phase before.
    """
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
    """A power cut may leave such a log. The run goes on from where the log ends, or from before."""
    run = tiny_run(LUCIR(finetune=FINETUNE))
    assert launcher.train(run, job(tmp_path / "whole")) == ""
    metrics = stopped(run, tmp_path / "cut", 9) / "metrics.jsonl"
    metrics.write_text("".join(line + "\n" for line in metrics.read_text().splitlines()[:7]))
    assert launcher.train(run, job(tmp_path / "cut")) == ""
    assert "epoch.safetensors counts 8 epochs, but the log holds 7" in capsys.readouterr().err
    assert_same(outcome(tmp_path / "cut", run), outcome(tmp_path / "whole", run), "short log")


def test_the_state_a_run_starts_from_is_gone(tiny_run: MakeRun, tmp_path: Path) -> None:
    base = tiny_run(Base("cosine"), protocol=Protocol(4, 4, 0, 0))
    run = tiny_run(LUCIR(finetune=None), start=base)
    assert launcher.train(base, job(tmp_path)) == ""
    path = tmp_path / "runs" / base.hash / "checkpoint.safetensors"
    flip(path)
    problem = launcher.train(run, job(tmp_path))
    assert "final state" in problem and f"{path} is damaged (tensor " in problem and str(path.parent) in problem
    path.unlink()
    assert f"{path} is gone; delete {path.parent} to train it again" in launcher.train(run, job(tmp_path))


# What was written before checkpoints had checksums


def as_before(folder: Path) -> None:
    """Rewrite the folder as the first versions wrote it: whole states, no checksums, and no previous checkpoints."""
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
    base = tiny_run(Base("cosine"), protocol=Protocol(4, 4, 0, 0))
    run = tiny_run(LUCIR(finetune=None), start=base)
    for out in ("whole", "before"):
        assert launcher.train(base, job(tmp_path / out)) == ""
    as_before(tmp_path / "before" / "runs" / base.hash)
    for out in ("whole", "before"):
        assert launcher.train(run, job(tmp_path / out)) == ""
    assert_same(outcome(tmp_path / "before", run), outcome(tmp_path / "whole", run), "start")
