"""A run that a test holds still, also in a job of Slurm, which imports this file by PYTHONPATH."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from common.incremental import Phase
from lucir.learner import BaseLearner
from lucir.methods import Base


@dataclass(frozen=True)
class Held(Base):
    """As Base; but until the file is there that LET_GO names, each epoch takes a second longer."""

    learner: ClassVar[str] = "held:HeldLearner"


class HeldLearner(BaseLearner):
    """Waits where it changes nothing."""

    def trace(self, phase: Phase) -> dict[str, float]:
        end = time.monotonic() + 1
        while not Path(os.environ["LET_GO"]).exists() and time.monotonic() < end:
            time.sleep(0.02)
        return super().trace(phase)
