"""Every figure of BBN's catalogue from made-up Results, and the Runs behind them against the paper's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from bbn import experiments as ex
from bbn import figures
from bbn.catalogue import FIGURES
from bbn.experiments import BASELINE_SCHEDULE, CIFAR_SCHEDULE, SETTINGS, settings
from bbn.figures import BEST, LAST, PUBLISHED
from bbn.methods import BBN, Ensemble, Mixup, UnitFeatures
from common.errors import InputError
from common.figures import Drawing, Figure, verdict
from common.imbalance import Rebalance, Retrain
from common.plan import select
from common.runs import Run, canonical
from common.store import Result

GROUPS = {"many": 70.0, "medium": 40.0, "few": 20.0}
READOUTS = ("cnn", "cb", "rb", "alpha 0.25", "alpha 0.75")


def fake(run: Run, accuracy: float = 60.0, peak: float = 62.0) -> Result:
    """A Result of `run` with this last accuracy, after a better one at the second of three tested epochs."""
    classes = run.protocol.classes
    values = {name: {"accuracy": accuracy, "groups": [accuracy], **GROUPS} for name in READOUTS}
    trace: dict[str, list] = {"epoch": [1, 2, 3, 4], "test_accuracy": [accuracy - 10, None, peak, accuracy]}
    trace["alpha"] = [1.0, 0.9, 0.6, 0.2]
    trace |= {f"{name} {g}": [v, None, v, v] for name in ("cnn", "cb", "rb") for g, v in GROUPS.items()}
    norms = list(np.linspace(1, 2, classes))
    summary = {key: norms for key in ("norms", "norms_cb", "norms_rb", "spread_train", "spread_test")}
    result = {
        "phases": [{"classes": classes, "num_old": 0, "stages": {"main": values}}],
        "summary": summary,
        "trace": trace,
    }
    config = canonical(run.resolved("f" * 16, "fp32"))
    return Result(run.hash, config, {"commit": "0" * 40, "dirty": False}, result)


def draw(figure: Figure, preset: str, groups: Mapping[str, list[Run]] | None = None) -> Drawing:
    chosen = settings(preset, None, None, 1.0)
    groups = figure.runs(chosen) if groups is None else groups
    return figure.draw(chosen, {name: [fake(run) for run in runs] for name, runs in groups.items()})


def named(id: str) -> Figure:
    return next(f for f in FIGURES if f.id == id)


CASES = [(figure, preset) for figure in FIGURES for preset in figure.presets]


@pytest.mark.parametrize(("figure", "preset"), CASES, ids=[f"{f.id}-{p}" for f, p in CASES])
def test_every_figure_draws_in_every_preset(figure: Figure, preset: str) -> None:
    drawing = draw(figure, preset)
    assert drawing.comparisons or figure.id == "fig7"
    for panel in drawing.panels:
        assert panel.matrix is not None or panel.curves
        assert preset != "quick" or not any(c.published for c in panel.curves)


@pytest.mark.parametrize("figure", [f for f in FIGURES if f.id != "fig7"], ids=lambda f: f.id)
def test_a_figure_draws_from_part_of_its_runs(figure: Figure) -> None:
    groups = figure.runs(settings(figure.presets[-1], None, None, 1.0))
    for name, runs in groups.items():
        assert draw(figure, figure.presets[-1], {name: runs[:1]}).panels


@pytest.mark.parametrize("id", ["table1-cifar10", "table1-cifar100", "table3", "table4", "table5", "table6-cifar10"])
def test_measuring_the_published_errors_is_a_reproduction(id: str) -> None:
    """Every row of the paper's table is held against the number printed for it."""
    figure, chosen = named(id), settings("cifar", None, None, 1.0)
    entry = PUBLISHED.of(id)[0]
    printed = {
        (s["method"], x): y for s in entry["series"] for x, y in zip(s["x"], s["y"], strict=True) if y is not None
    }
    results = {}
    for name, runs in figure.runs(chosen).items():
        method, _, factor = name.rpartition(", ") if id.startswith("table1") else (name, "", "50")
        if (method, float(factor)) in printed:
            right = 100 - printed[method, float(factor)]
            results[name] = [fake(run, right, right + 0.5) for run in runs]
    assert len(results) == len(printed)
    rows = [row for row in figure.draw(chosen, results).comparisons if row.published is not None]
    assert len(rows) == 2 * len(printed) and {verdict(row, True) for row in rows} == {"reproduced"}
    for row in rows:
        assert row.ours and row.published is not None
        assert row.published - row.ours.mean == pytest.approx(0.5 if BEST in row.quantity else 0, abs=1e-9)


