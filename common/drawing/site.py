"""Writes the static site: a front page, and a page and a list of records for each paper. Needs no network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from common.drawing.curves import AVERAGE
from common.drawing.equal import ALL, EQUAL, THEIRS
from common.drawing.report import MEANINGS, OURS, PROVENANCE, counted
from common.drawing.tables import Cell, Table, as_csv, as_latex
from common.drawing.views import PaperView, claims_table
from common.store import write_atomic

MARK = ".written-by-reproduce-report"
"""A file that marks a folder as written by `reproduce report`. Other folders must not be replaced."""
ASSETS = ("site.css", "site.js")


def write(papers: Sequence[PaperView], folder: Path, root: Path) -> None:
    """Write every page and table. The caller has written the pictures and records.

    root: the root of the repository, whose CITATION.cff says how to cite it.
    """
    pages = Environment(
        loader=PackageLoader("common.drawing"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.tests["verdict"] = MEANINGS.__contains__
    pages.filters["counted"] = counted
    for name in ASSETS:
        source, _, _ = PackageLoader("common.drawing").get_source(pages, name)
        write_atomic(folder / name, source)
    common = {"papers": papers, "meanings": MEANINGS, "ours": OURS, "provenance": PROVENANCE}
    found = {"glance": glance(papers), "own": own_setting(papers), "equal": equal_schedules(papers)}
    widest = max((abs(float(row[-1].text.split()[0])) for row in found["equal"].rows), default=0.0)
    last = {"widest": f"{widest:.2f}", "bibtex": repository_bibtex(root / "CITATION.cff")}
    _page(pages, folder / "index.html", "index.html", "", **found, **last, **common)
    for table in found.values():
        _files(folder / "tables", table)
    for paper in papers:
        summary = claims_table(paper.paper["title"], paper.claims)
        tables = [t for t in (summary, paper.cost, paper.records) if t.rows] + list(_figure_tables(paper))
        for table in tables:
            _files(folder / "tables" / paper.package, table)
        _page(pages, folder / f"{paper.package}.html", "paper.html", "", paper=paper, claims=summary, **common)
        _page(pages, folder / "records" / f"{paper.package}.html", "records.html", "../", paper=paper, **common)


def _page(pages: Environment, path: Path, template: str, root: str, **values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, pages.get_template(template).render(root=root, **values))


def _files(folder: Path, table: Table) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / f"{table.name}.csv", as_csv(table))
    write_atomic(folder / f"{table.name}.tex", as_latex(table))


def _figure_tables(paper: PaperView) -> Iterator[Table]:
    for figure in (*(figure for part in paper.parts for figure in part.figures), *paper.formulas):
        yield from (table for table in (figure.table, figure.printed) if table)


def glance(papers: Sequence[PaperView]) -> Table:
    """Return a table with the first claim of each paper: published, measured, verdict."""
    rows = []
    for paper in papers:
        page = f"{paper.package}.html"
        if not paper.claims:
            rows.append([Cell(paper.paper["title"], page), *[Cell("–")] * 5])
            continue
        claim = paper.claims[0]
        ours = Cell(claim.ours, f"{page}#{claim.figure}-runs" if claim.figure else "")
        cells = [Cell(claim.text), Cell(claim.published), ours, Cell(claim.schedule), Cell(claim.verdict)]
        rows.append([Cell(f"{paper.package} ({paper.citation})", page), *cells])
    titles = ["paper", "main claim", "published", "measured", "measured on", "verdict"]
    return Table("papers", "The six papers at a glance", titles, rows)


def own_setting(papers: Sequence[PaperView]) -> Table:
    """Return a table with every claim that was measured on the paper's own data and schedule."""
    rows = []
    for paper in papers:
        figures = {figure.id for part in paper.parts if not part.labels for figure in part.figures}
        for claim in (claim for claim in paper.claims if claim.figure in figures):
            page = f"{paper.package}.html"
            ours = Cell(claim.ours, f"{page}#{claim.figure}-runs")
            cells = [Cell(claim.text), Cell(claim.published), ours, Cell(claim.verdict)]
            rows.append([Cell(paper.package, f"{page}#{claim.figure}"), *cells])
    titles = ["paper", "claim", "published", "measured", "verdict"]
    return Table("own-setting", "Claims at the paper's own data and schedule", titles, rows)


def equal_schedules(papers: Sequence[PaperView]) -> Table:
    """Return a table of what the authors' own code and ours reach at equal schedules, on all classes."""
    rows = []
    for paper in papers:
        page = f"{paper.package}.html"
        for figure in (f for part in paper.parts for f in part.figures if f.figure == EQUAL):
            for quantity, method, theirs, ours, gap, *_ in figure.table.rows if figure.table else ():
                if quantity.text in (AVERAGE, ALL) and gap.text != "–":  # without their number there is no gap
                    number = Cell(theirs.text.replace(f"{THEIRS}, ", "").replace(f" ({THEIRS})", ""))
                    link = f"{page}{ours.link}" if ours.link.startswith("#") else ours.link
                    first = Cell(paper.package, f"{page}#{figure.id}")
                    rows.append([first, method, quantity, number, Cell(ours.text, link), gap])
    titles = ["paper", "method", "quantity", THEIRS, "ours", "difference"]
    return Table(EQUAL, "The authors' own code and ours at equal schedules", titles, rows)


def bibtex(path: Path, key: str) -> str:
    """Return the entry of a BibTeX file with this key, or "" if there is none."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = re.search(rf"^@\w+\{{{re.escape(key)},.*?^\}}", text, flags=re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


def repository_bibtex(citation: Path) -> str:
    """Return a BibTeX entry for the repository, made from its CITATION.cff, or "" if there is no such file."""
    text = citation.read_text(encoding="utf-8") if citation.exists() else ""
    fields = dict(re.findall(r"^(title|version|url|date-released): *(.+?) *$", text, flags=re.MULTILINE))
    author = re.search(r"^authors:\n  - name: *(.+?) *$", text, flags=re.MULTILINE)
    if not fields:
        return ""
    names = {"title": f"{{{fields.pop('title', '')}}}", "author": f"{{{author[1]}}}" if author else ""}
    entry = names | {"year": fields.pop("date-released", "")[:4], **fields}
    lines = "".join(f"  {name} = {{{value}}},\n" for name, value in entry.items() if value)
    return f"@software{{reproductions,\n{lines}}}"
