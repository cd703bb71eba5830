"""Save the features that a run of stage 1 leaves after each phase. Stages 2 and 3 of every method start from them.

`phase-T.safetensors` holds what a learner may have in task T: the current images' features under the previous and the
current extractor, the head, the test features, and the kept exemplars' features. `truth-T.safetensors` holds the
features of the old images too. Only evaluation and the oracles read that file.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from common.heads import Net, extract
from common.incremental import Context, Phase
from common.memory import herd
from common.runs import Run
from common.store import Workspace


@dataclass(frozen=True)
class TaskFeatures:
    """What a learner sees of task T. Rows of a class lie together, in herding order under the current extractor."""

    labels: Tensor
    """Labels of the current training images, [n]."""
    new: Tensor
    """Features h^t(x) of these images under the current extractor, [n, d]."""
    old: Tensor
    """Features h^(t-1)(x) of the same images under the previous extractor, in the same rows, [n, d]. Empty in task 1.
    """
    weight: Tensor
    """The weights of the head W^t at the end of stage 1, for the classes seen, [c, d]."""
    bias: Tensor
    """The biases of that head, [c]."""
    test: Tensor
    """Features of the test images of all classes seen, [n_test, d]."""
    test_labels: Tensor
    """Labels of these test images, [n_test]."""
    image_labels: Tensor
    """Labels of the images kept of old classes (hybrid), class by class in herding order. Empty where none are kept."""
    image_new: Tensor
    """Features of the images kept of old classes, under the current extractor."""
    image_old: Tensor
    """Features of these images under the previous extractor."""


class KeptFeatures:
    """The features that a finished run of stage 1 has kept, as far as stages 2 and 3 may read them."""

    def __init__(self, workspace: Workspace, run: Run, device: torch.device) -> None:
        self._workspace, self._run, self._device = workspace, run, device

    def current(self, phase: int) -> TaskFeatures:
        """Return what a learner sees of task `phase`. Raises InputError where the file is damaged or gone."""
        kept = self._workspace.kept(self._run, f"phase-{phase}")
        return TaskFeatures(**{name: kept[name].to(self._device) for name in TaskFeatures.__annotations__})


class TrueFeatures:
    """The features of old images under later extractors. Only evaluation and oracles use them."""

    def __init__(self, workspace: Workspace, run: Run, device: torch.device) -> None:
        self._workspace, self._run, self._device = workspace, run, device
        self._known: dict[int, dict[int, Tensor]] = {}

    def at(self, phase: int) -> dict[int, Tensor]:
        """Return h^phase(x) of all training images up to `phase`: {task of origin: [n, d]}.

        Rows are as in `TaskFeatures`.
        """
        if phase not in self._known:
            kept = self._workspace.kept(self._run, f"truth-{phase}")
            self._known[phase] = {int(task): rows.to(self._device) for task, rows in kept.items()}
        return self._known[phase]


def keep_current(net: Net, teacher: Net | None, context: Context, phase: Phase, tested: tuple[Tensor, Tensor]) -> None:
    """Write the file `phase-T`: the head, test features, and features of current and kept images under both extractors.

    They are computed without augmentation, in eval mode.
    """
    train, workspace = context.train, context.workspace
    assert workspace is not None
    indices = context.of_classes(phase.num_old, phase.seen)
    features = extract(net, train, indices)
    order = herding_order(features, train.labels[indices])
    indices, new = indices[order], features[order]
    images = [context.memory.indices[c] for c in range(phase.num_old) if c in context.memory.indices]
    kept = torch.cat(images).to(indices.device) if images else indices[:0]
    none = new[:0]
    tensors = {
        "indices": indices,
        "labels": train.labels[indices],
        "new": new,
        "old": extract(teacher, train, indices) if teacher else none,
        "weight": net.head.weight[: phase.seen],
        "bias": net.head.bias[: phase.seen],
        "test": tested[0],
        "test_labels": tested[1],
        "image_labels": train.labels[kept],
        "image_new": extract(net, train, kept) if images else none,
        "image_old": extract(teacher, train, kept) if images and teacher else none,
    }
    workspace.keep(f"phase-{phase.index}", tensors)


def keep_truth(net: Net, context: Context, phase: Phase) -> None:
    """Write `truth-T`. This opens the images of all tasks so far, which training never does."""
    workspace = context.workspace
    assert workspace is not None
    tensors, device = {}, context.train.labels.device
    for task in range(phase.index + 1):
        kept = workspace.kept(context.run, f"phase-{task}")
        now = task == phase.index  # `keep_current` has just extracted them
        tensors[str(task)] = kept["new"] if now else extract(net, context.train, kept["indices"].to(device))
    workspace.keep(f"truth-{phase.index}", tensors)


def herding_order(features: Tensor, labels: Tensor) -> Tensor:
    """Return the rows [n], sorted by class and, within a class, by herding rank.

    A memory of L features a class keeps the first L rows of each class.
    """
    order = []
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero().squeeze(1)
        order.append(rows[herd(features[rows], len(rows))])
    return torch.cat(order)
