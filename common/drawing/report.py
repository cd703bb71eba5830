"""Writes the report of one paper: every figure with its published and measured numbers and the verdicts.

The report has a list of facts, a table that counts the verdicts, and a table for each figure. It is written as Markdown
and as HTML.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

from common.checkpoints import write_atomic
from common.drawing.figures import Comparison, Drawing, Estimate, Figure, Verdict, verdict
from common.drawing.results import Result
from common.drawing.tables import escaped, markdown

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
OURS = (
    "Ours is the mean over n repeats ± the half-width of its 95 % t-interval (std: standard deviation, n - 1), at the "
    "last epoch unless a row says best test epoch; difference: ours minus published."
)
MEANINGS: dict[Verdict, str] = {
    "reproduced": "the published mean lies within max(1.0 point, the half-width) of ours",
    "not reproduced": "it lies further away",
    "indicative": "ours cannot decide: a reduced schedule, embedded data, one repeat (n = 1), repeats that share a "
    "first phase, or a published number known from memory alone (memory-unverified); or agreement of two repeats, or "
    "within more than 2 points, where almost any number would agree",
    "not measured": "no run of ours",
    "no published number": "the paper gives none, or none could be had",
}
PROVENANCE = (
    "In brackets behind a published number: where it is from (printed in the paper, digitised from a plot, "
    "official-file of the authors, third-party: as others quote it; authors' code: what that reaches at our schedule, "
    "which no paper prints)."
)
RULE = " ".join([OURS, *(f"{word}: {meaning}." for word, meaning in MEANINGS.items()), PROVENANCE])
STYLE = """
:root { --ink: #1d1f21; --soft: #6b7075; --line: #e3e5e8; --paper: #fff; --shade: #f6f7f8; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: var(--ink);
  background: var(--paper); max-width: 1500px; margin: 0 auto; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; }
