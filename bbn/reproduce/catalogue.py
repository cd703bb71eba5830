"""All figures of the paper, in the paper's order: id, title, the Runs that a figure needs, and its drawing function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from bbn.adaptor import ADAPTORS
from bbn.methods import Ensemble, Mixup, Probe, Sampler, UnitFeatures
from bbn.reproduce import figures as draw
from bbn.reproduce.matrix import matrices, source_first
from bbn.reproduce.presets import INVERSE, MANNERS, Setting
from bbn.reproduce.tables import NAMES, error_table
from common.data.names import FOLDER
from common.drawing.effects import Sides, disagreements, headline
from common.drawing.equal import by_shots, equal_schedules
from common.drawing.figures import Figure, Runs, no_runs, per_data
from common.drawing.looks import OLIVE, ORANGE, RED, declare
from common.imbalance import Retrain

LOOKS = declare(
    (RED, "D", "BBN"),
    (ORANGE, "^", "Mixup"),
    (OLIVE, "P", "Manifold Mixup"),
)

CONVENTIONAL, ACCURACY = "conventional branch", "test accuracy, last epoch (%)"
BOTH, CIFAR, IMAGENET = ("quick", "cifar"), ("cifar",), ("imagenet",)
BUDGET = "cRT with BBN's budget sees as many images in all as BBN: its first stage is nearly twice as long"
SUBSETS = "each subset has the published number of images in every class, and other images; its seed is not the run's"
OPTIONS = "each but the first changes one detail of BBN; see README.md"


def methods(s: Setting) -> Runs:
    """Return the Runs of Table 1: ten methods at every imbalance factor, or those that the setting's `rows` name."""
    return {
        (name, factor): s.runs(method, factor)
        for factor in s.factors
        for name, method in s.methods(factor).items()
        if not s.rows or name in s.rows
    }


def main(s: Setting) -> Runs:
    """Return the Runs of the setting's `rows` of Table 1, at the setting's own imbalance factor."""
    return {name: s.runs(method) for name, method in s.methods().items() if name in s.rows}


def schedules(s: Setting) -> Runs:
    """Return the Runs of Table 2: all methods at the short schedule, and two of them at the doubled schedule too.

    Table 2 has one more row for LDAM-DRW, quoted from the paper of that method. It needs no Runs.
    """
    assert s.long
    methods = s.methods()
    later = s.one_stage("ldam", margin=s.margin, beta=0.9999, defer=s.long.milestones[0])
    return {
        **{name: s.runs(methods[name]) for name in ("CE", "CE-DRW", "CE-DRS", "CB-Focal")},
        "LDAM-DRW (re-run)": s.runs(methods["LDAM-DRW"]),
        "BBN": s.runs(methods["BBN"]),
        "LDAM-DRW (2×)": s.runs(later, schedule=s.long),
        "BBN (2×)": s.runs(s.bbn(), schedule=s.long),
    }


def samplers(s: Setting) -> Runs:
    """Return the Runs of BBN with each sampler of the re-balancing branch."""
    kinds: tuple[Sampler, ...] = ("uniform", "balanced", "reversed")
    return {f"rb sampler: {kind.capitalize()}": s.runs(s.bbn(sampler=kind)) for kind in kinds}


def adaptors(s: Setting) -> Runs:
    """Return the Runs of BBN with each adaptor."""
    return {name: s.runs(s.bbn(adaptor=kind)) for name, kind in ADAPTORS.items()}


def manners(s: Setting) -> Runs:
    """Return the Runs that train a whole network in each of the three manners of Sec. 3."""
    return {name: s.runs(s.manner(name)) for name in MANNERS}


def classifiers(settings: Sequence[Setting], source: str) -> Runs:
    """Return the Runs of Fig. 2 or 5: on every data set, a new classifier in three manners, on three kinds of features.

    The features are those that the three manners have learnt on the data set `source`.
    """
    kinds = {"CE": Retrain("uniform"), "RW": Retrain("uniform", beta=INVERSE), "RS": Retrain("balanced")}
    return {
        (target.role, features, name): target.stage2(method, starts)
        for target in settings
        for features, starts in manners(source_first(settings, source)[0]).items()
        for name, method in kinds.items()
    }


