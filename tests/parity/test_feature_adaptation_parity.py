"""Tests feature adaptation against the paper's formulas and the executed code of SDC (see README.md)."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from types import SimpleNamespace

import pytest
import torch
from compare import Case, arrays, same
from torch import Tensor, nn

from common.incremental import Context, Phase, begin
from common.memory import ExemplarMemory
from common.runs import Run
from common.training import Device
from feature_adaptation.adapter import FeatureAdapter
from feature_adaptation.extractor import ExtractorLearner
from feature_adaptation.losses import sigmoid_loss, similarity_loss
from feature_adaptation.memory import megabytes
from feature_adaptation.methods import Extractor
from feature_adaptation.metrics import adaptation_quality
from feature_adaptation.reproduce.presets import CIFAR_SCHEDULE
from feature_adaptation.sdc import compensate, log_weights

A = arrays("feature_adaptation")
PAPER = "the formula in the paper (Iscen et al. 2020), in float64"
SDC = "yulu0724/SDC-IL (Yu et al. 2020), whose executed code gives the same within 2e-16"
DRIFT = ["sdc_proto_old", "sdc_z_old", "sdc_z_new"]
CIFAR = "cifar100"
FP32_TARGETS = {"rtol": 1e-6, "atol": 1e-8}
"""Tolerances of stage 1's loss, whose one-hot targets are fp32 even if the logits are float64."""


def in_bytes(**kept: float) -> float:
    return 1e6 * megabytes(CIFAR, **kept)


def parameters(hidden: int) -> list[int]:
    """Return the adapter's size at each stored width, on the device meta: the largest would take 300 MB."""
    with torch.device("meta"):
        return [sum(p.numel() for p in FeatureAdapter(dim, hidden).parameters()) for dim in A["mlp_dims"].tolist()]


def stage1(logits: Tensor) -> Tensor:
    """Return Eq. 4 with sigmoids after all 12 classes have arrived, 8 of them earlier."""
    return sigmoid_loss(logits, A["kd_labels"], 8, A["kd_teacher_logits"])


FORMULAS = [
    Case("bytes of L features", lambda n: [round(in_bytes(features_per_class=k)) for k in n.tolist()],
         "mem_cifar100_L_bytes", ["mem_cifar100_L"]),
    Case("bytes of P images", lambda n: [round(in_bytes(images_per_class=k)) for k in n.tolist()],
         "mem_cifar100_P_bytes", ["mem_cifar100_P"]),
    Case("bytes of 10 images and 200 features", lambda: round(in_bytes(images_per_class=10, features_per_class=200)),
         "mem_cifar100_P10_L200_bytes"),
    Case("bytes of all features", lambda: round(in_bytes(features_per_class=500)), "mem_cifar100_allfeatures_bytes"),
    Case("bytes of 20 images", lambda: round(in_bytes(images_per_class=20)), "mem_cifar100_20img_bytes"),
    Case("features worth 20 images", lambda: round(in_bytes(images_per_class=20) / in_bytes(features_per_class=1)),
         "mem_cifar100_parity_L_vs_20img"),
    *[Case(f"parameters of phi, {hidden} hidden", lambda h=hidden: parameters(h), f"mlp_params_{hidden}hidden_16d")
      for hidden in (1, 2)],
    Case("Eq. 5 and 7, similarity", lambda f: similarity_loss(f, A["sim_target"]), "sim_loss", ["sim_pred"],
         ["sim_grad_pred"]),
    Case("1 - omega", lambda f: 1 - adaptation_quality(f, A["sim_target"]), "sim_loss", ["sim_pred"]),
    Case("Eq. 4, one cross-entropy of 12 nodes", stage1, "kd_loss_mean", ["kd_logits"], ["kd_grad_logits"],
         FP32_TARGETS),
]  # fmt: skip
COMPENSATION = [
    Case("weights", lambda p, z: log_weights(p, z, 0.3).softmax(dim=1), "sdc_weights_sigma0.3", DRIFT[:2]),
    *[Case(f"moved rows, sigma {sigma}", lambda p, old, new, s=sigma: compensate(p, old, new, s),
           f"sdc_proto_new_sigma{sigma}", DRIFT) for sigma in (0.2, 0.3)],
]  # fmt: skip


@pytest.mark.parametrize("case", FORMULAS, ids=str)
def test_a_formula_is_the_papers(case: Case) -> None:
    """No code was released. Bytes, sizes and losses with gradients are compared with the formulas in float64."""
    case.check(A, PAPER)


@pytest.mark.parametrize("case", COMPENSATION, ids=str)
def test_compensation_is_the_authors(case: Case) -> None:
    """Semantic drift compensation equals its formula in float64, which the executed official code equals too."""
    case.check(A, SDC)


def test_far_rows_move_with_their_nearest() -> None:
    """Where the official form is 0 / 0, ours is compared with the same formula in 60 decimal digits, computed here."""
    stored = 100 * A["sdc_proto_old"][:2, :8]
    old, new = A["sdc_z_old"][:20, :8], A["sdc_z_new"][:20, :8]
    expected = stored.clone()
    with localcontext() as context:
        context.prec = 60
        for row in range(len(stored)):
            squares = [sum((Decimal(a) - Decimal(b)) ** 2 for a, b in zip(stored[row].tolist(), z, strict=True))
                       for z in old.tolist()]  # fmt: skip
            weights = [(-d / (2 * Decimal("0.3") ** 2)).exp() for d in squares]
            assert float(sum(weights)) == 0  # too small for float64
            share = torch.tensor([float(w / sum(weights)) for w in weights], dtype=torch.float64)
            expected[row] += share @ (new - old)
    same(compensate(stored, old, new, 0.3), expected, "far rows: ours differ from exact arithmetic", rtol=1e-8)


class Vectors(nn.Module):
    """A network whose images are features already, with the head of a learner."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def features(self, images: Tensor) -> Tensor:
        return images


def test_stage_1_is_a_mean_over_all_classes(tiny_run: Callable[..., Run]) -> None:
    """iCaRL's official codes have outputs for all classes from the first task on. Expectations are derived in float64.

    The derivative by a bias is then the mean over the batch of p - y, divided by the number of all classes. y is 0 for
    a class that has not come yet.
    """
    run = tiny_run(Extractor())  # of 8 classes, 4 in the first task
    images = SimpleNamespace(labels=torch.arange(8))
    context = Context(run, Device("cpu", "fp32"), images, images, ExemplarMemory(per_class=0))  # type: ignore[arg-type]
    learner = ExtractorLearner(run.method, context)
    learner.build(4)
    learner.net = Vectors(learner.net.head.double())  # type: ignore[assignment]
    begin(learner, Phase(0, 0, 4))
    head, labels = learner.net.head, torch.tensor([0, 1, 2, 3, 0])
    features = torch.randn(5, head.weight.shape[1], generator=torch.Generator().manual_seed(0)).double()
    learner.loss(features, labels).backward()
    errors = (features @ head.weight.T + head.bias).sigmoid() - torch.nn.functional.one_hot(labels, 8)
    same(head.bias.grad, errors.mean(dim=0) / 8, "gradient of stage 1: ours differs from iCaRL's", **FP32_TARGETS)


def test_stage_1_has_icarls_learning_rate() -> None:
    """It is the rate of iCaRL's official codes on CIFAR-100, which belongs to the mean over all classes."""
    assert CIFAR_SCHEDULE.lr == 2.0
