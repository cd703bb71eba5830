"""Tests figures of the catalogue on made-up Results, and how repeats are averaged."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import fakes
import numpy as np
import pytest
from fakes import fsa as fake
from PIL import Image

from common.command import cli
from common.data.datasets import DataSpec, load
from common.drawing import plots
from common.drawing.figures import Curve, Drawing, Panel, verdict
from common.drawing.results import _pack
from common.runs import Run
from fsa.reproduce import measures
from fsa.reproduce.catalogue import FIGURES
from fsa.reproduce.figures import TUNED
from fsa.reproduce.pictures import class_name, class_names
from fsa.reproduce.presets import settings

BY_ID = {figure.id: figure for figure in FIGURES}
draw = partial(fakes.draw, "fsa")


# Averages and gains


def test_intervals_are_over_phase_two_seeds_where_phase_one_is_shared() -> None:
    groups = BY_ID["control-cifar10"].runs(settings("cifar", [0], None, 1.0))
    ours = [fake(run, 60 + run.seed) for run in groups[TUNED]]
    control = [fake(run, 55 + (run.seed == 4)) for run in reversed(groups["No Aug"])]
    first = [fake(run, 50) for run in groups["Phase I"]]
    found = measures.gain(ours, control)
    assert found and (found.mean, found.n, found.whole) == (pytest.approx(np.mean([5, 6, 7, 8, 8])), 5, False)
    assert found.interval == pytest.approx(2.776445 * np.std([5, 6, 7, 8, 8], ddof=1) / 5**0.5, rel=1e-5)
    over_first = measures.gain(ours, first)
    assert over_first and (over_first.mean, over_first.n) == (12, 5)
    assert "5 Phase-II seeds alone" in measures.over_what([ours, control, first])


def test_reports_say_what_augmentation_adds() -> None:
    """They list paired gains over five Phase-II seeds, for both samplings of tail images, and the paper's numbers."""

    def right(run: Run) -> int:
        if run.start is None:
            return 50
        return 55 + run.seed + (3 if run.method.donors else 0) + (10 if run.method.tail_draw == "classes" else 0)

    drawing = draw("control-cifar10", "cifar", seeds=[0], make=lambda run: fake(run, right(run)))
    rows = {(row.method, row.quantity): row for row in drawing.comparisons}
    found = rows[TUNED, "minus No Aug (points, paired), tail"].ours
    assert found and (found.mean, found.interval, found.n) == (3, 0, 5)
    assert rows["Phase I", "test accuracy (%), all"].published == 75.16
    assert rows[TUNED, "test accuracy (%), all"].published == 80.57
    assert rows[TUNED, "test accuracy (%), tail"].published is None
    by_class = rows["FSA, tail by class", "minus No Aug, tail by class (points, paired), all"].ours
    assert by_class and (by_class.mean, by_class.n) == (3, 5)
    over_first = rows[TUNED, "minus Phase I (points, paired), all"]
    assert over_first.published == 5.41 and over_first.ours and over_first.ours.mean == 10
    added = {c.name: list(c.y) for panel in drawing.panels[2:] for c in panel.curves}
    assert added == {"FSA - No Aug": [3] * 10, "No Aug - Phase I": [7] * 10, "FSA - Phase I": [10] * 10}
    assert "Phase I of seed 0 and its views shared" in drawing.note
    hundred = draw("control-cifar100", "cifar", seeds=[0], make=lambda run: fake(run, right(run)))
    assert {len(curve.x) for panel in hundred.panels[2:] for curve in panel.curves} == {10}  # sizes side by side


def test_classes_have_names_where_the_data_set_gives_them() -> None:
    assert {row.method for row in draw("fig4", "cifar", seeds=[0]).comparisons} == {"airplane, automobile, cat, ship"}
    assert {row.method for row in draw("fig4", "quick").comparisons} == {"classes 0, 1, 3, 8"}
    assert draw("tsne", "cifar", seeds=[0]).panels[0].title.endswith("donors: airplane, automobile")


