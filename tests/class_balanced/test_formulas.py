"""Tests the figures that follow from formulas against closed forms and golden values."""

from __future__ import annotations

import numpy as np
import pytest

from class_balanced.reproduce.catalogue import FIGURES
from class_balanced.reproduce.presets import settings
from common.command.plan import published
from common.drawing.figures import Drawing
from common.splits import longtail_counts

MEAN_WEIGHTS = {  # sum of n_i alpha_i over sum of n_i: beta 0.9, 0.99, 0.999, 0.9999
    ("CIFAR-10-LT", 10): (1.000, 0.999, 0.817, 0.623),
    ("CIFAR-10-LT", 50): (1.000, 0.920, 0.417, 0.269),
    ("CIFAR-10-LT", 100): (1.000, 0.798, 0.273, 0.171),
    ("CIFAR-10-LT", 200): (0.992, 0.625, 0.168, 0.105),
    ("CIFAR-100-LT", 10): (1.000, 0.842, 0.670, 0.650),
    ("CIFAR-100-LT", 50): (0.941, 0.464, 0.320, 0.307),
    ("CIFAR-100-LT", 100): (0.835, 0.312, 0.211, 0.203),
    ("CIFAR-100-LT", 200): (0.654, 0.189, 0.127, 0.122),
}
EFFECTIVE = {  # of CIFAR-10-LT at factor 50
    0.9999: (3934.85, 2765.44, 1891.00, 1269.01, 840.60, 552.20, 361.33, 235.20, 152.83, 99.51),
    0.999: (993.28, 960.78, 877.18, 742.74, 584.57, 433.50, 308.01, 211.89, 142.79, 95.21),
    0.99: (100, 100, 100, 100, 99.99, 99.67, 97.52, 90.86, 78.73, 63.40),
    0.9: (10,) * 10,
}


def draw(id: str) -> Drawing:
    """Return a figure as the quick preset has it. Figures from formulas are compared with the paper there too."""
    figure = next(f for f in FIGURES if f.id == id)
    return figure.draw(settings("quick", None, None, 1.0), {}, published("class_balanced"))


def curves_of(drawing: Drawing, panel: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    found = [c for c in drawing.panels[panel].curves if not c.published and not c.reference]
    return {c.name: (np.asarray(c.x), np.asarray(c.y, dtype=float)) for c in found}


def test_the_class_balanced_term() -> None:
    drawing = draw("fig3")
    for beta in (0.9, 0.99, 0.999, 0.9999):
        n, term = curves_of(drawing)[f"beta = {beta:g}"]
        np.testing.assert_allclose(term, (1 - beta) / (1 - beta**n), rtol=1e-9)
        assert (n[0], n[-1], term[0]) == (1, 10_000, pytest.approx(1))
    assert set(curves_of(drawing)["beta = 0"][1]) == {1.0}


def test_class_sizes() -> None:
    found = curves_of(draw("fig4"))
    assert {name: (y[0], y[-1], len(y)) for name, (_, y) in found.items()} == {
        "factor 10": (500, 50, 100), "factor 20": (500, 25, 100), "factor 50": (500, 10, 100),
        "factor 100": (500, 5, 100), "factor 200": (500, 2, 100),
    }  # fmt: skip


def test_effective_numbers() -> None:
    drawing = draw("fig6")
    for beta, golden in EFFECTIVE.items():
        np.testing.assert_allclose(curves_of(drawing)[f"beta = {beta:g}"][1], golden, atol=6e-3)
    assert all(row.ours and row.published == row.ours.mean for row in drawing.comparisons)
    assert len(drawing.comparisons) == 10
    hundred = curves_of(drawing, 1)["number of images n"][1]
    assert hundred.tolist() == longtail_counts(100, 500, 50).tolist()


def test_the_two_limits() -> None:
    drawing = draw("limits")
    for n in (5, 50, 500, 5000):
        volume, effective = curves_of(drawing)[f"n = {n}"]
        assert effective[0] == pytest.approx(1) and effective[-1] == pytest.approx(n, rel=1e-3)
        assert (effective <= np.minimum(n, volume) * (1 + 1e-9)).all()
    for beta in (0.9, 0.99, 0.999, 0.9999):
        _, effective = curves_of(drawing, 1)[f"beta = {beta:g}"]
        assert effective[0] == pytest.approx(1) and effective[-1] == pytest.approx(1 / (1 - beta))


def test_mean_weights() -> None:
    drawing = draw("weights")
    for (name, factor), golden in MEAN_WEIGHTS.items():
        panel = next(p for p in drawing.panels if p.title == name)
        curve = next(c for c in panel.curves if c.name == f"factor {factor}")
        assert curve.y[0] == pytest.approx(1)
        np.testing.assert_allclose(curve.y[1:], golden, atol=6e-4)
    rates = curves_of(drawing, 2)  # CIFAR-10-LT, factor 100: alpha from 0.0506 to 3.9927 at beta = 0.9999
    assert rates["largest class"][1][-1] == pytest.approx(0.00506, abs=1e-5)
    assert rates["smallest class"][1][-1] == pytest.approx(0.39927, abs=1e-5)
    assert rates["mean image"][1][-1] == pytest.approx(0.0171, abs=1e-4)


def test_data_sets() -> None:
    totals, ratios = (curves_of(draw("table1"), i) for i in (0, 1))
    assert totals["CIFAR-10-LT"][1].tolist() == [50000, 20431, 17023, 13996, 12406, 11203]
    assert totals["CIFAR-20-LT"][1].tolist() == [50000, 19954, 16396, 13204, 11514, 10225]
    assert totals["CIFAR-100-LT"][1].tolist() == [50000, 19573, 15907, 12608, 10847, 9502]
    assert (ratios["CIFAR-100-LT"][1][-1], ratios["CIFAR-10-LT"][1][-1]) == (250, 200)
