"""Tests LUCIR's losses: closed forms, versions in float64, the official formulas, and where gradients go."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from torch import Tensor

from lucir.losses import adaptive_weight, cosine_distillation, distillation, less_forget, margin_ranking
from lucir.model import imprint

seeds = st.integers(0, 10**6)


def normal(seed: int, *shape: int, grad: bool = False) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.requires_grad_(grad)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


# Distillation, Eq. 2


@given(seed=seeds, n=st.integers(1, 9), old=st.integers(1, 6), new=st.integers(0, 4), t=st.floats(0.5, 5))
def test_distillation_in_float64(seed: int, n: int, old: int, new: int, t: float) -> None:
    logits, teacher = 4 * normal(seed, n, old + new), 4 * normal(seed + 1, n, old)
    p, log_q = softmax(teacher.numpy() / t, axis=1), log_softmax(logits.numpy()[:, :old] / t, axis=1)
    expected = (p * (np.log(p) - log_q)).sum(1).mean()
    assert distillation(logits, teacher, t).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_distillation_is_the_official_code() -> None:
    """KLDivLoss was then a mean over elements. Here it is times T^2 * beta * |C_o|, with T = 2 and beta = 0.25."""
    logits, teacher = 3 * normal(0, 16, 9), 3 * normal(1, 16, 6)
    elements = F.kl_div(F.log_softmax(logits[:, :6] / 2, dim=1), F.softmax(teacher / 2, dim=1), reduction="none")
    assert distillation(logits, teacher).item() == pytest.approx((elements.mean() * 4 * 0.25 * 6).item())


@given(seed=seeds)
def test_distillation_sees_old_logits_only_and_vanishes_at_the_teacher(seed: int) -> None:
    teacher = normal(seed, 5, 4)
    logits = torch.cat([teacher, 10 * normal(seed + 1, 5, 3)], dim=1)
    assert distillation(logits, teacher).item() == pytest.approx(0, abs=1e-12)
    shifted = logits + normal(seed + 2, 5, 1)
    assert distillation(shifted, teacher).item() == pytest.approx(0, abs=1e-9)
    assert distillation(normal(seed + 3, 5, 7), teacher).item() > 0


def test_gradient_of_distillation() -> None:
    logits, teacher = normal(0, 5, 7, grad=True), normal(1, 5, 4, grad=True)
    distillation(logits, teacher).backward()
    assert teacher.grad is None
    expected = (F.softmax(logits[:, :4] / 2, 1) - F.softmax(teacher / 2, 1)) / (2 * 5)
    torch.testing.assert_close(logits.grad, F.pad(expected, (0, 3)).detach())


# Distillation of cosines, Eq. 5


@given(seed=seeds, n=st.integers(1, 9), old=st.integers(1, 6), new=st.integers(0, 4))
def test_cosine_distillation_is_the_official_code(seed: int, n: int, old: int, new: int) -> None:
    """It is the mean of squared differences over elements, times |C_o|."""
    cosines, teacher = normal(seed, n, old + new).tanh(), normal(seed + 1, n, old).tanh()
    expected = ((cosines[:, :old] - teacher) ** 2).numpy().mean() * old
    assert cosine_distillation(cosines, teacher).item() == pytest.approx(expected)
    assert cosine_distillation(torch.cat([teacher, cosines], dim=1), teacher).item() == 0


def test_gradient_of_cosine_distillation() -> None:
    cosines, teacher = normal(0, 5, 7, grad=True), normal(1, 5, 4, grad=True)
    cosine_distillation(cosines, teacher).backward()
    assert teacher.grad is None
    torch.testing.assert_close(cosines.grad, F.pad(2 * (cosines[:, :4] - teacher) / 5, (0, 3)).detach())


# Less-forget, Eq. 6


@given(seed=seeds, n=st.integers(1, 9), d=st.integers(2, 9), scale=st.floats(0.01, 100))
def test_less_forget_is_half_the_squared_distance_on_the_sphere(seed: int, n: int, d: int, scale: float) -> None:
    features, old = normal(seed, n, d), normal(seed + 1, n, d)
    expected = ((unit(features.numpy()) - unit(old.numpy())) ** 2).sum(1).mean() / 2
    value = less_forget(features, old).item()
    assert value == pytest.approx(expected) and 0 <= value <= 2
    assert less_forget(scale * features, old).item() == pytest.approx(value)
    official = F.cosine_embedding_loss(features, old, torch.ones(n, dtype=torch.float64))
    assert value == pytest.approx(official.item())


@given(seed=seeds)
def test_less_forget_at_its_ends(seed: int) -> None:
    features = normal(seed, 4, 6)
    assert less_forget(features, 3 * features).item() == pytest.approx(0, abs=1e-12)
    assert less_forget(features, -features).item() == pytest.approx(2)


def test_less_forget_has_no_gradient_to_the_old_model() -> None:
    features, old = normal(0, 4, 6, grad=True), normal(1, 4, 6, grad=True)
    less_forget(features, old).backward()
    assert old.grad is None
    assert (features.grad.abs().sum(1) > 0).all()  # every sample, of old and new classes
    # The loss does not depend on a feature's length: no gradient along it.
    torch.testing.assert_close((features * features.grad).sum(1), torch.zeros(4, dtype=torch.float64))


# Adaptive weight, Eq. 7


def test_adaptive_weight_over_the_phases() -> None:
    five = [round(adaptive_weight(5.0, old, 10, "code"), 2) for old in range(50, 100, 10)]
    assert five == [11.18, 12.25, 13.23, 14.14, 15.00]
    printed = [round(adaptive_weight(5.0, old, 10, "paper"), 2) for old in range(50, 100, 10)]
    assert printed == [2.24, 2.04, 1.89, 1.77, 1.67]
    assert round(adaptive_weight(5.0, 50, 5), 2) == 15.81 and round(adaptive_weight(5.0, 95, 5), 2) == 21.79
    assert round(adaptive_weight(10.0, 500, 100), 2) == 22.36
    assert adaptive_weight(5.0, 90, 10, "fixed") == 5.0
    assert adaptive_weight(5.0, 50, 50, "code") == adaptive_weight(5.0, 50, 50, "paper") == 5.0  # footnote 4


@given(base=st.floats(0.1, 20), old=st.integers(1, 1000), new=st.integers(1, 1000))
def test_the_two_directions_are_inverse(base: float, old: int, new: int) -> None:
    code, paper = (adaptive_weight(base, old, new, direction) for direction in ("code", "paper"))
    assert code * paper == pytest.approx(base**2)
    assert code / paper == pytest.approx(old / new)
    assert adaptive_weight(base, old, old, "code") == adaptive_weight(base, old, old, "paper") == base


def test_unknown_direction() -> None:
    with pytest.raises(ValueError, match="code, paper or fixed"):
        adaptive_weight(5.0, 50, 10, "up")  # type: ignore[arg-type]


# Margin ranking, Eq. 8


def plain_margin(cosines: np.ndarray, labels: np.ndarray, num_old: int, k: int, margin: float) -> float:
    """Sum over the k hardest new classes as printed, and average over exemplars."""
    losses = [
        sum(max(0.0, margin - row[label] + negative) for negative in sorted(row[num_old:])[-k:])
        for row, label in zip(cosines, labels, strict=True)
        if label < num_old
    ]
    return sum(losses) / len(losses) if losses else 0.0


@given(
    seed=seeds, n=st.integers(1, 9), old=st.integers(1, 6), new=st.integers(2, 5), k=st.integers(1, 2),
    margin=st.floats(0.05, 1),
)  # fmt: skip
def test_margin_ranking_in_float64(seed: int, n: int, old: int, new: int, k: int, margin: float) -> None:
    cosines = normal(seed, n, old + new).tanh()
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, old + new, n))
    printed = plain_margin(cosines.numpy(), labels.numpy(), old, k, margin)
    assert margin_ranking(cosines, labels, old, k, margin, "sum_k").item() == pytest.approx(printed)
    assert margin_ranking(cosines, labels, old, k, margin).item() == pytest.approx(printed / k)


def test_margin_ranking_is_the_official_code() -> None:
    """MarginRankingLoss(margin=0.5) ranks each exemplar's own cosine above its two largest new-class cosines."""
    cosines, labels = normal(0, 12, 9).tanh(), torch.arange(12) % 9
    rows = labels < 6
    own = cosines[rows].gather(1, labels[rows, None]).repeat(1, 2).flatten()
    hardest = cosines[rows, 6:].topk(2, dim=1).values.flatten()
    official = F.margin_ranking_loss(own, hardest, torch.ones_like(own), margin=0.5)
    assert margin_ranking(cosines, labels, 6).item() == pytest.approx(official.item())


