"""Tests commands where something is missing: tyro, git, or room for records."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import main, results

from common.command import cli, environment, queue
from common.command.export import RecordArguments
from common.command.parsing import parse
from common.command.queue import Resources
from common.errors import InputError

ROOT = Path(__file__).resolve().parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


WORDS: list[tuple[Any, list[str]]] = [
    (cli.Arguments, ["--only", "fig3", "fig5", "--seeds", "1", "2", "--epochs-scale", "0.5", "--draw"]),
    (cli.Arguments, []),
    (Resources, ["--minutes", "0.5", "--record", "there", "--out", "here", "--jobs", "3"]),
    (RecordArguments, ["--papers", "lucir", "--to", "sent", "--embedded"]),
]


@pytest.mark.parametrize(("kind", "words"), WORDS)
def test_options_are_read_alike_without_tyro(kind: Any, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = parse(kind, "reproduce", None, words)
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert parse(kind, "reproduce", None, words) == expected
    for wrong in (["--jobs", "x"], ["--nothing"], ["stray"]):
        with pytest.raises(InputError, match="--help lists the options"):
            parse(kind, "reproduce", None, wrong)


def test_a_copy_without_git_says_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_git(*words: Any, **options: Any) -> None:
        raise FileNotFoundError("git")

    found = environment.commit()
    monkeypatch.setenv("REPRO_COMMIT", COMMIT)
    environment.commit.cache_clear()
    assert environment.commit() == found  # where git is at hand, it knows better
    monkeypatch.setattr(subprocess, "run", no_git)
    try:
        for given, expected in (
            ("", {"commit": "unknown", "dirty": True}),
            (COMMIT, {"commit": COMMIT, "dirty": False}),
        ):
            environment.commit.cache_clear()
            monkeypatch.setenv("REPRO_COMMIT", given)
            assert environment.commit() == expected
        environment.commit.cache_clear()
        monkeypatch.setenv("REPRO_COMMIT", "main")
        with pytest.raises(InputError, match="REPRO_COMMIT is 'main'"):
            environment.commit()
    finally:
        environment.commit.cache_clear()


def test_a_record_that_cannot_be_written_stops_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*rest: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("common.command.parts.cores", lambda: 1)
    (tmp_path / "file").write_text("in the way")
    words = ["--only", "fig3a", "--epochs-scale", "0.1", "--device", "cpu", "--jobs", "1"]
    words += ["--out", str(tmp_path / "out"), "--record"]
    assert main([*words, str(tmp_path / "file")], "lucir") == 2
    assert "cannot write to --record" in capsys.readouterr().err and not results(tmp_path / "out")
    monkeypatch.setattr(queue, "write_record", full)
    assert main([*words, str(tmp_path / "records")], "lucir") == 1
    assert capsys.readouterr().err.count("no record of") == len(results(tmp_path / "out")) == 2


@pytest.mark.parametrize("plainly", [False, True])
def test_a_path_after_an_equals_sign_begins_at_home(plainly: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    if plainly:
        monkeypatch.setitem(sys.modules, "tyro", None)
    found = parse(Resources, "reproduce", None, ["--data=~/images", "--out=~/x", "--record", "a~b"])
    assert (found.data, found.out, found.record) == (Path("/somewhere/images"), Path("/somewhere/x"), Path("a~b"))


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    """Worker processes import the script, which starts the command anew in each of them."""
    script, words = tmp_path / "script.py", ["lucir", "--only", "fig5a", "--epochs-scale", "0.1", "--device", "cpu"]
    words += ["--jobs", "2", "--out", str(tmp_path / "out")]
    script.write_text(f"from common.command.cli import main\nmain({words})\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2 and 'if __name__ == "__main__":' in ended.stderr
    assert "Traceback" not in ended.stderr and "out of memory" not in ended.stderr
    assert not results(tmp_path / "out")
