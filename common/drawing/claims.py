"""Measures a paper's claims: compares each effect that it reports with the same effect in our Results.

PAPER/claims.json lists the claims. An effect is a number from the comparisons of a figure, or the difference of two
such numbers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.drawing.figures import (
    Comparison,
    Drawing,
    Estimate,
    Figure,
    Published,
    Results,
    Verdict,
    estimate,
    verdict,
)


@dataclass(frozen=True)
class Term:
    """One number of a figure: the quantity and the method of a comparison, and what the paper prints for it."""

    quantity: str
    method: str
    published: float | None

    def find(self, drawing: Drawing) -> Estimate | None:
        """Return the number measured in a drawing, or None if it was not measured."""
        rows = (c.ours for c in drawing.comparisons if (c.quantity, c.method) == (self.quantity, self.method))
        return next(rows, None)


@dataclass(frozen=True)
class Claim:
    """A claim of a paper as a number: `term`, or `term` minus `minus`."""

    id: str
    text: str
    source: str
    """Section, table or figure of the paper."""
    figure: str
    """The id of this repository's figure that measures the claim."""
    unit: str
    provenance: str
    term: Term
    minus: Term | None = None
    tolerance: float = 1.0
    """Points by which a reproduction may miss, as in `Comparison`."""

    @property
    def published(self) -> float | None:
        """The published effect, or None if a number of the paper is not known."""
        if self.minus is None or self.term.published is None:
            return self.term.published
        return None if self.minus.published is None else round(self.term.published - self.minus.published, 4)

    @property
    def signed(self) -> bool:
        """Whether the effect is a difference."""
        return self.minus is not None or self.unit == "points"

    def measure(
        self, figure: Figure, settings: Sequence[Any], results: Results, published: Published
    ) -> Estimate | None:
        """Return the measured effect, or None if it was not measured.

        A difference is paired: the figure is drawn from one repeat at a time, and repeats that have both terms count.
        """
        if self.minus is None:
            return self.term.find(figure.draw(settings, results, published))
        values, whole = list[float](), True
        for repeat in dict.fromkeys(r.repeat for group in results.values() for r in group):
            one = {name: [r for r in group if r.repeat == repeat] for name, group in results.items()}
            drawing = figure.draw(settings, {name: group for name, group in one.items() if group}, published)
            term, minus = self.term.find(drawing), self.minus.find(drawing)
            if term and minus:
                values.append(term.mean - minus.mean)
                whole &= term.whole and minus.whole
        return estimate(values, whole) if values else None

    def words(self, ours: Estimate) -> str:
        """Return a measured effect as text. A difference has its sign."""
        mean = f"{ours.mean:{'+' if self.signed else ''}.2f}"
        spread = f" ± {ours.interval:.2f}" if ours.n > 1 else ""
        times = f"n = {ours.n}" if ours.n else "computed"
        return f"{mean}{spread}{f' {self.unit}' if self.unit else ''} ({times})"

    def verdict(self, ours: Estimate | None, full_schedule: bool) -> Verdict:
        """Judge the measured effect by the rule for every published number (`figures.verdict`)."""
        row = Comparison(self.text, self.term.method, self.published, self.provenance, ours, self.tolerance)
        return verdict(row, full_schedule)


def load(path: Path) -> list[Claim]:
    """Read the claims from PAPER/claims.json. The list is empty if there is no such file."""
    if not path.exists():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    return [_claim(dict(entry)) for entry in content["claims"]]


def _claim(entry: dict[str, Any]) -> Claim:
    entry["term"] = Term(**entry.pop("of"))
    if "minus" in entry:
        entry["minus"] = Term(**entry["minus"])
    return Claim(**entry)
