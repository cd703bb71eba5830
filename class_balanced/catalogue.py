"""Every figure of the paper with the runs it needs, in the paper's order. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from class_balanced import analytic, figures, tables
from class_balanced import experiments as ex
from class_balanced.experiments import Runs
from class_balanced.presets import Setting
from common.curves import Results
from common.figures import Drawing, Figure, about

Draw = Callable[[Setting, Results], Drawing]
SMALL = ("quick", "cifar")


def entry(
    id: str,
    title: str,
    role: str,
    runs: Callable[[Setting], Runs],
    draw: Draw,
    presets: tuple[str, ...] = SMALL,
    optional: Callable[[Setting], Runs] = lambda setting: {},
) -> Figure:
    """A Figure whose functions see the one setting they are about: that which is, or stands for, `role`."""
    return about(lambda s: s.role == role, id, title, presets, runs, draw, optional)


def formula(id: str, title: str, draw: Callable[[], Drawing]) -> Figure:
    """A Figure that needs no runs."""
    return Figure(id, title, SMALL, lambda settings: {}, lambda settings, results: draw())


def both(
    id: str, title: str, runs: Callable[[Setting], Runs], draw: Draw, more: bool = False, **fields: Any
) -> list[Figure]:
    """One entry for CIFAR-10-LT and one for CIFAR-100-LT; more: with runs that the quick preset has for one only."""
    ten, hundred = tables.SETS["cifar10"], tables.SETS["cifar100"]
    return [
        entry(f"{id}-cifar10", f"{title}, {ten}", "cifar10", runs, draw, **fields),
        entry(f"{id}-cifar100", f"{title}, {hundred}", "cifar100", runs, draw, ("cifar",) if more else SMALL, **fields),
    ]


def large(id: str, title: str, roles: tuple[str, ...], runs: Callable[[Setting], Runs], draw: Draw) -> list[Figure]:
    return [entry(f"{id}-{r}", f"{title}, {tables.SETS[r]}", r, runs, draw, ("imagenet",)) for r in roles]


def counted(settings: tuple[Setting, ...]) -> Runs:
    """The runs of Table 3 by data set, whose classes Table 1 counts where one has been trained."""
    large = [s for s in settings if s.preset == "imagenet"]
    return {tables.SETS[s.role]: [run for runs in ex.table3(s).values() for run in runs] for s in large}


FIGURES: list[Figure] = [
    Figure(
        "table1",
        "Table 1: the data sets",
        (*SMALL, "imagenet"),
        lambda settings: {},
        lambda settings, results: analytic.table1(results),
        counted,
    ),
    formula("fig3", "Fig. 3: the class-balanced term", analytic.fig3),
    formula("fig4", "Fig. 4: images per class of CIFAR-100-LT", analytic.fig4),
    formula("fig6", "Fig. 6: effective number of each class", analytic.fig6),
    *both("table2", "Table 2: losses without class weights", ex.table2, tables.table2, optional=ex.grid),
    *both("fig5", "Fig. 5: error against beta", ex.fig5, figures.fig5),
    *large("table3", "Table 3", ("inat2017", "inat2018", "ilsvrc2012"), ex.table3, tables.table3),
    *large("fig7", "Fig. 7: over training", ("ilsvrc2012", "inat2018"), ex.fig7, figures.fig7),
    entry("fig8", "Fig. 8: every model on CIFAR-10-LT", "cifar10", ex.grid, tables.heat),
    entry("fig9", "Fig. 9: every model on CIFAR-20-LT", "cifar20", ex.grid, tables.heat),
    entry("fig10", "Fig. 10: every model on CIFAR-100-LT", "cifar100", ex.grid, tables.heat),
    entry(
        "cifar100-lt100",
        "CIFAR-100-LT, factor 100: softmax and class-balanced",
        "cifar100",
        ex.chosen,
        figures.cells,
        ("cifar",),
    ),
    entry(
        "cifar10-lt50",
        "CIFAR-10-LT, factor 50: softmax and class-balanced",
        "cifar10",
        ex.chosen,
        figures.cells,
        ("cifar",),
    ),
    *both("curves", "Loss curves", ex.curves, figures.curves),
    *both("baselines", "Common baselines", ex.baselines, figures.baselines, more=True, optional=ex.chosen),
    formula("limits", "Readers: two limits of the effective number", analytic.limits),
    formula("weights", "Readers: mean weight and effective learning rate", analytic.weights),
    *both("reduction", "Readers: two reductions of a weighted loss", ex.reductions, figures.reductions, more=True),
    *both("classes", "Readers: classes from head to tail", ex.chosen, figures.classes),
    *both("selection", "Readers: last against best test epoch", ex.fig5, figures.selection),
]
