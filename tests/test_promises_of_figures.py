"""Tests once what every figure promises, over the catalogues of all packages."""

from __future__ import annotations

import re
from itertools import islice

import numpy as np
import pytest
from fakes import FAKES, FIGURES, draw, settings

from common.command.plan import PAPERS, check, select
from common.drawing.figures import Figure
from common.drawing.plots import build
from common.errors import InputError
from common.incremental import Learner, learner_of
from common.runs import Run
from common.splits import longtail_counts
from common.store import Result

DRAWN = [(p, id, preset) for p, figures in FIGURES.items() for id, f in figures.items() for preset in f.presets]
FROM_RUNS = [(p, id) for p, figures in FIGURES.items() for id, f in figures.items()
             if f.runs(settings(p, f.presets[-1]))]  # fmt: skip
ONLY_PAIRED = {"random F_t"}
"""Groups that a figure only compares with another group."""


def runs_of(paper: str, preset: str) -> list[Run]:
    """Return every Run that a preset asks for without --only, and their starts, each once."""
    figures = [f for f in FIGURES[paper].values() if preset in f.presets and not f.on_request]
    chosen = settings(paper, preset)
    return list(dict.fromkeys(r for f in figures for g in f.runs(chosen).values() for run in g for r in run.chain))


@pytest.mark.parametrize(("paper", "id", "preset"), DRAWN)
def test_every_figure_draws_in_every_preset(paper: str, id: str, preset: str) -> None:
    figure, drawing = FIGURES[paper][id], draw(paper, id, preset)
    from_runs = bool(figure.runs(settings(paper, preset)))
    assert drawing.panels
    for panel in drawing.panels:
        if panel.matrix is not None:
            assert np.isfinite(panel.matrix).all() and panel.matrix.any()
            continue
        assert panel.curves and (panel.kind == "scatter" or panel.y_label)
        for curve in panel.curves:
            assert len(curve.x) == len(curve.y) > 0 and np.isfinite(np.asarray(curve.y, dtype=float)).any()
    if from_runs:
        assert drawing.comparisons or all(panel.kind == "picture" for panel in drawing.panels)
        assert all(row.ours or row.published is not None for row in drawing.comparisons)
    if from_runs and preset == "quick":
        assert not any(curve.published for panel in drawing.panels for curve in panel.curves), "over embedded data"
        assert not any(row.published is not None for row in drawing.comparisons)
    if preset == "quick":
        build(drawing, figure.title, "caption")


@pytest.mark.parametrize(("paper", "id"), FROM_RUNS)
def test_a_figure_draws_runs_that_were_tested_at_their_end_only(paper: str, id: str) -> None:
    """If training is short, the first test may come after its end. A curve then has one point, the final accuracy."""

    def untested(run: Run) -> Result:
        result = FAKES[paper](run)
        trace = result.values["trace"]
        for column in [c for c in trace if c == "test_accuracy" or c.split()[0] in ("cnn", "cb", "rb")]:
            del trace[column]
        return result

    preset = FIGURES[paper][id].presets[-1]
    drawing, usual = draw(paper, id, preset, make=untested), draw(paper, id, preset)
    names = [[[c.name for c in panel.curves] for panel in d.panels] for d in (drawing, usual)]
    assert names[0] == names[1]
    assert all(len(curve.x) == len(curve.y) > 0 for panel in drawing.panels for curve in panel.curves)


@pytest.mark.parametrize(("paper", "id"), FROM_RUNS)
def test_a_figure_draws_from_part_of_its_runs(paper: str, id: str) -> None:
    """Records alone may lack most runs. One repeat of each group is drawn here, with its start or without."""
    figure: Figure = FIGURES[paper][id]
    preset = figure.presets[-1]
    groups = figure.runs(settings(paper, preset))
    for first in [runs[0] for name, runs in islice(groups.items(), 12) if name not in ONLY_PAIRED]:
        for chain in dict.fromkeys([tuple(first.chain), (first,)]):
            found = {name: [run for run in runs if run in chain] for name, runs in groups.items()}
            assert draw(paper, id, preset, {name: runs for name, runs in found.items() if runs}).panels


@pytest.mark.parametrize("paper", PAPERS)
def test_the_quick_preset_stays_small(paper: str) -> None:
    """It has about 30 runs, or 50 if a grid is large, with the runs that they start from."""
    runs = runs_of(paper, "quick")
    assert 0 < len(runs) <= 50
    assert {run.data.name for run in runs} == {"glyphs"}


@pytest.mark.parametrize("paper", ["bbn", "class_balanced", "fsa"])
def test_the_quick_preset_has_a_tail_that_can_be_learnt(paper: str) -> None:
    """The smallest class has fifteen images at every imbalance factor."""
    drawn = {(run.data, run.longtail.imbalance) for run in runs_of(paper, "quick") if run.longtail}
    assert drawn
    for data, factor in drawn:
        assert data.classes and data.per_class
        assert min(longtail_counts(data.classes, data.per_class, factor)) >= 15, (data, factor)


@pytest.mark.parametrize("paper", PAPERS)
def test_runs_can_be_trained_and_told_apart(paper: str) -> None:
    """In all presets, each Run has its own key, each method has a learner, and no setting is refused."""
    runs = list(dict.fromkeys(run for preset in ("quick", "cifar", "imagenet") for run in runs_of(paper, preset)))
    assert len({run.key for run in runs}) == len(runs)
    for run in runs:
        check(run, None)
        assert issubclass(learner_of(run.method), Learner)


@pytest.mark.parametrize("paper", PAPERS)
def test_ids_follow_one_grammar_and_name_one_figure(paper: str) -> None:
    names = [name for figure in FIGURES[paper].values() for name in (figure.id, *figure.formerly)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", id) for id in FIGURES[paper])


EARLIER = [(p, old, f) for p, figures in FIGURES.items() for f in figures.values() for old in f.formerly]


@pytest.mark.parametrize(("paper", "old", "figure"), EARLIER, ids=[f"{p}-{old}" for p, old, _ in EARLIER])
def test_earlier_ids_still_name_their_figure(paper: str, old: str, figure: Figure) -> None:
    with pytest.warns(UserWarning, match=f"figure {old} is now {figure.id}"):
        assert figure in select(list(FIGURES[paper].values()), [old], figure.presets[-1])[0]


@pytest.mark.parametrize("paper", PAPERS)
def test_the_papers_schedule_alone_is_full(paper: str) -> None:
    assert all(s.full_schedule for preset in ("cifar", "imagenet") for s in settings(paper, preset))
    assert not any(s.full_schedule for s in (*settings(paper, "cifar", scale=0.5), *settings(paper, "quick")))


@pytest.mark.parametrize("paper", PAPERS)
def test_settings_refuse_what_they_cannot_mean(paper: str) -> None:
    with pytest.raises(InputError, match="unknown preset"):
        settings(paper, "imagnet")
    for scale in (0.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match="--epochs-scale must be positive"):
            settings(paper, "quick", scale=scale)
