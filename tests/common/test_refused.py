"""Tests that runs which cannot end well are refused before training, by the planner and by the loop over phases."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Optional

import pytest
from methods import CASES, SHORT, Get
from refusals import refused

from bbn.methods import UnitFeatures
from common.command import plan
from common.data.datasets import Dataset
from common.errors import InputError
from common.imbalance import Rebalance
from common.runs import Inputs, LongTail, Protocol, Run, choices
from der.methods import DER, BiC
from feature_adaptation.methods import Adaptation, Extractor, Oracle
from lucir.methods import LUCIR, ICaRL

MakeRun = Callable[..., Run]


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


WORDS: dict[str, tuple[dict[str, Any], str]] = {
    "a method's": (
        {"method": LUCIR(old="less_forget")},  # type: ignore[arg-type]
        "LUCIR.old must be one of less-forget, cosine, got 'less_forget'",
    ),
    "a number": (
        {"method": LUCIR(finetune_flag=9)},  # type: ignore[arg-type]
        "LUCIR.finetune_flag must be one of 1, 2, 3, 4, 5, got 9",
    ),
    "true for 1": (
        {"method": LUCIR(finetune_flag=True)},  # type: ignore[arg-type]
        "LUCIR.finetune_flag must be one of 1, 2, 3, 4, 5, got True",
    ),
    "another class's": (
        {"method": Adaptation(map="true")},  # type: ignore[arg-type]
        "Adaptation.map must be one of mlp, residual, linear, sdc, shift, identity, got 'true'",
    ),
    "a subclass's": (
        {"method": Oracle(map="mlp")},  # type: ignore[arg-type]
        "Oracle.map must be one of mlp-true-pairs, true, got 'mlp'",
    ),
    "in a method's schedule": (
        {"method": LUCIR(finetune=replace(SHORT, warmup_by="steps"))},  # type: ignore[arg-type]
        "Schedule.warmup_by must be one of epoch, step, third, got 'steps'",
    ),
    "in a method's method": (
        {"method": UnitFeatures(Rebalance(sampler="reverse"))},  # type: ignore[arg-type]
        "Rebalance.sampler must be one of uniform, balanced, reversed, sqrt, got 'reverse'",
    ),
    "the schedule's": (
        {"schedule": replace(SHORT, warmup_by=None)},  # type: ignore[arg-type]
        "Schedule.warmup_by must be one of epoch, step, third, got None",
    ),
    "the protocol's": (
        {"protocol": Protocol(8, 4, 2, rounding="off")},  # type: ignore[arg-type]
        "Protocol.rounding must be one of up, down, got 'off'",
    ),
    "the inputs'": (
        {"inputs": Inputs(kind="crop")},  # type: ignore[arg-type]
        "Inputs.kind must be one of crop-flip, resized-crop, got 'crop'",
    ),
    "the long tail's": (
        {"longtail": LongTail(4, "exponential")},  # type: ignore[arg-type]
        "LongTail.profile must be one of exp, step, got 'exponential'",
    ),
}


@pytest.mark.parametrize("name", WORDS)
def test_a_word_that_is_no_choice_is_refused_when_the_run_is_made(name: str, tiny_run: MakeRun) -> None:
    changes, message = WORDS[name]
    good = tiny_run(LUCIR())
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        replace(good, **changes)


def test_choices_are_read_from_every_way_to_write_them() -> None:
    """A type that lists no values, lists other types besides, or cannot be looked up allows every value."""

    @dataclass(frozen=True)
    class Listed:
        united: Literal["a"] | Literal["b", 2] | None = None
        optional: Optional[Literal["a"]] = None  # noqa: UP045
        open: Literal["a"] | float = 1.0
        number: int | None = None
        nothing: None = None

    assert choices(Listed) == {"united": ("a", "b", 2, None), "optional": ("a", None)}

    class Hidden:
        pass

    @dataclass(frozen=True)
    class Unknown:
        part: Hidden | None = None
        word: Literal["a"] = "a"

    assert choices(Unknown) == {}


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
