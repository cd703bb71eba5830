"""Makes a small site: one paper, with names that mean something to HTML and LaTeX, and pictures of one colour.

The paper has a figure at its own schedule, one on embedded data, one beside the authors' code, and one from a formula.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from PIL import Image

from common.drawing import site
from common.drawing.curves import AVERAGE
from common.drawing.equal import EQUAL
from common.drawing.tables import Cell, Table, plain
from common.drawing.views import ClaimView, FigureView, PaperView, PartView

PAPER, HASH = "lucir", "0123456789abcdef"
NASTY = "<script>alert(1)</script> & 5 % of $x_1$"
WIDE = "a_name_without_any_place_to_break_it_" * 6
PICTURES = ("quick-fig1", "cifar-fig1", "cifar-equal-schedules", "cifar-fig0")


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


def equal() -> FigureView:
    """Return the figure beside the authors' code: one row on all classes, one on a part of them."""
    id, titles = "cifar-equal-schedules", ["quantity", "method", "published", "ours", "difference", "verdict"]
    rows = [
        [Cell(AVERAGE), Cell("CN"), Cell("30.00 (authors' code, n = 2)"), Cell("29.50", f"#{id}-runs"), Cell("-0.50")],
        [Cell("few"), Cell("CN"), Cell("9.00 (authors' code)"), Cell("12.00", f"#{id}-runs"), Cell("+3.00")],
    ]
    table = Table(id, "Equal", titles, [[*row, Cell("indicative")] for row in rows])
    return replace(figure(id), figure=EQUAL, table=table, printed=None)


def paper() -> PaperView:
    """Return one paper with three claims, two parts and one record."""
    shown, full = figure(), figure("cifar-fig1")
    claims = [
        ClaimView("c", "At its own schedule", "Fig. 1", "61.68 %", "60.06 %", "CIFAR", "reproduced", full.id),
        ClaimView(
            "a", NASTY, "Fig. 1", "+5.82 points (printed)", "+0.31 points (n = 1)", "embedded", "indicative", shown.id
        ),
        ClaimView("b", "Another", "Fig. 2", "–", "–", "–", "not measured", ""),
    ]
    part = PartView(
        "quick", "quick", 1.0, "Embedded data", [f"embedded data {NASTY}"], {"paper": NASTY, "long": WIDE},
        [shown], [], [("fig2", "Fig. 2", "needs runs")], [HASH], [],
    )  # fmt: skip
    own = replace(part, name="cifar", preset="cifar", heading="CIFAR", labels=[], figures=[equal(), full], undrawn=[])
    row = [Cell(HASH, f"{PAPER}/{HASH}.json"), Cell("LUCIR"), Cell("8")]
    return PaperView(
        package=PAPER,
        paper={"title": f"A title {NASTY}", "authors": "A, B"},
        citation="CVPR 2019",
        claims=claims,
        parts=[part, own],
        methods=[("Equations", f"<p>Eq. 1</p><div class='table'><table><tr><td>{WIDE}</td></tr></table></div>")],
        deviations=[],
        machines="a CPU (fp32)",
        cost=Table("cost", "Cost", ["data", "epochs"], [[Cell("glyphs"), Cell("1", f"records/{PAPER}.html")]]),
        records=Table("records", "Records", ["record", "method", "epochs"], [row]),
        bibtex="@inproceedings{lucir,\n}",
        thumbnail=shown,
        formulas=[replace(figure("cifar-fig0"), figure="fig0", table=None, printed=None, records={})],
    )


def built(folder: Path) -> Path:
    """Write the site of that paper under a folder, with its pictures and its record."""
    (folder / "figures").mkdir()
    for name in PICTURES:
        Image.new("RGB", (900, 400), "white").save(folder / "figures" / f"{name}.png")
        (folder / "figures" / f"{name}.json").write_text("{}", encoding="utf-8")
    (folder / "records" / PAPER).mkdir(parents=True)
    (folder / "records" / PAPER / f"{HASH}.json").write_text(json.dumps({}), encoding="utf-8")
    site.write([paper()], folder, Path(__file__).parents[1])
    return folder
