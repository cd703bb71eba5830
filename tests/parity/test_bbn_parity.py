"""Tests BBN, and the long-tailed subsets that it shares with LDAM, against the authors' code (see README.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from compare import Case, arrays, load_in_order, numbered, same
from torch import Tensor

from bbn.adaptor import Kind, alpha
from bbn.losses import bilateral_loss
from bbn.model import BBNResNet32, BilateralNet
from bbn.reproduce.presets import CIFAR10, CIFAR_SCHEDULE
from common import rebalance
from common.heads import CosineHead, LinearHead
from common.imbalance import Rebalance
from common.incremental import Context
from common.memory import ExemplarMemory
from common.rebalance import RebalanceLearner
from common.runs import Run
from common.samplers import class_probabilities
from common.splits import longtail_counts, longtail_indices
from common.training import Device

A, TAILS = arrays("bbn"), arrays("longtail")
OFFICIAL = "megvii-research/BBN (Zhou et al. 2020), run in float64 under torch 2.15"
LDAM = "kaidic/LDAM-DRW (Cao et al. 2019) and megvii-research/BBN, both run, with equal results"
SIZES = {"c10": (10, 5000), "c100": (100, 500)}
SUBSETS = [("c10", 50), ("c10", 100), ("c100", 50)]


def alphas(kind: Kind) -> list[float]:
    return [alpha(epoch, 200, kind) for epoch in range(1, 201)]


def drawn(counts: Tensor, uniform: Tensor) -> np.ndarray:
    """Return the class on which each uniform number falls under our probabilities."""
    return np.searchsorted(class_probabilities(counts.numpy(), "reversed").cumsum(), uniform.numpy())


def network(training: bool = False) -> BilateralNet:
    """Return BBN-ResNet-32 for 10 classes with the stored weights, in float64."""
    net = BBNResNet32(10)
    load_in_order(net, numbered(A, "w"))
    return net.train(training)  # type: ignore[return-value]


EXECUTED = [
    *[Case(f"class sizes, {data}, factor {factor}", lambda d=data, f=factor: longtail_counts(*SIZES[d], f),
           f"counts_{data}_ir{factor}") for data, factor in [*SUBSETS, ("c100", 100)]],
    *[Case(f"Eq. 4, reversed probabilities, {data}", lambda n: class_probabilities(n.numpy(), "reversed"),
           f"reverse_prob_{data}_ir50", [f"counts_{data}_ir50"]) for data in SIZES],
    *[Case(f"Eq. 4, drawn classes, {data}", drawn, f"draw_class_{data}_ir50",
           [f"counts_{data}_ir50", "draw_uniforms"]) for data in SIZES],
    Case("alpha of 200 epochs", lambda: alphas("parabolic_decay"), "alpha_200"),
    Case("learning rates, scheduler stepped after an epoch", lambda: [CIFAR_SCHEDULE.lr_at(e) for e in range(200)],
         "lr_torch101_epoch1to200"),
    Case("learning rates, scheduler one epoch early",
         lambda: [CIFAR_SCHEDULE.lr_at(0), *[replace(CIFAR_SCHEDULE, ahead=1).lr_at(e) for e in range(201)]], "lr_f"),
    *[Case(f"parameters, {classes} classes", lambda c=classes: sum(p.numel() for p in BBNResNet32(c).parameters()),
           f"param_count_c{classes}") for classes in (10, 100)],
    Case("conventional features", lambda x: network().features(x)[:, :64], "feature_cb_a", ["x_a"]),
    Case("re-balancing features", lambda x: network().features(x)[:, 64:], "feature_rb_b", ["x_b"]),
    *[Case(f"logits of one batch, {batch}", lambda x: network()(x), f"logits_infer_{batch}", [f"x_{batch}"])
      for batch in "ab"],
]  # fmt: skip
ADAPTORS = [
    Case("linear decay", lambda: alphas("linear_decay"), "alpha200_linear"),
    Case("cosine decay", lambda: alphas("cosine_decay"), "alpha200_cosine"),
    Case("parabolic increment", lambda: alphas("parabolic_increment"), "alpha200_increment"),
]


@pytest.mark.parametrize("case", EXECUTED, ids=str)
def test_ours_is_the_authors(case: Case) -> None:
    """Sizes, samplers, schedules, features and logits are compared with the executed official code."""
    case.check(A, OFFICIAL)


@pytest.mark.parametrize("case", ADAPTORS, ids=str)
def test_other_adaptors(case: Case) -> None:
    """Table 4's other adaptors are compared with the official code's arithmetic in float64."""
    case.check(A, "the arithmetic of megvii-research/BBN in float64")


@pytest.mark.parametrize("weight", ["0.3", "1"])
def test_a_step(weight: str) -> None:
    """Logits, loss and gradients of Eq.

    1 and 3, with BatchNorm in eval mode, are compared with the executed official code.
    """
    net = network()
    logits = net(A["x_a"], A["x_b"], float(weight))
    loss = bilateral_loss(logits, A["y_a"], A["y_b"], float(weight))
    loss.backward()
    first = next(net.trunk.parameters())
    found = {"logits": logits, "loss": loss, "grad_conv1": first.grad}
    found |= {f"grad_classifier_{name}": p.grad for name, p in net.classifier.named_parameters()}
    for name, ours in found.items():
        same(ours, A[f"{name}_alpha{weight}"], f"alpha {weight}, {name}: ours differs from {OFFICIAL}")


def test_batch_statistics_of_a_step() -> None:
    """In a step, the trunk's BatchNorm sees two batches and a branch's sees one, as in the executed official code."""
    net = network(training=True)
    before = [int(v) for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")]
    bilateral_loss(net(A["x_a"], A["x_b"], 1.0), A["y_a"], A["y_b"], 1.0).backward()
    state = net.state_dict()
    stem = [v for k, v in state.items() if k.endswith(("running_mean", "running_var"))][:2]
    for ours, name in zip(stem, ("mean", "var"), strict=True):
        same(ours, A[f"train_bn1_running_{name}_after"], f"running {name} of the stem: ours differs from {OFFICIAL}")
    after = {k: int(v) for k, v in state.items() if k.endswith("num_batches_tracked")}
    added = {k.split(".")[0]: n - old for (k, n), old in zip(after.items(), before, strict=True)}
    same([added[part] for part in ("trunk", "cb_block", "rb_block")], A["train_num_batches_added_trunk_cb_rb"],
         f"batches counted by BatchNorm: ours differ from {OFFICIAL}")  # fmt: skip
    norm = torch.stack([p.grad.norm() for p in net.rb_block.parameters() if p.grad is not None]).norm()
    same(norm, A["train_grad_norm_rb_alpha1"], f"re-balancing gradient at alpha 1: ours differs from {OFFICIAL}")


@pytest.mark.parametrize(("data", "factor"), SUBSETS)
def test_long_tailed_subsets(data: str, factor: int) -> None:
    """Kept images and their order are compared with the executed code of LDAM and of BBN, which agree."""
    labels = TAILS[f"labels_{data}"].numpy()
    kept, name = longtail_indices(labels, factor), f"{data}_ir{factor}"
    same(kept, TAILS[f"indices_{name}"], f"long-tailed subset {name}: ours differs from {LDAM}")
    same(np.bincount(labels[kept]), TAILS[f"counts_{name}"], f"sizes of {name}: ours differ from {LDAM}")


def fresh_head(method: Rebalance, tail_run: Callable[..., Run]) -> LinearHead | CosineHead:
    """Return the classifier of 8 classes that a run of the method begins with."""
    images = SimpleNamespace(labels=torch.arange(8).repeat_interleave(6))
    run = tail_run(method)
    context = Context(run, Device("cpu", "fp32"), images, images, ExemplarMemory(per_class=0))  # type: ignore[arg-type]
    learner = RebalanceLearner(run.method, context)
    learner.build(8)
    return learner.net.head


def test_rows_of_ldams_head_start_with_norm_one(tail_run: Callable[..., Run]) -> None:
    """NormedLinear of kaidic/LDAM-DRW scales each class's fresh weights to norm 1.

    This was read in its code; no array is stored.
    """
    head = fresh_head(CIFAR10.methods()["LDAM-DRW"], tail_run)  # type: ignore[arg-type]
    same(head.weight.norm(dim=1), torch.ones(8), "norms of fresh rows", rtol=1e-4)


def test_columns_of_bbns_head_start_with_norm_one(tail_run: Callable[..., Run]) -> None:
    """FCNorm of megvii-research/BBN@4885096 scales each feature's fresh weights to norm 1.

    This was read in its code.
    """
    head = fresh_head(Rebalance("ldam", head_start="bbn"), tail_run)
    same(head.weight.norm(dim=0), torch.ones(head.weight.shape[1]), "norms of fresh columns", rtol=1e-4)


def test_ldams_linear_head_starts_from_hes_normal(tail_run: Callable[..., Run]) -> None:
    """kaidic/LDAM-DRW calls PyTorch's kaiming_normal_.

    The same generator gives the same weights. The bias stays uniform.
    """
    theirs = torch.empty(10, 64)
    torch.nn.init.kaiming_normal_(theirs, generator=torch.Generator().manual_seed(3))
    draws = torch.Generator().manual_seed(3)
    fresh = rebalance.fresh_head(64, 10, draws, config=CIFAR10.methods()["CE"])  # type: ignore[arg-type]
    uniform = rebalance.fresh_head(64, 10, torch.Generator().manual_seed(3), config=Rebalance())
    assert float(fresh.weight.detach().std() / theirs.std()) == pytest.approx(1, abs=0.1), (
        "spread of fresh weights differs from LDAM's code"
    )
    assert float(fresh.weight.detach().std() / uniform.weight.detach().std()) > 2.2
    same(fresh.bias, uniform.bias, "fresh biases differ from PyTorch's")  # type: ignore[union-attr]
    assert isinstance(fresh_head(CIFAR10.methods()["CE-DRS"], tail_run), LinearHead)  # type: ignore[arg-type]
