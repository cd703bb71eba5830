"""Runs that cannot end well are refused before any training, by the planner and by the loop over phases alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from methods import CASES, SHORT, Get

from common import incremental
from common.command import plan
from common.data.datasets import Dataset
from common.errors import InputError
from common.runs import LongTail, Protocol, Run
from common.store import Store
from common.training import Device
from der.methods import DER, BiC
from feature_adaptation.methods import Extractor
from lucir.methods import LUCIR, ICaRL

MakeRun = Callable[..., Run]


def refused(run: Run, data: Dataset, out: Path, message: str) -> None:
    """Both ways to a training refuse the run, and no epoch has begun."""
    with pytest.raises(InputError, match=message):
        plan.check(run, data)
    learner = incremental.learner_of(run.method)
    with pytest.raises(InputError, match=message), Store(out).open(run) as workspace:
        incremental.run(run, data, learner, workspace, Device("cpu", "fp32"))
    assert not list(out.glob("runs/*/metrics.jsonl"))


@pytest.mark.parametrize("budget", ["exemplars_per_class", "exemplars_total"])
@pytest.mark.parametrize("name", CASES)
def test_no_method_takes_a_negative_memory(
    name: str, budget: str, get: Get, tiny_data: Dataset, tmp_path: Path
) -> None:
    run = CASES[name](get)
    none = {"exemplars_per_class": None, "exemplars_total": None, budget: -1}
    refused(replace(run, protocol=replace(run.protocol, **none)), tiny_data, tmp_path, "must not be negative, got -1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "method", [LUCIR(), ICaRL(finetune=SHORT), DER(), BiC(), Extractor(finetune=SHORT)], ids=lambda m: type(m).__name__
)
@pytest.mark.parametrize("none", [Protocol(8, 4, 2, 0), Protocol(8, 4, 2, None, 0)], ids=["per class", "in total"])
def test_what_finetunes_on_exemplars_needs_some(
    method: Any, none: Protocol, tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    paper = {DER: "der", BiC: "der", Extractor: "feature_adaptation"}.get(type(method), "lucir")
    refused(replace(tiny_run(method, protocol=none), paper=paper), tiny_data, tmp_path, "exemplars")
    replace(tiny_run(method), protocol=Protocol(8, 8, 0, 0)).check()  # with all classes at once nothing is old


@pytest.mark.parametrize("rounding", ["up", "down"])
def test_a_total_memory_holds_one_exemplar_a_class_at_least(
    rounding: Any, tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    run = tiny_run(ICaRL(), protocol=Protocol(8, 4, 2, None, 7, rounding))
    refused(run, tiny_data, tmp_path, "7 exemplars in total for 8 classes")
    plan.check(replace(run, protocol=Protocol(8, 4, 2, None, 8, rounding)), tiny_data)


@pytest.mark.parametrize("seed", [-1, 2**31, 2**32 + 1993, 2**63])
def test_seeds_are_31_bits(seed: int, tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    refused(tiny_run(ICaRL(), seed=seed), tiny_data, tmp_path, "below 2\\^31")
    child = tiny_run(ICaRL(), start=tiny_run(ICaRL(), seed=seed))
    refused(child, tiny_data, tmp_path, "below 2\\^31")
    everything = Protocol(8, 8, 0, exemplars_per_class=0)
    refused(
        tiny_run(ICaRL(), protocol=everything, longtail=LongTail(6, seed=seed)), tiny_data, tmp_path, "below 2\\^31"
    )
    plan.check(tiny_run(ICaRL(), seed=2**31 - 1), tiny_data)
