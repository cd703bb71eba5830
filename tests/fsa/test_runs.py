"""Tests which runs the presets ask for, and what a command does with them before training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from common.command.estimates import cost, seconds_left
from common.command.revived import run_of
from common.command.train import line
from common.runs import canonical
from common.store import Result
from fsa.methods import FSA, EarlierBlock, Views
from fsa.reproduce.catalogue import FIGURES, VARIANTS
from fsa.reproduce.figures import NO_AUG, TUNED
from fsa.reproduce.presets import settings

BY_ID = {figure.id: figure for figure in FIGURES}


def test_every_run_of_the_papers_preset_is_the_papers() -> None:
    chosen = settings("cifar", [0], None, 1.0)
    groups = BY_ID["table1-resnet18"].runs(chosen)
    ours, ce = groups[TUNED, 100][0], groups["CE", 100][0]
    assert ours.start == ce and ours.seed == ce.seed == 0
    assert (ce.schedule.epochs, ce.schedule.lr, ce.schedule.milestones, ce.schedule.batch) == (300, 0.1, (150,), 128)
    s = ours.schedule
    assert (s.epochs * FSA.steps, s.lr, s.milestones, s.batch, s.weight_decay) == (6400, 0.001, (), 128, 0.0)
    control = groups[NO_AUG, 100][0]
    assert control.method == FSA(tail=64, donors=0) and control.start == ce
    large = settings("imagenet", None, None, 1.0)
    tuned = BY_ID["table4-inat2018"].runs(large)[TUNED, 152][0]
    assert tuned.schedule.epochs * FSA.steps == 200 and tuned.network == "resnet152-imagenet"
    assert BY_ID["table3-places-lt"].runs(large)[TUNED][0].network == "resnet152-pretrained"


def test_phase_two_repeats_share_phase_one() -> None:
    """Five seeds of the control and of FSA run all iterations, on ten cached views of one shortened Phase I."""
    groups = BY_ID["control-cifar10"].runs(settings("cifar", [3], None, 0.1))
    (first,) = groups["Phase I"]
    assert (first.seed, first.schedule.epochs, first.schedule.milestones) == (3, 30, (15,))
    for name in (NO_AUG, TUNED):
        assert [run.seed for run in groups[name]] == [0, 1, 2, 3, 4]
        starts = {run.start for run in groups[name]}
        assert len(starts) == 1
        (cache,) = starts
        assert cache and cache.method == Views(10) and cache.start == first and cache.seed == 3
        assert {run.schedule.epochs for run in groups[name]} == {64}
    both = BY_ID["control-cifar10"].runs(settings("cifar", [0, 1], None, 1.0))
    assert len(both[TUNED]) == 10 and len({run.start for run in both[TUNED]}) == 2


def test_a_renamed_method_keeps_its_hashes_and_its_name_in_commands() -> None:
    """Records of Fig. 9 say Earlier, which was the name of the class when they were trained."""
    records = [(path.stem, json.loads(path.read_text())["config"]) for path in Path("fsa/records").glob("*.json")]
    earlier = {digest: config for digest, config in records if config["method"]["type"] == "Earlier"}
    assert len(earlier) >= 2
    for digest, config in earlier.items():
        run = run_of(config, digest)
        assert type(run.method) is EarlierBlock and run.hash == digest and canonical(run) == config
    assert type(line("fsa", ["Earlier", "--behind", "2"], "line 1").run.method) is EarlierBlock  # type: ignore[union-attr]


def test_every_control_of_the_specification_is_there() -> None:
    methods = list(VARIANTS.values())
    for control in (
        FSA(batch="natural"),
        FSA(tail=64, donors=0),
        FSA(batch="balanced"),
        FSA(donor_classes="random"),
        FSA(ratio=1.0),
        FSA(ratio=0.0),
        FSA(tau_generic=None),
        FSA(tau_specific=None, tau_generic=None),
    ):
        assert control in methods
    runs = [r for g in BY_ID["control-cifar10"].runs(settings("cifar", [0], None, 1.0)).values() for r in g]
    assert {r.schedule.batch for r in runs} == {128}


def test_a_reduced_schedule_leaves_phase_two_whole() -> None:
    assert [s.phase2.epochs for s in settings("cifar", None, None, 0.1)] == [64] * 4


def test_repeats() -> None:
    with pytest.warns(UserWarning, match="a class order means nothing there"):
        assert settings("cifar", [3, 3], ["O1"], 1)[0].seeds == (3,)
    assert settings("cifar", None, None, 1)[0].seeds == (0, 1, 2)


def test_the_time_of_phase_two_from_a_cache_is_not_that_of_training() -> None:
    cached = BY_ID["control-cifar10"].runs(settings("cifar", [0], None, 1.0))[TUNED][0]
    afresh = BY_ID["table1-resnet18"].runs(settings("cifar", [0], None, 1.0))[TUNED, 100][0]
    assert cost(cached, None) == cost(afresh, None) == 6400 * 128
    measured = [(replace(cached, network="resnet18"), 10_000.0), (replace(afresh, network="resnet18"), 10.0)]
    ended = [Result(run.hash, canonical(run), {"images_per_second": rate}, {}) for run, rate in measured]
    for run, rate in measured:
        assert seconds_left([run], [6400 * 128], ended, 2) == pytest.approx(6400 * 128 / rate / 2)
