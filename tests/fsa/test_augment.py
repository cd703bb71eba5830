"""Tests activation maps, their parts, fusion and the head/tail split against the specification's invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from common.splits import longtail_counts
from fsa.augment import augmented, fuse, pick, pooled, quota, quotas, replaced, shares
from fsa.cam import activation, class_activation_map, split
from fsa.maps import Pool
from fsa.methods import FSA
from fsa.splits import head_and_tail, head_classes

taus = st.floats(0.01, 0.99)
seeds = st.integers(0, 2**31)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def toy(seed: int, n: int = 4, c: int = 6, side: int = 4, k: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Return random maps, classifier weights and labels."""
    g = seeded(seed)
    return torch.rand(n, c, side, side, generator=g), torch.randn(k, c, generator=g), torch.arange(n) % k


# Class activation maps


@given(seeds)
def test_the_mean_of_a_map_is_the_logit(seed: int) -> None:
    """By Eq. 1, mean + bias is the logit of each sample's own class."""
    maps, weight, labels = toy(seed)
    bias = torch.randn(5, generator=seeded(seed))
    logits = maps.mean(dim=(2, 3)) @ weight.T + bias
    found = activation(maps, weight, labels).mean(dim=(1, 2)) + bias[labels]
    torch.testing.assert_close(found, logits[torch.arange(4), labels], rtol=1e-4, atol=1e-5)


@given(seeds)
def test_maps_go_from_0_to_1(seed: int) -> None:
    maps, weight, labels = toy(seed)
    cam = class_activation_map(maps, weight, labels)
    assert cam.shape == (4, 4, 4) and (cam.amin(dim=(1, 2)) == 0).all() and (cam.amax(dim=(1, 2)) == 1).all()
    raw = activation(maps, weight, labels)[0]
    torch.testing.assert_close(cam[0], (raw - raw.min()) / (raw.max() - raw.min()))


def test_each_sample_is_scaled_by_itself_with_its_own_class() -> None:
    maps = torch.tensor([[[[1.0, 2.0]], [[5.0, 1.0]]]]).expand(2, -1, -1, -1)  # [2, 2 channels, 1, 2]
    cam = class_activation_map(maps, torch.eye(2), torch.tensor([0, 1]))
    assert cam.tolist() == [[[0.0, 1.0]], [[1.0, 0.0]]]


def test_scaled_by_relu_and_the_greatest() -> None:
    maps = torch.tensor([[[[-1.0, 2.0, 4.0]]], [[[-1.0, -2.0, -3.0]]]])
    cam = class_activation_map(maps, torch.ones(1, 1), torch.tensor([0, 0]), "relu-max")
    assert cam.tolist() == [[[0.0, 0.5, 1.0]], [[0.0, 0.0, 0.0]]]


def test_constant_maps_become_zeros_and_single_locations_are_refused() -> None:
    weight, labels = torch.ones(2, 3), torch.tensor([0, 1])
    assert not class_activation_map(torch.full((2, 3, 4, 4), 0.7), weight, labels).any()
    with pytest.raises(ValueError, match="at least two locations"):
        class_activation_map(torch.rand(2, 3, 1, 1), weight, labels)


# Masks


@given(seeds, taus, taus)
def test_masks(seed: int, tau_s: float, tau_g: float) -> None:
    """No mask is empty.

    Both are disjoint if tau_g <= tau_s, else they cover every location. Both are monotone in tau.
    """
    cam = class_activation_map(*toy(seed))
    specific, generic = split(cam, tau_s, tau_g)
    assert specific.dtype == generic.dtype == torch.bool
    assert specific.flatten(1).any(1).all() and generic.flatten(1).any(1).all()
    if tau_g <= tau_s:
        assert not (specific & generic).any()
    else:
        assert (specific | generic).all()
    same = split(cam, tau_s, tau_s)
    assert torch.equal(same[0] | same[1], cam != torch.tensor(tau_s)), "complements but for equality"
    higher = split(cam, (tau_s + 1) / 2, (tau_g + 1) / 2)
    assert not (higher[0] & ~specific).any() and not (generic & ~higher[1]).any()


