"""Measures how fast training is, compared with the limit of the machine and with the conventional loop.

    python benchmarks/throughput.py [--parts training packed images features ...] [--json FILE]

The sides of each comparison are measured in turn, repeat after repeat, so that the machine's drift affects all alike:
quote the ratios. Prints tables of medians with the range of the repeats. README.md beside this file explains them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from packing import packed
from sides import BATCH, CLASSES, Ours, Table, random_images, synchronise, timed

from common.heads import LinearHead
from common.incremental import Net, extract, frozen_copy
from common.loader import DeviceImages
from common.memory import herd
from common.metrics import nearest_mean
from common.resnet import backbone
from common.runs import Inputs, Schedule
from common.training import Device, Stage, choose_device, fit
from common.tuning import cpu_name

STEPS = {  # steps per epoch in the training part, on a CPU and on CUDA
    "resnet8-half": (48, 400),
    "resnet32": (12, 400),
    "resnet18": (4, 200),
}


def training(network: str, steps: int, repeats: int, device: Device, workers: list[int]) -> Table:
    """Return images/s of fit(), of the same step on one fixed batch, and of the conventional loop."""
    from conventional import Conventional  # imported late: its imports take 300 MiB, which `memory` must not count

    ours = Ours(network, steps, device)
    fixed = ours.fixed_batch()
    schedule = Schedule(epochs=1, lr=0.01, batch=BATCH)
    theirs = {
        f"(c) conventional, {n} workers": Conventional(
            network, ours.pixels, ours.labels, CLASSES, schedule, device.torch, n
        )
        for n in workers
    }
    rates: Table = {name: [] for name in ("(a) fit()", "(b) fixed batch", *theirs)}
    for repeat in range(repeats + 1):  # the first repeat warms up
        # On CUDA the first epoch of a stage also captures the graphs, so the second one is timed.
        (*_, seconds) = ours.epochs(2 if device.type == "cuda" else 1)
        row = [seconds, timed(lambda: [fixed() for _ in range(steps)], device)]
        row += [timed(loop.epoch, device) for loop in theirs.values()]
        for values, took in zip(rates.values(), row, strict=True):
            values += [ours.count / took] if repeat else []
    return rates


def herd_in_loops(features: torch.Tensor, count: int) -> list[int]:
    """Herd one class as plain code does: a loop over candidates inside a loop over picks (inside one over classes)."""
    x = F.normalize(features.double(), dim=1)
    mean, total, picked = x.mean(0), torch.zeros_like(x[0]), list[int]()
    for k in range(count):
        best, smallest = -1, float("inf")
        for i in range(len(x)):
            if i not in picked:
                distance = float((mean - (total + x[i]) / (k + 1)).norm())
                if distance < smallest:
                    best, smallest = i, distance
        picked.append(best)
        total = total + x[best]
    return picked


def features(repeats: int, device: Device) -> Table:
    """Return the milliseconds of work after a phase: features of 2,000 images, herding 20 of 500 in 10 classes, NME."""
    ours = Ours("resnet32", 16, device)
    rows = torch.arange(2000, device=device.torch)
    x = torch.rand(10, 500, 64, device=device.torch)
    means = torch.rand(100, 64, device=device.torch)
    queries = torch.rand(10_000, 64, device=device.torch)
    cases: dict[str, Callable[[], object]] = {
        "features of 2,000 images": lambda: extract(ours.net, ours.images, rows),
        "herding 10 classes": lambda: [herd(f, 20) for f in x],
        "herding 10 classes, triple loop": lambda: [herd_in_loops(f, 20) for f in x[:1].cpu()],
        "NME of 10,000 images, 100 classes": lambda: nearest_mean(queries, means),
    }
    times: Table = {name: [] for name in cases}
    for _ in range(repeats):
        for name, action in cases.items():
            scale = 10 if "triple" in name else 1  # only one of ten classes was timed
            times[name].append(1000 * scale * timed(action, device))
    return times


def startup(repeats: int) -> Table:
    """Return the seconds that the commands --help and --list take as a whole."""
    times: Table = {"--help": [], "--list": []}
    for _ in range(repeats):
        for word, values in times.items():
            started = time.perf_counter()
            command = [sys.executable, "-m", "lucir.reproduce", word]
            subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[1])
            values.append(time.perf_counter() - started)
    return times


def memory(device: Device) -> Table:
    """Return the peak memory in MiB of a process that trains a ResNet-32 with a teacher and extracts features.

    Its data have the size of CIFAR.
    """
    with tempfile.TemporaryDirectory() as folder:
        pixels, _ = random_images(50_000)
        np.save(Path(folder, "images.npy"), pixels)
        words = ["--memory", folder, device.type, device.precision]
        found = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, text=True).stdout
    return {name: [float(value)] for name, value in json.loads(found).items()}


def _memory_worker(folder: str, device: str, precision: str) -> None:
    chosen = Device(device, precision)
    pixels = np.load(Path(folder, "images.npy"), mmap_mode="c")
    images = DeviceImages(pixels, torch.arange(50_000, device=chosen.torch) % CLASSES, Inputs(), chosen.torch)
    before = _peak()
    body = backbone("resnet32", seed=0)
    net = Net(body, LinearHead(body.out_features, CLASSES), chosen)  # type: ignore[arg-type]
    teacher = frozen_copy(net, chosen)

    def loss(batch: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            old = teacher.features(batch)
        features = net.features(batch)
        return F.cross_entropy(net.head(features), labels) + (features - old).square().mean()

    rows = torch.arange(0, 50_000, 97, device=chosen.torch)
    stage = Stage("bench", Schedule(1, lr=0.01), rows, loss, net.parameters(), net.train)
    fit(stage, images, (0,), lambda epoch, optimiser: None)
    extract(net, images, torch.arange(2000, device=chosen.torch))
    pixels.reshape(-1, 4096)[:, 0].sum()  # touches every page of the data set, as a long run does
    print(json.dumps({"before training": before, "peak": _peak()}))


def _peak() -> float:
    """Return the peak resident memory of this process in MiB, including pages shared with other processes."""
    try:  # on Linux getrusage also counts the parent's memory, which a child shares for a moment
        line = next(
            x
            for x in Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
            if x.startswith("VmHWM")
        )
        return int(line.split()[1]) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 2**20)


def profile(network: str, device: Device, repeats: int) -> Table:
    """Return the milliseconds of each part of one step, with the device synchronised after each part.

    Measures our step, called from Python, and that of the conventional loop.
    """
    from conventional import Conventional

    ours = Ours(network, 2, device)
    schedule = Schedule(epochs=1, lr=0.01, batch=BATCH)
    theirs = Conventional(network, ours.pixels, ours.labels, CLASSES, schedule, device.torch, workers=0)
    optimiser = torch.optim.SGD(ours.net.parameters(), 0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    order, generator = torch.arange(BATCH), torch.Generator().manual_seed(0)
    ours.net.train(), theirs.net.train()
    table, last = dict[str, list[float]](), time.perf_counter()

    def lap(name: str) -> None:
        nonlocal last
        synchronise(device)
        table.setdefault(name, []).append(1000 * (time.perf_counter() - last))
        last = time.perf_counter()

    for _ in range(repeats + 1):
        last = time.perf_counter()
        images, labels = next(iter(ours.images.epoch(order, BATCH, generator)))
        lap("ours: batch")
        loss = ours.loss(images, labels)
        lap("ours: forward and loss")
        optimiser.zero_grad()
        loss.backward()
        lap("ours: backward")
        optimiser.step()
        lap("ours: optimiser")
        images, labels = (x.to(device.torch) for x in next(iter(theirs.loader)))
        lap("conventional: batch, on one core")
        loss = F.cross_entropy(theirs.net(images), labels)
        lap("conventional: forward and loss")
        theirs.optimiser.zero_grad()
        loss.backward()
        lap("conventional: backward")
        theirs.optimiser.step()
        loss.item()
        lap("conventional: optimiser and item()")
    return {name: values[1:] for name, values in table.items()}


def show(title: str, unit: str, table: Table) -> None:
    print(f"\n{title}")
    for name, values in table.items():
        print(f"  {name:36} {statistics.median(values):11.1f} {unit}   {min(values):.1f} - {max(values):.1f}")


def ratio(over: list[float], under: list[float]) -> str:
    values = [a / b for a, b in zip(over, under, strict=True)]
    return f"{statistics.median(values):.3f} ({min(values):.3f} - {max(values):.3f})"


def machine(device: Device) -> dict[str, str | int]:
    name = torch.cuda.get_device_name() if device.type == "cuda" else cpu_name()
    return {"device": name, "precision": device.precision, "threads": torch.get_num_threads(),
            "torch": torch.__version__, "python": platform.python_version()}  # fmt: skip


PARTS = ("training", "packed", "images", "features", "startup", "memory", "profile")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--networks", nargs="+", default=["resnet32", "resnet18"], help="of the training part")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--jobs", type=int, default=0, help="runs packed on the device; 0: 4 on CUDA, else one a core")
    parser.add_argument(
        "--workers", type=int, nargs="+", help="of the conventional loop; 8 on CUDA, else 0 and one a core"
    )
    parser.add_argument("--json", type=Path, help="write every measurement there")
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if args.memory:
        return _memory_worker(*args.memory)
    device = choose_device(args.device, args.precision)
    cuda, cores, repeats = device.type == "cuda", os.cpu_count() or 1, args.repeats
    torch.backends.cudnn.benchmark = True  # as in training, and in most public code
    workers, jobs = args.workers or ([8] if cuda else [0, cores]), args.jobs or (4 if cuda else cores)
    tables: dict[str, tuple[str, Callable[[], Table]]] = {
        "features": ("ms", lambda: features(repeats, device)),
        "startup": ("s", lambda: startup(repeats)),
        "memory": ("MiB", lambda: memory(device)),
        "profile": ("ms", lambda: profile("resnet32", device, repeats)),
    }
    measured: dict[str, Table] = {}
    print(json.dumps(machine(device)))
    for network in args.networks if "training" in args.parts else ():
        table = training(network, STEPS[network][cuda], repeats, device, workers)
        measured[f"training {network}"] = table
        show(f"training {network}, batch {BATCH}", "images/s", table)
        ours, fixed, *theirs = table.values()
        print(f"  (a)/(b) {ratio(ours, fixed)}   (a)/(c) {ratio(ours, max(theirs, key=statistics.median))}")
    for network in ("resnet8-half", "resnet32") if "packed" in args.parts else ():
        table = measured[f"packed {network}"] = packed(network, STEPS[network][cuda], repeats, device, jobs, cores)
        show(f"packed {network}, all runs together", "images/s", table)
        alone = max((v for n, v in table.items() if n.startswith("1 run")), key=statistics.median)
        for name, values in table.items():
            if not name.startswith("1 run"):
                print(f"  {name}, over the best alone: {ratio(values, alone)}")
    if "images" in args.parts:
        from photos import photos  # imported late: other parts do not need its imports

        table = measured["images"] = photos(repeats, device)
        show("images, 500 x 375 JPEGs, a second of CPU time", "images/s", table)
        ours, *theirs = table.values()
        print("  " + "   ".join(f"(a)/({side}) {ratio(ours, rates)}" for side, rates in zip("cd", theirs, strict=True)))
    for name, (unit, measure) in tables.items():
        if name in args.parts:
            measured[name] = measure()
            show(name, unit, measured[name])
    if args.json:
        content = {"machine": machine(device), "batch": BATCH, "measured": measured}
        args.json.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
