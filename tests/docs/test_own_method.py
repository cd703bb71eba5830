"""Tests a user's method in one file: worker processes train it, and it is compared and drawn wherever the file lies."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from own_method import BalancedReplay

from common.command.plan import Choice
from common.heads import CosineHead
from common.incremental import Learner
from common.store import Result, Store
from lucir.methods import ICaRL
from lucir.reproduce.compare import Comparison, compare
from lucir.reproduce.presets import settings

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = (ROOT / "docs" / "own_method.py").read_text()
GUARD = 'if __name__ == "__main__":'


class CosineLearner(Learner):
    head = CosineHead


@dataclass(frozen=True)
class Cosine:
    learner: ClassVar[type] = CosineLearner


def python(script: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, script.name, "--epochs-scale", "0.1", "--device", "cpu", "--jobs", "2", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=script.parent, env=environment, capture_output=True, text=True, timeout=300)


def finished(out: Path) -> list[Result]:
    return [r for p in (out / "runs").iterdir() if p.is_dir() and (r := Store(out).load(p.name))]


def test_one_file_is_trained_drawn_and_reported(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(EXAMPLE)
    first = python(script)
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "results" / "quick-x0.1" / "mine"
    report = (folder / "report.md").read_text()
    assert "mine: 1 of 1 figures in results/quick-x0.1/mine; report: " in first.stdout
    assert (folder / "compared.png").stat().st_size > 500
    assert "| average incremental accuracy (%) | Balanced replay-CNN |" in report and "source " in report
    results = finished(tmp_path / "results")
    (own,) = (r for r in results if r.config["paper"] == "mine")
    assert len(results) == 5  # two base models, iCaRL, LUCIR and this
    assert own.config["method"] == {"type": "BalancedReplay", "version": 1, "strength": 1.0}
    assert own.environment["commit"] == "" and len(own.environment["source"]) == 16
    assert all("source" not in r.environment for r in results if r is not own)

    script.write_text(EXAMPLE.replace("+ self.prior", "- self.prior"))
    again = python(script)
    assert (
        again.returncode == 0 and "mine.py has changed" in again.stderr and "--retrain trains it anew" in again.stderr
    )
    assert [r.values for r in finished(tmp_path / "results")] == [r.values for r in results]

    script.write_text(EXAMPLE.replace(GUARD, "if True:").replace("strength: float = 1.0", "strength: float = 2.0"))
    unguarded = python(script, "--seeds", "1", "2")
    assert unguarded.returncode == 2 and unguarded.stderr.count("error") == 1
    assert f"`{GUARD}`" in unguarded.stderr


@pytest.mark.parametrize(("start", "head"), [("linear", "linear"), ("cosine", "cosine"), (None, None)])
def test_everything_but_the_method_is_the_same(start: Any, head: str | None) -> None:
    (setting,) = settings("cifar", None, None, 1.0)
    own = {"Mine": BalancedReplay()}
    comparison = Comparison(["mine"], Choice(), methods=own, phases=5, start=start, script="mine.py")
    runs = comparison.runs(setting)
    for mine, other in zip(runs["Mine"], runs["LUCIR"], strict=True):
        assert (mine.protocol, mine.schedule, mine.order, mine.seed) == (
            other.protocol, other.schedule, other.order, other.seed)  # fmt: skip
        assert (mine.start.method.head if mine.start else None) == head
    assert runs["iCaRL"] == setting.runs(setting.icarl(), 5)  # the very runs of the paper's figures


def test_a_function_makes_a_method_from_the_preset() -> None:
    """An ablation has the preset's weight and schedule. Its run is the very run that `train` makes."""
    own = {"No imprinting": lambda s: s.lucir(imprint=False)}
    comparison = Comparison(["mine"], Choice(), methods=own, phases=5, start="cosine", script="mine.py")
    for preset in ("quick", "imagenet"):
        setting = settings(preset, None, None, 0.5)[0]
        expected = setting.main(setting.lucir(imprint=False))
        assert comparison.runs(setting)["No imprinting"] == expected
        assert expected[0].method.finetune == setting.finetune and expected[0].method.weight == setting.weight


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"Mine": lambda s: object()}, "object names no learner"),
        ({"LUCIR": BalancedReplay()}, "LUCIR is there already"),
        ({"Mine": object()}, "object names no learner"),
        ({"Mine": BalancedReplay}, "Mine is a class; give a method of it, BalancedReplay()"),
        ({"Mine": ICaRL}, "Mine is a class"),
        ({"Mine": CosineLearner}, "Mine is a learner; give the dataclass that names it"),
        ({"Cosine": Cosine()}, "Cosine has a cosine head; say start='cosine'"),
        ({}, "there is no method to compare"),
        ({"Mine": BalancedReplay(), "start": "cosin"}, "start must be 'linear', 'cosine' or None, got 'cosin'"),
        ({"Mine": BalancedReplay(), "phases": 7}, "20 classes do not divide into 7 phases; choose one of 1, 2, 4, 5"),
        ({"Mine": BalancedReplay(), "phases": 0}, "20 classes do not divide into 0 phases"),
        ({"Mine": BalancedReplay(), "words": ["--only", "fig5c"]}, "--only names figures of a paper"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    methods: dict[str, Any], message: str, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    """Entries that begin with a small letter are other arguments of `compare`."""
    rest: dict[str, Any] = {name: methods[name] for name in methods if name[0].islower()}
    methods = {name: methods[name] for name in methods.keys() - rest.keys()}
    words = [*rest.pop("words", []), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        compare(methods, words=words, **rest)
    assert ended.value.code == 2 and message in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("runs/*/*"))
