"""Tests DER against its authors' code, and its masks against the paper's formulas (see README.md)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compare import Case, arrays, load_in_order, numbered, same
from torch import Tensor, nn

from common.memory import ExemplarMemory, herd
from common.resnet import CifarResNet, backbone
from common.runs import Protocol
from common.splits import named_order, positions
from der.losses import auxiliary, auxiliary_targets, sparsity
from der.masks import mask, scale
from der.methods import DER
from der.model import extractor
from der.prune import count_parameters
from der.reproduce import catalogue
from der.reproduce.presets import settings
from der.schedule import CIFAR, CLASSIFIER, IMAGENET, learning_rates

A = arrays("der")
OFFICIAL = "Rhyssiyan/DER-ClassIL.pytorch (Yan et al. 2021), run under torch 2.15"
PAPER = "the formula in the paper, in float64"
STEP = "aux_b0s10_t3"
(CIFAR_SETTING,) = settings("cifar", None, None, 1.0)
OLD = int(A[f"{STEP}_n_old"])
LOGITS = [f"sparse_e{i}" for i in (1, 2, 3, 4)]


def share(*logits: Tensor) -> Tensor:
    """Return Eq. 10 of plain sigmoids. Its derivatives by e are those before Eq. 9."""
    return sparsity([torch.sigmoid(A["sparse_s"] * e) for e in logits], A["sparse_K"].tolist())


def gradients_at_every_s(e: Tensor, dm: Tensor) -> Tensor:
    """Return the gradients by e that Eq. 9 makes of the same dL/dm at each s."""
    e = e.clone().requires_grad_()
    return torch.stack([torch.autograd.grad(mask(e, s), e, dm)[0] for s in A["hat_s"].tolist()])


def factors(e: Tensor) -> Tensor:
    """Return the ratio of Eq. 9's gradient to the plain gradient of sigmoid(s e), at each s."""
    s = A["hat_s"].unsqueeze(1)
    return gradients_at_every_s(e, torch.ones_like(e)) / (s * torch.sigmoid(s * e) * torch.sigmoid(-s * e))


def images_of_steps(protocol: Protocol) -> tuple[list[int], list[int]]:
    """Return, for every step on CIFAR-100, the exemplars that a class then keeps, and the images trained on."""
    memory = ExemplarMemory(protocol.exemplars_per_class, protocol.exemplars_total, rounding=protocol.rounding)
    seen = np.cumsum(protocol.sizes).tolist()
    kept = [memory.size_for(500, classes) for classes in seen]
    trained = [500 * new + old * k for new, old, k in zip(protocol.sizes, [0, *seen], [0, *kept], strict=False)]
    return kept, trained


EXECUTED = [
    Case("learning rates of 170 epochs", lambda: learning_rates(170), "lr_cifar170"),
    Case("auxiliary targets", lambda y: auxiliary_targets(y, OLD), f"{STEP}_targets", [f"{STEP}_labels"]),
    Case("Eq. 4, auxiliary loss", lambda z: auxiliary(z, A[f"{STEP}_labels"], OLD), f"{STEP}_aux_ce",
         [f"{STEP}_aux_logits"], [f"{STEP}_grad_aux_logits"]),
    Case("Eq. 3, loss over all classes", lambda z: F.cross_entropy(z, A[f"{STEP}_labels"]), f"{STEP}_ce",
         [f"{STEP}_logits"], [f"{STEP}_grad_logits"]),
    Case("herding of 20 exemplars a class", lambda f: torch.stack([herd(x, 20) for x in f]), "herd_ranked20",
         ["herd_features"]),
    *[Case(f"class order {name}", lambda name=name: named_order(name, 100), f"order_{name}")
      for name in ("O1", "O2", "O3")],
    Case("labels under O1", lambda y: torch.from_numpy(positions(named_order("O1", 100)))[y], "labelmap_O1",
         ["labelmap_in"]),
    Case("parameters of ResNet-18", lambda: count_parameters(backbone("resnet18")), "r18_param_count_cifar"),
    Case("parameters of ResNet-18 with a 7x7 stem", lambda: count_parameters(backbone("resnet18-imagenet")),
         "r18_param_count_imagenet_stem7"),
]  # fmt: skip
CONSTANTS = [
    Case("epoch of the heads' reset", lambda: [CIFAR.warmup, IMAGENET.warmup], "head_reset_epoch0based"),
    Case("learning rates of the classifier stage", lambda: [CLASSIFIER.lr_at(e) for e in range(30)],
         "lr_stage2_30"),
    Case("temperature of the classifier stage", lambda: DER().temperature, "stage2_temperature"),
    Case("loss of the classifier stage", lambda z: F.cross_entropy(z / DER().temperature, A[f"{STEP}_labels"]),
         "stage2_loss_b0s10_t3", [f"{STEP}_logits"]),
]  # fmt: skip
FORMULAS = [
    Case("Eq. 7, masks", lambda e: torch.stack([mask(e, s) for s in A["hat_s"].tolist()]), "hat_mask", ["hat_e"]),
    Case("Eq. 8, s of each batch", lambda: [scale(float(b), 55, 15.0) for b in range(1, 56)], "anneal_B55_smax15"),
    Case("Eq. 9, factor", factors, "hat_factor", ["hat_e"]),
    Case("Eq. 9, compensated gradients", gradients_at_every_s, "hat_compensated", ["hat_e", "hat_dL_dm"]),
    Case("Eq. 10, sparsity", share, "sparse_loss", LOGITS, [f"sparse_grad_e{i}" for i in (1, 2, 3, 4)]),
    Case("Eq. 10, all channels on", lambda *e: sparsity([torch.ones_like(x) for x in e], A["sparse_K"].tolist()),
         "sparse_loss_allones", LOGITS),
]  # fmt: skip