def test_comparisons_are_strict_and_none_takes_all() -> None:
    cam = torch.tensor([[[0.0, 0.5, 1.0]]])
    specific, generic = split(cam, 0.5, 0.5)
    assert specific.tolist() == [[[False, False, True]]] and generic.tolist() == [[[True, False, False]]]
    assert split(cam, None, None)[0].all() and split(cam, None, None)[1].all()
    for tau in (-0.2, 1.2):
        with pytest.raises(ValueError, match="threshold"):
            split(cam, tau, 0.5)
        with pytest.raises(ValueError, match="threshold"):
            split(cam, 0.5, tau)


# Fusion


@pytest.mark.parametrize(
    ("ratio", "length", "count"),
    [(0.0, 16, 0), (1.0, 16, 16), (0.001, 16, 1), (0.999, 16, 15), (0.5, 16, 8), (0.3, 16, 5), (0.5, 2, 1)],
)
def test_quota(ratio: float, length: int, count: int) -> None:
    assert quota(ratio, length) == count
    everywhere = torch.ones(1, length, dtype=torch.bool)
    assert quotas(torch.tensor([ratio]), everywhere, everywhere).tolist() == [count]


def test_quota_refuses() -> None:
    for ratio in (-0.1, 1.1):
        with pytest.raises(ValueError, match="share of class-specific"):
            quota(ratio, 16)
    with pytest.raises(ValueError, match="length 1 has no room"):
        quota(0.5, 1)
    with pytest.raises(ValueError, match="length 0 has no room"):
        quota(1.0, 0)
    assert quota(0.0, 1) == 0 and quota(1.0, 1) == 1


@given(seeds, st.integers(1, 9), st.integers(1, 9), st.integers(2, 20), st.floats(0, 1))
def test_every_vector_is_one_of_the_two_sides(seed: int, m: int, q: int, length: int, ratio: float) -> None:
    """There are `length` vectors, `quota` of them specific. None is made up or filled with zeros."""
    specific, generic = 1 + torch.rand(3, m), -1 - torch.rand(3, q)
    fused = fuse(specific, generic, length, ratio, seeded(seed))
    assert fused.shape == (3, length)
    sources = {tuple(v) for v in torch.cat([specific, generic], dim=1).T.tolist()}
    assert {tuple(v) for v in fused.T.tolist()} <= sources
    assert (fused[0] > 0).sum() == quota(ratio, length)
    torch.testing.assert_close(fused, fuse(specific, generic, length, ratio, seeded(seed)))


@given(seeds)
def test_where_a_vector_lies_does_not_matter(seed: int) -> None:
    """A fused map with its vectors in any order gives the logits of its pooled feature."""
    fused = fuse(torch.rand(6, 5), torch.rand(6, 11), 16, 0.4, seeded(seed))
    head, order = torch.nn.Linear(6, 5), torch.randperm(16, generator=seeded(seed))
    logits = head(Pool()(fused[:, order].view(1, 6, 4, 4)))[0]
    torch.testing.assert_close(logits, head(fused.mean(dim=1)))


def test_an_empty_side_gives_all_to_the_other() -> None:
    some, none = torch.rand(3, 4), torch.empty(3, 0)
    for sides in ((some, none), (none, some)):
        fused = fuse(*sides, 16, 0.5, seeded(0))
        assert {tuple(v) for v in fused.T.tolist()} <= {tuple(v) for v in some.T.tolist()} and fused.shape == (3, 16)
    with pytest.raises(ValueError, match="neither"):
        fuse(none, none, 16, 0.5, seeded(0))


def test_vectors_are_drawn_with_replacement_and_all_alike() -> None:
    specific = torch.arange(4.0).view(1, 4)
    drawn = fuse(specific, torch.full((1, 1), 9.0), 40_000, 1.0, seeded(0))[0]
    counts = torch.bincount(drawn.long(), minlength=4)
    assert (counts.double() / 40_000 - 0.25).abs().max() < 0.01
    uniform = torch.rand(1, 40_000, generator=seeded(1))
    mask = torch.tensor([[True, False, True, True]])
    places = torch.bincount(pick(mask, uniform)[0], minlength=4) / 40_000
    assert places[1] == 0 and (places[[0, 2, 3]] - 1 / 3).abs().max() < 0.01


