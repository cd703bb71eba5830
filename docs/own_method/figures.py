"""One figure: accuracy after every phase, over the published lines where the data are the paper's."""

from __future__ import annotations

from common.curves import Results, accuracy_figure
from common.figures import Drawing, comparable
from lucir.figures import PUBLISHED
from lucir.presets import Setting

READOUTS = {
    "iCaRL-NME": ("iCaRL", "nme"),
    "Ours-CNN": ("Ours", "cnn"),
    "Balanced replay": ("Balanced replay", "cnn"),
}


def compared(s: Setting, results: Results) -> Drawing:
    return accuracy_figure(results, READOUTS, PUBLISHED, "fig5c", "5 phases", comparable(s))
