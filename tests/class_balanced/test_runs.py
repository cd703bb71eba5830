"""Tests which runs the presets ask for, and the command with and without the data for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from class_balanced.reproduce.catalogue import FIGURES
from class_balanced.reproduce.presets import settings
from common.command import cli
from common.command.plan import Choice, Data, Plan
from common.data import lists
from common.store import Store

BY_ID = {figure.id: figure for figure in FIGURES}


def test_the_papers_schedules() -> None:
    chosen = settings("cifar", [0], None, 1.0)
    run = BY_ID["fig10"].runs(chosen)["Focal_1.0_0.99", 200][0]
    assert (run.network, run.order, run.test_every) == ("resnet32-avgpool", "native", 2)
    assert run.longtail and (run.longtail.imbalance, run.longtail.seed) == (200.0, 0)
    s = run.schedule
    assert (s.epochs, s.batch, s.weight_decay, s.momentum, s.nesterov) == (200, 128, 2e-4, 0.9, False)
    rates = [s.lr_at(int(e), e % 1) for e in (0, 2.5, 5, 159.99, 160, 180)]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.1, 1e-3, 1e-5])
    x = np.array([0, 128, 255])
    assert ((x / 255 - run.inputs.mean[0]) / run.inputs.std[0]).tolist() == pytest.approx((x / 128 - 1).tolist())
    large = {s.role: s for s in settings("imagenet", None, None, 1.0)}
    for role, fast in (("inat2017", 1.6), ("inat2018", 1.6), ("ilsvrc2012", 0.8)):
        runs = BY_ID[f"table3-{role}"].runs(tuple(large.values()))
        softmax, focal = runs["Softmax", 224, 101][0], runs["CB focal", 320, 101][0]
        assert (softmax.schedule.lr, focal.schedule.lr) == pytest.approx((0.4, fast))
        assert (focal.schedule.batch, focal.schedule.milestones) == (1024, (30, 60, 80))
        assert (softmax.inputs.size, focal.inputs.size, focal.network) == (224, 320, "resnet101-imagenet")
        assert (focal.method.beta, focal.method.gamma, focal.schedule.nesterov) == (0.999, 0.5, True)


def test_a_reduced_schedule_defers_earlier() -> None:
    short = settings("cifar", None, None, 0.1)
    assert BY_ID["baselines-cifar10"].runs(short)["CE-DRW"][0].method.defer == 16


def test_repeats_have_no_class_order() -> None:
    with pytest.warns(UserWarning, match="a class order means nothing there"):
        assert settings("cifar", [3, 3], ["O1"], 1)[0].seeds == (3,)


def test_optional_runs_alone_are_drawn_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Table 1 requires no run. It counts the classes of those runs of Table 3 that exist."""
    choice, inat = Choice("imagenet", draw=True), settings("imagenet", None, None, 1.0)
    plan = Plan("class_balanced", choice, inat, [BY_ID["table1"]], [], Store(tmp_path), Data(None, tmp_path))
    monkeypatch.setattr(Plan, "find", lambda self, run: run if run.data.name == "inat2018" else None)
    groups, missing = plan.results(BY_ID["table1"])
    assert list(groups) == ["iNaturalist 2018"] and len(groups["iNaturalist 2018"]) == 9 and missing == []


# The command


def run_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(words, paper="class_balanced")
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def image_folder(root: Path, counts: list[int]) -> Path:
    from PIL import Image

    for split in ("train", "test"):
        for c, count in enumerate(counts):
            (root / split / str(c)).mkdir(parents=True)
            for i in range(count if split == "train" else 1):
                Image.new("RGB", (32, 32), (c, i, 0)).save(root / split / str(c) / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (
            [9] * 10,
            "an imbalance factor of 50 leaves classes without images: the largest has 9; choose a smaller factor",
        ),
        ([9] * 9 + [0], "9 holds no images"),
        ([9] * 9, "has 9 class folders but cifar10 has 10"),
        ([60] + [1] * 9, "asks for 38 images of class 1, which has 1"),
    ],
)
def test_impossible_data_end_before_training(
    counts: list[int], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = image_folder(tmp_path / "data", counts)
    words = ["--preset", "cifar", "--only", "closeup-cifar10", "--data", str(data), "--out", str(tmp_path / "out")]
    code, _, error = run_command(words, capsys)
    assert code == 2 and message in error and error.count("\n") == 1 and error.startswith("error: ")
    assert not list((tmp_path / "out" / "runs").glob("*/*"))


def test_formulas_are_drawn_without_runs_or_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--only", "fig3", "table1", "--out", str(tmp_path)]
    code, out, error = run_command(words, capsys)
    assert (code, error) == (0, "") and "2 of 2 figures" in out
    drawn = json.loads((tmp_path / "quick/class_balanced/fig3.json").read_text())
    assert "no training" in drawn["caption"]
    report = (tmp_path / "quick/class_balanced/report.md").read_text()
    assert "| 437513 (printed) |" in report


@pytest.mark.parametrize(("preset", "runs"), [("quick", 33), ("cifar", 1221)])
def test_list_names_figures_and_runs(
    preset: str, runs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, error = run_command(["--preset", preset, "--list", "--out", str(tmp_path)], capsys)
    assert (code, error) == (0, "") and f"0/{runs} runs finished" in out
    assert all(id in out for id, figure in BY_ID.items() if preset in figure.presets)


def test_large_data_sets_are_listed_where_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any data the preset ends with one line. With --list, each figure without its data says so."""
    words = ["--preset", "imagenet", "--out", str(tmp_path / "out")]
    code, _, error = run_command(words, capsys)
    assert code == 2 and "inat2017 needs --data DIR" in error and error.count("\n") == 1
    words.append("--list")
    code, listed, _ = run_command(words, capsys)
    assert code == 0 and "inat2017 needs --data DIR" in listed and "lack their data" in listed
    folder = tmp_path / "inat2018"
    image_folder(folder, [2, 1])
    monkeypatch.setitem(lists.PUBLISHED, "inat2018", (2, 3, 2))
    code, out, error = run_command([*words, "--data", str(tmp_path)], capsys)
    assert (code, error) == (0, "") and "0/27 runs finished, 9 to train" in out
    found = {line.split()[0]: line for line in out.splitlines() if not line.startswith(" ")}
    assert "skipped" not in found["table3-inat2018"] and "does not hold inat2017" in found["table3-inat2017"]
    assert set(found) >= {id for id, figure in BY_ID.items() if "imagenet" in figure.presets}
