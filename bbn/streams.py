"""What a step of two branches takes: images of two samplers side by side (Sec. 4.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from bbn.methods import Sampler
from common.runs import Schedule
from common.samplers import draw
from common.training import Stage, shuffled


def steps(schedule: Schedule, images: int) -> int:
    """Steps of an epoch over so many images, counted as `fit` counts them."""
    whole = images // schedule.batch
    return max(whole, 1) if schedule.drop_last else math.ceil(images / schedule.batch)


def bilateral(labels: Tensor, kind: Sampler, schedule: Schedule) -> Callable[[Tensor, torch.Generator], Tensor]:
    """A `Stage.sampler` for two branches: `schedule.batch` uniform images, then as many of another sampler, and so on.

    Every index comes at most once among the uniform ones; the others are drawn with replacement (Eq. 4 for reversed).
    Both are as long as `schedule` makes an epoch. labels [n] are of the whole training set.
    """

    def order(indices: Tensor, generator: torch.Generator) -> Tensor:
        used = min(len(indices), steps(schedule, len(indices)) * schedule.batch)
        uniform = shuffled(indices, generator)[:used].split(schedule.batch)
        other = draw(labels[indices], indices, kind, generator)[:used].split(schedule.batch)
        return torch.cat([part for pair in zip(uniform, other, strict=True) for part in pair])

    return order


def in_pairs(stage: Stage, labels: Tensor, kind: Sampler) -> Stage:
    """The stage with twice the batch: its loss gets a uniform half and, after it, one of another sampler."""
    schedule = stage.schedule
    stage.sampler = bilateral(labels, kind, schedule)
    stage.schedule = replace(schedule, batch=2 * schedule.batch)
    stage.parts = 2
    return stage
