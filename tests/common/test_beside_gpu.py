"""Tests what runs do differently on a GPU, and frozen networks. A stand-in for a GPU shows both on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from methods import CASES, Get
from stand_in import OnDevice, stand_in
from tiny import TinyNet
from torch import Tensor, nn

from common import graphs, heads, resnet
from common.command import launcher
from common.command.launcher import Job, briefly, warm_up
from common.heads import LinearHead, Net, extract, frozen_copy
from common.loader import DeviceImages
from common.runs import Inputs, Run, Schedule
from common.store import Store, Workspace
from common.training import Device, Stage, fit
from der.expand import Classifier, Expandable
from der.model import MaskedResNet, mask_logits
from feature_adaptation.learner import AdaptationLearner
from fsa.learner import FSALearner
from lucir.methods import LUCIR, Base

BF16, FP32 = Device("cpu", "bf16"), Device("cpu", "fp32")


def pictures(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, 32, 32, generator=generator).contiguous(memory_format=torch.channels_last)


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


@pytest.mark.parametrize("name", ["resnet8-half", "resnet32", "resnet32-pad", "resnet18"])
def test_a_frozen_copy_has_the_bits_of_its_network(name: str) -> None:
    body = resnet.backbone(name, seed=0)
    net = Net(body, LinearHead(body.out_features, 5), BF16).train()  # type: ignore[arg-type]
    net(pictures(8))  # moves BatchNorm's statistics
    images, frozen = pictures(6), frozen_copy(net, BF16)
    net.eval()
    with torch.no_grad():
        assert same_bits(frozen(images), net(images)) and same_bits(frozen.features(images), net.features(images))
    convs = [m for m in frozen.modules() if isinstance(m, nn.Conv2d)]
    assert convs and all(c.weight.dtype == torch.bfloat16 for c in convs)
    assert frozen.head.weight.dtype == torch.float32 and not any(p.requires_grad for p in frozen.parameters())
    assert all(p.dtype == torch.float32 and p.requires_grad for p in net.parameters())
    assert all(p.dtype == torch.float32 for p in frozen_copy(net, FP32).parameters())


@pytest.mark.parametrize("masked", [False, True])
def test_frozen_extractors_run_in_their_precision_and_are_kept_in_fp32(masked: bool) -> None:
    """Features have the bits of a network that converts its weights at every call. The saved state stays fp32."""

    def make() -> nn.Module:
        return resnet.CifarResNet((1, 1), 8, stem_stride=2)

    torch.manual_seed(0)
    bodies = [make() for _ in range(3)]
    if masked:
        bodies[0] = MaskedResNet(bodies[0], mask_logits(48, "normal", torch.Generator().manual_seed(1)))
    net = Expandable(make, bodies[0], Classifier(16, 2), BF16)
    for body in bodies[1:]:
        net.add_extractor(body)
        net.place()
    images = pictures(4)
    found = net.eval().features(images)
    with torch.no_grad(), BF16.autocast():
        expected = torch.cat([extractor(images).float() for extractor in net.extractors], dim=1)
    assert same_bits(found, expected) and all(t.dtype != torch.bfloat16 for t in net.state_dict().values())
    assert net.frozen[0] is not net.extractors[0]
    again = Expandable(make, make(), Classifier(16, 2), BF16)
    again.load_state_dict(net.state_dict())
    assert same_bits(again.eval().features(images), expected)
    plain = Expandable(make, make(), Classifier(16, 2), FP32)
    plain.load_state_dict(net.state_dict())
    assert plain.frozen == list(plain.extractors[:-1])


def test_augmentation_reads_maps_with_the_bits_of_the_network(get: Get, tmp_path: Path) -> None:
    """This concerns FSA's frozen layers in bf16."""
    seen = []
    maps = FSALearner.maps

    def checked(self: FSALearner, images: Tensor) -> Tensor:
        used: list[int] = []
        hook = self.fixed.conv1.register_forward_pre_hook(lambda conv, inputs: used.append(1))
        found = maps(self, images)
        hook.remove()
        assert used
        with torch.no_grad(), self.context.device.autocast():
            seen.append(same_bits(found, self.net.backbone.maps(images).float()))
        assert self.fixed.conv1.weight.dtype == torch.bfloat16
        return found

    run = CASES["FSA on images"](get)
    run = run.resolved(run.fingerprint, "bf16")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FSALearner, "maps", checked)
        assert [launcher.train(link, Job(tmp_path, None, "cpu", 1, 1)) for link in run.chain] == ["", ""]
    assert len(seen) > 2 and all(seen)


@pytest.mark.parametrize(("wide", "expected"), [(2**21, [5000, 40]), (1, [2500, 2500, 40])])
def test_evaluation_takes_large_batches_on_cuda(
    wide: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "WIDE", wide)
    sizes: list[int] = []

    class Sized(TinyNet):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return super().forward(x)

    pixels, labels = np.zeros((5040, 32, 32, 3), np.uint8), torch.zeros(5040, dtype=torch.long)
    with stand_in():
        device = Device("cuda", "fp32")
        images = DeviceImages(pixels, labels.to(device.torch), Inputs(), device.torch)
        rows = torch.arange(5040, device=device.torch)
        assert len(extract(Net(Sized(), LinearHead(8, 2), device), images, rows)) == 5040
    assert sizes == expected
    sizes.clear()
    images = DeviceImages(pixels, labels, Inputs(), torch.device("cpu"))
    extract(Net(Sized(), LinearHead(8, 2), FP32), images, torch.arange(250))
    assert sizes == [100, 100, 50]


