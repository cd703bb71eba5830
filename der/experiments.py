"""The Runs behind each figure: experiments are data. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.runs import Protocol, Run
from der.methods import WA, BiC
from der.presets import Setting
from lucir.methods import ICaRL

Runs = Mapping[str, list[Run]]
MASKED, UNPRUNED, RANDOM = "DER", "DER w/o P", "random channels"
WITH_MASKS = "+ E.R. + Aux + masks"


def methods(s: Setting) -> dict[str, Any]:
    """The rows of Tables 1 and 2 that are run here, by the paper's names."""
    return {
        "iCaRL": ICaRL(nme_flip="none"),
        "UCIR": s.ucir,
        "BiC": BiC(bias=s.bias),
        "WA": WA(),
        UNPRUNED: s.der(),
        MASKED: s.masked(),
    }


def both(s: Setting, steps: int, base: bool = False) -> Runs:
    """DER without pruning and with masks."""
    make = s.b50_runs if base else s.b0_runs
    return {UNPRUNED: make(s.der(), steps), MASKED: make(s.masked(), steps)}


def table1(s: Setting) -> Runs:
    """Every method over every number of steps, no base."""
    return {f"{name} {n}": s.b0_runs(method, n) for n in s.b0 for name, method in methods(s).items()}


def table2(s: Setting) -> Runs:
    """Every method over every number of steps after the base."""
    return {f"{name} {n}": s.b50_runs(method, n) for n in s.b50 for name, method in methods(s).items()}


def all_of(s: Setting, steps: int, base: bool = False) -> Runs:
    """Every method over one number of steps: a figure of curves."""
    make = s.b50_runs if base else s.b0_runs
    return {name: make(method, steps) for name, method in methods(s).items()}


def ablation(s: Setting) -> Runs:
    """The single network, expansion, the auxiliary loss, then masks."""
    return {
        "baseline (no E.R., no Aux)": s.b0_runs(s.der(expand=False, aux=0.0), s.steps),
        "+ E.R.": s.b0_runs(s.der(aux=0.0), s.steps),
        "+ E.R. + Aux": s.b0_runs(s.der(), s.steps),
        WITH_MASKS: s.b0_runs(s.masked(), s.steps),
    }


def sparsities(s: Setting) -> Runs:
    """lambda_s from little to much, and no masks."""
    masked = {f"DER {weight:g}": s.b0_runs(s.masked(sparsity=weight), s.steps) for weight in s.sparsities}
    return {UNPRUNED: s.b0_runs(s.der(), s.steps), **masked}


def baselines(s: Setting) -> Runs:
    """The other methods, drawn beside the sweep where they are finished."""
    return {name: s.b0_runs(m, s.steps) for name, m in methods(s).items() if name not in (UNPRUNED, MASKED)}


def sensitivity(s: Setting) -> Runs:
    """lambda_a without pruning, lambda_s with masks."""
    auxiliary = {f"aux {weight:g}": s.b0_runs(s.der(aux=weight), s.steps) for weight in s.auxiliaries}
    return {**auxiliary, **{name: runs for name, runs in sparsities(s).items() if name != UNPRUNED}}


def transfer(s: Setting) -> Runs:
    """With a probe of the representation: DER without and with pruning, from a random F_t, and the single network."""
    return {
        UNPRUNED: s.b0_runs(s.der(probe=True), s.steps),
        MASKED: s.b0_runs(s.masked(probe=True), s.steps),
        "random F_t": s.b0_runs(s.der(init="random", probe=True), s.steps),
        "single network": s.b0_runs(s.der(expand=False, aux=0.0, probe=True), s.steps),
    }


def small(s: Setting) -> Runs:
    """The appendix's ResNet-32, 10 steps."""
    chosen = {name: m for name, m in methods(s).items() if name in ("iCaRL", UNPRUNED, MASKED)}
    return {name: s.b0_runs(m, s.steps, s.small_network) for name, m in chosen.items()}


def masks(s: Setting) -> Runs:
    """Learned masks, random channels of equal number, no masks; the small extractor."""
    n, network = s.steps, s.small_network
    return {
        UNPRUNED: s.b0_runs(s.der(), n, network),
        MASKED: s.b0_runs(s.masked(), n, network),
        RANDOM: s.random_runs(n, network),
    }


def pruned(s: Setting) -> Runs:
    """DER with masks alone."""
    return {MASKED: s.b0_runs(s.masked(), s.steps)}


def bound(s: Setting) -> Runs:
    """Joint training from scratch on the classes of each step, without and with a base; DER's recipe, one extractor."""
    counts = {s.classes // n * (i + 1) for n in s.b0 for i in range(n)}
    half = s.classes // 2
    counts |= {half + (s.classes - half) // n * i for n in s.b50 for i in range(n + 1)}
    method = s.der(finetune=None)
    return {str(n): s.run(method, Protocol(n, n, 0, 0), s.network) for n in sorted(counts)}
