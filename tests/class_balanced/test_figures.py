"""Tests figures of the catalogue on made-up Results: what they plot and compare, and their verdicts."""

from __future__ import annotations

from functools import partial

import fakes
import numpy as np
import pytest
from fakes import accuracy_of
from fakes import class_balanced as fake

from class_balanced.reproduce.catalogue import FIGURES
from class_balanced.reproduce.figures import GAIN, legend_of
from class_balanced.reproduce.presets import settings
from class_balanced.reproduce.tables import GRIDS, printed_name
from common.command.plan import published
from common.drawing.figures import verdict
from common.runs import Run
from common.store import Result

PUBLISHED = published("class_balanced")
draw = partial(fakes.draw, "class_balanced")
BY_ID = {figure.id: figure for figure in FIGURES}


def test_keys_of_recorded_runs_stay_as_they_are() -> None:
    """A new field must not change the hashes by which records are found."""
    chosen = settings("cifar", [0], None, 1.0)
    keys = {n: [r.key for r in runs] for n, runs in BY_ID["closeup-cifar100"].runs(chosen).items()}
    assert keys == {
        ("SM", 100): ["59d56804ea7d"],
        ("SM_0.9999", 100): ["b769b6a22847"],
        ("Focal_1.0_0.9", 100): ["ecb84213093a"],
    }
    assert list(BY_ID["closeup-cifar10"].runs(chosen)) == [("SM", 50), ("SM_0.9999", 50), ("Focal_2.0_0.9999", 50)]


@pytest.mark.parametrize(("id", "role"), [("fig8", "cifar10"), ("fig9", "cifar20"), ("fig10", "cifar100")])
def test_grids_hold_every_model_with_the_papers_numbers_beside(id: str, role: str) -> None:
    drawing = draw(id, "cifar", seeds=[0, 1])
    ours, paper = drawing.panels
    chosen = next(s for s in settings("cifar", [0, 1], None, 1.0) if s.role == role)
    assert ours.matrix is not None and ours.matrix.shape == (25, 5)
    for i, (name, model) in enumerate(chosen.models().items()):
        for j, factor in enumerate(chosen.factors):
            errors = [100 - accuracy_of(run) for run in chosen.runs(model, factor)]
            assert ours.matrix[i, j] == pytest.approx(np.mean(errors))
            row = drawing.comparisons[5 * i + j]
            assert (row.method, row.ours and row.ours.n) == (name, 2)
    assert paper.matrix is not None and np.isfinite(paper.matrix).all()
    printed = {entry["method"]: entry["y"] for entry in PUBLISHED.entries[id]["series"]}
    assert paper.matrix.tolist() == [printed[name] for name in paper.rows]


def test_published_cells() -> None:
    ten, twenty, hundred = (PUBLISHED.figure(GRIDS[role]) for role in ("cifar10", "cifar20", "cifar100"))
    assert hundred.value("SM", 100.0) == (61.68, "printed")
    assert hundred.value("SM_0.9999", 100.0)[0] == 66.01
    assert hundred.value("Focal_1.0_0.9", 100.0)[0] == 60.40
    assert ten.value("Focal_2.0_0.9999", 50.0)[0] == 20.73
    assert twenty.value("SGM_0.999", 100.0)[0] == 48.52
    assert ten.value("SM", 5.0) == (None, "")


@pytest.mark.parametrize("role", ["cifar10", "cifar100"])
def test_measuring_the_published_grid_is_a_reproduction(role: str) -> None:
    """Runs with the errors that the appendix prints give Table 2, its best row included, and verdict "reproduced"."""
    chosen = next(s for s in settings("cifar", [0, 1, 2], None, 1.0) if s.role == role)
    figure, grid, table = BY_ID[f"table2-{role}"], PUBLISHED.figure(GRIDS[role]), PUBLISHED.figure(f"table2-{role}")
    errors = {(name, f): grid.value(name, f)[0] for name in chosen.models() for f in chosen.factors}
    errors |= {(name, 1): table.value(printed_name(model), 1)[0] for name, model in chosen.base_models().items()}
    groups = {**figure.runs([chosen]), **figure.optional([chosen])}
    results = {
        cell: [fake(run, 100 - (errors[cell] or 0) + shift) for run, shift in zip(runs, (-0.5, 0.0, 0.5), strict=True)]
        for cell, runs in groups.items()
    }
    drawing = figure.draw([chosen], results, PUBLISHED)
    ours, paper = (panel.matrix for panel in drawing.panels)
    assert ours is not None and paper is not None and ours.shape == (6, 6)
    np.testing.assert_allclose(ours, paper, atol=1e-9)
    assert {verdict(row, chosen.full_schedule) for row in drawing.comparisons} == {"reproduced"}
    assert ours[-1, 1] == pytest.approx({"cifar10": 25.43, "cifar100": 60.40}[role])
    del results["SM_0.9", 100]
    best = figure.draw([chosen], results, PUBLISHED).panels[0].matrix
    assert best is not None and np.isnan(best[-1, 1]) and np.isfinite(best[-1, 0])


