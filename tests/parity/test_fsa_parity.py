"""Tests FSA against the formulas of the paper, whose code was not released. README.md says where numbers come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compare import FLOAT32, Case, arrays, same
from torch import Tensor

from common.splits import longtail_counts
from fsa.augment import fuse, pooled, shares
from fsa.batches import confusing_classes, head_tail_sampler, mean_scores
from fsa.cam import activation, class_activation_map, split
from fsa.methods import FSA
from fsa.splits import head_and_tail, head_classes

A = arrays("fsa")
PAPER = "the formula in the paper (Chu et al. 2020), in float64"
MAPS = ["cam_feature_maps", "cam_fc_weight"]
FACTORS = (10, 20, 50, 100, 200)
LENGTH = int(A["fuse_L"])


def cams(maps: Tensor, weight: Tensor) -> Tensor:
    return class_activation_map(maps, weight, A["cam_labels"])


def every_class(maps: Tensor, weight: Tensor) -> Tensor:
    """Return the raw map of each class in each image."""
    return torch.stack([activation(maps, weight, torch.full((len(maps),), c)) for c in range(len(weight))], dim=1)


def sides() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return maps [c, l] of the tail image and its donor, and masks of class-specific and class-generic locations, bool
    [l].
    """
    tail, donor = int(A["fuse_tail_image"]), int(A["fuse_donor_image"])
    maps = A["cam_feature_maps"].flatten(2)
    return maps[tail], maps[donor], A["mask_specific_82"][tail].flatten(), A["mask_generic_82"][donor].flatten()


def head_tail_row(factor: int) -> list[int]:
    """Return factor, head and tail classes, tail images and all images of CIFAR-10-LT."""
    counts = longtail_counts(10, 5000, factor)
    first = head_classes(counts)
    return [factor, first, 10 - first, int(counts[first:].sum()), int(counts.sum())]


FORMULAS = [
    Case("Eq. 1, raw maps", lambda f, w: activation(f, w, A["cam_labels"]), "cam_raw", MAPS, tolerances=FLOAT32),
    Case("Eq. 1, maps of all classes", every_class, "cam_all_classes", MAPS, tolerances=FLOAT32),
    Case("logits as means of maps", lambda f, w: every_class(f, w).mean(dim=(2, 3)) + A["cam_fc_bias"], "cam_logits",
         MAPS, tolerances=FLOAT32),
    Case("maps scaled to [0, 1]", cams, "cam_norm", MAPS, tolerances=FLOAT32),
    Case("class-specific locations", lambda f, w: split(cams(f, w), 0.8, 0.2)[0], "mask_specific_82", MAPS),
    Case("class-generic locations", lambda f, w: split(cams(f, w), 0.8, 0.2)[1], "mask_generic_82", MAPS),
    *[Case(f"class sizes, factor {f}", lambda f=f: longtail_counts(10, 5000, f), f"counts_c10_im{f}") for f in FACTORS],
    Case("head and tail of CIFAR-10-LT", lambda: [head_tail_row(f) for f in FACTORS], "headtail_c10"),
    Case("mean scores", lambda s, y: mean_scores(s.split(150), y, 10), "conf_mean_scores",
         ["conf_scores", "conf_labels"], tolerances=FLOAT32),
    Case("confusing classes among all others", lambda s, t: confusing_classes(s.float(), t, torch.arange(10), 3),
         "conf_top3_allothers", ["conf_mean_scores", "conf_tail"]),
]  # fmt: skip


@pytest.mark.parametrize("case", FORMULAS, ids=str)
def test_a_formula_is_the_papers(case: Case) -> None:
    """Maps and their two parts, head and tail, and confusing classes equal the paper's formulas in float64."""
    case.check(A, PAPER)


@pytest.mark.parametrize("place", range(3))
def test_shares_have_the_expected_mean(place: int) -> None:
    """Every possible sample of Algorithm 1 is taken once. Their mean is the paper's expectation, in float64."""
    tail, donor, specific, generic = sides()
    draws = int(specific.sum() * generic.sum())  # a grid on which each location of either side falls equally often
    uniform = ((torch.arange(draws) + 0.5) / draws).unsqueeze(1).expand(draws, LENGTH)
    ratio = torch.full((draws,), int(A["fuse_n_specific"][place]) / LENGTH)
    parts = shares(specific.expand(draws, -1), generic.expand(draws, -1), ratio, uniform)
    found = sum(pooled(m.expand(draws, -1, -1), s) for m, s in zip((tail, donor), parts, strict=True))
    same(found.mean(dim=0), A["fuse_expected_pooled"][place], f"pooled sample: ours differs from {PAPER}", **FLOAT32)  # type: ignore[union-attr]


@pytest.mark.parametrize("place", range(3))
def test_fused_samples_have_the_expected_mean(place: int) -> None:
    """40,000 vectors of `fuse` lie within 5 standard errors of the paper's expectation, in float64."""
    tail, donor, specific, generic = sides()
    ratio, count = int(A["fuse_n_specific"][place]) / LENGTH, 40_000
    vectors = fuse(tail[:, specific], donor[:, generic], count, ratio, torch.Generator().manual_seed(0))
    errors = (vectors.mean(dim=1) - A["fuse_expected_pooled"][place]).abs()
    assert (errors <= 5 * vectors.std(dim=1) / count**0.5).all()


def test_confusing_classes_of_the_head() -> None:
    """NumPy sorts the scores of Sec. 4.2 here in float64, for head classes alone. No array is stored."""
    scores, tail, head = A["conf_mean_scores"].numpy(), A["conf_tail"].numpy(), A["conf_head"].numpy()
    expected = np.array([head[np.argsort(-scores[c, head])[:3]] for c in tail])
    found = confusing_classes(A["conf_mean_scores"].float(), A["conf_tail"], A["conf_head"], 3)
    same(found, expected, "confusing head classes: ours differ from a sort in float64")


def test_composition_of_a_batch() -> None:
    """Numbers of real tail, augmented and head images in a batch of 128 follow Sec. 4.3 of the paper."""
    counts = longtail_counts(10, 5000, 100)
    labels = torch.arange(10).repeat_interleave(torch.from_numpy(counts))
    sampler = head_tail_sampler(FSA(), labels, counts, A["conf_mean_scores"].float())
    batch = labels[sampler(torch.arange(len(labels)), torch.Generator().manual_seed(0))][: FSA().images]
    tail, donors, head, total = A["batch_composition_128"].tolist()
    head_ids, tail_ids = (set(ids.tolist()) for ids in head_and_tail(counts))
    assert len(batch) == total and set(batch[:tail].tolist()) <= tail_ids
    assert len(batch[tail:-head]) == donors and set(batch[tail:].tolist()) <= head_ids
