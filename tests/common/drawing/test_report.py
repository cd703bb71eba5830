"""Tests reports and their statistics: estimates, verdicts, and what report.md and report.html say."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from common.command.painter import Painter
from common.command.plan import Choice
from common.drawing.figures import (
    Comparison,
    Drawing,
    Estimate,
    Figure,
    Published,
    Verdict,
    computed,
    estimate,
    verdict,
)
from common.drawing.report import ReportContext, ReportRow, counted, facts, table, varied, write_report
from common.store import Result

PAPER = {"title": "A <Paper> & more", "authors": "Hou, Lin", "venue": "CVPR", "year": 2019, "arxiv": "1234.5678"}
REDUCED = "reduced schedule (--epochs-scale 0.05)"


def result(digest: str, order: str = "1993", seed: int = 1993, **environment: object) -> Result:
    config = {
        "order": order,
        "seed": seed,
        "fingerprint": "f00d",
        "data": {"type": "DataSpec", "name": "glyphs"},
        "schedule": {"epochs": 160},
    }
    place = {
        "commit": "abcdef0123456",
        "dirty": False,
        "device": "CPU <x>",
        "precision": "bf16",
        "training_seconds": 1800.0,
    }
    return Result(digest, config, place | environment, {})


@pytest.mark.parametrize(
    ("quantity", "published", "ours", "expected"),
    [
        ("images of class", (5000.0, 3237.0), (5000, 3236), ["5000 (printed)", "5000", "+0", "3236", "-1"]),
        ("test error (%)", (61.0, 66.0), (61, 65), ["61.00 (printed)", "61.00", "+0.00", "65.00", "-1.00"]),
        ("gain (points)", (1.0, 2.0), (1, 1), ["1.00 (printed)", "1.00", "+0.00", "1.00", "-1.00"]),
        ("best epoch", (18.0, 20.0), (18, 19), ["18 (printed)", "18", "+0", "19", "-1"]),
        ("mean cosine", (1.0, 0.91), (1, 0.9), ["1.00 (printed)", "1.00", "+0.00", "0.90", "-0.01"]),
    ],
)
def test_counts_have_no_decimals_and_other_numbers_two(
    quantity: str, published: tuple[float, ...], ours: tuple[float, ...], expected: list[str]
) -> None:
    pairs = zip(published, map(computed, ours), strict=True)
    drawing = Drawing([], [Comparison(quantity, "CE", known, "printed", found, 0.0) for known, found in pairs])
    (first, second) = table(ReportRow(figure("a"), drawing), context())[1]
    assert [*first[2:5], *second[3:5]] == expected
    assert (first[5], second[5]) == ("reproduced", "not reproduced")


def test_one_of_a_thing_is_no_plural() -> None:
    assert [counted(n, "run") for n in (0, 1, 2, "?")] == ["0 runs", "1 run", "2 runs", "? runs"]


def figure(id: str, title: str = "") -> Figure:
    return Figure(id, title or f"Figure {id}", lambda s: {}, lambda s, results, published: Drawing([]))


def compare(published: float | None, ours: Estimate | None, method: str = "LUCIR-CNN") -> Comparison:
    return Comparison("accuracy (%)", method, published, "printed", ours)


def context(**changes: object) -> ReportContext:
    values = {"labels": [REDUCED], "full_schedule": True, "results": [result("a")], "from_records": 0, "command": "c"}
    return ReportContext(**{**values, **changes})  # type: ignore[arg-type]


def written(folder: Path, rows: list[ReportRow], report_context: ReportContext) -> tuple[str, str]:
    write_report(folder, PAPER, "quick", rows, report_context)
    return (folder / "report.md").read_text(), (folder / "report.html").read_text()


class Balance(HTMLParser):
    """Checks that tags are closed in order, and collects links."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("start", [False, True])