def test_error_against_beta() -> None:
    """In Fig. 5, published values are rings on lines of the same colour, and base losses are horizontal lines."""
    panel, gains = draw("fig5-cifar10", "cifar", seeds=[0], make=lambda r: fake(r, 75.0)).panels
    assert panel.title == "CIFAR-10-LT, factor 50"
    paper = {c.name: list(c.y) for c in panel.curves if c.published}
    assert paper == {
        "CB softmax": [24.54, 23.50, 22.72, 21.95],
        "CB sigmoid": [23.71, 23.18, 22.23, 21.04],
        "CB focal": [23.36, 22.88, 21.87, 20.76],
    }
    assert [list(c.y) for c in panel.curves if c.reference] == [[25.0] * 4] * 3
    assert [list(c.x) for c in panel.curves] == [["0.9", "0.99", "0.999", "0.9999"]] * 9
    assert [list(c.y) for c in gains.curves] == [[2.0] * 5] * 3
    quick = draw("fig5-cifar10", "quick").panels[0]
    assert not any(c.published for c in quick.curves) and quick.title.startswith("glyphs, 10 classes")


def test_curves_over_training() -> None:
    """Test errors are drawn only for tested epochs.

    The last error is compared with the authors' re-run of their code.
    """
    drawing = draw("curves-cifar10", "cifar", seeds=[0], make=lambda r: fake(r, 75.0))
    tested, losses = drawing.panels
    assert [(list(c.x), list(c.y)) for c in tested.curves] == [([2, 3, 4], [80.0, 23.0, 25.0])] * 6
    assert [(list(c.x), list(c.y)) for c in losses.curves] == [([1, 2, 3, 4], [2.0, 1.0, 0.5, 0.25])] * 6
    assert len({(c.name, c.legend) for c in tested.curves}) == 6
    assert [row.published for row in drawing.comparisons] == [24.02, 20.82, 22.83, 20.78, 24.70, 20.58]


def test_names_in_legends() -> None:
    chosen = settings("cifar", None, None, 1.0)[0]
    assert legend_of(chosen, "SM") == ("Softmax", "")
    assert legend_of(chosen, "Focal_0.5") == ("Focal", "gamma 0.5")
    assert legend_of(chosen, "Focal_1.0_0.999") == ("CB focal", "gamma 1, beta 0.999")
    assert printed_name(chosen.models()["Focal_1.0_0.9999"]) == "CB Focal (beta=0.9999, gamma=1.0)"


def test_classes_from_head_to_tail() -> None:
    drawing = draw("closeup-cifar10", "cifar", seeds=[0])
    accuracy, norms = drawing.panels[3:]
    assert list(accuracy.curves[0].y) == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert list(norms.curves[0].y) == pytest.approx(np.linspace(2, 1, 10))
    run = BY_ID["closeup-cifar10"].runs(settings("cifar", [0], None, 1.0))["SM", 50][0]
    rows = {row.quantity: row.ours for row in drawing.comparisons if row.method == "SM"}
    found = rows["accuracy (%), few (< 20)"]
    assert found and found.mean == pytest.approx(accuracy_of(run) - 9) and len(rows) == 4


def test_choosing_the_test_epoch_gains_last_minus_best() -> None:
    rows = [row for row in draw("fig5-cifar100", "cifar", seeds=[0, 1]).comparisons if row.quantity == GAIN]
    assert {row.ours.mean for row in rows if row.ours} == {2.0} and len(rows) == 15


