"""Memory-Efficient Incremental Learning Through Feature Adaptation (Iscen, Zhang, Lazebnik, Schmid; ECCV 2020).

Old classes are kept as features. After every task, a small network moves these into the new feature space. README.md
maps equations to functions and lists every assumption.
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
