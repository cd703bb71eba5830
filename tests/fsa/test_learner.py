"""Tests Phase II's learner: what stays frozen, the label of a fusion, cached maps, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TinyMaps, TinyNet
from torch import Tensor

from common import resnet
from common.command import launcher
from common.command.launcher import Job
from common.imbalance import Rebalance
from common.runs import Run, Schedule
from common.store import Result, Store, read_state
from fsa import learner as fsa_learner
from fsa import methods
from fsa.learner import EarlierBlockLearner, FSALearner
from fsa.methods import FSA, EarlierBlock, Survey, Views

MakeRun = Callable[..., Run]


@pytest.fixture(autouse=True)
def short_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make epochs of 5 iterations."""
    monkeypatch.setattr(FSA, "steps", 5)


@pytest.fixture
def phase1(tail_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setitem(resnet.BACKBONES, "tiny", TinyMaps)
    return replace(tail_run(Rebalance(), schedule=Schedule(6, lr=0.05, batch=8)), paper="fsa")


def tuned(start: Run, method: Any, epochs: int = 3, lr: float = 0.05, **changes: Any) -> Run:
    fsa = getattr(method, "fsa", method)
    schedule = Schedule(epochs, lr=lr, batch=fsa.images, weight_decay=0.0)
    return replace(start, method=method, start=start, schedule=schedule, **changes)


def views(start: Run, count: int = 4) -> Run:
    return replace(start, method=Views(count), start=start, schedule=Schedule(0))


def trained(run: Run, out: Path) -> Result:
    for link in run.chain:
        assert launcher.train(link, Job(out, None, "cpu", 1, 1)) == ""
    result = Store(out).load(run.hash)
    assert result
    return result


def state(run: Run, out: Path) -> dict[str, Tensor]:
    saved = read_state(out / "runs" / run.hash / "checkpoint.safetensors")
    assert saved
    return saved.part("net/")


SMALL = FSA(tail=2, donors=3)


# Phase II


@pytest.mark.parametrize("cached", [False, True])
def test_only_the_classifier_changes(cached: bool, phase1: Run, tmp_path: Path) -> None:
    """Backbone and BatchNorm statistics keep their bits. The rate is constant, and iterations are counted."""
    run = tuned(views(phase1) if cached else phase1, SMALL)
    result = trained(run, tmp_path)
    before, after = state(phase1, tmp_path), state(run, tmp_path)
    assert set(after) == ({"head.weight", "head.bias"} if cached else set(before))
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name]) == (not name.startswith("head.")), name
    trace = result.values["trace"]
    assert trace["lr"] == [0.05] * 3 and trace["images"] == [5 * 16] * 3
    assert result.environment["steps"] == {"eager": 15}


@pytest.mark.parametrize("cached", [False, True])
def test_without_a_step_nothing_is_predicted_otherwise(cached: bool, phase1: Run, tmp_path: Path) -> None:
    run = tuned(views(phase1) if cached else phase1, SMALL, epochs=0)
    found, before = trained(run, tmp_path), Store(tmp_path).load(phase1.hash)
    assert before
    np.testing.assert_array_equal(found.confusion("cnn"), before.confusion("cnn"))


