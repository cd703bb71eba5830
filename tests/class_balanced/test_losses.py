"""Tests effective number, class weights and losses against golden values and closed forms in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from class_balanced.losses import (
    class_balanced_loss,
    class_weights,
    effective_number,
    sample_losses,
    starting_bias,
)
from common.splits import longtail_counts

LOGITS = torch.tensor([[1.0, -0.5, 2.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 2])
COUNTS = [5000, 500, 50]
WEIGHTS = {
    0.0: (1, 1, 1),
    0.9: (0.998276, 0.998276, 1.003448),
    0.99: (0.661041, 0.665413, 1.673546),
    0.999: (0.125629, 0.317017, 2.557354),
    0.9999: (0.034107, 0.275167, 2.690725),
}
KINDS: list[tuple[Any, float]] = [("softmax", 0.0), ("sigmoid", 0.0), ("focal", 0.5), ("focal", 1.0), ("focal", 2.0)]
LOSSES = {
    0.0: (1.235076, 2.496854, 1.960138, 1.588173, 1.130085),
    0.9: (1.235787, 2.497927, 1.960561, 1.588123, 1.129481),
    0.99: (1.372611, 2.703246, 2.040119, 1.576208, 1.010213),
    0.999: (1.490923, 2.841992, 2.034039, 1.463678, 0.774050),
    0.9999: (1.501422, 2.847302, 2.019984, 1.435239, 0.729079),
}
WEIGHTED_MEAN = dict(zip(LOSSES, (1.235076, 1.234723, 1.175892, 1.111392, 1.102029), strict=True))
counts_lists = st.lists(st.integers(1, 6000), min_size=2, max_size=12)
betas = st.sampled_from(list(LOSSES))


# Effective number


@given(st.integers(1, 3000), st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 0.9999]))
def test_the_effective_number_is_the_geometric_sum(n: int, beta: float) -> None:
    """Eq. 3 holds, and with it the recursion of Prop. 1."""
    assert effective_number([n], beta)[0] == pytest.approx(sum(beta**j for j in range(n)), rel=1e-9)
    one, both = effective_number([1], beta)[0], effective_number([n, n + 1], beta)
    assert one == pytest.approx(1) and both[1] == pytest.approx(1 + beta * both[0], rel=1e-12)
    assert both[0] <= min(n, 1 / (1 - beta)) * (1 + 1e-12)


def test_two_limits() -> None:
    n = np.array([1, 10, 500, 5000])
    assert (abs(effective_number(n, 1 - 1e-9) - n) < 1e-4 * n).all()
    np.testing.assert_allclose(effective_number([10**6], 0.9999), 1 / (1 - 0.9999))


def test_the_effective_number_is_the_covered_volume() -> None:
    """In the model of Sec. 3.1, n random cells out of N = 50 cover E_n cells on average, with beta = (N - 1) / N."""
    rng, cells, n = np.random.default_rng(0), 50, 60
    covered = [len(set(rng.integers(0, cells, n))) for _ in range(4000)]
    standard_error = np.std(covered) / 4000**0.5
    assert abs(np.mean(covered) - effective_number([n], 1 - 1 / cells)[0]) < 4 * standard_error


# Class weights


@pytest.mark.parametrize("beta", WEIGHTS)
def test_weights_are_the_golden_ones(beta: float) -> None:
    np.testing.assert_allclose(class_weights(COUNTS, beta), WEIGHTS[beta], atol=6e-7)


def test_weights_of_cifar10_at_factor_100() -> None:
    golden = [0.0506, 0.0769, 0.1211, 0.1950, 0.3188, 0.5246, 0.8683, 1.4426, 2.4092, 3.9927]
    np.testing.assert_allclose(class_weights(longtail_counts(10, 5000, 100), 0.9999), golden, atol=6e-5)


@given(counts_lists, betas)
def test_weights_sum_to_the_classes_and_fall_with_size(counts: list[int], beta: float) -> None:
    weights = class_weights(counts, beta)
    assert weights.dtype == np.float64 and weights.sum() == pytest.approx(len(counts), rel=1e-12)
    by_size = weights[np.argsort(counts)]
    assert (np.diff(by_size) <= 1e-12).all()
    np.testing.assert_allclose(class_weights(counts[::-1], beta), weights[::-1], rtol=1e-12)


def test_weights_at_the_ends() -> None:
    assert class_weights(COUNTS, 0).tolist() == [1, 1, 1]
    np.testing.assert_allclose(class_weights([7] * 4, 0.999), 1)
    inverse = 1 / np.array(COUNTS)
    np.testing.assert_allclose(class_weights(COUNTS, 1 - 1e-10), 3 * inverse / inverse.sum(), rtol=1e-5)


@pytest.mark.parametrize("beta", [1.0, -0.1, 2.0, float("nan")])
def test_beta_outside_its_range_is_refused(beta: float) -> None:
    for call in (effective_number, class_weights):
        with pytest.raises(ValueError, match="beta must lie in"):
            call(COUNTS, beta)


@pytest.mark.parametrize("counts", [[5, 0, 3], [5, -1], []])
def test_an_empty_class_is_refused(counts: list[int]) -> None:
    for call in (effective_number, class_weights):
        with pytest.raises(ValueError, match="at least one image"):
            call(counts, 0.9)


# Losses


@pytest.mark.parametrize("beta", LOSSES)
def test_losses_are_the_golden_ones(beta: float) -> None:
    for (kind, gamma), golden in zip(KINDS, LOSSES[beta], strict=True):
        assert class_balanced_loss(LOGITS, LABELS, COUNTS, beta, kind, gamma).item() == pytest.approx(golden, abs=6e-7)
    mean = class_balanced_loss(LOGITS, LABELS, COUNTS, beta, reduction="weighted_mean")
    assert mean.item() == pytest.approx(WEIGHTED_MEAN[beta], abs=6e-7)


def random_batch(n: int = 16, c: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return 3 * torch.randn(n, c, generator=generator, dtype=torch.float64), torch.arange(n) % c


@pytest.mark.parametrize(("kind", "gamma"), KINDS)
def test_losses_are_the_textbook_formulas(kind: Any, gamma: float) -> None:
    """softmax and sigmoid equal PyTorch's own losses, and focal equals -(1 - p_t)^gamma log p_t."""
    logits, labels = random_batch()
    target = F.one_hot(labels, 5).double()
    p = torch.where(target == 1, logits.sigmoid(), 1 - logits.sigmoid())
    expected = {
        "softmax": F.cross_entropy(logits, labels, reduction="none"),
        "sigmoid": F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1),
        "focal": -((1 - p) ** gamma * p.log()).sum(1),
    }[kind]
    torch.testing.assert_close(sample_losses(logits, labels, kind, gamma), expected)


