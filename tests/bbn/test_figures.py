"""Figures of BBN's catalogue from made-up Results, and the Runs behind them against the paper's protocol."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import fakes
import numpy as np
import pytest
from fakes import bbn as fake

from bbn.methods import BBN, Mixup, Probe
from bbn.reproduce import catalogue, tables
from bbn.reproduce.catalogue import FIGURES
from bbn.reproduce.presets import CB_FOCAL, CIFAR_SCHEDULE, MANNERS, SETTINGS, settings
from bbn.reproduce.tables import BEST, LAST, claim
from class_balanced.methods import ClassBalanced
from common.command.messages import describe
from common.command.plan import published
from common.drawing.curves import by_epoch
from common.drawing.figures import Figure, PublishedFigure, verdict
from common.drawing.plots import render
from common.imbalance import Rebalance, Retrain
from common.runs import LongTail, Schedule

PUBLISHED = published("bbn")
draw = partial(fakes.draw, "bbn")


def named(id: str) -> Figure:
    return next(f for f in FIGURES if f.id == id)


@pytest.mark.parametrize("figure", [f for f in FIGURES if f.id != "fig7"], ids=lambda f: f.id)
def test_each_group_of_runs_has_a_row_with_as_many_repeats_as_were_found(figure: Figure) -> None:
    preset = figure.presets[-1]
    groups = figure.runs(settings(preset, [0, 1], None, 1.0))
    for name, runs in groups.items():
        for found in (runs, runs[:1]):
            rows = [r for r in draw(figure.id, preset, {name: found}).comparisons if r.ours]
            assert rows and {r.ours.n for r in rows if r.ours} == {len(found)}, name


@pytest.mark.parametrize("figure", [f for f in FIGURES if "quick" in f.presets], ids=lambda f: f.id)
def test_a_figure_of_uneven_repeats_and_few_tests_is_rendered(figure: Figure, tmp_path: Path) -> None:
    """One group has one seed, the others have two. The runs are so short that only their end was tested."""
    chosen = settings("quick", [0, 1], None, 0.05)
    results = {}
    for number, (name, runs) in enumerate(figure.runs(chosen).items()):
        results[name] = [fake(run) for run in runs[: 1 if number == 0 else 2]]
        for found in results[name]:
            found.values["trace"] = {"epoch": [1], "alpha": [1.0]}
    render(figure.draw(chosen, results, PUBLISHED), figure.title, "caption", tmp_path / figure.id)
    assert (tmp_path / f"{figure.id}.png").stat().st_size > 10_000


@pytest.mark.parametrize("id", ["table1-cifar10", "table1-cifar100", "table3", "table4", "table5", "table6-cifar10"])
def test_measuring_the_published_errors_is_a_reproduction(id: str) -> None:
    """Every row of the paper's table is compared with the number printed for it."""
    figure, chosen = named(id), settings("cifar", None, None, 1.0)
    printed = {
        (s["method"], x): y for s in PUBLISHED.entries[id]["series"] for x, y in zip(s["x"], s["y"], strict=True)
    }
    results = {}
    for name, runs in figure.runs(chosen).items():
        right = 100 - printed[name if id.startswith("table1") else (name, 50)]
        results[name] = [fake(run, right, right + 0.5) for run in runs]
    assert len(results) == len(printed)
    rows = [row for row in figure.draw(chosen, results, PUBLISHED).comparisons if row.published is not None]
    gaps = [row for row in rows if "minus" in row.quantity]
    rows = [row for row in rows if row not in gaps]
    assert gaps and all(row.ours and row.ours.mean == pytest.approx(row.published) for row in gaps)
    assert len(rows) == 2 * len(printed) and {verdict(row, True) for row in rows} == {"reproduced"}
    for row in rows:
        assert row.ours and row.published is not None
        assert row.published - row.ours.mean == pytest.approx(0.5 if BEST in row.quantity else 0, abs=1e-9)


def test_best_and_last_epoch_stand_side_by_side() -> None:
    drawing = draw("table3", "cifar")
    last, best, paper = drawing.panels[0].curves
    assert (last.name, best.name, paper.name, paper.published) == (LAST, BEST, BEST, True)
    assert list(last.y) == [40.0] * 3 and list(best.y) == [38.0] * 3 and list(paper.y) == [21.31, 21.06, 17.82]
    never = fake(settings("cifar", [0], None, 1.0)[0].runs(BBN())[0])
    assert by_epoch(never) == {1: 50.0, 3: 62.0, 4: 60.0} and by_epoch(never, "rb", "few") == {
        1: 20.0,
        3: 20.0,
        4: 20.0,
    }
    never.values["trace"]["test_accuracy"][-1] = None  # tested at the end, whatever the interval
    assert by_epoch(never) == {1: 50.0, 3: 62.0, 4: 60.0}
    del never.values["trace"]["test_accuracy"]
    assert by_epoch(never) == {4: 60.0}
    assert tables.best(never) == tables.last(never) == 40.0


