"""Defines a run that a test holds back, also in a job of Slurm, which finds this file by PYTHONPATH.

SIGSTOP would not hold it: Slurm sends SIGCONT to a job right before it warns the job of its end.
"""

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
    """Base, but every epoch takes a second longer until the file that LET_GO names exists."""

    learner: ClassVar[str] = "held:HeldLearner"


class HeldLearner(BaseLearner):
    """Waits after every epoch. This changes no result."""

    def trace(self, phase: Phase) -> dict[str, float]:
        end = time.monotonic() + 1
        while not Path(os.environ["LET_GO"]).exists() and time.monotonic() < end:
            time.sleep(0.02)
        return super().trace(phase)
