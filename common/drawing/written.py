"""Writes the text of PAPER/RESULTS.md: what was found of the paper's claims, then a table for each figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.drawing.report import RULE, citation, shown
from common.drawing.tables import Cell, Table, escaped, markdown
from common.drawing.views import ClaimView, FigureView, PartView, claims_table

LONGEST = 60
"""The most rows of a table. A figure with more has a table for each quantity."""


def results(paper: Mapping[str, Any], claims: Sequence[ClaimView], parts: Sequence[PartView]) -> str:
    """Return the whole text as GitHub's Markdown. paper: its title and venue, as in published.json."""
    lines = [
        f"# Results: {escaped(paper['title'])}",
        f"{citation(paper)}. `reproduce record --results-only` writes this file from the records in "
        "[`records/`](records): nothing in it is typed by hand. Each table stands below the command that draws its "
        "figure from the same records. [`README.md`](README.md) explains the methods. `make report` writes a site "
        "that links each number to its record.",
        "## Claims",
        _as_markdown(claims_table(paper["title"], claims)) if claims else "No claims are listed.",
        "Each claim is measured where the records come nearest to the paper’s own setting. The sign of an effect is "
        "that of a difference: a negative one is a lower error where the unit is an error.",
        "## How to read the numbers",
        escaped(RULE),
    ]
    for part in parts:
        lines += _part(part)
    if not parts:
        lines.append("No record of any figure is committed yet.")
    return "\n\n".join(lines) + "\n"


def _part(part: PartView) -> Iterator[str]:
    yield f"## {escaped(part.heading)}"
    yield from (f"> **{escaped(label)}**" for label in part.labels)
    for figure in part.figures:
        if figure.records and figure.table:
            yield from _figure(figure, figure.table)


def _figure(figure: FigureView, table: Table) -> Iterator[str]:
    """Yield heading, command, notes and the measured numbers, and how many rows are not measured."""
    at = table.titles.index("ours")
    measured = [row for row in table.rows if row[at].text != shown(None)]
    if not measured:
        return
    yield f"### {figure.figure}: {escaped(figure.title)}"
    yield f"`{figure.command}`"
    yield from map(escaped, figure.notes)
    groups = list(_by_quantity(measured).values())
    for rows in groups if len(measured) > LONGEST else [[row for group in groups for row in group]]:
        yield markdown(table.titles, [[cell.text for cell in row] for row in rows])
    if missing := len(table.rows) - len(measured):
        yield f"{missing} more {'row is' if missing == 1 else 'rows are'} not measured yet."


def _by_quantity(rows: Sequence[Sequence[Cell]]) -> dict[str, list[Sequence[Cell]]]:
    """Group rows by their quantity, which is the first column, in the order in which quantities first occur."""
    found: dict[str, list[Sequence[Cell]]] = {}
    for row in rows:
        found.setdefault(row[0].text, []).append(row)
    return found


def _as_markdown(table: Table) -> str:
    return markdown(table.titles, [[cell.text for cell in row] for row in table.rows])
