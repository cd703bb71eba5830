"""Tests that committed records are named by their configs, have commit and machine, and suffice for quick figures."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from common.command.export import records_folder
from common.command.launcher import Job, train
from common.command.plan import PAPERS, Choice, Data, Plan, make_plan
from common.store import Store

DRAW = Choice(draw=True)
each_paper = pytest.mark.parametrize("paper", PAPERS)


@cache
def records(paper: str) -> dict[str, dict]:
    """Return the records of a paper, by id."""
    found = {path.stem: json.loads(path.read_text()) for path in records_folder(paper).glob("*.json")}
    assert found
    return found


def quick(paper: str, out: Path, choice: Choice = DRAW, precision: str = "auto") -> Plan:
    return make_plan(paper, choice, Store(out, [records_folder(paper)]), Data(None, out / "cache"), precision)


def digest(config: Any) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def anywhere(config: dict) -> dict:
    """Return a config without the entries that say on which data and in which precision the run was trained."""
    return config | {"fingerprint": "", "precision": "", "start": config["start"] and anywhere(config["start"])}


@each_paper
def test_names_are_the_hashes_of_the_configs(paper: str) -> None:
    """12 digits stand for the run, and 4 for its data and precision. So a config that was edited later is noticed."""
    configs = {id: record["config"] for id, record in records(paper).items()}
    assert {id: digest(anywhere(c))[:12] + digest(c)[:4] for id, c in configs.items()} == {id: id for id in configs}
    assert all(c["paper"] == paper and c["fingerprint"] and c["precision"] for c in configs.values())


@each_paper
def test_records_name_the_commit_and_the_machine(paper: str) -> None:
    for place in (record["environment"] for record in records(paper).values()):
        assert re.fullmatch("[0-9a-f]{40}", place["commit"]) and place["dirty"] is False
        assert place["device"] and place["torch"] and place["threads"] >= 1


@each_paper
def test_every_quick_figure_can_be_drawn_from_records(paper: str, tmp_path: Path) -> None:
    """If a change gives runs other keys, run `reproduce PAPER` and `reproduce record --papers PAPER --embedded`."""
    plan = quick(paper, tmp_path)
    assert plan.figures and [f.id for f in plan.figures if plan.results(f)[1]] == []


@each_paper
def test_no_record_of_embedded_data_is_out_of_use(paper: str, tmp_path: Path) -> None:
    """Records of figures on request count too, although --only has to name these figures."""
    everything = quick(paper, tmp_path)
    ids = tuple(f.id for f in (*everything.figures, *(f for f, _ in everything.skipped)) if "quick" in f.presets)
    named = quick(paper, tmp_path, Choice(only=ids, draw=True))
    keys = {run.key for last in named.runs().values() for run in last.chain}
    names = {id: record["config"]["data"]["name"] for id, record in records(paper).items()}
    assert [id for id, name in names.items() if name == "glyphs" and id[:12] not in keys] == []


def test_a_recorded_run_trained_again_is_the_recorded_one(tmp_path: Path) -> None:
    """First epochs agree to some digits. Later, rounding on other machines and libraries grows to some points."""
    plan = quick("class_balanced", tmp_path, Choice(only=("table2-cifar100",)), "fp32")
    run = next(iter(plan.runs().values()))
    if run.fingerprint not in {record["config"]["fingerprint"] for record in records("class_balanced").values()}:
        pytest.skip("the embedded data are drawn from other fonts than those of the records")
    recorded = plan.find(run)
    assert recorded is not None
    assert train(run, Job(tmp_path, None, "cpu", 1, 1)) == ""
    again = plan.store.load(run.hash)
    assert again is not None and again.values["trace"]["lr"] == recorded.values["trace"]["lr"]
    assert again.values["trace"]["loss"][0] == pytest.approx(recorded.values["trace"]["loss"][0], rel=1e-3)
    assert again.curve("cnn") == pytest.approx(recorded.curve("cnn"), abs=5)
