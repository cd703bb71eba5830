"""Tests that a painter does not keep the results that it draws, since a command may draw thousands."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from common.command import painter as module
from common.command.export import records_folder
from common.command.painter import Painter
from common.command.plan import Choice, Data, make_plan
from common.drawing import result_index
from common.store import Result, Store


def held() -> set[int]:
    """Return the results in memory that hold measurements."""
    gc.collect()
    return {id(each) for each in gc.get_objects() if type(each) is Result and each.values}


def test_results_are_not_kept_once_they_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All quick figures of a paper are drawn from records, with one record in memory.

    The report still counts all of them.
    """
    monkeypatch.setattr(result_index, "MOST_IN_MEMORY", 1)
    monkeypatch.setattr(module.plots, "render", lambda *rest: None)
    before = held()
    store, choice = Store(tmp_path, [records_folder("class_balanced")]), Choice(preset="quick", draw=True)
    painter = Painter(make_plan("class_balanced", choice, store, Data(None, tmp_path)), tmp_path)
    painter.draw_rest()
    assert len(painter.used) > 20 and not painter.problems
    assert len(held() - before) <= 1
    context = painter.context()
    assert len(held() - before) <= 1
    assert {r.hash for r in context.results} == painter.used.keys() and context.from_records == len(painter.used)
    assert painter.report([]).exists()
