"""Images that are too small for a network when they come alone: found before any training."""

from __future__ import annotations

import numpy as np

from common import splits
from common.data.datasets import Dataset
from common.errors import InputError
from common.runs import Run

SIDE = 8  # pixels; larger images keep more than one value a channel in every network for small images


def refuse_lone_images(run: Run, dataset: Dataset, counts: np.ndarray) -> None:
    """InputError where a batch of one image becomes one value a channel, which BatchNorm cannot normalise.

    counts: training images of every class, in the data set's order. It is the last batch of a phase's images, those of
    its new classes and the exemplars of the old, that may have a single one.
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
    except ValueError:  # more than one value a channel is expected
        raise InputError(
            f"images of {images.shape[1]} x {images.shape[2]} pixels are a single value a channel after {run.network}, "
            f"which cannot be trained on one image, and a phase has {lone:,}, so that its last batch of "
            f"{run.schedule.batch} has one; give larger images, or one image more or less"
        ) from None


def _phase_sizes(run: Run, counts: np.ndarray) -> list[int]:
    """Images that each phase trains on: all of its new classes, and the exemplars of the old."""
    from common.memory import ExemplarMemory

    protocol, sizes, seen = run.protocol, list[int](), 0
    memory = ExemplarMemory(protocol.exemplars_per_class, protocol.exemplars_total, rounding=protocol.rounding)
    ordered = counts[splits.named_order(run.order, sum(protocol.sizes))]
    for new in protocol.sizes:
        kept = np.minimum(ordered[:seen], memory.quota(seen)).sum() if seen else 0
        sizes.append(int(ordered[seen : seen + new].sum() + kept))
        seen += new
    return sizes
