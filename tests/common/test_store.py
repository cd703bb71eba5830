"""Tests checkpoint files: their content, that damage is noticed, when they reach the disk, and how often."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from der_runs import MASKED, PLAIN, MakeRun, train
from safetensors.torch import load_file
from torch import Tensor

from common import checkpoints, store
from common.checkpoints import Damaged, Saved, newest, read_meta, read_state, write
from common.data.datasets import Dataset
from common.incremental import Phase
from common.store import Store, Workspace
from der.learner import DERLearner

META = {"phase": 1, "lines": 3, "phases": [{"accuracy": 0.1 + 0.2, "name": "Ä"}]}


def some_tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "net/weight": torch.randn(3, 2, 2, 2, generator=generator).to(memory_format=torch.channels_last),
        "net/half": torch.randn(5, generator=generator).to(torch.bfloat16),
        "net/count": torch.tensor(7),
        "memory/0": torch.tensor([4, 2]),
        "empty": torch.zeros(0, 3),
        "mask": torch.tensor([True, False]),
    }


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def test_a_checkpoint_comes_back_and_any_program_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    checksum = write(path, some_tensors(), META)
    saved = read_state(path)
    assert saved and same(saved.tensors, some_tensors()) and saved.meta == META and saved.checksum == checksum
    assert same(load_file(path), some_tensors())
    assert read_meta(path) is not None and read_meta(path)["lines"] == 3  # type: ignore[index]
    assert read_state(tmp_path / "none.safetensors") is None and read_meta(tmp_path / "none.safetensors") is None
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_every_flipped_bit_and_every_torn_end_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write(path, some_tensors(), META)
    whole, unnoticed = path.read_bytes(), []
    for position in range(len(whole)):
        for bit in (1, 32):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :])
            try:
                saved = read_state(path)
            except Damaged as error:
                assert str(path) in str(error)
                continue
            assert saved and same(saved.tensors, some_tensors()) and saved.meta == META, position
            unnoticed.append(position)
    assert len(unnoticed) < 100  # names of fields that nothing reads, and the blanks that pad the header
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(Damaged):
            read_state(path)


def test_a_part_is_on_disk_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, ...]] = []
    replace = os.replace

    def moved(a: Path, b: Path) -> None:
        events.append((a.name, b.name))
        replace(a, b)

    monkeypatch.setattr(checkpoints, "sync", lambda path: events.append((path.name,)))
    monkeypatch.setattr(os, "replace", moved)
    for _ in range(2):
        write(tmp_path / "epoch.safetensors", some_tensors(), META, keep_previous=True)
    first = [("epoch.part",), ("epoch.part", "epoch.safetensors"), (tmp_path.name,)]
    assert events == [*first, first[0], ("epoch.safetensors", "epoch.previous.safetensors"), *first[1:]]


def test_sync_reaches_the_file_and_closes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append((descriptor, os.fstat(descriptor).st_ino)))
    checkpoints.sync(tmp_path)
    ((descriptor, inode),) = seen
    assert inode == tmp_path.stat().st_ino
    with pytest.raises(OSError):
        os.fstat(descriptor)


@pytest.mark.parametrize(("pace", "seconds", "expected"), [(1, 0.01, 2), (1, 0.4, 20), (10, 0.01, 20), (10, 1.0, 50)])
def test_saves_take_a_small_share_of_the_time(
    pace: float, seconds: float, expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saves come every 2 s on a CPU and 20 s on a GPU, and less often if one takes long. Boundaries do not count."""
    clock, saves = [1000.0], []
    monkeypatch.setattr(store.time, "monotonic", lambda: clock[0])

    def slow(path: Path, *args: Any, **options: Any) -> int:
        clock[0] += seconds if path.name == "epoch.safetensors" else 100
        saves.append(clock[0])
        return 0

    monkeypatch.setattr(store, "write", slow)
    workspace = Workspace(tmp_path, Store(tmp_path), pace=pace)
    workspace.save_seconds = seconds
    workspace.boundary({}, {"phase": 1})
    while len(saves) < 3:
        workspace.checkpoint(lambda: ({}, {"phase": 1}))
        clock[0] += 0.25
    for before, after in pairwise(saves):
        assert after - before == pytest.approx(expected + seconds, abs=0.3)


def test_an_epoch_goes_with_the_boundary_it_was_built_on_alone(tmp_path: Path) -> None:
    """It does not go with another end of the same phase, which a run repeated on a GPU may leave."""
    boundary, epoch = tmp_path / "checkpoint.safetensors", tmp_path / "epoch.safetensors"
    frozen = {"net/old": torch.zeros(2)}
    checksum = write(boundary, frozen, META)
    write(epoch, {"net/new": torch.ones(1)}, {**META, "boundary": checksum, "frozen": ["net/old"]})
    _, inside = newest(tmp_path, 3)
    assert inside and same(inside.tensors, {**frozen, "net/new": torch.ones(1)})
    write(boundary, {"net/old": torch.ones(2)}, META)
    found, inside = newest(tmp_path, 3)
    assert found and inside is None


def test_a_damaged_file_never_takes_the_place_of_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    for phase in (1, 2):
        write(path, some_tensors(), {**META, "phase": phase}, keep_previous=True)
    path.write_bytes(path.read_bytes()[:-1])
    boundary, _ = newest(tmp_path, 3)
    assert boundary and boundary.meta["phase"] == 1
    write(path, some_tensors(), {**META, "phase": 2}, keep_previous=True)
    kept = read_state(checkpoints.previous(path))
    assert kept and kept.meta["phase"] == 1


# Frozen parts


@pytest.mark.parametrize("method", [PLAIN, MASKED], ids=["plain", "masked"])
def test_frozen_extractors_are_saved_once_a_phase(
    method: Any, der_run: MakeRun, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch's file holds only the last extractor. With its boundary it has the whole network, bit for bit."""
    monkeypatch.setattr(store, "SAVE_EVERY", 0.0)
    found: dict[int, list[Saved]] = {}
    save = Workspace._save

    def saved(workspace: Workspace, name: str, tensors: dict[str, Tensor], meta: dict) -> None:
        save(workspace, name, tensors, meta)
        if name == "epoch":
            alone = read_state(workspace.folder / "epoch.safetensors")
            _, inside = newest(workspace.folder, 10**9)
            assert alone and inside
            whole = {f"net/{k}": v for k, v in learners[-1].net.state_dict().items()}
            assert same({k: v for k, v in inside.tensors.items() if k.startswith("net/")}, whole)
            extractors = {int(k.split(".")[1]) for k in alone.tensors if k.startswith("net/extractors.")}
            assert extractors == {meta["phase"]}
            found.setdefault(meta["phase"], []).append(alone)

    learners: list[DERLearner] = []
    begin = DERLearner.begin_phase

    def begun(learner: DERLearner, phase: Phase) -> None:
        learners.append(learner)
        begin(learner, phase)

    monkeypatch.setattr(DERLearner, "begin_phase", begun)
    monkeypatch.setattr(Workspace, "_save", saved)
    run = der_run(method)
    train(run, tiny_data, tmp_path)
    assert list(found) == [0, 1, 2, 3] and all(len(states) > 3 for states in found.values())
    final = read_state(tmp_path / "runs" / run.hash / "checkpoint.safetensors")
    assert final and {int(k.split(".")[1]) for k in final.tensors if k.startswith("net/extractors.")} == {0, 1, 2, 3}
