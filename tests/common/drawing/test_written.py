"""Tests the text of RESULTS.md: which rows it has, and in which table they stand."""

from __future__ import annotations

from dataclasses import replace

from small_site import NASTY, figure, paper

from common.drawing import written
from common.drawing.tables import Cell, Table, escaped
from common.drawing.views import FigureView, PartView


def text(*figures: FigureView) -> str:
    page = paper()
    return written.results(page.paper | {"venue": "CVPR", "year": 2019}, page.claims, [part(*figures)])


def part(*figures: FigureView) -> PartView:
    return replace(paper().parts[0], figures=figures)


def rows(page: str) -> list[list[str]]:
    """Return the cells of every row of every table. Each table begins with its titles."""
    return [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]


def numbers(*quantities: str) -> FigureView:
    """Return a figure with a measured row for each quantity."""
    body = [[Cell(q), Cell(f"method {i}"), Cell(f"{i}.00 (n = 1)")] for i, q in enumerate(quantities)]
    return replace(figure(), table=Table("t", "T", ["quantity", "method", "ours"], body))


def test_claims_come_first_then_each_part_with_its_labels_and_commands() -> None:
    page = text(numbers("accuracy"))
    part, words = paper().parts[0], f"`{figure().command}`"
    places = [page.index(t) for t in ("## Claims", f"## {part.heading}", f"> **{escaped(part.labels[0])}**", words)]
    assert places == sorted(places) and page.index(words) < page.index("| accuracy | method 0 | 0.00 (n = 1) |")
    assert NASTY not in page and escaped(NASTY) in page


def test_a_row_without_a_measurement_is_counted_and_a_figure_without_any_left_out() -> None:
    missing = [Cell("accuracy"), Cell("CN"), Cell("–")]
    some = numbers("accuracy")
    assert some.table
    some = replace(some, table=replace(some.table, rows=[*some.table.rows, missing, missing]))
    page = text(some, replace(numbers(), figure="fig9"), replace(some, figure="fig10", records={}))
    assert "method 0" in page and "CN" not in page.split("## Embedded")[1]
    assert "2 more rows are not measured yet." in page
    assert "### fig9" not in page and "### fig10" not in page


def test_rows_of_a_quantity_stand_together() -> None:
    assert [row[1] for row in rows(text(numbers("a", "b", "a")))[-3:]] == ["method 0", "method 2", "method 1"]


def test_a_long_table_becomes_one_for_each_quantity() -> None:
    many = ["a", "b"] * (written.LONGEST // 2)
    assert sum(row[0] == "quantity" for row in rows(text(numbers(*many)))) == 1
    assert sum(row[0] == "quantity" for row in rows(text(numbers(*many, "a")))) == 2
