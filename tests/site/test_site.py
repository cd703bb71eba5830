"""Tests the site's files: links lead somewhere, and no text is taken for HTML or LaTeX."""

from __future__ import annotations

import csv
import io
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from small_site import HASH, NASTY, PAPER, built, figure, paper

from common.command import evidence, locked, site
from common.drawing import readme
from common.drawing.claims import Claim, Term
from common.drawing.figures import Comparison, Curve, Drawing, Panel
from common.drawing.site import bibtex, equal_schedules, own_setting, repository_bibtex
from common.drawing.tables import Cell, Table, as_csv, as_latex, latex
from common.drawing.views import Effect, claims_table
from common.errors import InputError

ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """The ids, addresses and scripts of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids, self.addresses, self.scripts, self.text = set[str](), list[str](), list[str | None](), ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.ids |= {str(named["id"])} if "id" in named else set()
        self.addresses += [str(named[key]) for key in ("href", "src") if key in named]
        self.scripts += [named.get("src")] if tag == "script" else []

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the site of REPRO_SITE, or a small one."""
    whole = os.environ.get("REPRO_SITE")
    return Path(whole) if whole else built(tmp_path_factory.mktemp("site"))


def test_every_link_leads_to_a_file_or_a_place_in_a_page(folder: Path) -> None:
    pages = {path: Page(path) for path in folder.rglob("*.html")}
    assert len(pages) >= 3
    for path, page in pages.items():
        for address in page.addresses:
            if address.startswith(("http", "data:")):
                continue
            file, _, place = unquote(address).partition("#")
            there = (path.parent / file).resolve() if file else path
            assert there.is_file(), (path.name, address)
            assert not place or place in pages[there].ids, (path.name, address)


def test_pages_need_no_network(folder: Path) -> None:
    for path in folder.rglob("*.html"):
        assert all(script and script.endswith("site.js") for script in Page(path).scripts)
    assert "http" not in (folder / "site.css").read_text() + (folder / "site.js").read_text()


def test_text_is_never_taken_for_html(tmp_path: Path) -> None:
    page = Page(built(tmp_path) / f"{PAPER}.html")
    assert page.scripts == ["site.js"]
    assert NASTY in page.text


def test_a_measured_number_leads_to_its_record(tmp_path: Path) -> None:
    page = Page(built(tmp_path) / f"{PAPER}.html")
    assert f"records/{PAPER}.html#{HASH}" in page.addresses
    assert "#quick-fig1-runs" in page.addresses and "quick-fig1-runs" in page.ids


def test_claims_come_before_figures(tmp_path: Path) -> None:
    text = (built(tmp_path) / f"{PAPER}.html").read_text()
    places = [text.index(f'<section id="{name}"') for name in ("claims", "quick", "methods", "deviations", "cost")]
    assert places == sorted(places) and places[-1] < text.index('<section id="metadata"')


def test_the_front_page_begins_with_claims_at_full_schedule_and_the_authors_code(tmp_path: Path) -> None:
    (own,), (code,) = own_setting([paper()]).rows, equal_schedules([paper()]).rows
    assert [cell.text for cell in own[1:]] == ["At its own schedule", "61.68 %", "60.06 %", "reproduced"]
    assert own[3].link == f"{PAPER}.html#cifar-fig1-runs"
    assert [cell.text for cell in code[3:]] == ["30.00 (n = 2)", "29.50", "-0.50"]
    assert code[4].link == f"{PAPER}.html#cifar-equal-schedules-runs"
    text = (built(tmp_path) / "index.html").read_text()
    assert "the largest is 0.50" in text
    places = [text.index(f'<section id="{name}"') for name in ("own", "equal", "papers", "verdicts")]
    assert places == sorted(places)


def test_a_figure_lists_what_was_measured_and_verdicts_where_they_may_differ() -> None:
    cells = [[Cell(f"{method} {i}") for i in range(5)] for method in ("SM", "CB")]
    cells[1][1] = Cell("–")
    table = Table("t", "T", ["quantity", "ours", "published", "difference", "verdict"], cells)
    full, reduced = site._told(table, True), site._told(table, False)
    assert full and [len(row) for row in full.rows] == [5] and full.titles[-1] == "verdict"
    assert reduced and [len(row) for row in reduced.rows] == [4] and "verdict" not in reduced.titles
    assert site._told(Table("t", "T", table.titles, cells[1:]), True) is None


