"""Tests `--preset folder`: the papers' comparisons on the user's images, and what is refused before any training."""

from __future__ import annotations

import importlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from commands import main, results
from fakes import FAKES
from tiny import TinyNet
from trees import write_image

from common import resnet
from common.command import own, train
from common.command.own import Folder, Options, fit
from common.command.plan import PAPERS, check, published
from common.command.queue import Place
from common.data.datasets import Dataset, DataSpec
from common.data.names import FOLDER
from common.drawing.figures import Drawing, Figure
from common.drawing.plots import build
from common.errors import InputError
from common.runs import LongTail, Protocol, Run, Schedule
from lucir.methods import LUCIR, ICaRL
from lucir.reproduce.compare import compare

INCREMENTAL, LONG_TAILED = PAPERS[:3], PAPERS[3:]
GROWING, DRAWN = Options(base=6, phases=3), Options(imbalance=20)


def dataset(counts: Sequence[int], side: int = 16, large: bool = False) -> Dataset:
    """Return a data set of black images with these class sizes. Large images are paths, which nothing opens."""
    labels, classes = np.repeat(np.arange(len(counts)), counts), np.arange(len(counts))
    train, test = (np.zeros((len(part), side, side, 3), np.uint8) for part in (labels, classes))
    files = [tuple(Path(str(i)) for i in range(len(part))) for part in (labels, classes)]
    images = files if large else (train, test)
    return Dataset(FOLDER, images[0], labels, images[1], classes, tuple(f"class {c}" for c in classes), "f" * 16)


def folder(counts: Sequence[int], options: Options, large: bool = False) -> Folder:
    return Folder.from_dataset(dataset(counts, large=large), options)


def settings(paper: str, folder: Folder, scale: float = 1.0) -> tuple:
    return importlib.import_module(f"{paper}.reproduce.presets").settings(FOLDER, (), (), scale, folder)


def figures(paper: str) -> list[Figure]:
    return importlib.import_module(f"{paper}.reproduce.catalogue").OWN


def options(paper: str) -> Options:
    return GROWING if paper in INCREMENTAL else DRAWN


def runs(paper: str, folder: Folder) -> list[Run]:
    """Return every Run of a paper's figures, and the Runs that they start from."""
    found = [run for f in figures(paper) for group in f.runs(settings(paper, folder)).values() for run in group]
    return list(dict.fromkeys(each for run in found for each in run.chain))


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("paper", PAPERS)
def test_every_paper_runs_on_twelve_classes_of_sixty_images(paper: str, large: bool) -> None:
    """Runs have the paper's epochs, ResNet-32 or ResNet-18, and the data's own name and inputs.

    `check` accepts them.
    """
    images, kind = dataset([60] * 12, large=large), "resized-crop" if large else "crop-flip"
    paper_schedule = importlib.import_module(f"{paper}.reproduce.presets").SETTINGS["imagenet" if large else "cifar"][0]
    for run in runs(paper, Folder.from_dataset(images, options(paper))):
        check(run, images)
        assert run.data == DataSpec(FOLDER) and run.inputs.kind == kind
        assert run.network.startswith("resnet18" if large else "resnet32")
        assert sum(run.protocol.sizes) in (6, 12)
        if run.start is None and paper != "der":  # whose base model has a schedule of its own
            assert run.schedule.epochs == paper_schedule.schedule.epochs
            assert run.schedule.batch == 32


@pytest.mark.parametrize("paper", INCREMENTAL)
def test_classes_arrive_as_asked(paper: str) -> None:
    last = [run.protocol for run in runs(paper, folder([60] * 12, Options(base=6, phases=2, exemplars=7)))]
    grown = [p for p in last if len(p.sizes) > 1]
    assert grown and all(p.sizes == [6, 3, 3] for p in grown)
    assert {p.exemplars_per_class for p in grown} <= {0, 7} and Protocol(12, 6, 3, 7) in grown


def test_feature_adaptation_steps_as_far_on_few_classes_as_on_a_hundred() -> None:
    """The rate, divided by the number of classes that the loss averages over, is 2 / 100 as on CIFAR-100."""
    chosen = settings("feature_adaptation", folder([60] * 12, GROWING))[0]
    assert chosen.schedule.lr / 12 == pytest.approx(2 / 100)


@pytest.mark.parametrize("paper", LONG_TAILED)
def test_a_long_tail_is_drawn_or_taken_as_it_is(paper: str) -> None:
    drawn = runs(paper, folder([60] * 12, DRAWN))
    assert {run.longtail for run in drawn} == {LongTail(20)}
    assert {run.longtail for run in runs(paper, folder([60, 5, 40, 200], Options()))} == {None}


def shown(paper: str, figure: Figure, chosen: tuple) -> Drawing:
    found = {name: [FAKES[paper](run) for run in group] for name, group in figure.runs(chosen).items()}
    return figure.draw(chosen, found, published(paper))


