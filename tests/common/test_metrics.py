"""Tests read-outs and accuracies against scikit-learn, brute force and examples worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.neighbors import NearestCentroid

from common import metrics


@given(seed=st.integers(0, 10**6), n=st.integers(1, 20), c=st.integers(1, 9), d=st.integers(1, 9))
def test_nearest_mean_by_brute_force(seed: int, n: int, c: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    features, means = rng.normal(size=(n, d)), rng.normal(size=(c, d))
    distances = ((features[:, None] - means[None]) ** 2).sum(2)
    predicted = metrics.nearest_mean(torch.from_numpy(features), torch.from_numpy(means))
    assert predicted.dtype == torch.int64
    assert predicted.tolist() == distances.argmin(1).tolist()


def test_nearest_mean_is_scikit_learns_nearest_centroid() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 4)), np.arange(60) % 5
    features += labels[:, None] * rng.normal(size=4)
    model = NearestCentroid().fit(features, labels)
    predicted = metrics.nearest_mean(torch.from_numpy(features), torch.from_numpy(model.centroids_))
    assert predicted.tolist() == model.predict(features).tolist()


@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100))
def test_with_unit_means_the_nearest_has_the_largest_cosine(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(15, 6, generator=generator, dtype=torch.float64)
    means = torch.nn.functional.normalize(torch.randn(7, 6, generator=generator, dtype=torch.float64), dim=1)
    cosines = torch.nn.functional.normalize(features, dim=1) @ means.T
    assert metrics.nearest_mean(scale * features, means).tolist() == cosines.argmax(1).tolist()


def test_average_includes_the_base_phase() -> None:
    published = [77.41, 69.02, 63.91, 59.62, 56.27, 54.31]
    assert round(metrics.average_incremental_accuracy(published), 2) == 63.42


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12))
def test_average_is_the_plain_mean(values: list[float]) -> None:
    assert metrics.average_incremental_accuracy(values) == pytest.approx(sum(values) / len(values))


@given(seed=st.integers(0, 10**6), n=st.integers(1, 60), c=st.integers(2, 8))
def test_confusion_and_accuracy_are_scikit_learns(seed: int, n: int, c: int) -> None:
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, c, n), rng.integers(0, c, n)
    confusion = metrics.confusion_matrix(labels, predicted, c)
    assert np.array_equal(confusion, sk.confusion_matrix(labels, predicted, labels=range(c)))
    assert metrics.accuracy(confusion) == pytest.approx(100 * sk.accuracy_score(labels, predicted))


@given(seed=st.integers(0, 10**6), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_groups_and_rates_from_the_predictions(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    seen, num_old = sum(sizes), sum(sizes[:-1])
    labels = np.repeat(np.arange(seen), 3)
    predicted = rng.integers(0, seen, len(labels))
    confusion = metrics.confusion_matrix(labels, predicted, seen)
    group = np.repeat(np.arange(len(sizes)), sizes)[labels]
    expected = [100 * (predicted == labels)[group == g].mean() for g in range(len(sizes))]
    np.testing.assert_allclose(metrics.group_accuracies(confusion, sizes), expected)
    rates = metrics.confusion_rates(confusion, num_old)
    if num_old == 0:
        assert rates == {}
    else:
        old = labels < num_old
        assert rates["old_to_new"] == pytest.approx(100 * (predicted[old] >= num_old).mean())
        assert rates["new_to_old"] == pytest.approx(100 * (predicted[~old] < num_old).mean())


def test_rates_by_hand() -> None:
    confusion = np.array([[5, 1, 4], [0, 8, 2], [3, 0, 7]])
    assert metrics.confusion_rates(confusion, 2) == {"old_to_new": 30.0, "new_to_old": 30.0}
    assert metrics.confusion_rates(confusion, 1) == {"old_to_new": 50.0, "new_to_old": 15.0}
    assert metrics.confusion_rates(confusion, 3) == {}
    assert metrics.group_accuracies(confusion, [2, 1]) == [65.0, 70.0]


def test_forgetting_by_hand() -> None:
    # Group 0: best 90 (after phase 0) to 60; group 1: best 80 (after phase 2), to 50. The newest group does not count.
    matrix = [[90.0], [70.0, 75.0], [65.0, 80.0, 40.0], [60.0, 50.0, 45.0, 99.0]]
    assert metrics.forgetting(matrix) == pytest.approx((30 + 30 - 5) / 3)
    assert metrics.forgetting([[90.0], [95.0, 50.0]]) == -5.0
    assert metrics.forgetting([[90.0]]) == 0.0


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint64])
def test_confusion_of_any_integer_type(kind: type) -> None:
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 100, 500), rng.integers(0, 100, (500, 5))
    wide = metrics.confusion_matrix(labels, predicted, 100)
    assert np.array_equal(metrics.confusion_matrix(labels.astype(kind), predicted.astype(kind), 100), wide)
    assert wide.sum() == 500 and np.array_equal(wide.sum(axis=1), np.bincount(labels, minlength=100))


@pytest.mark.parametrize(("labels", "predicted", "message"), [
    ([0, -1], [0, 1], "label -1"), ([0, 3], [0, 1], "label 3"), ([0, 1], [0, 3], "prediction 3"),
    ([0, 1], [-1, 1], "prediction -1"),
])  # fmt: skip
def test_a_label_that_is_no_class_is_refused(labels: list[int], predicted: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.confusion_matrix(np.array(labels), np.array(predicted), 3)


@pytest.mark.filterwarnings("error")
def test_groups_without_test_images_are_named_as_such() -> None:
    """Class 1 has no test image. It is left out of the mean, and no nan spreads from it."""
    confusion = np.array([[3, 1, 0, 0], [0, 0, 0, 0], [0, 2, 2, 0], [0, 0, 0, 5]])
    assert metrics.group_accuracies(confusion, [1, 1, 2]) == [75.0, None, pytest.approx(700 / 9)]
    assert np.array_equal(metrics.class_accuracies(confusion), [75, np.nan, 50, 100], equal_nan=True)
    counts = [200, 5, 50, 150]
    assert metrics.shot_accuracies(confusion, counts) == {"many": 87.5, "medium": 50.0}
    assert metrics.confusion_rates(confusion[[1, 0, 2, 3]][:, [1, 0, 2, 3]], 1) == {
        "new_to_old": pytest.approx(300 / 13)
    }
    assert metrics.forgetting([[None], [None, 80.0], [None, 70.0, 60.0]]) == 10.0
    assert metrics.forgetting([[None], [None, 80.0]]) == 0.0
    with pytest.raises(ValueError, match="no test images"):
        metrics.accuracy(np.zeros((2, 2), dtype=np.int64))
