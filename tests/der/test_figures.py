"""Tests figures of DER's catalogue on made-up Results, the published numbers, and the counts behind tables."""

from __future__ import annotations

import hashlib
from functools import partial

import fakes
import pytest
from fakes import EXTRACTOR
from fakes import der as fake

from common.command.plan import published
from common.drawing.curves import AVERAGE, LAST
from common.drawing.figures import Figure, verdict
from common.metrics import average_incremental_accuracy
from common.splits import class_order, named_order
from der.methods import DER, MASKED, RANDOM, UNPRUNED
from der.reproduce import catalogue
from der.reproduce.catalogue import FIGURES
from der.reproduce.counts import backward_transfer, forward_transfer, mean_parameters, parameters
from der.reproduce.figures import PARAMETERS
from der.reproduce.presets import settings

PUBLISHED = published("der")
draw = partial(fakes.draw, "der")


def figure(id: str) -> Figure:
    return next(f for f in FIGURES if f.id == id)


def test_measuring_the_published_curve_is_a_reproduction() -> None:
    """Three runs with the official curve of DER w/o P over 10 steps average 75.36 and end at 65.22."""
    chosen = settings("cifar", None, None, 1.0)
    series = PUBLISHED.figure("curves-b0-10").series(UNPRUNED)
    assert series
    runs = zip(chosen[0].b0_runs(chosen[0].der(), 10), (-0.3, 0.0, 0.3), strict=True)
    results = {(UNPRUNED, 10): [fake(run, [y + shift for y in series["y"]]) for run, shift in runs]}
    rows = {r.quantity: r for r in figure("curves-b0").draw(chosen, results, PUBLISHED).comparisons}
    average = rows[f"{AVERAGE}, 10 steps"]
    assert average.published == 75.36 and verdict(average, True) == "reproduced"
    table = figure("table1").draw(chosen, results, PUBLISHED)
    found = {r.quantity: r for r in table.comparisons if r.method == UNPRUNED}
    assert found[f"{AVERAGE}, 10 steps"].published == 75.36 and found[f"{LAST}, 10 steps"].published == 65.22
    assert verdict(found[f"{LAST}, 10 steps"], True) == "reproduced"
    size = found[f"{PARAMETERS}, 10 steps"]
    assert size.published == 61.6 and size.ours and size.ours.mean == pytest.approx(61.6257, abs=1e-4)


@pytest.mark.parametrize(("id", "base"), [("table1", False), ("table2", True)])
def test_unpruned_parameters_are_the_printed_ones(id: str, base: bool) -> None:
    chosen = settings("cifar", None, None, 1.0)
    make = chosen[0].b50_runs if base else chosen[0].b0_runs
    steps = chosen[0].b50 if base else chosen[0].b0
    results = {(UNPRUNED, n): [fake(run) for run in make(chosen[0].der(), n)] for n in steps}
    drawn = figure(id).draw(chosen, results, PUBLISHED)
    rows = [r for r in drawn.comparisons if r.quantity.startswith(PARAMETERS) and r.ours]
    assert len(rows) == len(steps) and {verdict(row, True) for row in rows} == {"reproduced"}, rows


def test_parameters_on_imagenet_are_held_against_their_own_protocol() -> None:
    """The paper prints 61.6 million without a base and 67.2 with one.

    It leaves out the classifier, of 512 or more features a class.
    """
    chosen = settings("imagenet", None, None, 1.0)
    for id, setting, base, unpruned, pruned in (
        ("table3-imagenet100", chosen[0], False, 61.6, 7.67),
        ("table3-imagenet1000", chosen[1], False, 61.6, 14.52),
        ("imagenet100-b50", chosen[0], True, 67.2, 8.87),
    ):
        make = setting.b50_runs if base else setting.b0_runs
        runs = {(UNPRUNED, 10): make(setting.der(), 10), (MASKED, 10): make(setting.masked(), 10)}
        results = {key: [fake(run) for run in each] for key, each in runs.items()}
        drawn = figure(id).draw(chosen, results, PUBLISHED)
        rows = {r.method: r for r in drawn.comparisons if r.quantity == PARAMETERS}
        assert rows[UNPRUNED].published == unpruned and rows[MASKED].published == pruned
        assert (ours := rows[UNPRUNED].ours) and ours.mean == pytest.approx(unpruned, rel=0.05)


@pytest.mark.parametrize("id", ["fig1", "ablation", "sensitivity", "table7", "masks", "channels"])
def test_shares_kept_stand_beside_those_at_initialisation(id: str) -> None:
    rows = draw(id, "cifar").comparisons
    start = {r.method: r.ours for r in rows if r.quantity == "weights kept by masks at initialisation (%)"}
    end = {r.method: r.ours for r in rows if r.quantity == "kept parameters (% of unpruned extractors)"}
    assert start and start.keys() == end.keys()
    assert {round(e.mean) for e in start.values() if e} == {25} and {round(e.mean) for e in end.values() if e} == {10}


@pytest.mark.parametrize(
    ("steps", "base", "mean"),
    [
        *((5, False, 76.80), (10, False, 75.36), (20, False, 74.09), (50, False, 72.41)),
        *((2, True, 74.61), (5, True, 73.21), (10, True, 72.81)),
    ],
)
def test_published_curves_average_to_the_tables(steps: int, base: bool, mean: float) -> None:
    curve = PUBLISHED.figure(f"curves-{'b50' if base else 'b0'}-{steps}")
    series, masked = curve.series(UNPRUNED), curve.series(MASKED)
    assert series and average_incremental_accuracy(series["y"]) == pytest.approx(mean, abs=0.005)
    table = PUBLISHED.figure("table2" if base else "table1").series(MASKED)
    assert masked and table
    assert average_incremental_accuracy(masked["y"]) == pytest.approx(table["y"][table["x"].index(steps)], abs=0.006)


