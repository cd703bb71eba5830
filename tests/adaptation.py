"""Small runs of feature adaptation that its test files share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from common import incremental
from common.command.launcher import Job, train
from common.data.datasets import Dataset
from common.incremental import Phase, learner_of
from common.runs import Protocol, Run
from common.store import Result, Store
from common.training import Device, seeded
from feature_adaptation.methods import Adaptation, Extractor, Recipe

MakeRun = Callable[..., Run]
CPU = Device("cpu", "fp32")
SHORT = {"adapter": Recipe(40, 1e-3, "adam", batch=8), "classifier": Recipe(60, 0.05, "sgd", batch=8)}
PROTOCOL = Protocol(8, 4, 2, exemplars_per_class=0)
KEEPS = Extractor(features=0.1, keep="truth")


def stage1_runs(tiny_run: MakeRun) -> MakeRun:
    """(method, **changes) -> a Run of stage 1 over tasks of 4, 2 and 2 classes."""

    def make(method: Any = KEEPS, images: int = 0, **changes: Any) -> Run:
        protocol = replace(PROTOCOL, exemplars_per_class=images)
        return replace(tiny_run(method), paper="feature_adaptation", protocol=protocol, **changes)

    return make


def adapt(start: Run, method: Adaptation | None = None, **changes: Any) -> Run:
    return replace(start, method=replace(method or Adaptation(), **{**SHORT, **changes}), start=start)


def finish(run: Run, out: Path) -> Result:
    """Train a run and the runs that it starts from."""
    job = Job(out, None, "cpu", 1, 1)
    for link in run.chain:
        assert Store(out).load(link.hash) or train(link, job) == ""
    result = Store(out).load(run.hash)
    assert result
    return result


def kept(out: Path, run: Run, phase: int, kind: str = "phase") -> dict[str, Tensor]:
    return load_file(out / "runs" / run.hash / f"{kind}-{phase}.safetensors")


def weights(out: Path, run: Run) -> dict[str, Tensor]:
    return load_file(out / "runs" / run.hash / "checkpoint.safetensors")


def watch(run: Run, data: Dataset, out: Path, seen: Callable[[Any, Phase], None]) -> None:
    """Train `run`, whose start is finished, calling seen(learner, phase) at the end of each phase."""

    class Watched(learner_of(run.method)):  # type: ignore[misc]
        def end_phase(self, phase: Phase) -> dict[str, Any]:
            found = super().end_phase(phase)
            seen(self, phase)
            return found

    with Store(out).open(run) as workspace:
        incremental.run(run, data, Watched, workspace, CPU)


def rng(*keys: object) -> torch.Generator:
    """Return a random generator of its own for each name."""
    return seeded(CPU.torch, *keys)
