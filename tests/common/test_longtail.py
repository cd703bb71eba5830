"""Tests long-tailed subsets against published counts and hashes, and samplers against their probabilities."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from common.imbalance import Rebalance
from common.metrics import class_accuracies, shot_accuracies
from common.runs import LongTail, Protocol, Run, Schedule, canonical
from common.samplers import class_probabilities, class_sampler
from common.splits import longtail_counts, longtail_indices, longtail_sizes
from common.training import shuffled

CIFAR10 = {
    10: [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500],
    20: [5000, 3584, 2569, 1842, 1320, 946, 678, 486, 348, 250],
    50: [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100],
    100: [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50],
    200: [5000, 2775, 1540, 854, 474, 263, 146, 81, 45, 25],
}
TOTALS = {  # factor: (CIFAR-100 total, last), (CIFAR-20 total, last)
    1: ((50000, 500), (50000, 2500)),
    10: ((19573, 50), (19954, 250)),
    20: ((15907, 25), (16396, 125)),
    50: ((12608, 10), (13204, 50)),
    100: ((10847, 5), (11514, 25)),
    200: ((9502, 2), (10225, 12)),
}
HASHES = {  # sha256 over within-class ranks as little-endian int64, seed 0
    (10, 10): "2b3a8656bec514c6",
    (10, 50): "7bb90363b243a944",
    (10, 100): "8a54f5b6fa972295",
    (100, 10): "5906ba7310b91b5e",
    (100, 50): "1bc82de2629e5cbd",
    (100, 100): "f123ec136d44ab1b",
}


@pytest.mark.parametrize("factor", CIFAR10)
def test_cifar10_counts_are_the_published_ones(factor: int) -> None:
    assert longtail_counts(10, 5000, factor).tolist() == CIFAR10[factor]


@pytest.mark.parametrize("factor", TOTALS)
def test_totals_are_the_published_ones(factor: int) -> None:
    for (classes, most), (total, last) in zip(((100, 500), (20, 2500)), TOTALS[factor], strict=True):
        counts = longtail_counts(classes, most, factor)
        assert (counts.sum(), counts[0], counts[-1]) == (total, most, last)


def test_first_and_last_counts_of_cifar100() -> None:
    counts = longtail_counts(100, 500, 100).tolist()
    assert counts[:10] == [500, 477, 455, 434, 415, 396, 378, 361, 344, 328]
    assert counts[-10:] == [7, 7, 6, 6, 6, 6, 5, 5, 5, 5]


def test_the_step_profile_has_two_levels() -> None:
    assert longtail_counts(5, 100, 10, "step").tolist() == [100, 100, 10, 10, 10]


@pytest.mark.parametrize(("classes", "factor"), HASHES)
def test_the_selection_has_the_published_hash(classes: int, factor: int) -> None:
    """Labels are interleaved, so that a position in the data differs from a rank within the class."""
    most = 50000 // classes
    labels = np.tile(np.arange(classes), most)
    chosen = longtail_indices(labels, factor)
    ranks = chosen // classes
    assert hashlib.sha256(ranks.astype("<i8").tobytes()).hexdigest()[:16] == HASHES[classes, factor]
    assert (np.diff(labels[chosen]) >= 0).all()
    assert np.bincount(labels[chosen]).tolist() == longtail_counts(classes, most, factor).tolist()


def test_first_ranks_are_the_published_ones() -> None:
    ranks = longtail_indices(np.repeat(np.arange(10), 5000), 100)
    assert ranks[:8].tolist() == [398, 3833, 4836, 4572, 636, 2545, 1161, 2230]
    assert (ranks[5000:5004] - 5000).tolist() == [597, 332, 521, 3935]


@given(st.integers(2, 12), st.integers(20, 60), st.sampled_from([1, 2, 5, 10, 20]), st.integers(0, 3))
def test_a_larger_factor_keeps_a_subset(classes: int, most: int, factor: int, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), most))
    small, large = set(longtail_indices(labels, factor, seed)), set(longtail_indices(labels, 1, seed))
    assert small <= large == set(range(len(labels)))


def test_data_that_are_long_tailed_already_are_cut_further() -> None:
    counts = longtail_counts(10, 5000, 10)
    labels = np.repeat(np.arange(10), counts)
    assert sorted(longtail_indices(labels, 10)) == list(range(len(labels)))
    assert np.bincount(labels[longtail_indices(labels, 100)]).tolist() == CIFAR10[100]
    with pytest.raises(ValueError, match="asks for 5000 images of class 1, which has 3871"):
        longtail_indices(labels, 1)


def test_of_unequal_classes_the_largest_is_the_head() -> None:
    """With 80 images and factor 4, sizes are 80, 50, 31 and 20, in any order. Equal classes keep their order."""
    assert longtail_sizes([40, 80, 70, 60], 4).tolist() == [20, 80, 50, 31]
    assert longtail_sizes([60, 80, 60, 80], 4).tolist() == [31, 80, 20, 50]
    labels = np.repeat(np.arange(4), [40, 80, 70, 60])
    chosen = longtail_indices(labels, 4)
    assert len(set(chosen)) == len(chosen)
    assert np.bincount(labels[chosen]).tolist() == [20, 80, 50, 31]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: longtail_counts(10, 50, 100), "leaves classes without images"),
        (lambda: longtail_counts(10, 50, 0.5), "at least 1"),
        (lambda: longtail_counts(10, 50, float("nan")), "at least 1"),
        (lambda: longtail_counts(10, 50, 2, "cliff"), "exp or step"),  # type: ignore[arg-type]
        (lambda: longtail_indices([0, 0, 2], 1), "class 1 has no images"),
        (lambda: longtail_indices([], 1), "no images"),
        (lambda: longtail_indices([0, -1], 1), "negative"),
        (lambda: longtail_sizes([5, 3], 1), "class 1, which has 3"),
    ],
)
def test_impossible_subsets_are_one_clear_line(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_the_draw_is_part_of_a_runs_hash_and_absence_is_not() -> None:
    run = Run("p", Rebalance(), None, Protocol(2, 2, 0, 0), Schedule(1), "net")  # type: ignore[arg-type]
    assert "longtail" not in canonical(run) and "test_every" not in canonical(run)
    keys = {
        Run("p", Rebalance(), None, Protocol(2, 2, 0, 0), Schedule(1), "net", longtail=tail).key  # type: ignore[arg-type]
        for tail in (None, LongTail(10), LongTail(10.0), LongTail(20), LongTail(10, seed=1), LongTail(10, "step"))
    }
    assert len(keys) == 5


# Samplers

COUNTS = np.array([400, 90, 20, 10])
PROBABILITIES = {
    "uniform": COUNTS / 520,
    "balanced": np.full(4, 0.25),
    "reversed": np.array([1, 40 / 9, 20, 40]) / (1 + 40 / 9 + 60),
    "sqrt": np.sqrt(COUNTS) / np.sqrt(COUNTS).sum(),
}


@pytest.mark.parametrize("kind", PROBABILITIES)
def test_class_probabilities(kind: str) -> None:
    np.testing.assert_allclose(class_probabilities(COUNTS, kind), PROBABILITIES[kind], rtol=1e-12)  # type: ignore[arg-type]


def test_reversed_probabilities_are_bbns() -> None:
    published = [0.00713, 0.01102, 0.01702, 0.02629, 0.04063, 0.0628, 0.09693, 0.14987, 0.23162, 0.3567]
    np.testing.assert_allclose(class_probabilities(CIFAR10[50], "reversed"), published, atol=1e-5)


@pytest.mark.parametrize("kind", ["balanced", "reversed", "sqrt"])
def test_an_epoch_draws_classes_and_images_as_often_as_it_should(kind: str) -> None:
    rng = np.random.default_rng(3)
    labels = torch.from_numpy(rng.permutation(np.repeat(np.arange(4), COUNTS * 2)))
    indices = torch.cat([(labels == c).nonzero().squeeze(1)[:n] for c, n in enumerate(COUNTS)])
    sample = class_sampler(labels, kind)  # type: ignore[arg-type]
    drawn = torch.cat([sample(indices, torch.Generator().manual_seed(s)) for s in range(40)])
    assert set(drawn.tolist()) <= set(indices.tolist())
    classes = np.bincount(labels[drawn], minlength=4)
    assert chisquare(classes, PROBABILITIES[kind] * len(drawn)).pvalue > 1e-3
    for c in (2, 3):  # every image of a class is as likely as the others
        images = Counter(drawn[labels[drawn] == c].tolist())
        assert len(images) == COUNTS[c] and chisquare(list(images.values())).pvalue > 1e-3


def test_an_order_depends_on_its_generator_alone() -> None:
    labels, indices = torch.arange(30) % 3, torch.arange(30)
    orders = [class_sampler(labels, "balanced")(indices, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert len(orders[0]) == 30 and torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])


def test_uniform_visits_every_image_once() -> None:
    assert class_sampler(torch.zeros(3), "uniform") is shuffled


def test_bad_samplers_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown sampler 'reverse'; choose one of uniform, balanced"):
        class_sampler(torch.zeros(3), "reverse")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one image"):
        class_probabilities([3, 0], "balanced")


# Many, medium and few


def test_groups_of_classes_by_their_training_images() -> None:
    """Classes of 100 and of 20 images are medium, 101 is many, 19 is few. Empty groups are left out."""
    confusion = np.diag([9, 8, 6, 2]) + np.array([[0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 4], [8, 0, 0, 0]])
    assert shot_accuracies(confusion, [101, 100, 20, 19]) == {"many": 90.0, "medium": 70.0, "few": 20.0}
    assert list(shot_accuracies(confusion, [500, 400, 300, 200])) == ["many"]
    uneven = np.array([[1, 0], [50, 50]])  # a mean over classes, not over images
    assert shot_accuracies(uneven, [10, 5]) == {"few": 75.0}
    assert class_accuracies(confusion).tolist() == [90.0, 80.0, 60.0, 20.0]