@pytest.mark.parametrize("asked", [None, Options()])
@pytest.mark.parametrize("paper", PAPERS)
def test_figures_are_drawn_and_hold_nothing_published(paper: str, asked: Options | None) -> None:
    """This holds with and without an imbalance.

    Curves of the paper would be `published`, and rows would have its numbers.
    """
    if paper in INCREMENTAL or asked is None:
        asked = options(paper)
    chosen = settings(paper, folder([60] * 12 if asked.given else [60, 5, 40, 200], asked), scale=0.1)
    assert not any(s.comparable or s.full_schedule for s in chosen)
    for figure in figures(paper):
        drawing = shown(paper, figure, chosen)
        build(drawing, figure.title, "", {})
        assert drawing.comparisons and all(row.published is None for row in drawing.comparisons)
        curves = [curve for panel in drawing.panels for curve in panel.curves]
        assert curves and not any(curve.published for curve in curves)
        words = " ".join(panel.title for panel in drawing.panels) + figure.title + drawing.note
        assert not {"CIFAR", "glyphs", "embedded", "ImageNet"} & set(words.replace("-", " ").split())


@pytest.mark.parametrize(
    ("paper", "counts", "asked", "message"),
    [
        ("lucir", [60] * 12, Options(), "with --base 6, --phases may be 1, 2 or 3"),
        ("lucir", [60] * 12, Options(base=5, phases=3), "with --base 5, --phases may be 1"),
        ("der", [60] * 3, Options(), "with --base 2, --phases may be 1"),  # the one class left makes the phase
        ("der", [60] * 12, Options(phases=4), "with --phases 4, --base may be 4"),
        ("der", [60] * 12, Options(base=12, phases=5), "with --phases 5, --base may be 2"),
        ("der", [60] * 12, Options(base=1, phases=11), "with --base 6, --phases may be"),
        ("feature_adaptation", [60] * 2, Options(base=2, phases=1), "three classes or more"),
        (
            "lucir",
            [60, 9, 60, 60],
            Options(base=2, phases=1),
            "must be 1 to 9, the images of class 'class 1', got 20, the default",
        ),
        ("lucir", [60] * 4, Options(base=2, phases=1, exemplars=0), "--exemplars must be 1 to 60"),
        ("lucir", [60] * 4, Options(base=2, phases=1, imbalance=9), "--imbalance: not for lucir"),
        ("bbn", [60] * 4, Options(base=2, exemplars=3), "--base and --exemplars: not for bbn"),
        ("bbn", [60] * 4, Options(), "each of the 4 classes has 60 training images, which is no long tail"),
        ("class_balanced", [60] * 4, Options(imbalance=100), "leaves classes without images"),
        ("class_balanced", [60] * 4, Options(imbalance=0.1), "at least 1, got 0.1"),
        ("class_balanced", [60, 20, 10], Options(imbalance=2), "asks for 42 images"),
        ("fsa", [60, 55, 50], Options(), "fsa finds no tail: it takes all 3 classes to hold 90%"),
        ("fsa", [60], Options(imbalance=2), "one class, 'class 0'"),
    ],
)
def test_what_is_impossible_is_refused(paper: str, counts: list[int], asked: Options, message: str) -> None:
    with pytest.raises(InputError) as caught:
        settings(paper, folder(counts, asked))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("paper", PAPERS)
def test_train_makes_the_very_run_behind_the_figure(paper: str, tmp_path: Path) -> None:
    counts = (9, 9, 9, 9, 9) if paper in INCREMENTAL else (30, 9, 4, 1)
    for kind, count in enumerate(counts):
        for number in range(count):
            write_image(tmp_path / "data" / "train" / f"{kind}" / f"{number}.png", number, (8, 8))
        write_image(tmp_path / "data" / "test" / f"{kind}" / "0.png", 99, (8, 8))
    growing = ["--base", "3", "--phases", "1", "--exemplars", "4"] if paper in INCREMENTAL else []
    one = train.line(paper, ["--preset", "folder", *growing], "", Place(data=tmp_path / "data", out=tmp_path))
    asked = Options(base=3, phases=1, exemplars=4) if growing else Options()
    behind = runs(paper, folder(counts, asked))
    assert one.run.key in {run.key for run in behind} and one.run.data == DataSpec(FOLDER)


def test_a_method_of_ones_own_is_compared_on_images_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5 * 3):
        write_image(tmp_path / "data" / "train" / f"{number % 5}" / f"{number}.png", number, (8, 8))
        write_image(tmp_path / "data" / "test" / f"{number % 5}" / f"{number}.png", 99 + number, (8, 8))
    words = ["--preset", "folder", "--data", str(tmp_path / "data"), "--base", "3", "--phases", "1", "--list"]
    with pytest.raises(SystemExit) as ended:
        compare({"mine": ICaRL(weight=2.0)}, words=[*words, "--exemplars", "2", "--out", str(tmp_path)])
    found = capsys.readouterr()
    assert ended.value.code == 0, found.err
    assert "mine beside iCaRL and LUCIR, 1 phase" in found.out and found.out.count("base 3 + 1 phase R=2") == 3


