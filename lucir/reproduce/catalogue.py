"""All figures of the paper, in the paper's order: id, title, the Runs that a figure needs, and its drawing function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from common.data.names import FOLDER
from common.drawing.curves import AVERAGE
from common.drawing.effects import Sides, disagreements, headline
from common.drawing.equal import after_phases, equal_schedules
from common.drawing.figures import Figure, Runs
from common.drawing.looks import BLUE, GREEN, GREY, INDIGO, OLIVE, ORANGE, PINK, RED, WINE, declare
from lucir.methods import Base
from lucir.reproduce import figures as draw
from lucir.reproduce.presets import PHASES, Setting

LOOKS = declare(
    (RED, "D", "LUCIR-CNN", "adaptive weight (LUCIR-CNN)"),
    (ORANGE, "^", "LUCIR-NME", "new classes", "new embeddings"),
    (BLUE, "s", "fixed lambda (5)", "old classes", "old embeddings"),
    (GREEN, "s", "CN"),
    (PINK, "<", "CN+LC"),
    (WINE, ">", "CN+LC+IS"),
    (OLIVE, "P", "iCaRL-CBF"),
    (INDIGO, "X", "iCaRL-TM"),
    (GREY, "v", "A-GEM"),
)

IMAGENET = ("imagenet",)
FLIPS = "flips in class means (NME)"
SUBSET, FULL = "imagenet-subset", "imagenet"


def both(s: Setting, phases: int, **changes: int | None) -> Runs:
    """Return the Runs of iCaRL and LUCIR under one protocol."""
    return {"iCaRL": s.runs(s.icarl(), phases, **changes), "LUCIR": s.runs(s.lucir(), phases, **changes)}


def main(s: Setting) -> Runs:
    """Return the Runs of iCaRL and LUCIR under the setting's own number of phases."""
    return both(s, s.phases)


def one_icarl(s: Setting) -> Runs:
    """Return the Runs of iCaRL with one incremental phase."""
    return {"iCaRL": s.runs(s.icarl(), 1)}


def components(s: Setting) -> Runs:
    """Return the Runs of iCaRL, and of LUCIR's components added one by one; 5 phases."""
    return {
        "iCaRL-CNN": s.main(s.icarl()),
        "CN": s.main(s.lucir(old="cosine", margin=None, finetune=None)),
        "CN+LC": s.main(s.lucir(margin=None, finetune=None)),
        "CN+LC+IS": s.main(s.lucir(finetune=None)),
        "LUCIR-CNN": s.main(s.lucir()),
    }


def sweep(s: Setting) -> Runs:
    """Return the Runs of both methods with each number of exemplars per class; 5 phases."""
    return {(name, r): runs for r in s.sweep for name, runs in both(s, 5, exemplars=r).items()}


def weights(s: Setting, phases: int) -> Runs:
    """Return the Runs of LUCIR with a fixed and with an adaptive weight of the less-forget constraint."""
    return {
        "fixed lambda (5)": s.runs(s.lucir(direction="fixed"), phases),
        "adaptive weight (LUCIR-CNN)": s.runs(s.lucir(), phases),
    }


def directions(s: Setting) -> Runs:
    """Return the Runs of LUCIR with the adaptive weight as coded and as printed, for each number of phases.

    With 1 phase both weights equal lambda_base, so the same Runs serve both.
    """
    return {
        (direction, p): s.runs(s.lucir(direction=direction if p > 1 else "code"), p)
        for p in PHASES
        for direction in ("code", "paper")
    }


def baselines(s: Setting) -> Runs:
    """Return the Runs of iCaRL, of iCaRL with class-balance finetuning, and of LUCIR.

    Threshold moving needs no Runs of its own, since it is a read-out of iCaRL.
    """
    return {
        "iCaRL": s.main(s.icarl()),
        "iCaRL-CBF": s.main(s.icarl(finetune=s.finetune)),
        "LUCIR": s.main(s.lucir()),
    }


def scales(s: Setting) -> Runs:
    """Return the Runs of LUCIR with a learnable eta, and with eta fixed from the base phase on."""
    fixed = {f"eta = {eta:g}": s.main(s.lucir(scale=eta)) for eta in s.scales}
    return {"eta learnable": s.main(s.lucir()), **fixed}


def scale_base(s: Setting) -> Runs:
    """Return the Runs of LUCIR's base phase with a learnable eta, whose logs show how eta grows from 1."""
    return {"base": s.base_runs(Base("cosine"), s.base)}


