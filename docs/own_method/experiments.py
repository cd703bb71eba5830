"""The runs to compare: LUCIR's presets and runs as they are, and the method's from the same base models. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from common.runs import Run
from lucir.presets import Setting, settings
from own_method.methods import BalancedReplay

__all__ = ["compared", "settings"]


def compared(s: Setting) -> Mapping[str, list[Run]]:
    """Base and 5 phases, as in LUCIR's Fig. 5(c)."""
    icarl = s.runs(s.icarl(), 5)
    own = [replace(run, paper="own_method", method=BalancedReplay()) for run in icarl]
    return {"iCaRL": icarl, "Ours": s.runs(s.lucir(), 5), "Balanced replay": own}