@pytest.mark.parametrize(("kind", "gamma"), KINDS)
@pytest.mark.parametrize("beta", LOSSES)
def test_a_loss_is_the_weighted_sum_of_base_losses(kind: Any, gamma: float, beta: float) -> None:
    """Both reductions are computed here from weights and base losses. Without weights the loss is the plain mean."""
    logits, labels = random_batch()
    counts = np.array([400, 200, 60, 20, 5])
    inverse = (1 - beta) / (1 - beta**counts)
    weights, base = (inverse * 5 / inverse.sum())[labels], sample_losses(logits, labels, kind, gamma).numpy()
    expected = {"batch": (weights * base).sum() / 16, "weighted_mean": (weights * base).sum() / weights.sum()}
    for reduction, value in expected.items():
        ours = class_balanced_loss(logits, labels, counts, beta, kind, gamma, reduction)  # type: ignore[arg-type]
        assert ours.item() == pytest.approx(value, rel=1e-12)
        assert beta or ours.item() == pytest.approx(base.mean(), rel=1e-12)


def test_focal_without_gamma_is_sigmoid() -> None:
    logits, labels = random_batch()
    torch.testing.assert_close(sample_losses(logits, labels, "focal", 0.0), sample_losses(logits, labels, "sigmoid"))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_gamma_is_for_focal_alone(kind: Any) -> None:
    with pytest.raises(ValueError, match="focal loss alone"):
        class_balanced_loss(LOGITS, LABELS, COUNTS, 0.9, kind, 0.5)


def test_labels_and_logits_of_any_width() -> None:
    """Labels may be int32. Logits may be bf16, and the weights stay fp32."""
    for kind, gamma in KINDS:
        wide = class_balanced_loss(LOGITS, LABELS, COUNTS, 0.9999, kind, gamma)
        half = class_balanced_loss(LOGITS.bfloat16(), LABELS.int(), COUNTS, 0.9999, kind, gamma)
        assert half.dtype == torch.float32 and half.item() == pytest.approx(wide.item(), rel=1e-6)


def test_the_weighted_mean_is_pytorchs() -> None:
    logits, labels = random_batch()
    counts = [400, 200, 60, 20, 5]
    ours = class_balanced_loss(logits, labels, counts, 0.999, reduction="weighted_mean")
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels, torch.from_numpy(class_weights(counts, 0.999))))


@pytest.mark.parametrize(("kind", "gamma"), KINDS)
def test_a_samples_gradient_is_its_weight_times_the_base_gradient(kind: Any, gamma: float) -> None:
    logits, labels = random_batch(5)
    counts = [400, 200, 60, 20, 5]
    gradients = []
    for beta in (0.0, 0.999):
        leaf = logits.clone().requires_grad_()
        class_balanced_loss(leaf, labels, counts, beta, kind, gamma).backward()
        gradients.append(leaf.grad)
    weights = torch.from_numpy(class_weights(counts, 0.999))
    torch.testing.assert_close(gradients[1], weights[labels].unsqueeze(1) * gradients[0])


