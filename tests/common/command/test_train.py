"""Tests `train`: the very run behind a figure, its lines and table, lines of a queue, and the call from Python.

test_train_words.py tests what is refused, and what the help says.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fakes
import pytest
from commands import main

from common.command import train
from common.command.messages import describe, title
from common.command.plan import PAPERS, Choice, Data, Plan
from common.command.queue import Command
from common.command.single import Single, published_lines, table
from common.data.datasets import Dataset
from common.errors import InputError, OutOfTime, RunFailed
from common.runs import LongTail, Run, Schedule, canonical, type_name
from common.store import Store
from lucir.methods import FINETUNE, LUCIR, Base

MakeRun = Callable[..., Run]
ROOT = Path(__file__).resolve().parents[3]


def one(paper: str, *words: str) -> train.One:
    return train.line(paper, words, "")


@functools.lru_cache
def of_figures(paper: str, preset: str) -> set[str]:
    """Return the keys of every Run that a preset's figures need."""
    settings, figures = fakes.settings(paper, preset), fakes.FIGURES[paper].values()
    groups = [runs for f in figures if preset in f.presets for runs in f.runs(settings).values()]
    return {run.key for runs in groups for run in runs}


@pytest.mark.parametrize("paper", PAPERS)
@pytest.mark.parametrize("preset", ["quick", "cifar", "imagenet"])
def test_the_papers_own_method_is_the_run_behind_its_figures(paper: str, preset: str) -> None:
    """This holds on every data set of a preset. So either command finds the run that the other has trained."""
    for setting in fakes.settings(paper, preset):
        run = one(paper, "--preset", preset, "--dataset", setting.role).run
        assert run.key in of_figures(paper, preset) and run.data == setting.data


MAIN = {
    "lucir": "fig5c",
    "der": "table1",
    "feature_adaptation": "fig3",
    "bbn": "table1-cifar10",
    "class_balanced": "closeup-cifar10",
    "fsa": "table1-resnet18",
}


@pytest.mark.parametrize("paper", PAPERS)
def test_it_is_a_run_of_the_papers_main_figure(paper: str) -> None:
    for preset in ("quick", "cifar"):
        groups = fakes.FIGURES[paper][MAIN[paper]].runs(fakes.settings(paper, preset)).values()
        assert one(paper, "--preset", preset).run.key in {run.key for runs in groups for run in runs}


VARIANTS = {
    "lucir": [
        ["ICaRL"],
        ["ICaRL", "--finetune.epochs", "2"],  # iCaRL-CBF; the setting fills in the rest of finetuning
        ["LUCIR", "--margin", "None", "--finetune", "None"],
        ["LUCIR", "--direction=paper"],
        ["LUCIR", "--old", "cosine", "--margin", "None", "--finetune=None"],
        ["Base"],
    ],
    "der": [["DER", "--sparsity", "None"], ["DER", "--channels", "random"], ["WA"], ["BiC"], ["LUCIR"], ["ICaRL"]],
    "feature_adaptation": [
        ["Adaptation", "--map", "identity"],
        ["Adaptation", "--features-per-class", "6"],
        ["Oracle"],
        ["Extractor"],
        ["Extractor", "--features", "0"],
        ["LUCIR"],
    ],
    "bbn": [
        ["BBN", "--adaptor", "equal"],
        ["Mixup"],
        ["ClassBalanced"],
        ["Rebalance"],
        ["Ensemble"],
        ["Probe", "--branch", "rb"],
        ["Retrain"],
        ["UnitFeatures", "--baseline.sampler", "balanced"],
    ],
    "class_balanced": [["ClassBalanced", "--loss", "softmax", "--gamma", "0"], ["Rebalance", "--sampler", "balanced"]],
    "fsa": [["FSA", "--share", "0.6"], ["FSA", "--tail", "64", "--donors", "0"], ["Rebalance"]],
}


@pytest.mark.parametrize(("paper", "words"), [(p, words) for p, group in VARIANTS.items() for words in group])
def test_options_make_the_runs_of_ablations_and_baselines(paper: str, words: list[str]) -> None:
    dataset = ["--dataset", "cifar100"] if words == ["Probe", "--branch", "rb"] else []  # Table 5
    assert one(paper, *dataset, *words).run.key in of_figures(paper, "quick")


