"""Tests that processes started by torchrun train every method as one process does, and go on after a kill."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from group import trained
from killed import assert_same, job, kill_after, outcome
from methods import EVERY, Get
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from common import distributed, store
from common.command import launcher
from common.runs import Run
from common.store import Result, Store, read_state

pytestmark = pytest.mark.ranks
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["of images"])
def still(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace batch statistics in BatchNorm by the statistics of each image, since the former differ between processes.

    With "as they begin", BatchNorm uses its initial running statistics. This is for runs in which statistics of single
    images make the last bits of sums grow beyond 1e-6 within a few epochs.
    """

    def of_images(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
        return F.group_norm(x, 1, norm.weight, norm.bias, norm.eps)

    def as_they_begin(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)

    monkeypatch.setattr(nn.BatchNorm2d, "forward", of_images if request.param == "of images" else as_they_begin)


STATISTICS = {"BBN": "as they begin", "probe": "as they begin"}


def result(out: Path, run: Run) -> Result:
    found = Store(out).load(run.hash)
    assert found
    return found


def states(run: Run, *folders: Path) -> list[dict[str, Tensor]]:
    """Return the tensors that a finished run leaves in each folder."""
    found = [read_state(out / "runs" / run.hash / "checkpoint.safetensors") for out in folders]
    assert all(found)
    return [state.tensors for state in found if state]


def assert_near(ours: Tensor, expected: Tensor, name: str, within: float = 1e-6) -> None:
    """Compare up to `within` times the largest value, or up to the last bit of half precision."""
    ours, expected, exact = ours.nan_to_num(), expected.nan_to_num(), expected.dtype == torch.half
    largest = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(
        ours, expected, rtol=0, atol=largest * (2**-10 if exact else within), msg=lambda m: f"{name}: {m}"
    )


@pytest.mark.parametrize(
    ("name", "still"), [(name, STATISTICS.get(name, "of images")) for name in EVERY], indirect=["still"]
)
def test_two_processes_end_with_the_weights_of_one(name: str, get: Get, still: None, tmp_path: Path) -> None:
    """Weights, losses and exemplars of every phase are compared. They would differ if the gradient of one step did."""
    run, alone, both = EVERY[name](get), tmp_path / "alone", tmp_path / "both"
    assert trained(2, run, both) == [0, 0]
    for link in run.chain:
        assert launcher.train(link, job(alone)) == ""
        assert [result(out, link).environment["ranks"] for out in (alone, both)] == [1, 2]
        losses = [result(out, link).values["trace"].get("loss", []) for out in (both, alone)]
        torch.testing.assert_close(*losses, rtol=1e-6, atol=2e-6)  # they are rounded to 6 digits
        one, two = states(link, alone, both)
        assert one.keys() == two.keys()
        for key, expected in one.items():
            if key.startswith("memory/") and len(expected) == 2:  # two are equally near to their mean: a tie
                two[key], expected = two[key].sort().values, expected.sort().values
            assert_near(two[key], expected, f"{name}: {key}")


@pytest.mark.parametrize("name", ["LUCIR", "DER"])
def test_synchronised_statistics_are_those_of_one_process(
    name: str, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes cannot halve these batches. torch's own kernel needs a GPU, so the formula stands in for it."""

    def forward(norm: nn.SyncBatchNorm, x: Tensor) -> Tensor:
        if not norm.training:
            return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
        sums = torch.stack([torch.ones_like(x).sum((0, 2, 3)), x.sum((0, 2, 3)), x.square().sum((0, 2, 3))])
        count, total, squares = all_reduce(sums) if distributed.ranks() > 1 else sums
        mean = total / count
        variance = squares / count - mean.square()
        assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
        norm.num_batches_tracked += 1
        momentum = norm.momentum or 1 / int(norm.num_batches_tracked)
        norm.running_mean.lerp_(mean.detach(), momentum)
        norm.running_var.lerp_((variance * count / (count - 1)).detach(), momentum)
        scaled = (x - mean[:, None, None]) * (variance + norm.eps).rsqrt()[:, None, None]
        return scaled * norm.weight[:, None, None] + norm.bias[:, None, None]

    monkeypatch.setattr(nn.SyncBatchNorm, "forward", forward)
    run = EVERY[name](get)
    run = replace(run, sync_batchnorm=True, schedule=replace(run.schedule, batch=11))
    for link in run.chain:
        assert launcher.train(link, job(tmp_path / "alone")) == ""
    assert trained(2, run, tmp_path / "both") == [0, 0]
    one, two = states(run, tmp_path / "alone", tmp_path / "both")
    for key in (key for key in one if key.startswith("net/")):
        assert_near(two[key], one[key], key, within=5e-3)


def test_five_processes_share_batches_that_are_smaller_or_uneven(get: Get, still: None, tmp_path: Path) -> None:
    """Five does not divide batches of 16 or the smaller last batch. There are exemplars of fewer than five classes."""
    run, alone, five = EVERY["LUCIR"](get), tmp_path / "alone", tmp_path / "five"
    assert trained(5, run, five) == [0] * 5
    assert launcher.train(run, job(alone)) == ""
    one, many = states(run, alone, five)
    for key, expected in one.items():
        assert_near(many[key], expected, key)


@pytest.mark.parametrize("name", ["LUCIR", "DER", "BBN", "feature adaptation"])
def test_a_run_that_is_killed_ends_with_the_same_bits(
    name: str, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BatchNorm is as usual: each process has running statistics of its own, which must not matter."""
    run, whole, out = EVERY[name](get), tmp_path / "whole", tmp_path / "killed"
    monkeypatch.setattr(store, "SAVE_EVERY", 0)
    assert trained(2, run, whole) == [0, 0]
    codes = trained(2, run, out, kill_after(2))
    assert codes != [0, 0] and not (out / "runs" / run.hash / "result.json").exists()
    assert trained(2, run, out) == [0, 0]
    assert_same(outcome(out, run), outcome(whole, run), name)


def test_another_number_of_processes_is_refused(
    get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = EVERY["LUCIR"](get)
    monkeypatch.setattr(store, "SAVE_EVERY", 0)
    trained(2, run, tmp_path, kill_after(3))
    before = (tmp_path / "runs" / run.hash / "metrics.jsonl").read_text()
    assert "2 processes have trained this run" in launcher.train(run, job(tmp_path))
    assert trained(3, run, tmp_path)[0] == 1
    assert "go on with torchrun --nproc-per-node 2" in capfd.readouterr().out
    assert (tmp_path / "runs" / run.hash / "metrics.jsonl").read_text() == before
    assert trained(2, run, tmp_path) == [0, 0]


def torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", *words]
    own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=own)


def test_the_command(tmp_path: Path) -> None:
    """With `torchrun -m PAPER.train`, only one process prints. A finished run is read and not trained again."""
    words = ["--epochs-scale", "0.01", "--device", "cpu", "--precision", "fp32", "--out", str(tmp_path)]
    done = torchrun("class_balanced.train", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("read-out") == 1 and "2 processes" in done.stdout
    again = torchrun("class_balanced.train", *words)
    assert again.returncode == 0 and again.stdout.count("read-out") == 1
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 1


def test_other_commands_and_wrong_words_are_refused(tmp_path: Path) -> None:
    refused = torchrun("lucir.reproduce", "--out", str(tmp_path))
    assert refused.returncode and "torchrun is for" in refused.stderr
    assert not list(tmp_path.glob("runs/*/*"))
    wrong = torchrun("lucir.train", "--preset", "nothing", "--out", str(tmp_path))
    assert wrong.returncode and wrong.stderr.count("unknown preset") == 1
    unshared = torchrun("lucir.train", "--sync-batchnorm", "--device", "cpu", "--out", str(tmp_path))
    assert unshared.returncode and unshared.stderr.count("torch synchronises no BatchNorm on CPUs") == 1
    assert not list(tmp_path.glob("runs/*/*"))
