"""Tests figures of the catalogue on made-up Results: what they plot and compare, and their verdicts."""

from __future__ import annotations

from functools import partial

import fakes
import numpy as np
import pytest
from fakes import lucir as fake

from common.command.plan import published, select
from common.drawing.curves import AVERAGE, LAST
from common.drawing.figures import verdict
from common.errors import InputError
from common.metrics import average_incremental_accuracy
from lucir.reproduce.catalogue import FIGURES
from lucir.reproduce.presets import SETTINGS, settings

PUBLISHED = published("lucir")
draw = partial(fakes.draw, "lucir")


def test_measuring_the_published_values_is_a_reproduction() -> None:
    """Three runs around the paper's curve of LUCIR average 63.42, as printed, and are "reproduced"."""
    figure = next(f for f in FIGURES if f.id == "fig5c")
    chosen = settings("cifar", None, None, 1.0)
    series = PUBLISHED.figure("fig5c").series("LUCIR-CNN")
    assert series is not None
    results = {
        name: [fake(run, [y + shift for y in series["y"]]) for run, shift in zip(runs, (-0.5, 0, 0.5), strict=True)]
        for name, runs in figure.runs(chosen).items()
    }
    comparisons = figure.draw(chosen, results, PUBLISHED).comparisons
    rows = {row.method: row for row in comparisons if row.quantity == AVERAGE}
    last = {row.method: row for row in comparisons if row.quantity == LAST}
    assert last["LUCIR-CNN"].published == series["y"][-1] == 54.31
    ours = rows["LUCIR-CNN"]
    assert ours.published == series["average"] == 63.42
    assert ours.ours is not None
    assert ours.ours.mean == pytest.approx(average_incremental_accuracy(series["y"]))
    assert (ours.ours.n, verdict(ours, chosen[0].full_schedule)) == (3, "reproduced")
    assert verdict(rows["iCaRL-CNN"], True) == "not reproduced"
    reduced = settings("cifar", None, None, 0.05)[0]
    assert verdict(ours, reduced.full_schedule) == "indicative"
    assert not settings("quick", None, None, 1.0)[0].full_schedule


def test_joint_is_drawn_where_its_runs_exist() -> None:
    figure = next(f for f in FIGURES if f.id == "fig5c")
    chosen = settings("cifar", [1993], None, 1.0)
    groups = {**figure.runs(chosen), **figure.optional(chosen)}
    found = {key: [fake(r) for r in runs] for key, runs in groups.items()}
    curves = figure.draw(chosen, found, PUBLISHED).panels[0].curves
    joint = [c for c in curves if c.name == "Joint-CNN"]
    assert [c.published for c in joint] == [False, True]
    assert list(joint[0].x) == [50, 60, 70, 80, 90, 100]


def test_runs_of_a_head_share_one_base_model() -> None:
    chosen = settings("quick", None, None, 1.0)
    runs = {r.key: r for f in select(FIGURES, (), "quick")[0] for g in f.runs(chosen).values() for r in g}
    starts = {run.start.key for run in runs.values() if run.start}
    assert len(starts) == 4 + len(SETTINGS["quick"][0].scales)  # two heads x two bases, and one a fixed eta


def test_paper_protocols() -> None:
    """Phases, memory and schedule of every CIFAR run are the published ones."""
    chosen = settings("cifar", [1993], None, 1.0)
    runs = {f.id: f.runs(chosen) for f in FIGURES if "cifar" in f.presets}
    sizes = {id: next(iter(g.values()))[0].protocol.sizes for id, g in runs.items()}
    assert sizes["fig5a"] == [50, 50]
    assert sizes["fig5d"] == [50] + [5] * 10
    assert sizes["supp4a"] == [30] + [10] * 7
    assert sizes["supp4b"] == [30] + [5] * 14
    total = runs["supp5a"]["LUCIR"][0].protocol
    assert (total.exemplars_per_class, total.exemplars_total) == (None, 2000)
    assert [r for name, r in runs["fig7b"] if name == "LUCIR"] == [1, 5, 10, 20, 30, 40, 50]
    run = runs["fig5c"]["LUCIR"][0]
    assert run.start is not None
    assert (run.order, run.seed, run.start.order) == ("1993", 1993, "1993")
    assert (run.schedule.epochs, run.schedule.milestones, run.schedule.weight_decay) == (160, (80, 120), 5e-4)
    full = settings("imagenet", None, None, 1.0)[1].runs(settings("imagenet", None, None, 1.0)[1].lucir(), 5)[0]
    assert (full.protocol.sizes[:2], full.method.weight, full.method.nme_flip) == ([500, 100], 10.0, "none")


