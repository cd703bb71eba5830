"""What it means that a run is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from common import incremental
from common.command import plan
from common.data.datasets import Dataset
from common.errors import InputError
from common.runs import Run
from common.store import Store
from common.training import Device


def refused(run: Run, data: Dataset, out: Path, message: str) -> None:
    """Assert that both ways to a training refuse the run, and that no epoch has begun."""
    with pytest.raises(InputError, match=message):
        plan.check(run, data)
    learner = incremental.learner_of(run.method)
    with pytest.raises(InputError, match=message), Store(out).open(run) as workspace:
        incremental.run(run, data, learner, workspace, Device("cpu", "fp32"))
    assert not list(out.glob("runs/*/metrics.jsonl"))
