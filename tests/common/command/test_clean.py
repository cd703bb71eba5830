"""Tests `reproduce clean`: what it removes and prints, what it leaves alone, and that the rest can still be used."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from tiny import TinyMaps

from common import resnet
from common.checkpoints import read_state
from common.command import cli
from common.command.launcher import Job, launch
from common.imbalance import Rebalance
from common.runs import Run, Schedule
from common.store import Store
from fsa.methods import FSA, Views

MakeRun = Callable[..., Run]
WORKING = ["epoch.safetensors", "epoch.previous.safetensors", "checkpoint.previous.safetensors", "epoch.part"]


@pytest.fixture
def runs(tail_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> dict[str, Run]:
    """Return Phase I, its cached views, and two runs of Phase II that sample from the views."""
    monkeypatch.setitem(resnet.BACKBONES, "tiny", TinyMaps)
    monkeypatch.setattr(FSA, "steps", 2)
    phase1 = replace(tail_run(Rebalance(), schedule=Schedule(2, lr=0.05, batch=8)), paper="fsa")
    views = replace(phase1, method=Views(2), start=phase1, schedule=Schedule(0))
    method, schedule = FSA(tail=2, donors=3), Schedule(2, lr=0.05, batch=16, weight_decay=0.0)
    first, second = (replace(phase1, method=method, start=views, schedule=schedule, seed=s) for s in (1, 2))
    return {"phase1": phase1, "views": views, "first": first, "second": second}


def train(out: Path, *wanted: Run) -> dict[str, str]:
    """Train the runs that are not finished, with their starts. Returns problems by hash."""
    finished = {r.hash for run in wanted for r in run.chain if Store(out).load(r.hash)}
    return {outcome.run.hash: outcome.problem for outcome in launch(wanted, Job(out, None, "cpu", 1, 1), finished)}


def clean(out: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """Return the lines that the command prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(["clean", "--out", str(out), *words])
    printed = capsys.readouterr()
    assert ended.value.code == 0, printed.err
    return printed.out.splitlines()


def files(out: Path) -> dict[str, int]:
    return {str(p.relative_to(out)): p.stat().st_size for p in out.rglob("*") if p.is_file() and p.name != "lock"}


