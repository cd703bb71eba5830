"""Defines what is shown of a paper as plain values, which worker processes can return to the site and to RESULTS.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.drawing.figures import Verdict
from common.drawing.tables import Cell, Table


@dataclass(frozen=True)
class FigureView:
    """One figure: its numbers, the records behind them, and its picture if it was drawn."""

    id: str
    """The figure's anchor on the page: the part's name and `figure`."""
    figure: str
    """The id that --only takes."""
    title: str
    notes: Sequence[str]
    table: Table | None
    printed: Table | None
    """The numbers that the paper prints in this figure, if any are known."""
    records: Mapping[str, Sequence[str]]
    """Hashes of the runs behind each curve, by its name."""
    command: str
    """The command that draws the figure again."""
    image: str = ""
    """Address of the PNG from the site's root, without its ending. The JSON of all plotted numbers lies beside it."""
    size: tuple[int, int] = (0, 0)
    alt: str = ""


@dataclass(frozen=True)
class Effect:
    """A claim as measured in one part: mean, interval and n as text, and the verdict."""

    claim: str
    text: str
    verdict: Verdict
    figure: str


@dataclass(frozen=True)
class PartView:
    """All figures of a paper for one preset and one length of schedules."""

    name: str
    """The part's name in addresses, such as cifar-x0.05."""
    preset: str
    scale: float
    heading: str
    """The data and the schedule, in a few words."""
    labels: Sequence[str]
    facts: Mapping[str, str]
    figures: Sequence[FigureView]
    effects: Sequence[Effect]
    undrawn: Sequence[tuple[str, str, str]]
    """Id, title and reason of each figure that is not drawn."""
    used: Sequence[str]
    """Hashes of the runs that the figures show."""
    problems: Sequence[str]
    """Figures that could not be drawn, with the error."""


@dataclass(frozen=True)
class ClaimView:
    """A claim with the effect measured nearest to the paper's own setting."""

    id: str
    text: str
    source: str
    published: str
    ours: str
    schedule: str
    verdict: Verdict
    figure: str
    """The anchor of the figure on the paper's page, or ""."""


def claims_table(title: str, claims: Sequence[ClaimView]) -> Table:
    """Return a table of a paper's claims: published effect, measured effect with n and interval, schedule, verdict."""
    rows = []
    for claim in claims:
        source = Cell(claim.source, f"#{claim.figure}" if claim.figure else "")
        ours = Cell(claim.ours, f"#{claim.figure}-runs" if claim.figure else "")
        cells = [Cell(claim.published), ours, Cell(claim.schedule), Cell(claim.verdict)]
        rows.append([Cell(claim.text), source, *cells])
    titles = ["claim", "source", "published", "measured", "measured on", "verdict"]
    return Table("claims", f"Claims of {title}", titles, rows)


@dataclass(frozen=True)
class PaperView:
    """The content of a paper's page."""

    package: str
    paper: Mapping[str, Any]
    citation: str
    claims: Sequence[ClaimView]
    parts: Sequence[PartView]
    methods: Sequence[tuple[str, str]]
    """Title and HTML of the README's sections on what the method is."""
    deviations: Sequence[tuple[str, str]]
    """Title and HTML of the README's sections on deviations from the paper."""
    machines: str
    """The machines and precisions of the records."""
    cost: Table
    records: Table
    bibtex: str
    unused: int = 0
    """The number of records that no current figure shows."""
    thumbnail: FigureView | None = None
    formulas: Sequence[FigureView] = ()
    """The figures that follow from formulas, which are the same for every preset and schedule."""
