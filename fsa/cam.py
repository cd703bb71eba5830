"""Class activation maps, and the class-specific and class-generic parts they cut a feature map into (Sec. 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from fsa.methods import Scaling


def activation(feature_map: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Eq. 1: sum over channels of the class's weight times the map, [n, c, h, w] -> fp32 [n, h, w].

    Its mean over locations, plus the class's bias, is the class's logit.
    """
    return torch.einsum("nchw,nc->nhw", feature_map.float(), weight[labels].float())


def normalise(maps: Tensor, scaling: Scaling = "min-max") -> Tensor:
    """Every map [n, h, w] from its least to its greatest value onto [0, 1]; a constant map becomes zeros.

    relu-max: from zero to its greatest value, and zeros where that is not positive.
    """
    maps = maps if scaling == "min-max" else maps.relu()
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    low = low if scaling == "min-max" else torch.zeros_like(low)
    spread = high - low
    return (maps - low) / torch.where(spread > 0, spread, 1.0)


def class_activation_map(feature_map: Tensor, weight: Tensor, labels: Tensor, scaling: Scaling = "min-max") -> Tensor:
    """Where in its map each sample's class shows: Eq. 1, scaled to [0, 1] per sample. fp32 [n, h, w].

    feature_map [n, c, h, w] enters global average pooling, weight [k, c] is the classifier's, labels [n] the classes.
    Raises ValueError on maps of a single location, which have nothing to compare.
    """
    if feature_map.ndim != 4 or feature_map.shape[2] * feature_map.shape[3] < 2:
        raise ValueError(f"a map needs at least two locations, got {tuple(feature_map.shape)} for [n, c, h, w]")
    return normalise(activation(feature_map, weight, labels), scaling)


def split(cam: Tensor, tau_specific: float | None, tau_generic: float | None) -> tuple[Tensor, Tensor]:
    """Binary masks of class-specific (cam > tau_specific) and class-generic (cam < tau_generic) locations (Alg. 1).

    Either threshold may be None: every location counts. Raises ValueError on one outside [0, 1].
    """
    for tau in (tau_specific, tau_generic):
        if tau is not None and not 0 <= tau <= 1:
            raise ValueError(f"a threshold on maps in [0, 1] must lie in [0, 1], got {tau:g}")
    everywhere = torch.ones_like(cam, dtype=torch.bool)
    specific = everywhere if tau_specific is None else cam > tau_specific
    generic = everywhere if tau_generic is None else cam < tau_generic
    return specific, generic
