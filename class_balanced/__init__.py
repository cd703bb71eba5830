"""Class-Balanced Loss Based on Effective Number of Samples (Cui, Jia, Lin, Song, Belongie; CVPR 2019).

README.md maps equations to functions and lists every deviation.
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
    from class_balanced.losses import class_balanced_loss, class_weights, effective_number
    from class_balanced.methods import ClassBalanced

__all__ = ["ClassBalanced", "class_balanced_loss", "class_weights", "effective_number"]
__getattr__, __dir__ = lazily(
    __name__,
    methods=("ClassBalanced",),
    losses=("class_balanced_loss", "class_weights", "effective_number"),
)
