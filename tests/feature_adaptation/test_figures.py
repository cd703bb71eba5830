"""Tests figures of the catalogue on made-up Results: what they plot, compare and claim, and the plan's runs."""

from __future__ import annotations

from functools import partial

import fakes
import pytest
from fakes import feature_adaptation as fake

from common.command.plan import published
from common.drawing.curves import AVERAGE
from common.drawing.figures import verdict
from common.incremental import learner_of
from feature_adaptation.memory import megabytes
from feature_adaptation.reproduce import catalogue
from feature_adaptation.reproduce.catalogue import FIGURES
from feature_adaptation.reproduce.presets import settings

PUBLISHED = published("feature_adaptation")
draw = partial(fakes.draw, "feature_adaptation")


@pytest.mark.parametrize("id", [figure.id for figure in FIGURES if "cifar" in figure.presets])
def test_no_number_of_the_paper_itself_is_known(id: str) -> None:
    overlaid = any(curve.published for panel in draw(id, "cifar").panels for curve in panel.curves)
    assert overlaid == (id == "anchors")


def test_stage_1_is_trained_once_for_every_map_memory_and_classifier() -> None:
    chosen = settings("cifar", [7], None, 1.0)[0]
    children = [
        *catalogue.maps(chosen).values(),
        *catalogue.sizes(chosen).values(),
        *catalogue.balance(chosen).values(),
    ]
    children += [g for (name, *_), g in catalogue.memory(chosen).items() if name == "FA (MLP)"]
    starts = {run.start.key for group in children for run in group if run.start}
    assert len(starts) == 1 and starts == {r.key for r in catalogue.stage1(chosen)["own head"]}
    seeds = {(run.order, run.seed, run.start.seed) for run in children[0] if run.start}
    assert seeds == {("7", 7, 7), ("7", 8, 7), ("7", 9, 7)}
    several = settings("cifar", [7, 9], None, 1.0)[0]
    assert [(r.order, r.seed) for r in several.adapt(several.stage1())] == [("7", 7), ("9", 9)]


def test_intervals_over_later_stages_are_labelled() -> None:
    figure = next(f for f in FIGURES if f.id == "maps")
    assert "stage 1 ran once: intervals are over 3 seeds" in draw(figure.id, "cifar", seeds=[1993]).note
    assert "stage 1 ran once" not in draw(figure.id, "cifar").note
    assert "stage 1 ran once" not in draw(figure.id, "quick").note


def test_paper_protocols() -> None:
    """Runs have iCaRL's hyper-parameters and equal splits. A reduced schedule leaves stages 2 and 3 alone."""
    chosen = settings("cifar", [1993], None, 1.0)[0]
    run = chosen.stage1()[0]
    assert run.protocol.sizes == [10] * 10 and run.protocol.exemplars_per_class == 0
    schedule = run.schedule
    assert (schedule.epochs, schedule.lr, schedule.batch, schedule.weight_decay) == (70, 2.0, 128, 1e-5)
    assert [round(schedule.lr_at(e), 4) for e in (0, 48, 49, 63)] == [2.0, 2.0, 0.4, 0.08]
    assert (run.method.loss, run.method.distillation, run.network) == ("sigmoid", 1.0, "resnet32")
    assert run.method.nodes == "all" and {r.method.nme_flip for r in chosen.icarl(20)} == {"horizontal"}
    rates = {"softmax": 0.1, "seen": 0.5}  # rates for losses that are no mean over all classes
    variants = {"softmax": chosen.stage1(loss="softmax"), "seen": chosen.stage1(nodes="seen")}
    assert {name: runs[0].schedule.lr for name, runs in variants.items()} == rates
    assert {r.method.sigma for r in chosen.adapt(chosen.stage1(), map="sdc")} == {0.2}
    assert {len(r[0].protocol.sizes) for n, r in catalogue.tasks(chosen).items() if n != "joint"} == {5, 10, 20}
    short = settings("cifar", [1993], None, 0.1)[0]
    assert (short.stage1()[0].schedule.epochs, short.adapt(short.stage1())[0].method.adapter.steps) == (7, 1500)
    assert short.schedule.milestones == (5, 6)
    full = settings("imagenet", None, None, 1.0)[1].stage1()[0]
    assert (full.protocol.sizes, full.schedule.epochs, full.schedule.milestones) == ([100] * 10, 60, (20, 30, 40, 50))
    assert full.schedule.lr == 2.0
    assert settings("imagenet", None, None, 1.0)[1].sigma == 0.3
    for group in (*catalogue.memory(chosen).values(), *catalogue.maps(chosen).values()):
        assert all(learner_of(r.method) for run in group for r in run.chain)


def test_measuring_the_anchors_is_a_reproduction() -> None:
    figure = next(f for f in FIGURES if f.id == "anchors")
    chosen = settings("cifar", None, None, 1.0)
    results = {n: [fake(r, 44.4, 0.0) for r in runs] for n, runs in figure.runs(chosen).items()}
    rows = {(r.method, r.quantity): r for r in figure.draw(chosen, results, PUBLISHED).comparisons}
    lwf = rows["LwF.MC", f"{AVERAGE}, 10 classes a task"]
    assert (lwf.published, verdict(lwf, chosen[0].full_schedule)) == (44.4, "reproduced")
    assert verdict(rows["iCaRL-NME", f"{AVERAGE}, 10 classes a task"], True) == "not reproduced"
    of_every = {r.method for r in rows.values() if r.quantity == f"{AVERAGE}, 10 classes a task" and r.published}
    assert of_every == {"LwF.MC", "iCaRL-NME", "iCaRL-CNN"}
    assert PUBLISHED.figure("anchors").series("iCaRL") is not None and PUBLISHED.entries_of("fig2")[0]["series"] == []


