"""Class activation maps, which divide a feature map into class-specific and class-generic locations (Sec. 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from fsa.methods import Scaling


def activation(feature_map: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Return Eq. 1: the sum over channels of the class's weight times the map, [n, c, h, w] -> fp32 [n, h, w].

    The result's mean over locations, plus the class's bias, is the class's logit. A label that is no class is an error.
    """
    own = weight.index_select(0, labels.long())  # weight[labels] would take -1 for the last class, and bytes for a mask
    return torch.einsum("nchw,nc->nhw", feature_map.float(), own.float())


def normalise(maps: Tensor, scaling: Scaling = "min-max") -> Tensor:
    """Scale every map [n, h, w] to [0, 1].

    min-max: the least value becomes 0 and the greatest 1; a constant map becomes zeros. relu-max: negative values
    become 0 and the greatest value 1; a map without positive values becomes zeros.
    """
    maps = maps if scaling == "min-max" else maps.relu()
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    low = low if scaling == "min-max" else torch.zeros_like(low)
    spread = high - low
    return (maps - low) / torch.where(spread > 0, spread, 1.0)


def class_activation_map(feature_map: Tensor, weight: Tensor, labels: Tensor, scaling: Scaling = "min-max") -> Tensor:
    """Return how strongly each location of a map shows the image's class: Eq. 1, scaled to [0, 1]; fp32 [n, h, w].

    feature_map [n, c, h, w]: the input of global average pooling. weight [k, c]: the classifier's. labels [n]: the
    classes. Raises ValueError on maps of a single location, which has no other to be compared with.
    """
    if feature_map.ndim != 4 or feature_map.shape[2] * feature_map.shape[3] < 2:
        raise ValueError(f"a map needs at least two locations, got {tuple(feature_map.shape)} for [n, c, h, w]")
    return normalise(activation(feature_map, weight, labels), scaling)


def split(cam: Tensor, tau_specific: float | None, tau_generic: float | None) -> tuple[Tensor, Tensor]:
    """Return masks of class-specific (cam > tau_specific) and class-generic (cam < tau_generic) locations (Alg. 1).

    If a threshold is None, its mask holds every location. Raises ValueError on a threshold outside [0, 1].
    """
    for tau in (tau_specific, tau_generic):
        if tau is not None and not 0 <= tau <= 1:
            raise ValueError(f"a threshold on maps in [0, 1] must lie in [0, 1], got {tau:g}")
    everywhere = torch.ones_like(cam, dtype=torch.bool)
    specific = everywhere if tau_specific is None else cam > tau_specific
    generic = everywhere if tau_generic is None else cam < tau_generic
    return specific, generic
