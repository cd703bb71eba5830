"""Which figures there are. No torch."""

from __future__ import annotations

from common.figures import about
from own_method import experiments, figures

FIGURES = [
    about(
        lambda s: True,
        "compared",
        "A method of one's own beside iCaRL and LUCIR",
        ("quick", "cifar", "imagenet"),
        experiments.compared,
        figures.compared,
    )
]
