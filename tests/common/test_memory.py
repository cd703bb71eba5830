"""Tests herding against a plain version of the paper's procedure, and the budgets of the memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.memory import ExemplarMemory, herd


def reference(features: np.ndarray, count: int) -> list[int]:
    """Herd as Welling does and skip repeats. After 1000 iterations, repeats are not picked any more."""
    unit = features.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    mean = unit.mean(0)
    w, chosen, iteration = mean.copy(), [], 0
    while len(chosen) < count:
        scores = unit @ w
        if iteration >= 1000:
            scores[chosen] = -np.inf
        best = int(np.argmax(scores))
        if best not in chosen:
            chosen.append(best)
        w += mean - unit[best]
        iteration += 1
    return chosen


def random_features(seed: int, n: int, d: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.3, 1, (n, d)).astype(np.float32)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 40), d=st.integers(2, 12), data=st.data())
def test_herding_is_the_papers(seed: int, n: int, d: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, min(n, 20)))
    features = random_features(seed, n, d)
    ranks = herd(torch.from_numpy(features), count).tolist()
    assert ranks == reference(features, count)
    assert len(set(ranks)) == count


def test_repeats_move_the_weight_and_are_skipped() -> None:
    """Three images lie near one direction and one far away. The first is picked again before the last one."""
    features = np.array([[1.0, 0.1, 0.0], [1.0, -0.1, 0.0], [1.0, 0.0, 0.1], [0.0, 0.0, 1.0]], dtype=np.float32)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    mean, w, picks = unit.mean(0), unit.mean(0), []
    for _ in range(12):
        picks.append(int(np.argmax(unit @ w)))
        w = w + mean - unit[picks[-1]]
    assert len(set(picks[:6])) < len(picks[:6])
    assert herd(torch.from_numpy(features), 4).tolist() == list(dict.fromkeys(picks))[:4]


def test_after_1000_iterations_only_unpicked_images_are_taken() -> None:
    """All images have one direction, so every pick repeats the first. The others come after the limit."""
    features = np.concatenate([np.tile([[1.0, 0.0]], (5, 1)), random_features(0, 30, 2)]).astype(np.float32)
    ranks = herd(torch.from_numpy(features), 35).tolist()
    assert sorted(ranks) == list(range(35))
    assert ranks == reference(features, 35)
    assert herd(torch.ones(4, 3), 4).tolist() == [0, 1, 2, 3]  # equal images: ties go to the first


@given(seed=st.integers(0, 10**6), few=st.integers(0, 20))
def test_fewer_exemplars_are_a_prefix(seed: int, few: int) -> None:
    features = torch.from_numpy(random_features(seed, 30, 6))
    assert herd(features, 20)[:few].tolist() == herd(features, few).tolist()


def test_the_scale_of_a_feature_does_not_matter() -> None:
    features = torch.from_numpy(random_features(1, 40, 5))
    assert herd(features * torch.logspace(-2, 2, 40).unsqueeze(1), 20).tolist() == herd(features, 20).tolist()


def test_herding_comes_closer_to_the_mean_than_chance() -> None:
    rng = np.random.default_rng(0)
    for seed in range(5):
        features = random_features(seed, 200, 16)
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        mean = unit.mean(0)
        herded = np.linalg.norm(unit[herd(torch.from_numpy(features), 20).numpy()].mean(0) - mean)
        drawn = [np.linalg.norm(unit[rng.choice(200, 20, replace=False)].mean(0) - mean) for _ in range(50)]
        assert herded < min(drawn)


@pytest.mark.parametrize("count", [-1, 6])
def test_impossible_counts(count: int) -> None:
    with pytest.raises(ValueError, match="cannot pick"):
        herd(torch.ones(5, 2), count)


# Budgets


def fill(memory: ExemplarMemory, labels: range, seen: int, images: int = 15) -> dict[int, torch.Tensor]:
    """Add classes as a phase does, with `images` images each. Returns their features."""
    features = {label: torch.from_numpy(random_features(label, images, 6)) for label in labels}
    memory.shrink(seen)
    for label in labels:
        memory.add(label, 100 * label + torch.arange(images), features[label], seen)
    return features


def test_per_class_budget_grows_and_keeps_old_sets() -> None:
    memory = ExemplarMemory(per_class=4)
    features = fill(memory, range(3), 3)
    first = {label: kept.tolist() for label, kept in memory.indices.items()}
    assert first == {label: (100 * label + herd(features[label], 4)).tolist() for label in range(3)}
    fill(memory, range(3, 5), 5)
    assert {label: memory.indices[label].tolist() for label in range(3)} == first
    assert memory.all().tolist() == [i for label in range(5) for i in memory.indices[label].tolist()]
    assert len(memory.all()) == 20


@given(total=st.integers(1, 80), sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_total_budget_truncates_by_rank(total: int, sizes: list[int]) -> None:
    memory, seen, ranking = ExemplarMemory(total=total), 0, {}
    for size in sizes:
        features = fill(memory, range(seen, seen + size), seen + size)
        seen += size
        ranking |= {label: (100 * label + herd(f, 15)).tolist() for label, f in features.items()}
        quota = min(int(np.ceil(total / seen)), 15)
        assert {label: kept.tolist() for label, kept in memory.indices.items()} == {
            label: ranks[:quota] for label, ranks in ranking.items()
        }


def test_quota_under_a_total() -> None:
    memory = ExemplarMemory(total=2000)
    assert [memory.quota(seen) for seen in (50, 60, 70, 80, 90, 100)] == [40, 34, 29, 25, 23, 20]


def test_a_total_is_capped_and_a_number_per_class_is_not() -> None:
    assert ExemplarMemory(total=100).size_for(available=7, seen=2) == 7
    assert ExemplarMemory(per_class=7).size_for(available=7, seen=2) == 7
    with pytest.raises(ValueError, match="a class has 7 images"):
        ExemplarMemory(per_class=8).size_for(available=7, seen=2)
    assert ExemplarMemory(per_class=8, capped=True).size_for(available=7, seen=2) == 7


@pytest.mark.parametrize("budgets", [{}, {"per_class": 20, "total": 2000}])
def test_exactly_one_budget(budgets: dict) -> None:
    with pytest.raises(ValueError, match="per class or in total"):
        ExemplarMemory(**budgets)


def test_empty_memory() -> None:
    empty = ExemplarMemory(per_class=3).all()
    assert empty.dtype == torch.long and len(empty) == 0


@pytest.mark.parametrize("budget", [{"per_class": -1}, {"total": -1}])
def test_a_negative_budget_is_refused(budget: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        ExemplarMemory(**budget)
