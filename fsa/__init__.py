"""Feature Space Augmentation for Long-Tailed Data (Chu, Bian, Liu, Ling; ECCV 2020).

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
    from fsa.augment import fuse
    from fsa.cam import class_activation_map, split
    from fsa.methods import FSA, EarlierBlock, Survey, Views
    from fsa.splits import head_classes

__all__ = ["FSA", "EarlierBlock", "Survey", "Views", "class_activation_map", "fuse", "head_classes", "split"]
__getattr__, __dir__ = lazily(
    __name__,
    methods=("FSA", "EarlierBlock", "Survey", "Views"),
    augment=("fuse",),
    cam=("class_activation_map", "split"),
    splits=("head_classes",),
)
