"""Defines what the site shows of a paper as plain values, so that worker processes can return it to the templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.drawing.figures import Verdict
from common.drawing.tables import Table


@dataclass(frozen=True)
class FigureView:
    """One drawn figure: its picture, its numbers, and the records behind them."""

    id: str
    title: str
    image: str
    """Address of the PNG from the site's root, without its ending. The JSON of all plotted numbers lies beside it."""
    size: tuple[int, int]
    alt: str
    notes: Sequence[str]
    table: Table | None
    printed: Table | None
    """The numbers that the paper prints in this figure, if any are known."""
    records: Mapping[str, Sequence[str]]
    """Hashes of the runs behind each curve, by its name."""


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
    schedule: str
    """What was run, in a few words."""
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