def test_best_and_last_epoch_stand_side_by_side() -> None:
    drawing = draw(named("table3"), "cifar")
    last, best, paper = drawing.panels[0].curves
    assert (last.name, best.name, paper.name, paper.published) == (LAST, BEST, BEST, True)
    assert list(last.y) == [40.0] * 3 and list(best.y) == [38.0] * 3 and list(paper.y) == [21.31, 21.06, 17.82]
    never = fake(settings("cifar", [0], None, 1.0)[0].runs(BBN())[0])
    del never.values["trace"]["test_accuracy"]
    assert figures.best(never) == figures.last(never) == 40.0


def test_the_best_epoch_is_the_first_of_the_best() -> None:
    rows = {r.quantity: r for r in draw(named("epochs-cifar100"), "cifar").comparisons}
    when, gain = rows["best test epoch"].ours, rows["last minus best test epoch (points)"].ours
    assert when and gain and (when.mean, gain.mean) == (3.0, 2.0)
    assert rows["test error (%), best test epoch"].published == 57.44  # factor 100


def test_the_matrix_and_the_orderings_the_paper_states() -> None:
    figure, chosen = named("fig2"), settings("cifar", [0], None, 1.0)
    errors = {"CE": 1, "RW": 3, "RS": 4}
    gains = {"CE": 0, "RW": -0.25, "RS": -0.5}
    results = {}
    for name, runs in figure.runs(chosen).items():
        _, features, classifier = name.split()
        results[name] = [fake(run, 50.0 - errors[features] - gains[classifier]) for run in runs]
    drawing = figure.draw(chosen, results)
    left = drawing.panels[0]
    assert left.matrix is not None and "CIFAR-100-LT" in left.title and "CIFAR-10-LT" in drawing.panels[1].title
    np.testing.assert_allclose(left.matrix[:, 0], [51, 50.75, 50.5])
    np.testing.assert_allclose(left.matrix[0], [51, 53, 54])
    stated = [row for row in drawing.comparisons if row.published is not None]
    assert [row.ours.mean for row in stated if row.ours] == [3, 3, 3, 3]
    results["cifar100 RS CE"] = [
        replace(results["cifar100 RS RS"][0], values=fake(chosen[1].runs(BBN())[0], 99).values)
    ]
    worse = [r.ours.mean for r in figure.draw(chosen, results).comparisons if r.published is not None and r.ours]
    assert worse[:2] == [2, 2]


def test_sigma_is_the_population_s() -> None:
    rows = draw(named("fig4"), "cifar").comparisons
    ours = {row.method: row.ours.mean for row in rows if row.ours}
    assert set(ours) == {"CE", "RW", "RS", "BBN-CB", "BBN-RB", "BBN-ALL"}
    assert ours["CE"] == pytest.approx(np.std(np.linspace(1, 2, 10)))
    assert {r.method: r.published for r in rows}["BBN-ALL"] == 0.148


def test_fig7_needs_no_run_and_is_the_closed_form() -> None:
    drawing = draw(named("fig7"), "quick")
    lines = {c.name: c for c in drawing.panels[0].curves}
    assert "beta-distribution" not in lines and len(lines) == 5
    assert lines["Parabolic decay"].y[99] == 0.75 and lines["Linear decay"].y[-1] == 0
    assert drawing.panels[1].curves[1].y[-1] == pytest.approx(0.2079)


# The Runs


def test_the_paper_s_protocol() -> None:
    ten, hundred = settings("cifar", [0], None, 1.0)
    run = ten.runs(BBN())[0]
    assert run.schedule == CIFAR_SCHEDULE and run.longtail and (run.longtail.imbalance, run.longtail.seed) == (50.0, 0)
    assert (run.network, run.order, run.test_every) == ("resnet32-pad", "native", 1)
    assert (CIFAR_SCHEDULE.weight_decay, CIFAR_SCHEDULE.nesterov, CIFAR_SCHEDULE.batch) == (2e-4, True, 128)
    table = ex.table1(ten)
    assert len(table) == 30 and {r.longtail.imbalance for runs in table.values() for r in runs if r.longtail} == {
        100,
        50,
        10,
    }
    for name, runs in table.items():
        assert runs[0].schedule == (CIFAR_SCHEDULE if name.startswith("BBN") else BASELINE_SCHEDULE), name
    assert table["CE-DRW, 50"][0].method == Rebalance(beta=0.999999, defer=160)
    assert table["LDAM-DRW, 50"][0].method == Rebalance("ldam", margin=0.5, beta=0.9999, defer=160)
    assert table["Manifold Mixup (two samplers), 10"][0].method == Mixup("features", partners="reversed")
    matrix = ex.matrix(hundred, ten)
    assert len(matrix) == 9 and {r.data.name for runs in matrix.values() for r in runs} == {"cifar10"}
    assert {r.start.data.name for runs in matrix.values() for r in runs if r.start} == {"cifar100"}
    assert len({r.start.key for runs in matrix.values() for r in runs if r.start}) == 3