def test_the_best_epoch_is_the_first_of_the_best() -> None:
    rows = {r.quantity: r for r in draw("branches-cifar100", "cifar").comparisons}
    when, gain = rows["best test epoch"].ours, rows["last minus best test epoch (points)"].ours
    assert when and gain and (when.mean, gain.mean) == (3.0, 2.0)
    assert rows["test error (%), best test epoch"].published == 57.44  # factor 100


def test_the_matrix_and_the_orderings_the_paper_states() -> None:
    figure, chosen = named("fig2"), settings("cifar", [0], None, 1.0)
    errors = {"CE": 1, "RW": 3, "RS": 4}
    gains = {"CE": 0, "RW": -0.25, "RS": -0.5}
    results = {}
    for (role, features, classifier), runs in figure.runs(chosen).items():
        right = 50.0 - errors[features] - gains[classifier]
        results[role, features, classifier] = [fake(run, right) for run in runs]
    drawing = figure.draw(chosen, results, PUBLISHED)
    left = drawing.panels[0]
    assert left.matrix is not None and "CIFAR-100-LT" in left.title and "CIFAR-10-LT" in drawing.panels[1].title
    np.testing.assert_allclose(left.matrix[:, 0], [51, 50.75, 50.5])
    np.testing.assert_allclose(left.matrix[0], [51, 53, 54])
    stated = [row for row in drawing.comparisons if row.published is not None]
    assert [row.ours.mean for row in stated if row.ours] == [3, 3, 1, 3, 3]  # the least is stated on the left only
    assert [row.published for row in stated] == [3, 3, 1, 3, 3]
    cell = ("cifar100", "RS", "CE")
    results[cell] = [fake(figure.runs(chosen)[cell][0], 99)]
    worse = [row.ours.mean for row in figure.draw(chosen, results, PUBLISHED).comparisons if row.published and row.ours]
    assert worse == [2, 2, 0, 3, 3]


def test_each_seed_of_the_matrix_is_judged_by_itself() -> None:
    """Two seeds that disagree with the paper in opposite ways do not add up to an agreement."""
    figure, chosen = named("fig2"), settings("cifar", [0, 1], None, 1.0)
    errors = {"CE": 1, "RW": 3, "RS": 4}
    results = {}
    for (role, features, classifier), runs in figure.runs(chosen).items():
        gain = {"CE": 0, "RW": 1, "RS": 5} if classifier != "CE" else {"CE": 0, "RW": 0, "RS": 0}
        values = [50 - errors[features] + gain[classifier], 50 - errors[features] - gain[classifier]]
        cell = (role, features, classifier)
        results[cell] = [fake(run, value) for run, value in zip(reversed(runs), values, strict=True)]
    rows = [r for r in figure.draw(chosen, results, PUBLISHED).comparisons if r.quantity.startswith("columns")]
    assert {(r.ours.mean, r.ours.n, verdict(r, True)) for r in rows if r.ours} == {(1.5, 2, "not reproduced")}
    series = {"method": "b", "x": ["a"], "y": [3], "provenance": "stated"}
    stated = PublishedFigure({"fig": {"series": [series]}}, "fig")
    lone = claim(stated, "a", "b", [0, 0, 3])  # its interval would reach 3
    assert verdict(lone, True) == "not reproduced" and verdict(claim(stated, "a", "b", [3, 3, 3]), True) == "reproduced"


def test_sigma_is_the_population_s() -> None:
    rows = draw("fig4", "cifar").comparisons
    ours = {row.method: row.ours.mean for row in rows if row.ours}
    assert set(ours) == {"CE", "RW", "RS", "BBN-CB", "BBN-RB", "BBN-ALL"}
    assert ours["CE"] == pytest.approx(np.std(np.linspace(1, 2, 10)))
    sigmas = {r.method: r.published for r in rows if r.quantity.startswith("σ")}
    assert {k: v for k, v in sigmas.items() if v is not None} == {"BBN-ALL": 0.148}  # the only one that the text states