def test_classes_have_the_names_that_loading_gives_their_labels(tmp_path: Path) -> None:
    """Under the folder names of a tutorial, a bird sorts first, and is still called a bird."""
    for split in ("train", "test"):
        for i, folder in enumerate(("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")):
            (tmp_path / split / folder).mkdir(parents=True)
            Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / split / folder / "0.png")
    data = load(DataSpec("cifar10"), tmp_path)
    ten, hundred = (
        next(s for s in settings("cifar", [0], None, 1.0) if s.role == role) for role in ("cifar10", "cifar100")
    )
    for image, label in zip(np.asarray(data.train_images), data.train_labels, strict=True):
        assert class_name(ten, int(label)) == data.classes[label]
        assert (class_name(ten, int(label)) == "bird") == (image[0, 0, 0] == 2)
    assert class_names(hundred, (0, 99)) == "apple, worm"


def test_intervals_are_over_phase_one_seeds_where_there_are_several() -> None:
    groups = BY_ID["control-cifar10"].runs(settings("cifar", [0, 1], None, 1.0))

    def right(run: Run) -> int:
        assert run.start and run.start.start
        return 60 + run.seed + 10 * run.start.start.seed

    found = measures.mean([fake(run, right(run)) for run in groups[TUNED]])
    assert found and (found.mean, found.n) == (67, 2) and found.std == pytest.approx(10 / 2**0.5)
    assert "2 Phase-I seeds" in measures.over_what([[fake(run) for run in groups[TUNED]]])
    unpaired = [fake(run) for run in groups[TUNED][:1]], [fake(run) for run in groups["No Aug"][1:2]]
    assert measures.gain(*unpaired) is None and measures.mean([]) is None


def test_head_and_tail_accuracy() -> None:
    """On CIFAR-10-LT with factor 100, classes 5 to 9 are the tail."""
    run = BY_ID["control-cifar10"].runs(settings("cifar", [0], None, 1.0))["Phase I"][0]
    result = fake(run)
    confusion = np.diag(np.arange(10) * 10).astype(np.int32)
    confusion[:, 0] += 100 - np.arange(10, dtype=np.int32) * 10
    result.values["confusion"]["cnn"] = _pack(confusion)
    assert measures.on_head(result) == pytest.approx((100 + 10 + 20 + 30 + 40) / 5)
    assert measures.on_tail(result) == pytest.approx(70)
    assert measures.on_classes(result, [7]) == 70


def test_tables_hold_the_published_numbers_and_gains() -> None:
    drawing = draw("table1-resnet18", "cifar", seeds=[0, 1, 2], make=lambda run: fake(run, 80))
    rows = {(row.method, row.quantity): row for row in drawing.comparisons}
    assert rows[TUNED, "test accuracy (%), factor 100"].published == 80.57
    assert verdict(rows[TUNED, "test accuracy (%), factor 100"], True) == "reproduced"
    assert verdict(rows["CE", "test accuracy (%), factor 100"], True) == "not reproduced"
    gain = rows[TUNED, "FSA - CE (points, paired), factor 200"]
    assert gain.published == 6.84 and gain.ours and gain.ours.mean == 0
    assert rows[TUNED, "FSA - No Aug (points, paired), factor 200"].published is None
    paper = {c.name: list(c.y) for c in drawing.panels[1].curves}
    assert paper["CE"] == [90.73, 87.24, 82.32, 75.16, 70.22] and len(paper) == 8


def test_phase_two_is_drawn_in_passes_over_the_tail() -> None:
    """6,400 iterations of 16 out of 1,034 tail images are the paper's 99 epochs, drawn from epoch 300 on."""
    drawing = draw("fig6", "cifar", seeds=[0], make=lambda run: fake(run, 70 if run.start is None else 77))
    both, zoom, training = drawing.panels
    ours = next(c for c in both.curves if c.name == TUNED)
    assert float(ours.x[0]) == 300 and float(ours.x[-1]) == pytest.approx(300 + 400 * 16 / 1034, rel=1e-3)
    zoomed = next(c for c in zoom.curves if c.name == TUNED)
    assert (list(zoomed.x), list(zoomed.y)) == ([0, 200, 400], [70, 20, 77]), "it starts where Phase I ended"
    losses = next(c for c in training.curves if c.name == TUNED)
    assert (list(losses.x), list(losses.y)) == ([100, 200, 300, 400], [2.0, 1.0, 0.5, 0.2])
    assert "images drawn afresh" in drawing.note


