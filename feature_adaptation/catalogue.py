"""Every figure of the paper with the runs it needs, in the paper's order, then those readers asked for. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from common.curves import Results
from common.figures import Drawing, Figure, about
from feature_adaptation import experiments as ex
from feature_adaptation import figures, questions, tables
from feature_adaptation.experiments import Runs
from feature_adaptation.presets import Setting

SMALL = ("quick", "cifar")
STAGE_1_ONCE = "stage 1 ran once: intervals are over {} seeds of stages 2 and 3 alone"


def entry(
    id: str,
    title: str,
    runs: Callable[[Setting], Runs],
    draw: Callable[[Setting, Results], Drawing],
    presets: tuple[str, ...] = SMALL,
    data: str = "",
    on_request: bool = False,
    optional: Callable[[Setting], Runs] = lambda setting: {},
) -> Figure:
    """A Figure whose functions see the one setting they are about: of the imagenet preset's two, that on `data`."""

    def noted(setting: Setting, results: Results) -> Drawing:
        drawing = draw(setting, results)
        note = STAGE_1_ONCE.format(setting.later) if setting.later > 1 else ""
        return replace(drawing, note="; ".join(filter(None, [drawing.note, note])))

    return about(lambda s: data in ("", s.data.name), id, title, presets, runs, noted, optional, on_request)


def large(id: str, title: str, runs: Callable, draw: Callable) -> list[Figure]:
    names = {"imagenet-subset": "ImageNet-100", "imagenet": "ImageNet-1000"}
    return [entry(f"{id}-{d}", f"{title}, {name}", runs, draw, ("imagenet",), d) for d, name in names.items()]


FIGURES: list[Figure] = [
    entry("fig2", "Fig. 2: memory against accuracy", ex.memory, figures.fig2),
    *large("fig2", "Fig. 2: memory against accuracy", ex.memory, figures.fig2),
    entry("fig3", "Fig. 3: accuracy against classes", ex.tasks, figures.fig3),
    *large("fig3", "Fig. 3: accuracy against classes", ex.tasks, figures.fig3),
    entry("table1", "Table 1: memory and average accuracy", ex.memory, figures.table1),
    *large("table1", "Table 1: memory and average accuracy", ex.memory, figures.table1),
    entry("fig4", "Fig. 4: quality of feature adaptation", ex.quality, figures.fig4),
    entry("fig5-gamma", "Fig. 5: sensitivity to gamma", ex.gammas, figures.gammas),
    entry("fig5-alpha", "Fig. 5: sensitivity to alpha", ex.alphas, figures.alphas),
    entry("fig5-hidden", "Fig. 6: sensitivity to the hidden size", ex.widths, figures.widths),
    entry("table2", "Table 2: feature distillation", ex.distilled, figures.table2),
    entry("table3", "Table 3: balanced feature classifier", ex.balance, figures.table3),
    entry("stage1", "Readers: what stage 1 forgets", ex.stage1, tables.forgetting, optional=ex.adapted),
    entry("maps", "Readers: every map, and accuracy against omega", ex.maps, questions.maps),
    entry("map-orderings", "Readers: what should be above what, maps", ex.maps, tables.map_orderings),
    entry("sizes", "Readers: every memory size from one stage 1", ex.sizes, questions.sizes),
    entry("drift", "Readers: true against predicted drift", ex.drift, questions.drift),
    entry("steps", "Readers: one step and all steps, old and current classes", ex.maps, questions.steps),
    entry("claim", "Readers: an order of magnitude less memory?", ex.memory, tables.claim),
    entry("orderings", "Readers: what should be above what", ex.tasks, tables.orderings),
    entry("anchors", "Readers: LwF.MC and iCaRL against iCaRL's paper", ex.anchors, tables.anchors, ("cifar",)),
    entry("choices", "Readers: stages 2 and 3, what is open", ex.choices, tables.choices, on_request=True),
    entry("controls", "Readers: stage 1, what is open", ex.controls, tables.controls, on_request=True),
]
