"""Tests every page of the site in headless Chromium: no errors, no broken pictures, sortable tables, nothing too wide.

Chromium has no small windows, so each page is shown in a frame of the tested width. A script that is added to the page
reports to the outer page, which Chromium prints.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from small_site import PAPER, built

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here; apt-get install chromium")
WIDTHS = (380, 1280)
WHOLE = os.environ.get("REPRO_SITE")
"""A site that `reproduce report` wrote. The tests look at this site in place of a small one."""
PAGES = (
    sorted(str(page.relative_to(WHOLE)) for page in Path(WHOLE).rglob("*.html"))
    if WHOLE
    else ["index.html", f"{PAPER}.html", f"records/{PAPER}.html"]
)
CHECK = """
<script>
const errors = [];
addEventListener("error", (event) => errors.push(event.message || "not loaded: " + (event.target.src || "")), true);
addEventListener("load", () => {
  const images = [...document.images];
  document.querySelectorAll("details").forEach((each) => { each.open = true; });
  const root = document.documentElement;
  const tables = [...document.querySelectorAll("table.sortable")].map((table) => {
    const column = [...table.tHead.rows[0].cells].findIndex((cell) => /published|measured|epochs/.test(cell.innerText));
    const button = table.tHead.rows[0].cells[Math.max(column, 0)].querySelector("button");
    const read = () => [...table.tBodies[0].rows].map((row) => row.cells[Math.max(column, 0)].textContent.trim());
    button.focus();
    const focused = document.activeElement === button;
    button.click(); const up = read();
    button.click(); const down = read();
    return { up, down, focused, order: button.parentElement.getAttribute("aria-sort") };
  });
  parent.postMessage({
    errors, tables, width: innerWidth, wide: root.scrollWidth,
    broken: images.filter((image) => !image.naturalWidth).map((image) => image.src),
    silent: images.filter((image) => !image.alt).length,
  }, "*");
});
</script>
"""
FRAME = """<body><pre id="report">nothing</pre><iframe src="{page}" width="{width}" height="900"></iframe><script>
addEventListener("message", (event) => {{ report.textContent = JSON.stringify(event.data); }});
</script></body>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a site with the check in each page: a copy of the site `WHOLE`, or a small one."""
    folder = tmp_path_factory.mktemp("browser")
    if WHOLE:
        shutil.copytree(WHOLE, folder, dirs_exist_ok=True)
    else:
        built(folder)
    for page in folder.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        waiting = text.replace(' loading="lazy"', "")  # a page is loaded when all its pictures are
        page.write_text(waiting.replace("<head>", f"<head>{CHECK}", 1), encoding="utf-8")
    return folder


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_works_in_a_browser(site: Path, page: str, width: int) -> None:
    found, console = opened(site, page, width)
    assert found["width"] == width
    assert found["wide"] <= width
    assert found["errors"] == [] and console == []
    assert found["broken"] == [] and found["silent"] == 0
    assert found["tables"]
    for table in found["tables"]:
        assert table["focused"] and table["order"] == "descending"
        assert table["up"] == sorted(table["up"], key=by_value)
        assert [text.lower() for text in table["down"]] == [text.lower() for text in table["up"][::-1]]


def opened(site: Path, page: str, width: int) -> tuple[dict, list[str]]:
    """Open a page in a frame of that width. Returns what the page says of itself, and the browser's console."""
    frame = site / "frame.html"
    frame.write_text(FRAME.format(page=page, width=width), encoding="utf-8")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        "--enable-logging=stderr",
    ]
    size = ["--window-size=1600,1200", "--virtual-time-budget=10000", "--dump-dom", frame.as_uri()]
    done = subprocess.run([str(CHROMIUM), *options, *size], capture_output=True, text=True, timeout=300)
    report = re.search(r'<pre id="report">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert report, done.stderr
    return json.loads(unescape(report[1])), [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def by_value(text: str) -> tuple[bool, float, str]:
    """Sort numbers by value, and put everything else after them."""
    number = re.match(r"[+-]?\d[\d.]*", text)
    return not number, float(number[0]) if number else 0.0, text.lower()
