"""Measures how many CPU threads a run should have, and how many runs a GPU should train at once.

Small networks train more slowly on many threads than on a few, and a single one leaves most of a GPU idle.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from common.checkpoints import Damaged, checksum, lock, read_json, write_atomic
from common.errors import RunFailed
from common.graphs import CAPTURING, Pace, chosen_capture, own_stream, wait
from common.resnet import backbone
from common.runs import Run
from common.training import Device

STEPS = 3  # steps timed at each number of threads, after one to warm up
GAIN = 1.03  # more threads must be faster by this factor; otherwise the cores are left to other runs
COUNTS = (1, 2, 4, 6, 8, 12, 16)
"""The numbers of simultaneous runs that are tried on a GPU."""
BATCH = 128


def choose_threads(run: Run, device: Device, limit: int, memo: Path) -> tuple[int, dict[str, float]]:
    """Return the number of threads for a run that may have `limit`, and the images/s measured at 1, 2, 4 ... `limit`.

    `memo` is a JSON file that keeps the measurements. The last bits of sums depend on the number of threads, so all
    runs under one output folder must choose alike.
    """
    step = f"{run.network}, {run.inputs.kind}, batch {run.schedule.batch}, {device.precision}"
    name = f"{step}, up to {limit} threads, {cpu_name()}, torch {torch.__version__}"
    memo.parent.mkdir(parents=True, exist_ok=True)
    with lock(memo.with_suffix(".lock")):
        try:
            known = read_json(memo, "it is measured again")
            return min(limit, fastest(known[name])), known[name]
        except (Damaged, TypeError, ValueError, AttributeError):
            known = {}
        except KeyError:  # the memo holds only measurements of other steps
            pass
        known[name] = _measure(run, device, limit)
        write_atomic(memo, json.dumps({**known, "checksum": checksum(known)}, indent=1))
    return fastest(known[name]), known[name]


def fastest(rates: dict[str, float]) -> int:
    """Return the number of threads above which nothing is gained. rates: threads, in rising order -> images/s."""
    best, rate = 1, 0.0
    for threads, measured in rates.items():
        if measured > GAIN * rate:
            best, rate = int(threads), measured
    return best


def _measure(run: Run, device: Device, limit: int) -> dict[str, float]:
    """Return the images/s of a training step at each number of threads.

    The fastest of a few steps counts, since other processes may use the cores too.
    """
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


def choose_jobs(device: Device) -> int:
    """Return how many runs to train at once on a CUDA device: the fewest that come near its best rate.

    The measurement takes about 15 s. Raises RunFailed if it fails.
    """
    try:
        return least_within(rates_side_by_side(device, COUNTS, seconds=1.0))
    finally:
        torch.cuda.empty_cache()  # this waits for the whole device, but no run is under way yet


def least_within(rates: Mapping[int, float], share: float = 0.07) -> int:
    """Return the smallest number of runs whose rate is at most `share` below the best. rates: runs -> images/s."""
    return min(runs for runs, rate in rates.items() if rate >= (1 - share) * max(rates.values()))


def rates_side_by_side(device: Device, counts: Sequence[int], seconds: float) -> dict[int, float]:
    """Return the total images/s of several threads that train side by side, for each number of threads in `counts`.

    Each thread has its own stream and its own training step of ResNet-32. All steps are prepared first. Then each
    number of threads is measured for `seconds`. Raises RunFailed if a step cannot be prepared.
    """
    bench = _Bench(device, counts, seconds)
    threads = [threading.Thread(target=bench.work, args=(i,), daemon=True) for i in range(max(counts))]
    for thread in threads:
        thread.start()
    rates = {}
    try:
        for runs in counts:
            bench.gate.wait()
            started = time.perf_counter()
            bench.gate.wait()
            rates[runs] = sum(bench.steps[:runs]) * BATCH / (time.perf_counter() - started)
            bench.gate.wait()
    except threading.BrokenBarrierError:
        raise RunFailed(f"runs side by side cannot be measured: {bench.problem or 'no answer'}") from None
    finally:
        for thread in threads:
            thread.join(timeout=10)
    return rates


class _Bench:
    """The state that the threads of one measurement share."""

    def __init__(self, device: Device, counts: Sequence[int], seconds: float) -> None:
        self.device, self.counts, self.seconds = device, counts, seconds
        self.gate = threading.Barrier(max(counts) + 1, timeout=120)
        """All threads pass it three times for each count: when they are ready, when done, and when `steps` was read."""
        self.steps = [0] * max(counts)
        self.problem = ""

    def work(self, number: int) -> None:
        """Run thread `number` of the measurement: take steps for every count above `number`, else wait."""
        try:
            with torch.cuda.stream(own_stream()) if self.device.type == "cuda" else nullcontext():
                step = captured_step(self.device)
                for runs in self.counts:
                    self.gate.wait()
                    self.steps[number] = self._replay(step) if number < runs else 0
                    self.gate.wait()
                    self.gate.wait()
        except threading.BrokenBarrierError:
            return
        except Exception as error:
            self.problem = f"{type(error).__name__}: {error}"
            self.gate.abort()

    def _replay(self, step: Callable[[], None]) -> int:
        """Take steps until `seconds` are over, and return how many were taken."""
        pace, taken, end = Pace(self.device.torch), 0, time.perf_counter() + self.seconds
        while time.perf_counter() < end:
            step()
            pace()
            taken += 1
        wait(self.device.torch)
        return taken


def captured_step(device: Device) -> Callable[[], None]:
    """Return a training step of ResNet-32 on one fixed batch, captured on CUDA and called from Python elsewhere."""
    net = backbone("resnet32", seed=0).to(device.torch, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    images = torch.full((BATCH, 3, 32, 32), 0.5, device=device.torch).contiguous(memory_format=torch.channels_last)
    lr = torch.tensor(0.0, device=device.torch)
    optimiser = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4, fused=True)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with device.autocast():
            features = net(images)
        features.float().square().mean().backward()
        optimiser.step()

    with CAPTURING:  # the first step lets libraries do their set-up of first use
        step()
    capture = chosen_capture() if device.type == "cuda" else None
    return capture(step) if capture else step


def cpu_name() -> str:
    """Return the name of the processor and its number of cores."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as info:
            name = next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"
