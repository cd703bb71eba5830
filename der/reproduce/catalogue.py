"""List every figure and table of the paper, in the paper's order: its id, title, Runs, and what draws it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from common.data.names import FOLDER
from common.drawing.curves import AVERAGE
from common.drawing.effects import Sides, disagreements, headline
from common.drawing.equal import after_phases, equal_schedules
from common.drawing.figures import Figure, Runs
from common.drawing.looks import GREEN, GREY, INDIGO, OLIVE, ORANGE, PINK, declare
from common.runs import Protocol
from der.methods import MASKED, RANDOM, UNPRUNED, WA, BiC
from der.reproduce import arms, figures, inside, sweeps
from der.reproduce.presets import Setting
from lucir.methods import ICaRL

LOOKS = declare(
    (GREEN, "s", MASKED),
    (OLIVE, "P", UNPRUNED),
    (ORANGE, "^", "WA"),
    (PINK, "<", "BiC"),
    (INDIGO, "X", "PODNet"),
    (GREY, "v", "RPSNet"),
)

CIFAR, PHOTOS, IMAGENET100, IMAGENET = ("cifar",), ("imagenet",), "imagenet-100", "imagenet"


def methods(s: Setting, steps: int = 0, base: bool = False) -> dict[str, Any]:
    """Return the methods of Tables 1 and 2 that are run here, by the paper's names."""
    return {
        "iCaRL": ICaRL(nme_flip="none"),
        "UCIR": s.ucir,
        "BiC": BiC(bias=s.bias),
        "WA": WA(),
        UNPRUNED: s.der(),
        MASKED: s.masked(steps, base),
    }


def table(s: Setting, base: bool = False) -> Runs:
    """Return the Runs of every method over every number of steps, without a base or after one."""
    steps, runs = (s.b50, s.b50_runs) if base else (s.b0, s.b0_runs)
    return {(name, n): runs(method, n) for n in steps for name, method in methods(s, n, base).items()}


def curves(s: Setting, base: bool = False) -> Runs:
    """Return the Runs of DER without and with masks, over every number of steps."""
    return {(name, n): runs for (name, n), runs in table(s, base).items() if name in (UNPRUNED, MASKED)}


def with_and_without_masks(s: Setting, network: str = "") -> Runs:
    """Return the Runs of DER without and with masks, without a base."""
    methods = {UNPRUNED: s.der(network), MASKED: s.masked(network=network)}
    return {name: s.main(method, network) for name, method in methods.items()}


def pruned(s: Setting) -> Runs:
    """Return the Runs of DER with masks."""
    return {MASKED: s.main(s.masked())}


def sparsities(s: Setting) -> Runs:
    """Return the Runs of DER without masks, and of DER with each value of lambda_s."""
    masked = {(MASKED, weight): s.main(s.masked(sparsity=weight)) for weight in s.sparsities}
    return {UNPRUNED: s.main(s.der()), **masked}


def others(s: Setting) -> Runs:
    """Return the Runs of the other methods, which are drawn beside the sweep of lambda_s if they are finished."""
    return {name: s.main(m) for name, m in methods(s).items() if name not in (UNPRUNED, MASKED)}


def weights(s: Setting) -> Runs:
    """Return the Runs of two sweeps: lambda_a without pruning, and lambda_s with masks."""
    auxiliary = {("aux", weight): s.main(s.der(aux=weight)) for weight in s.auxiliaries}
    return {**auxiliary, **{key: runs for key, runs in sparsities(s).items() if key != UNPRUNED}}


def components(s: Setting) -> Runs:
    """Return the Runs of the ablation: the single network, then expansion, the auxiliary loss and masks."""
    return {
        "baseline (no E.R., no Aux)": s.main(s.der(expand=False, aux=0.0)),
        "+ E.R.": s.main(s.der(aux=0.0)),
        figures.WITH_AUXILIARY: s.main(s.der()),
        figures.WITH_MASKS: s.main(s.masked()),
    }


def probed(s: Setting) -> Runs:
    """Return Runs that have a probe too: DER without and with pruning, with a random F_t, and the single network."""
    return {
        UNPRUNED: s.main(s.der(probe=True)),
        MASKED: s.main(s.masked(probe=True)),
        "random F_t": s.main(s.der(init="random", probe=True)),
        "single network": s.main(s.der(expand=False, aux=0.0, probe=True)),
    }


def small(s: Setting) -> Runs:
    """Return the Runs of the appendix's ResNet-32: iCaRL, and DER without and with masks."""
    return {"iCaRL": s.main(methods(s)["iCaRL"], s.small_network), **with_and_without_masks(s, s.small_network)}


def control(s: Setting) -> Runs:
    """Return the Runs of the small extractor without masks, with learned masks, and with as many random channels."""
    small = s.small_network
    return {**with_and_without_masks(s, small), RANDOM: s.main(s.masked(network=small, channels="random"), small)}


def claim(s: Setting) -> Sides:
    """Return the two sides of the headline claim: learned masks, and as many channels chosen at random."""
    runs = control(s)
    return {MASKED: runs[MASKED], RANDOM: runs[RANDOM]}


