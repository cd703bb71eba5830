"""BBN: Bilateral-Branch Network with Cumulative Learning for Long-Tailed Visual Recognition (Zhou et al., CVPR 2020).

README.md maps equations to functions and lists every deviation.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

try:
    from common.command.roots import lazily
except ImportError:  # another `common` hides ours, so no code of ours can report it
    found = sys.modules.get("common", "none")
    print(f"error: {__name__} needs its own `common`, not {found}; rename that, or start elsewhere", file=sys.stderr)
    sys.exit(2)

if TYPE_CHECKING:
    from bbn.adaptor import alpha
    from bbn.losses import bilateral_loss
    from bbn.methods import BBN, Ensemble, Mixup, Probe, UnitFeatures
    from bbn.model import BBNResNet32

__all__ = ["BBN", "BBNResNet32", "Ensemble", "Mixup", "Probe", "UnitFeatures", "alpha", "bilateral_loss"]
__getattr__, __dir__ = lazily(
    __name__,
    methods=("BBN", "Ensemble", "Mixup", "Probe", "UnitFeatures"),
    adaptor=("alpha",),
    losses=("bilateral_loss",),
    model=("BBNResNet32",),
)
