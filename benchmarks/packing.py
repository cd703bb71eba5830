"""Measures several runs side by side on one device: in processes and, on CUDA, also in streams of one process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from sides import BATCH, Ours, Table

from common.graphs import own_stream
from common.training import Device

EPOCHS = 3


def packed(network: str, steps: int, repeats: int, device: Device, jobs: int, cores: int) -> Table:
    """Return images/s of one run alone, and of `jobs` runs side by side (their sum).

    The time is taken from the moment at which all runs have trained one epoch, and so have captured their graphs, to
    the end of the last run.
    """
    alone = {1, cores} if device.type == "cpu" else {cores}
    sides = {f"1 run, {n} thread{'s' * (n > 1)}": (1, n) for n in sorted(alone)}
    each = max(1, cores // jobs)
    sides[f"{jobs} processes, {each} thread{'s' * (each > 1)} each"] = (jobs, each)
    rates: Table = {name: [] for name in sides}
    for _ in range(repeats):
        for name, (number, threads) in sides.items():
            rates[name].append(_processes(network, steps, device, number, threads))
        if device.type == "cuda":
            rates.setdefault(f"{jobs} streams of one process", []).append(_streams(network, steps, device, jobs))
    return rates


def _processes(network: str, steps: int, device: Device, jobs: int, threads: int) -> float:
    """Return images/s of `jobs` worker processes together."""
    words = [network, str(steps), device.type, device.precision, str(threads)]
    workers = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__)), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(jobs)
    ]
    pipes = [(w.stdin, w.stdout) for w in workers if w.stdin and w.stdout]
    assert all(out.readline().strip() == "ready" for _, out in pipes)
    started = time.perf_counter()
    for into, _ in pipes:
        into.write("go\n")
        into.flush()
    assert all(out.readline().strip() == "done" for _, out in pipes)
    seconds = time.perf_counter() - started
    for worker in workers:
        worker.communicate()
    return jobs * EPOCHS * steps * BATCH / seconds


def _worker(network: str, steps: str, device: str, precision: str, threads: str) -> None:
    """Train as one worker process of `_processes`: one epoch, then wait for the others, then the measured epochs."""
    torch.set_num_threads(int(threads))

    def wait_for_others() -> None:
        print("ready", flush=True)
        sys.stdin.readline()

    Ours(network, int(steps), Device(device, precision)).epochs(1 + EPOCHS, wait_for_others)
    print("done", flush=True)


def _streams(network: str, steps: int, device: Device, jobs: int) -> float:
    """Return images/s of `jobs` threads together, each with its own CUDA stream and graphs."""
    barrier = threading.Barrier(jobs + 1, timeout=300)

    def work() -> None:
        with torch.cuda.stream(own_stream()):
            Ours(network, steps, device).epochs(1 + EPOCHS, barrier.wait)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    barrier.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    return jobs * EPOCHS * steps * BATCH / (time.perf_counter() - started)


if __name__ == "__main__":
    _worker(*sys.argv[1:])
