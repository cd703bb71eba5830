"""Estimates how many images a Run trains on, and how long that takes on this machine. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from common import splits
from common.command.plan import class_counts
from common.data import lists
from common.data.datasets import SUBSETS, Dataset
from common.drawing.results import Result
from common.errors import InputError
from common.runs import Run, canonical

PER_CLASS = {
    **dict.fromkeys(("imagenet", *SUBSETS), 1300),
    "cifar10": 5000,
    "cifar20": 2500,
    **{name: images / classes for name, (classes, images, _) in lists.PUBLISHED.items()},
}
"""Training images per class, by data set, for use before the data set is opened. Data sets not listed count 500."""


def cost(run: Run, dataset: Dataset | InputError | None) -> int:
    """Return how many images a Run trains on over all epochs, without those of the Run it starts from.

    A method that does not train once per epoch on every image defines `cost(run, images)`. It receives the number for
    one pass per epoch and returns its own number.
    """
    images = _images(run, dataset)
    return run.method.cost(run, images) if hasattr(run.method, "cost") else images


def _images(run: Run, dataset: Dataset | InputError | None) -> int:
    """Return the number of training images. Each epoch counts every image of new classes and every exemplar once."""
    protocol, per_class, seen, total = run.protocol, _per_class(run, dataset), 0, 0
    finetune = getattr(run.method, "finetune", None)
    for index, size in enumerate(protocol.sizes):
        quota = protocol.exemplars_per_class
        kept = quota if quota is not None else (protocol.exemplars_total or 0) / max(seen, 1)
        if not (run.start and index == 0 and len(protocol.sizes) > 1):  # the start has trained the base phase
            total += run.schedule.epochs * int(size * per_class + (kept * seen if seen else 0))
        seen += size
        if finetune and index:
            total += finetune.epochs * int(kept * seen)
    return total


def _per_class(run: Run, dataset: Dataset | InputError | None) -> float:
    """Return the number of training images per class, averaged over classes."""
    if isinstance(dataset, Dataset):
        return float(class_counts(run, dataset).mean())
    images = float(run.data.per_class or PER_CLASS.get(run.data.name, 500))
    if tail := run.longtail:
        counts = splits.longtail_counts(sum(run.protocol.sizes), int(images), tail.imbalance, tail.profile)
        images = float(counts.mean())
    return images


def seconds_left(runs: Sequence[Run], costs: Sequence[int], finished: Sequence[Result], jobs: int) -> float | None:
    """Return how many seconds `runs` take, `jobs` at a time, or None if the speed of one of them is not known.

    costs: the images that each run trains on. The speed is the median of finished runs with the same network, and with
    the same method if there are such runs.
    """

    def method(config: dict) -> tuple[str, str]:
        return config["method"]["type"], (config.get("start") or config)["method"]["type"]

    total = 0.0
    for run, images in zip(runs, costs, strict=True):
        ended = [r for r in finished if r.config["network"] == run.network and r.environment.get("images_per_second")]
        if not ended:
            return None
        alike = [r for r in ended if method(r.config) == method(canonical(run))]
        total += images / median(r.environment["images_per_second"] for r in alike or ended)
    return total / jobs
