"""Tests curves that several papers draw: what their legends say, and how classes are grouped in bars."""

from __future__ import annotations

import numpy as np
import pytest

from common.command.plan import published
from common.drawing.curves import accuracy_curve, class_bars, published_curve


def test_legends_say_that_their_numbers_are_averages() -> None:
    curve, row = accuracy_curve("CN", [10, 20], [[80.0, 60.0], [70.0, 50.0]])
    assert curve.legend == "average 65.00" and row.ours and row.ours.mean == 65
    (paper,) = published_curve(published("lucir").figure("fig5c"), "LUCIR-CNN")
    assert paper.legend == "average 63.42"


@pytest.mark.parametrize(("classes", "labels"), [(4, ["0", "1", "2", "3"]), (25, ["0-2", "3-5", "6-8", "9-11"])])
def test_neighbouring_classes_share_a_bar(classes: int, labels: list[str]) -> None:
    """There are at most ten bars, and every class is in one. A bar is the mean over its classes, then over repeats."""
    repeats = np.random.default_rng(0).uniform(0, 100, (3, classes))
    curve = class_bars("CE", repeats.tolist(), "beta")
    assert list(curve.x)[:4] == labels and len(curve.x) == min(classes, 10) and curve.legend == "beta"
    spans = [[int(end) for end in str(label).split("-")] for label in curve.x]
    assert [c for span in spans for c in range(span[0], span[-1] + 1)] == [*range(classes)]
    means = [repeats[:, span[0] : span[-1] + 1].mean() for span in spans]
    assert list(curve.y) == pytest.approx(means) and curve.n == 3