def test_what_the_paper_says_of_figures_4_and_6() -> None:
    """BBN-ALL has the least sigma. Features of RW and RS lie further from their centres than features of CE."""
    chosen = settings("cifar", [0], None, 1)
    for good in (True, False):
        results = {name: [fake(r) for r in runs] for name, runs in named("fig4").runs(chosen).items()}
        for found in results.values():
            summary = found[0].values["summary"]
            summary |= {k: list(np.linspace(1, 2, 10)) for k in ("norms", "norms_cb", "norms_rb")}
        results["BBN"][0].values["summary"]["norms"] = list(np.linspace(1, 1.1 if good else 3, 10))
        row = named("fig4").draw(chosen, results, PUBLISHED).comparisons[-1]
        assert row.published == 1 and row.ours and row.ours.mean == good
        results = {name: [fake(r) for r in runs] for name, runs in named("fig6").runs(chosen).items()}
        for split in ("train", "test"):
            results["CE"][0].values["summary"][f"spread_{split}"] = [1.4 if good else 1.6] * 10
        rows = [r for r in named("fig6").draw(chosen, results, PUBLISHED).comparisons if r.published]
        assert len(rows) == 4 and {r.method for r in rows} == {"RW", "RS"}
        assert {r.ours.mean for r in rows if r.ours} == {float(good)}


def test_fig7_needs_no_run_and_is_the_closed_form() -> None:
    drawing = draw("fig7", "quick")
    lines = {c.name: c for c in drawing.panels[0].curves}
    assert "beta-distribution" not in lines and len(lines) == 5
    assert lines["Parabolic decay"].y[99] == 0.75 and lines["Linear decay"].y[-1] == 0
    assert drawing.panels[1].curves[1].y[-1] == pytest.approx(0.2079)


# The Runs


def test_the_paper_s_protocol() -> None:
    ten, hundred = settings("cifar", [0], None, 1.0)
    run = ten.runs(ten.bbn())[0]
    assert run.method == BBN("parabolic_decay", "official", "reversed", "separate", 1.0)
    assert run.schedule == Schedule(
        epochs=200, lr=0.1, milestones=(120, 160), gamma=0.01, batch=128, momentum=0.9, weight_decay=2e-4,
        nesterov=True, warmup=5, warmup_by="third", drop_last=True, ahead=0,
    )  # fmt: skip
    assert run.longtail == LongTail(50.0, "exp", 0) and (run.network, run.order, run.test_every) == (
        "resnet32-pad",
        "native",
        1,
    )
    assert run.inputs.mean == (0.4914, 0.4822, 0.4465) and run.inputs.std == (0.2023, 0.1994, 0.2010)
    assert hundred.runs(BBN())[0].inputs == run.inputs and hundred.classes == 100
    table, late = catalogue.methods(ten), replace(run.schedule, milestones=(160, 180))
    assert {r.longtail.imbalance for runs in table.values() for r in runs if r.longtail} == {100, 50, 10}
    for (name, _), runs in table.items():
        assert runs[0].schedule == (run.schedule if name == "BBN" else late), name
    assert {name: runs[0].method for (name, factor), runs in table.items() if factor == 50} == {
        "CE": Rebalance("ce", sampler="uniform", beta=0.0, defer=0, head_start="ldam"),
        "Focal": Rebalance("focal", gamma=1.0, head_start="ldam"),
        "Mixup": Mixup("input", 1.0, "batch"),
        "Manifold Mixup": Mixup("features", 1.0, "batch"),
        "Manifold Mixup (two samplers)": Mixup("features", 1.0, "reversed"),
        "CE-DRW": Rebalance(beta=0.999999, defer=160, head_start="ldam"),
        "CE-DRS": Rebalance(sampler="balanced", defer=160, head_start="ldam"),
        "CB-Focal": ClassBalanced("focal", 0.9999, 2.0, "batch", "cifar"),
        "LDAM-DRW": Rebalance("ldam", margin=0.5, scale=30.0, beta=0.9999, defer=160, head_start="ldam"),
        "BBN": BBN(),
    }


def test_manners_and_second_stages() -> None:
    ten, hundred = settings("cifar", [0], None, 1.0)
    assert {name: ten.manner(name) for name in MANNERS} == {
        "CE": Rebalance(head_start="ldam"),
        "RW": Rebalance(beta=0.999999, head_start="ldam"),
        "RS": Rebalance(sampler="balanced", head_start="ldam"),
    }
    matrix = catalogue.classifiers([ten, hundred], source="cifar100")
    assert len(matrix) == 18 and all(r.data.name == role for (role, *_), runs in matrix.items() for r in runs)
    assert {r.start.data.name for runs in matrix.values() for r in runs if r.start} == {"cifar100"}
    assert len({r.start.key for runs in matrix.values() for r in runs if r.start}) == 3
    head = matrix["cifar10", "RW", "RS"][0]
    assert head.method == Retrain("balanced") and head.start and head.start.method == ten.manner("RW")
    assert (head.schedule.epochs, head.schedule.lr, head.schedule.milestones) == (20, 0.1, (10, 15))
    assert (head.schedule.gamma, head.schedule.warmup, head.schedule.batch) == (0.1, 0, 128)
    probes = {name: runs[0].method for name, runs in catalogue.probes(hundred).items() if name.startswith("BBN")}
    assert probes == {"BBN-CB": Probe("cb", "uniform", 0.0), "BBN-RB": Probe("rb", "uniform", 0.0)}