def choices(s: Setting) -> Mapping[str, Sides]:
    """Return the sides of each choice on which the paper and its code disagree, or which both leave open.

    All sides are DER with masks. The second side of a choice follows the official code, if the code makes this choice.
    """
    coded, kept = s.main(s.masked()), s.main(s.masked(reset=False))
    plain = replace(s, inputs=replace(s.inputs, brightness=0.0))
    return {
        "classifier's old block": {"inherited": s.main(s.masked(reset=False, classifier="inherit")), "random": kept},
        "classifiers after the warm-up": {"kept": kept, "reset": coded},
        "brightness": {"as it is": plain.main(plain.masked()), "jittered": coded},
        "e of the next extractor": {
            "inherited": s.main(s.masked(mask_start="inherit")),
            "fresh": s.main(s.masked(mask_start="fresh")),
        },
    }


def equal(s: Setting) -> Runs:
    """Return the Runs that the authors' code was run for, at a seventeenth of the schedule: ResNet-32, 5 steps."""
    return {UNPRUNED: s.b0_runs(s.der(s.small_network), 5, s.small_network)}


EQUAL = {
    f"after stage {number}{words}": after_phases("cnn", group, stage)
    for number, stage in ((1, "main"), (2, ""))
    for words, group in (("", None), (", first 20 classes", 0), (", newest 20 classes", -1))
}


def as_first_set_up(s: Setting) -> Runs:
    """Return the Runs of `control` as first set up: last gammas of 0, lambda_s 0.5, fresh mask logits in each step."""
    learned = s.der(sparsity=0.5, mask_rate=s.mask_rate)
    methods = {UNPRUNED: s.der(), MASKED: learned, RANDOM: replace(learned, channels="random")}
    return {name: s.main(method, s.small_network) for name, method in methods.items()}


def joint(s: Setting) -> Runs:
    """Return the Runs of joint training from scratch on the classes of each step, without and with a base.

    They have DER's recipe and one extractor.
    """
    counts = {n for steps in s.b0 for n in s.seen(steps)} | {n for steps in s.b50 for n in s.seen(steps, base=True)}
    method = s.der(finetune=None)
    return {("Bound", n): s.run(method, Protocol(n, n, 0, 0)) for n in sorted(counts)}


after_base = partial(table, base=True)
FIGURES: list[Figure] = [
    Figure("fig1", "Fig. 1: accuracy against parameters", sparsities, sweeps.sizes, extra=others),
    Figure("table1", "Table 1: no base", table, figures.table),
    Figure("table2", "Table 2: a base of half the classes", after_base, partial(figures.table, base=True)),
    Figure(
        "table3-imagenet100",
        "Table 3: ImageNet-100",
        table,
        figures.photos,
        PHOTOS,
        IMAGENET100,
        formerly=("table3_imagenet100", "curve_imagenet100_b0_10"),
    ),
    Figure(
        "table3-imagenet1000",
        "Table 3: ImageNet-1000",
        table,
        figures.photos,
        PHOTOS,
        IMAGENET,
        formerly=("table3_imagenet1000", "curve_imagenet1000_b0_10"),
    ),
    Figure(
        "imagenet100-b50",
        "ImageNet-100, a base of 50 classes",
        after_base,
        partial(figures.photos, base=True),
        PHOTOS,
        IMAGENET100,
        formerly=("imagenet100_b50", "curve_imagenet100_b50_10"),
    ),
    Figure(
        "curves-b0",
        "Accuracy after every step, no base",
        curves,
        figures.curves,
        extra=table,
        formerly=tuple(f"curve_cifar100_b0_{n}" for n in (5, 10, 20, 50)),
    ),
    Figure(
        "curves-b50",
        "Accuracy after every step, half of the classes as base",
        partial(curves, base=True),
        partial(figures.curves, base=True),
        extra=after_base,
        formerly=tuple(f"curve_cifar100_b50_{n}" for n in (2, 5, 10)),
    ),
    Figure(
        "ablation",
        "Ablation: expansion, auxiliary loss, masks",
        components,
        figures.components,
        formerly=("ablation_b0_10",),
    ),
    Figure("transfer", "Forward and backward transfer", probed, inside.transfer, formerly=("transfer_b0_10",)),
    Figure("sensitivity", "Sensitivity to lambda_a and lambda_s", weights, sweeps.weights),
    Figure("table7", "Table 7 (appendix): a smaller extractor", small, figures.small, formerly=("table7_resnet32",)),
    Figure("masks", "Beyond the paper: learned masks against random channels", control, inside.control),
    Figure("channels", "Beyond the paper: channels kept per layer and step", pruned, inside.channels),
    Figure(
        "silenced", "Beyond the paper: which extractor serves which classes", with_and_without_masks, inside.silenced
    ),
    Figure(
        "arms",
        "Beyond the paper: masks set up in other ways (on request)",
        arms.arms,
        arms.drawing,
        CIFAR,
        on_request=True,
    ),
    Figure(
        "masks-earlier",
        "Beyond the paper: learned masks as first set up (on request)",
        as_first_set_up,
        inside.control,
        CIFAR,
        on_request=True,
    ),
    Figure("bound", "Bound: joint training (on request)", joint, figures.joint, on_request=True),
    headline(claim, AVERAGE),
    disagreements(choices, AVERAGE),
    equal_schedules(equal, EQUAL),
]
OWN = [
    Figure(
        "incremental",
        "Accuracy after every step of DER and its baselines",
        after_base,
        partial(figures.curves, base=True),
        (FOLDER,),
    )
]
"""Figures for a folder of your own images."""