def probes(s: Setting) -> Runs:
    """Return the Runs of a new classifier by cross-entropy, on the features of CE, RW, RS and both branches of BBN."""
    plain = {name: s.stage2(Retrain("uniform"), runs) for name, runs in manners(s).items()}
    bbn = s.runs(s.bbn())
    return {**plain, "BBN-CB": s.stage2(Probe("cb"), bbn), "BBN-RB": s.stage2(Probe("rb"), bbn)}


def manners_and_bbn(s: Setting) -> Runs:
    """Return the Runs of CE, RW, RS and BBN, whose classifier weights Fig. 4 compares."""
    return {**manners(s), "BBN": s.runs(s.bbn())}


def unit_features(s: Setting) -> Runs:
    """Return the Runs of the three manners with features of unit length."""
    return {name: s.runs(UnitFeatures(s.manner(name))) for name in MANNERS}


def ensembles(s: Setting) -> Runs:
    """Return the Runs of two ensembles of two networks each, and of BBN."""
    return {
        "Ensemble Uniform + Balanced": s.runs(Ensemble("balanced")),
        "Ensemble Uniform + Reversed": s.runs(Ensemble("reversed")),
        "BBN": s.runs(s.bbn()),
    }


def strongest(s: Setting) -> Runs:
    """Return the Runs of BBN at the strongest imbalance factor of Table 1."""
    return {"BBN": s.runs(s.bbn(), s.strongest)}


def options(s: Setting) -> Runs:
    """Return the Runs of BBN as in the official code, and of three variants that change one detail each."""
    return {
        "BBN": s.runs(s.bbn()),
        "one pass of both batches": s.runs(s.bbn(passes="concatenated")),
        "alpha of the paper": s.runs(s.bbn(offset="paper")),
        "rate one epoch early": s.runs(s.bbn(), schedule=replace(s.schedule, ahead=1)),
    }


def claim(s: Setting) -> Sides:
    """Return the two sides of the headline claim: BBN, and its own conventional branch, a read-out of the same Runs."""
    runs = s.runs(s.bbn())
    return {"BBN": runs, CONVENTIONAL: runs}


def choices(s: Setting) -> Mapping[str, Sides]:
    """Return BBN changed and as coded, for each choice on which the official code and the paper or torch disagree.

    The learning rate is one epoch early if the official code runs with a later version of torch.
    """
    coded = s.runs(s.bbn())
    return {
        "learning rate": {"one epoch early": s.runs(s.bbn(), schedule=replace(s.schedule, ahead=1)), "as coded": coded},
        "alpha": {"T / Tmax": s.runs(s.bbn(offset="paper")), "(T - 1) / Tmax": coded},
        "passes through the trunk": {"one": s.runs(s.bbn(passes="concatenated")), "two": coded},
    }


def equal(s: Setting) -> Runs:
    """Return the Runs for which the official codes of BBN and LDAM-DRW were run, at a tenth of the schedule."""
    factor, later = s.strongest, s.baseline.milestones[0]
    plain = replace(s.baseline, nesterov=False, warmup_by="epoch", drop_last=False)  # LDAM-DRW's code
    weighted = s.one_stage(beta=0.9999, defer=later)
    return {
        "BBN": s.runs(s.bbn(), factor),
        "CE": s.runs(s.one_stage(), factor, plain),
        "CE-DRW": s.runs(weighted, factor, plain),
    }


EQUAL = {
    "BBN": by_shots("cnn"),
    "BBN, conventional branch alone": by_shots("cb"),
    "BBN, re-balancing branch alone": by_shots("rb"),
    "CE": by_shots("cnn"),
    "CE-DRW": by_shots("cnn"),
}


def subsets(s: Setting) -> Runs:
    """Return the Runs of CE at the strongest imbalance, on three samples of the long-tailed subset (0: published)."""
    runs = s.runs(s.one_stage(), s.strongest)
    return {
        f"subset {seed}": [replace(run, longtail=replace(run.longtail, seed=seed)) for run in runs if run.longtail]
        for seed in range(3)
    }


