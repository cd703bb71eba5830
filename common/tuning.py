"""How many CPU threads a run gets, by measurement: small networks are slower on many threads than on a few."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

import torch
from filelock import FileLock

from common.resnet import backbone
from common.runs import Run
from common.store import write_atomic
from common.training import Device

STEPS = 3  # timed at each number of threads, after one that warms up
GAIN = 1.03  # more threads must be faster by this much, or the cores are better left to others


def choose_threads(run: Run, device: Device, limit: int, memo: Path) -> tuple[int, dict[str, float]]:
    """Threads for a run that may have up to `limit`, and the images/s measured at 1, 2, 4 ... `limit`.

    `memo` is a JSON file that keeps what was measured: sums depend on the threads in their last bits, so runs under one
    output folder must not choose differently.
    """
    step = f"{run.network}, {run.inputs.kind}, batch {run.schedule.batch}, {device.precision}"
    name = f"{step}, up to {limit} threads, {cpu_name()}, torch {torch.__version__}"
    memo.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(memo.with_suffix(".lock")):
        try:
            known = dict(json.loads(memo.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            known = {}
        if name not in known:
            known[name] = _measure(run, device, limit)
            write_atomic(memo, json.dumps(known, indent=1))
    return fastest(known[name]), known[name]


def fastest(rates: dict[str, float]) -> int:
    """The number of threads beyond which nothing is gained, from images/s by number of threads in rising order."""
    best, rate = 1, 0.0
    for threads, measured in rates.items():
        if measured > GAIN * rate:
            best, rate = int(threads), measured
    return best


def _measure(run: Run, device: Device, limit: int) -> dict[str, float]:
    """Images/s of a training step at each number of threads; the best of a few, since others may be using the cores."""
    small = run.inputs.kind == "crop-flip"
    batch, side = (run.schedule.batch, 32) if small else (8, 224)
    net = backbone(run.network, seed=0).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    images = torch.full((batch, 3, side, side), 0.5).contiguous(memory_format=torch.channels_last)

    def seconds() -> float:
        started = time.perf_counter()
        with device.autocast():
            features = net(images)
        features.float().square().mean().backward()
        net.zero_grad()
        return time.perf_counter() - started

    before, rates = torch.get_num_threads(), {}
    try:
        for threads in sorted({*(2**i for i in range(limit.bit_length())), limit}):
            torch.set_num_threads(threads)
            _, *timed = [seconds() for _ in range(1 + STEPS)]
            rates[str(threads)] = round(batch / min(timed), 1)
    finally:
        torch.set_num_threads(before)
    return rates


def cpu_name() -> str:
    """The processor and its number of cores."""
    try:
        with open("/proc/cpuinfo") as info:
            name = next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"
