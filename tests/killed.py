"""Makes runs that are killed, and reads what they leave behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.command import launcher
from common.command.launcher import Job
from common.runs import Run
from common.store import CLOCK, read_state


class Killed(BaseException):
    """Stands for a kill: nothing in the program catches it."""


def job(out: Path) -> Job:
    return Job(out, None, "cpu", jobs=1, threads=1)


def kill_after(count: int) -> Callable[[int], None]:
    """Return a progress callback that kills at the count-th epoch, which is logged but whose state is not saved."""
    left = iter(range(count - 1))

    def progress(images: int) -> None:
        if next(left, None) is None:
            raise Killed

    return progress


def stopped(run: Run, out: Path, count: int = 5) -> Path:
    """Return the folder of a run killed at an epoch.

    At the fifth epoch of `LUCIR`, both checkpoints have a previous one.
    """
    with pytest.raises(Killed):
        launcher.train(run, job(out), kill_after(count))
    return out / "runs" / run.hash


def log(out: Path, run: Run) -> list[dict[str, Any]]:
    """Return the lines of a run's log, one for each epoch. A run that trains nothing has none."""
    path = out / "runs" / run.hash / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def outcome(out: Path, run: Run) -> dict[str, Any]:
    """Return everything that a finished run leaves and that does not depend on the clock."""
    folder = out / "runs" / run.hash
    state = read_state(folder / "checkpoint.safetensors")
    assert state is not None and not (folder / "epoch.safetensors").exists()
    with np.load(folder / "arrays.npz") as arrays:
        found = {f"arrays/{name}": arrays[name].tobytes() for name in arrays.files}
    return {
        "result": (folder / "result.json").read_text(),
        "metrics": [{k: v for k, v in line.items() if k not in CLOCK} for line in log(out, run)],
        **found,
        **{f"tensors/{name}": tensor.numpy().tobytes() for name, tensor in state.tensors.items()},
        "meta": state.meta,
    }


def assert_same(ours: dict[str, Any], expected: dict[str, Any], where: str) -> None:
    assert ours.keys() == expected.keys()
    differing = [name for name in expected if ours[name] != expected[name]]
    assert not differing, f"{where}: {differing}"