def joint(s: Setting) -> Runs:
    """Return the Runs of joint training at each number of classes, in steps of a tenth of the incremental classes.

    Each of these Runs trains a model from scratch.
    """
    counts = range(s.base, s.classes + 1, (s.classes - s.base) // 10)
    return {("joint", n): s.base_runs(Base("linear"), n) for n in counts}


def claim(s: Setting) -> Sides:
    """Return the two sides of the headline claim, LUCIR and iCaRL, each with its own read-out."""
    return {"LUCIR": s.main(s.lucir()), "iCaRL": s.main(s.icarl())}


def choices(s: Setting) -> Mapping[str, Sides]:
    """Return LUCIR as printed and as coded, for every choice on which the paper and its code disagree."""
    coded = s.main(s.lucir())
    printed = {
        "direction of Eq. 7": ("new/old", s.lucir(direction="paper"), "old/new"),
        "margin loss over K": ("sum", s.lucir(margin_reduction="sum_k"), "mean"),
        "imprinting": ("without", s.lucir(imprint=False), "with"),
        "old embeddings in CBF": ("fixed", s.lucir(finetune_flag=1), "trained"),
        FLIPS: ("none", s.lucir(nme_flip="none"), "channels"),
    }
    return {choice: {word: s.main(method), code: coded} for choice, (word, method, code) in printed.items()}


def equal(s: Setting) -> Runs:
    """Return the Runs that the authors' code was run for, at a twentieth of the schedule."""
    return {"iCaRL": s.main(s.icarl()), "LUCIR without CBF": s.main(s.lucir(finetune=None))}


EQUAL = {
    f"{name}, {readout.upper()}{words}": after_phases(readout, group)
    for name in ("iCaRL", "LUCIR without CBF")
    for readout in ("cnn", "nme")
    for words, group in (("", None), (", first 50 classes", 0))
}


def curves(
    id: str,
    title: str,
    phases: int,
    role: str = "",
    runs: Callable[[Setting], Runs] | None = None,
) -> Figure:
    """Return a figure of both methods' accuracy after each phase, with Joint-CNN if its runs exist."""
    return Figure(
        id,
        title,
        runs or partial(both, phases=phases),
        partial(draw.incremental, phases=phases),
        IMAGENET if role else ("quick", "cifar"),
        role,
        extra=joint,
    )


FIGURES: list[Figure] = [
    Figure("fig3a", "Fig. 3 (left): weight norms of iCaRL's last layer", one_icarl, draw.norms),
    Figure("fig3b", "Fig. 3 (right): biases of iCaRL's last layer", one_icarl, draw.biases),
    curves("fig5a", "Fig. 5(a): class-incremental accuracy, 1 phase", 1),
    curves("fig5b", "Fig. 5(b): class-incremental accuracy, 2 phases", 2),
    curves("fig5c", "Fig. 5(c): class-incremental accuracy, 5 phases", 5),
    curves("fig5d", "Fig. 5(d): class-incremental accuracy, 10 phases", 10),
    curves("fig6a", "Fig. 6(a): ImageNet-Subset, 5 phases", 5, SUBSET),
    curves("fig6b", "Fig. 6(b): ImageNet-Subset, 10 phases", 10, SUBSET),
    curves("fig6c", "Fig. 6(c): ImageNet-Full, 5 phases", 5, FULL),
    curves("fig6d", "Fig. 6(d): ImageNet-Full, 10 phases", 10, FULL),
    Figure("fig7a", "Fig. 7(a): the effect of each component", components, draw.components),
    Figure("fig7b", "Fig. 7(b): the number of reserved exemplars", sweep, draw.sweep),
    Figure("fig8a", "Fig. 8(a): adaptive weight, 5 phases", partial(weights, phases=5), draw.weights),
    Figure("fig8b", "Fig. 8(b): adaptive weight, 10 phases", partial(weights, phases=10), draw.weights),
    Figure("fig9", "Fig. 9: confusion matrices, 1 phase", partial(both, phases=1), draw.confusions),
    curves("supp1a", "Suppl. Fig. 1: ImageNet-Subset, 1 phase", 1, SUBSET),
    curves("supp1b", "Suppl. Fig. 1: ImageNet-Subset, 2 phases", 2, SUBSET),
    curves("supp1c", "Suppl. Fig. 1: ImageNet-Full, 1 phase", 1, FULL),
    curves("supp1d", "Suppl. Fig. 1: ImageNet-Full, 2 phases", 2, FULL),
    Figure("supp2a", "Suppl. Fig. 2: components, ImageNet-Subset", components, draw.components, IMAGENET, SUBSET),
    Figure("supp2b", "Suppl. Fig. 2: components, ImageNet-Full", components, draw.components, IMAGENET, FULL),
    Figure("supp3a", "Suppl. Fig. 3(a): more baselines", baselines, draw.baselines),
    Figure("supp3b", "Suppl. Fig. 3(b): accuracy on the first classes", partial(both, phases=5), draw.first_classes),
    curves("supp4a", "Suppl. Fig. 4: a smaller base, 7 phases", 7, runs=lambda s: both(s, 7, base=s.small_base)),
    curves("supp4b", "Suppl. Fig. 4: a smaller base, 14 phases", 14, runs=lambda s: both(s, 14, base=s.small_base)),
    curves("supp5a", "Suppl. Fig. 5: fixed total memory, 5 phases", 5, runs=lambda s: both(s, 5, total=s.total)),
    curves("supp5b", "Suppl. Fig. 5: fixed total memory, 10 phases", 10, runs=lambda s: both(s, 10, total=s.total)),
    Figure("bias", "Beyond the paper: iCaRL's bias and norms taken away", one_icarl, draw.bias),
    Figure("direction", "Beyond the paper: two directions of the adaptive weight", directions, draw.directions),
    Figure("scale", "Beyond the paper: the scale eta and embedding norms", scales, draw.scales, extra=scale_base),
    Figure("joint", "Joint-CNN", joint, draw.joint, on_request=True),
    Figure("joint-subset", "Joint-CNN, ImageNet-Subset", joint, draw.joint, IMAGENET, SUBSET, on_request=True),
    Figure("joint-full", "Joint-CNN, ImageNet-Full", joint, draw.joint, IMAGENET, FULL, on_request=True),
    headline(claim, AVERAGE, {"iCaRL": "nme"}),
    disagreements(choices, AVERAGE, {FLIPS: "nme"}),
    equal_schedules(equal, EQUAL),
]
OWN = [Figure("incremental", "Class-incremental accuracy of iCaRL and LUCIR", main, draw.incremental, (FOLDER,))]
"""Figures for the user's own images."""
