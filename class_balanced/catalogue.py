"""Every figure of the paper with the runs it needs, in the paper's order. No torch."""

from __future__ import annotations

from collections.abc import Callable

from class_balanced import experiments as ex
from class_balanced.experiments import Runs, Setting
from class_balanced.figures import cells
from common.curves import Results
from common.figures import Drawing, Figure


def entry(
    id: str,
    title: str,
    runs: Callable[[Setting], Runs],
    draw: Callable[[Setting, Results], Drawing],
    data: str,
    presets: tuple[str, ...] = ("cifar",),
) -> Figure:
    """A Figure whose functions see the one setting they are about: that on `data`."""

    def on(function: Callable) -> Callable:
        return lambda settings, *rest: function(next(s for s in settings if s.data.name == data), *rest)

    return Figure(id, title, presets, on(runs), on(draw))


def cell_entry(id: str, title: str, data: str, factor: float, names: tuple[str, ...]) -> Figure:
    return entry(id, title, lambda s: ex.cells(s, names, factor), lambda s, r: cells(s, r, factor), data)


FIGURES: list[Figure] = [
    cell_entry(
        "cifar100-lt100",
        "CIFAR-100-LT, factor 100: softmax and class-balanced",
        "cifar100",
        100.0,
        ("SM", "SM_0.9999", "Focal_1.0_0.9"),
    ),
    cell_entry(
        "cifar10-lt50",
        "CIFAR-10-LT, factor 50: softmax and class-balanced",
        "cifar10",
        50.0,
        ("SM", "SM_0.9999", "Focal_2.0_0.9999"),
    ),
]
