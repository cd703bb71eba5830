"""Which figures there are: their Runs, on LUCIR's presets and from its base models, and how they are drawn."""

from __future__ import annotations

from dataclasses import replace

from common.drawing.curves import accuracy_figure
from common.drawing.figures import Drawing, Figure, PublishedFigure, Results, Runs
from common.drawing.looks import GREEN
from lucir.reproduce.catalogue import LOOKS as LUCIR_LOOKS
from lucir.reproduce.presets import Setting
from own_method.methods import BalancedReplay

READOUTS = {
    "iCaRL-NME": ("iCaRL", "nme"),
    "Ours-CNN": ("Ours", "cnn"),
    "Balanced replay": ("Balanced replay", "cnn"),
}
LOOKS = {**LUCIR_LOOKS, "Balanced replay": (GREEN, "P")}


def compared(s: Setting) -> Runs:
    """Base and 5 phases, as in LUCIR's Fig. 5(c)."""
    icarl = s.runs(s.icarl(), 5)
    own = [replace(run, paper="own_method", method=BalancedReplay()) for run in icarl]
    return {"iCaRL": icarl, "Ours": s.runs(s.lucir(), 5), "Balanced replay": own}


def curves(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Accuracy after every phase."""
    return accuracy_figure(results, READOUTS, published, "5 phases")


TITLE = "A method of one's own beside iCaRL and LUCIR"
FIGURES = [Figure("compared", TITLE, compared, curves, ("quick", "cifar", "imagenet"))]
