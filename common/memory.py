"""A learner's Context: the images of its Run, and the memory of exemplars that herding chose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common import splits
from common.data.datasets import Dataset
from common.errors import InputError
from common.heads import Net, extract
from common.loader import Images, open_images
from common.runs import Run
from common.store import Workspace
from common.training import Device, seeded

MAX_ITERATIONS = 1000  # as in iCaRL's and LUCIR's official code


def herd(features: Tensor, count: int) -> Tensor:
    """Return the indices of `count` images in rank order, chosen by Welling's herding as iCaRL and LUCIR run it.

    features [n, d] are L2-normalised here; their mean is not. An iteration may pick an image again. It then adds no
    exemplar, but still updates the weight vector. After 1000 iterations, which only large exemplar sets reach, herding
    picks only among the remaining images, so that it always returns `count` distinct ones.

    Returns int64 [count] on the features' device. Raises ValueError if count is negative or exceeds n, and if features
    are not finite, since no order is the right one then.
    """
    if not 0 <= count <= len(features):
        raise ValueError(f"cannot pick {count} exemplars from {len(features)} images")
    features = F.normalize(features.double(), dim=1, eps=1e-8)
    mean = features.mean(dim=0)
    # argmax <w, x> needs only the scores. Updating them with rows of the Gram matrix avoids n x d work per pick.
    # Every pick reads one number back, so the loop runs on the CPU.
    gram, step = (features @ features.T).cpu(), (features @ mean).cpu()
    if not step.isfinite().all():
        raise ValueError("herding needs finite features; training may have diverged")
    scores, picked = step.clone(), torch.zeros(len(features), dtype=torch.bool)
    ranks: list[int] = []
    for iteration in range(MAX_ITERATIONS + count):
        if len(ranks) == count:
            break
        if iteration >= MAX_ITERATIONS:
            scores = scores.masked_fill(picked, -torch.inf)
        best = int(scores.argmax())
        if not picked[best]:
            picked[best] = True
            ranks.append(best)
        scores = scores + step - gram[best]
    return torch.tensor(ranks, dtype=torch.long, device=features.device)


@dataclass
class ExemplarMemory:
    """The exemplars of each class: their training indices in the order that herding picked them.

    Exactly one of two budgets is set. per_class is a fixed number for each class, so the memory grows (R_per in LUCIR).
    total is shared by the classes seen so far: each gets ceil(total / seen) exemplars (LUCIR's --fix_budget), or floor
    with rounding="down" (DER). A class with fewer images keeps all of them under `total`, and is an error under
    `per_class` unless `capped` is set.
    """

    per_class: int | None = None
    total: int | None = None
    indices: dict[int, Tensor] = field(default_factory=dict)
    rounding: Literal["up", "down"] = "up"
    capped: bool = False
    """Whether a class with fewer images than per_class keeps all of them, as on a long-tailed subset."""
    tensors: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    """Tensors kept with the exemplars: name -> class -> one row for each of its exemplars, in the same order."""

    def __post_init__(self) -> None:
        if (self.per_class is None) == (self.total is None):
            raise ValueError("give exemplars per class or in total, not both and not neither")
        if (asked := self.total if self.per_class is None else self.per_class) and asked < 0:
            raise ValueError(f"exemplars must not be negative, got {asked}")

    def quota(self, seen: int) -> int:
        """Return the number of exemplars each class may have once `seen` classes are known."""
        if self.per_class is not None:
            return self.per_class
        total = self.total or 0
        return total // seen if self.rounding == "down" else -(-total // seen)

    def size_for(self, available: int, seen: int) -> int:
        """Return how many exemplars a class with `available` images gets.

        Raises ValueError if a per-class budget that is not capped exceeds the images.
        """
        quota = self.quota(seen)
        if self.per_class is not None and quota > available and not self.capped:
            raise ValueError(f"{quota} exemplars per class asked for, but a class has {available} images")
        return min(quota, available)

    def add(self, label: int, indices: Tensor, features: Tensor, seen: int) -> None:
        """Choose a new class's exemplars by herding. indices [n]: its training images, with features [n, d]."""
        self.indices[label] = indices[herd(features, self.size_for(len(indices), seen)).to(indices.device)]

    def shrink(self, seen: int) -> None:
        """Truncate every class to its quota at `seen` classes. Under a per-class budget nothing changes."""
        quota = self.quota(seen)
        self.indices = {label: kept[:quota] for label, kept in self.indices.items()}
        self.tensors = {
            n: {label: rows[:quota] for label, rows in by_class.items()} for n, by_class in self.tensors.items()
        }

    def attach(self, label: int, tensors: dict[str, Tensor]) -> None:
        """Keep tensors [m, ...], by name, with the m exemplars of a class.

        Raises InputError unless every tensor is floating point and has one row for each exemplar.
        """
        count = len(self.indices[label])
        for name, rows in tensors.items():
            if len(rows) != count or not rows.is_floating_point():
                raise InputError(
                    f"{name!r}, kept beside the {count} exemplars of class {label}, must be floats with a row for "
                    f"each, not {rows.dtype} of shape {list(rows.shape)}"
                )
            self.tensors.setdefault(name, {})[label] = rows.detach()

    def lookup(self, name: str) -> Callable[[Tensor], Tensor]:
        """Return a function that looks up the rows kept under `name`: training indices [b] -> rows [b, ...].

        The row of an image that is no exemplar is NaN. The function is valid until exemplars are chosen anew. A loss
        may call it, in a CUDA graph too, since it never waits for the device. Raises InputError if `name` was not kept
        for every class.
        """
        if self.tensors.get(name, {}).keys() != self.indices.keys() or not self.indices:
            raise InputError(f"{name!r} is not kept beside every exemplar; `remember` says what is")
        indices, order = self.all().sort()
        rows = torch.cat([self.tensors[name][label] for label in self.indices])[order]

        def found(wanted: Tensor) -> Tensor:
            places = torch.searchsorted(indices, wanted).clamp(max=len(indices) - 1)
            unknown = (indices[places] != wanted).view(-1, *[1] * (rows.ndim - 1))
            return rows[places].masked_fill(unknown, torch.nan)

        return found

    def all(self) -> Tensor:
        """Return the training indices of all exemplars, class by class; int64 [m]."""
        return torch.cat(list(self.indices.values())) if self.indices else torch.empty(0, dtype=torch.long)


@dataclass(frozen=True)
class Phase:
    """Phase `index`: `num_new` classes join the `num_old` known ones. Labels num_old..seen-1 are the new classes."""

    index: int
    num_old: int
    num_new: int

    @property
    def seen(self) -> int:
        """The number of classes known once this phase is over."""
        return self.num_old + self.num_new


@dataclass
class Context:
    """All that a learner may use: the Run, the images with their labels, and the exemplars kept so far."""

    run: Run
    device: Device
    train: Images
    test: Images
    memory: ExemplarMemory
    subset: Tensor | None = None
    """Mask of the training images that the Run sees, bool [n]; None: all images."""
    workspace: Workspace | None = None
    """The run's folder, where a learner may save tensors for the Runs that start from this one."""

    @cached_property
    def counts(self) -> np.ndarray:
        """The number of training images of each class that the Run sees, in class order; int64 [c]."""
        labels = self.train.labels if self.subset is None else self.train.labels[self.subset]
        classes = sum(self.run.protocol.sizes)
        return torch.bincount(labels, minlength=classes)[:classes].cpu().numpy()

    @property
    def long_tailed(self) -> bool:
        """Whether Results also list accuracies by class size.

        They do on a long-tailed subset, and on classes of unequal sizes that are all learnt at once.
        """
        if self.run.longtail is not None:
            return True
        return len(self.run.protocol.sizes) == 1 and len(set(self.counts.tolist())) > 1

    def generator(self, *keys: object) -> torch.Generator:
        """Return a CPU generator for initialisation that depends only on the Run's seed and `keys`."""
        return seeded(torch.device("cpu"), self.run.seed, *keys)

    def of_classes(self, first: int, last: int) -> Tensor:
        """Return the training indices of the classes first..last-1."""
        labels = self.train.labels
        inside = (labels >= first) & (labels < last)
        return (inside if self.subset is None else inside & self.subset).nonzero().squeeze(1)

    def of_phase(self, phase: Phase) -> Tensor:
        """Return the training indices of the phase's new classes, then those of the exemplars."""
        new = self.of_classes(phase.num_old, phase.seen)
        return torch.cat([new, self.memory.all().to(new.device)])


def open_context(spec: Run, dataset: Dataset, device: Device, workspace: Workspace | None = None) -> Context:
    """Return a Run's Context: its images on the device, and an empty memory."""
    position = splits.positions(splits.named_order(spec.order, len(dataset.classes)))
    protocol = spec.protocol
    memory = ExemplarMemory(
        protocol.exemplars_per_class,
        protocol.exemplars_total,
        rounding=protocol.rounding,
        capped=spec.longtail is not None,
    )
    train, test = (open_images(dataset, split, position, spec.inputs, device.torch) for split in ("train", "test"))
    subset = None
    if tail := spec.longtail:
        subset = torch.zeros(len(train.labels), dtype=torch.bool)
        subset[splits.longtail_indices(dataset.train_labels, tail.imbalance, tail.seed, tail.profile)] = True
        subset = subset.to(device.torch)
    return Context(spec, device, train, test, memory, subset, workspace)


def by_class(net: Net, context: Context, phase: Phase) -> dict[int, tuple[Tensor, Tensor]]:
    """Return the training indices [n] and the features [n, d] of each new class, by label."""
    indices = context.of_classes(phase.num_old, phase.seen)
    labels, features = context.train.labels[indices], extract(net, context.train, indices)
    return {c: (indices[labels == c], features[labels == c]) for c in range(phase.num_old, phase.seen)}
