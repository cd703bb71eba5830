"""Processes that torchrun starts train every method as one process does on the same batches, and go on where killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from group import trained
from killed import assert_same, job, kill_after, outcome
from methods import EVERY, Get
from torch import Tensor, nn

from common import store
from common.command import launcher
from common.runs import Run
from common.store import Result, Store, read_state

pytestmark = pytest.mark.ranks
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["of images"])
def still(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """BatchNorm by the statistics of each image alone; those of a batch are what differs between processes.

    Or "as they begin", where those of images make the last bits of a sum grow beyond 1e-6 within a few epochs.
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
    """What a finished run leaves in each folder."""
    found = [read_state(out / "runs" / run.hash / "checkpoint.safetensors") for out in folders]
    assert all(found)
    return [state.tensors for state in found if state]


def assert_near(ours: Tensor, expected: Tensor, name: str) -> None:
    """To 1e-6 of the largest value, or to the last bit of half precision."""
    ours, expected, exact = ours.nan_to_num(), expected.nan_to_num(), expected.dtype == torch.half
    largest = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(
        ours, expected, rtol=0, atol=largest * (2**-10 if exact else 1e-6), msg=lambda m: f"{name}: {m}"
    )


@pytest.mark.parametrize(
    ("name", "still"), [(name, STATISTICS.get(name, "of images")) for name in EVERY], indirect=["still"]
)
def test_two_processes_end_with_the_weights_of_one(name: str, get: Get, still: None, tmp_path: Path) -> None:
    """Weights, momentum's work and exemplars of every phase: none would agree if one step's gradient did not."""
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
            assert_near(two[key], expected, f"{name}: {key}")


def test_five_processes_share_batches_that_are_smaller_or_uneven(get: Get, still: None, tmp_path: Path) -> None:
    """Batches of 16 and of what is left over, exemplars of fewer classes than there are processes."""
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
    """With BatchNorm as it is: each process has statistics of its own, and its running ones must not matter."""
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
    """`torchrun -m PAPER.train`: one process speaks and writes; the finished run is read, by one process too."""
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