def test_views_are_made_in_large_batches_on_cuda(
    get: Get,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    epoch = DeviceImages.epoch

    def sized(self: DeviceImages, order: Tensor, batch: int, *rest: Any) -> object:
        sizes.append(batch)
        return epoch(self, order, batch, *rest)

    monkeypatch.setattr(DeviceImages, "epoch", sized)
    start, views = CASES["FSA on cached views"](get).chain[:2]
    for device in ("cpu", "cuda"):
        with stand_in():
            assert launcher.train(start, Job(tmp_path / device, None, device, 1, 1)) == ""
            sizes.clear()
            assert launcher.train(views, Job(tmp_path / device, None, device, 1, 1)) == ""
        assert sizes == [1000 if device == "cuda" else 128] * 2
    kept = [Store(tmp_path / device).load(views.hash) for device in ("cpu", "cuda")]
    assert kept[0] and kept[1] and kept[0].values == kept[1].values


def test_a_run_beside_a_gpu_takes_one_thread_and_a_stream_by_its_phases(
    tiny_run: Callable[..., Run], tail_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.imbalance import Rebalance

    high: list[bool] = []
    try:
        with stand_in(), monkeypatch.context() as patch:  # undone before the stand-in's own
            patch.setattr(graphs, "own_stream", lambda high: streams.append(high))
            streams = high
            for run in (tiny_run(Base()), tail_run(Rebalance())):
                torch.set_num_threads(2)
                assert launcher.train(run, Job(tmp_path, None, "cuda", 1, 4)) == ""
                assert torch.get_num_threads() == 1
                found = Store(tmp_path).load(run.hash)
                assert found and found.environment["threads"] == 1
    finally:
        torch.set_num_threads(1)
    assert high == [True, False]


def test_an_epoch_is_waited_for_before_it_is_read() -> None:
    """Every copy of many values to the host waits first, in a way that lets other threads go on."""
    happened: list[str] = []

    def waited(self: object) -> None:
        happened.append("wait")

    def read(self: OnDevice) -> object:
        happened.append("read")
        return self.cpu().tolist()

    def after(epoch: object, optimiser: object) -> None:
        happened.append("epoch")

    pixels, net = np.zeros((8, 32, 32, 3), np.uint8), TinyNet()
    with stand_in(), pytest.MonkeyPatch.context() as patch:
        device = torch.device("cuda:0")
        net.to(device)
        images = DeviceImages(pixels, torch.zeros(8, dtype=torch.long).to(device), Inputs(), device)
        rows = torch.arange(8, device=device)
        patch.setattr(torch.cuda.Event, "synchronize", waited)
        patch.setattr(OnDevice, "tolist", read)
        stage = Stage("toy", Schedule(2, batch=4), rows, lambda x, y: net(x).sum(), net.parameters(), net.train)
        fit(stage, images, (0,), after)
    assert happened == ["wait", "read", "epoch"] * 2


def test_features_in_a_cache_are_trained_on_the_cpu(get: Get) -> None:
    run = CASES["feature adaptation"](get)
    large = replace(run, inputs=replace(run.inputs, kind="resized-crop", size=224))
    assert [AdaptationLearner.device_for(r, "cuda") for r in (run, large)] == ["cpu", "cuda"]
    assert AdaptationLearner.device_for(large, "cpu") == "cpu"


@pytest.mark.parametrize("name", CASES)
def test_warming_up_is_an_epoch_a_stage_and_leaves_nothing(
    name: str,
    get: Get,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, epochs = CASES[name](get), []
    log = Workspace.log

    def logged(self: Workspace, line: dict) -> None:
        epochs.append(line["epoch"])
        log(self, line)

    monkeypatch.setattr(Workspace, "log", logged)
    with stand_in():
        assert warm_up(run, Job(tmp_path, None, "cuda", 8, 1)) == ""
    assert set(epochs) == ({1} if name != "feature adaptation" else set())
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}
    assert all(link.schedule.epochs <= 1 for link in briefly(run).chain)
    assert all(getattr(link.method, "views", 1) == 1 for link in briefly(run).chain)


def test_warming_up_says_what_went_wrong(tiny_run: Callable[..., Run], tmp_path: Path) -> None:
    run = tiny_run(LUCIR(finetune=Schedule(3)), schedule=Schedule(4, lr=1e30, milestones=(2, 3), batch=16))
    assert briefly(run).method.finetune == Schedule(1) and briefly(run).schedule.milestones == ()
    assert "not finite" in warm_up(run, Job(tmp_path, None, "cpu", 1, 1))
    assert not Store(tmp_path).load(run.hash)
