"""BBN's runs as a whole: classifiers on features of other data, capture, resuming, bad configurations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recorder import record

from bbn.methods import BBN, Ensemble, Mixup, Probe, UnitFeatures
from class_balanced.methods import ClassBalanced
from common import store, training
from common.command import launcher
from common.command.launcher import Job, launch
from common.command.plan import Choice, Data, Plan, check
from common.data.datasets import Dataset, DataSpec
from common.errors import InputError
from common.imbalance import Rebalance, Retrain
from common.runs import Protocol, Run
from common.splits import longtail_counts
from common.store import Store

TOTAL = int(longtail_counts(8, 12, 4.0).sum())
MakeRun = Callable[..., Run]
METHODS: dict[str, Any] = {
    "bbn": BBN(),
    "bbn, beta and one pass": BBN(adaptor="beta", passes="concatenated", sampler="balanced"),
    "mixup": Mixup(),
    "manifold mixup": Mixup("features"),
    "two samplers": Mixup("features", partners="reversed"),
    "input, two samplers": Mixup(partners="reversed"),
    "ensemble": Ensemble(),
    "unit features": UnitFeatures(Rebalance(sampler="balanced")),
    "cb-focal": ClassBalanced("focal", 0.99, 1.0),
}


# Runs that start on other data


def test_a_classifier_is_trained_on_other_data_than_its_features(
    bbn_run: MakeRun, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fig. 2 (right): another data set with fewer classes, each with its own fingerprint, through the launcher."""
    keep, test = tiny_data.train_labels < 4, tiny_data.test_labels < 4
    small = Dataset(
        "small",
        tiny_data.train_images[keep],  # type: ignore[index]
        tiny_data.train_labels[keep],
        tiny_data.test_images[test],  # type: ignore[index]
        tiny_data.test_labels[test],
        tuple("abcd"),
        "fedcba9876543210",
    )
    sets = {"noise": tiny_data, "small": small}
    monkeypatch.setattr(launcher, "_load", lambda spec, root, cache: sets[spec.name])
    start = bbn_run(Rebalance(), fingerprint="", precision="")
    few = Protocol(4, 4, 0, exemplars_per_class=0)
    run = replace(start, method=Retrain(), data=DataSpec("small"), protocol=few, start=start)
    contents = {DataSpec(name): found.fingerprint for name, found in sets.items()}
    ready = run.resolved(contents.__getitem__, "fp32")
    assert ready.start and (ready.fingerprint, ready.start.fingerprint) == (small.fingerprint, tiny_data.fingerprint)
    assert ready.key == run.key and ready.resolved("", "").key == run.key
    ended = list(launch([ready], Job(tmp_path, None, "cpu", 1, 1), set()))
    assert [o.problem for o in ended] == ["", ""]
    result = Store(tmp_path).load(ready.hash)
    assert result and result.confusion("cnn").shape == (4, 4) and len(result.values["summary"]["norms"]) == 4
    states = [store.read_state(tmp_path / "runs" / r.hash / "checkpoint.safetensors") for r in ready.chain]
    first, second = (s.part("net/") for s in states if s)
    assert all(torch.equal(first[k], v) for k, v in second.items() if not k.startswith("head."))


def test_a_start_whose_data_are_missing_is_a_problem_of_its_children(bbn_run: MakeRun, tmp_path: Path) -> None:
    start = bbn_run(Rebalance(), data=DataSpec("absent"))
    run = replace(start, method=Retrain(), data=DataSpec("here"), start=start)
    data = Data(None, tmp_path, {DataSpec("absent"): InputError("absent is not here")})
    assert data.problem(run) == data.problem(start) == "absent is not here"
    assert data.problem(replace(run, start=None)) == ""
    assert Plan("bbn", Choice(), (), [], [], Store(tmp_path), data).unfinished() == []


# Capture and resuming


@pytest.mark.parametrize("name", METHODS)
def test_every_method_survives_capture(
    name: str, bbn_run: MakeRun, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alphas and shares are read anew by every replay: the losses are those of steps called from Python."""
    run, results = bbn_run(METHODS[name]), {}
    for path, capture in (("eager", None), ("graph", record)):
        monkeypatch.setattr(training, "capture_for", lambda images, capture=capture: capture)
        assert launcher.train(run, Job(tmp_path / path, None, "cpu", 1, 1)) == ""
        found = results[path] = Store(tmp_path / path).load(run.hash)
        assert found
    taken = results["graph"].environment["steps"]
    assert taken["captured"] == taken["eager"] == 1 and taken["graph"] == 4 * (TOTAL // 8) - 1
    eager, graph = (results[p].values["trace"]["loss"] for p in ("eager", "graph"))
    np.testing.assert_allclose(graph, eager, rtol=1e-3, atol=1e-4)


def test_testing_in_between_changes_nothing(bbn_run: MakeRun, tmp_path: Path) -> None:
    """Neither BatchNorm's statistics nor any draw."""
    states = []
    for every in (0, 1):
        run = bbn_run(BBN(), test_every=every)
        assert launcher.train(run, Job(tmp_path, None, "cpu", 1, 1)) == ""
        state = store.read_state(Store(tmp_path).folder(run) / "checkpoint.safetensors")
        assert state
        states.append(state.tensors)
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


class Interrupted(BaseException):
    """Stands for a kill: nothing in the program catches it."""


@pytest.mark.parametrize("name", ["bbn", "bbn, beta and one pass", "two samplers", "ensemble"])
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_killed_run_ends_with_the_same_bits(
    name: str, epochs: int, bbn_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SAVE_EVERY", 0)
    run = bbn_run(METHODS[name], test_every=2)
    assert launcher.train(run, Job(tmp_path / "whole", None, "cpu", 1, 1)) == ""
    left = iter(range(epochs))

    def kill(images: int) -> None:
        if next(left, None) is None:
            raise Interrupted

    job = Job(tmp_path / "killed", None, "cpu", 1, 1)
    with pytest.raises(Interrupted):
        launcher.train(run, job, kill)
    assert launcher.train(run, job) == ""
    whole, killed = (Store(tmp_path / p) for p in ("whole", "killed"))
    a, b = whole.load(run.hash), killed.load(run.hash)
    assert a and b and a.values == b.values
    states = [store.read_state(s.folder(run) / "checkpoint.safetensors") for s in (whole, killed)]
    assert states[0] and states[1] and states[0].tensors.keys() == states[1].tensors.keys()
    assert all(torch.equal(v, states[1].tensors[k]) for k, v in states[0].tensors.items())


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (BBN(adaptor="cubic"), "one of parabolic_decay"),  # type: ignore[arg-type]
        (BBN(sampler="reverse"), "one of reversed, balanced, uniform, got 'reverse'"),  # type: ignore[arg-type]
        (Mixup(strength=0.0), "must be positive"),
        (BBN(stretch=0.5), "at least 1"),
        (Ensemble("reverse"), "one of reversed, balanced, uniform"),  # type: ignore[arg-type]
        (Probe("both"), "one of cb, rb"),  # type: ignore[arg-type]
        (UnitFeatures(Rebalance(beta=1.0)), "beta"),
    ],
)
def test_impossible_methods_are_found_before_training(method: Any, message: str, bbn_run: MakeRun) -> None:
    with pytest.raises(InputError, match=message):
        check(bbn_run(method), None)
