"""Tests problems in one line, images too small for a batch of one, and links that lead out of a folder."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import main
from killed import job

from common.command import launcher
from common.command.launcher import attempt
from common.command.plan import check
from common.data.datasets import Dataset, DataSpec, load
from common.errors import InputError, in_a_line
from common.runs import Protocol, Run, Schedule
from der.baselines import WALearner
from lucir.methods import ICaRL

MakeRun = Callable[..., Run]


class Broken(torch.utils.data.Dataset):
    """A set of images that cannot be read."""

    def __init__(self, problem: str) -> None:
        self.problem = problem

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        raise RuntimeError(self.problem)


FULL = "unable to write to file </torch_17_42_0>: No space left on device (28)"


@pytest.mark.parametrize(("problem", "hint"), [("a file is gone", False), (FULL, True)])
def test_an_error_of_a_loaders_worker_is_one_line(problem: str, hint: bool) -> None:
    with pytest.raises(RuntimeError) as caught:
        list(torch.utils.data.DataLoader(Broken(problem), num_workers=1))
    assert str(caught.value).count("\n") > 3  # torch's own, with the traceback
    line = in_a_line(caught.value)
    assert line.startswith(f"RuntimeError: {problem}") and "\n" not in line and ("/dev/shm" in line) is hint


def test_a_worker_that_dies_of_shared_memory_is_told_so(
    tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*rest: object) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that\nmore")

    monkeypatch.setattr("common.incremental.run", dies)
    problem = attempt(tiny_run(ICaRL()), job(tmp_path)).problem
    assert problem.startswith("RuntimeError: ") and "/dev/shm" in problem and "\n" not in problem


@pytest.mark.parametrize(("count", "refused"), [(5, True), (4, False)])
def test_images_that_are_one_value_a_channel_are_refused_where_a_batch_has_one(
    count: int, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training itself is the oracle.

    In batches of 7, 3 classes of 5 images leave one image over, and 3 of 4 leave five.
    """
    images = np.random.default_rng(0).integers(0, 256, (3 * count, 4, 4, 3)).astype(np.uint8)
    labels = np.repeat(np.arange(3), count)
    data = Dataset("mine", images, labels, images, labels, ("a", "b", "c"), "0123456789abcdef")
    monkeypatch.setattr(launcher, "_load", lambda *rest: data)
    schedule = Schedule(1, lr=0.01, batch=7)
    run = Run("lucir", ICaRL(), DataSpec("mine"), Protocol(3, 3, 0, 0), schedule, "resnet32", order="native")
    run = run.resolved(data.fingerprint, "fp32")
    problem = launcher.train(run, job(tmp_path))
    assert ("more than 1 value per channel" in problem) is refused, problem
    if refused:
        with pytest.raises(InputError, match=r"4 x 4 pixels .* resnet32, .* a phase has 15, .* batch of 7 has one"):
            check(run, data)
        check(replace(run, schedule=replace(schedule, drop_last=True)), data)
    else:
        check(run, data)


@pytest.mark.parametrize(("old", "new"), [(0.0, 1.0), (1.0, 0.0), (1.0, -1.0), (0.0, 0.0)])
def test_weights_that_no_factor_aligns_stay_finite(old: float, new: float) -> None:
    weight = torch.nn.Parameter(torch.tensor([[old, old], [new, new]]))
    net = SimpleNamespace(head=SimpleNamespace(weight=weight))
    WALearner.align(SimpleNamespace(net=net, phase=SimpleNamespace(num_old=1)))  # type: ignore[arg-type]
    assert torch.equal(weight, torch.tensor([[old, old], [new, new]]).clamp(min=0))


@pytest.mark.parametrize("kind", ["above", "absolute", "link", "hard link"])
def test_an_archive_writes_nothing_outside_its_folder(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such an archive cannot have the published md5, so the check is made to accept its md5."""
    archive = tmp_path / "cifar-100-python.tar.gz"
    (tmp_path / "victim").write_text("as it was")
    name = {"above": "../victim", "absolute": str(tmp_path / "victim")}.get(kind, "inside")
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo(name)
        if "link" in kind:
            member.type, member.linkname = tarfile.SYMTYPE if kind == "link" else tarfile.LNKTYPE, "../victim"
            tar.addfile(member)
            member = tarfile.TarInfo("inside")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    monkeypatch.setattr("torchvision.datasets.utils.check_integrity", lambda *rest: True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(InputError, match="no file of its folder"):
        load(DataSpec("cifar100"), tmp_path)
    assert (tmp_path / "victim").read_text() == "as it was"
    assert sorted(path.name for path in tmp_path.iterdir()) == [archive.name, "victim"]


def test_clean_removes_nothing_behind_links(tiny_run: MakeRun, tmp_path: Path) -> None:
    run = tiny_run(ICaRL())
    assert launcher.train(run, job(tmp_path / "theirs")) == ""
    theirs, ours = tmp_path / "theirs" / "runs" / run.hash, tmp_path / "ours"
    (theirs / "epoch.part").write_bytes(b"half")
    (ours / "runs").mkdir(parents=True)
    shutil.copy(tmp_path / "theirs/runs/FORMAT", ours / "runs/FORMAT")
    (ours / "runs" / run.hash).symlink_to(theirs)
    (ours / "warm-up-1").symlink_to(tmp_path / "theirs")
    before = sorted(path.name for path in (tmp_path / "theirs").rglob("*"))
    assert main(["clean", "--states", "--out", str(ours)]) == 0
    assert sorted(path.name for path in (tmp_path / "theirs").rglob("*")) == before
