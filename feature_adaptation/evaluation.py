"""Measure how well a memory was adapted, after each task, with features of old images that no learner may see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.incremental import Phase
from feature_adaptation import metrics
from feature_adaptation.cache import KeptFeatures, TrueFeatures
from feature_adaptation.maps import Pairs, Transform
from feature_adaptation.memory import among_first
from feature_adaptation.model import FeatureMemory

ARROWS = 5  # the number of classes of the first task whose drift is drawn


@dataclass(frozen=True)
class Origins:
    """The features of the images behind a memory's rows, in the order of the rows.

    Only evaluation and oracles use them.
    """

    kept_features: KeptFeatures
    truth: TrueFeatures
    per_class: int | None
    """The number of rows that a class keeps. None: all."""

    def first_stored(self, tasks: int) -> Tensor:
        """Return h^i(x), the features as first stored, of the images of the first `tasks` tasks, [m, d]."""
        currents = [self.kept_features.current(task) for task in range(tasks)]
        return torch.cat([c.new[among_first(c.labels, self.per_class)] for c in currents])

    def true_features(self, phase: int, tasks: int) -> Tensor:
        """Return h^phase(x), the features under the extractor of task `phase`, of the same images, [m, d]."""
        labels = [self.kept_features.current(task).labels for task in range(tasks)]
        true = self.truth.at(phase)
        return torch.cat([true[i][among_first(of_task, self.per_class)] for i, of_task in enumerate(labels)])


def rounded(values: float | list[float]) -> Any:
    """Round numbers for the Result, to five places."""
    return [round(v, 5) for v in values] if isinstance(values, list) else round(values, 5)


def without_truth(
    net: FeatureMemory,
    phase: Phase,
    head: Callable[[Tensor], Tensor],
    held: Pairs | None,
    transform: Transform | None,
) -> dict[str, Any]:
    """Measure all that needs no true features of old images.

    These are the quality of the map on held-out pairs of current images, the norms of features, and the percentage of
    old vectors that stage 1's head takes for new classes.
    head: features [m, d] to logits [m, c]. held: pairs to which `transform`, the map, was not fitted; None in the first
    task.
    """
    found: dict[str, Any] = {"rows": len(net.labels), "norm_new": rounded(float(net.scale))}
    if held is None:
        return found
    old = net.rows[net.labels < phase.num_old]
    found["norm_old"] = rounded(float(old.norm(dim=1).mean()))
    found["called_new"] = rounded(100 * float((head(old).argmax(dim=1) >= phase.num_old).float().mean()))
    found["held_before"] = rounded(metrics.adaptation_quality(held.old, held.new))
    if transform is not None:
        found["held"] = rounded(metrics.adaptation_quality(transform(held.old), held.new))
    return found


def with_truth(
    net: FeatureMemory, phase: Phase, sizes: Sequence[int], origins: Origins, transform: Transform | None
) -> dict[str, Any]:
    """Measure omega and drift by task of origin, and one step of the map against all its steps.

    Drift is measured on unit features, except for `explained_raw`. sizes: the number of classes of every task.
    """
    t = phase.index
    true, own = origins.true_features(t, t + 1), origins.first_stored(t + 1)
    tasks = [net.tasks == task for task in range(t + 1)]
    found: dict[str, Any] = {"omega": rounded([metrics.adaptation_quality(net.rows[i], true[i]) for i in tasks])}
    if not t:
        return found
    unit = [F.normalize(rows, dim=1) for rows in (net.rows, own, true)]
    by_task = [[rows[i] for rows in unit] for i in tasks[:-1]]
    found["explained"] = rounded([metrics.explained(*rows) for rows in by_task])
    found["explained_raw"] = rounded([metrics.explained(net.rows[i], own[i], true[i]) for i in tasks[:-1]])
    found["drift_cosine"] = rounded([metrics.drift_cosine(*rows) for rows in by_task])
    found["drift"] = rounded([float((true - own).norm(dim=1).mean()) for _, own, true in by_task])
    found["residual"] = rounded([float((true - adapted).norm(dim=1).mean()) for adapted, _, true in by_task])
    old = net.labels < phase.num_old
    adapted, first_stored, now_true = (rows[old] for rows in unit)
    found["means_before"] = rounded(metrics.mean_distances(first_stored, now_true, net.labels[old]))
    found["means_after"] = rounded(metrics.mean_distances(adapted, now_true, net.labels[old]))
    previous = origins.true_features(t - 1, t)
    found["step_before"] = rounded(metrics.adaptation_quality(previous, true[old]))
    if transform is not None:
        found["step"] = rounded(metrics.adaptation_quality(transform(previous), true[old]))
    if t == len(sizes) - 1:
        found["arrows"] = arrows(unit, net.labels, sizes[0])
    return found


def arrows(unit: list[Tensor], labels: Tensor, classes: int) -> dict[str, list[list[float]]]:
    """Return class means of the first task on two principal axes, [c, 2]: as stored, as adapted, as they are now."""
    shown = labels < min(classes, ARROWS)
    adapted, own, true = (metrics.class_means(rows[shown].double(), labels[shown]) for rows in unit)
    points = torch.cat([own, adapted, true])
    centre = points.mean(dim=0)
    axes = torch.linalg.svd(points - centre, full_matrices=False).Vh[:2]
    axes = axes * axes.sum(dim=1, keepdim=True).sign()  # fixes the sign of an axis, which is arbitrary
    names = ("stored", "adapted", "true")
    return {
        name: [rounded(point) for point in ((means - centre) @ axes.T).tolist()]
        for name, means in zip(names, (own, adapted, true), strict=True)
    }
