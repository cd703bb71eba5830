"""Tests `reproduce check-records`: an unchanged record passes, and everything that may be wrong with one is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import main

from common.command import environment
from common.command.checked import check_records, problem_of
from common.command.export import records_folder
from common.command.plan import PAPERS
from common.drawing.results import stamped

Change = Callable[[dict], object]


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Return a copy of a committed record of several phases."""
    source = next(p for p in sorted(records_folder("lucir").glob("*.json")) if len(read(p)["phases"]) > 2)
    return Path(shutil.copy(source, tmp_path / source.name))


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("paper", PAPERS)
def test_the_committed_records_pass(paper: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_records(records_folder(paper)) == 0
    assert capsys.readouterr().out.endswith("records, all in order\n")


def cnn(content: dict) -> dict:
    return list(content["phases"][-1]["stages"].values())[-1]["cnn"]


WRONG: dict[str, Change] = {
    "is of another run than its name says": lambda c: c["config"].update(seed=7),
    "its name is not the hash": lambda c: c["config"].update(precision="bf16"),
    "it has no 'commit'": lambda c: c["environment"].pop("commit"),
    "not one of 40 digits": lambda c: c["environment"].update(commit="unknown"),
    "its commit 0123456789012345678901234567890123456789 is none of this": lambda c: c["environment"].update(
        commit="0123456789" * 4
    ),
    "1111111111111111111111111111111111111111 is none": lambda c: c["environment"].update(earlier_commits=["1" * 40]),
    "changes that were not committed": lambda c: c["environment"].update(dirty=True),
    "trace.loss.1 is not a finite number": lambda c: c["trace"]["loss"].__setitem__(1, float("nan")),
    "accuracy is not a finite number": lambda c: cnn(c).update(accuracy=float("inf")),
    "it has 5 phases": lambda c: c["phases"].pop(1),
    "but its confusion matrix": lambda c: cnn(c).update(accuracy=cnn(c)["accuracy"] + 1),
    "no record of a run": lambda c: c["confusion"].update(cnn="AAAA"),
    "it has no 'trace'": lambda c: c.pop("trace"),
    "is no result of a run": lambda c: c.update(phases=[]),
    "record of another version": lambda c: c.update(format=0),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_is_one_line(
    message: str, record: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = read(record)["environment"]["commit"]
    monkeypatch.setattr("common.command.checked.known_commit", lambda commit: commit == good)
    assert main(["check-records", str(record.parent)]) == 0
    content = read(record)
    content.pop("checksum")
    WRONG[message](content)
    record.write_text(stamped(content), encoding="utf-8")
    capsys.readouterr()
    assert main(["check-records", str(record.parent)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"{record}: ") and message in lines[0]


def test_an_edited_record_and_one_without_a_checksum(record: Path) -> None:
    content = read(record)
    cnn(content)["accuracy"] += 1
    record.write_text(json.dumps(content), encoding="utf-8")
    assert "its checksum does not fit" in problem_of(record)
    content = read(record)
    content.pop("checksum")
    record.write_text(json.dumps(content), encoding="utf-8")
    assert "it has no checksum" in problem_of(record)
    record.write_text("{", encoding="utf-8")
    assert "cannot be read" in problem_of(record)


def test_records_are_found_below_the_folder(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`reproduce queue --record` writes DIR/PAPER/HASH.json."""
    inside = record.parent / "lucir"
    inside.mkdir()
    record.rename(inside / record.name)
    assert main(["check-records", str(record.parent)]) == 0
    assert capsys.readouterr().out == "1 records, all in order\n"


@pytest.mark.parametrize("words", [[], ["nowhere"], ["--to", "x"]])
def test_without_records_it_is_bad_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-records", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_commits_are_looked_up_where_the_repository_has_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    here = environment.commit()["commit"]
    if environment.committed(Path(environment.__file__).resolve().parents[2]) is None:
        pytest.skip("the packages are not in a git repository")
    environment.known_commit.cache_clear()
    assert environment.known_commit(here) and not environment.known_commit("f" * 40)
    environment.known_commit.cache_clear()
    monkeypatch.setattr(environment, "committed", lambda root: None)
    assert environment.known_commit("f" * 40)  # there is no telling
    environment.known_commit.cache_clear()