def test_a_figure_without_data_or_without_the_authors_numbers_is_not_drawn() -> None:
    empty, line = Panel("", "", "", [Curve("CN", [1], [float("nan")])]), Panel("", "", "", [Curve("CN", [1], [2.0])])
    equal = replace(figure(), figure="equal-schedules", notes=["a", "2 of its runs are not finished"])
    theirs = [Comparison("q", "CN", 30.0, "authors' code", None)]
    assert site._nothing(equal, Drawing([empty])) == "2 of its runs are not finished"
    assert site._nothing(figure(), Drawing([empty, line])) == site._nothing(equal, Drawing([line], theirs)) == ""
    assert "another schedule" in site._nothing(equal, Drawing([line]))


def test_claims_that_are_measured_nearest_to_the_paper_come_first() -> None:
    near, far = (replace(part, heading=part.name) for part in paper().parts[::-1])
    near = replace(near, effects=[Effect("c", "+1", "reproduced", "fig1")])
    far = replace(far, effects=[Effect(id, "+1", "indicative", "fig1") for id in ("b", "c")])
    listed = [Claim(id, id, "", "fig1", "", "printed", Term("q", "m", 1.0)) for id in ("a", "b", "c")]
    assert [(c.id, c.schedule) for c in evidence.claims(listed, [near, far])] == [
        ("c", near.name),
        ("b", far.name),
        ("a", "–"),
    ]


def test_csv_holds_what_the_page_shows() -> None:
    table = figure().table
    assert table
    lines = list(csv.reader(io.StringIO(as_csv(table))))
    assert lines == [list(table.titles), *([cell.text for cell in row] for row in table.rows)]


def test_latex_is_a_booktabs_table_in_ascii() -> None:
    text = as_latex(claims_table(paper().paper["title"], paper().claims))
    assert text.isascii() and [line for line in text.splitlines() if line.endswith("rule")] == [
        "\\toprule",
        "\\midrule",
        "\\bottomrule",
    ]
    assert latex("5 % of x_1 & σ ± 2, Ω") == r"5 \% of x\_1 \& $\sigma$ $\pm$ 2, $\Omega$"
    assert latex("the paper’s “own”") == "the paper's ``own''"
    for line in text.splitlines()[4:-2]:
        assert line.count(" & ") == 5 if not line.endswith("rule") else True


def test_readme_sections_are_told_apart_and_keep_no_link_into_the_repository(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(
        "# T\n\n## Where each equation is\n\n[a](b.md) <b>x</b>\n\n## What we found\n\nno\n\n"
        "## Deviations and assumptions\n\n| a |\n|---|\n| [c](https://d.example) |\n"
    )
    methods, deviations = readme.sections(file)
    assert [title for title, _ in methods] == ["Where each equation is"]
    assert methods[0][1].strip() == "<p>a &lt;b&gt;x&lt;/b&gt;</p>"
    assert [title for title, _ in deviations] == ["Deviations and assumptions"]
    assert "https://d.example" in deviations[0][1] and '<div class="table"' in deviations[0][1]


def test_citations_are_those_of_the_repository() -> None:
    assert bibtex(ROOT / "docs" / "references.bib", "bbn").startswith("@inproceedings{bbn,")
    assert "Zhou, Boyan" in bibtex(ROOT / "docs" / "references.bib", "bbn")
    assert bibtex(ROOT / "docs" / "references.bib", "nobody") == ""
    ours = repository_bibtex(ROOT / "CITATION.cff")
    assert ours.startswith("@software{") and re.search(r"^  year = \{20\d\d\},$", ours, re.MULTILINE)


def test_a_folder_that_is_no_site_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "thesis.tex").touch()
    with pytest.raises(InputError, match="not a site that this command wrote"):
        site.write(site.SiteArguments(tmp_path))
    assert (tmp_path / "site" / "thesis.tex").exists()


def test_a_run_is_locked_where_its_versions_are_those_of_the_constraints(tmp_path: Path) -> None:
    file = tmp_path / "constraints.txt"
    file.write_text("# exact\ntorch==2.6.0\nNumPy==2.0.1 # arrays\n")
    assert locked.matches({"torch": "2.6.0+cpu", "numpy": "2.0.1"}, file)
    assert not locked.matches({"torch": "2.6.1", "numpy": "2.0.1"}, file)
    assert not locked.matches({"torch": "2.6.0"}, file)


def test_constraints_are_exact_and_name_no_host() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert {"torch", "numpy", "jinja2"} <= locked.versions().keys()
    assert all("==" in line and "/" not in line and "@" not in line for line in lines)
