"""Finds, before any training, images so small that a network cannot be trained on a batch of one."""

from __future__ import annotations

import numpy as np

from common import splits
from common.data.datasets import Dataset
from common.errors import InputError
from common.runs import Run

SIDE = 8  # pixels; larger images keep more than one value a channel in every network for small images


def refuse_lone_images(run: Run, dataset: Dataset, counts: np.ndarray) -> None:
    """Raise InputError if some batch has a single image that the network reduces to one value per channel.

    BatchNorm cannot normalise a single value. The last batch of a phase, over images of new classes and exemplars of
    old ones, may hold one image. counts: training images of every class, in the data set's class order.
    """
    images = dataset.train_images
    if not isinstance(images, np.ndarray) or max(images.shape[1:3]) > SIDE or run.schedule.drop_last:
        return
    lone = next((n for n in _phase_sizes(run, counts) if n % run.schedule.batch == 1 % run.schedule.batch), 0)
    if not lone:
        return
    import torch

    from common.resnet import backbone

    try:
        backbone(run.network).train()(torch.zeros(1, 3, *images.shape[1:3]))
    except ValueError:  # BatchNorm expects more than one value per channel
        raise InputError(
            f"images of {images.shape[1]} x {images.shape[2]} pixels are a single value a channel after {run.network}, "
            f"which cannot be trained on one image, and a phase has {lone:,}, so that its last batch of "
            f"{run.schedule.batch} has one; give larger images, or one image more or less"
        ) from None


def _phase_sizes(run: Run, counts: np.ndarray) -> list[int]:
    """Return how many images each phase trains on: all images of its new classes, and the exemplars of old classes."""
    from common.memory import ExemplarMemory

    protocol, sizes, seen = run.protocol, list[int](), 0
    memory = ExemplarMemory(protocol.exemplars_per_class, protocol.exemplars_total, rounding=protocol.rounding)
    ordered = counts[splits.named_order(run.order, sum(protocol.sizes))]
    for new in protocol.sizes:
        kept = np.minimum(ordered[:seen], memory.quota(seen)).sum() if seen else 0
        sizes.append(int(ordered[seen : seen + new].sum() + kept))
        seen += new
    return sizes
