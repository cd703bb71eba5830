"""Two processes on a CPU train every method as one does on the same batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from group import trained
from killed import job
from methods import EVERY, Get
from torch import Tensor, nn

from common.command import launcher
from common.store import Store, read_state


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """BatchNorm by its running statistics, which stay as they begin: the one part of a step that sees a process."""

    def forward(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)

    monkeypatch.setattr(nn.BatchNorm2d, "forward", forward)


@pytest.mark.parametrize("name", EVERY)
def test_two_processes_end_with_the_weights_of_one(name: str, get: Get, still: None, tmp_path: Path) -> None:
    run, alone, both = EVERY[name](get), tmp_path / "alone", tmp_path / "both"
    assert trained(2, run, both) == [0, 0]
    for link in run.chain:
        assert launcher.train(link, job(alone)) == ""
    one, two = (Store(out).load(run.hash) for out in (alone, both))
    assert one and two and two.environment["ranks"] == 2 and one.environment["ranks"] == 1
    losses = [result.values["trace"].get("loss", []) for result in (two, one)]
    torch.testing.assert_close(*losses, rtol=1e-6, atol=2e-6)  # they are rounded to 6 digits
    states = [read_state(out / "runs" / run.hash / "checkpoint.safetensors") for out in (both, alone)]
    assert states[0] and states[1]
    torch.testing.assert_close(states[0].tensors, states[1].tensors, rtol=1e-6, atol=1e-6, equal_nan=True)
