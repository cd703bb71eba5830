"""Tests that changed results, records and cached images are refused by name, and that other figures go on."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import main
from killed import job

from common.command import launcher
from common.command.export import records_folder
from common.command.plan import PAPERS, Choice, Data, make_plan
from common.data.datasets import DataSpec, load
from common.drawing.results import Result, read_record, write_record
from common.errors import InputError
from common.runs import Run
from common.store import Store
from lucir.methods import ICaRL

MakeRun = Callable[..., Run]


@pytest.fixture
def finished(tiny_run: MakeRun, tmp_path: Path) -> Path:
    """Return the folder of a finished run."""
    run = tiny_run(ICaRL())
    assert launcher.train(run, job(tmp_path / "out")) == ""
    return tmp_path / "out" / "runs" / run.hash


def content(result: Result) -> list[object]:
    """Return everything that figures can read of a result."""
    *_, readouts = result.phases()[-1]["stages"].values()
    known = {name: result.values[name] for name in ("phases", "summary", "trace")}
    return [result.config, result.environment, known, {n: result.confusion(n).tolist() for n in readouts}]


def found(folder: Path) -> list[object] | None:
    """Return what a store reads from a run's folder, or None if it refuses the run and names the folder."""
    try:
        result = Store(folder.parents[1]).load(folder.name)
        return content(result) if result else None
    except InputError as error:
        assert str(folder) in str(error) and "delete" in str(error) and "\n" not in str(error)
        return None


@pytest.mark.parametrize("name", ["result.json", "environment.json", "config.json", "arrays.npz"])
def test_a_flipped_bit_of_a_result_is_refused_or_changes_nothing(name: str, finished: Path) -> None:
    whole, bytes_, dice, refused = found(finished), (finished / name).read_bytes(), random.Random(0), 0
    assert whole
    for _ in range(60):
        changed = bytearray(bytes_)
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
        (finished / name).write_bytes(changed)
        got = found(finished)
        refused += got is None
        assert got in (None, whole)
    assert refused > 40  # not if a blank, or a date within the archive, was hit


def test_arrays_of_another_run_are_refused(finished: Path) -> None:
    with np.load(finished / "arrays.npz") as arrays:
        others = {name: array[::-1] for name, array in arrays.items()}
    np.savez_compressed(finished / "arrays.npz", **others)
    assert found(finished) is None


def test_results_from_before_there_were_checksums_are_read(finished: Path) -> None:
    whole = found(finished)
    for name in ("result", "environment"):
        values = json.loads((finished / f"{name}.json").read_text())
        assert values.pop("checksum") and (name == "environment" or values.pop("arrays"))
        (finished / f"{name}.json").write_text(json.dumps(values))
    assert found(finished) == whole


def test_records_carry_a_checksum_and_are_refused_when_changed(finished: Path, tmp_path: Path) -> None:
    result = Store(finished.parents[1]).load(finished.name)
    assert result
    path = write_record(result, tmp_path / "records")
    assert content(read_record(path)) == content(result)
    record = json.loads(path.read_text())
    record["phases"][0]["stages"]["main"]["cnn"]["accuracy"] += 1
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=f"{path} is damaged .*git checkout"):
        read_record(path)
    del record["checksum"]
    path.write_text(json.dumps(record))
    assert read_record(path).phases() == record["phases"]


def test_a_damaged_record_stops_no_other_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One record is changed, and others belong to no run. All of them are named, and figures without them are drawn."""
    folder, words = tmp_path / "records", ["--only", "fig5a", "fig5c", "--draw", "--out", str(tmp_path)]
    shutil.copytree(records_folder("lucir"), folder)
    monkeypatch.setattr("common.command.queue.records_folder", lambda paper: folder)
    made = make_plan("lucir", Choice(only=("fig5a",), draw=True), Store(tmp_path, [folder]), Data(None, tmp_path))
    groups, missing = made.results(made.figures[0])
    changed, *others = sorted({folder / f"{r.hash}.json" for group in groups.values() for r in group})
    assert others and not missing
    changed.write_text(changed.read_text().replace('"accuracy":', '"accuracy":1', 1))
    for path in others:
        path.write_text('{"format": 1, "config": 3, "environment": {}, "phases": []}')
    assert main(words, "lucir") == 1
    said = capsys.readouterr()
    assert f"failed: {changed} is damaged" in said.err and "Traceback" not in said.err
    assert all(f"failed: {path} is of another run than its name says" in said.err for path in others)
    assert "not drawn: fig5a" in said.out and (tmp_path / "quick/lucir/fig5c.png").exists()
    assert str(changed) in (tmp_path / "quick/lucir/report.md").read_text()


def test_a_damaged_start_fails_by_name_and_other_runs_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.command.parts.cores", lambda: 1)
    words = ["--only", "fig3a", "--epochs-scale", "0.1", "--device", "cpu", "--jobs", "1", "--out", str(tmp_path)]
    assert main(words, "lucir") == 0
    expected = {p: p.read_bytes() for p in tmp_path.glob("runs/*/result.json")}
    start, child = sorted(expected, key=lambda p: len((p.parent / "config.json").read_text()))
    start.write_bytes(start.read_bytes().replace(b"1", b"2", 1))
    shutil.rmtree(child.parent)
    capsys.readouterr()
    assert main(words, "lucir") == 1
    said = capsys.readouterr().err
    assert said.count(f"{start} is damaged") == 1 and f"delete {start.parent} and run the same command" in said
    assert f"not started: run {start.parent.name}" in said
    shutil.rmtree(start.parent)
    assert main(words, "lucir") == 0
    assert {p: p.read_bytes() for p in tmp_path.glob("runs/*/result.json")} == expected


@pytest.mark.parametrize("name", ["train_images.npy", "train_labels.npy", "test_images.npy", "meta.json"])
def test_changed_cached_images_are_made_again(name: str, tmp_path: Path) -> None:
    spec = DataSpec("glyphs", 3, 4, 2)
    whole, _ = load(spec), load(spec, None, tmp_path)
    path = next(tmp_path.glob(f"*/{name}"))
    changed = bytearray(path.read_bytes())
    changed[-9] ^= 1
    path.write_bytes(changed)
    for _ in range(2):
        again = load(spec, None, tmp_path)
        assert all(np.array_equal(getattr(again, n), getattr(whole, n)) for n in ("train_images", "train_labels"))
        assert np.array_equal(again.test_images, whole.test_images) and again.classes == whole.classes
    assert bytes(changed) != path.read_bytes()


def test_a_read_out_that_was_not_measured_in_every_phase(finished: Path) -> None:
    result = Store(finished.parents[1]).load(finished.name)
    assert result
    phases = json.loads(json.dumps(result.phases()))
    for stages in phases[0]["stages"].values():
        stages.pop("nme")
    result = replace(result, values={**result.values, "phases": phases})
    curve = result.curve("nme")
    assert np.isnan(curve[0]) and curve[1:] == [result.readout("nme", i)["accuracy"] for i in range(1, len(phases))]
    assert np.isnan(result.curve("nme", "nothing")).all()
    with pytest.raises(KeyError, match="no read-out 'nne'; there are cnn, nme"):
        result.curve("nne")


@pytest.mark.parametrize("paper", PAPERS)
def test_committed_records_have_checksums_that_fit(paper: str) -> None:
    """`python benchmarks/stamp_records.py` adds a checksum to records without one."""
    for path in records_folder(paper).glob("*.json"):
        assert "checksum" in json.loads(path.read_text()), path
        read_record(path)
