"""Tests whole runs of BBN: classifiers on features of other data, tests during training, bad configurations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bbn.methods import BBN, Mixup, UnitFeatures
from common import store
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
# Runs that start on other data


def test_a_classifier_is_trained_on_other_data_than_its_features(
    bbn_run: MakeRun, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in Fig.

    2 (right), the classifier's data set has fewer classes and a fingerprint of its own. The launcher trains both runs.
    """
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


# Testing, and bad configurations


def test_testing_in_between_changes_nothing(bbn_run: MakeRun, tmp_path: Path) -> None:
    """Tests change neither BatchNorm's statistics nor any random number."""
    states = []
    for every in (0, 1):
        run = bbn_run(BBN(), test_every=every)
        assert launcher.train(run, Job(tmp_path, None, "cpu", 1, 1)) == ""
        state = store.read_state(Store(tmp_path).folder(run) / "checkpoint.safetensors")
        assert state
        states.append(state.tensors)
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Mixup(strength=0.0), "must be positive"),
        (BBN(stretch=0.5), "at least 1"),
        (UnitFeatures(Rebalance(beta=1.0)), "beta"),
    ],
)
def test_impossible_methods_are_found_before_training(method: Any, message: str, bbn_run: MakeRun) -> None:
    with pytest.raises(InputError, match=message):
        check(bbn_run(method), None)