def test_cb_focal_is_the_cell_that_table_1_quotes() -> None:
    from class_balanced.figures import PUBLISHED as CUI

    for (role, factor), (gamma, beta) in ex.CB_FOCAL.items():
        theirs = CUI.series({"cifar10": "fig8", "cifar100": "fig10"}[role], f"Focal_{gamma:.1f}_{beta:g}")
        assert theirs
        quoted = figures.published(f"table1-{role}-lt", "CB-Focal", factor)[0]
        nearest = dict(zip(theirs["x"], theirs["y"], strict=True))[factor]
        assert quoted == nearest, (role, factor)


def test_the_control_sees_as_many_images_as_bbn() -> None:
    for preset in ("quick", "cifar"):
        s = settings(preset, [0], None, 1.0)[0]
        runs = ex.control(s)
        two_stages = runs["cRT with BBN's budget"][0]
        assert sum(r.schedule.epochs for r in two_stages.chain) == 2 * s.schedule.epochs
        assert two_stages.start and two_stages.start.method == Rebalance() and two_stages.method == Retrain()
    tuned = runs["Mixup, classifier fine-tuned"][0]
    assert tuned.method == Retrain(fresh=False) and tuned.start and tuned.start.method == Mixup()
    assert runs["CE at BBN's milestones"][0].schedule == CIFAR_SCHEDULE


def test_inaturalist_has_its_own_schedules() -> None:
    _, s = settings("imagenet", None, None, 1.0)
    runs = ex.table2(s)
    assert runs["BBN"][0].schedule.milestones == (60, 80) and runs["BBN (2×)"][0].schedule.milestones == (120, 160)
    assert runs["BBN"][0].longtail is None and runs["BBN"][0].network == "resnet50-default"
    assert runs["LDAM-DRW"][0].method == Rebalance("ldam", margin=0.3, beta=0.9999, defer=60)
    assert runs["LDAM-DRW (2×)"][0].method.defer == 120
    assert s.full_schedule and runs["CE"][0].schedule.lr == 0.05


def test_the_quick_preset_stays_small() -> None:
    chosen = settings("quick", None, None, 1.0)
    runs = {
        r.key: r for f in FIGURES if "quick" in f.presets for g in f.runs(chosen).values() for x in g for r in x.chain
    }
    whole = [r for r in runs.values() if not r.start]
    assert len(whole) <= 36 and len(runs) <= 60
    assert all(r.data.name == "glyphs" for r in runs.values())
    kinds = {type(r.method) for r in whole}
    assert {BBN, Mixup, Ensemble, UnitFeatures, Rebalance} <= kinds


def test_scaling_keeps_stages_apart() -> None:
    s = settings("cifar", [0], None, 0.05)[0]
    assert not s.full_schedule and (s.schedule.epochs, s.schedule.milestones) == (10, (6, 8))
    assert s.methods()["CE-DRW"] == Rebalance(beta=0.999999, defer=8) and s.retrain.epochs == 1
    assert all(s.full_schedule for preset in ("cifar", "imagenet") for s in SETTINGS[preset])


def test_bad_words_are_one_line() -> None:
    with pytest.raises(InputError, match="unknown preset"):
        settings("huge", None, None, 1.0)
    with pytest.raises(InputError, match="epochs-scale"):
        settings("quick", None, None, 0)
    with pytest.raises(InputError, match="unknown figure 'fig9'"):
        select(FIGURES, ["fig9"], "quick")
    with pytest.raises(InputError, match="needs --preset imagenet"):
        select(FIGURES, ["table2"], "quick")
    with pytest.warns(UserWarning, match="orders is ignored"):
        settings("quick", [0], ["1993"], 1.0)
