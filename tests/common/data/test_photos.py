"""Tests the whole way of ImageNet on a few large images: files, worker processes, timm's ResNet-18, LUCIR."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from common.command import launcher
from common.command.launcher import Job
from common.data.datasets import DataSpec, load
from common.runs import IMAGENET_INPUTS, Protocol, Run, Schedule
from common.store import Store
from lucir.methods import LUCIR, Base


def test_lucir_on_image_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 1)):
        for name in "abcd":
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.jpg")
    spec, out = DataSpec("photos"), tmp_path / "out"
    fingerprint = load(spec, tmp_path, out / "cache").fingerprint
    schedule = Schedule(1, batch=4, weight_decay=1e-4)
    network = "resnet18-imagenet"
    base = Run("lucir", Base("cosine"), spec, Protocol(2, 2, 0, 0), schedule, network, inputs=IMAGENET_INPUTS)
    method = LUCIR(weight=10.0, finetune=schedule, nme_flip="none")
    run = Run("lucir", method, spec, Protocol(4, 2, 2, 2), schedule, network, inputs=IMAGENET_INPUTS, start=base)
    run = run.resolved(fingerprint, "fp32")
    job = Job(out, tmp_path, "cpu", jobs=1, threads=1)
    for each in run.chain:
        assert launcher.train(each, job) == ""
    result = Store(out).load(run.hash)
    assert result is not None
    assert [p["classes"] for p in result.phases()] == [2, 4]
    assert set(result.phases()[-1]["stages"]) == {"main", "finetune"}
    assert result.confusion("nme").sum() == 4

    (tmp_path / "photos" / "train" / "a" / "1.jpg").write_bytes(b"not an image" * 20)
    spoiled = run.resolved(load(spec, tmp_path, None).fingerprint, "fp32")
    launcher._load.cache_clear()
    problem = launcher.train(spoiled.chain[0], job)
    assert "1.jpg" in problem
    assert "\n" not in problem
