"""DER: Dynamically Expandable Representation for Class Incremental Learning (Yan, Xie, He; CVPR 2021).

The package has the masks and the pruning, and the baselines WA, BiC and joint training. README.md maps equations to
functions and lists every deviation. This is not Dark Experience Replay, which shares the abbreviation.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

try:
    from common.command.roots import lazily
except ImportError:  # Python found another `common`, so the error messages in this repository's are out of reach
    found = sys.modules.get("common", "none")
    print(f"error: {__name__} needs its own `common`, not {found}; rename that, or start elsewhere", file=sys.stderr)
    sys.exit(2)

if TYPE_CHECKING:
    from der.losses import auxiliary_targets, sparsity
    from der.masks import mask, scale
    from der.methods import DER, WA, BiC
    from der.model import masked_resnet18, masked_resnet32
    from der.prune import count_parameters
    from der.schedule import learning_rates

__all__ = [
    "DER",
    "WA",
    "BiC",
    "auxiliary_targets",
    "count_parameters",
    "learning_rates",
    "mask",
    "masked_resnet18",
    "masked_resnet32",
    "scale",
    "sparsity",
]
__getattr__, __dir__ = lazily(
    __name__,
    methods=("DER", "WA", "BiC"),
    losses=("auxiliary_targets", "sparsity"),
    masks=("mask", "scale"),
    model=("masked_resnet18", "masked_resnet32"),
    prune=("count_parameters",),
    schedule=("learning_rates",),
)
