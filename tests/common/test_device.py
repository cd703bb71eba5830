"""Tests runs of every package on a stand-in for a GPU, which fails if a tensor is on the wrong side or is read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from methods import CASES, Get, feature_adaptation
from stand_in import stand_in
from torch import Tensor

from common.command import launcher
from common.command.launcher import Job
from common.incremental import Learner
from common.runs import Run
from common.store import Store
from feature_adaptation.learner import AdaptationLearner


def trained_on(run: Run, out: Path) -> str:
    """Train `run` and its starts on the stand-in. Returns the device that the run's record names."""
    with stand_in():
        for link in run.chain:
            assert launcher.train(link, Job(out, None, "cuda", 1, 1)) == ""
    result = Store(out).load(run.hash)
    assert result
    return result.environment["device"]


@pytest.mark.parametrize("name", CASES)
def test_everything_is_on_the_device(name: str, get: Get, tmp_path: Path) -> None:
    cached = name == "feature adaptation"  # whose last stages train on the CPU
    assert (trained_on(CASES[name](get), tmp_path) == "stand-in") != cached


def test_features_of_large_images_stay_on_the_device(get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AdaptationLearner, "device_for", Learner.device_for)
    assert trained_on(feature_adaptation(get), tmp_path) == "stand-in"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda loss: loss * (loss.item() > 0), "capturing"),
        (lambda loss: loss + torch.zeros(3).sum(), "same device|capturing"),
        (lambda loss: loss + torch.tensor(0.0, device=loss.device), "capturing"),
    ],
    ids=["read back", "on the host", "from the host"],
)
def test_the_stand_in_refuses_what_cuda_does(
    wrong: Callable[[Tensor], Tensor], message: str, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lucir.learner import ICaRLLearner

    loss = ICaRLLearner.loss
    monkeypatch.setattr(ICaRLLearner, "loss", lambda self, x, y: wrong(loss(self, x, y)))
    with stand_in(), pytest.raises(AssertionError, match=message):
        problem = launcher.train(CASES["iCaRL"](get), Job(tmp_path, None, "cuda", 1, 1))
        assert problem == ""
