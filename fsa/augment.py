"""Fusion (Algorithm 1): makes augmented samples out of class-specific vectors of a tail image and class-generic vectors
of a donor image.

`fuse` makes one sample, vector by vector. Training needs only the mean of a sample's vectors, for which `shares` says
how often each location was sampled. Its shapes do not depend on the masks, so that the device never waits
for the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fsa.cam import class_activation_map, split
from fsa.methods import FSA


def quota(ratio: float, length: int) -> int:
    """Return how many of `length` vectors are class-specific: round(ratio * length).

    For 0 < ratio < 1 there is at least one vector of each kind. Raises ValueError on a ratio outside [0, 1], or a
    length that has no room for both kinds.
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"the share of class-specific vectors must lie in [0, 1], got {ratio:g}")
    mixed = 0 < ratio < 1
    if length < 1 + mixed:
        raise ValueError(f"a fused sample of length {length} has no room for a ratio of {ratio:g}")
    count = round(ratio * length)
    return min(max(count, 1), length - 1) if mixed else count


def fuse(specific: Tensor, generic: Tensor, length: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Sample `length` vectors with replacement, `quota` of them from `specific` and the rest from `generic`.

    specific [c, m]: the tail image's vectors at class-specific locations. generic [c, q]: the donor's vectors at
    class-generic locations. If one is empty, all vectors come from the other. Returns [c, length]. Raises ValueError if
    both are empty, and the ValueErrors of `quota`.
    """
    count = quota(ratio, length)
    m, q = specific.shape[1], generic.shape[1]
    if not m and not q:
        raise ValueError("neither a class-specific nor a class-generic vector to draw from")
    count = 0 if not m else length if not q else count
    drawn = [
        torch.randint(size, (n,), generator=generator, device=generator.device).to(side.device)
        for side, size, n in ((specific, m, count), (generic, q, length - count))
        if n
    ]
    sides = [side for side, n in ((specific, count), (generic, length - count)) if n]
    return torch.cat([side[:, places] for side, places in zip(sides, drawn, strict=True)], dim=1)


def pick(mask: Tensor, uniform: Tensor) -> Tensor:
    """Turn uniform numbers [n, k] in [0, 1) into locations at which `mask` [n, l] is true; int64 [n, k].

    All allowed locations are equally likely, with replacement. A row without an allowed location gives location 0.
    """
    allowed_first = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
    count = mask.sum(dim=1, keepdim=True)
    places = torch.minimum((uniform * count).long(), (count - 1).clamp(min=0))
    return allowed_first.gather(1, places)


def quotas(ratio: Tensor, specific: Tensor, generic: Tensor) -> Tensor:
    """Return the `quota` of each sample, int64 [n], from ratios [n] and masks [n, l].

    If one mask of a sample is empty, all its vectors come from the other side.
    """
    length = specific.shape[1]
    count = (ratio * length).round()
    count = torch.where((ratio > 0) & (ratio < 1), count.clamp(1, length - 1), count)
    count = torch.where(specific.any(dim=1), count, 0.0)
    return torch.where(generic.any(dim=1), count, float(length)).long()


def shares(specific: Tensor, generic: Tensor, ratio: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Sample l vectors for each sample. Return each location's share of them, for the tail image and for the donor.

    Masks, uniform numbers and both results are [n, l]; ratio is [n]. All shares of a sample sum to 1. Times l they are
    whole numbers: how often each location was sampled.
    """
    length = specific.shape[1]
    own = torch.arange(length, device=specific.device) < quotas(ratio, specific, generic).unsqueeze(1)
    empty = torch.zeros(own.shape, device=own.device)
    from_tail = empty.scatter_add(1, pick(specific, uniform), own.float() / length)
    from_donor = empty.scatter_add(1, pick(generic, uniform), (~own).float() / length)
    return from_tail, from_donor


def pooled(feature_map: Tensor, share: Tensor) -> Tensor:
    """Sum a map [n, c, h, w] over its locations, weighted by shares [n, h * w]: fp32 [n, c]."""
    return torch.bmm(feature_map.flatten(2).float(), share.unsqueeze(2)).squeeze(2)


def augmented(
    config: FSA, weight: Tensor, tail: Tensor, own: Tensor, donors: Tensor, theirs: Tensor, numbers: Tensor
) -> Tensor:
    """Return pooled features of augmented samples (Algorithm 1), one for each donor: fp32 [t * d, c].

    d is `config.donors`. weight [k, c]: the classifier's. tail [t, c, h, w]: maps of tail images. own [t * d]: their
    labels, each repeated d times. donors [t * d, c, h, w]: maps of donors. theirs [t * d]: labels of the donors.
    numbers [t * d, 1 + h * w]: uniform in [0, 1), first for the ratio, then for the locations.
    """
    ratio = numbers[:, 0] if config.ratio is None else torch.full_like(numbers[:, 0], config.ratio)
    if config.fusion == "mixup":
        first = tail.mean(dim=(2, 3)).repeat_interleave(config.donors, dim=0)
        return ratio.unsqueeze(1) * first + (1 - ratio.unsqueeze(1)) * donors.mean(dim=(2, 3))
    cams = class_activation_map(tail, weight, own[:: config.donors], config.scaling)
    specific = split(cams, config.tau_specific, None)[0].flatten(1).repeat_interleave(config.donors, dim=0)
    others = class_activation_map(donors, weight, theirs, config.scaling)
    generic = split(others, None, config.tau_generic)[1].flatten(1)
    from_tail, from_donor = shares(specific, generic, ratio, numbers[:, 1:])
    drawn = torch.einsum("tcl,tdl->tdc", tail.flatten(2), from_tail.view(len(tail), config.donors, -1))
    return drawn.flatten(0, 1) + pooled(donors, from_donor)


def replaced(
    tail: Tensor, specific: Tensor, donors: Tensor, generic: Tensor, numbers: Tensor, ratio: float | None
) -> Tensor:
    """Replace vectors in donors' maps [t * d, c, h, w] by class-specific vectors of their tail images [t, c, h, w].

    All locations that are not class-generic are replaced, even if they exceed the ratio. If they fall short of it,
    others are replaced at random. The donor's layout stays (Sec. 5.4). A tail image without class-specific locations
    leaves its donors unchanged.
    specific [t, h, w]: mask of the tail images. generic [t * d, h, w]: mask of the donors. numbers [t * d, 1 + 2 h w]:
    uniform in [0, 1), for the ratio if `ratio` is None, for an order of the locations, and for the vectors to take.
    """
    (n, channels), each = donors.shape[:2], len(donors) // len(tail)
    share, keys, drawn = numbers.split([1, generic[0].numel(), generic[0].numel()], dim=1)
    share = share[:, 0] if ratio is None else torch.full_like(share[:, 0], ratio)
    own, theirs = specific.flatten(1).repeat_interleave(each, dim=0), generic.flatten(1)
    count = torch.maximum(quotas(share, own, theirs), (~theirs).sum(dim=1)) * own.any(dim=1)
    rank = torch.where(theirs, keys + 1, keys).argsort(dim=1).argsort(dim=1)
    places = pick(own, drawn).unsqueeze(1).expand(n, channels, -1)
    vectors = tail.flatten(2).repeat_interleave(each, dim=0).gather(2, places)
    return torch.where((rank < count.unsqueeze(1)).unsqueeze(1), vectors, donors.flatten(2)).view(donors.shape)