def test_curves_have_a_panel_for_each_number_of_steps_with_the_official_lines_over_ours() -> None:
    for id, steps in (("curves-b0", (5, 10, 20, 50)), ("curves-b50", (2, 5, 10))):
        panels = draw(id, "cifar", figure(id).runs(settings("cifar", None, None, 1.0))).panels
        assert [panel.title for panel in panels] == [f"{n} steps" for n in steps]
        for panel in panels:
            ours, official = ({c.name: list(c.x) for c in panel.curves if c.published is p} for p in (False, True))
            assert ours == official and ours.keys() == {UNPRUNED, MASKED}


def test_official_numbers_on_imagenet_come_before_quoted_ones() -> None:
    """DER w/o P with a base has 78.19 on average and 72.92 in the end, where others quote 78.20 and 74.92."""
    drawing = draw("imagenet100-b50", "imagenet")
    rows = {r.quantity: (r.published, r.provenance) for r in drawing.comparisons if r.method == UNPRUNED}
    assert rows[f"{AVERAGE}, top-1"] == (78.19, "official-file") and rows[f"{LAST}, top-1"] == (72.92, "official-file")
    assert rows[f"{LAST}, top-5"] == (91.3, "memory-unverified")
    assert [any(c.published for c in panel.curves) for panel in drawing.panels] == [True, False]


def test_parameters_are_averaged_over_steps() -> None:
    """An extractor has 11.17 million, and the classifier grows with the classes seen: the paper's 11.2 (T + 1) / 2."""
    setting = settings("cifar", None, ["O1"], 1.0)[0]
    for steps in (5, 10, 20, 50):
        result = fake(setting.b0_runs(setting.der(), steps)[0])
        expected = [EXTRACTOR * t + 512 * t * (100 // steps) * t for t in range(1, steps + 1)]
        assert parameters(result) == expected
        assert mean_parameters(result) == pytest.approx(11.2e6 * (steps + 1) / 2, rel=0.08)
    base = fake(setting.b50_runs(setting.der(), 5)[0])
    assert mean_parameters(base) == pytest.approx(39.2e6, rel=0.02)
    single = fake(setting.b0_runs(setting.der(expand=False, aux=0.0), 10)[0])
    assert mean_parameters(single) == EXTRACTOR + 512 * 55


def test_transfer_by_hand() -> None:
    matrix = [[90.0], [80.0, 70.0], [60.0, 65.0, 50.0]]
    assert backward_transfer(matrix) == pytest.approx(((-10 + 0) / 2 + (-30 - 5 + 0) / 3) / 2)
    assert forward_transfer(matrix, [[90.0], [0.0, 60.0], [0.0, 0.0, 55.0]]) == pytest.approx((10 - 5) / 2)


def test_orders_are_the_published_ones() -> None:
    for name, start, digest in (
        ("O1", [87, 0, 52], "267358b4b4a6"),
        ("O2", [58, 30, 93], "9f3e8e093623"),
        ("O3", [71, 54, 45], "d6e629bb25bc"),
    ):
        order = named_order(name, 100).tolist()
        assert sorted(order) == list(range(100)) and order[:3] == start
        assert hashlib.sha256(" ".join(map(str, order)).encode()).hexdigest().startswith(digest)
    assert named_order("1993", 100).tolist()[:3] == class_order(100).tolist()[:3] == [68, 56, 78]
    thousand = class_order(1000).tolist()
    assert thousand[:8] == [54, 7, 894, 512, 126, 337, 988, 11] and thousand[-4:] == [225, 945, 697, 417]
    assert named_order("O1", 10).tolist() == [0, 8, 4, 1, 6, 9, 3, 5, 2, 7]
    with pytest.raises(ValueError, match="has 100 classes, not 200"):
        named_order("O1", 200)


def test_settings() -> None:
    """The default is the paper's three orders with one seed. Short schedules keep the classifier stage whole."""
    (cifar,) = settings("cifar", None, None, 1.0)
    assert cifar.repeats == (("O1", 1993), ("O2", 1993), ("O3", 1993)) and cifar.full_schedule
    assert settings("cifar", [1994], None, 1.0)[0].repeats == (("1994", 1994),)
    (short,) = settings("cifar", None, ["O1"], 0.06)
    assert short.schedule.epochs == 10 and short.schedule.milestones == (7, 8) and short.schedule.warmup == 1
    assert short.finetune.epochs == 30 and not short.full_schedule
    assert short.mask_rate == pytest.approx(1 / 0.06, abs=0.01)
    run = short.b0_runs(short.masked(), 10)[0]
    assert run.protocol.sizes == [10] * 10 and run.protocol.exemplars_total == 2000 and run.inputs.brightness > 0
    start = short.b50_runs(short.der(), 10)[0].start
    assert start and start.protocol.sizes == [50] and start.schedule.warmup == 0 and start.schedule.epochs == 12
    assert start == short.b50_runs(short.der(), 2)[0].start
    learned, control = (catalogue.control(short)[name][0] for name in (MASKED, RANDOM))
    assert control.start == learned and control.method.channels == "random"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (DER(sparsity=-1.0), "lambda_s must not be negative"),
        (DER(sparsity=0.5, s_max=1.0), "s_max must exceed 1"),
        (DER(channels="random"), "random channels need masks"),
        (DER(sparsity=0.5, expand=False), "single network"),
        (DER(classifier="inherit"), "reset=False"),
    ],
)
def test_impossible_methods_are_refused(method: DER, message: str) -> None:
    setting = settings("quick", None, None, 1.0)[0]
    with pytest.raises(ValueError, match=message):
        method.check(setting.b0_runs(method, 5)[0].protocol)
