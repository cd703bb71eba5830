"""What a learner learns from: its Context, with the images, and the exemplars of old classes that herding chose."""

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
    """Welling's herding as iCaRL and LUCIR run it: the indices of `count` images in rank order.

    features [n, d] are L2-normalised here; their mean is not. The weight vector is updated also when an image is
    picked again, so repeats are skipped, not replaced by the next best. After 1000 iterations, which only large
    exemplar sets reach, it goes on among the images not yet picked, so that exactly `count` distinct ones come back.

    Returns int64 [count] on the features' device. Raises ValueError if count is negative or exceeds n.
    """
    if not 0 <= count <= len(features):
        raise ValueError(f"cannot pick {count} exemplars from {len(features)} images")
    features = F.normalize(features.double(), dim=1, eps=1e-8)
    mean = features.mean(dim=0)
    # argmax <w, x> needs only the scores: updating those with the Gram matrix's rows avoids n x d work per pick.
    # The picks themselves read a number each, so they are made on the CPU.
    gram, step = (features @ features.T).cpu(), (features @ mean).cpu()
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
    """Image indices kept for each class, in herding rank. Exactly one of the two budgets is set.

    per_class: fixed number a class, so the memory grows (R_per in LUCIR). total: a fixed budget shared by the classes
    seen so far, ceil(total / seen) each (LUCIR's --fix_budget), or floor (DER). It is capped at a class's size;
    per_class is not, unless `capped` says so, since who asks for 20 of 15 images has mistaken something.
    """

    per_class: int | None = None
    total: int | None = None
    indices: dict[int, Tensor] = field(default_factory=dict)
    rounding: Literal["up", "down"] = "up"
    capped: bool = False
    """Whether a class with fewer images than per_class keeps them all: those of a long-tailed subset do."""
    tensors: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    """What is kept beside the exemplars: name -> class -> a row for each of its exemplars, in the same order."""

    def __post_init__(self) -> None:
        if (self.per_class is None) == (self.total is None):
            raise ValueError("give exemplars per class or in total, not both and not neither")
        if (asked := self.total if self.per_class is None else self.per_class) and asked < 0:
            raise ValueError(f"exemplars must not be negative, got {asked}")

    def quota(self, seen: int) -> int:
        """Exemplars a class once `seen` classes are known."""
        if self.per_class is not None:
            return self.per_class
        total = self.total or 0
        return total // seen if self.rounding == "down" else -(-total // seen)

    def size_for(self, available: int, seen: int) -> int:
        """Exemplars of a class with `available` images; ValueError if a per-class number exceeds them."""
        quota = self.quota(seen)
        if self.per_class is not None and quota > available and not self.capped:
            raise ValueError(f"{quota} exemplars per class asked for, but a class has {available} images")
        return min(quota, available)

    def add(self, label: int, indices: Tensor, features: Tensor, seen: int) -> None:
        """Herd one new class. indices [n] into the training set, features [n, d] of the same images."""
        self.indices[label] = indices[herd(features, self.size_for(len(indices), seen)).to(indices.device)]

    def shrink(self, seen: int) -> None:
        """Truncate every class to the quota at `seen` classes; under a per-class budget nothing changes."""
        quota = self.quota(seen)
        self.indices = {label: kept[:quota] for label, kept in self.indices.items()}
        self.tensors = {n: {label: rows[:quota] for label, rows in of.items()} for n, of in self.tensors.items()}

    def attach(self, label: int, tensors: dict[str, Tensor]) -> None:
        """Keep tensors [m, ...] by name beside the m exemplars of a class.

        Raises InputError unless they are floats, a row for each exemplar.
        """
        count = len(self.indices[label])
        for name, rows in tensors.items():
            if len(rows) != count or not rows.is_floating_point():
                raise InputError(
                    f"{name!r}, kept beside the {count} exemplars of class {label}, must be floats with a row for "
                    f"each, not {rows.dtype} of shape {list(rows.shape)}"
                )
            self.tensors.setdefault(name, {})[label] = rows.detach()

    def beside(self, name: str) -> Callable[[Tensor], Tensor]:
        """What was kept under `name`, as a function: training indices [b] -> rows [b, ...], NaN for no exemplar's.

        It holds until exemplars are chosen anew, and reads nothing back from the device, for use in a loss. Raises
        InputError where nothing was kept.
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
        """Indices of every exemplar, class by class. int64 [m]."""
        return torch.cat(list(self.indices.values())) if self.indices else torch.empty(0, dtype=torch.long)


@dataclass(frozen=True)
class Phase:
    """Phase `index`: `num_new` classes join the `num_old` known ones. Labels num_old..seen-1 are the new classes."""

    index: int
    num_old: int
    num_new: int

    @property
    def seen(self) -> int:
        return self.num_old + self.num_new


@dataclass
class Context:
    """What a learner may use: the Run, the images with their labels, and the exemplars kept so far."""

    run: Run
    device: Device
    train: Images
    test: Images
    memory: ExemplarMemory
    subset: Tensor | None = None
    """Which training images the Run sees, bool [n]; None: all."""
    workspace: Workspace | None = None
    """The run's folder, where a learner may keep tensors for the Runs that start from this one."""

    @cached_property
    def counts(self) -> np.ndarray:
        """Training images of every class that the Run sees, in class order. int64 [c]."""
        labels = self.train.labels if self.subset is None else self.train.labels[self.subset]
        classes = sum(self.run.protocol.sizes)
        return torch.bincount(labels, minlength=classes)[:classes].cpu().numpy()

    @property
    def long_tailed(self) -> bool:
        """Whether results are told apart by the classes' numbers of images: of long-tailed subsets, and of unequal
        classes where all are learnt at once."""
        if self.run.longtail is not None:
            return True
        return len(self.run.protocol.sizes) == 1 and len(set(self.counts.tolist())) > 1

    def generator(self, *keys: object) -> torch.Generator:
        """A CPU generator for initialisation, a function of the Run's seed and `keys` alone."""
        return seeded(torch.device("cpu"), self.run.seed, *keys)

    def of_classes(self, first: int, last: int) -> Tensor:
        """Training indices of the classes first..last-1."""
        labels = self.train.labels
        inside = (labels >= first) & (labels < last)
        return (inside if self.subset is None else inside & self.subset).nonzero().squeeze(1)

    def of_phase(self, phase: Phase) -> Tensor:
        """Training indices of the new classes, then of the exemplars."""
        new = self.of_classes(phase.num_old, phase.seen)
        return torch.cat([new, self.memory.all().to(new.device)])


def open_context(spec: Run, dataset: Dataset, device: Device, workspace: Workspace | None = None) -> Context:
    """The images of a Run, on its device, and an empty memory."""
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
    """Training indices [n] and features [n, d] of every new class."""
    indices = context.of_classes(phase.num_old, phase.seen)
    labels, features = context.train.labels[indices], extract(net, context.train, indices)
    return {c: (indices[labels == c], features[labels == c]) for c in range(phase.num_old, phase.seen)}