def test_augmented_features_carry_their_tail_images_labels(
    phase1: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The label is not the donor's or the batch's first.

    Real features are pooled maps. Phase I's weights pick locations.
    """
    seen: list[tuple[Tensor, ...]] = []
    original = FSALearner.features

    def watched(self: FSALearner, maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        features, targets = original(self, maps, labels)
        seen.append((maps, labels, features, targets, self.cam_weight.clone()))
        return features, targets

    monkeypatch.setattr(FSALearner, "features", watched)
    run = tuned(phase1, SMALL)
    trained(run, tmp_path)
    weight = state(phase1, tmp_path)["head.weight"]
    assert len(seen) == 15
    for maps, labels, features, targets, used in seen:
        assert targets.tolist() == [*labels[:2], *labels[:1].repeat(3), *labels[1:2].repeat(3), *labels[8:]]
        real = [0, 1, *range(8, 16)]
        torch.testing.assert_close(features[real], maps.mean(dim=(2, 3))[real])
        assert not torch.allclose(features[2:8], maps.mean(dim=(2, 3))[2:8])
        assert torch.equal(used, weight)


def test_the_control_is_fsa_without_donors(phase1: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a batch are real tail images, and features are only pooled."""
    batches: list[tuple[Tensor, Tensor]] = []
    original = FSALearner.features

    def watched(self: FSALearner, maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        features, targets = original(self, maps, labels)
        assert torch.equal(features, maps.mean(dim=(2, 3))) and torch.equal(targets, labels)
        batches.append((features, targets))
        return features, targets

    monkeypatch.setattr(FSALearner, "features", watched)
    trained(tuned(phase1, FSA(tail=8, donors=0)), tmp_path)
    assert len(batches) == 15 and all(len(labels) == 16 for _, labels in batches)
    assert all(labels[:8].min() > labels[8:].max() for _, labels in batches)


def test_fused_once_the_tail_s_half_stays_and_the_head_s_does_not(
    phase1: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tail's half is as if computed in advance.

    That needs one cached view: fresh images or several views are refused.
    """
    seen: list[Tensor] = []
    original = FSALearner.features

    def watched(self: FSALearner, maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        features, targets = original(self, maps, labels)
        seen.append(features)
        return features, targets

    monkeypatch.setattr(FSALearner, "features", watched)
    run = tuned(views(phase1, 1), replace(SMALL, offline=True))
    trained(run, tmp_path)
    first, second, third = torch.stack(seen).split(5)
    assert torch.equal(first[:, :8], second[:, :8]) and torch.equal(first[:, :8], third[:, :8])
    assert not torch.equal(first[:, 8:], second[:, 8:]) and not torch.equal(first[0, :8], first[1, :8])
    for start in (phase1, views(phase1, 2)):
        trained(start, tmp_path)
        refused = tuned(start, replace(SMALL, offline=True))
        assert "one cached view" in launcher.train(refused, Job(tmp_path, None, "cpu", 1, 1))


def test_a_network_that_pools_a_single_location_is_refused(
    phase1: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An example is ResNet-18 with ImageNet's stem on images of 32 pixels."""
    trained(phase1, tmp_path)
    monkeypatch.setattr(TinyMaps, "maps", lambda self, x: TinyNet.forward(self, x)[:, :, None, None])
    assert "single location" in launcher.train(tuned(phase1, SMALL), Job(tmp_path, None, "cpu", 1, 1))


def test_phase_two_repeats_from_one_phase_one(phase1: Run, tmp_path: Path) -> None:
    """Its seed changes its random numbers, and the same seed gives the same bits. The start is trained once."""
    start = views(phase1)
    runs = [tuned(start, SMALL, seed=seed) for seed in (0, 1)]
    heads = []
    for run in runs:
        trained(run, tmp_path)
        heads.append(state(run, tmp_path)["head.weight"])
    assert not torch.equal(*heads) and len({run.hash for run in runs}) == 2
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 4
    trained(runs[0], tmp_path / "again")
    assert torch.equal(state(runs[0], tmp_path / "again")["head.weight"], heads[0])


def test_views_hold_what_the_network_computes(phase1: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold maps of several augmented versions of each image. Scores and test features are of plain images."""
    start = views(phase1)
    trained(start, tmp_path)
    kept = state(start, tmp_path)
    count = kept["maps"].shape[0]
    assert kept["maps"].shape[1:] == (4, 8, 4, 4) and kept["maps"].dtype == torch.half
    assert kept["test"].shape == (40, 8) and kept["scores"].shape == (8, 8)
    torch.testing.assert_close(kept["scores"].sum(dim=1), torch.ones(8))
    assert not torch.equal(kept["maps"][:, 0], kept["maps"][:, 1])
    run = tuned(start, SMALL)
    batches: list[Tensor] = []
    original = FSALearner.maps
    monkeypatch.setattr(
        FSALearner, "maps", lambda self, images: batches.append(found := original(self, images)) or found
    )
    trained(run, tmp_path)
    known = kept["maps"].float().flatten(2).flatten(0, 1)
    rows = torch.cat(batches[1:4]).flatten(1)
    assert {tuple(row) for row in rows.tolist()} <= {tuple(row) for row in known.tolist()} and count == 44


def test_a_batch_of_another_size_is_refused(phase1: Run, tmp_path: Path) -> None:
    trained(phase1, tmp_path)
    run = replace(tuned(phase1, SMALL), schedule=Schedule(1, batch=32))
    assert "is 16, not 32" in launcher.train(run, Job(tmp_path, None, "cpu", 1, 1))
    run = tuned(phase1, replace(SMALL, share=0.99))
    assert "there is no tail" in launcher.train(run, Job(tmp_path, None, "cpu", 1, 1))


@pytest.mark.parametrize("behind", [1, 2])
def test_augmentation_after_an_earlier_block(
    behind: int, phase1: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stages up to the block, and all BatchNorm statistics, keep their bits. Later stages are tuned."""
    start = replace(phase1, network="resnet8-half", schedule=Schedule(1, lr=0.05, batch=8))
    run = tuned(start, EarlierBlock(behind, SMALL), epochs=2, lr=0.01)
    seen: list[tuple[Tensor, Tensor]] = []
    original = EarlierBlockLearner.mixed

    def watched(self: EarlierBlockLearner, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        maps, targets = original(self, images, labels)
        assert targets.tolist() == [*labels[:2], *labels[:1].repeat(3), *labels[1:2].repeat(3), *labels[8:]]
        with torch.no_grad():
            plain = self.front(images)
        torch.testing.assert_close(maps[[0, 1, *range(8, 16)]], plain[[0, 1, *range(8, 16)]])
        assert (maps[2:8] != plain[2:8]).flatten(1).any(dim=1).all()
        seen.append((maps, targets))
        return maps, targets

    monkeypatch.setattr(EarlierBlockLearner, "mixed", watched)
    trained(run, tmp_path)
    assert len(seen) == 10
    before, after = state(start, tmp_path), state(run, tmp_path)
    for name, tensor in after.items():
        later = name.startswith(("head.", *(f"backbone.stages.{i}." for i in range(3 - behind, 3))))
        moved = later and not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(tensor, before[name]) == (not moved), name


def test_a_survey_of_phase_one(phase1: Run, tmp_path: Path) -> None:
    method = Survey((0, 1, 7), points=4, pictures=3, fsa=SMALL)
    result = trained(replace(phase1, method=method, start=phase1, schedule=Schedule(0)), tmp_path)
    found = result.values["summary"]
    assert found["labels"] == [0] * 4 + [1] * 4 + [7] * 4
    assert set(found["scatter"]) == {"whole", "specific", "generic"}
    assert all(np.shape(points) == (12, 2) for points in found["scatter"].values())
    assert all(0 <= v <= 100 for v in found["neighbours"].values())
    assert all(-1 <= v <= 1.001 for v in found["similarity"].values())
    assert len(found["tail"]["points"]) == len(found["tail"]["kinds"]) and found["tail"]["class"] == 7
    assert found["tail"]["kinds"].count("augmented") == 4 and found["tail"]["kinds"].count("training images") == 2
    labels = [p["label"] for p in found["pictures"]]
    assert labels[0] == 0 and labels[-1] == 7 and len(labels) == 3
    for picture in found["pictures"]:
        assert np.shape(picture["image"]) == (32, 32, 3)
        assert np.min(picture["cam"]) == 0 and np.max(picture["cam"]) == 1


def test_methods_refuse_what_makes_no_sense(phase1: Run) -> None:
    bad: list[tuple[Any, str]] = [
        (FSA(donors=-1), "no batch"),
        (FSA(share=1.0), "share of the images"),
        (FSA(ratio=1.5), "class-specific"),
        (FSA(tau_generic=0.0), "threshold"),
        (EarlierBlock(0), "behind"),
        (Views(0), "at least one view"),
        (Survey((9,)), "not all among"),
    ]
    for method, message in bad:
        with pytest.raises(ValueError, match=message):
            method.check(phase1.protocol)
    assert methods.FSA().images == fsa_learner.FSA().images == 128
