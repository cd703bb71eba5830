"""Tests LUCIR and iCaRL's distillation against the authors' code. README.md says where the numbers come from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compare import FLOAT32, Case, arrays, same
from torch import Tensor, nn

from common.heads import CosineHead
from common.incremental import Context, Learner, Net
from common.memory import ExemplarMemory, herd
from common.metrics import nearest_mean
from common.splits import class_order
from common.training import Device
from lucir.losses import adaptive_weight, cosine_distillation, distillation, less_forget, margin_ranking
from lucir.model import imprint

A = arrays("lucir")
OFFICIAL = "hshustc/CVPR19_Incremental_Learning (Hou et al. 2019), run in float64 under torch 2.15"
NUMPY = "NumPy's legacy random numbers, which the authors' code draws class orders from"
OLD, MARGIN, K = int(A["c_num_old"]), float(A["c_margin"]), int(A["c_K"])


def head(weight: Tensor, scale: float, grown_by: int = 0) -> CosineHead:
    """Return a cosine head in float64 with these rows. The last `grown_by` rows came with a later phase."""
    made = CosineHead(weight.shape[1], len(weight) - grown_by).double()
    if grown_by:
        made.grow(grown_by)
    made.weight.data, made.scale.data = weight.clone(), torch.tensor(float(scale), dtype=torch.float64)
    return made


def weights_of_phases(new: int, count: int) -> list[float]:
    """Return lambda in each of `count` phases of `new` classes after a base of 50."""
    return [adaptive_weight(5, 50 + new * i, new, "code") for i in range(count)]


def ranking(cosines: Tensor, case: str) -> Tensor:
    return margin_ranking(cosines, A[f"c_{case}_labels"], OLD, K, MARGIN)


def icarl(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits, A["h1_labels"]) + distillation(logits, A["h1_ref_logits"])


FORMULAS = [
    Case("Eq. 4, cosine logits at eta 1", head(A["a_weight"], A["a_sigma0"]), "a_logits0", ["a_features"]),
    Case("Eq. 4, cosine logits at eta 7.25", head(A["a_weight"], A["a_sigma1"]), "a_logits1", ["a_features"]),
    Case("Eq. 4, a head grown by 4 rows", head(A["a_weight"], A["a_sigma1"], 4), "a_split_logits", ["a_features"]),
    Case("Eq. 2, distillation", lambda z: distillation(z, A["h1_ref_logits"]), "h1_kd_loss", ["h1_logits"],
         ["h1_kd_grad_logits"]),
    Case("Eq. 1 and 2, loss of iCaRL", icarl, "h1_total_loss", ["h1_logits"], ["h1_total_grad_logits"]),
    Case("Eq. 5, distillation of cosines", lambda c: cosine_distillation(c, A["m_ref_cosines"]), "m_loss",
         ["m_cosines"], ["m_grad_cosines"]),
    Case("Eq. 6, less-forget", lambda f: A["b_lamda"] * less_forget(f, A["b_ref_features"]), "b_loss",
         ["b_cur_features"], ["b_grad_cur_features"]),
    *[Case(f"Eq. 7, lambda, {count} phases of {new}", lambda new=new, count=count: weights_of_phases(new, count),
           f"d_lambda_base5_50p{count}x{new}") for count, new in [(1, 50), (2, 25), (5, 10), (10, 5)]],
    *[Case(f"Eq. 8, margin ranking, {case}", lambda c, case=case: ranking(c, case), f"c_{case}_loss",
           [f"c_{case}_cosines"], [f"c_{case}_grad_cosines"]) for case in ("mixed", "all_old", "no_old")],
    Case("imprinted rows", lambda w, f: imprint(list(f), w), "e_imprinted", ["e_old_weight", "e_features"]),
    Case("imprinted rows in fp32", lambda w, f: imprint(list(f.float()), w.float()), "e_imprinted_f32",
         ["e_old_weight", "e_features"], tolerances=FLOAT32),
    Case("herding of 20 exemplars a class", lambda f: torch.stack([herd(x, 20) for x in f]), "f_ranked20",
         ["f_features"]),
    *[Case(f"nearest mean, {kind}", nearest_mean, f"g_pred_{kind}", ["g_test_features", f"g_means_{kind}"])
      for kind in ("noflip", "alldata")],
]  # fmt: skip
ORDERS = [
    Case("order of 100 classes, seed 1993", lambda: class_order(100, 1993), "i_order1993"),
    Case("order of 1000 classes, seed 1993", lambda: class_order(1000, 1993), "i_order1993_1000"),
]


@pytest.mark.parametrize("case", FORMULAS, ids=str)
def test_a_formula_is_the_authors(case: Case) -> None:
    """Heads, losses with gradients, imprinting, herding and nearest means equal the executed official code."""
    case.check(A, OFFICIAL)


@pytest.mark.parametrize("case", ORDERS, ids=str)
def test_class_orders_are_the_published_ones(case: Case) -> None:
    """The official code shuffles classes with seed 1993."""
    case.check(A, NUMPY)


def test_a_whole_step() -> None:
    """On a head grown from 8 to 12 classes, each term of Eq. 9 and all gradients equal the executed official code."""
    net = head(torch.cat([A["t_mixed_fc1"], A["t_mixed_fc2"]]), A["t_mixed_sigma"], grown_by=4)
    features, labels = A["b_cur_features"].clone().requires_grad_(), A["t_mixed_labels"]
    terms = {
        "ce": F.cross_entropy(net(features), labels),
        "lf": A["b_lamda"] * less_forget(features, A["b_ref_features"]),
        "mr": margin_ranking(net.cosines(features), labels, OLD, K, MARGIN),
    }
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert net.weight.grad is not None and net.scale.grad is not None
    found = {**terms, "total": total, "grad_features": features.grad, "grad_sigma": net.scale.grad.reshape(1)}
    found |= {"grad_fc1_unfrozen": net.weight.grad[:OLD], "grad_fc2": net.weight.grad[OLD:]}
    for name, ours in found.items():
        same(ours, A[f"t_mixed_{name}"], f"Eq. 9, {name}: ours differs from {OFFICIAL}")


@pytest.mark.parametrize("kind", ["noflip", "alldata"])
def test_class_means(kind: str) -> None:
    """Unit class means of 20 herded exemplars, or of all 500 images, equal the executed official code."""
    features = A["f_features"]
    count = features.shape[1]
    rows = A["f_ranked20"] if kind == "noflip" else torch.arange(count).expand(len(features), -1)
    images: Any = SimpleNamespace(
        labels=torch.arange(len(features)).repeat_interleave(count),
        plain=lambda indices, flip: [features.flatten(0, 1)[indices]],
    )
    cpu, run = Device("cpu", "fp32"), SimpleNamespace()
    memory = ExemplarMemory(per_class=20, indices={c: count * c + kept for c, kept in enumerate(rows)})
    learner = Learner(None, Context(run, cpu, images, images, memory))  # type: ignore[arg-type]
    learner.net = Net(nn.Identity(), CosineHead(features.shape[2], len(features)), cpu)
    same(learner.exemplar_means(), A[f"g_means_{kind}"], f"class means: ours differ from {OFFICIAL}", **FLOAT32)


def test_accuracy_of_nearest_means() -> None:
    """It is the accuracy that the official code prints for its own predictions."""
    correct = nearest_mean(A["g_test_features"], A["g_means_noflip"]) == torch.arange(3).repeat_interleave(60)
    same(100 * correct.double().mean(), A["g_acc_noflip"], f"accuracy: ours differs from {OFFICIAL}")
