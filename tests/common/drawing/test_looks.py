"""Tests that a method has one colour and one marker, whichever package draws it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from matplotlib.colors import same_color

from common.command.painter import Painter
from common.command.plan import PAPERS, Choice, Data, make_plan
from common.drawing import plots
from common.drawing.figures import Curve, Drawing, Panel
from common.drawing.looks import MARKERS, PALETTE, SHARED, Looks
from common.store import Store

OWN = {paper: importlib.import_module(f"{paper}.reproduce.catalogue").LOOKS for paper in PAPERS}


def test_each_method_is_declared_once() -> None:
    names = [*SHARED, *(name for own in OWN.values() for name in own)]
    assert len(names) == len(set(names))
    for colour, marker in (look for own in (SHARED, *OWN.values()) for look in own.values()):
        assert colour in PALETTE and marker in f"{MARKERS}*"


def test_a_figure_is_drawn_with_what_its_package_declares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan("class_balanced", Choice(only=("fig4",), draw=True), Store(tmp_path), Data(None, tmp_path))
    used = list[Looks]()
    monkeypatch.setattr(plots, "render", lambda *drawing: used.append(drawing[4]))
    assert Painter(plan, tmp_path).draw_complete() and used == [{**SHARED, **OWN["class_balanced"]}]
    name, (colour, marker) = next(iter(OWN["class_balanced"].items()))
    drawing = Drawing([Panel("", "", "", [Curve(name, [1, 2], [3, 4])])])
    (line,) = plots.build(drawing, "", "", used[0]).axes[0].get_lines()
    assert same_color(line.get_color(), colour) and line.get_marker() == marker


def test_shared_methods_are_drawn_by_several_packages() -> None:
    """A method that only one package draws belongs into that package's catalogue."""
    sources = {
        paper: "".join(path.read_text() for path in Path(importlib.import_module(paper).__path__[0]).rglob("*.py"))
        for paper in PAPERS
    }
    looks = {look: [name for name in SHARED if SHARED[name] == look] for look in SHARED.values()}
    for names in looks.values():
        assert len({paper for paper, text in sources.items() if any(f'"{name}"' in text for name in names)}) > 1, names