@given(margin=st.floats(0.05, 1), value=st.floats(-1, 1))
def test_equal_cosines_cost_the_margin(margin: float, value: float) -> None:
    cosines = torch.full((5, 7), value, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 6])
    assert margin_ranking(cosines, labels, 4, margin=margin).item() == pytest.approx(margin)
    assert margin_ranking(cosines, labels, 4, margin=margin, reduction="sum_k").item() == pytest.approx(2 * margin)


def test_separated_exemplars_cost_nothing() -> None:
    cosines = torch.tensor([[0.95, 0.8, 0.4, 0.39, -1.0]])
    assert margin_ranking(cosines, torch.tensor([0]), 2).item() == 0  # the old class at 0.8 is no negative
    assert margin_ranking(cosines, torch.tensor([1]), 2).item() == pytest.approx((0.1 + 0.09) / 2)


@pytest.mark.parametrize("reduction", ["mean", "sum_k"])
def test_without_exemplars_the_loss_is_zero_and_so_is_its_gradient(reduction: str) -> None:
    cosines = normal(0, 6, 7, grad=True)
    loss = margin_ranking(cosines, torch.full((6,), 5), 4, reduction=reduction)  # type: ignore[arg-type]
    loss.backward()
    assert loss.item() == 0 and (cosines.grad == 0).all()