@given(seeds, st.floats(0, 1))
def test_shares_count_whole_vectors_where_the_masks_hold(seed: int, ratio: float) -> None:
    g = seeded(seed)
    specific, generic = torch.rand(8, 16, generator=g) < 0.4, torch.rand(8, 16, generator=g) < 0.4
    specific[:, 3] = generic[:, 5] = True
    tail, donor = shares(specific, generic, torch.full((8,), ratio), torch.rand(8, 16, generator=g))
    assert not (tail * ~specific).any() and not (donor * ~generic).any()
    counts = torch.cat([tail, donor], dim=1) * 16
    assert torch.equal(counts, counts.round()) and (counts.sum(dim=1) == 16).all()
    assert (tail.sum(dim=1) * 16 == quota(float(torch.tensor(ratio)), 16)).all()


def test_shares_with_an_empty_side() -> None:
    full, empty = torch.ones(1, 16, dtype=torch.bool), torch.zeros(1, 16, dtype=torch.bool)
    half, uniform = torch.tensor([0.5]), torch.rand(1, 16, generator=seeded(0))
    tail, donor = shares(full, empty, half, uniform)
    assert tail.sum() == 1 and not donor.any()
    tail, donor = shares(empty, full, half, uniform)
    assert donor.sum() == 1 and not tail.any()


def test_the_mean_of_a_fusion_is_as_expected() -> None:
    """E[pooled | n_s] = n_s/L mean of F_c over its mask + (1 - n_s/L) mean of F_u over its mask, for `fuse` and
    `shares`.
    """
    maps, weight, labels = toy(3, n=2)
    cams = class_activation_map(maps, weight, labels)
    specific, generic = (m.flatten(1) for m in split(cams, 0.5, 0.5))
    tail, donor = maps.flatten(2)
    left, right = tail[:, specific[0]], donor[:, generic[1]]
    expected = 5 / 16 * left.mean(dim=1) + 11 / 16 * right.mean(dim=1)
    n, g = 20_000, seeded(0)
    one = torch.stack([fuse(left, right, 16, 0.3, g).mean(dim=1) for _ in range(4000)]).mean(dim=0)
    torch.testing.assert_close(one, expected, atol=8e-3, rtol=0)
    masks = specific[:1].expand(n, -1), generic[1:].expand(n, -1)
    from_tail, from_donor = shares(*masks, torch.full((n,), 0.3), torch.rand(n, 16, generator=g))
    both = pooled(maps[:1].expand(n, -1, -1, -1), from_tail) + pooled(maps[1:].expand(n, -1, -1, -1), from_donor)
    torch.testing.assert_close(both.mean(dim=0), expected, atol=4e-3, rtol=0)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_all_from_one_side_at_the_ends(ratio: float) -> None:
    maps, weight, labels = toy(5)
    tail, donors = maps[:2], 100 + maps[2:]
    numbers = torch.rand(2, 17, generator=seeded(0))
    fused = augmented(FSA(donors=1, ratio=ratio), weight, tail, labels[:2], donors, labels[2:], numbers)
    assert ((fused > 50) == (ratio == 0)).all()


def test_augmented_features_of_each_tail_image_in_turn() -> None:
    """Donors 3i, 3i+1 and 3i+2 belong to tail image i. Locations are picked by the map of its own class."""
    config = FSA(tail=2, donors=3, ratio=1.0)
    tail = torch.zeros(2, 2, 2, 2)
    tail[0, 0, 0, 0], tail[0, 1, 1, 1] = 4.0, 8.0  # class 0 is seen at one corner, class 1 at the other
    tail[1] = 2 * tail[0]
    own = torch.tensor([0, 0, 0, 1, 1, 1])
    donors, theirs = torch.full((6, 2, 2, 2), 77.0), torch.zeros(6, dtype=torch.long)
    fused = augmented(config, torch.eye(2), tail, own, donors, theirs, torch.rand(6, 5, generator=seeded(0)))
    assert fused.tolist() == [[4.0, 0.0]] * 3 + [[0.0, 16.0]] * 3


