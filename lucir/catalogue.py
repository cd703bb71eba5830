"""Every figure of the paper with the runs it needs, in the paper's order. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from common.curves import Results
from common.figures import Drawing, Figure, about
from common.runs import Run
from lucir import experiments as ex
from lucir.figures import (
    bias,
    components,
    direction,
    fig3,
    fig7b,
    fig8,
    fig9,
    incremental,
    joint,
    scale,
    supp3a,
    supp3b,
)
from lucir.presets import Setting

Runs = Mapping[str, list[Run]]
SUBSET, FULL = "imagenet-subset", "imagenet"


def entry(
    id: str,
    title: str,
    runs: Callable[[Setting], Runs],
    draw: Callable[[Setting, Results], Drawing],
    data: str = "",
    optional: Callable[[Setting], Runs] = lambda setting: {},
    on_request: bool = False,
) -> Figure:
    """A Figure whose functions see the one setting they are about: of the imagenet preset's two, that on `data`."""
    presets = ("imagenet",) if data else ("quick", "cifar")
    return about(lambda s: data in ("", s.data.name), id, title, presets, runs, draw, optional, on_request)


def curves_entry(id: str, title: str, phases: int, data: str = "", runs: Callable | None = None) -> Figure:
    """An entry for `incremental`, with Joint-CNN drawn where its runs exist."""
    return entry(
        id,
        title,
        runs or (lambda s: ex.both(s, phases)),
        lambda s, r: incremental(s, r, id, phases),
        data,
        lambda s: {f"joint {n}": found for n, found in ex.joint(s).items()},
    )


def one_icarl(setting: Setting) -> Runs:
    return {"iCaRL": setting.runs(setting.icarl(), 1)}


FIGURES: list[Figure] = [
    entry(
        "fig3a",
        "Fig. 3 (left): weight norms of iCaRL's last layer",
        one_icarl,
        lambda s, r: fig3(s, r, "fig3a", "norms", "L2 norm of a class's weight"),
    ),
    entry(
        "fig3b",
        "Fig. 3 (right): biases of iCaRL's last layer",
        one_icarl,
        lambda s, r: fig3(s, r, "fig3b", "biases", "bias of a class"),
    ),
    curves_entry("fig5a", "Fig. 5(a): class-incremental accuracy, 1 phase", 1),
    curves_entry("fig5b", "Fig. 5(b): class-incremental accuracy, 2 phases", 2),
    curves_entry("fig5c", "Fig. 5(c): class-incremental accuracy, 5 phases", 5),
    curves_entry("fig5d", "Fig. 5(d): class-incremental accuracy, 10 phases", 10),
    curves_entry("fig6a", "Fig. 6(a): ImageNet-Subset, 5 phases", 5, SUBSET),
    curves_entry("fig6b", "Fig. 6(b): ImageNet-Subset, 10 phases", 10, SUBSET),
    curves_entry("fig6c", "Fig. 6(c): ImageNet-Full, 5 phases", 5, FULL),
    curves_entry("fig6d", "Fig. 6(d): ImageNet-Full, 10 phases", 10, FULL),
    entry("fig7a", "Fig. 7(a): the effect of each component", ex.components, lambda s, r: components(s, r, "fig7a")),
    entry("fig7b", "Fig. 7(b): the number of reserved exemplars", ex.sweep, fig7b),
    entry(
        "fig8a",
        "Fig. 8(a): adaptive weight, 5 phases",
        lambda s: ex.weights(s, 5),
        lambda s, r: fig8(s, r, "fig8a", 5),
    ),
    entry(
        "fig8b",
        "Fig. 8(b): adaptive weight, 10 phases",
        lambda s: ex.weights(s, 10),
        lambda s, r: fig8(s, r, "fig8b", 10),
    ),
    entry("fig9", "Fig. 9: confusion matrices, 1 phase", lambda s: ex.both(s, 1), fig9),
    curves_entry("supp1a", "Suppl. Fig. 1: ImageNet-Subset, 1 phase", 1, SUBSET),
    curves_entry("supp1b", "Suppl. Fig. 1: ImageNet-Subset, 2 phases", 2, SUBSET),
    curves_entry("supp1c", "Suppl. Fig. 1: ImageNet-Full, 1 phase", 1, FULL),
    curves_entry("supp1d", "Suppl. Fig. 1: ImageNet-Full, 2 phases", 2, FULL),
    entry(
        "supp2a",
        "Suppl. Fig. 2: components, ImageNet-Subset",
        ex.components,
        lambda s, r: components(s, r, "supp2a"),
        SUBSET,
    ),
    entry(
        "supp2b",
        "Suppl. Fig. 2: components, ImageNet-Full",
        ex.components,
        lambda s, r: components(s, r, "supp2b"),
        FULL,
    ),
    entry("supp3a", "Suppl. Fig. 3(a): more baselines", ex.baselines, supp3a),
    entry("supp3b", "Suppl. Fig. 3(b): accuracy on the first classes", lambda s: ex.both(s, 5), supp3b),
    curves_entry("supp4a", "Suppl. Fig. 4: a smaller base, 7 phases", 7, runs=lambda s: ex.small_base(s, 7)),
    curves_entry("supp4b", "Suppl. Fig. 4: a smaller base, 14 phases", 14, runs=lambda s: ex.small_base(s, 14)),
    curves_entry("supp5a", "Suppl. Fig. 5: fixed total memory, 5 phases", 5, runs=lambda s: ex.fixed_total(s, 5)),
    curves_entry("supp5b", "Suppl. Fig. 5: fixed total memory, 10 phases", 10, runs=lambda s: ex.fixed_total(s, 10)),
    entry("bias", "Readers: iCaRL's bias and norms taken away", one_icarl, bias),
    entry("direction", "Readers: two directions of the adaptive weight", ex.directions, direction),
    entry("scale", "Readers: the scale eta and embedding norms", ex.scales, scale, optional=ex.scale_base),
    entry("joint", "Joint-CNN (on request)", ex.joint, joint, on_request=True),
    entry("joint-subset", "Joint-CNN, ImageNet-Subset (on request)", ex.joint, joint, SUBSET, on_request=True),
    entry("joint-full", "Joint-CNN, ImageNet-Full (on request)", ex.joint, joint, FULL, on_request=True),
]
