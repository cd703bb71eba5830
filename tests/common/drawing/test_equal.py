"""Tests equal schedules: planned Runs against the recipes of equal.json, and differences against SciPy."""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
import torch
from fakes import FIGURES
from scipy import stats

from bbn.methods import BBN
from bbn.model import BilateralNet
from common.drawing.equal import ALL, OURS, THEIRS, Read, after_phases, difference, equal_schedules
from common.drawing.figures import Drawing, Published
from common.drawing.report import cells
from common.resnet import backbone
from common.runs import Run
from common.splits import longtail_counts
from common.store import Result
from common.training import Device

ROOT = Path(__file__).parents[3]
PAPERS = ("lucir", "der", "bbn")
KNOWN = {paper: Published.load(ROOT / paper / "equal.json") for paper in PAPERS}
RECIPES = [(paper, id) for paper, known in KNOWN.items() for id in known.entries]


def settings(paper: str, options: str, seeds: tuple[int, ...] = (1993, 1, 2)) -> tuple[Any, ...]:
    """Return the settings that options such as "--epochs-scale 0.05 --orders 1993" choose."""
    words = shlex.split(options)
    asked = dict(zip(words[::2], words[1::2], strict=True))
    presets = importlib.import_module(f"{paper}.reproduce.presets")
    return presets.settings("cifar", seeds, asked.get("--orders", "").split() or None, float(asked["--epochs-scale"]))


def planned(paper: str, id: str) -> list[Run]:
    protocol = KNOWN[paper].entries[id]["protocol"]
    return FIGURES[paper]["equal-schedules"].runs(settings(paper, protocol["options"]))[protocol["runs"]]


def rates(schedule: Any) -> list[float]:
    return [schedule.lr_at(epoch) for epoch in range(schedule.epochs)]


def weights(run: Run) -> int:
    """Return the number of the network's parameters, as the authors count them: with the classifier for BBN alone."""
    generator = torch.Generator()
    if isinstance(run.method, BBN):
        return sum(p.numel() for p in BilateralNet(run.network, 100, Device("cpu", "fp32"), 0, generator).parameters())
    return sum(p.numel() for p in backbone(run.network).parameters())


@pytest.mark.parametrize(("paper", "id"), RECIPES)
def test_planned_runs_have_the_recipe(paper: str, id: str) -> None:
    protocol, runs = KNOWN[paper].entries[id]["protocol"], planned(paper, id)
    assert [run.seed for run in runs] == [1993, 1, 2] and {run.order for run in runs} == {protocol["order"]}
    for each in [link for run in runs for link in run.chain]:
        s = each.schedule
        assert rates(s) == pytest.approx(protocol["rates"], rel=1e-4) and each.data.name == "cifar100"
        assert all(getattr(s, name) == protocol[name] for name in ("batch", "momentum", "weight_decay", "nesterov"))
    for run in runs:
        method, memory = protocol["method"], ("exemplars_per_class", "exemplars_total", "rounding")
        assert {name: getattr(run.method, name) for name in method} == method
        assert run.protocol.sizes == protocol.get("sizes", [100])
        assert all(getattr(run.protocol, name) == protocol[name] for name in memory if name in protocol)
        assert weights(run) == protocol.get("parameters", 466_256)
        assert run.inputs.brightness == pytest.approx(protocol.get("brightness", 0), abs=1e-6)


def test_long_tailed_runs_take_the_authors_steps() -> None:
    for id, entry in KNOWN["bbn"].entries.items():
        protocol, (run, *_) = entry["protocol"], planned("bbn", id)
        assert run.longtail and (run.longtail.imbalance, run.longtail.seed) == (protocol["imbalance"], 0)
        images = int(longtail_counts(100, 500, run.longtail.imbalance).sum())
        steps = images // 128 if run.schedule.drop_last else -(-images // 128)
        assert (images, steps) == (protocol["images"], protocol["steps"])


def test_the_steps_of_der() -> None:
    """Both heads start again after a warm-up of one epoch. The classifier stage has a length of its own."""
    (run, *_), protocol = planned("der", "equal-schedules"), KNOWN["der"].entries["equal-schedules"]["protocol"]
    assert run.method.reset and run.schedule.warmup == protocol["heads_reset_before_epoch"]
    assert rates(run.method.finetune) == pytest.approx(protocol["classifier_rates"])


def test_runs_of_other_figures_are_reused() -> None:
    chosen = settings("lucir", "--epochs-scale 0.05 --orders 1993")
    runs, fig7a = (FIGURES["lucir"][id].runs(chosen) for id in ("equal-schedules", "fig7a"))
    assert runs["iCaRL"] == fig7a["iCaRL-CNN"] and runs["LUCIR without CBF"] == fig7a["CN+LC+IS"]
    chosen = settings("bbn", "--epochs-scale 0.1")
    branches = FIGURES["bbn"]["branches-cifar100"].runs(chosen)
    assert FIGURES["bbn"]["equal-schedules"].runs(chosen)["BBN"] in branches.values()


def test_averages_are_those_that_the_authors_code_prints() -> None:
    printed = {"iCaRL, CNN": 29.97, "iCaRL, NME": 35.73, "LUCIR without CBF, CNN": 38.22,
               "LUCIR without CBF, NME": 36.76, "iCaRL, CNN, first 50 classes": 22.67,
               "LUCIR without CBF, NME, first 50 classes": 39.46}  # fmt: skip
    for entry in KNOWN["lucir"].entries.values():
        for series in entry["series"]:
            if series["method"] in printed and len(series["y"]) > 1:
                assert np.mean(series["y"]) == pytest.approx(printed.pop(series["method"]), abs=0.01)
    assert not printed