def test_leftovers_of_finished_and_of_interrupted_runs(
    runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interrupted run keeps its checkpoints and goes on. A finished run keeps what other runs may start from."""
    assert set(train(tmp_path, runs["phase1"]).values()) == {""}
    before = files(tmp_path)
    finished, begun = (tmp_path / "runs" / runs[name].hash for name in ("phase1", "views"))
    with Store(tmp_path).open(runs["views"]):
        pass
    for folder in (finished, begun):
        for name in WORKING:
            (folder / name).write_bytes(b"12345678" * 1000)
    unneeded, full = [begun / "epoch.part", *(finished / name for name in WORKING)], files(tmp_path)
    *dry, total = clean(tmp_path, capsys, "--dry-run")
    assert sorted(dry) == sorted(f"{path}  8 kB" for path in unneeded) and total == "40 kB would be freed"
    assert files(tmp_path) == full
    assert clean(tmp_path, capsys) == [*dry, "40 kB freed"]
    assert full.keys() - files(tmp_path).keys() == {str(path.relative_to(tmp_path)) for path in unneeded}
    assert before.items() <= files(tmp_path).items()
    assert clean(tmp_path, capsys) == ["0 B freed"]


def test_a_cache_goes_when_all_that_draws_from_it_is_finished_and_comes_back(
    runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(train(tmp_path, runs["views"]).values()) == {""}
    assert clean(tmp_path, capsys) == ["0 B freed"]  # nothing has drawn from it yet
    assert train(tmp_path, runs["first"]) == {runs["first"].hash: ""}
    cache, before = Store(tmp_path).folder(runs["views"]), files(tmp_path)
    with Store(tmp_path).open(runs["second"]):
        assert "every state is left alone" in clean(tmp_path, capsys)[0]
    assert clean(tmp_path, capsys) == ["0 B freed"]  # an unfinished run draws from it
    assert train(tmp_path, runs["second"]) == {runs["second"].hash: ""}
    (dry, total), second = clean(tmp_path, capsys, "--dry-run"), files(tmp_path)
    assert dry.startswith(f"{cache}  ") and total.endswith(" would be freed") and before.items() <= second.items()
    assert clean(tmp_path, capsys) == [dry, total.replace("would be freed", "freed")]
    assert not cache.exists()
    assert files(tmp_path) == {k: v for k, v in second.items() if runs["views"].hash not in k}
    assert train(tmp_path, runs["first"], runs["second"]) == {}  # finished runs need it no more
    third = replace(runs["first"], seed=3)
    assert train(tmp_path, third) == {runs["views"].hash: "", third.hash: ""}
    again = read_state(cache / "checkpoint.safetensors")
    assert again and "net/maps" in again.tensors


def test_network_weights_go_only_if_asked_for(
    runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --states, results stay and nothing is trained again. A new run says which folder to delete."""
    assert set(train(tmp_path, runs["first"], runs["second"]).values()) == {""}
    with Store(tmp_path).open(replace(runs["first"], seed=3)):
        pass
    lines = clean(tmp_path, capsys, "--states")
    first, second = (Store(tmp_path).folder(runs[name]) for name in ("first", "second"))
    assert {line.split("  ")[0] for line in lines[:-1]} == {str(f / "checkpoint.safetensors") for f in (first, second)}
    unfinished = replace(runs["first"], seed=3)
    assert train(tmp_path, unfinished) == {unfinished.hash: ""}  # what it starts from was left
    clean(tmp_path, capsys, "--states")
    assert not list(tmp_path.rglob("*.safetensors")) and not Store(tmp_path).folder(runs["views"]).exists()
    assert train(tmp_path, runs["first"], runs["second"], unfinished) == {}
    problems = train(tmp_path, replace(runs["first"], seed=4))
    folder = Store(tmp_path).folder(runs["phase1"])
    assert f"is gone; delete {folder} to train it again" in problems[runs["views"].hash]
    assert (folder / "result.json").exists()


def test_a_cache_stays_where_it_could_not_be_computed_again(
    runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(train(tmp_path, runs["first"]).values()) == {""}
    (Store(tmp_path).folder(runs["phase1"]) / "checkpoint.safetensors").unlink()
    assert clean(tmp_path, capsys) == ["0 B freed"]


def test_a_run_at_work_is_left_alone(runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its half-written file stays. All states stay too, since the next run of that process may need any of them."""
    assert set(train(tmp_path, runs["first"]).values()) == {""}
    folder = Store(tmp_path).folder(runs["first"])
    (folder / "epoch.part").write_bytes(b"1")
    with FileLock(folder / "lock"):
        before = files(tmp_path)
        for word, total in (("--dry-run", "0 B would be freed"), ("--no-dry-run", "0 B freed")):
            note, *lines = clean(tmp_path, capsys, "--states", word)
            assert runs["first"].hash in note and lines == [total] and files(tmp_path) == before
    assert len(clean(tmp_path, capsys)) == 3  # the part and the cache


def test_a_warm_up_that_was_killed_goes_and_one_under_way_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("warm-up-killed", "warm-up-working"):
        (tmp_path / name / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs").mkdir()
    with FileLock(tmp_path / "warm-up-working/runs/a/lock"):
        clean(tmp_path, capsys, "--dry-run")
        assert (tmp_path / "warm-up-killed").exists()
        clean(tmp_path, capsys)
        assert [p.name for p in tmp_path.glob("warm-up-*")] == ["warm-up-working"]


def test_bad_folders_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out" / "runs" / "0123").mkdir(parents=True)
    (tmp_path / "out" / "runs" / "0123" / "config.json").write_text("{")
    for out, message in (("none", "holds no runs"), ("out", r"0123/config.json cannot be read .*; delete .*0123$")):
        with pytest.raises(SystemExit) as ended:
            cli.main(["clean", "--out", str(tmp_path / out)])
        (line,) = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2 and re.search(message, line)
    assert not (tmp_path / "none").exists()
