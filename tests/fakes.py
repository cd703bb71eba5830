"""Makes Results of every package's Runs, with everything that its figures read, and draws figures of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from common.command.plan import PAPERS, published
from common.drawing.figures import Drawing, Figure
from common.drawing.results import Result, _pack
from common.runs import Run, canonical
from common.splits import longtail_counts
from der.methods import DER
from feature_adaptation.methods import Adaptation
from fsa.methods import Survey

EXTRACTOR = 11_168_832
"""Number of parameters of DER's ResNet-18."""
GROUPS = {"many": 70.0, "medium": 40.0, "few": 20.0}


def result(run: Run, phases: list[dict], summary: dict, trace: dict, **more: Any) -> Result:
    values = {"phases": phases, "summary": summary, "trace": trace, **more}
    return Result(run.hash, canonical(run.resolved("f" * 16, "fp32")), {"commit": "0" * 40, "dirty": False}, values)


def at_once(run: Run, readouts: dict, summary: dict, trace: dict, **more: Any) -> Result:
    """Return a Result of a run that learns all classes in one phase."""
    phase = {"classes": run.protocol.classes, "num_old": 0, "stages": {"main": readouts}}
    return result(run, [phase], summary, trace, **more)


def in_phases(run: Run, accuracies: Sequence[float], readouts: Sequence[str]) -> list[dict]:
    """Return the phases of an incremental run.

    The first read-out has these accuracies, each further one a point less.
    """
    sizes, phases = run.protocol.sizes, []
    for i, accuracy in enumerate(accuracies):
        stage = {
            name: {"accuracy": a, "groups": [a - 5] * (i + 1), "old_to_new": 40.0, "new_to_old": 2.0}
            for name, a in zip(readouts, np.arange(accuracy, accuracy - len(readouts), -1).tolist(), strict=True)
        }
        phases.append({"classes": sum(sizes[: i + 1]), "num_old": sum(sizes[:i]), "stages": {"main": stage}})
    return phases


def lucir(run: Run, accuracies: list[float] | None = None) -> Result:
    readouts = ("cnn", "nme", "tm", "no-bias", "unit-weights", "unit-weights-no-bias")
    classes, base = sum(run.protocol.sizes), run.protocol.base
    trace = {"epoch": [1, 2], "scale": [5.0, 6.0], "norm_old": [None, 1.5], "norm_new": [1.0, 2.0]}
    summary = {"norms": list(np.linspace(1, 3, classes)), "biases": [-0.1] * base + [0.1] * (classes - base)}
    confusion = dict.fromkeys(readouts, _pack(np.eye(classes, dtype=np.int32) * 7))
    values = accuracies or [90.0 - 3 * i for i in range(len(run.protocol.sizes))]
    return result(run, in_phases(run, values, readouts), summary, trace, confusion=confusion)


def der(run: Run, accuracies: list[float] | None = None) -> Result:
    steps, classes = len(run.protocol.sizes), sum(run.protocol.sizes)
    masked = isinstance(run.method, DER) and run.method.sparsity is not None
    count = steps if isinstance(run.method, DER) and run.method.expand else 1
    kept = EXTRACTOR // 10 if masked else EXTRACTOR
    summary = {
        "norms": [1.0] * classes,
        "channels": [[32, 16, 64]] * count,
        "full_channels": [64, 64, 128] if masked else [],
        "features": [512] * count,
        "parameters": [kept] * count,
        "full_parameters": EXTRACTOR,
        "flops": [kept * 10] * count,
        "full_flops": EXTRACTOR * 10,
        "initial_share": [0.25] * count if masked else [],
    }
    trace = {
        "phase": [p for p in range(steps) for _ in range(2)],
        "stage": ["main"] * (2 * steps),
        "epoch": [1, 2] * steps,
        "kept": [0.2, 0.1] * steps,
    }
    values = accuracies or [90.0 - 40 * i / steps for i in range(steps)]
    phases = in_phases(run, values, ("cnn", "nme", "top5", "probe", *(f"without {i + 1}" for i in range(steps))))
    return result(run, phases, summary, trace, confusion={"cnn": _pack(np.eye(classes, dtype=np.int32))})


def _quality(task: int, last: bool) -> dict:
    old = [0.9 - 0.01 * (task - i) for i in range(task)]
    found: dict = {"omega": [*old, 1.0], "rows": 10, "norm_new": 1.0}
    if task:
        found |= {k: list(old) for k in ("explained", "drift_cosine", "drift", "residual")}
        found |= {"held": 0.99, "held_before": 0.9, "step": 0.95, "step_before": 0.9}
        found |= {"means_before": [0.5] * 40, "means_after": [0.3] * 40}
    if last:
        found["arrows"] = {k: [[i + j, i * j] for i in range(4)] for j, k in enumerate(("stored", "adapted", "true"))}
    return found


def feature_adaptation(run: Run, accuracy: float = 90.0, slope: float = 3.0) -> Result:
    """Return a Result whose accuracies fall by `slope` a task."""
    tasks = len(run.protocol.sizes)
    values = [accuracy - slope * i for i in range(tasks)]
    phases = in_phases(run, values, ("cnn", "nme", "ncm", "stage1", "top5"))
    if isinstance(run.method, Adaptation):
        for i, phase in enumerate(phases):
            phase["quality"] = _quality(i, i == tasks - 1)
    return result(run, phases, {}, {})


