"""Tests methods from outside: their runs record their source, and are named if the source has changed since."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from killed import job, stopped
from outside import FILE, method

from common import store
from common.command import launcher
from common.command.changed import look_for_changes
from common.command.environment import code_of
from common.errors import InputError
from common.incremental import learner_of
from common.runs import Protocol, Run
from common.store import Store
from lucir.methods import Base

MakeRun = Callable[..., Run]
ONE_BASE = Protocol(4, 4, 0, exemplars_per_class=0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine" / "mine.py"
    path.parent.mkdir()
    path.write_text(FILE, encoding="utf-8")
    return path


def test_what_another_source_has_trained_is_named_and_trained_anew_on_request(
    file: Path, tiny_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """This concerns a finished run and a run that starts from it, but no run of another method."""
    base = tiny_run(method(file), protocol=ONE_BASE)
    after, other = tiny_run(Base(), start=base), tiny_run(Base())
    for run in (base, after, other):
        assert launcher.train(run, job(tmp_path)) == ""
    written = Store(tmp_path)
    found = written.load(base.hash)
    assert found and found.environment["source"] == code_of(learner_of(base.method))["source"]
    look_for_changes([after, other], written, retrain=True)
    assert capsys.readouterr() == ("", "")

    edited = replace(after, start=replace(base, method=method(file, "2.0")))
    assert edited.hash == after.hash
    look_for_changes([edited, other], written, retrain=False)
    said = capsys.readouterr().err
    assert said.count("--retrain trains it anew") == 2 and f"note: {file} has changed: Method base 4" in said
    assert written.load(base.hash) and written.load(after.hash)

    look_for_changes([edited, other], written, retrain=True)
    assert "is trained anew" in capsys.readouterr().out
    assert not written.load(base.hash) and not written.load(after.hash) and written.load(other.hash)
    for run in edited.chain:
        assert launcher.train(run, job(tmp_path)) == ""
    look_for_changes([edited], written, retrain=True)
    assert capsys.readouterr() == ("", "") and written.load(after.hash)


def test_an_unfinished_run_of_another_source_is_named_too(
    file: Path, tiny_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the run goes on all the same, its environment names both sources, so that it is still named later."""
    monkeypatch.setattr(store, "SAVE_EVERY", 0)
    run = tiny_run(method(file))
    folder = stopped(run, tmp_path)
    edited, written = replace(run, method=method(file, "2.0")), Store(tmp_path)
    look_for_changes([edited], written, retrain=False)
    assert "has changed" in capsys.readouterr().err
    assert launcher.train(edited, job(tmp_path)) == ""
    found = json.loads((folder / "environment.json").read_text())
    assert found["earlier_commits"] and found["source"] not in found["earlier_commits"]
    look_for_changes([edited], written, retrain=False)
    assert "has changed" in capsys.readouterr().err


def test_a_run_that_a_process_works_on_is_left(file: Path, tiny_run: MakeRun, tmp_path: Path) -> None:
    run, written = tiny_run(method(file)), Store(tmp_path)
    assert launcher.train(run, job(tmp_path)) == ""
    with written.open(run), pytest.raises(InputError, match=f"another process works on run {run.hash}"):
        look_for_changes([replace(run, method=method(file, "2.0"))], written, retrain=True)
    assert written.load(run.hash)
