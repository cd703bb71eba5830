"""Tests whether the fast training step learns as well as the conventional loop: test accuracies over several seeds.

    python benchmarks/parity.py [--seeds 5] [--epochs 8] [--data DIR [--network resnet32]]

Both train with cross-entropy on the first classes of LUCIR's protocol (its base phase), on the embedded glyphs or, with
--data, on CIFAR-100. The fast step is `fit()` as in any run: batched augmentation, channels_last, bf16 if the hardware
has it, CUDA graphs on a GPU. The conventional loop is the one in `conventional.py`: Pillow, workers, fp32. Images,
network, schedule and initial weights are the same. Prints both means, their difference and its 95 % t-interval. The
exit code is 1 if the interval does not contain 0. Half its width is the smallest difference that the seeds can show.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from conventional import Conventional
from scipy import stats
from torch import Tensor, nn

from common.data.datasets import Dataset, DataSpec, load
from common.heads import LinearHead
from common.incremental import Net, extract
from common.loader import DeviceImages
from common.resnet import backbone
from common.runs import Inputs, Schedule
from common.training import Device, Stage, choose_device, fit


def first_classes(dataset: Dataset, count: int) -> Dataset:
    """Return the data set with only its first `count` classes."""
    train, test = dataset.train_labels < count, dataset.test_labels < count
    images = (np.asarray(dataset.train_images)[train], np.asarray(dataset.test_images)[test])
    labels = (dataset.train_labels[train], dataset.test_labels[test])
    return Dataset(dataset.name, images[0], labels[0], images[1], labels[1], dataset.classes[:count], "")


@torch.no_grad()
def accuracy(features: Tensor, head: nn.Module, labels: Tensor) -> float:
    return 100 * float((head(features).argmax(1) == labels).double().mean())


def ours(data: Dataset, network: str, schedule: Schedule, seed: int, device: Device) -> float:
    """Return the test accuracy in percent after training with fit()."""
    torch.manual_seed(seed)
    body = backbone(network, seed=seed)
    net = Net(body, LinearHead(body.out_features, len(data.classes)), device)  # type: ignore[arg-type]
    train, test = (
        DeviceImages(images, torch.from_numpy(labels).to(device.torch), Inputs(), device.torch)  # type: ignore[arg-type]
        for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels))
    )
    rows = torch.arange(len(train.labels), device=device.torch)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(net(images), labels)

    fit(Stage("parity", schedule, rows, loss, net.parameters(), net.train), train, (seed,), lambda *report: None)
    features = extract(net, test, torch.arange(len(test.labels), device=device.torch))
    return accuracy(features, net.head, test.labels)


def theirs(data: Dataset, network: str, schedule: Schedule, seed: int, device: Device, workers: int) -> float:
    """Return the test accuracy in percent after training with the conventional loop."""
    images, labels, classes = data.train_images, data.train_labels, len(data.classes)
    loop = Conventional(network, images, labels, classes, schedule, device.torch, workers, seed)  # type: ignore[arg-type]
    for epoch in range(schedule.epochs):
        loop.epoch(epoch)
    loop.net.eval()
    test_labels = torch.from_numpy(data.test_labels).to(device.torch)
    test = DeviceImages(data.test_images, test_labels, Inputs(), device.torch)  # type: ignore[arg-type]
    body, head = loop.net
    with torch.no_grad():
        features = torch.cat([body(batch) for batch in test.plain(torch.arange(len(test_labels)))])
    return accuracy(features, head, test_labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--network", default="resnet8-half")
    parser.add_argument("--data", type=Path, help="a folder with CIFAR-100; the embedded glyphs without it")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--workers", type=int, default=0, help="of the conventional loop")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads: with others at work, more are slower")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error("--seeds must be at least 2: an interval needs them")

    torch.set_num_threads(args.threads)
    device = choose_device(args.device, args.precision)
    spec = DataSpec("cifar100") if args.data else DataSpec("glyphs", classes=20, per_class=150, test_per_class=100)
    data = first_classes(load(spec, args.data), 50)
    milestones = (args.epochs // 2, args.epochs * 3 // 4)
    schedule = Schedule(args.epochs, 0.1, milestones, batch=128 if args.data else 32)
    rows = []
    for seed in range(args.seeds):
        row = (
            ours(data, args.network, schedule, seed, device),
            theirs(data, args.network, schedule, seed, device, args.workers),
        )
        print(f"seed {seed}: fit() {row[0]:.2f} %   conventional {row[1]:.2f} %", flush=True)
        rows.append(row)
    a, b = np.array(rows).T
    found = stats.ttest_ind(a, b, equal_var=False)
    low, high = found.confidence_interval(0.95)
    print(f"{args.network}, {args.epochs} epochs, {device.type} {device.precision}, {args.seeds} seeds each")
    print(f"fit() {a.mean():.2f} +- {a.std(ddof=1):.2f}   conventional {b.mean():.2f} +- {b.std(ddof=1):.2f} (std)")
    print(f"difference {a.mean() - b.mean():+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}")
    if args.json:
        settings = {
            "network": args.network,
            "epochs": args.epochs,
            "device": device.type,
            "precision": device.precision,
        }
        args.json.write_text(json.dumps({**settings, "fit": a.tolist(), "conventional": b.tolist()}), encoding="utf-8")
    if not low <= 0 <= high:
        sys.exit("the two differ by more than the seeds explain")


if __name__ == "__main__":
    main()