@pytest.mark.parametrize("paper", PAPERS)
def test_every_method_of_every_setting_makes_a_run(paper: str) -> None:
    for preset in ("quick", "cifar", "imagenet"):
        for setting in fakes.settings(paper, preset):
            names = [type(method).__name__ for method in setting.defaults()]
            assert len(set(names)) == len(names)
            for method in setting.defaults():
                run = setting.main(method)[0]
                assert run.method == method and run.paper == paper
                run.check()


@pytest.mark.parametrize("paper", ["bbn", "class_balanced", "fsa"])
@pytest.mark.parametrize("factor", ["10", "50", "100", "7"])
def test_an_imbalance_makes_the_run_of_that_column(paper: str, factor: str) -> None:
    """The method too is the one in that column of the paper's table."""
    for setting in fakes.settings(paper, "cifar"):
        words = ("--preset", "cifar", "--dataset", setting.role, "--imbalance", factor)
        run = one(paper, *words, "Rebalance" if paper != "class_balanced" else "ClassBalanced").run
        assert run.longtail == LongTail(float(factor))
        assert (run.key in of_figures(paper, "cifar")) == (factor != "7")


@pytest.mark.parametrize(
    ("paper", "words", "message"),
    [
        ("lucir", ["--imbalance", "9"], "cifar100 is not long-tailed in lucir"),
        ("bbn", ["--preset", "imagenet", "--imbalance", "9"], "inat2017 has a long tail of its own"),
        ("fsa", ["--imbalance", "1"], "--imbalance must be above 1"),
    ],
)
def test_an_imbalance_that_means_nothing_is_refused(paper: str, words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        one(paper, *words)


def test_seed_order_and_schedule_are_those_asked_for() -> None:
    run = one("lucir", "--seed", "7", "--epochs-scale=0.5", "LUCIR", "--imprint", "False").run
    assert run.method == replace(one("lucir", "--epochs-scale", "0.5").run.method, imprint=False)
    assert (run.seed, run.order, run.schedule.epochs) == (7, "7", 4)
    run = one("lucir", "--preset", "cifar", "--seed", "7", "--order", "1993").run
    assert (run.seed, run.order, run.data.name) == (7, "1993", "cifar100")
    assert one("der", "--preset", "cifar").run.order == "O1"


def test_synchronised_batchnorm_makes_another_run() -> None:
    """It also makes another run of the start. Without the option, hashes stay as they were."""
    usual, asked = (one("feature_adaptation", *words, "Adaptation").run for words in ((), ("--sync-batchnorm",)))
    assert usual.start and asked.start and asked.start.sync_batchnorm
    assert asked.hash != usual.hash and asked.start.hash != usual.start.hash
    assert "sync_batchnorm" not in json.dumps(canonical(usual)) and canonical(asked)["sync_batchnorm"] is True
    assert "BatchNorm synchronised" in title(asked) and "BatchNorm" not in title(usual)


def test_a_title_says_what_is_off_and_what_is_other_than_usual() -> None:
    usual = LUCIR()
    changed = replace(usual, margin=None, finetune=replace(FINETUNE, epochs=2))
    run = replace(one("lucir").run, method=changed)
    assert title(run, usual).startswith("LUCIR (no margin, other finetune) on glyphs")


def test_a_line_about_a_run_tells_its_protocol_and_its_long_tail() -> None:
    run = one("lucir").run
    both = describe(replace(run, longtail=LongTail(100)))
    assert "base 20 + 5 phases R=6" in both and "on glyphs, imbalance 100" in both
    assert "BatchNorm synchronised" in describe(replace(run, sync_batchnorm=True))


def test_without_tyro_a_method_is_trained_as_the_setting_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = one("lucir", "--seed", "3", "ICaRL").run
    monkeypatch.setitem(sys.modules, "tyro", None)
    monkeypatch.setitem(sys.modules, "tyro.conf", None)
    assert one("lucir", "--seed", "3", "ICaRL").run == expected
    with pytest.raises(InputError, match="need tyro"):
        one("lucir", "ICaRL", "--weight", "2")


def test_the_command_trains_prints_and_reads_what_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each stage has one epoch. The figure of the same preset counts the run as its own."""
    words = ["--epochs-scale", "0.01", "--device", "cpu", "--out", str(tmp_path)]

    def run() -> str:
        with pytest.raises(SystemExit) as ended:
            train.main("lucir", [*words, "LUCIR", "--imprint", "False", "--finetune", "None"])
        assert ended.value.code == 0
        return capsys.readouterr().out

    first = run()
    title = "LUCIR (no imprint, no finetune) on glyphs: base 20 + 5 phases, 6 exemplars a class, order and seed 1993"
    lines = first.splitlines()
    assert lines[0] == title and "  Base, epoch 1 of 1: loss" in first
    assert [line.split(":")[0] for line in lines if line.startswith("  LUCIR")] == [
        f"  LUCIR, phase {i}, {20 + 4 * i} classes" for i in range(5)
    ]
    printed = lines[lines.index("") :]
    digest = Path(printed[-1]).name
    result = Store(tmp_path).load(digest)
    assert result and printed == ["", title, *table(result), str(tmp_path / "runs" / digest)]
    assert [line.split()[0] for line in table(result)] == ["phase", "0", "1", "2", "3", "4", "5", "average"]
    cnn = [phase["stages"][stage]["cnn"]["accuracy"] for phase in result.phases() for stage in phase["stages"]]
    assert table(result)[-1].split()[1] == f"{sum(cnn) / 6:.2f}"
    for stage in result.phases()[0]["stages"].values():
        del stage["nme"]
    assert len(table(result)[1].split()) == 3 and "nan" not in "".join(table(result))  # nme is missing in one phase
    assert run() == "\n".join(printed) + "\n" and len(list(tmp_path.glob("runs/*/result.json"))) == 2
    own = one("lucir", *words[:2], "LUCIR", "--imprint", "False", "--finetune", "None").run
    assert own.hash[:12] == digest[:12]
    assert main([*words, "--only", "fig5c", "--list"], "lucir") == 0
    listed = capsys.readouterr().out
    assert "0/2 runs finished, 3 to train" in listed and listed.count("to train: Base") == 1  # the other exists


def test_minutes_cut_it_off_and_the_same_command_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--epochs-scale", "0.1", "--device", "cpu", "--out", str(tmp_path)]
    for minutes, code in (["--minutes", "0.00001"], 130), ([], 0):
        with pytest.raises(SystemExit) as ended:
            train.main("class_balanced", [*words, *minutes, "ClassBalanced", "--loss", "softmax", "--gamma", "0"])
        assert ended.value.code == code
    printed = capsys.readouterr().out
    assert printed.splitlines()[-3].split() == ["read-out", "accuracy", "many", "medium", "few"]
    assert "imbalance 20, order native, seed 0" in printed


def test_lines_of_a_queue_train_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Command] = []
    monkeypatch.setattr("common.command.cli.work", lambda commands, use: taken.extend(commands) or 0)
    (tmp_path / "queue.txt").write_text("train lucir --preset cifar LUCIR --margin None\nbbn --only table1\n")
    assert main(["queue", str(tmp_path / "queue.txt")]) == 0
    assert isinstance(taken[0], train.One) and type(taken[1]) is Command
    assert taken[0].run == one("lucir", "--preset", "cifar", "LUCIR", "--margin", "None").run
    assert taken[0].place.endswith("queue.txt, line 1: ")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train", "train is followed by one of lucir"),
        ("train LUCIR", "train is followed by one of lucir"),
        ("train lucir FOO", "unknown method 'FOO'"),
        ("train lucir --out here", "--out belongs to the queue command"),
        ("train lucir --seed -1", "a seed must be 0 or more"),
        ("train lucir LUCIR --negatives 30", "the margin loss takes K = 30"),
    ],
)
def test_a_wrong_line_is_named(line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "queue.txt").write_text(f"# one line\n{line}\n")
    assert main(["queue", str(tmp_path / "queue.txt"), "--out", str(tmp_path)]) == 2
    assert f"queue.txt, line 2: {message}" in capsys.readouterr().err


@pytest.fixture
def known(tiny_data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.data.datasets.load", lambda spec, root, cache: tiny_data)


@pytest.mark.usefixtures("known")
def test_from_python_a_run_is_trained_once(
    tiny_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Run may name a package without figures, and even without a folder."""
    run = replace(tiny_run(Base("cosine")), fingerprint="", precision="", paper="mine")
    with pytest.raises(OutOfTime):
        train.train(run, tmp_path, device="cpu", minutes=1e-9)
    result = train.train(run, str(tmp_path), device="cpu", precision="fp32")
    assert result.config["method"]["head"] == "cosine" and len(result.phases()) == 3
    assert "average" in capsys.readouterr().out
    finished = tmp_path / "runs" / result.hash / "result.json"
    before = finished.stat().st_mtime_ns
    again = train.train(run, tmp_path, device="cpu", precision="fp32")
    assert again.hash == result.hash and finished.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="unknown precision"):
        train.train(run, tmp_path, precision="fp64")
    settled = run.resolved(result.config["fingerprint"], "fp32")
    assert train.train(settled, tmp_path, device="cpu").hash == result.hash == settled.hash
    with pytest.raises(InputError, match="the run is in fp32; leave precision out"):
        train.train(settled, tmp_path, device="cpu", precision="bf16")
    with pytest.raises(InputError, match=r"on other images of .* than those at hand"):
        train.train(run.resolved("of yesterday", "fp32"), tmp_path, device="cpu")
    with pytest.raises(InputError, match="do not divide into phases of 7"):
        train.train(replace(run, protocol=replace(run.protocol, step=7)), tmp_path, device="cpu")
    with pytest.raises(RunFailed, match="loss"):
        train.train(replace(run, schedule=Schedule(2, lr=1e30, batch=8)), tmp_path, device="cpu", precision="fp32")