def test_the_claim_counts_memory_by_one_function() -> None:
    """If FA beats every exemplar method at its least memory, the ratio is a ratio of bytes.

    If FA never does, there is no ratio.
    """
    figure = next(f for f in FIGURES if f.id == "fig2")
    chosen = settings("cifar", None, None, 1.0)
    groups = figure.runs(chosen)

    def rows(ours: float) -> dict[tuple[str, bool], float | None]:
        results = {n: [fake(r, ours if n[0] == "FA (MLP)" else 60.0) for r in g] for n, g in groups.items()}
        drawing = figure.draw(chosen, results, PUBLISHED)
        found = [r for r in drawing.comparisons if r.quantity.startswith("memory of images")]
        return {(r.method, "JPEG" in r.quantity): r.ours.mean if r.ours else None for r in found}

    better = rows(70.0)
    least = megabytes("cifar100", chosen[0].features[0])
    assert better["LUCIR, P = 20", False] == pytest.approx(megabytes("cifar100", images_per_class=20) / least)
    assert better["LUCIR, P = 20", True] == pytest.approx(
        megabytes("cifar100", images_per_class=20, image_bytes=1300) / least
    )
    assert set(rows(50.0).values()) == {None}


def test_orderings_are_paired() -> None:
    figure = next(f for f in FIGURES if f.id == "fig3")
    chosen = settings("cifar", [1, 2, 3], None, 1.0)
    groups = figure.runs(chosen)
    results = {
        n: [fake(r, (70 if n[0] == "FA (MLP)" else 60) + 5 * i) for i, r in enumerate(g)] for n, g in groups.items()
    }
    rows = {r.method: r.ours for r in figure.draw(chosen, results, PUBLISHED).comparisons}
    found = rows["FA (MLP) > FA (no map), 10 classes a task"]
    assert found is not None and (found.mean, found.interval, found.n) == (10.0, pytest.approx(0, abs=1e-9), 3)


def test_maps_are_paired_on_one_stage_1() -> None:
    figure = next(f for f in FIGURES if f.id == "maps")
    chosen = settings("cifar", [0], ["1993"], 0.1)
    above = {"mlp": 66.0, "true features": 70.0}
    groups = figure.runs(chosen)
    results = {n: [fake(r, above.get(n, 60.0) + 5 * i) for i, r in enumerate(g)] for n, g in groups.items()}
    drawing = figure.draw(chosen, results, PUBLISHED)
    rows = [r for r in drawing.comparisons if "paired" in r.quantity]
    found = {r.method: (round(r.ours.mean, 6), r.ours.n) for r in rows if r.ours}
    assert found["MLP > no map"] == (6.0, 3) and found["true features > MLP"] == (4.0, 3)
    assert found["linear > no map"] == (0.0, 3)
    assert found["no map > own head"] == (3.0, 3)
    assert len(found) == 9 and "stage 1 ran once: intervals are over 3 seeds" in drawing.note


def test_sizes_count_the_features_alone() -> None:
    figure = next(f for f in FIGURES if f.id == "sizes")
    chosen = settings("cifar", [0], ["1993"], 0.1)
    groups = figure.runs(chosen)
    assert [r.method.features_per_class for r in groups["mlp", 240] + groups["mlp", 500]] == [240] * 3 + [None] * 3
    results = {key: [fake(r, 60.0 if key == "own head" else 50.0 + key[1]) for r in g] for key, g in groups.items()}
    panel = figure.draw(chosen, results, PUBLISHED).panels[0]
    curve = next(c for c in panel.curves if c.name == "mlp")
    assert curve.x == pytest.approx([megabytes("cifar100", n) for n in chosen[0].features], rel=1e-3)
    assert curve.y[0] == pytest.approx(55 - 3 * 4.5)
    head = next(c for c in panel.curves if c.name == "own head")
    assert head.reference and list(head.y) == pytest.approx([60 - 3 * 4.5] * len(head.y))


def test_what_stage_1_forgets() -> None:
    """A task's curve starts when the task comes, the feature classifier's curve once that classifier exists."""
    figure = next(f for f in FIGURES if f.id == "stage1")
    chosen = settings("cifar", [0], ["1993"], 0.1)
    alone = draw(figure.id, "cifar", figure.runs(chosen))
    assert [p.title for p in alone.panels] == ["the network's own head", "errors"]
    curve = next(c for c in alone.panels[0].curves if c.name == "of task 3")
    assert (curve.x, curve.y[0], curve.y[-1]) == (list(range(3, 11)), 90 - 2 * 3 - 5, 90 - 9 * 3 - 5)
    both = draw(figure.id, "cifar")
    assert len(both.panels) == 3 and {c.name for c in both.panels[2].curves} == {"own head", "FA (MLP)"}