def test_cb_focal_is_the_cell_that_table_1_quotes() -> None:
    grids = {"cifar10": "fig8", "cifar100": "fig10"}
    for (role, factor), (gamma, beta) in CB_FOCAL.items():
        theirs = published("class_balanced").figure(grids[role]).value(f"Focal_{gamma:.1f}_{beta:g}", factor)
        quoted = PUBLISHED.figure(f"table1-{role}").value("CB-Focal", factor)
        assert quoted == theirs and quoted[0], (role, factor)


def test_the_control_sees_as_many_images_as_bbn() -> None:
    for preset in ("quick", "cifar"):
        s = settings(preset, [0], None, 1.0)[0]
        runs = catalogue.budgets(s)
        two_stages = runs["cRT with BBN's budget"][0]
        assert sum(r.schedule.epochs for r in two_stages.chain) == 2 * s.schedule.epochs
        assert two_stages.start and two_stages.start.method == s.one_stage() and two_stages.method == Retrain()
    tuned = runs["Mixup, classifier fine-tuned"][0]
    assert tuned.method == Retrain(fresh=False) and tuned.start and tuned.start.method == Mixup()
    assert runs["CE at BBN's milestones"][0].schedule == CIFAR_SCHEDULE
    tricks = runs["cRT, recipe of BagofTricks"][0]
    assert tricks.method == Retrain(norms="train") and tricks.start == runs["CE"][0]
    assert (tricks.schedule.epochs, tricks.schedule.milestones, tricks.schedule.gamma) == (30, (10, 20), 0.1)
    assert (tricks.schedule.weight_decay, tricks.schedule.warmup) == (5e-4, 5)


def test_inaturalist_has_its_own_schedules() -> None:
    _, s = settings("imagenet", None, None, 1.0)
    runs = catalogue.schedules(s)
    short = Schedule(
        epochs=90, lr=0.05, milestones=(60, 80), gamma=0.1, batch=128, momentum=0.9, weight_decay=1e-4, nesterov=True,
        warmup=0, warmup_by="third", drop_last=True,
    )  # fmt: skip
    assert runs["BBN"][0].schedule == runs["CE"][0].schedule == short
    assert runs["BBN (2×)"][0].schedule == replace(short, epochs=180, milestones=(120, 160))
    assert runs["BBN"][0].longtail is None and runs["BBN"][0].network == "resnet50-default"
    assert {runs[name][0].method for name in ("BBN", "BBN (2×)")} == {BBN(stretch=10 / 9)}
    assert catalogue.ensembles(s)["BBN"][0].key == runs["BBN"][0].key
    assert runs["CB-Focal"][0].method == ClassBalanced("focal", 0.999, 0.5, "batch", "imagenet")
    assert runs["CE-DRW"][0].method == Rebalance(beta=0.999999, defer=60)
    assert runs["LDAM-DRW (re-run)"][0].method == Rebalance("ldam", margin=0.3, beta=0.9999, defer=60)
    assert runs["LDAM-DRW (2×)"][0].method.defer == 120
    assert s.full_schedule and settings("imagenet", None, None, 0.5)[1].bbn().stretch == 10 / 9


def test_scaling_keeps_stages_apart() -> None:
    s = settings("cifar", [0], None, 0.05)[0]
    assert not s.full_schedule and (s.schedule.epochs, s.schedule.milestones) == (10, (6, 8))
    assert s.methods()["CE-DRW"] == s.one_stage(beta=0.999999, defer=8) and s.retrain.epochs == 1
    assert all(s.full_schedule for preset in ("cifar", "imagenet") for s in SETTINGS[preset])


def test_subsets_are_the_runs_of_ce_on_other_samples_of_the_same_sizes() -> None:
    setting = settings("cifar", [0, 1], None, 1.0)[1]
    plain, groups = setting.runs(setting.one_stage(), 100.0), named("subsets").runs([setting])
    assert groups["subset 0"] == plain and list(groups) == ["subset 0", "subset 1", "subset 2"]
    for seed, runs in enumerate(groups.values()):
        assert [replace(run, longtail=LongTail(100.0)) for run in runs] == plain
        assert {run.longtail for run in runs} == {LongTail(100.0, seed=seed)}
        assert all(f"(subset {seed})" in describe(run) for run in runs if seed)
    rows = [row for row in draw("subsets", "cifar").comparisons if "minus that of subset 0" in row.quantity]
    assert [row.method for row in rows] == ["subset 1", "subset 2"] and "factor 100" in rows[0].quantity
