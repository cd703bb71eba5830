"""Tests look-ups among thousands of runs, by counting how often folders are listed and files are read."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from commands import main

from class_balanced.reproduce import presets
from class_balanced.reproduce.catalogue import FIGURES
from common.command.plan import select
from common.drawing import result_index
from common.runs import canonical
from common.store import Store


@pytest.fixture
def thousands(tmp_path: Path) -> Path:
    """Return a results folder with 2,000 finished runs, 40 of them those of Figure 5. All share one result's files."""
    figures, _ = select(FIGURES, ["fig5"], "cifar")
    settings = presets.settings("cifar", (), (), 1.0)
    runs = [run for figure in figures for group in figure.runs(settings).values() for run in group]
    wanted = {run.hash: run for run in (run.resolved("0123456789abcdef", "fp32") for run in runs)}
    wanted = dict(list(wanted.items())[:40])
    Store(tmp_path).prepare()
    measured = {"phases": [{"stages": {"main": {}}}]}
    for name, content in (("config", {}), ("environment", {"images_per_second": 100.0}), ("result", measured)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    for name in [*wanted, *(f"{i:016x}" for i in range(2000 - len(wanted)))]:
        (tmp_path / "runs" / name).mkdir()
        for file in ("config.json", "environment.json", "result.json"):
            os.link(tmp_path / file, tmp_path / "runs" / name / file)
    for name, run in wanted.items():
        (tmp_path / "runs" / name / "config.json").unlink()
        (tmp_path / "runs" / name / "config.json").write_text(json.dumps(canonical(run)))
    return tmp_path


def test_a_list_among_thousands_of_runs_reads_each_folder_name_once(
    thousands: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the results that the figure counts are read, each of them once."""
    listed, read = Counter[str](), Counter[str]()

    def counted(real: object, count: Counter[str]) -> object:
        def call(path: object = ".", *rest: object, **more: object) -> object:
            count[str(path)] += 1
            return real(path, *rest, **more)  # type: ignore[operator]

        return call

    monkeypatch.setattr(os, "listdir", counted(os.listdir, listed))
    monkeypatch.setattr(os, "scandir", counted(os.scandir, listed))
    monkeypatch.setattr("common.store.Path.read_text", counted(Path.read_text, read))
    assert main(["--preset", "cifar", "--list", "--only", "fig5", "--out", str(thousands)], "class_balanced") == 0
    printed = capsys.readouterr().out
    assert "class_balanced: 0/" not in printed
    assert listed[str(thousands / "runs")] == 1
    assert sum(listed.values()) < 20
    results = {path: count for path, count in read.items() if path.endswith("result.json")}
    assert len(results) == 40 and set(results.values()) == {1}


def test_many_results_do_not_stay_in_memory(thousands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest result is forgotten, and read again when it is asked for."""
    monkeypatch.setattr(result_index, "MOST_IN_MEMORY", 5)
    store = Store(thousands)
    names = [p.parent.name for p in sorted(thousands.glob("runs/*/config.json")) if p.stat().st_nlink == 1][:20]
    assert all(store.load(name) for name in names)
    assert list(store._here._last) == names[-5:]
    again = store.load(names[0])
    assert again and again.hash == names[0]