def test_a_best_epoch_is_never_worse_than_the_last() -> None:
    """The test at the end counts too, even if no test during training fell on the last epoch."""

    def falling(run: Run) -> Result:
        result = fake(run, 60.0)
        result.values["trace"]["test_accuracy"] = [None, 50.0, None, None]
        return result

    rows = [row for row in draw("fig5-cifar10", "quick", make=falling).comparisons if row.quantity == GAIN]
    assert {row.ours.mean for row in rows if row.ours} == {0.0} and len(rows) == 9


def test_two_reductions_are_paired_by_seed() -> None:
    drawing = draw("reduction-cifar100", "cifar", seeds=[0, 1, 2])
    chosen = settings("cifar", [0, 1, 2], None, 1.0)
    groups = BY_ID["reduction-cifar100"].runs(chosen)
    assert [n for n, reduction in groups if reduction != "batch"] == ["SM_0.9", "SM_0.99", "SM_0.999", "SM_0.9999"]
    for name in ("SM_0.99", "SM_0.9999"):
        assert [r.method.reduction for r in groups[name, "weighted_mean"]] == ["weighted_mean"] * 3
        both = zip(groups[name, "weighted_mean"], groups[name, "batch"], strict=True)
        gaps = [accuracy_of(b) - accuracy_of(a) for a, b in both]
        row = next(r for r in drawing.comparisons if r.method == name and "paired" in r.quantity)
        assert row.ours and row.ours.mean == pytest.approx(np.mean(gaps)) and row.ours.n == 3
    batch, mean = drawing.panels[0].curves
    assert list(batch.x) == ["0", "0.9", "0.99", "0.999", "0.9999"] and list(mean.x) == list(batch.x)
    assert batch.y[0] == mean.y[0]
    rows = [row for row in drawing.comparisons if row.published is not None]
    assert [row.published for row in rows] == [61.68, 61.44, 61.62, 67.33, 66.01]


def test_the_common_baselines() -> None:
    """Deferred baselines change at epoch 160, the first milestone. cRT starts from CE's run of the same seed."""
    chosen = settings("cifar", [0, 1], None, 1.0)
    groups = BY_ID["baselines-cifar100"].runs(chosen)
    names = ["CE", "RW", "RS", "CE-DRW", "CE-DRS", "Focal", "LDAM", "LDAM-DRW", "cRT"]
    assert list(groups) == names
    assert [groups[n][0].method.defer for n in names[2:-1]] == [0, 160, 160, 0, 0, 160]
    assert groups["CE"] == BY_ID["closeup-cifar100"].runs(chosen)["SM", 100]
    assert groups["RW"][0].method.reduction == "weighted_mean" and groups["RW"][0].method.beta == 0.9999
    assert [run.start for run in groups["cRT"]] == groups["CE"]
    assert {r.longtail.imbalance for runs in groups.values() for r in runs if r.longtail} == {100.0}
    drawing = draw("baselines-cifar100", "cifar", seeds=[0, 1])
    end, parts = drawing.panels
    assert list(end.curves[0].x) == [*names, "SM_0.9999", "Focal_1.0_0.9"]
    assert end.curves[0].y[0] == pytest.approx(100 - np.mean([accuracy_of(r) for r in groups["CE"]]))
    assert len(parts.curves) == 3 and {len(c.x) for c in parts.curves} == {11}


def test_large_tables() -> None:
    drawing = draw("table3-inat2018", "imagenet", make=lambda run: fake(run, 60.0))
    ours, paper = (panel.matrix for panel in drawing.panels)
    assert ours is not None and paper is not None
    assert ours.tolist() == [[40.0, 30.0]] * 9
    assert paper[0].tolist() == [42.86, 21.31] and paper[-1].tolist() == [30.95, 13.54]
    names = {c.name for c in draw("fig7-ilsvrc2012", "imagenet").panels[0].curves}
    assert names == {"Softmax", "CB focal"}


def test_large_data_sets_are_counted_where_a_run_has_seen_them() -> None:
    rows = {(r.method, r.quantity): r for r in draw("table1", "imagenet").comparisons}
    row = rows["iNaturalist 2018", "training images"]
    assert row.published == 437_513 and row.ours and row.ours.mean == 9 * 8142
    alone = draw("table1", "quick").comparisons
    assert len(alone) == 9 and all(row.ours is None for row in alone)