def test_a_part_of_the_papers_data_is_never_held_against_published_numbers(start: bool, tmp_path: Path) -> None:
    whole, part = result("a"), result("b")
    (part.config.setdefault("start", {}) if start else part.config)["fingerprint"] = "part-f00d"
    assert part.partial and not whole.partial
    setting = type("Setting", (), {"role": "", "comparable": True})
    seen: list[dict] = []
    chosen = Figure("fig1", "", lambda s: {"a": []}, lambda s, r, published: seen.append(published.entries))  # type: ignore
    published = Published(PAPER, {"fig1": {"series": []}})
    for results in ([whole], [whole, part]):
        chosen.draw((setting,), {"a": results}, published)
    assert [len(entries) for entries in seen] == [1, 0]
    part.config["data"] = {"name": "cifar10"}
    painter = Painter(SimpleNamespace(choice=Choice()), tmp_path)  # type: ignore[arg-type]
    assert painter.labels([part]) == ["a small part of cifar10, not comparable with the paper's"]


def test_estimate_agrees_with_the_t_distribution() -> None:
    values = [63.1, 64.9, 62.0, 63.3, 65.2]
    found = estimate(values)
    low, high = stats.t.interval(0.95, df=4, loc=np.mean(values), scale=stats.sem(values))
    assert found.mean == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values, ddof=1))
    assert found.interval == pytest.approx((high - low) / 2)
    assert found.n == 5


def test_estimate_of_two_has_a_closed_form() -> None:
    found = estimate([1.0, 3.0])  # t with one degree of freedom is Cauchy: its 97.5 % quantile is tan(0.475 pi)
    assert (found.mean, found.std) == (2.0, pytest.approx(2**0.5))
    assert found.interval == pytest.approx(np.tan(0.475 * np.pi))


def test_estimate_of_one_has_no_interval() -> None:
    found = estimate([5.0])
    assert (found.mean, found.n) == (5.0, 1)
    assert np.isnan(found.std) and np.isnan(found.interval)


def test_estimate_of_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        estimate([])


@pytest.mark.parametrize(
    ("published", "ours", "full", "expected"),
    [
        (65.0, Estimate(64.0, 0.1, 0.2, 3), True, "reproduced"),  # exactly one point above
        (63.0, Estimate(64.0, 0.1, 0.2, 3), True, "reproduced"),  # and below
        (65.01, Estimate(64.0, 0.1, 0.2, 3), True, "not reproduced"),
        (66.0, Estimate(64.0, 0.8, 2.0, 3), True, "reproduced"),  # inside an interval wider than a point
        (66.01, Estimate(64.0, 0.8, 2.0, 3), True, "not reproduced"),
        (64.0, Estimate(64.0, 0.9, 2.2, 3), True, "indicative"),  # an interval that holds almost anything
        (70.0, Estimate(64.0, 0.9, 2.2, 3), True, "not reproduced"),  # but not this
        (64.0, Estimate(64.0, 0.1, 0.9, 2), True, "indicative"),  # two repeats
        (64.0, Estimate(64.0, float("nan"), float("nan"), 1), True, "indicative"),
        (64.0, Estimate(64.0, 0.1, 0.2, 3), False, "indicative"),  # embedded data or a reduced schedule
        (64.0, Estimate(64.0, 0.1, 0.2, 5, whole=False), True, "indicative"),  # five repeats from one first phase
        (64.0, None, True, "not measured"),
        (None, Estimate(64.0, 0.1, 0.2, 3), True, "no published number"),
        (None, None, False, "no published number"),
    ],
)
def test_verdict(published: float | None, ours: Estimate | None, full: bool, expected: Verdict) -> None:
    assert verdict(compare(published, ours), full) == expected


def test_a_number_from_memory_is_not_judged() -> None:
    for provenance, expected in (("third-party", "reproduced"), ("memory-unverified", "indicative")):
        assert (
            verdict(Comparison("accuracy (%)", "DER", 64.0, provenance, Estimate(64.0, 0.1, 0.2, 3)), True) == expected
        )