def authors(paper: str, shift: float) -> dict[str, Read]:
    """Return functions that read every series as the authors' numbers, or by seed a little less or more."""
    first = dict[str, list[float]]()
    for entry in KNOWN[paper].entries.values():
        for series in entry["series"]:
            first.setdefault(series["method"], series["y"])
    step = {1993: -1, 1: 0, 2: 1}
    return {n: lambda r, y=y: [v + shift * step[r.repeat[1]] for v in y] for n, y in first.items()}  # type: ignore


def drawn(paper: str, options: str, reads: dict[str, Read] | None = None) -> Drawing:
    """Draw the figure on made-up Results of the Runs that the options choose."""
    figure, chosen = FIGURES[paper]["equal-schedules"], settings(paper, options)
    groups = figure.runs(chosen)
    if reads:
        figure = equal_schedules(figure.experiment, reads, figure.role or "")
    results = {name: [fakes.FAKES[paper](run) for run in runs] for name, runs in groups.items()}
    return figure.draw(chosen, results, Published({}, {}))


OPTIONS = {paper: next(iter(known.entries.values()))["protocol"]["options"] for paper, known in KNOWN.items()}


@pytest.mark.parametrize("paper", PAPERS)
def test_every_series_is_drawn_and_compared(paper: str) -> None:
    drawing = drawn(paper, OPTIONS[paper])
    names = {series["method"] for entry in KNOWN[paper].entries.values() for series in entry["series"]}
    assert {row.method for row in drawing.comparisons} == names and len(drawing.panels) == len(names)
    assert all(row.published is not None and row.gap for row in drawing.comparisons)
    assert all([curve.name for curve in panel.curves] == [THEIRS, OURS] for panel in drawing.panels)


@pytest.mark.parametrize("paper", PAPERS)
def test_equal_numbers_differ_by_nothing(paper: str) -> None:
    """The interval is the range in which three of our runs predict a fourth: t(2) * std * sqrt(1 / 3 + 1)."""
    several = ("CE", "CE-DRW", "accuracy at 50 classes (%)")  # the authors' code has more seeds of these
    for row in drawn(paper, OPTIONS[paper], authors(paper, 1.5)).comparisons:
        assert row.ours and row.gap and (row.ours.n, row.gap.n) == (3, 3)
        if not {row.method, row.quantity} & set(several):
            assert row.gap.mean == pytest.approx(0, abs=1e-9) and row.ours.mean == pytest.approx(row.published)
            assert row.gap.interval == pytest.approx(stats.t.ppf(0.975, 2) * 1.5 * (4 / 3) ** 0.5)


def test_several_seeds_of_theirs_count_as_such() -> None:
    theirs = {"CE": ([24.37, 22.91], "n = 2"), "LUCIR without CBF, CNN": ([46.6, 45.4, 48.1, 47.34], "n = 4")}
    for paper, quantity, method in (("bbn", ALL, "CE"),
                                    ("lucir", "accuracy at 50 classes (%)", "LUCIR without CBF, CNN")):  # fmt: skip
        rows = drawn(paper, OPTIONS[paper], authors(paper, 1.0)).comparisons
        (row,) = (r for r in rows if (r.quantity, r.method) == (quantity, method))
        values, words = theirs[method]
        ours = [values[0] - 1, values[0], values[0] + 1]
        low, high = stats.ttest_ind(ours, values).confidence_interval(0.95)
        assert row.gap and (row.gap.mean - row.gap.interval, row.gap.mean + row.gap.interval) == pytest.approx(
            (low, high)
        )
        assert row.provenance == f"{THEIRS}, {words}" and row.published == pytest.approx(np.mean(values))
        assert cells(row, False)[4] == f"{row.gap.mean:+.2f} ± {row.gap.interval:.2f}"


@pytest.mark.parametrize("options", ["--epochs-scale 1 --orders 1993", "--epochs-scale 0.0588 --orders 1993",
                                     "--epochs-scale 0.06 --orders O1"])  # fmt: skip
def test_theirs_stand_beside_the_same_schedule_and_order_alone(options: str) -> None:
    """At 0.0588 there are ten epochs too, but the rate falls an epoch earlier."""
    drawing = drawn("der", options)
    assert OPTIONS["der"] in drawing.note and not any(row.published for row in drawing.comparisons)
    assert all([curve.name for curve in panel.curves] == [OURS] for panel in drawing.panels)
    assert all(row.ours and row.gap is None for row in drawing.comparisons)


def test_a_difference_of_two_runs_has_no_interval() -> None:
    gap = difference([5.0], [3.0])
    assert gap.mean == 2 and np.isnan(gap.interval) and gap.n == 1


def test_reads_take_the_stage_and_the_classes_asked_for() -> None:
    first, last = {"cnn": {"accuracy": 1.0, "groups": [2.0, 3.0]}}, {"cnn": {"accuracy": 4.0, "groups": [5.0, 6.0]}}
    phases = [{"stages": {"main": first}}, {"stages": {"main": first, "classifier": last}}]
    result = Result("0" * 16, {}, {}, {"phases": phases})
    reads = [after_phases("cnn", group, stage) for stage in ("main", "") for group in (None, 0, -1)]
    assert [read(result) for read in reads] == [[1, 1], [2, 2], [3, 3], [1, 4], [2, 5], [3, 6]]
