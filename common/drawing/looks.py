"""Colours and markers of methods, the same in every figure.

A package declares those of its own methods, as LOOKS in its catalogue. What several packages draw is declared here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from common.drawing.figures import Drawing

Looks = Mapping[str, tuple[str, str]]
"""Colour and marker of each name."""

# Okabe and Ito's colours without their yellow (too faint for lines), and four that stay apart from them.
BLUE, RED, GREEN, PINK, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
BLACK, INDIGO, OLIVE, WINE, GREY = "#000000", "#332288", "#999933", "#882255", "#7F7F7F"
PALETTE = (BLUE, RED, GREEN, PINK, ORANGE, INDIGO, SKY, OLIVE, WINE, GREY, BLACK)
MARKERS = "osD^vP<X>ph"


def declare(*rows: tuple[str, ...]) -> Looks:
    """Looks from rows of a colour, a marker, and the names that have both."""
    return {name: (colour, marker) for colour, marker, *names in rows for name in names}


SHARED = declare(
    (SKY, "o", "iCaRL", "iCaRL-CNN"),
    (BLUE, "s", "iCaRL-NME"),
    (RED, "D", "LUCIR", "UCIR"),
    (BLACK, "*", "Joint-CNN", "joint", "Bound"),
    (GREY, "v", "CE"),
    (SKY, "o", "Focal"),
    (BLUE, "s", "CB-Focal", "CB focal"),
    (BLACK, "*", "LDAM"),
    (GREEN, "s", "LDAM-DRW"),
    (PINK, "<", "CE-DRW"),
    (WINE, ">", "CE-DRS"),
    (INDIGO, "X", "cRT"),
)
"""Methods that several packages draw: first those that learn classes in steps, then those for long tails."""


def looks(drawing: Drawing, declared: Looks = SHARED) -> Looks:
    """Colour and marker of every name: those declared, else the first pair that no other name here has."""
    names = list(dict.fromkeys(c.name for panel in drawing.panels for c in panel.curves))
    chosen = {name: declared[name] for name in names if name in declared}
    colours = [c for c in PALETTE if c not in {colour for colour, _ in chosen.values()}] or PALETTE
    markers = [m for m in MARKERS if m not in {marker for _, marker in chosen.values()}] or MARKERS
    for i, name in enumerate(name for name in names if name not in declared):
        turn = i + i // math.lcm(len(colours), len(markers))  # another marker once every pair on the diagonal is taken
        chosen[name] = colours[i % len(colours)], markers[turn % len(markers)]
    return chosen