@pytest.mark.parametrize("case", EXECUTED, ids=str)
def test_ours_is_the_authors(case: Case) -> None:
    """Rates, losses with gradients, herding, class orders and sizes are compared with the executed official code."""
    case.check(A, OFFICIAL)


@pytest.mark.parametrize("case", CONSTANTS, ids=str)
def test_constants_are_the_authors(case: Case) -> None:
    """They follow from the configuration of the official code, worked out in float64."""
    case.check(A, "the official code's constants (Rhyssiyan/DER-ClassIL.pytorch), worked out in float64")


@pytest.mark.parametrize("case", FORMULAS, ids=str)
def test_masks_follow_the_paper(case: Case) -> None:
    """No code was released for Sec. 3.3, so masks are compared with the paper's formulas in float64."""
    case.check(A, PAPER)


@pytest.mark.parametrize(("name", "protocol"), [
    ("b0_5", Protocol(100, 20, 20, None, 2000, "down")),
    ("b0_10", Protocol(100, 10, 10, None, 2000, "down")),
    ("b0_20", Protocol(100, 5, 5, None, 2000, "down")),
    ("b50_5", Protocol(100, 50, 10, 20)),
    ("b50_10", Protocol(100, 50, 5, 20)),
])  # fmt: skip
def test_memory_and_training_sets(name: str, protocol: Protocol) -> None:
    """Exemplars and images of every step follow the memory rule of the executed official code."""
    kept, trained = images_of_steps(protocol)
    same(kept, A[f"mem_per_class_{name}"], f"exemplars a class, {name}: ours differ from {OFFICIAL}")
    same(trained, A[f"train_size_{name}"], f"training images, {name}: ours differ from {OFFICIAL}")


def test_resnet18_gives_the_authors_features() -> None:
    """With an eighth of the width and BatchNorm in eval mode, it equals the official network run in float64."""
    net = CifarResNet((2, 2, 2, 2), width=8)
    load_in_order(net, numbered(A, "r18nf8_w"))
    with torch.no_grad():
        same(net.eval()(A["r18nf8_input"]), A["r18nf8_features"], f"features of ResNet-18: ours differ from {OFFICIAL}")


def last_gammas(net: nn.Module) -> list[bool]:
    """Return for each block whether all gammas of its last BatchNorm start at 0."""
    return [not norm.weight.any() for name, norm in net.named_modules() if name.endswith(".bn2")]  # type: ignore[operator, union-attr]


def test_blocks_of_resnet18_start_as_their_shortcuts() -> None:
    """The last gammas of all 8 blocks, and no others, start at 0, as the state of the official network shows."""
    net = extractor("resnet18", seed=0)
    weights = [name for name in net.state_dict() if not name.endswith("num_batches_tracked")]
    zero = [i for i, name in enumerate(weights) if name.endswith("weight") and not net.state_dict()[name].any()]
    same(zero, A["r18_zero_gamma_places"], f"weights that start at 0: ours differ from {OFFICIAL}")
    convolutions = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d))
    same(convolutions, A["r18_conv_weights_cifar"], f"weights of convolutions: ours differ from {OFFICIAL}")


def test_blocks_of_resnet32_start_with_a_gamma_of_one() -> None:
    """modified_resnet32 of Rhyssiyan/DER-ClassIL.pytorch@3c7dd0a sets every gamma to 1.

    This was read in its code; no array is stored.
    """
    runs = [run for group in catalogue.small(CIFAR_SETTING).values() for run in group if isinstance(run.method, DER)]
    assert runs
    for run in runs:
        assert not any(last_gammas(extractor(run.network, run.seed, run.method.zero_last)))