def test_each_threshold_cuts_its_own_side() -> None:
    """With maps of 0, .4, .6 and 1, only the tail image's greatest is above .8, and only the donors' least below .3."""
    tail = torch.tensor([[[[0.0, 4.0], [6.0, 10.0]]]])
    donors = 100 + tail.expand(8, -1, -1, -1)
    config = FSA(tail=1, donors=8, ratio=0.5, tau_specific=0.8, tau_generic=0.3)
    labels = torch.zeros(8, dtype=torch.long)
    fused = augmented(config, torch.ones(1, 1), tail, labels, donors, labels, torch.rand(8, 5, generator=seeded(0)))
    assert fused.tolist() == [[(2 * 10 + 2 * 100) / 4]] * 8


def test_a_donor_s_map_takes_specific_vectors_where_it_is_not_generic() -> None:
    """By Sec. 5.4, it also takes them at other locations up to the ratio. The rest of the donor stays."""
    tail = torch.arange(8.0).view(1, 2, 2, 2)
    donors = 100 + torch.arange(16.0).view(2, 2, 2, 2)
    specific = torch.tensor([[[False, False], [True, False]]])
    generic = torch.tensor([[[True, True], [True, False]], [[True, True], [True, True]]])
    vector = tail[0, :, 1, 0]
    for seed in range(5):
        numbers = torch.rand(2, 9, generator=seeded(seed))
        found = replaced(tail, specific, donors, generic, numbers, 0.25)
        assert torch.equal(found[0, :, 1, 1], vector), "the one location that is not generic"
        assert torch.equal(found[0].flatten(1)[:, :3], donors[0].flatten(1)[:, :3])
        more = replaced(tail, specific, donors, generic, numbers, 0.75)
        taken = (more == vector.view(2, 1, 1)).all(dim=1)
        assert taken.flatten(1).sum(dim=1).tolist() == [3, 3] and taken[0, 1, 1]
        assert torch.equal(more.transpose(1, 3)[~taken.transpose(1, 2)], donors.transpose(1, 3)[~taken.transpose(1, 2)])
        none = replaced(tail, torch.zeros_like(specific), donors, generic, numbers, 0.75)
        assert torch.equal(none, donors), "nothing specific to take"


def test_mixup_in_feature_space() -> None:
    config = FSA(tail=1, donors=2, fusion="mixup")
    tail, donors = torch.ones(1, 2, 2, 2), torch.stack([torch.full((2, 2, 2), v) for v in (3.0, 5.0)])
    numbers = torch.tensor([[0.25, 0, 0, 0, 0], [0.5, 0, 0, 0, 0]])
    labels = torch.zeros(2, dtype=torch.long)
    fused = augmented(config, torch.eye(2), tail, labels, donors, labels, numbers)
    assert fused.tolist() == [[2.5, 2.5], [3.0, 3.0]]


# Head and tail


@pytest.mark.parametrize(
    ("classes", "largest", "splits"),
    [
        (10, 5000, {10: (7, 1979), 20: (7, 1084), 50: (6, 860), 100: (5, 891), 200: (4, 1034)}),
        (100, 500, {10: (72, 1937), 20: (64, 1585), 50: (54, 1256), 100: (48, 1050), 200: (42, 941)}),
    ],
)
def test_the_splits_of_the_paper(classes: int, largest: int, splits: dict[int, tuple[int, int]]) -> None:
    for imbalance, (head, tail_images) in splits.items():
        counts = longtail_counts(classes, largest, imbalance)
        assert head_classes(counts) == head
        assert counts[head_and_tail(counts)[1]].sum() == tail_images


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=40), st.floats(0.01, 1))
def test_the_head_is_the_smallest_that_reaches_its_share(counts: list[int], share: float) -> None:
    h, ordered = head_classes(counts, share), sorted(counts, reverse=True)
    assert sum(ordered[:h]) / sum(counts) >= share
    assert h == 1 or sum(ordered[: h - 1]) / sum(counts) < share
    head, tail = head_and_tail(counts, share)
    assert sorted([*head, *tail]) == list(range(len(counts))) and len(head) == h
    assert not len(tail) or min(np.array(counts)[head]) >= max(np.array(counts)[tail])


def test_an_exact_share_is_reached() -> None:
    assert head_classes([7, 2, 1], 0.9) == 2 and head_classes([7, 2, 1], 0.7) == 1 and head_classes([3, 3], 1.0) == 2
    for share in (0.0, 1.01):
        with pytest.raises(ValueError, match="share"):
            head_classes([3, 2], share)
    with pytest.raises(ValueError, match="at least one image"):
        head_classes([3, 0])
