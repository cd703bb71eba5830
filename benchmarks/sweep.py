"""Measures how many runs a GPU should train at once: total images/s of K threads that replay a captured step.

    python benchmarks/sweep.py [--json FILE]

K goes from 1 to 16. The conventional loop, with one run in fp32, is measured too and, on CUDA, the time of a graph
capture in two ways. With --device cpu steps are called from Python, which only rehearses the benchmark.
"""

from __future__ import annotations

import argparse
import json
import statistics
from functools import partial
from pathlib import Path

import torch
from sides import BATCH, CLASSES, random_images, timed

from common.graphs import cuda_graph, own_stream, torch_graph
from common.runs import Schedule
from common.training import Device, choose_device
from common.tuning import COUNTS, cpu_name, least_within, rates_side_by_side


def conventional(device: Device, steps: int, workers: int) -> float:
    """Return images/s of the conventional loop over `steps` batches, after as many batches to warm up."""
    from conventional import Conventional

    pixels, labels = random_images(steps * BATCH)
    schedule = Schedule(epochs=1, lr=0.01, batch=BATCH)
    loop = Conventional("resnet32", pixels, labels, CLASSES, schedule, device.torch, workers)
    loop.epoch()
    return steps * BATCH / timed(loop.epoch, device)


def capture_times(repeats: int = 5) -> dict[str, float]:
    """Return the median milliseconds of capturing a tiny graph in each way: the cost of a capture without its step."""
    weight = torch.zeros((), device="cuda")

    def body() -> None:
        weight.add_(1)

    times: dict[str, list[float]] = {"new": [], "torch": []}
    with torch.cuda.stream(own_stream()):
        body()
        for _ in range(1 + repeats):
            for name, way in (("new", cuda_graph), ("torch", torch_graph)):
                times[name].append(1000 * timed(partial(way, body), Device("cuda", "fp32")))
    return {name: round(statistics.median(values[1:]), 2) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="runs at once")
    parser.add_argument("--seconds", type=float, default=2.5, help="of each number of runs")
    parser.add_argument("--steps", type=int, default=100, help="of the conventional loop; 0: leave it out")
    parser.add_argument("--workers", type=int, default=8, help="of the conventional loop")
    parser.add_argument("--json", type=Path, help="write every measurement there")
    args = parser.parse_args()
    device = choose_device(args.device, args.precision)
    found = {"device": torch.cuda.get_device_name() if device.type == "cuda" else cpu_name(), "batch": BATCH}
    print(f"{found['device']}, ResNet-32, batch {BATCH}, {device.precision}, torch {torch.__version__}", flush=True)
    rates = rates_side_by_side(device, args.counts, args.seconds)
    usual = conventional(device, args.steps, args.workers) if args.steps else 0.0
    for runs, rate in rates.items():
        beside = f"   {rate / usual:5.1f} times the conventional loop" if usual else ""
        print(f"{runs:3} runs {rate:10,.0f} images/s{beside}")
    print(f"conventional, {args.workers} workers {usual:,.0f} images/s; runs at once: {least_within(rates)}")
    found |= {"rates": rates, "jobs": least_within(rates), "conventional": usual}
    if device.type == "cuda":
        found["capture_ms"] = capture_times()
        print(f"a small capture, ms: {found['capture_ms']}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
