"""Training throughput: the loop of fit() against the same step on one fixed batch, which is the compute limit.

    python benchmarks/throughput.py [--network resnet32] [--batch 128] [--batches 12] [--repeats 5]

Both sides are measured in turn in one process, so that the machine's drift hits both alike. Prints medians and spread.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F

from common.heads import LinearHead
from common.incremental import Net
from common.loader import DeviceImages
from common.resnet import backbone
from common.runs import Inputs, Schedule
from common.training import Stage, choose_device, fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet32")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--batches", type=int, default=12, help="steps in one measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's choice")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)

    device = choose_device("auto", args.precision)
    count = args.batch * args.batches
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 50, count)).to(device.torch)
    pixels = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    images = DeviceImages(pixels, labels, Inputs(), device.torch)
    body = backbone(args.network, seed=0)
    net = Net(body, LinearHead(body.out_features, 50), device)

    def loss(batch: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(net(batch), targets)

    class FixedBatch:
        """The same normalised batch again and again: nothing but the step is left."""

        batch = next(images.plain(torch.arange(args.batch, device=device.torch), args.batch))

        def epoch(self, indices: torch.Tensor, batch: int, generator: torch.Generator):
            for _ in range(args.batches):
                yield self.batch, labels[: args.batch]

    schedule = Schedule(epochs=1, lr=0.01, batch=args.batch)
    rates: dict[str, list[float]] = {"fit()": [], "fixed batch": []}
    for repeat in range(args.repeats + 1):  # the first warms up
        for name, source in (("fit()", images), ("fixed batch", FixedBatch())):
            stage = Stage(
                "bench", schedule, torch.arange(count, device=device.torch), loss, net.parameters(), net.train
            )
            started = time.perf_counter()
            fit(stage, source, (repeat,), lambda epoch, optimiser: None)  # type: ignore[arg-type]
            if repeat:
                rates[name].append(count / (time.perf_counter() - started))
    print(f"{args.network}, batch {args.batch}, {device.type} {device.precision}, {torch.get_num_threads()} threads")
    for name, values in rates.items():
        print(f"{name:12} {statistics.median(values):9.0f} images/s   {min(values):.0f} - {max(values):.0f}")
    ratios = [a / b for a, b in zip(*rates.values(), strict=True)]
    print(f"{'ratio':12} {statistics.median(ratios):9.3f}            {min(ratios):.3f} - {max(ratios):.3f}")


if __name__ == "__main__":
    main()
