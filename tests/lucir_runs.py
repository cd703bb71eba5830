"""Holds what LUCIR's test files share: its variants, and a way to watch a run from inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import incremental
from common.data.datasets import Dataset
from common.incremental import Phase, learner_of
from common.runs import Run, Schedule
from common.store import Store
from common.training import Device, Stage
from lucir.methods import LUCIR, ICaRL, Method

CPU = Device("cpu", "fp32")
FINETUNE = Schedule(2, lr=0.05, milestones=(1,), batch=8, weight_decay=0.02)
MakeRun = Callable[..., Run]


def snapshot(learner: Any) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in learner.net.state_dict().items()}


def train(run: Run, dataset: Dataset, out: Path, watch: Callable[[Any, Phase, Stage], Any] = lambda *a: None) -> Any:
    """Train a run. Returns its learner with the states before and after each (phase, stage), and the memory.

    watch(learner, phase, stage) is called before each stage. If it returns a function, that is called after the stage.
    """

    class Watched(learner_of(run.method)):  # type: ignore[misc]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.before: dict[tuple[int, str], dict[str, Tensor]] = {}
            self.after: dict[tuple[int, str], dict[str, Tensor]] = {}
            self.kept: list[dict[int, list[int]]] = []
            learners.append(self)

        def stages(self, phase: Phase) -> Iterator[Stage]:
            for stage in super().stages(phase):
                self.before[phase.index, stage.name] = snapshot(self)
                end = watch(self, phase, stage)
                yield stage
                self.after[phase.index, stage.name] = snapshot(self)
                if end:
                    end()
            self.kept.append({label: kept.tolist() for label, kept in self.context.memory.indices.items()})

    learners: list[Any] = []
    with Store(out).open(run) as workspace:
        learners_result = incremental.run(run, dataset, Watched, workspace, CPU)
    learners[0].result = learners_result
    return learners[0]


def unchanged(a: dict[str, Tensor], b: dict[str, Tensor]) -> set[str]:
    return {k for k in a if torch.equal(a[k], b[k])}


METHODS: dict[str, Method] = {
    "icarl": ICaRL(finetune=FINETUNE),
    "lucir": LUCIR(finetune=FINETUNE),
    "paper": LUCIR(finetune=FINETUNE, direction="paper", margin_reduction="sum_k"),
    "cn": LUCIR(old="cosine", margin=None, finetune=None),
    "flag 3": LUCIR(finetune=FINETUNE, finetune_flag=3),
}
