"""Memory-Efficient Incremental Learning Through Feature Adaptation (Iscen, Zhang, Lazebnik, Schmid; ECCV 2020).

Old classes are kept as features, which a small network moves into each new feature space. README.md maps equations to
functions and lists every assumption.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

try:
    from common.command.roots import lazily
except ImportError:  # none of our code in `common` can be reached to say so
    found = sys.modules.get("common", "none")
    print(f"error: {__name__} needs its own `common`, not {found}; rename that, or start elsewhere", file=sys.stderr)
    sys.exit(2)

if TYPE_CHECKING:
    from feature_adaptation.adapter import FeatureAdapter
    from feature_adaptation.memory import megabytes
    from feature_adaptation.methods import Adaptation, Extractor, Oracle
    from feature_adaptation.metrics import adaptation_quality
    from feature_adaptation.sdc import compensate

__all__ = ["Adaptation", "Extractor", "FeatureAdapter", "Oracle", "adaptation_quality", "compensate", "megabytes"]
__getattr__, __dir__ = lazily(
    __name__,
    methods=("Adaptation", "Extractor", "Oracle"),
    adapter=("FeatureAdapter",),
    memory=("megabytes",),
    metrics=("adaptation_quality",),
    sdc=("compensate",),
)