def test_published_value_is_of_the_first_series_that_has_it(tmp_path: Path) -> None:
    series = [
        {"method": "A", "x": [5], "y": [70.0], "provenance": "printed"},
        {"method": "A", "x": [5, 10], "y": [1.0, 60.0], "provenance": "third-party"},
        {"method": "B", "x": ["many", "few"], "y": [50.0, 20.0], "provenance": "official-file"},
    ]
    path = tmp_path / "published.json"
    path.write_text(json.dumps({"paper": "P", "entries": [{"id": "table1", "series": series}]}))
    known = Published.load(path).figure("table1")
    assert known.value("A", 5) == (70.0, "printed")
    assert known.value("A", 10) == (60.0, "third-party")
    assert known.value("B", "few") == (20.0, "official-file")
    for id, method, x in (("table1", "A", 20), ("table1", "C", 5), ("table2", "A", 5)):
        assert known.figure(id).value(method, x) == (None, "")
    assert Published.load(path).figure("table1", comparable=False).value("A", 5) == (None, "")


def test_a_table_without_published_numbers_lists_what_was_measured(tmp_path: Path) -> None:
    row = ReportRow(figure("fig1"), Drawing([], [compare(None, Estimate(50.0, 0.1, 0.2, 3))]), "")
    md, html = written(tmp_path, [row], context())
    assert (
        "| quantity | method | ours |" in md and "| accuracy (%) | LUCIR-CNN | 50.00 ± 0.20 (std 0.10, n = 3) |" in md
    )
    assert "difference</th>" not in html


def test_comparisons_show_numbers_difference_and_verdict(tmp_path: Path) -> None:
    rows = [
        compare(63.42, Estimate(63.1, 0.344, 0.854, 3)),
        compare(70.0, Estimate(63.1, 0.3, 0.8, 3)),
        compare(60.0, Estimate(63.106, float("nan"), float("nan"), 1)),
        compare(None, Estimate(50.0, 0.1, 0.2, 3)),
    ]
    md, html = written(
        tmp_path,
        [ReportRow(figure("fig1"), Drawing([], rows), "")],
        context(published_on={"fig1": "CIFAR-100", "fig2": "CIFAR-10"}),
    )
    lines = [line for line in md.splitlines() if line.startswith("| accuracy")]
    assert lines == [
        "| accuracy (%) | LUCIR-CNN | 63.42 (printed) | 63.10 ± 0.85 (std 0.34, n = 3) | -0.32 | reproduced |",
        "| accuracy (%) | LUCIR-CNN | 70.00 (printed) | 63.10 ± 0.80 (std 0.30, n = 3) | -6.90 | not reproduced |",
        "| accuracy (%) | LUCIR-CNN | 60.00 (printed) | 63.11 (n = 1) | +3.11 | indicative |",
        "| accuracy (%) | LUCIR-CNN | – | 50.00 ± 0.20 (std 0.10, n = 3) | – | no published number |",
    ]
    assert "| all | 1 of 1 drawn | 1 | 1 | 1 | 1 |" in md
    for text in ("63.10 ± 0.85 (std 0.34, n = 3)", "-0.32", "published (CIFAR-100)", "max(1.0 point"):
        assert text in html and text in md
    assert re.findall(r'class="verdict ([a-z-]+)"', html) == [
        "reproduced", "not-reproduced", "indicative", "no-published-number",
    ]  # fmt: skip


def test_reduced_schedules_are_indicative(tmp_path: Path) -> None:
    row = ReportRow(figure("fig1"), Drawing([], [compare(64.0, Estimate(64.0, 0.1, 0.2, 3))]), "")
    md, _ = written(tmp_path, [row], context(full_schedule=False))
    assert "| indicative |" in md
    assert f"**{REDUCED}**" in md
    assert "| fig1 | drawn | 1 |" in md