def test_selection_by_beginnings_and_its_errors() -> None:
    def ids(*only: str, preset: str = "quick") -> list[str]:
        return [f.id for f in select(FIGURES, only, preset)[0]]

    assert ids("fig3") == ["fig3a", "fig3b"]
    assert "joint" not in ids(preset="cifar")
    assert ids("joint", preset="cifar") == ["joint"]
    chosen, skipped = select(FIGURES, ("fig5c", "fig6a"), "cifar")
    assert [f.id for f in chosen] == ["fig5c"]
    assert {f.id: why for f, why in skipped}["fig6a"] == "needs --preset imagenet"
    assert {f.id: why for f, why in skipped}["fig5a"] == "not asked for"
    with pytest.raises(InputError, match="unknown figure 'fig12'"):
        ids("fig12")
    with pytest.raises(InputError, match="unknown figure ''"):
        ids("")
    with pytest.raises(InputError, match=r"^fig6a needs --preset imagenet"):
        ids("fig6", preset="cifar")


def test_joint_is_held_against_its_own_data_set() -> None:
    for id, preset in (("joint", "cifar"), ("joint-subset", "imagenet"), ("joint-full", "imagenet")):
        figure = next(f for f in FIGURES if f.id == id)
        drawing = draw(figure.id, preset)
        ours, published = drawing.panels[0].curves
        assert published.published
        assert set(published.x) <= set(ours.x)
        assert any(row.published is not None for row in drawing.comparisons)


def test_repeats_are_paired_by_order_and_seed() -> None:
    """If one variant lacks an order, the difference is over the orders that both have."""
    figure = next(f for f in FIGURES if f.id == "fig7a")
    chosen = settings("cifar", None, None, 1.0)
    groups = figure.runs(chosen)
    results = {name: [fake(run, [60 + 2 * i] * 6) for i, run in enumerate(runs)] for name, runs in groups.items()}
    results["CN"] = [fake(run, [50 + 2 * i] * 6) for i, run in enumerate(groups["CN"])][1:]
    rows = [
        r for r in figure.draw(chosen, results, PUBLISHED).comparisons if "paired" in r.quantity and r.method == "CN"
    ]
    assert [(r.ours.mean, r.ours.n, r.published) for r in rows if r.ours] == [(-10.0, 2, -7.77)]


@pytest.mark.parametrize("id", ["fig7b", "direction", "joint", "fig7a"])
def test_variants_that_share_no_repeat_are_not_compared(id: str) -> None:
    """Each variant was finished under another seed. So nothing can be paired, and nothing fails."""
    figure = next(f for f in FIGURES if f.id == id)
    chosen = settings("cifar", [1993, 1994], None, 1.0)
    groups = {name: [runs[i % 2]] for i, (name, runs) in enumerate(figure.runs(chosen).items())}
    drawing = figure.draw(chosen, {name: [fake(run) for run in runs] for name, runs in groups.items()}, PUBLISHED)
    assert len(drawing.panels) == 1


def test_every_line_of_fig7b_has_its_published_numbers() -> None:
    figure = next(f for f in FIGURES if f.id == "fig7b")
    rows = [row for row in draw(figure.id, "cifar").comparisons if row.quantity == f"{AVERAGE}, 20 exemplars"]
    assert {row.method for row in rows if row.published} == {"iCaRL-CNN", "iCaRL-NME", "LUCIR-CNN", "LUCIR-NME"}


def test_lines_are_broken_where_the_paper_has_no_point() -> None:
    figure = next(f for f in FIGURES if f.id == "supp4b")
    published = [c for c in draw(figure.id, "cifar").panels[0].curves if c.published]
    ours = next(c for c in published if c.name == "LUCIR-CNN")
    assert list(ours.x) == list(range(30, 101, 5))
    assert [x for x, y in zip(ours.x, ours.y, strict=True) if np.isfinite(y)] == [30, 100]


def test_repeating_a_seed_does_not_raise_n() -> None:
    assert settings("cifar", [1993, 1993], None, 1)[0].repeats == (("1993", 1993),)
    assert settings("cifar", [1], ["1993", "01993"], 1)[0].repeats == (("1993", 1),)


def test_orders_and_seeds_are_crossed_only_when_both_are_given() -> None:
    assert settings("cifar", [1, 2], None, 1)[0].repeats == (("1", 1), ("2", 2))
    assert settings("cifar", [1, 2], ["1993"], 1)[0].repeats == (("1993", 1), ("1993", 2))
