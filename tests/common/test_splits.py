"""Tests class orders and phases against the published lists, and schedules, protocols and the names of runs."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.command.settings import repeated
from common.data.datasets import DataSpec
from common.data.names import PUBLISHED
from common.data.synsets import IMAGENET
from common.errors import InputError
from common.runs import Inputs, LongTail, Protocol, Run, Schedule, canonical
from common.splits import class_order, named_order, phases, positions
from lucir.methods import FINETUNE, LUCIR, Base, ICaRL
from lucir.reproduce.presets import CIFAR_SCHEDULE

# LUCIR's order of CIFAR-100: `np.random.seed(1993); np.random.shuffle(np.arange(100))`.
BASE = [68, 56, 78, 8, 23, 84, 90, 65, 74, 76, 40, 89, 3, 92, 55, 9, 26, 80, 43, 38, 58, 70, 77, 1, 85, 19, 17, 50, 28,
        53, 13, 81, 45, 82, 6, 59, 83, 16, 15, 44, 91, 41, 72, 60, 79, 52, 20, 10, 31, 54]  # fmt: skip
LATER = [37, 95, 14, 71, 96, 98, 97, 2, 64, 66, 42, 22, 35, 86, 24, 34, 87, 21, 99, 0, 88, 27, 18, 94, 11, 12, 47, 25,
         30, 46, 62, 69, 36, 61, 7, 63, 75, 5, 32, 4, 51, 48, 73, 93, 39, 67, 29, 49, 57, 33]  # fmt: skip
SUBSET = [54, 7, 894, 512, 126, 337, 988, 11, 284, 493, 133, 783, 192, 979, 622, 215, 240, 548, 238, 419]


# Class orders


def test_published_order_of_cifar100() -> None:
    assert class_order(100).tolist() == BASE + LATER
    assert class_order(100).dtype == np.int64


@pytest.mark.parametrize(("seed", "start"), [(1994, [72, 6, 33, 96, 60]), (1995, [91, 18, 57, 73, 66])])
def test_other_seeds(seed: int, start: list[int]) -> None:
    assert class_order(100, seed)[:5].tolist() == start
    assert named_order(str(seed), 100).tolist() == class_order(100, seed).tolist()


def test_orders_leave_the_global_generator_alone() -> None:
    np.random.seed(3)
    expected = np.random.rand()
    np.random.seed(3)
    class_order(50)
    assert np.random.rand() == expected


def test_imagenet_subset_is_the_start_of_the_order_of_1000_classes() -> None:
    assert class_order(1000)[:20].tolist() == SUBSET
    assert PUBLISHED["imagenet-subset"] == tuple(sorted(IMAGENET[i] for i in class_order(1000)[:100]))


@pytest.mark.parametrize("name", ["imagenet", "", "-1", "1.5"])
def test_unknown_order(name: str) -> None:
    with pytest.raises(ValueError, match="unknown class order"):
        named_order(name, 10)


def test_no_classes() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        class_order(0)


# Phases


@given(base=st.integers(0, 30), step=st.integers(1, 9), count=st.integers(0, 6), seed=st.integers(0, 99))
def test_phases_cut_the_order_in_pieces(base: int, step: int, count: int, seed: int) -> None:
    classes = base + step * count
    if classes == 0:
        return
    order = class_order(classes, seed)
    parts = phases(order, base, step)
    assert [len(p) for p in parts] == ([base] if base else []) + [step] * count
    assert np.concatenate(parts).tolist() == order.tolist()
    assert order[positions(order)[np.arange(classes)]].tolist() == list(range(classes))


@given(st.data())
def test_phases_that_do_not_divide(data: st.DataObject) -> None:
    step = data.draw(st.integers(2, 9))
    rest = data.draw(st.integers(1, 40).filter(lambda r: r % step))
    base = data.draw(st.integers(0, 20))
    with pytest.raises(ValueError):
        phases(range(base + rest), base, step)
    with pytest.raises(ValueError):
        _ = Protocol(base + rest, base, step).sizes


@pytest.mark.parametrize(("base", "step"), [(-1, 1), (11, 1), (5, 0), (5, -5)])
def test_phases_outside_the_classes(base: int, step: int) -> None:
    with pytest.raises(ValueError):
        phases(range(10), base, step)
    with pytest.raises(ValueError):
        _ = Protocol(10, base, step).sizes


@pytest.mark.parametrize(
    ("classes", "base", "step", "sizes"),
    [(100, 50, 10, [50] + [10] * 5), (100, 30, 5, [30] + [5] * 14), (100, 50, 50, [50, 50]), (50, 50, 0, [50])],
)
def test_protocol_sizes_agree_with_phases(classes: int, base: int, step: int, sizes: list[int]) -> None:
    assert Protocol(classes, base, step).sizes == sizes
    assert [len(p) for p in phases(range(classes), base, step)] == sizes


# Schedules


def test_the_papers_learning_rates() -> None:
    rates = [CIFAR_SCHEDULE.lr_at(epoch) for epoch in range(CIFAR_SCHEDULE.epochs)]
    np.testing.assert_allclose(rates, [0.1] * 80 + [0.01] * 40 + [0.001] * 40)
    np.testing.assert_allclose([FINETUNE.lr_at(e) for e in range(FINETUNE.epochs)], [0.01] * 10 + [0.001] * 10)
    assert (CIFAR_SCHEDULE.momentum, CIFAR_SCHEDULE.weight_decay, CIFAR_SCHEDULE.batch) == (0.9, 5e-4, 128)


def test_warmup_rises_linearly() -> None:
    schedule = Schedule(8, lr=0.4, milestones=(6,), gamma=0.5, warmup=4)
    np.testing.assert_allclose([schedule.lr_at(e) for e in range(8)], [0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.2, 0.2])


@pytest.mark.parametrize(
    ("scale", "epochs", "milestones", "warmup"),
    [(0.5, 80, (40, 60), 2), (0.1, 16, (8, 12), 1), (0.001, 1, (1, 2), 1), (2.0, 320, (160, 240), 10)],
)
def test_scaled_schedule(scale: float, epochs: int, milestones: tuple[int, ...], warmup: int) -> None:
    scaled = replace(CIFAR_SCHEDULE, warmup=5).scaled(scale)
    assert (scaled.epochs, scaled.milestones, scaled.warmup) == (epochs, milestones, warmup)
    assert replace(scaled, epochs=160, milestones=(80, 120), warmup=0) == CIFAR_SCHEDULE


@given(
    st.floats(1e-3, 10).filter(lambda x: x != 1), st.integers(1, 300), st.sets(st.integers(1, 300), max_size=4),
    st.integers(0, 10),
)  # fmt: skip
def test_scaled_stays_a_schedule(scale: float, epochs: int, milestones: set[int], warmup: int) -> None:
    scaled = Schedule(epochs, milestones=tuple(sorted(milestones)), warmup=warmup).scaled(scale)
    assert scaled.epochs == max(1, round(epochs * scale))
    assert (scaled.warmup >= 1) == (warmup > 0)
    assert len(scaled.milestones) == len(milestones) and min(scaled.milestones, default=1) >= 1
    assert all(a < b for a, b in zip(scaled.milestones, scaled.milestones[1:], strict=False))
    for before, after in zip(sorted(milestones), scaled.milestones, strict=True):
        assert after >= round(before * scale)


def test_scale_one_changes_nothing() -> None:
    assert CIFAR_SCHEDULE.scaled(1) == CIFAR_SCHEDULE


# The names of runs

RUN = Run("lucir", LUCIR(), DataSpec("cifar100"), Protocol(100, 50, 10), CIFAR_SCHEDULE, "resnet32")
CHANGES = {
    "paper": "der",
    "method": ICaRL(),
    "data": DataSpec("cifar10"),
    "protocol": Protocol(100, 50, 5),
    "schedule": replace(CIFAR_SCHEDULE, lr=0.2),
    "network": "resnet8-half",
    "order": "1994",
    "seed": 1994,
    "inputs": Inputs(kind="resized-crop"),
    "start": replace(RUN, method=Base("cosine")),
    "longtail": LongTail(100),
    "test_every": 1,
    "sync_batchnorm": True,
}


def test_key_is_stable() -> None:
    again = Run("lucir", LUCIR(), DataSpec("cifar100"), Protocol(100, 50, 10), replace(CIFAR_SCHEDULE), "resnet32")
    assert (again.key, again.hash) == (RUN.key, RUN.hash)
    assert len(RUN.hash) == 16 and RUN.hash.startswith(RUN.key) and int(RUN.hash, 16) >= 0


def test_every_field_changes_the_key() -> None:
    assert set(CHANGES) | {"fingerprint", "precision"} == {f.name for f in fields(Run)}
    keys = {replace(RUN, **{name: value}).key for name, value in CHANGES.items()}  # type: ignore[arg-type]
    assert len(keys | {RUN.key}) == len(CHANGES) + 1


@pytest.mark.parametrize("changes", [
    {"old": "cosine"}, {"weight": 4.0}, {"direction": "paper"}, {"margin": None}, {"negatives": 1},
    {"margin_reduction": "sum_k"}, {"imprint": False}, {"finetune": None}, {"finetune_flag": 1}, {"scale": 4.0},
    {"nme_flip": "none"},
])  # fmt: skip
def test_every_option_of_the_method_changes_the_key(changes: dict) -> None:
    assert replace(RUN, method=LUCIR(**changes)).key != RUN.key


@dataclass(frozen=True)
class Method:
    version: ClassVar[int] = 1


def test_the_methods_version_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    run, child = replace(RUN, method=Method()), replace(RUN, start=replace(RUN, method=Method()))
    before = run.key, child.key
    monkeypatch.setattr(Method, "version", 2)
    assert replace(run).key != before[0] and replace(child).key != before[1]


def test_data_and_precision_change_the_hash_but_not_the_key() -> None:
    child = replace(RUN, start=RUN)
    for run in (RUN, child):
        variants = [run, run.resolved("a", "fp32"), run.resolved("b", "fp32"), run.resolved("a", "bf16")]
        assert len({r.key for r in variants}) == 1
        assert len({r.hash for r in variants}) == 4
    resolved = child.resolved("a", "fp32")
    assert resolved.start == RUN.resolved("a", "fp32")
    assert resolved.chain == [resolved.start, resolved]


def test_a_run_holds_plain_values() -> None:
    with pytest.raises(InputError, match="a Run holds numbers, words, tuples and dataclasses"):
        canonical(object())


def test_a_method_that_cannot_be_hashed_is_named_when_its_run_is_made() -> None:
    class Plain:
        pass

    @dataclass
    class Thawed:
        weight: float = 1.0

    @dataclass(frozen=True)
    class Odd:
        weights: Any = None

    for method, words in (
        (Plain(), "put @dataclass(frozen=True) above Plain"),
        (Thawed(), "put @dataclass(frozen=True) above Thawed"),
        (Odd, "put @dataclass(frozen=True) above Odd, and give Odd()"),
        (Odd(float("nan")), "Odd.weights must be a finite number, got nan"),
        (Odd((1.0, float("inf"))), "Odd.weights must be a finite number, got inf"),
    ):
        with pytest.raises(InputError) as caught:
            replace(RUN, method=method)
        assert words in str(caught.value)
    with pytest.raises(InputError, match=r"Odd.weights is \{'a': 1\}; a Run holds"):
        assert replace(RUN, method=Odd({"a": 1})).key


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", -1), ("batch", 0), ("lr", -0.1), ("warmup", -2), ("momentum", -1), ("weight_decay", -1),
     ("gamma", -1), ("milestones", (5, 3))],
)  # fmt: skip
def test_a_schedule_that_no_training_can_have_is_refused(name: str, value: float) -> None:
    wrong = replace(RUN.schedule, **{name: value})
    for run in (
        replace(RUN, schedule=wrong),
        replace(RUN, method=ICaRL(finetune=wrong)),
        replace(RUN, start=replace(RUN, schedule=wrong)),
    ):
        with pytest.raises(InputError, match=f"a schedule's {name} must"):
            run.check()


@pytest.mark.parametrize("name", ["²", "1²", "-1", "1.0", "", "9" * 5000, str(2**32)])
def test_a_class_order_that_is_no_seed_is_refused(name: str) -> None:
    assert repeated([0], [name]) == ((name, 0),)
    with pytest.raises(ValueError, match="unknown class order"):
        named_order(name, 10)


def test_one_seed_of_a_class_order_has_one_name() -> None:
    assert repeated([0], ["01993", "1993", "١٩٩٣"]) == (("1993", 0),)  # digits of any script, as int reads them
