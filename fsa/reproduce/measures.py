"""Computes numbers from Results: accuracy of head and tail, means over repeats, and gains paired by repeat.

Phase II may be repeated from one Phase I, or from several. With several Phase-I seeds, an interval is over these seeds,
and each seed counts with the mean of its Phase IIs. With one Phase I, the interval is over Phase-II seeds, and says
nothing about other Phase-I seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from common.drawing.figures import Estimate, estimate
from common.metrics import class_accuracies
from common.store import Result
from fsa.splits import head_and_tail

Measure = Callable[[Result], float]


def accuracy(result: Result) -> float:
    """Return the test accuracy, percent."""
    return result.readout("cnn")["accuracy"]


def counts(result: Result) -> np.ndarray:
    """Return the number of training images of every class, [c]."""
    return np.asarray(result.values["summary"]["counts"])


def on_classes(result: Result, labels: Sequence[int] | np.ndarray) -> float:
    """Return the mean test accuracy of some classes, percent."""
    return float(class_accuracies(result.confusion("cnn"))[labels].mean())


def on_head(result: Result) -> float:
    """Return the test accuracy on head classes, percent. Together, these classes hold 90 % of the training images."""
    return on_classes(result, head_and_tail(counts(result))[0])


def on_tail(result: Result) -> float:
    """Return the test accuracy on tail classes, percent."""
    return on_classes(result, head_and_tail(counts(result))[1])


GROUPS: dict[str, Measure] = {"all": accuracy, "head": on_head, "tail": on_tail}


def repeat(result: Result) -> tuple[int, int | None]:
    """Return the seeds of Phase I and of Phase II. The seed of Phase II is None if the run is Phase I itself."""
    config = result.config
    while config.get("start"):
        config = config["start"]
    return config["seed"], result.config["seed"] if result.config.get("start") else None


def over_repeats(values: Iterable[tuple[tuple[int, int | None], float]]) -> Estimate:
    """Return mean and interval over repeats: over Phase-I seeds, or over Phase-II seeds if there is one Phase I.

    values: (repeat, value) pairs. Raises ValueError if there are none.
    """
    by_first: dict[int, list[float]] = {}
    for (first, _), value in values:
        by_first.setdefault(first, []).append(value)
    if len(by_first) == 1:
        return estimate(next(iter(by_first.values())), whole=False)
    return estimate([float(np.mean(group)) for group in by_first.values()])


def mean(results: Sequence[Result], measure: Measure = accuracy) -> Estimate | None:
    """Return the mean and interval of a measure over repeats, or None without Results."""
    return over_repeats((repeat(r), measure(r)) for r in results) if results else None


def gain(results: Sequence[Result], against: Sequence[Result], measure: Measure = accuracy) -> Estimate | None:
    """Return the mean of `results` minus `against` in points, paired by repeat; None if no repeat is shared.

    A Phase I is paired with every Phase II that starts from it.
    """
    other = {repeat(r): measure(r) for r in against}
    found = []
    for result in results:
        first, second = repeat(result)
        if (value := other.get((first, second), other.get((first, None)))) is not None:
            found.append(((first, second), measure(result) - value))
    return over_repeats(found) if found else None


def over_what(groups: Iterable[Sequence[Result]]) -> str:
    """Return the words of a figure's note that say over which seeds the intervals are."""
    results = [r for group in groups for r in group]
    seeds = {repeat(r) for r in results}
    first, second = sorted({a for a, _ in seeds}), {b for _, b in seeds if b is not None}
    if len(first) > 1:
        return f"intervals over {len(first)} Phase-I seeds"
    if len(second) > 1:
        cached = any(start["method"]["type"] == "Views" for r in results if (start := r.config.get("start")))
        shared = f"Phase I of seed {first[0]}{' and its views' if cached else ''} shared"
        return f"{shared}: intervals over {len(second)} Phase-II seeds alone"
    return ""
