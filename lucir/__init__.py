"""Learning a Unified Classifier Incrementally via Rebalancing (Hou, Pan, Loy, Wang, Lin; CVPR 2019).

The package also holds the paper's baselines, iCaRL and joint training. README.md maps equations to functions and lists
every deviation.
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
    from lucir.losses import adaptive_weight, distillation, less_forget, margin_ranking
    from lucir.methods import LUCIR, Base, ICaRL
    from lucir.model import imprint

__all__ = ["LUCIR", "Base", "ICaRL", "adaptive_weight", "distillation", "imprint", "less_forget", "margin_ranking"]
__getattr__, __dir__ = lazily(
    __name__,
    methods=("Base", "ICaRL", "LUCIR"),
    losses=("adaptive_weight", "distillation", "less_forget", "margin_ranking"),
    model=("imprint",),
)
