"""Chooses the colour and the marker of each method, the same in every figure.

A package declares the looks of its own methods as LOOKS in its catalogue. The looks of methods that several packages
show are declared here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from common.drawing.figures import Drawing

Looks = Mapping[str, tuple[str, str]]
"""A pair (colour, marker) for each name."""

# Okabe and Ito's colours without their yellow (too faint for lines), and four that stay apart from them.
BLUE, RED, GREEN, PINK, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
BLACK, INDIGO, OLIVE, WINE, GREY = "#000000", "#332288", "#999933", "#882255", "#7F7F7F"
PALETTE = (BLUE, RED, GREEN, PINK, ORANGE, INDIGO, SKY, OLIVE, WINE, GREY, BLACK)
MARKERS = "osD^vP<X>ph"


def declare(*rows: tuple[str, ...]) -> Looks:
    """Make Looks from rows that hold a colour, a marker, and the names that share them."""
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
"""Looks of methods that several packages show: first class-incremental methods, then those for long tails."""


def looks(drawing: Drawing, declared: Looks = SHARED) -> Looks:
    """Return colour and marker of every name in a drawing: the declared ones, else the next pair that is still free."""
    names = list(dict.fromkeys(c.name for panel in drawing.panels for c in panel.curves))
    chosen = {name: declared[name] for name in names if name in declared}
    colours = [c for c in PALETTE if c not in {colour for colour, _ in chosen.values()}] or PALETTE
    markers = [m for m in MARKERS if m not in {marker for _, marker in chosen.values()}] or MARKERS
    for i, name in enumerate(name for name in names if name not in declared):
        turn = i + i // math.lcm(len(colours), len(markers))  # shift the markers once all pairs (i, i) are taken
        chosen[name] = colours[i % len(colours)], markers[turn % len(markers)]
    return chosen