def test_gradient_of_margin_ranking() -> None:
    """Only exemplars count. Their own cosine is pushed up, and the nearest new classes down."""
    cosines = torch.zeros(2, 6, dtype=torch.float64)
    cosines[0] = torch.tensor([0.1, 0.9, 0.2, 0.3, -0.2, 0.25])
    cosines.requires_grad_(True)
    margin_ranking(cosines, torch.tensor([0, 4]), 2).backward()
    expected = torch.tensor([[-1.0, 0, 0, 0.5, 0, 0.5], [0.0] * 6], dtype=torch.float64)
    torch.testing.assert_close(cosines.grad, expected)


@given(seed=seeds)
def test_samples_of_new_classes_are_ignored(seed: int) -> None:
    cosines, labels = normal(seed, 8, 6).tanh(), torch.tensor([0, 1, 2, 3, 4, 5, 4, 5])
    expected = margin_ranking(cosines[:4], labels[:4], 4)
    assert margin_ranking(cosines, labels, 4).item() == pytest.approx(expected.item())


def test_too_few_new_classes() -> None:
    with pytest.raises(ValueError, match="at least 3 new classes"):
        margin_ranking(torch.zeros(2, 6), torch.tensor([0, 1]), 4, k=3)


# Imprinting


@given(seed=seeds, new=st.integers(1, 4), old=st.integers(1, 5), d=st.integers(2, 8))
def test_imprinted_rows(seed: int, new: int, old: int, d: int) -> None:
    features = [normal(seed + c, 3 + c, d) for c in range(new)]
    weight = normal(seed + 50, old, d)
    rows = imprint(features, weight).numpy()
    directions = np.stack([unit(unit(f.numpy()).mean(0)) for f in features])
    length = np.linalg.norm(weight.numpy(), axis=1).mean()
    np.testing.assert_allclose(rows, directions * length)
    shuffled = [f[torch.randperm(len(f), generator=torch.Generator().manual_seed(seed))] for f in features]
    np.testing.assert_allclose(imprint(shuffled, weight).numpy(), rows)


@given(seed=seeds)
def test_an_imprinted_classifier_is_the_nearest_class_mean(seed: int) -> None:
    features = [normal(seed + c, 10, 6) + 2 * normal(seed + 9 + c, 1, 6) for c in range(4)]
    rows = imprint(features, normal(seed + 50, 5, 6))
    test = normal(seed + 99, 20, 6)
    means = np.stack([unit(unit(f.numpy()).mean(0)) for f in features])
    nearest = ((unit(test.numpy())[:, None] - means[None]) ** 2).sum(2).argmin(1)
    assert F.linear(F.normalize(test, dim=1), F.normalize(rows, dim=1)).argmax(1).tolist() == nearest.tolist()
