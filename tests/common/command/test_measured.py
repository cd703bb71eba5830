"""Tests that every RESULTS.md is what the package's records say today, and that each number depends on a record."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from commands import main

from common.command import measured
from common.command.export import records_folder
from common.command.plan import PAPERS
from common.errors import InputError

REPORTED = re.compile(r"^`python -m (.+)`$", re.MULTILINE)


@pytest.mark.parametrize("paper", PAPERS)
def test_the_committed_results_are_those_of_the_records(paper: str) -> None:
    """If this fails, run `reproduce record --results-only` and look at what has changed."""
    committed = records_folder(paper).parent / "RESULTS.md"
    assert committed.read_text(encoding="utf-8") == measured.results_text(paper)


def test_a_number_changes_with_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number is the average of LUCIR's one run on CIFAR-100 in 5 phases. It is computed here from the file."""
    records = tmp_path / "records"
    shutil.copytree(records_folder("lucir"), records)
    monkeypatch.setattr("common.command.measured.records_folder", lambda paper: records)
    (path,) = (p for p in records.glob("*.json") if is_main(json.loads(p.read_text())["config"]))
    content = json.loads(path.read_text())
    before, was = measured.results_text("lucir"), average(content)
    for phase in content["phases"]:
        for stage in phase["stages"].values():
            stage["cnn"]["accuracy"] -= 7
    del content["checksum"]
    path.write_text(json.dumps(content))
    after = measured.results_text("lucir")
    assert f" {was:.2f} (n = 1) |" in before and f" {was - 7:.2f} (n = 1) |" in after
    assert f" {was - 7:.2f} (n = 1) |" not in before


def test_a_damaged_record_is_an_error_and_no_missing_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = tmp_path / "records"
    shutil.copytree(records_folder("der"), records)
    monkeypatch.setattr("common.command.measured.records_folder", lambda paper: records)
    damaged = sorted(records.glob("*.json"))[0]
    damaged.write_text("")
    with pytest.raises(InputError, match=damaged.name):
        measured.results_text("der")


def is_main(config: dict) -> bool:
    """Return whether a run is LUCIR with all its parts on CIFAR-100, with 50 base classes and 5 phases of 10."""
    method, data = config["method"], config["data"]["name"]
    whole = method["type"] == "LUCIR" and method["finetune"] and method["margin"] and method["imprint"]
    whole = whole and config["seed"] == 1993
    return bool(whole and data == "cifar100" and config["protocol"]["step"] == 10)


def average(content: dict) -> float:
    """Return the mean over phases of the accuracy after each phase's last stage."""
    last = [[*phase["stages"].values()][-1]["cnn"]["accuracy"] for phase in content["phases"]]
    return sum(last) / len(last)


def test_a_command_draws_the_numbers_of_its_table(tmp_path: Path) -> None:
    """The first command of a RESULTS.md gives the rows of the table below it."""
    text = (records_folder("class_balanced").parent / "RESULTS.md").read_text(encoding="utf-8")
    found = REPORTED.search(text)
    assert found
    module, *words = shlex.split(found[1])
    assert module == "class_balanced.reproduce"
    assert main([*words, "--out", str(tmp_path)], paper="class_balanced") == 0
    (report,) = tmp_path.rglob("report.md")
    rows = [line for line in text[found.end() :].split("\n### ")[0].splitlines() if line.startswith("| ")]
    assert len(rows) > 2 and set(rows) <= set(report.read_text(encoding="utf-8").splitlines())


def test_results_alone_take_packages_and_no_other_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--papers", "nobody"], ["--papers", "lucir", "--to", str(tmp_path)]):
        assert main(["record", "--results-only", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())