def test_missing_figures_are_listed_with_their_reason(tmp_path: Path) -> None:
    rows = [
        ReportRow(figure("fig1"), None, "imagenet needs --data DIR"),
        ReportRow(figure("fig2"), Drawing([], [compare(1.0, Estimate(1, 0, 0, 2))]), "2 of its runs are not finished"),
    ]
    md, html = written(tmp_path, rows, context())
    assert "- fig1 (Figure fig1): imagenet needs --data DIR" in md
    assert "<b>fig1</b> Figure fig1: imagenet needs --data DIR" in html
    assert "fig1.png" not in md + html
    for text in (md, html):
        assert "2 of its runs are not finished" in text
    assert "| fig1 |" not in md and "| fig2 | drawn in part |" in md and "| 1 of 2 drawn |" in md


def test_html_escapes_links_and_closes_its_tags(tmp_path: Path) -> None:
    nasty = compare(1.0, Estimate(1.0, 0.1, 0.2, 3), '<script>alert("x")</script>')
    rows = [
        ReportRow(figure("fig5c", "a < b & c"), Drawing([], [nasty], "note <i>"), ""),
        ReportRow(figure("fig6"), None, "<b>no</b>"),
    ]
    _, html = written(tmp_path, rows, context(labels=["<u>"], command="x > y"))
    for raw in ("<script", "<i>", "<u>", "<b>no", "a < b", "CPU <x>", "A <Paper>"):
        assert raw not in html
    assert "A &lt;Paper&gt; &amp; more" in html and "a &lt; b &amp; c" in html
    page = Balance()
    page.feed(html)
    assert page.open == []
    assert {"fig5c.png", "fig5c.pdf", "fig5c.json"} <= set(page.links)
    assert not [link for link in page.links if "//" in link]  # nothing from elsewhere


def test_markdown_tables_keep_their_shape(tmp_path: Path) -> None:
    row = ReportRow(figure("fig1"), Drawing([], [compare(1.0, Estimate(1.0, 0.1, 0.2, 3), "a|b\nc")]), "")
    md, _ = written(tmp_path, [row], context())
    assert "| a\\|b c |" in md


def test_facts_say_where_the_numbers_come_from() -> None:
    results = [
        result("a"),
        result("b", "1994", 1994, dirty=True),
        result("c", "1995", 1995, device="H200", precision="fp32"),
    ]
    about = facts(PAPER, "cifar", context(results=results, from_records=2))
    assert about["runs"] == "3, of which 2 from committed records; 1.5 h of training, starts not counted"
    assert "abcdef0123 (with changes) (1 run)" in about["commit"]
    assert "H200" in about["machines"] and "CPU <x>" in about["machines"]
    assert about["precision"] == "bf16 (2 runs); fp32 (1 run)"
    assert about["data"] == "glyphs (fingerprint f00d)"
    assert about["epochs"] == "160"
    assert "CVPR 2019, arXiv:1234.5678" in about["paper"]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("1993", 1993)], "n = 1; class orders 1993"),
        ([("1993", 0), ("1993", 1)], "n = 2: seeds vary, the class order is fixed"),
        ([("O1", 0), ("O2", 0)], "n = 2: class orders vary, the seed is fixed"),
        ([("1", 1), ("2", 2), ("3", 3)], "n = 3: class orders and seeds vary together"),
        ([("1", 1), ("1", 2), ("2", 1), ("2", 2)], "n = 4: class orders and seeds vary (class"),
    ],
)
def test_what_varied(pairs: list[tuple[str, int]], expected: str) -> None:
    assert varied([{"order": o, "seed": s} for o, s in pairs * 2]).startswith(expected)


def test_a_report_without_runs_or_environment(tmp_path: Path) -> None:
    bare = Result("x", {}, {}, {})
    for results in ([], [bare]):
        md, html = written(tmp_path, [ReportRow(figure("fig1"), None, "no data")], context(results=results))
        assert "no data" in md and "no data" in html
    assert list(tmp_path.glob("*.part")) == []
