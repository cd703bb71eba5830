"""Makes a small site: one paper, with names that mean something to HTML and LaTeX, and pictures of one colour."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from common.drawing import site
from common.drawing.tables import Cell, Table, plain
from common.drawing.views import ClaimView, FigureView, PaperView, PartView

PAPER, HASH = "lucir", "0123456789abcdef"
NASTY = "<script>alert(1)</script> & 5 % of $x_1$"
WIDE = "a_name_without_any_place_to_break_it_" * 6


def figure(id: str = "quick-fig1") -> FigureView:
    """Return a figure with a table of three rows, of which two are measured."""
    rows = [
        [Cell("q"), Cell(NASTY), Cell("63.42 (printed)"), Cell("40.00 (n = 1)", f"records/{PAPER}.html#{HASH}")],
        [Cell("q"), Cell("CN"), Cell("9.70 (printed)"), Cell("9.10 ± 0.20", f"#{id}-runs")],
        [Cell("q"), Cell(WIDE), Cell("–"), Cell("–")],
    ]
    table = Table(id, f"Fig. 1: {NASTY}", ["quantity", "method", "published", "measured"], rows)
    printed = plain("published-fig1", "Fig. 1", ["method", "published"], [["CN", "9.7"], ["IS", "63.42"]])
    records = {"CN": [HASH]}
    return FigureView(
        id, "fig1", f"Fig. 1: {NASTY}", [], table, printed, records, "python -m lucir.reproduce --only fig1 --draw",
        f"figures/{id}", (900, 400), f"Fig. 1. {NASTY}",
    )  # fmt: skip


def paper() -> PaperView:
    """Return one paper with two claims, one part and one record."""
    shown = figure()
    claims = [
        ClaimView(
            "a", NASTY, "Fig. 1", "+5.82 points (printed)", "+0.31 points (n = 1)", "embedded", "indicative", shown.id
        ),
        ClaimView("b", "Another", "Fig. 2", "–", "–", "–", "not measured", ""),
    ]
    part = PartView(
        "quick", "quick", 1.0, "Embedded data", [f"embedded data {NASTY}"], {"paper": NASTY, "long": WIDE},
        [shown], [], [("fig2", "Fig. 2", "needs runs")], [HASH], [],
    )  # fmt: skip
    row = [Cell(HASH, f"{PAPER}/{HASH}.json"), Cell("LUCIR"), Cell("8")]
    return PaperView(
        package=PAPER,
        paper={"title": f"A title {NASTY}", "authors": "A, B"},
        citation="CVPR 2019",
        claims=claims,
        parts=[part],
        methods=[("Equations", f"<p>Eq. 1</p><div class='table'><table><tr><td>{WIDE}</td></tr></table></div>")],
        deviations=[],
        machines="a CPU (fp32)",
        cost=Table("cost", "Cost", ["data", "epochs"], [[Cell("glyphs"), Cell("1", f"records/{PAPER}.html")]]),
        records=Table("records", "Records", ["record", "method", "epochs"], [row]),
        bibtex="@inproceedings{lucir,\n}",
        thumbnail=shown,
    )


def built(folder: Path) -> Path:
    """Write the site of that paper under a folder, with its pictures and its record."""
    (folder / "figures").mkdir()
    Image.new("RGB", (900, 400), "white").save(folder / "figures" / "quick-fig1.png")
    (folder / "figures" / "quick-fig1.json").write_text("{}", encoding="utf-8")
    (folder / "records" / PAPER).mkdir(parents=True)
    (folder / "records" / PAPER / f"{HASH}.json").write_text(json.dumps({}), encoding="utf-8")
    site.write([paper()], folder, Path(__file__).parents[1])
    return folder
