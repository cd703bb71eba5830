"""One function per figure of the paper: Results to a Drawing. No torch, no training."""

from __future__ import annotations

from pathlib import Path

from class_balanced.experiments import Setting
from common.curves import Results, mean_curve
from common.figures import Comparison, Curve, Drawing, Panel, Published, estimate
from common.store import Result

PUBLISHED = Published(Path(__file__).with_name("published.json"))
ERROR = "test error (%)"
GRIDS = {"cifar10": "fig8", "cifar20": "fig9", "cifar100": "fig10"}
"""The figure that holds a data set's published errors."""


def error(result: Result) -> float:
    """Test error at the last epoch, percent."""
    return 100 - result.readout("cnn")["accuracy"]


def published_error(setting: Setting, name: str, factor: float) -> tuple[float | None, str]:
    """The paper's error of a row of the grid and its provenance; (None, "") where it gives none."""
    series = PUBLISHED.series(GRIDS.get(setting.data.name, ""), name)
    known = dict(zip(series["x"], series["y"], strict=True)) if series else {}
    return (known[factor], series["provenance"]) if series and factor in known else (None, "")


def cells(setting: Setting, results: Results, factor: float) -> Drawing:
    """Chosen cells of the grid: error at the end beside the published one, and over training."""
    errors = {name: estimate([error(r) for r in found]) for name, found in results.items()}
    rows = [Comparison(ERROR, name, *published_error(setting, name, factor), e) for name, e in errors.items()]
    names = list(errors)
    interval = [e.interval for e in errors.values()]
    bars = [Curve("ours", names, [e.mean for e in errors.values()], interval, max(e.n for e in errors.values()))]
    if any(row.published is not None for row in rows):
        bars.append(Curve("the paper", names, [row.published or float("nan") for row in rows], published=True))
    lines = []
    for name, found in results.items():
        traces = [r.values["trace"] for r in found]
        tested = [e for e, a in zip(traces[0]["epoch"], traces[0]["test_accuracy"], strict=True) if a is not None]
        lines.append(mean_curve(name, tested, [[100 - a for a in t["test_accuracy"] if a is not None] for t in traces]))
    title = f"imbalance factor {factor:g}"
    return Drawing(
        [
            Panel(title, "", ERROR, bars, kind="bars"),
            Panel("over training", "epoch", ERROR, lines),
        ],
        rows,
    )
