"""Tests the site's files: links lead somewhere, and no text is taken for HTML or LaTeX."""

from __future__ import annotations

import csv
import io
import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from small_site import HASH, NASTY, PAPER, built, figure, paper

from common.command import locked, site
from common.drawing import readme
from common.drawing.site import bibtex, repository_bibtex
from common.drawing.tables import as_csv, as_latex, latex
from common.drawing.views import claims_table
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
    assert repository_bibtex(ROOT / "CITATION.cff").startswith("@software{")


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
