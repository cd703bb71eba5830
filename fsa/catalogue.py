"""Every figure and table of the paper with the runs it needs, in the paper's order. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from common.curves import Results
from common.figures import Drawing, Figure, about
from fsa import experiments as ex
from fsa import figures, pictures, readers
from fsa.experiments import Runs
from fsa.presets import Setting

Draw = Callable[[Setting, Results], Drawing]
BOTH, CIFAR, LARGE = ("quick", "cifar"), ("cifar",), ("imagenet",)


def entry(
    id: str,
    title: str,
    role: str,
    runs: Callable[[Setting], Runs],
    draw: Draw,
    presets: tuple[str, ...] = BOTH,
) -> Figure:
    """A Figure whose functions see the one setting that is, or stands for, `role`."""
    return about(lambda s: s.role == role, id, title, presets, runs, draw)


def pair(id: str, title: str, runs: Callable[[Setting], Runs], draw: Draw, hundred: tuple[str, ...]) -> list[Figure]:
    """One entry for CIFAR-10-LT and one for CIFAR-100-LT, the latter in the presets `hundred`."""
    ten, more = figures.NAMES["cifar10"], figures.NAMES["cifar100"]
    return [
        entry(f"{id}-cifar10", f"{title}, {ten}", "cifar10", runs, draw),
        entry(f"{id}-cifar100", f"{title}, {more}", "cifar100", runs, draw, hundred),
    ]


def tables() -> list[Figure]:
    found = []
    for number, role in ((1, "cifar10"), (2, "cifar100")):
        for depth, where, presets in ((18, role, BOTH), (34, f"{role}-resnet34", CIFAR)):
            id, name = f"table{number}-resnet{depth}", f"{figures.NAMES[role]}, ResNet-{depth}"
            draw = partial(figures.table, entry=id)
            found.append(entry(id, f"Table {number}: {name}", where, ex.table, draw, presets))
    return found


def large() -> list[Figure]:
    found = []
    for id, role in (("table3-imagenet-lt", "imagenet-lt"), ("table3-places-lt", "places-lt")):
        draw = partial(figures.shots, entry=id)
        found.append(entry(id, f"Table 3: {figures.NAMES[role]}", role, ex.large, draw, LARGE))
    for role in ("inat2017", "inat2018"):
        draw = partial(figures.depths, entry=f"table4-{role}")
        found.append(entry(f"table4-{role}", f"Table 4: {figures.NAMES[role]}", role, ex.depths, draw, LARGE))
    return found


def learning_curves() -> list[Figure]:
    """Supplement, Fig. 10: four more of Fig. 6."""

    def at(factor: float) -> Callable[[Setting], Setting]:
        return lambda s: replace(s, strongest=factor)

    cases = (("a", "cifar100", 100.0, 18), ("b", "cifar100-resnet34", 100.0, 34), ("c", "cifar100", 200.0, 18))
    found = []
    for letter, role, factor, depth in (*cases, ("d", "cifar10-resnet34", 200.0, 34)):
        change, number = at(factor), 1 if role.startswith("cifar10-") else 2
        words = f"{figures.NAMES[role.partition('-')[0]]} {factor:g}, ResNet-{depth}"
        table = f"table{number}-resnet{depth}"
        found.append(
            entry(
                f"fig10{letter}",
                f"Suppl. Fig. 10: learning curves, {words}",
                role,
                lambda s, change=change: ex.curves(change(s)),  # type: ignore[misc]
                lambda s, r, change=change, table=table: figures.curves(change(s), r, table),  # type: ignore[misc]
                CIFAR,
            )
        )
    return found


def counted(settings: Sequence[Setting]) -> Runs:
    """A run on each of the large sets, whose classes Fig. 2 counts where it has been trained."""
    return {figures.NAMES[s.role]: s.train() for s in settings if s.preset == "imagenet"}


FIGURES: list[Figure] = [
    Figure("fig2", "Fig. 2: class sizes", (*BOTH, "imagenet"), lambda settings: {}, figures.fig2, counted),
    entry("fig3", "Fig. 3: features of an under-represented class", "cifar10", ex.motivation, pictures.motivation),
    entry("fig4", "Fig. 4: class-specific and class-generic features", "cifar10", ex.parts, pictures.parts),
    entry(
        "fig6",
        "Fig. 6: both phases",
        "cifar10",
        ex.curves,
        partial(figures.curves, entry="table1-resnet18"),
    ),
    *pair("fig7", "Fig. 7: confusion", ex.strongest, figures.confusion, BOTH),
    *tables(),
    *large(),
    *pair("fig8", "Fig. 8: the head's share", ex.shares, figures.fig8, CIFAR),
    *pair("fig9", "Fig. 9: the block that is augmented", ex.blocks, figures.fig9, CIFAR),
    *learning_curves(),
    entry("fig11", "Suppl. Fig. 11: features of ResNet-34", "cifar10-resnet34", ex.parts, pictures.parts, CIFAR),
    entry("fig12", "Suppl. Fig. 12: features of other classes", "cifar100", ex.parts, pictures.parts),
    entry("cam", "Readers: activation maps on images", "cifar10", ex.parts, pictures.overlays),
    entry("tsne", "Readers: augmented features of the tail", "cifar10", ex.parts, pictures.augmented),
    *pair("gain", "Readers: what augmentation adds", ex.gain, readers.gains, CIFAR),
    *pair("control", "Readers: what the gain comes from", ex.controls, readers.variants, CIFAR),
    *pair("source", "Readers: images afresh or cached", ex.sources, readers.sources, CIFAR),
    *pair("tau", "Readers: both thresholds", ex.thresholds, readers.thresholds, CIFAR),
    *pair("numbers", "Readers: ratio, donors, confusing classes", ex.numbers, readers.numbers, CIFAR),
]
