"""Collects what a paper's committed records have measured, in a part for each preset and length of schedules."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.checkpoints import write_atomic
from common.command.evidence import claims
from common.command.export import records_folder
from common.command.painter import Painter, words
from common.command.plan import Choice, Data, Plan, make_plan, published
from common.command.recorded import choices
from common.drawing import claims as claimed
from common.drawing import written
from common.drawing.claims import Claim
from common.drawing.figures import Figure
from common.drawing.report import ReportContext, ReportRow, facts, shown, table
from common.drawing.results import Result
from common.drawing.tables import Cell, Table, plain
from common.drawing.views import Effect, FigureView, PartView
from common.errors import InputError
from common.store import Store

PRESETS = ("cifar", "imagenet", "quick")
"""The presets that may have records, the nearest to the paper's setting first."""


def write_results(paper: str) -> Path:
    """Write PAPER/RESULTS.md from the records in PAPER/records. Returns its path."""
    path = records_folder(paper).parent / "RESULTS.md"
    write_atomic(path, results_text(paper))
    return path


def results_text(paper: str) -> str:
    """Return the text of PAPER/RESULTS.md: the claims, then a table for each figure. It draws no picture.

    Raises InputError if a record is damaged or a figure cannot be drawn: its numbers would be missing without a word.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = records_of(paper, Path(folder))
        chosen = [choice for preset in PRESETS for choice in recorded_choices(paper, preset, store)]
        parts = in_order([part(drawn(paper, choice, store, Path(folder), formats=())) for choice in chosen])
    if problems := [*store.refused, *(problem for view in parts for problem in view.problems)]:
        raise InputError("; ".join(problems))
    return written.results(published(paper).paper, claims(claims_of(paper), parts), parts)


def claims_of(paper: str) -> list[Claim]:
    """Return the claims of a paper, from PAPER/claims.json."""
    return claimed.load(records_folder(paper).parent / "claims.json")


def records_of(paper: str, empty: Path) -> Store:
    """Return a store that sees the paper's committed records only. empty: an empty results folder."""
    return Store(empty, [records_folder(paper)])


def in_order(parts: Sequence[PartView]) -> list[PartView]:
    """Return the parts in the order of PRESETS, then the longest schedule first."""
    return sorted(parts, key=lambda part: (PRESETS.index(part.preset), -part.scale))


def recorded_choices(paper: str, preset: str, store: Store) -> Iterator[Choice]:
    """Yield a choice for each length of schedules that a paper has records of. store: made by `records_of`."""
    try:
        plan = _plan(paper, Choice(preset=preset, draw=True), store)
    except InputError:  # the paper has no such preset
        return
    everything = tuple(f.id for f in (*plan.figures, *(f for f, _ in plan.skipped)) if preset in f.presets)
    yield from choices(_plan(paper, replace(plan.choice, only=everything), store))


def _plan(paper: str, choice: Choice, store: Store) -> Plan:
    """Return a plan that sees the store's committed records, of any copy of the data."""
    return make_plan(paper, choice, store, Data(None, store.runs.parent))


def drawn(paper: str, choice: Choice, store: Store, pictures: Path, formats: tuple[str, ...]) -> Painter:
    """Draw all figures of one paper for one choice, with files of these formats in the folder `pictures`."""
    painter = Painter(_plan(paper, choice, store), pictures, formats=formats)
    painter.draw_rest()
    return painter


def part(painter: Painter) -> PartView:
    """Return the numbers of all figures that were drawn, and the effects of the paper's claims."""
    choice, context, name = painter.plan.choice, painter.context(), painter.folder.parent.name
    rows = painter.rows.values()
    return PartView(
        name=name,
        preset=choice.preset,
        scale=choice.epochs_scale,
        heading=_heading(context.results, choice.epochs_scale),
        labels=context.labels,
        facts=facts(painter.plan.published.paper, choice.preset, context),
        figures=[_figure(painter, row, name, context) for row in rows if row.drawing],
        effects=_effects(painter),
        undrawn=[(r.figure.id, r.figure.title, r.reason) for r in rows if r.drawing is None],
        used=sorted(painter.used),
        problems=[f"{painter.plan.paper}, {name}: {problem}" for problem in painter.problems],
    )


def _heading(results: Sequence[Result], scale: float) -> str:
    names = {"glyphs": "Embedded data", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
    data = " and ".join(sorted({names.get(d := r.config["data"]["name"], d) for r in results}))
    if scale != 1:
        return f"{data}, epochs × {scale:g}"
    return data if any(r.embedded for r in results) else f"{data}, the paper’s epochs"


def _figure(painter: Painter, row: ReportRow, part: str, context: ReportContext) -> FigureView:
    assert row.drawing is not None
    figure, plan = row.figure, painter.plan
    records = {_key(key): hashes for key, hashes in painter.groups[figure.id].items()}
    return FigureView(
        id=f"{part}-{figure.id}",
        figure=figure.id,
        title=figure.title,
        notes=[text for text in (row.drawing.note, row.reason) if text],
        table=_table(painter, row, part, records, context) if row.drawing.comparisons else None,
        printed=_printed(plan.published.entries_of(figure.id), figure),
        records=records,
        command=words(replace(plan, choice=replace(plan.choice, only=(figure.id,)))),
    )


def _key(key: object) -> str:
    return ", ".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _table(
    painter: Painter, row: ReportRow, part: str, records: Mapping[str, Sequence[str]], context: ReportContext
) -> Table:
    """Return the report's table. Each measured number links to its record, or to the figure's list of records."""
    titles, body = table(row, context)
    at, paper = titles.index("ours"), painter.plan.paper
    rows = []
    for line in body:
        cells = [Cell(text) for text in line]
        hashes = records.get(line[1], ())
        one = f"records/{paper}.html#{hashes[0]}" if len(hashes) == 1 else f"#{part}-{row.figure.id}-runs"
        if line[at] != shown(None) and records:
            cells[at] = Cell(line[at], one)
        rows.append(cells)
    return Table(f"{part}-{row.figure.id}", row.figure.title, titles, rows)


def _printed(entries: Sequence[Mapping[str, Any]], figure: Figure) -> Table | None:
    """Return a table of every number that the paper prints in the figure, with its provenance; None without numbers."""
    rows = []
    for series in (series for entry in entries for series in entry["series"]):
        points = [*zip(series["x"], series["y"], strict=True)]
        points += [("average", series["average"])] if series["average"] is not None else []
        rows += [[series["method"], str(x), str(y), series["provenance"]] for x, y in points if y is not None]
    if not rows:
        return None
    metric = " / ".join(dict.fromkeys(e["metric"].replace("_", " ") for e in entries))
    data = " / ".join(dict.fromkeys(e["dataset"] for e in entries))
    at = " / ".join(dict.fromkeys(e["x_label"] for e in entries if e.get("x_label"))) or "at"
    return plain(f"published-{figure.id}", f"{figure.title}: {metric} ({data})", ["method", at, metric, "from"], rows)


def _effects(painter: Painter) -> list[Effect]:
    """Return the effects of the paper's claims that this part of the records measures."""
    figures = {figure.id: figure for figure in painter.plan.figures}
    found = []
    for claim in claims_of(painter.plan.paper):
        if claim.figure in painter.groups:
            figure, plan = figures[claim.figure], painter.plan
            ours = claim.measure(figure, plan.settings, plan.results(figure)[0], plan.published)
            if ours:
                judged = claim.verdict(ours, painter.full_schedule)
                part = painter.folder.parent.name
                found.append(Effect(claim.id, claim.words(ours), judged, f"{part}-{claim.figure}"))
    return found