def test_what_would_divide_does() -> None:
    """Every option that an error suggests is accepted."""
    for base, phases in ((6, 1), (6, 2), (6, 3), (6, 6), (4, 4), (8, 4)):
        found = folder([60] * 12, Options(base=base, phases=phases)).incremental("der")
        assert Protocol(12, found.base, found.step).sizes == [base] + [(12 - base) // phases] * phases


@pytest.mark.parametrize("paper", INCREMENTAL)
def test_class_means_have_no_swapped_colours(paper: str) -> None:
    """The official code swaps channels on CIFAR. On other images, classes may differ in colour alone."""
    flips = {getattr(run.method, "nme_flip", "none") for run in runs(paper, folder([60] * 12, GROWING))}
    assert "channels" not in flips


@pytest.mark.parametrize("paper", INCREMENTAL)
def test_what_an_error_suggests_every_paper_can_learn(paper: str) -> None:
    for count in (3, 4, 7, 12):
        for base in range(2, count):
            ways = own._ways(count, base, None).rpartition("may be ")[2]
            for phases in map(int, re.findall(r"\d+", ways)):
                classes = (count - base) // phases
                for run in runs(paper, folder([60] * count, Options(base=base, phases=phases))):
                    if classes > 1 or not isinstance(run.method, LUCIR):
                        run.check()
                assert classes > 1 or ways == "1"


def test_images_too_small_for_a_network_are_refused() -> None:
    with pytest.raises(InputError, match="images of 7x7 pixels are too small"):
        Folder.from_dataset(dataset([3, 3], side=7), Options())


@pytest.mark.parametrize(
    ("images", "batch"), [(10_000, 128), (1280, 128), (1279, 64), (640, 64), (639, 32), (320, 32), (5, 32)]
)
def test_few_images_get_small_batches(images: int, batch: int) -> None:
    assert fit(Schedule(9, batch=128), images) == Schedule(9, batch=batch)
    assert fit(Schedule(9, batch=16), images).batch == 16


def test_no_option_of_another_preset_is_ignored() -> None:
    assert [f"--{f.name}" for f in fields(Options)] == Options(base=1, phases=1, exemplars=1, imbalance=1).given


@pytest.mark.parametrize(
    ("paper", "words", "message"),
    [
        ("lucir", ["--base", "6"], "--base: for --preset folder only"),
        ("bbn", ["--preset", "cifar", "--imbalance", "9"], "--imbalance: for --preset folder only"),
        ("lucir", ["--data", "."], "the quick preset draws its own images; --preset folder trains on yours"),
        ("lucir", ["--preset", "folder"], "--preset folder needs --data DIR"),
        ("lucir", ["--preset", "folder", "--data", "."], "has no train/<class>/*.png and test/<class>/*.png"),
    ],
)
def test_wrong_options_end_before_training(
    paper: str, words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--out", str(tmp_path)], paper) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list((tmp_path / "runs").glob("*/*"))


def test_a_queue_may_mix_the_quick_preset_with_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--data concerns only the lines that read data."""
    (tmp_path / "queue").write_text("class_balanced --only fig3\nclass_balanced --preset cifar --only fig3\n")
    assert main(["queue", str(tmp_path / "queue"), "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    (tmp_path / "queue").write_text("class_balanced --only fig3\n")
    assert main(["queue", str(tmp_path / "queue"), "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "is not used" in capsys.readouterr().err


def test_a_folder_from_images_to_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """iCaRL and LUCIR train on 4 classes of 5 to 8 images and make a report. A renamed folder gives the same runs."""
    monkeypatch.setitem(resnet.BACKBONES, "resnet32", TinyNet)
    data = tmp_path / "flowers"
    for kind, count in enumerate((5, 6, 7, 8)):
        for number in range(count):
            write_image(data / "train" / f"kind {kind}" / f"{number}.png", 10 * kind + number, (15, 16))
        write_image(data / "val" / f"kind {kind}" / "0.png", 99 + kind, (15, 16))
    words = ["--preset", "folder", "--base", "2", "--phases", "1", "--exemplars", "3", "--epochs-scale", "0.01"]
    words += ["--out", str(tmp_path / "out"), "--device", "cpu", "--jobs", "1"]
    assert main([*words, "--data", str(data)], "lucir") == 0, capsys.readouterr().err
    trained = results(tmp_path / "out")
    assert len(trained) == 4  # two methods, and the base model of each
    report = (tmp_path / "out" / "folder-x0.01" / "lucir" / "report.md").read_text(encoding="utf-8")
    assert "images of one's own (flowers, 4 classes), which no published number is about" in report
    assert "| quantity | method | ours |" in report and "| published" not in report
    shutil.copytree(data, tmp_path / "renamed")
    assert main([*words, "--data", str(tmp_path / "renamed")], "lucir") == 0
    assert results(tmp_path / "out").keys() == trained.keys()
