"""Tests docs/pitfalls.md: figures compute from each record the numbers that the page gives for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from common.metrics import average_incremental_accuracy
from common.store import read_record

ROOT = Path(__file__).parents[2]
TEXT = " ".join((ROOT / "docs" / "pitfalls.md").read_text(encoding="utf-8").split())
CITED = re.findall(r"(\d+\.\d+)[^\d`]*\(`([0-9a-f]{16})`\)", TEXT)


def numbers(digest: str) -> set[str]:
    """Return, as printed, every read-out's last accuracy, average and error, and the best error."""
    (path,) = ROOT.glob(f"*/records/{digest}.json")
    result = read_record(path)
    found = set[float]()
    for readout in list(result.phases()[-1]["stages"].values())[-1]:
        curve = result.curve(readout)
        found |= {average_incremental_accuracy(curve), curve[-1], 100 - curve[-1]}
    tested = [value for value in result.values.get("trace", {}).get("test_accuracy", []) if value is not None]
    found |= {100 - max(tested)} if tested else set()
    return {f"{value:.{digits}f}" for value in found for digits in (1, 2)}


def test_pitfalls_cite_records() -> None:
    assert len(CITED) >= 9


@pytest.mark.parametrize(("number", "digest"), CITED)
def test_a_cited_number_is_its_records(number: str, digest: str) -> None:
    assert number in numbers(digest)
