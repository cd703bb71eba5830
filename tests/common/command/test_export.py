"""Tests `reproduce record` if a file of a record or of a run has been damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from commands import main

from common.command import cli


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of two finished runs."""
    out = tmp_path_factory.mktemp("finished")
    words = ["--only", "fig3a", "--epochs-scale", "0.1", "--device", "cpu", "--jobs", "1", "--out", str(out)]
    assert main(words, "lucir") == 0
    return out


def test_only_a_torn_record_is_written_again(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A power cut can leave a record that is younger than its run, but empty."""

    def record() -> list[str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["record", "--embedded", "--out", str(finished), "--to", str(tmp_path)])
        assert ended.value.code == 0
        return capsys.readouterr().out.splitlines()

    paths = [Path(line) for line in record()]
    assert len(paths) == 2 and record() == []
    before = paths[0].read_text()
    paths[0].write_text("")
    assert record() == [str(paths[0])] and paths[0].read_text() == before


def test_a_damaged_run_does_not_keep_others_from_being_recorded(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    damaged = min(out.glob("runs/*/result.json"))
    damaged.write_text("{")
    with pytest.raises(SystemExit) as ended:
        cli.main(["record", "--embedded", "--out", str(out), "--to", str(tmp_path / "sent")])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and "all but these were recorded" in error and str(damaged) in error
    assert len(list((tmp_path / "sent").glob("*.json"))) == 1