def test_published_numbers_stand_beside_the_papers_settings_alone(tmp_path: Path) -> None:
    def lines(*words: str) -> list[str]:
        made = one("lucir", *words)
        plan = Plan("lucir", made.choice, made.settings, [], [], Store(tmp_path), Data(None, tmp_path))
        return published_lines(plan, made.run, fakes.lucir(made.run))

    full, short = lines("--preset", "cifar"), lines("--preset", "cifar", "--epochs-scale", "0.05")
    assert full[0] == "published (Fig. 5(c): class-incremental accuracy, 5 phases; the paper's settings)"
    assert any(line.startswith("  LUCIR-CNN, average incremental accuracy (%): 63.42, here ") for line in full)
    assert not any("iCaRL" in line for line in full)
    assert short[0].endswith("; here the paper's epochs x 0.05)") and len(short) == len(full)
    assert not lines() and not lines("--preset", "cifar", "LUCIR", "--imprint", "False")


@pytest.mark.parametrize("paper", ["bbn", "class_balanced", "fsa"])
def test_no_published_number_stands_beside_an_imbalance_that_the_paper_lacks(paper: str, tmp_path: Path) -> None:
    for setting in fakes.settings(paper, "cifar"):
        for method in map(type_name, map(type, setting.defaults())):
            made = one(paper, "--preset", "cifar", "--dataset", setting.role, "--imbalance", "7", method)
            plan = Plan(paper, made.choice, made.settings, [], [], Store(tmp_path), Data(None, tmp_path))
            assert published_lines(plan, made.run, getattr(fakes, paper)(made.run)) == [], method


def test_epochs_of_one_phase_are_told_now_and_then(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = one("class_balanced", "--preset", "cifar")
    run = made.run.resolved("0123456789abcdef", "fp32")
    store = Store(tmp_path)
    plan = Plan("class_balanced", Choice(), made.settings, [], [], store, Data(None, tmp_path))
    part = Single(plan, tmp_path, open={run.hash}, training=[run])
    folder = store.folder(run)
    folder.mkdir(parents=True)
    line = '{"loss": 1.5, "images": 1, "test_accuracy": 40.0}\n'
    for count in (19, 20, 20, 41):
        (folder / "metrics.jsonl").write_text(line * count)
        part.follow()
    told = capsys.readouterr().out.splitlines()
    assert told == [f"  ClassBalanced, epoch {e} of 200: loss 1.5000, accuracy 40.00" for e in (20, 40)]


def test_nothing_of_it_loads_torch_before_it_trains() -> None:
    code = (
        "import sys; from common.command import train; train.line('lucir', [], ''); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
