"""What the site shows of a paper, as plain values: processes that draw hand it over, templates set it."""

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
    """Address of the PNG from the site's root, without its ending; the JSON of all plotted numbers lies beside it."""
    size: tuple[int, int]
    alt: str
    notes: Sequence[str]
    table: Table | None
    printed: Table | None
    """What the paper prints in this figure, where anything is known."""
    records: Mapping[str, Sequence[str]]
    """Hashes of the runs by the curve they are drawn in."""


@dataclass(frozen=True)
class Effect:
    """A claim as measured in one part: mean, interval, n, and how it compares."""

    claim: str
    text: str
    verdict: Verdict
    figure: str


@dataclass(frozen=True)
class PartView:
    """All that a paper's figures show of one preset at one length of schedules."""

    name: str
    """Such as cifar-x0.05; part of addresses."""
    preset: str
    scale: float
    heading: str
    schedule: str
    """What was run, in few words."""
    labels: Sequence[str]
    facts: Mapping[str, str]
    figures: Sequence[FigureView]
    effects: Sequence[Effect]
    undrawn: Sequence[tuple[str, str, str]]
    """Id, title and reason of each figure that is not drawn."""
    used: Sequence[str]
    """Hashes of the runs."""
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
    """Where the figure is on the paper's page, or ""."""


@dataclass(frozen=True)
class PaperView:
    """One page."""

    package: str
    paper: Mapping[str, Any]
    citation: str
    claims: Sequence[ClaimView]
    parts: Sequence[PartView]
    methods: Sequence[tuple[str, str]]
    """Title and HTML of the README's sections on what the method is."""
    deviations: Sequence[tuple[str, str]]
    """The same of those on where the reproduction differs."""
    machines: str
    """What the records were measured on."""
    cost: Table
    records: Table
    bibtex: str
    unused: int = 0
    """Records that no figure of today counts."""
    thumbnail: FigureView | None = None
