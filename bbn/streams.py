"""Batches for two branches: images of a uniform sampler, followed by images of a second sampler (Sec. 4.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from bbn.methods import Sampler
from common.runs import Schedule
from common.samplers import sample_indices
from common.training import Stage, shuffled


def steps(schedule: Schedule, images: int) -> int:
    """Return the number of steps in an epoch over `images` images, counted as `fit` counts them."""
    whole = images // schedule.batch
    return max(whole, 1) if schedule.drop_last else math.ceil(images / schedule.batch)


def bilateral(labels: Tensor, kind: Sampler, schedule: Schedule) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Return a `Stage.sampler` for two branches, which alternates batches of uniform images and of another sampler.

    Every index occurs at most once among the uniform ones. The others are sampled with replacement (Eq. 4 for kind
    reversed). Each sampler contributes as many images as `schedule` puts into an epoch. labels [n]: labels of the whole
    training set.
    """

    def order(indices: Tensor, generator: torch.Generator) -> Tensor:
        used = min(len(indices), steps(schedule, len(indices)) * schedule.batch)
        uniform = shuffled(indices, generator)[:used].split(schedule.batch)
        other = sample_indices(labels[indices], indices, kind, generator)[:used].split(schedule.batch)
        return torch.cat([part for pair in zip(uniform, other, strict=True) for part in pair])

    return order


def in_pairs(stage: Stage, labels: Tensor, kind: Sampler) -> Stage:
    """Double the stage's batch, and return the stage: its loss gets a uniform half, then a half of another sampler."""
    schedule = stage.schedule
    stage.sampler = bilateral(labels, kind, schedule)
    stage.schedule = replace(schedule, batch=2 * schedule.batch)
    stage.parts = 2
    return stage
