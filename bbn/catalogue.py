"""Every figure and table of the paper with the runs it needs, in the paper's order. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from bbn import experiments as ex
from bbn import figures
from bbn.experiments import Runs, Setting
from common.curves import Results
from common.figures import Drawing, Figure

BOTH = ("quick", "cifar")


def entry(
    id: str,
    title: str,
    role: str,
    runs: Callable[[Setting], Runs],
    draw: Callable[[Setting, Results], Drawing],
    presets: tuple[str, ...] = BOTH,
) -> Figure:
    """A Figure whose functions see the one setting that stands for `role`."""

    def on(function: Callable) -> Callable:
        return lambda settings, *rest: function(next(s for s in settings if s.role == role), *rest)

    return Figure(id, title, presets, on(runs), on(draw))


def matrix_entry(id: str, title: str, roles: Sequence[str], presets: tuple[str, ...]) -> Figure:
    """An entry for `matrix`: features from the first role's data, classifiers on the data of each."""

    def targets(settings: Sequence[Setting]) -> list[Setting]:
        return [next(s for s in settings if s.role == role) for role in roles]

    def runs(settings: Sequence[Setting]) -> Runs:
        source = targets(settings)[0]
        return {name: found for target in targets(settings) for name, found in ex.matrix(source, target).items()}

    return Figure(id, title, presets, runs, lambda settings, results: figures.matrix(targets(settings), results))


def of(function: Callable[..., Drawing], published: str) -> Callable[[Setting, Results], Drawing]:
    """A drawing function beside an entry of published.json."""
    return partial(function, entry=published)


def per_data(id: str, title: str, runs: Callable, draw: Callable, table: str, roles: Sequence[str]) -> list[Figure]:
    """One figure for each data set, ID-ROLE, beside the published TABLE-ROLE of its name."""
    inat = roles[0].startswith("inat")
    presets = ("imagenet",) if inat else BOTH
    return [
        entry(
            f"{id}-{role}",
            f"{title}, {figures.NAMES[role]}",
            role,
            runs,
            of(draw, f"{table}-{role}" + ("" if inat else "-lt")),
            presets,
        )
        for role in roles
    ]


CIFAR, INAT = ("cifar10", "cifar100"), ("inat2017", "inat2018")
FIGURES: list[Figure] = [
    matrix_entry("fig2", "Fig. 2: how features and classifiers are learnt", ("cifar100", "cifar10"), BOTH),
    *per_data("table1", "Table 1", ex.table1, figures.table1, "table1", CIFAR),
    *per_data("table2", "Table 2", ex.table2, figures.table2, "table2", INAT),
    entry(
        "table3",
        "Table 3: samplers of the re-balancing branch",
        "cifar10",
        ex.table3,
        of(figures.error_table, "table3"),
    ),
    entry("table4", "Table 4: adaptors", "cifar10", ex.table4, of(figures.error_table, "table4")),
    entry("table5", "Table 5: quality of features", "cifar100", ex.table5, of(figures.error_table, "table5")),
    entry("fig4", "Fig. 4: norms of classifier weights", "cifar10", ex.fig4, figures.fig4),
    matrix_entry("fig5", "Suppl. Fig. 5: features and classifiers, iNaturalist", INAT, ("imagenet",)),
    entry("fig6", "Suppl. Fig. 6: compactness of features", "cifar10", ex.fig6, figures.fig6),
    *per_data("table6", "Suppl. Table 6: ensembles", ex.table6, figures.error_table, "table6", CIFAR),
    *per_data("table6", "Suppl. Table 6: ensembles", ex.table6, figures.error_table, "table6", INAT),
    Figure("fig7", "Suppl. Fig. 7: adaptors over training", (*BOTH, "imagenet"), lambda settings: {}, figures.fig7),
    entry(
        "branches",
        "Readers: each branch's accuracy as alpha moves",
        "cifar100",
        lambda s: {"BBN": s.runs(ex.BBN())},
        figures.branches,
    ),
    *per_data("epochs", "Readers: last against best epoch", ex.bbn, figures.epochs, "table1", CIFAR),
    entry(
        "options",
        "Readers: details of BBN",
        "cifar10",
        ex.options,
        of(figures.options, "table1-cifar10-lt"),
    ),
    *[
        entry(
            f"control-{role}",
            f"Readers: two stages with BBN's budget, {figures.NAMES[role]}",
            role,
            ex.control,
            of(figures.control, f"table1-{role}-lt"),
            presets,
        )
        for role, presets in (("cifar10", BOTH), ("cifar100", ("cifar",)))
    ],
]