def budgets(s: Setting) -> Runs:
    """Return the Runs that compare BBN with training in two stages, one of them on as many images as BBN sees.

    In every step, BBN sees a batch in each of its branches. "cRT with BBN's budget" sees the same number of images in
    all, because its first stage, a CE run, is nearly twice as long as BBN's schedule.
    """
    ce, mixup = s.runs(s.one_stage()), s.runs(Mixup())
    budget = (2 * s.schedule.epochs - s.retrain.epochs) / s.baseline.epochs
    longer = s.runs(s.one_stage(), schedule=replace(s.baseline.scaled(budget), warmup=s.baseline.warmup))
    tricks = {"cRT, recipe of BagofTricks": s.stage2(Retrain(norms="train"), ce, s.retrain_tricks)}
    return {
        "CE": ce,
        "CE at BBN's milestones": s.runs(s.one_stage(), schedule=s.schedule),
        "CE-DRW": s.runs(s.methods()["CE-DRW"]),
        "cRT": s.stage2(Retrain(), ce),
        **(tricks if s.retrain_tricks else {}),
        "cRT with BBN's budget": s.stage2(Retrain(), longer),
        "Mixup, classifier fine-tuned": s.stage2(Retrain(fresh=False), mixup),
        "BBN": s.runs(s.bbn()),
    }


each = partial(per_data, NAMES)
SMALL = {"cifar10": BOTH, "cifar100": BOTH}
TEN_FIRST = {"cifar10": BOTH, "cifar100": CIFAR}
"""Presets by data set for figures that cost too much to make on both data sets in the quick preset."""
INAT = {"inat2017": IMAGENET, "inat2018": IMAGENET}
FIGURES: list[Figure] = [
    Figure(
        "fig2",
        "Fig. 2: how features and classifiers are learnt",
        partial(classifiers, source="cifar100"),
        partial(matrices, source="cifar100"),
        BOTH,
        role=None,
    ),
    *each("table1", "Table 1", methods, draw.methods, SMALL),
    *each("table2", "Table 2", schedules, draw.schedules, INAT),
    Figure(
        "table3",
        "Table 3: samplers of the re-balancing branch",
        samplers,
        partial(error_table, against="rb sampler: Reversed"),
        role="cifar10",
    ),
    Figure("table4", "Table 4: adaptors", adaptors, partial(error_table, against="Parabolic decay"), role="cifar10"),
    Figure("table5", "Table 5: quality of features", probes, partial(error_table, against="CE"), role="cifar100"),
    Figure("fig4", "Fig. 4: norms of classifier weights", manners_and_bbn, draw.norms, role="cifar10"),
    Figure(
        "fig5",
        "Suppl. Fig. 5: features and classifiers, iNaturalist",
        partial(classifiers, source="inat2017"),
        partial(matrices, source="inat2017"),
        IMAGENET,
        role=None,
    ),
    Figure("fig6", "Suppl. Fig. 6: compactness of features", unit_features, draw.compactness, role="cifar10"),
    *each("table6", "Suppl. Table 6: ensembles", ensembles, error_table, TEN_FIRST | INAT),
    Figure("fig7", "Suppl. Fig. 7: adaptors over training", no_runs, draw.adaptors, (*BOTH, *IMAGENET)),
    *each(
        "branches",
        "Beyond the paper: BBN and its branches as alpha moves",
        strongest,
        draw.branches,
        SMALL,
        formerly={"cifar10": ("epochs-cifar10",), "cifar100": ("branches", "epochs-cifar100")},
    ),
    Figure(
        "options",
        "Beyond the paper: details of BBN",
        options,
        partial(error_table, table="table1", note=OPTIONS),
        CIFAR,
        "cifar10",
    ),
    *each(
        "control",
        "Beyond the paper: two stages with BBN's budget",
        budgets,
        partial(error_table, table="table1", note=BUDGET),
        TEN_FIRST,
    ),
    Figure(
        "subsets",
        "Beyond the paper: CE on three samples of the long-tailed subset",
        subsets,
        partial(error_table, against="subset 0", strongest=True, note=SUBSETS),
        CIFAR,
        "cifar100",
        on_request=True,
    ),
    headline(claim, ACCURACY, {CONVENTIONAL: "cb"}, "cifar10"),
    disagreements(choices, ACCURACY, role="cifar10"),
    equal_schedules(equal, EQUAL, "cifar100"),
]
OWN = [
    Figure("methods", "Test error of BBN and its baselines", main, error_table, (FOLDER,)),
    Figure("branches", "BBN and its branches as alpha moves", strongest, draw.branches, (FOLDER,)),
]
"""Figures for the user's own images."""
