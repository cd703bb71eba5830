"""Tests that claims have the published numbers of published.json, and that their effects are paired."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.command.plan import PAPERS, published
from common.drawing.claims import Claim, Term, load
from common.drawing.figures import Comparison, Drawing, Estimate, Figure, Published, estimate

ROOT = Path(__file__).parents[3]


def figure(draw: Any) -> Figure:
    return Figure("fig", "Fig.", lambda setting: {"a": [None]}, draw)  # type: ignore[dict-item]


def claim(minus: Term | None = None, **changes: Any) -> Claim:
    return Claim("c", "a over b", "Fig. 1", "fig", "points", "printed", Term("q", "a", 60.0), minus, **changes)


def result(name: str, seed: int, value: float) -> Any:
    return SimpleNamespace(repeat=("native", seed), value=value, partial=False)


def drawn(setting: Any, results: Any, paper: Any) -> Drawing:
    rows = [Comparison("q", name, None, "", estimate([r.value for r in group])) for name, group in results.items()]
    return Drawing([], rows)


SETTINGS = [SimpleNamespace(comparable=True, role="")]
NOTHING = Published({}, {})


def test_a_difference_is_paired_by_repeat_and_leaves_out_a_repeat_without_its_pair() -> None:
    results = {
        "a": [result("a", s, v) for s, v in ((0, 10.0), (1, 50.0), (2, 90.0), (3, 7.0))],
        "b": [result("b", s, v) for s, v in ((2, 88.0), (0, 9.0), (1, 47.0))],
    }
    ours = claim(Term("q", "b", 58.0)).measure(figure(drawn), SETTINGS, results, NOTHING)
    assert ours and (ours.n, ours.mean, ours.std) == (3, pytest.approx(2.0), pytest.approx(1.0))


def test_a_single_number_is_the_figures_own() -> None:
    results = {"a": [result("a", 0, 1.0), result("a", 1, 3.0)]}
    ours = claim().measure(figure(drawn), SETTINGS, results, NOTHING)
    assert ours and (ours.n, ours.mean) == (2, 2.0)


def test_what_was_not_measured_is_none() -> None:
    results = {"a": [result("a", 0, 1.0)]}
    assert claim(Term("q", "b", 58.0)).measure(figure(drawn), SETTINGS, results, NOTHING) is None


def test_an_effect_has_its_sign_interval_and_n() -> None:
    one, three = Estimate(-0.5, float("nan"), float("nan"), 1), Estimate(5.8, 0.4, 1.0, 3)
    assert claim(Term("q", "b", 58.0)).words(three) == "+5.80 ± 1.00 points (n = 3)"
    assert claim().words(one) == "-0.50 points (n = 1)"


def test_the_verdict_follows_the_rule_for_every_number() -> None:
    effect = claim(Term("q", "b", 54.2))
    assert effect.published == pytest.approx(5.8)
    near, far = Estimate(5.0, 0.2, 0.5, 3), Estimate(4.0, 0.2, 0.5, 3)
    assert (effect.verdict(near, True), effect.verdict(far, True)) == ("reproduced", "not reproduced")
    assert (effect.verdict(near, False), effect.verdict(None, True)) == ("indicative", "not measured")


@pytest.mark.parametrize("paper", PAPERS)
def test_claims_cite_numbers_of_published_json_and_figures_that_exist(paper: str) -> None:
    claims, entries = load(ROOT / paper / "claims.json"), published(paper).entries
    figures = {f.id for f in importlib.import_module(f"{paper}.reproduce.catalogue").FIGURES}
    printed = set[float]()
    for entry in entries.values():
        for series in entry["series"]:
            printed |= {y for y in (*series["y"], series["average"]) if y is not None}
    assert len(claims) >= 5 and len({c.id for c in claims}) == len(claims)
    for each in claims:
        assert each.figure in figures
        numbers = [term.published for term in (each.term, each.minus) if term and term.published is not None]
        differences = {round(a - b, 2) for a in printed for b in printed} if not each.minus else set()
        assert all(number in printed or number in differences for number in numbers), each.id
