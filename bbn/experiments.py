"""The Runs behind each figure: experiments are data. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bbn.adaptor import Kind as Adaptor
from bbn.methods import Ensemble, Mixup, Probe, Sampler, UnitFeatures
from bbn.presets import INVERSE, MANNERS, Setting
from common.imbalance import Rebalance, Retrain
from common.runs import Run

ADAPTORS: dict[str, Adaptor] = {
    "Equal weight": "equal",
    "beta-distribution": "beta",
    "Parabolic increment": "parabolic_increment",
    "Linear decay": "linear_decay",
    "Cosine decay": "cosine_decay",
    "Parabolic decay": "parabolic_decay",
}
Runs = Mapping[str, list[Run]]


def cell(name: str, factor: float) -> str:
    """The name of a cell of Table 1 among a figure's Runs."""
    return f"{name}, {factor:g}"


def table1(s: Setting) -> Runs:
    """Table 1: ten methods at every imbalance factor."""
    return {
        cell(name, factor): s.runs(method, factor)
        for factor in s.factors
        for name, method in s.methods(factor).items()
        if not s.rows or name in s.rows
    }


def table2(s: Setting) -> Runs:
    """Table 2: iNaturalist at the short schedule and at the doubled one."""
    rows = ("CE", "CE-DRW", "CE-DRS", "CB-Focal", "LDAM-DRW", "BBN")
    runs = {name: s.runs(method) for name, method in s.methods().items() if name in rows}
    assert s.long
    later = Rebalance("ldam", margin=s.margin, beta=0.9999, defer=s.long.milestones[0])
    return {**runs, "LDAM-DRW (2×)": s.runs(later, schedule=s.long), "BBN (2×)": s.runs(s.bbn(), schedule=s.long)}


def table3(s: Setting) -> Runs:
    """Table 3: the sampler of the re-balancing branch."""
    kinds: tuple[Sampler, ...] = ("uniform", "balanced", "reversed")
    return {f"rb sampler: {kind.capitalize()}": s.runs(s.bbn(sampler=kind)) for kind in kinds}


def table4(s: Setting) -> Runs:
    """Table 4: the adaptor."""
    return {name: s.runs(s.bbn(adaptor=kind)) for name, kind in ADAPTORS.items()}


def representations(s: Setting) -> Runs:
    """Stage 1 of Fig. 2: whole networks in three manners."""
    return {name: s.runs(s.manner(name)) for name in MANNERS}


def matrix(source: Setting, target: Setting) -> Runs:
    """Fig. 2 and 5: classifiers in three manners on the features of three; `source` trained the features."""
    classifiers = {"CE": Retrain("uniform"), "RW": Retrain("uniform", beta=INVERSE), "RS": Retrain("balanced")}
    return {
        f"{target.role} {features} {name}": target.stage2(method, starts)
        for features, starts in representations(source).items()
        for name, method in classifiers.items()
    }


def table5(s: Setting) -> Runs:
    """Table 5: a classifier trained by cross-entropy on the features of CE, RW, RS and of BBN's branches."""
    plain = {name: s.stage2(Retrain("uniform"), runs) for name, runs in representations(s).items()}
    bbn = s.runs(s.bbn())
    return {**plain, "BBN-CB": s.stage2(Probe("cb"), bbn), "BBN-RB": s.stage2(Probe("rb"), bbn)}


def fig4(s: Setting) -> Runs:
    """Fig. 4: the classifiers whose weights are compared."""
    return {**representations(s), "BBN": s.runs(s.bbn())}


def fig6(s: Setting) -> Runs:
    """Supplement, Fig. 6: the three manners with features of unit length."""
    return {name: s.runs(UnitFeatures(s.manner(name))) for name in MANNERS}


def table6(s: Setting) -> Runs:
    """Supplement, Table 6: ensembles of two networks against BBN."""
    return {
        "Ensemble Uniform + Balanced": s.runs(Ensemble("balanced")),
        "Ensemble Uniform + Reversed": s.runs(Ensemble("reversed")),
        "BBN": s.runs(s.bbn()),
    }


def bbn(s: Setting) -> Runs:
    """BBN alone, at the strongest imbalance of Table 1."""
    return {"BBN": s.runs(s.bbn(), s.factors[0])}


def options(s: Setting) -> Runs:
    """BBN as the official code has it, and what changes one detail of it."""
    return {
        "BBN": s.runs(s.bbn()),
        "one pass of both batches": s.runs(s.bbn(passes="concatenated")),
        "alpha of the paper": s.runs(s.bbn(offset="paper")),
        "rate one epoch early": s.runs(s.bbn(), schedule=replace(s.schedule, ahead=1)),
    }


def control(s: Setting) -> Runs:
    """BBN against two stages that see as many images: cRT from a CE run as long as the other branch makes BBN's."""
    ce, mixup = s.runs(Rebalance()), s.runs(Mixup())
    budget = (2 * s.schedule.epochs - s.retrain.epochs) / s.baseline.epochs
    longer = s.runs(Rebalance(), schedule=replace(s.baseline.scaled(budget), warmup=s.baseline.warmup))
    return {
        "CE": ce,
        "CE at BBN's milestones": s.runs(Rebalance(), schedule=s.schedule),
        "CE-DRW": s.runs(s.methods()["CE-DRW"]),
        "cRT": s.stage2(Retrain(), ce),
        "cRT with BBN's budget": s.stage2(Retrain(), longer),
        "Mixup, classifier fine-tuned": s.stage2(Retrain(fresh=False), mixup),
        "BBN": s.runs(s.bbn()),
    }
