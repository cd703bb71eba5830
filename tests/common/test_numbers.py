"""A method's number that cannot be trained with, or that training would take without a word, is refused before any."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from methods import EVERY, SHORT, TWO_DONORS, Get
from refusals import refused

from bbn.methods import Probe
from common.command import plan
from common.data.datasets import Dataset
from common.errors import InputError
from common.runs import Protocol, Schedule
from der.methods import DER, WA, BiC
from feature_adaptation.methods import Adaptation, Extractor, Oracle
from fsa.methods import FSA, EarlierBlock, Survey
from lucir.methods import LUCIR, Base

GROWING = Protocol(8, 4, 2, exemplars_per_class=2)
NESTEROV = Schedule(1, nesterov=True, momentum=0.0)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (DER(mask_rate=-1.0), "mask_rate must be 0 or more"),
        (DER(mask_bound=0.0), "mask_bound positive"),
        (DER(finetune=NESTEROV), "nesterov needs a momentum above 0"),
        (WA(temperature=0.0), "WA's temperature must be positive, got 0"),
        (BiC(temperature=-1.0), "BiC's temperature must be positive"),
        (BiC(held_out=0.0), "held_out a share between 0 and 1"),
        (BiC(held_out=1.0), "held_out a share between 0 and 1"),
        (Extractor(temperature=0.0), "the temperature must be positive"),
        (Extractor(distillation=-0.5), "the weights of distillation, features and attention 0 or more"),
        (Extractor(attention=-0.5), "the weights of distillation, features and attention 0 or more"),
        (Adaptation(alpha=0.0), "alpha must be positive, or None"),
        (Adaptation("sdc", sigma=-1.0), "sigma must be positive"),
        (Oracle("mlp-true-pairs", hidden_layers=0), "hidden_layers and expansion must be at least 1"),
        (Adaptation(expansion=-2), "hidden_layers and expansion must be at least 1"),
        (Probe(beta=1.0), "beta must lie in [0, 1), got 1"),
        (Survey(classes=(0, -1)), "classes (0, -1) are not all among the 8"),
        (Survey(classes=(0, 1), points=0), "needs points and pictures, got 0 and 8"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_numbers_out_of_range_are_refused(
    method: Any, words: str, get: Get, tiny_data: Dataset, tmp_path: Path
) -> None:
    run = replace(get("tiny_run")(method, protocol=GROWING), start=get("tiny_run")(Base()))
    refused(run, tiny_data, tmp_path, re.escape(words))


@pytest.mark.parametrize(
    "protocol",
    [Protocol(8, 4, 2, 1), Protocol(8, 4, 2, None, 8, "down"), Protocol(8, 4, 2, None, 11, "down")],
    ids=["one", "in total", "a little more"],
)
def test_one_exemplar_a_class_is_not_both_held_out_and_trained_on(protocol: Protocol, get: Get) -> None:
    with pytest.raises(InputError, match="keep two or more of each class"):
        get("tiny_run")(BiC(), protocol=protocol).check()


@pytest.mark.parametrize("protocol", [Protocol(8, 4, 2, 2), Protocol(8, 4, 2, None, 12, "down"), Protocol(8, 8, 0, 0)])
def test_two_exemplars_a_class_are_enough(protocol: Protocol, get: Get) -> None:
    get("tiny_run")(BiC(), protocol=protocol).check()


@pytest.mark.parametrize("name", ["DER++", "long-tailed iCaRL", "long-tailed LUCIR", "long-tailed DER"])
def test_methods_of_the_docs_that_need_exemplars_say_so(
    name: str, get: Get, tiny_data: Dataset, tmp_path: Path
) -> None:
    run = EVERY[name](get)
    none = replace(run, protocol=replace(run.protocol, exemplars_per_class=0, exemplars_total=None))
    refused(none, tiny_data, tmp_path, "give a memory")


@pytest.mark.parametrize("name", sorted(EVERY))
def test_a_run_that_only_goes_on_from_another_needs_one(
    name: str, get: Get, tiny_data: Dataset, tmp_path: Path
) -> None:
    run = EVERY[name](get)
    run.check()
    if getattr(run.method, "starts_from", ""):
        assert run.start is not None
        refused(replace(run, start=None), tiny_data, tmp_path, "starts from .*; give its Run a start")
    elif run.start:  # a shortcut: without it the run trains its base phase itself
        replace(run, start=None).check()


def test_the_list_has_methods_that_only_go_on(get: Get) -> None:
    names = {name for name, make in EVERY.items() if getattr(make(get).method, "starts_from", "")}
    assert {"cRT", "probe", "FSA on images", "views", "survey", "oracle", "DER, random channels"} <= names


def test_a_start_has_the_classes_in_the_same_order(get: Get, tiny_data: Dataset, tmp_path: Path) -> None:
    run = EVERY["LUCIR from a base model"](get)
    refused(
        replace(run, order="7"), tiny_data, tmp_path, "order 7 but starts from a run of order .* give both Runs one"
    )


@pytest.mark.parametrize("name", ["probe", "DER, random channels", "feature adaptation, hybrid", "oracle"])
def test_a_start_of_the_wrong_kind_is_refused_before_it_is_trained(name: str, get: Get) -> None:
    run = EVERY[name](get)
    assert run.start is not None
    with pytest.raises(InputError, match=r"starts from a run of .*, not from a run of Base"):
        replace(run, start=replace(run.start, method=Base())).check()


@pytest.mark.parametrize("change", [{"batch": 2**63}, {"epochs": 10**400}, {"milestones": (1, 2**70)}])
def test_integers_fit_into_64_bits(change: dict[str, Any], get: Get) -> None:
    name, schedule = next(iter(change)), replace(SHORT, **change)
    with pytest.raises(InputError, match=rf"Schedule.{name} must fit into 64 bits with its sign"):
        get("tiny_run")(LUCIR(finetune=schedule))
    get("tiny_run")(LUCIR(finetune=replace(SHORT, batch=2**63 - 1))).check()


@pytest.mark.parametrize("name", ["FSA on images", "FSA, an earlier block"])
def test_a_share_that_leaves_no_tail_is_refused_before_phase_1_is_trained(
    name: str, get: Get, tiny_data: Dataset
) -> None:
    run = EVERY[name](get)
    plan.check(run, tiny_data)
    whole = replace(TWO_DONORS, share=0.9999)
    method = whole if isinstance(run.method, FSA) else EarlierBlock(1, whole)
    with pytest.raises(InputError, match=r"all \d+ classes are the head of 0.9999 of the images; lower the share"):
        plan.check(replace(run, method=method), tiny_data)