@pytest.mark.parametrize(("kind", "gamma"), KINDS)
def test_a_batch_is_the_mean_of_its_halves(kind: Any, gamma: float) -> None:
    """This does not hold for the weighted mean, whose scale comes from the weights of the whole batch."""
    logits, labels = random_batch()
    labels = labels.sort().values
    counts = [400, 200, 60, 20, 5]

    def loss(part: slice, reduction: Any) -> float:
        return class_balanced_loss(logits[part], labels[part], counts, 0.999, kind, gamma, reduction).item()

    halves = {r: (loss(slice(8), r) + loss(slice(8, None), r)) / 2 for r in ("batch", "weighted_mean")}
    assert loss(slice(None), "batch") == pytest.approx(halves["batch"])
    assert loss(slice(None), "weighted_mean") != pytest.approx(halves["weighted_mean"], rel=1e-3)


def test_only_softmax_ignores_a_constant() -> None:
    logits, labels = random_batch()
    torch.testing.assert_close(sample_losses(logits + 2, labels), sample_losses(logits, labels))
    assert not torch.allclose(sample_losses(logits + 2, labels, "sigmoid"), sample_losses(logits, labels, "sigmoid"))


@pytest.mark.parametrize(("kind", "gamma"), KINDS)
@pytest.mark.parametrize("size", [50.0, 90.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["batch", "weighted_mean"])
def test_values_and_gradients_stay_finite(
    kind: Any, gamma: float, size: float, dtype: torch.dtype, reduction: Any
) -> None:
    for signs in ([1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]):
        logits = (size * torch.tensor([signs, signs[::-1]], dtype=dtype)).requires_grad_()
        loss = class_balanced_loss(logits, LABELS, COUNTS, 0.9999, kind, gamma, reduction)
        loss.backward()
        assert logits.grad is not None and loss.isfinite() and logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("classes", "losses"), [(10, (3.2508, 2.484, 2.167, 1.875)), (100, (5.6002, 4.682, 4.569, 4.514))]
)
def test_a_fresh_classifier_starts_at_one_in_c(classes: int, losses: tuple[float, ...]) -> None:
    bias = starting_bias("sigmoid", classes)
    assert torch.tensor(bias, dtype=torch.float64).sigmoid().item() == pytest.approx(1 / classes)
    assert starting_bias("softmax", classes) == 0
    logits = torch.full((1, classes), bias, dtype=torch.float64)
    kinds: list[tuple[Any, float]] = [("sigmoid", 0.0), ("focal", 0.5), ("focal", 1.0), ("focal", 2.0)]
    for (kind, gamma), golden in zip(kinds, losses, strict=True):
        assert sample_losses(logits, torch.tensor([0]), kind, gamma).item() == pytest.approx(golden, abs=6e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "hinge"}, "softmax, sigmoid or focal"),
        ({"reduction": "sum"}, "batch or weighted_mean"),
        ({"counts": [5, 3]}, "2 counts given for logits of 3 classes"),
        ({"counts": [5, 0, 3]}, "at least one image"),
        ({"beta": 1.0}, "beta must lie in"),
        ({"kind": "focal", "gamma": -1.0}, "gamma must be a number and not negative"),
        ({"kind": "focal", "gamma": float("nan")}, "gamma must be a number and not negative"),
    ],
)
def test_bad_arguments_are_one_clear_line(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"counts": COUNTS, "beta": 0.9, **changes}
    with pytest.raises(ValueError, match=message):
        class_balanced_loss(LOGITS, LABELS, **arguments)


@pytest.mark.parametrize("label", [-100, -1, 3])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "focal"])
def test_a_label_that_is_no_class_is_refused(kind: Any, label: int) -> None:
    """For softmax, PyTorch's cross-entropy refuses it, except for -100. With class weights -100 is refused too."""
    logits, labels = torch.zeros(2, 3), torch.tensor([0, label])
    with pytest.raises((IndexError, RuntimeError), match=r"out of (bounds|range)"):
        class_balanced_loss(logits, labels, [30, 20, 10], beta=0.9, kind=kind)
    if kind != "softmax":
        with pytest.raises(RuntimeError, match="out of bounds"):
            sample_losses(logits, labels, kind)


def test_minus_100_counts_no_class_from_the_end() -> None:
    """With 100 classes or more, weights[-100] exists, but belongs to another class."""
    with pytest.raises(IndexError):
        class_balanced_loss(torch.zeros(1, 100), torch.tensor([-100]), [10] * 100, beta=0.9)
