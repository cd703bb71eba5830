"""How well a memory was adapted, measured after each task with features of old images that no learner may see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.incremental import Phase
from feature_adaptation import metrics
from feature_adaptation.cache import Truth
from feature_adaptation.memory import first

if TYPE_CHECKING:
    from feature_adaptation.learner import AdaptationLearner

ARROWS = 5  # classes of the first task whose drift is drawn


def rounded(values: float | list[float]) -> Any:
    """Numbers for the Result, to five places."""
    return [round(v, 5) for v in values] if isinstance(values, list) else round(values, 5)


def of_phase(learner: AdaptationLearner, phase: Phase) -> dict[str, Any]:
    """What needs no truth: held-out current images, norms, and old vectors that stage 1's head calls new."""
    net, now = learner.net, learner.now
    old = net.labels < phase.num_old
    found: dict[str, Any] = {"rows": len(net.labels), "norm_new": rounded(float(net.scale))}
    if not phase.num_old:
        return found
    logits = F.linear(learner.prepare(net.rows[old]), now.weight, now.bias)
    found["norm_old"] = rounded(float(net.rows[old].norm(dim=1).mean()))
    found["called_new"] = rounded(100 * float((logits.argmax(dim=1) >= phase.num_old).float().mean()))
    held = learner.held
    found["held_before"] = rounded(metrics.adaptation_quality(held.old, held.new))
    if learner.map is not None:
        found["held"] = rounded(metrics.adaptation_quality(learner.map(held.old), held.new))
    return found


def stored_rows(learner: AdaptationLearner, tasks: int) -> Tensor:
    """h^i(x), as first stored, of the images behind the memory's rows of the first `tasks` tasks [m, d]."""
    currents = [learner.source.current(task) for task in range(tasks)]
    return torch.cat([c.new[first(c.labels, learner.per_class)] for c in currents])


def true_rows(learner: AdaptationLearner, truth: Truth, tasks: int, phase: int) -> Tensor:
    """h^phase(x) of the same images in the same order."""
    labels = [learner.source.current(task).labels for task in range(tasks)]
    return torch.cat([truth.at(phase)[i][first(of_task, learner.per_class)] for i, of_task in enumerate(labels)])


def against_truth(learner: AdaptationLearner, phase: Phase, truth: Truth) -> dict[str, Any]:
    """omega and drift by task of origin, in unit features first and raw ones beside; one step against all steps."""
    net, t = learner.net, phase.index
    true, own = true_rows(learner, truth, t + 1, t), stored_rows(learner, t + 1)
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
    previous = true_rows(learner, truth, t, t - 1)
    found["step_before"] = rounded(metrics.adaptation_quality(previous, true[old]))
    if learner.map is not None:
        found["step"] = rounded(metrics.adaptation_quality(learner.map(previous), true[old]))
    if t == len(learner.context.run.protocol.sizes) - 1:
        found["arrows"] = arrows(unit, net.labels, learner.context.run.protocol.sizes[0])
    return found


def arrows(unit: list[Tensor], labels: Tensor, classes: int) -> dict[str, list[list[float]]]:
    """Class means of the first task on two principal axes [c, 2]: as stored, as adapted, as they are now."""
    shown = labels < min(classes, ARROWS)
    adapted, own, true = (metrics.class_means(rows[shown].double(), labels[shown]) for rows in unit)
    points = torch.cat([own, adapted, true])
    centre = points.mean(dim=0)
    axes = torch.linalg.svd(points - centre, full_matrices=False).Vh[:2]
    axes = axes * axes.sum(dim=1, keepdim=True).sign()  # which way an axis points is arbitrary
    names = ("stored", "adapted", "true")
    return {
        name: [rounded(point) for point in ((means - centre) @ axes.T).tolist()]
        for name, means in zip(names, (own, adapted, true), strict=True)
    }
