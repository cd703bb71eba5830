"""Every figure and table of the paper with the runs it needs, in the paper's order. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from bbn import experiments as ex
from bbn import figures
from bbn.experiments import Runs
from bbn.matrix import matrix
from bbn.presets import Setting
from bbn.tables import NAMES, error_table
from common.curves import Results
from common.figures import Drawing, Figure, about

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
    return about(lambda s: s.role == role, id, title, presets, runs, draw)


def matrix_entry(id: str, title: str, roles: Sequence[str], presets: tuple[str, ...]) -> Figure:
    """An entry for `matrix`: features from the first role's data, classifiers on the data of each."""

    def targets(settings: Sequence[Setting]) -> list[Setting]:
        return [next(s for s in settings if s.role == role) for role in roles]

    def runs(settings: Sequence[Setting]) -> Runs:
        source = targets(settings)[0]
        return {name: found for target in targets(settings) for name, found in ex.matrix(source, target).items()}

    return Figure(id, title, presets, runs, lambda settings, results: matrix(targets(settings), results))


def of(function: Callable[..., Drawing], published: str, **words: str) -> Callable[[Setting, Results], Drawing]:
    """A drawing function beside an entry of published.json."""
    return partial(function, entry=published, **words)


def per_data(
    id: str,
    title: str,
    runs: Callable,
    draw: Callable,
    roles: Mapping[str, tuple[str, ...]],
    table: str = "",
) -> list[Figure]:
    """One figure for each data set with its presets, ID-ROLE, beside the published table of it: by default ID's."""
    return [
        entry(f"{id}-{role}", f"{title}, {NAMES[role]}", role, runs, of(draw, f"{table or id}-{TABLES[role]}"), presets)
        for role, presets in roles.items()
    ]


CIFAR, INAT = ("cifar10", "cifar100"), ("inat2017", "inat2018")
TABLES = {"cifar10": "cifar10-lt", "cifar100": "cifar100-lt", "inat2017": "inat2017", "inat2018": "inat2018"}
"""How published.json names the data sets."""
BUDGET = "cRT with BBN's budget sees as many images in all as BBN: its first stage is nearly twice as long"
FIGURES: list[Figure] = [
    matrix_entry("fig2", "Fig. 2: how features and classifiers are learnt", ("cifar100", "cifar10"), BOTH),
    *per_data("table1", "Table 1", ex.table1, figures.table1, dict.fromkeys(CIFAR, BOTH)),
    *per_data("table2", "Table 2", ex.table2, figures.table2, dict.fromkeys(INAT, ("imagenet",))),
    entry(
        "table3",
        "Table 3: samplers of the re-balancing branch",
        "cifar10",
        ex.table3,
        of(error_table, "table3", against="rb sampler: Reversed"),
    ),
    entry("table4", "Table 4: adaptors", "cifar10", ex.table4, of(error_table, "table4", against="Parabolic decay")),
    entry("table5", "Table 5: quality of features", "cifar100", ex.table5, of(error_table, "table5", against="CE")),
    entry("fig4", "Fig. 4: norms of classifier weights", "cifar10", ex.fig4, figures.fig4),
    matrix_entry("fig5", "Suppl. Fig. 5: features and classifiers, iNaturalist", INAT, ("imagenet",)),
    entry("fig6", "Suppl. Fig. 6: compactness of features", "cifar10", ex.fig6, figures.fig6),
    *per_data(
        "table6",
        "Suppl. Table 6: ensembles",
        ex.table6,
        error_table,
        {"cifar10": BOTH, "cifar100": ("cifar",), **dict.fromkeys(INAT, ("imagenet",))},
    ),
    Figure("fig7", "Suppl. Fig. 7: adaptors over training", (*BOTH, "imagenet"), lambda settings: {}, figures.fig7),
    entry(
        "branches",
        "Readers: each branch's accuracy as alpha moves",
        "cifar100",
        ex.bbn,
        figures.branches,
    ),
    *per_data(
        "epochs", "Readers: last against best epoch", ex.bbn, figures.epochs, dict.fromkeys(CIFAR, BOTH), "table1"
    ),
    entry(
        "options",
        "Readers: details of BBN",
        "cifar10",
        ex.options,
        of(error_table, "table1-cifar10-lt", note="each but the first changes one detail of BBN; see README.md"),
        ("cifar",),
    ),
    *per_data(
        "control",
        "Readers: two stages with BBN's budget",
        ex.control,
        partial(error_table, note=BUDGET),
        {"cifar10": BOTH, "cifar100": ("cifar",)},
        "table1",
    ),
]