h2 { font-size: 1.15rem; margin: 0 0 .75rem; }
h2 small { color: var(--soft); font-weight: 400; margin-right: .5rem; }
.soft, figcaption { color: var(--soft); }
.label { background: #fdf1e3; border-left: 4px solid #D55E00; margin: .4rem 0; padding: .4rem .8rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 1.2rem 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
section { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: 1.5rem; }
figure { margin: 0 0 1rem; }
figure img { zoom: .7; max-width: 100%; height: auto; border: 1px solid var(--line); border-radius: 4px; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { background: var(--shade); font-weight: 600; }
tbody tr:hover { background: var(--shade); }
.verdict { border-radius: 3px; color: #fff; background: #7a7f85; padding: .05rem .45rem; white-space: nowrap; }
.reproduced { background: #007a5a; }
.not-reproduced { background: #b34700; }
.indicative { background: #0072B2; }
@media print { section { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class ReportRow:
    """One figure of the report, drawn or not."""

    figure: Figure
    drawing: Drawing | None
    reason: str = ""
    """Why the figure is not drawn, or which of its runs are missing."""


@dataclass(frozen=True)
class ReportContext:
    """Holds what a report says about all of its figures together."""

    labels: list[str]
    """The reasons why the numbers cannot be compared with the published ones, and the runs that failed."""
    full_schedule: bool
    results: list[Result]
    from_records: int
    command: str
    published_on: Mapping[str, str] = field(default_factory=dict)
    """The data set of a figure's published numbers, by the figure's id."""


def write_report(
    folder: Path, paper: Mapping[str, Any], preset: str, rows: Sequence[ReportRow], context: ReportContext
) -> None:
    """Write folder/report.md and folder/report.html."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "report.md", _markdown(paper, preset, rows, context))
    write_atomic(folder / "report.html", _html(paper, preset, rows, context))


def machine(environment: Mapping[str, Any]) -> str:
    """Return the device and threads that trained a run, with the number of processes if several trained it together."""
    device, ranks = environment.get("device", "unknown"), environment.get("ranks", 1)
    return f"{f'{ranks} x ' if ranks > 1 else ''}{device}, {counted(environment.get('threads', '?'), 'thread')}"


def counted(number: int | str, noun: str) -> str:
    """Return a number and its noun, such as "1 run" and "2 runs"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def facts(paper: Mapping[str, Any], preset: str, context: ReportContext) -> dict[str, str]:
    """Return what was run, where and how, as text by name, such as "machines"."""
    results = context.results
    configs, places = [r.config for r in results], [r.environment for r in results]
    commits = _each(code(e, 10) + (" (with changes)" if e.get("dirty") else "") for e in places)
    machines = (machine(e) for e in places)
    software = (f"torch {e.get('torch', '?')}, Python {e.get('python', '?')}" for e in places)
    epochs = sorted({c["schedule"]["epochs"] for c in configs if "epochs" in c.get("schedule", {})})
    hours = sum(e.get("training_seconds", 0) or 0 for e in places) / 3600
    entries = {
        "paper": f"{paper['authors']}. {paper['title']}. {citation(paper)}." if "authors" in paper else "",
        "preset": preset,
        "command": context.command,
        "repeats": varied(configs),
        "data": _each(
            f"{c.get('data', {}).get('name', '?')} (fingerprint {c.get('fingerprint', '?')})" for c in configs
        ),
        "epochs": ", ".join(map(str, epochs)),
        "runs": f"{len(results)}, of which {context.from_records} from committed records; {hours:.1f} h of training, "
        "starts not counted",
        "commit": commits,
        "machines": _each(machines),
        "precision": _each(str(e.get("precision", "unknown")) for e in places),
        "software": _each(software),
        "verdicts": RULE,
    }
    return {name: text for name, text in entries.items() if text}


def code(environment: Mapping[str, Any], digits: int) -> str:
    """Return the commit of the code that trained a run, or the digest of a learner's file that no repository tracks."""
    commit, source = environment.get("commit", "unknown"), environment.get("source", "unknown")
    return commit[:digits] if commit else f"source {source[:digits]}"


def citation(paper: Mapping[str, Any]) -> str:
    """Return a paper's venue, year and arXiv number."""
    number = f", arXiv:{paper['arxiv']}" if paper.get("arxiv") else ""
    return f"{paper.get('venue', '')} {paper.get('year', '')}".strip() + number


def varied(configs: Sequence[dict]) -> str:
    """Return how many repeats there are, and what differs between them: seeds, class orders or both."""
    pairs = sorted({(str(c.get("order", "")), c.get("seed", 0)) for c in configs})
    orders, seeds = list(dict.fromkeys(o for o, _ in pairs)), sorted({s for _, s in pairs})
    lists = f"class orders {', '.join(orders)}; seeds {', '.join(map(str, seeds))}"
    if len(pairs) < 2:
        return f"n = {len(pairs)}; {lists}" if pairs else ""
    if len(orders) == 1:
        what = "seeds vary, the class order is fixed"
    elif len(seeds) == 1:
        what = "class orders vary, the seed is fixed"
    else:
        what = "class orders and seeds vary" + (" together" if len(pairs) == len(orders) == len(seeds) else "")
    return f"n = {len(pairs)}: {what} ({lists})"


def _each(words: Iterable[str]) -> str:
    """Join the distinct texts. If there are several, the number of runs that have it follows each in brackets."""
    counts = Counter(words)
    return "; ".join(f"{w} ({counted(n, 'run')})" if len(counts) > 1 else w for w, n in counts.most_common())


def _number(value: float | None, sign: str = "", digits: int = 2) -> str:
    return "–" if value is None or value != value else f"{value:{sign}.{digits}f}"


def _digits(comparisons: Sequence[Comparison]) -> dict[str, int]:
    """Return the decimals of each quantity: none if it has whole numbers alone and is no percentage, else two."""
    numbers: dict[str, list[float | None]] = {}
    for row in comparisons:
        ours = (row.ours.mean, *((row.ours.interval, row.ours.std) if row.ours.n > 1 else ())) if row.ours else ()
        numbers.setdefault(row.quantity, []).extend([row.published, *ours])
    counts = {q for q, found in numbers.items() if all(v is None or float(v).is_integer() for v in found)}
    return {quantity: 0 if quantity in counts and not re.search("%|point", quantity) else 2 for quantity in numbers}


def shown(ours: Estimate | None, digits: int = 2) -> str:
    """Return a measured number as text: mean ± interval, standard deviation and n, or a dash if there is none."""
    if ours is None:
        return "–"
    if ours.n < 2:
        return _number(ours.mean, digits=digits) + (" (n = 1)" if ours.n else "")
    if 0 < ours.interval < 0.01 and abs(ours.mean) < 1.5:  # such as omega, a cosine
        digits = 3
    mean, interval, std = (_number(value, digits=digits) for value in (ours.mean, ours.interval, ours.std))
    return f"{mean} ± {interval} (std {std}, n = {ours.n})"


def signed(gap: Estimate) -> str:
    """Return a difference as text, with its interval if it has one."""
    return _number(gap.mean, "+") + ("" if gap.interval != gap.interval else f" ± {_number(gap.interval)}")


def table(row: ReportRow, context: ReportContext) -> tuple[list[str], list[list[str]]]:
    """Return titles and cells of a figure's table. Without any published number it lists what was measured."""
    comparisons = row.drawing.comparisons if row.drawing else ()
    digits = _digits(comparisons)
    if all(c.published is None for c in comparisons):
        rows = [[c.quantity, c.method, shown(c.ours, digits[c.quantity])] for c in comparisons]
        return ["quantity", "method", "ours"], rows
    data = context.published_on.get(row.figure.id)
    titles = ["quantity", "method", f"published ({data})" if data else "published", "ours", "difference", "verdict"]
    return titles, [cells(c, context.full_schedule, digits[c.quantity]) for c in comparisons]


def cells(comparison: Comparison, full_schedule: bool, digits: int = 2) -> list[str]:
    """Return the cells of a comparison: quantity, method, published, measured, difference and verdict."""
    published, ours = comparison.published, comparison.ours
    printed = _number(published, digits=digits)
    if published is not None and comparison.provenance:
        printed += f" ({comparison.provenance})"
    difference = ours.mean - published if ours is not None and published is not None else None
    apart = signed(comparison.gap) if comparison.gap else _number(difference, "+", digits)
    row = [comparison.quantity, comparison.method, printed, shown(ours, digits), apart]
    return [*row, verdict(comparison, full_schedule)]


def counts(rows: Sequence[ReportRow], full_schedule: bool) -> tuple[list[str], list[list[str]]]:
    """Return titles and cells of the summary: the number of verdicts for each drawn figure, and their sum last."""
    drawn = [(row, row.drawing) for row in rows if row.drawing]
    found = [Counter(verdict(c, full_schedule) for c in drawing.comparisons) for _, drawing in drawn]
    total = sum(found, Counter[str]())
    named = [v for v in VERDICTS if total[v]]
    body = [
        [row.figure.id, "drawn in part" if row.reason else "drawn", *(str(n[v]) for v in named)]
        for (row, _), n in zip(drawn, found, strict=True)
    ]
    last = ["all", f"{len(drawn)} of {len(rows)} drawn", *(str(total[v]) for v in named)]
    return ["figure", "state", *named], [*body, last]


def _markdown(paper: Mapping[str, Any], preset: str, rows: Sequence[ReportRow], context: ReportContext) -> str:
    parts = [f"# {escaped(paper['title'])}", *(f"> **{escaped(label)}**" for label in context.labels)]
    parts.append("\n".join(f"- {name}: {escaped(text)}" for name, text in facts(paper, preset, context).items()))
    parts += ["## Summary", markdown(*counts(rows, context.full_schedule))]
    for row in rows:
        if row.drawing is None:
            continue
        name = quote(row.figure.id)
        parts += [f"## {row.figure.id}: {escaped(row.figure.title)}", f"![{row.figure.id}]({name}.png)"]
        parts.append(f"[PDF]({name}.pdf) · [numbers]({name}.json)")
        parts += [escaped(text) for text in (row.drawing.note, row.reason) if text]
        if row.drawing.comparisons:
            parts.append(markdown(*table(row, context)))
    if missing := [row for row in rows if row.drawing is None]:
        lines = [f"- {row.figure.id} ({escaped(row.figure.title)}): {escaped(row.reason)}" for row in missing]
        parts += ["## Not drawn", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _table_html(titles: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    lines = "\n".join(f"<tr>{''.join(f'<td>{_cell_html(cell)}</td>' for cell in row)}</tr>" for row in body)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead>\n<tbody>{lines}</tbody></table></div>'


def _cell_html(text: str) -> str:
    if text in VERDICTS:
        return f'<span class="verdict {text.replace(" ", "-")}">{text}</span>'
    return escape(text)


def _figure_html(row: ReportRow, context: ReportContext) -> str:
    assert row.drawing is not None
    name, id, title = quote(row.figure.id), escape(row.figure.id), escape(row.figure.title)
    notes = "".join(f" {escape(text)}." for text in (row.drawing.note, row.reason) if text)
    rows = _table_html(*table(row, context)) if row.drawing.comparisons else ""
    return (
        f'<section id="{id}"><h2><small>{id}</small>{title}</h2>\n<figure>'
        f'<a href="{name}.png"><img src="{name}.png" alt="{title}" loading="lazy"></a><figcaption>'
        f'<a href="{name}.pdf">PDF</a> · <a href="{name}.json">numbers</a>{notes}</figcaption></figure>\n'
        f"{rows}</section>"
    )


def _html(paper: Mapping[str, Any], preset: str, rows: Sequence[ReportRow], context: ReportContext) -> str:
    title = escape(paper["title"])
    labels = "\n".join(f'<p class="label">{escape(label)}</p>' for label in context.labels)
    listed_facts = facts(paper, preset, context)
    listed = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in listed_facts.items())
    summary = _table_html(*counts(rows, context.full_schedule))
    drawn = "\n".join(_figure_html(row, context) for row in rows if row.drawing)
    missing = "\n".join(
        f"<li><b>{escape(row.figure.id)}</b> {escape(row.figure.title)}: {escape(row.reason)}</li>"
        for row in rows
        if row.drawing is None
    )
    absent = f"<section><h2>Not drawn</h2><ul>{missing}</ul></section>" if missing else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: {escape(preset)}</title><style>{STYLE}</style></head><body>
<header><h1>{title}</h1><p class="soft">{escape(citation(paper))} · preset {escape(preset)}</p>{labels}</header>
<dl>{listed}</dl>
<section><h2>Summary</h2>{summary}</section>
{drawn}
{absent}
</body></html>
"""