def bbn(run: Run, accuracy: float = 60.0, peak: float = 62.0) -> Result:
    """Return a Result with this last accuracy, and a better one at the second of three tested epochs."""
    values = {"accuracy": accuracy, "groups": [accuracy], **GROUPS}
    readouts = dict.fromkeys(("cnn", "cb", "rb", "alpha 0.25", "alpha 0.75"), values)
    trace: dict[str, list] = {"epoch": [1, 2, 3, 4], "test_accuracy": [accuracy - 10, None, peak, accuracy]}
    trace["alpha"] = [1.0, 0.9, 0.6, 0.2]
    trace |= {f"{name} {g}": [v, None, v, v] for name in ("cnn", "cb", "rb") for g, v in GROUPS.items()}
    norms = list(np.linspace(1, 2, run.protocol.classes))
    summary = {key: norms for key in ("norms", "norms_cb", "norms_rb", "spread_train", "spread_test")}
    return at_once(run, readouts, summary, trace)


@lru_cache
def _confusion(classes: int) -> str:
    """Return a confusion matrix whose class accuracies are 0, 10 ... 100 %, in turn."""
    hits = np.arange(classes) % 11
    return _pack((np.diag(hits) + np.roll(np.diag(10 - hits), 1, axis=1)).astype(np.int32))


def accuracy_of(run: Run) -> float:
    """Return a made-up accuracy that differs from Run to Run."""
    return 40 + int(run.key[:6], 16) % 4000 / 100


def class_balanced(run: Run, accuracy: float | None = None) -> Result:
    """Return a Result with this accuracy at the end, and two points more at the third of four epochs."""
    value, classes = accuracy_of(run) if accuracy is None else accuracy, run.protocol.classes
    scores = {"accuracy": value, "many": value + 5, "medium": value, "few": value - 9}
    trace = {"epoch": [1, 2, 3, 4], "loss": [2.0, 1.0, 0.5, 0.25], "test_accuracy": [None, 20.0, value + 2, value]}
    summary = {"norms": list(np.linspace(2, 1, classes)), "biases": [0.0] * classes, "counts": [9] * classes}
    confusion = {"cnn": _confusion(min(classes, 100))}  # nothing reads it for large data sets
    return at_once(run, {"cnn": scores, "top5": {"accuracy": value + 10}}, summary, trace, confusion=confusion)


def fsa(run: Run, right: int | None = None) -> Result:
    """Return a Result with `right` of 100 test images right in every class.

    The others are taken for the first or second class.
    """
    classes, right = run.protocol.classes, 30 + int(run.key[:6], 16) % 40 if right is None else right
    confusion = np.diag(np.full(min(classes, 100), right))  # nothing reads it for large data sets
    confusion[:, 0] += 100 - right
    confusion[0] = 0
    confusion[0, :2] = right, 100 - right
    sizes = longtail_counts(classes, 5000, run.longtail.imbalance if run.longtail else 256)
    scores = {"accuracy": float(right), "many": right + 5.0, "medium": float(right), "few": right - 9.0}
    trace = {"epoch": [1, 2, 3, 4], "loss": [2.0, 1.0, 0.5, 0.2], "test_accuracy": [None, 20.0, None, float(right)]}
    summary: dict = {"norms": [1.0] * classes, "counts": sizes.tolist()}
    if isinstance(run.method, Survey):
        summary |= _survey(run.method)
    return at_once(run, {"cnn": scores}, summary, trace, confusion={"cnn": _pack(confusion.astype(np.int32))})


def _survey(method: Survey) -> dict:
    rng = np.random.default_rng(0)
    labels = [c for c in method.classes for _ in range(5)]
    parts = ("whole", "specific", "generic", "specific, predicted class", "generic, predicted class")
    kinds = ("donors, head classes", "augmented", "test images", "training images")
    return {
        "labels": labels,
        "scatter": {p: rng.normal(size=(len(labels), 2)).tolist() for p in parts[:3]},
        "neighbours": dict.fromkeys(parts, 80.0),
        "similarity": dict.fromkeys(parts, 0.5),
        "tail": {
            "class": method.classes[-1],
            "donors": [0, 1],
            "kinds": [k for k in kinds for _ in range(4)],
            "points": rng.normal(size=(16, 2)).tolist(),
            "distance": dict.fromkeys(kinds, 0.25),
        },
        "pictures": [
            {
                "label": c,
                "guess": 0,
                "image": rng.integers(0, 256, (32, 32, 3)).tolist(),
                "cam": rng.random((4, 4)).tolist(),
            }
            for c in method.classes
        ],
    }


FAKES: dict[str, Callable[..., Result]] = {
    f.__name__: f for f in (lucir, der, feature_adaptation, bbn, class_balanced, fsa)
}
"""The function that makes Results of each package's Runs."""
FIGURES: dict[str, dict[str, Figure]] = {
    paper: {f.id: f for f in importlib.import_module(f"{paper}.reproduce.catalogue").FIGURES} for paper in PAPERS
}
"""Every package's catalogue, by id."""


def settings(paper: str, preset: str, seeds: list[int] | None = None, scale: float = 1.0) -> Sequence[Any]:
    return importlib.import_module(f"{paper}.reproduce.presets").settings(preset, seeds, None, scale)


def draw(
    paper: str,
    id: str,
    preset: str,
    groups: Mapping[Any, list[Run]] | None = None,
    seeds: list[int] | None = None,
    make: Callable[[Run], Result] | None = None,
) -> Drawing:
    """Draw a figure of made-up Results of its required and optional Runs, or of `groups`."""
    figure, chosen, make = FIGURES[paper][id], settings(paper, preset, seeds), make or FAKES[paper]
    groups = {**figure.runs(chosen), **figure.optional(chosen)} if groups is None else groups
    results = {name: [make(run) for run in runs] for name, runs in groups.items()}
    return figure.draw(chosen, results, published(paper))