def test_notes_say_what_phase_two_draws_from() -> None:
    assert "Phase II from 10 cached augmented views of each image" in draw("control-cifar10", "cifar", seeds=[0]).note
    note = draw("source-cifar10", "cifar", seeds=[0]).note
    assert "images drawn afresh or 1 cached augmented view of each image or 10 cached" in note


def test_the_change_of_confusion() -> None:
    drawing = draw("fig7-cifar10", "cifar", seeds=[0], make=lambda run: fake(run, 50 if run.start is None else 60))
    before, control, ours = drawing.panels
    assert ours.matrix is not None and (np.diag(ours.matrix) == 10).all() and (ours.matrix.sum(axis=1) == 0).all()
    rows = {(row.method, row.quantity): row.ours for row in drawing.comparisons}
    taken = rows[TUNED, "tail taken for head (% of its test images)"]
    assert taken and taken.mean == 40
    assert before.boundary == 4 and control.kind == "change"


def test_without_phase_one_the_confusion_of_phase_two_is_shown_as_it_is() -> None:
    """Records of Phase II alone leave no matrix to compare with."""
    chosen = settings("cifar", [0], None, 1)
    groups = {name: runs for name, runs in BY_ID["fig7-cifar10"].runs(chosen).items() if name != "Phase I"}
    drawing = draw("fig7-cifar10", "cifar", groups, make=lambda run: fake(run, 60))
    assert [(panel.kind, panel.title) for panel in drawing.panels] == [
        ("matrix", "No Aug: 60.00 %"),
        ("matrix", "FSA: 60.00 %"),
    ]


# Pictures and the command


def test_the_uniform_ratio_is_a_line_across() -> None:
    ratio = draw("numbers-cifar10", "cifar", seeds=[0]).panels[0]
    assert [(c.name, c.reference) for c in ratio.curves] == [(TUNED, False), ("No Aug", True), ("ratio U(0, 1)", True)]
    assert list(ratio.curves[0].x) == ["0", "0.25", "0.5", "0.75", "1"]


def test_pictures_are_drawn(tmp_path: Path) -> None:
    """These are points, images and signed matrices, with their numbers."""
    image = np.zeros((4, 6, 3))
    image[:2, :3, 0] = 255
    panels = [
        Panel("points", "", "", [Curve("a", [0, 1], [1, 0]), Curve("b", [2], [2], reference=True)], kind="scatter"),
        Panel("images", "", "", kind="picture", matrix=image, rows=("one", "two"), columns=("x", "y")),
        Panel("change", "predicted", "true", kind="change", matrix=np.array([[3, -3], [0, 0]]), boundary=1),
    ]
    figure = plots.build(Drawing(panels), "title", "caption")
    points, images, change = figure.axes[:3]
    assert [len(c.get_offsets()) for c in points.collections] == [2, 1]
    assert [t.get_text() for t in images.get_xticklabels()] == ["x", "y"]
    drawn = images.images[0].get_array()
    assert drawn is not None and drawn.shape == (4, 6, 3) and drawn.max() == 1
    assert change.collections[0].get_clim() == (-3, 3) and len(change.lines) == 2
    plots.render(Drawing(panels), "title", "caption", tmp_path / "f")
    assert json.loads((tmp_path / "f.json").read_text())["panels"][2]["matrix"] == [[3, -3], [0, 0]]


def test_list_names_figures_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--list", "--out", str(tmp_path)], paper="fsa")
    captured = capsys.readouterr()
    assert (ended.value.code or 0, captured.err) == (0, "")
    assert all(id in captured.out for id, figure in BY_ID.items() if "quick" in figure.presets)
