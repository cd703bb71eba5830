"""The Runs behind each figure: experiments are data. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from common.runs import Run
from lucir.methods import Base
from lucir.presets import PHASES, Setting

Runs = Mapping[str, list[Run]]


def both(s: Setting, phases: int, **changes: int | None) -> Runs:
    """iCaRL and ours under one protocol: Fig. 5, 6 and 9, supplement Fig. 1, 4 and 5."""
    return {"iCaRL": s.runs(s.icarl(), phases, **changes), "Ours": s.runs(s.lucir(), phases, **changes)}


def components(s: Setting) -> Runs:
    """Fig. 7(a) and supplement Fig. 2: components added one by one, 5 phases."""
    return {
        "iCaRL-CNN": s.runs(s.icarl(), 5),
        "CN": s.runs(s.lucir(old="cosine", margin=None, finetune=None), 5),
        "CN+LC": s.runs(s.lucir(margin=None, finetune=None), 5),
        "CN+LC+IS": s.runs(s.lucir(finetune=None), 5),
        "Ours-CNN": s.runs(s.lucir(), 5),
    }


def sweep(s: Setting) -> Runs:
    """Fig. 7(b): exemplars a class, 5 phases."""
    return {f"{name} {r}": runs for r in s.sweep for name, runs in both(s, 5, exemplars=r).items()}


def weights(s: Setting, phases: int) -> Runs:
    """Fig. 8: fixed against adaptive weight."""
    return {
        "fixed lambda (5)": s.runs(s.lucir(direction="fixed"), phases),
        "adaptive weight (Ours-CNN)": s.runs(s.lucir(), phases),
    }


def directions(s: Setting) -> Runs:
    """The adaptive weight as coded and as printed, over the numbers of phases. At 1 phase both are lambda_base."""
    return {
        f"{direction} {p}": s.runs(s.lucir(direction=direction if p > 1 else "code"), p)
        for p in PHASES
        for direction in ("code", "paper")
    }


def baselines(s: Setting) -> Runs:
    """Supplement Fig. 3: iCaRL with threshold moving (a read-out) and with class-balance finetuning."""
    return {
        "iCaRL": s.runs(s.icarl(), 5),
        "iCaRL-CBF": s.runs(s.icarl(finetune=s.finetune), 5),
        "Ours": s.runs(s.lucir(), 5),
    }


def scales(s: Setting) -> Runs:
    """Ours with eta learnable, and fixed from the base phase on."""
    fixed = {f"eta = {eta:g}": s.runs(s.lucir(scale=eta), 5) for eta in s.scales}
    return {"eta learnable": s.runs(s.lucir(), 5), **fixed}


def scale_base(s: Setting) -> Runs:
    """The base phase of the run with eta learnable, whose log shows eta grow from 1."""
    return {"base": s.base_runs(Base("cosine"), s.base)}


def joint(s: Setting) -> Runs:
    """Joint-CNN: one model from scratch per number of classes, in steps of a tenth of the incremental classes."""
    step = (s.classes - s.base) // 10
    counts = range(s.base, s.classes + 1, step)
    return {str(n): s.base_runs(Base("linear"), n) for n in counts}


def small_base(s: Setting, phases: int) -> Runs:
    """Supplement Fig. 4: 30 base classes on CIFAR-100."""
    return both(s, phases, base=s.small_base)


def fixed_total(s: Setting, phases: int) -> Runs:
    """Supplement Fig. 5: R_total = 2000 on CIFAR-100, that is 20 a class at the end."""
    return both(s, phases, total=s.exemplars * s.classes)
