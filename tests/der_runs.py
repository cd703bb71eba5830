"""Holds what DER's test files share: the parts of a tiny run, and a way to watch a run from inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import incremental
from common.data.datasets import Dataset
from common.incremental import Phase, learner_of
from common.runs import Protocol, Run, Schedule
from common.store import Store
from common.training import Device, Stage
from der.methods import DER

CPU = Device("cpu", "fp32")
MakeRun = Callable[..., Run]
FINETUNE = Schedule(3, lr=0.1, milestones=(2,), batch=16, weight_decay=5e-4)
PLAIN, MASKED = DER(finetune=FINETUNE), DER(finetune=FINETUNE, sparsity=0.5, mask_rate=20.0)
SCHEDULE = Schedule(4, lr=0.05, milestones=(3,), batch=16, weight_decay=5e-4, warmup=1)
B0 = Protocol(8, 2, 2, None, 12, rounding="down")
X = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def train(run: Run, dataset: Dataset, out: Path, watch: Callable[[Any, Phase, str], Any] = lambda *a: None) -> Any:
    """Train a run. Returns its learner. watch(learner, phase, when) is called before and after each stage."""
    learners: list[Any] = []

    class Watched(learner_of(run.method)):  # type: ignore[misc]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            learners.append(self)

        def stages(self, phase: Phase) -> Iterator[Stage]:
            for stage in super().stages(phase):
                watch(self, phase, f"before {stage.name}")
                yield stage
                watch(self, phase, f"after {stage.name}")

    with Store(out).open(run) as workspace:
        result = incremental.run(run, dataset, Watched, workspace, CPU)
    learners[0].result = result
    return learners[0]


def states(net: Any) -> list[dict[str, Tensor]]:
    return [{k: v.clone() for k, v in f.state_dict().items()} for f in net.extractors]


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
