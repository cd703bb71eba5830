"""Tests the class-balanced losses against the official code's arithmetic.

README.md says where the numbers come from.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from typing import Any

import pytest
import torch
from compare import Case, arrays, same
from torch import Tensor

from class_balanced.losses import class_balanced_loss, class_weights, effective_number, starting_bias
from class_balanced.reproduce.presets import CIFAR_SCHEDULE
from common.splits import longtail_counts

A = arrays("class_balanced")
OFFICIAL = "richardaecn/class-balanced-loss (Cui et al. 2019), whose data script was run"
ARITHMETIC = "the TensorFlow arithmetic of richardaecn/class-balanced-loss, in float64"
BETAS = A["betas"].tolist()
COUNTS = {"c10": A["counts_c10_if50"].tolist(), "golden": [5000, 500, 50]}
KINDS: dict[str, tuple[Any, float]] = {
    "softmax": ("softmax", 0.0),
    "sigmoid": ("sigmoid", 0.0),
    "focal0.5": ("focal", 0.5),
    "focal1": ("focal", 1.0),
}


def over_betas(function: Any, counts: Tensor) -> list[list[float]]:
    return [function(counts.numpy(), beta).tolist() for beta in BETAS]


def rate(epoch: float) -> float:
    """Return the learning rate at a fraction of an epoch."""
    return CIFAR_SCHEDULE.lr_at(int(epoch), epoch - int(epoch))


SIZES = [
    Case(f"class sizes, CIFAR-{classes}, factor {factor}",
         lambda c=classes, f=factor: longtail_counts(c, 50_000 // c, f), f"counts_c{classes}_if{factor}")
    for classes in (10, 100) for factor in (10, 20, 50, 100)
]  # fmt: skip
FORMULAS = [
    *[Case(f"Eq. 2, effective numbers, {name}", lambda n: over_betas(effective_number, n), f"effnum_{name}",
           [f"counts_{name}"]) for name in ("c10_if50", "c100_if100")],
    *[Case(f"Eq. 6, class weights, {name}", lambda n: over_betas(class_weights, n), f"weights_{name}",
           [f"counts_{name}"]) for name in ("c10_if50", "c100_if100")],
    Case("bias of a fresh sigmoid classifier", lambda: [[float(c), starting_bias("sigmoid", c)] for c in (10, 100)],
         "head_bias_init"),
    Case("learning rates with warm-up", lambda: [rate(e) for e in A["lr_epochs"].tolist()], "lr_values"),
]  # fmt: skip


@pytest.mark.parametrize("case", SIZES, ids=str)
def test_class_sizes(case: Case) -> None:
    """The images of every class are compared with the official data script, which was run."""
    case.check(A, OFFICIAL)


@pytest.mark.parametrize("case", FORMULAS, ids=str)
def test_a_formula_is_the_authors(case: Case) -> None:
    """Effective numbers, weights, starting bias and learning rates equal the official arithmetic in float64."""
    case.check(A, ARITHMETIC)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("data", COUNTS)
def test_losses(data: str, name: str) -> None:
    """Sec. 4: plain losses, and losses and gradients at each beta, equal the official arithmetic in float64."""
    kind, gamma = KINDS[name]
    for place, beta in enumerate([0.0, *BETAS]):
        logits = A[f"{data}_logits"].clone().requires_grad_()
        loss = class_balanced_loss(logits, A[f"{data}_labels"], COUNTS[data], beta, kind, gamma)
        (gradient,) = torch.autograd.grad(loss, logits)
        what = f"CB {name} at beta {beta:g}: ours differs from {ARITHMETIC}"
        same(loss, A[f"{data}_{name}_loss"][place], what)
        same(gradient, A[f"{data}_{name}_grad"][place], what)


@pytest.mark.parametrize("data", COUNTS)
def test_a_weighted_mean_is_another_loss(data: str) -> None:
    """PyTorch's weighted mean, which the official code does not compute, is stored too.

    It differs from the official loss.
    """
    logits, labels, stored = A[f"{data}_logits"], A[f"{data}_labels"], A[f"{data}_softmax_weightedmean_notofficial"]
    losses = [class_balanced_loss(logits, labels, COUNTS[data], b, reduction="weighted_mean") for b in BETAS]
    same(torch.stack(losses), stored, "weighted mean: ours differs from PyTorch's, in float64")
    assert abs(losses[-1] - A[f"{data}_softmax_loss"][-1]) > 0.1  # at beta 0.9999, where weights differ most


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_extreme_logits(gamma: float) -> None:
    """Where the official form of focal loss overflows, ours equals 60 decimal digits that are computed here."""
    values = [0.0, 60.0, -60.0, 1e4, -1e4, 3.0]
    logits = torch.tensor([values], dtype=torch.float64, requires_grad=True)
    loss = class_balanced_loss(logits, torch.tensor([3]), [1] * len(values), 0.0, "focal", gamma)
    with localcontext() as context:
        context.prec = 60
        total = Decimal(0)
        for place, z in enumerate(values):
            odds = Decimal(z if place == 3 else -z).exp()  # p / (1 - p) of the target
            total += (1 + 1 / odds).ln() * (1 / (1 + odds)) ** Decimal(gamma)
    same(loss, float(total), "focal loss: ours differs from exact arithmetic", rtol=1e-12)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert math.isfinite(float(gradient.abs().sum()))
