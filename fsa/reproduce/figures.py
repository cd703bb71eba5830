"""The functions that draw the paper's tables and curves: each turns Results and published numbers into a Drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np

from common.drawing.curves import by_epoch, mean_curve, published_curve, published_points, through
from common.drawing.figures import Comparison, Curve, Drawing, Panel, PublishedFigure, Results, computed
from common.splits import longtail_counts
from common.store import Result
from fsa.methods import FSA, STEPS
from fsa.reproduce.measures import GROUPS, Measure, accuracy, counts, gain, mean, over_what, repeat
from fsa.reproduce.presets import HUNDRED, TEN, Setting
from fsa.splits import head_and_tail

ACCURACY, TOP1, FACTOR = "test accuracy (%)", "top-1 accuracy (%)", "imbalance factor"
PHASE_1, NO_AUG, TUNED, FOCAL_TUNED = "Phase I", "No Aug", "FSA", "FSA + focal in phase I"
BLOCKS = ("Block2", "Block3", "Block4")
DEPTHS = (50, 101, 152)
"""Numbers of layers of the ResNets in Table 4."""


def title(s: Setting, factor: float | None) -> str:
    """Return a title: the data set, its stand-in if there is one, and the imbalance factor."""
    name = f"glyphs for {s.name}" if s.preset == "quick" else s.name
    return f"{name}, factor {factor:g}" if factor else name


def notes(results: Results, *words: str) -> str:
    """Return a figure's note: `words`, the source of Phase II's features, and the seeds that intervals are over."""
    tuned = [r.config["start"]["method"] for found in results.values() for r in found if r.config.get("start")]
    views = sorted({start.get("views", 0) for start in tuned if "views" in start or start["type"] == "Rebalance"})
    places = [f"{n} cached augmented view{'s' * (n > 1)} of each image" if n else "images drawn afresh" for n in views]
    source = f"Phase II from {' or '.join(places)}" if places else ""
    return "; ".join(filter(None, [*words, source, over_what(results.values())]))


def shared(panels: Sequence[Panel]) -> list[Panel]:
    """Return the panels with one y-axis range that fits all their means. With bars, the range begins at zero."""
    values = np.concatenate([np.asarray(c.y, dtype=float) for panel in panels for c in panel.curves])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.08 * (high - low) + 0.5
    bars = any(panel.kind == "bars" for panel in panels)
    return [replace(panel, y_range=(0.0 if bars else low - margin, high + margin)) for panel in panels]


def printed(s: Setting, published: PublishedFigure, name: str, factor: float | None = None) -> tuple[float | None, str]:
    """Return the number that the setting's table prints for a method, by default at the setting's factor."""
    return published.figure(s.table).value("CE" if name == PHASE_1 else name, factor or s.factor or 0)


def difference(value: tuple[float | None, str], other: tuple[float | None, str]) -> tuple[float | None, str]:
    """Return one published number minus another, or None if either is missing."""
    if value[0] is None or other[0] is None:
        return None, ""
    return round(value[0] - other[0], 2), "difference of two printed numbers"


def gain_row(
    quantity: str,
    name: str,
    results: Sequence[Result],
    against: Sequence[Result],
    measure: Measure = accuracy,
    published: tuple[float | None, str] = (None, ""),
) -> list[Comparison]:
    """Return the paired gain as a list of one row, or an empty list if no repeat is shared."""
    found = gain(results, against, measure)
    return [Comparison(quantity, name, *published, found, tolerance=0.0)] if found else []


def table(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Tables 1 and 2: accuracy by imbalance factor. FSA minus the control No Aug is the gain by augmentation."""
    words, rows, measured, paper = [f"{f:g}" for f in s.factors], list[Comparison](), list[Curve](), list[Curve]()
    for name in (*s.baselines(), NO_AUG, TUNED):
        found = [mean(results.get((name, f), [])) for f in s.factors]
        values = [published.value(name, f) for f in s.factors]
        known = zip(s.factors, values, found, strict=True)
        rows += [Comparison(f"{ACCURACY}, factor {f:g}", name, *value, e) for f, value, e in known if e]
        measured += [through(name, words, found)] if any(found) else []
        paper += published_points(name, words, [value for value, _ in values])
    for f in s.factors:
        tuned = results.get((TUNED, f), [])
        for other in ("CE", NO_AUG):
            quantity = f"FSA - {other} (points, paired), factor {f:g}"
            value = difference(published.value(TUNED, f), published.value(other, f))
            rows += gain_row(quantity, TUNED, tuned, results.get((other, f), []), published=value)
    kind: Literal["lines", "bars"] = "lines" if len(s.factors) > 1 else "bars"
    panels = [Panel(f"{title(s, None)}, ours", FACTOR, ACCURACY, measured, kind=kind)]
    if paper:
        panels = shared([*panels, Panel("the paper", FACTOR, ACCURACY, paper)])
    note = f"{NO_AUG}: Phase II on the same batches, half tail images, without augmentation; the paper has no such row"
    return Drawing(panels, rows, notes(results, note))


PRINTED = ("Plain model", "Lifted loss", "Focal", "Range loss", "FSLwF", "OLTR", TUNED, FOCAL_TUNED)
"""The rows of Table 3 in the paper."""


def shots(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Table 3: accuracy on classes of many, medium and few images, and on all."""
    groups = {"many": "many", "medium": "medium", "few": "few", "overall": "accuracy"}
    rows, measured = list[Comparison](), list[Curve]()
    for name, found in results.items():
        present = {g: key for g, key in groups.items() if key in found[0].readout("cnn")}
        values = [mean(found, partial(reading, key=key)) for key in present.values()]
        measured.append(through(name, list(present), values))
        rows += [
            Comparison(f"{TOP1}, {g}", name, *published.value(name, g), e) for g, e in zip(present, values, strict=True)
        ]
    paper = [curve for name in PRINTED for curve in published_curve(published, name)]
    rows += gain_row("FSA - No Aug (points, paired)", TUNED, results.get(TUNED, []), results.get(NO_AUG, []))
    base = Panel("the paper", "training images of the class", TOP1, paper, kind="bars")
    panels = [replace(base, title=f"{title(s, None)}, ours", curves=measured), *([base] if paper else [])]
    return Drawing(shared(panels), rows, notes(results, "many: > 100, medium: 20 to 100, few: < 20 training images"))


def reading(result: Result, key: str) -> float:
    """Return a number of the read-out, percent. key: accuracy, or many, medium or few for classes of that size."""
    return result.readout("cnn")[key]


def depths(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Table 4: accuracy with ResNet-50, -101 and -152."""
    rows, curves = list[Comparison](), list[Curve]()
    for name in ("CE", "CB", NO_AUG, TUNED):
        found = [mean(results.get((name, d), [])) for d in DEPTHS]
        values = [published.value(name, d) for d in DEPTHS]
        curves += [through(name, DEPTHS, found)] if any(found) else []
        curves += published_points(name, DEPTHS, [value for value, _ in values])
        rows += [
            Comparison(f"{TOP1}, ResNet-{d}", name, *value, e)
            for d, value, e in zip(DEPTHS, values, found, strict=True)
            if e or value[0] is not None
        ]
    for d in DEPTHS:
        both = results.get((TUNED, d), []), results.get((NO_AUG, d), [])
        rows += gain_row(f"FSA - No Aug (points, paired), ResNet-{d}", TUNED, *both)
    return Drawing([Panel(title(s, None), "depth of the ResNet", TOP1, curves)], rows, notes(results))


def class_sizes(settings: Sequence[Setting], results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 2: class sizes of long-tailed CIFAR, and of other data sets that a run has seen.

    The legend says how many classes are head and tail.
    """
    panels, rows = [], []
    for name, classes, largest in ((TEN, 10, 5000), (HUNDRED, 100, 500)):
        curves = []
        for factor in (10, 20, 50, 100, 200):
            sizes = longtail_counts(classes, largest, factor)
            head, tail = head_and_tail(sizes)
            words = f"{len(head)} head, {len(tail)} tail classes"
            curves.append(Curve(f"factor {factor}", list(range(classes)), sizes.tolist(), legend=words))
            quantities = {"head classes": len(head), "tail images": int(sizes[tail].sum())}
            for quantity, value in quantities.items():
                words = f"{name}, factor {factor}"
                rows.append(Comparison(words, quantity, None, "", computed(value), tolerance=0.0))
        panels.append(size_panel(name, curves, y_log=True))
    for name, found in results.items():
        sizes = np.sort(counts(found[0]))[::-1]
        panels.append(size_panel(name, [Curve(name, list(range(len(sizes))), sizes.tolist())]))
    return Drawing(panels, rows, "the head is the fewest largest classes with 90 % of the images")


def size_panel(name: str, curves: Sequence[Curve], y_log: bool = False) -> Panel:
    """Return a panel with the number of training images of each class in a data set."""
    return Panel(name, "class, from head to tail", "training images", curves, y_log=y_log)


def tested(
    results: Sequence[Result], name: str, to_x: float, shift: float = 0.0, start: Results | None = None
) -> Curve:
    """Return a curve of test accuracy over the epochs of a run. An epoch e is drawn at shift + e * to_x.

    start: Results whose "Phase I" holds the runs that `results` start from. Their accuracy becomes the first point.
    """
    found = [by_epoch(r) for r in results]
    x, lines = [shift + e * to_x for e in found[0]], [list(line.values()) for line in found]
    before = {repeat(r)[0]: accuracy(r) for r in (start or {}).get(PHASE_1, [])}
    if all(repeat(r)[0] in before for r in results):
        x, lines = [shift, *x], [[before[repeat(r)[0]], *line] for r, line in zip(results, lines, strict=True)]
    return mean_curve(name, x, lines)


def trained(results: Sequence[Result], name: str) -> Curve:
    """Return a curve of Phase II's training loss over iterations, averaged over each epoch of the log."""
    traces = [r.values["trace"] for r in results]
    return mean_curve(name, [e * STEPS for e in traces[0]["epoch"]], [t["loss"] for t in traces])


def learning_curves(s: Setting, results: Results, published: PublishedFigure, factor: float | None = None) -> Drawing:
    """Draw Fig. 6 and 10: both phases. In Phase II, one epoch on the axis is a pass over the tail, as in the paper."""
    factor = factor or s.strongest
    first = results.get(PHASE_1, [])
    tuned = {name: found for name, found in results.items() if name != PHASE_1}
    sizes = counts(next(iter(results.values()))[0])
    passes, epochs = STEPS * FSA().tail / sizes[head_and_tail(sizes)[1]].sum(), s.schedule.epochs
    both = [tested(first, PHASE_1, 1)] if first else []
    both += [tested(found, name, passes, epochs, results) for name, found in tuned.items()]
    zoom = [tested(found, name, STEPS, 0, results) for name, found in tuned.items()]
    losses = [trained(found, name) for name, found in tuned.items()]
    panels = [
        Panel(title(s, factor), "epoch; in Phase II, pass over the tail", ACCURACY, both),
        Panel("Phase II", "iteration", ACCURACY, zoom),
        Panel("Phase II, training", "iteration", "cross-entropy of its batches", losses),
    ]
    rows = [
        Comparison(f"{ACCURACY}, end", name, *printed(s, published, name, factor), mean(found))
        for name, found in results.items()
    ]
    for name, found in tuned.items():
        rows += gain_row("Phase II - Phase I (points, paired)", name, found, first)
    return Drawing([p for p in panels if p.curves], rows, notes(results))


def confusion(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 7: confusion after Phase I, and how Phase II changes it with and without augmentation."""
    some = results.get(PHASE_1) or next(iter(results.values()))
    head, tail = head_and_tail(counts(some[0]))
    base = Panel("", "predicted class", "true class", boundary=len(head))
    panels, rows = list[Panel](), list[Comparison]()
    for name in (PHASE_1, NO_AUG, TUNED):
        if found := results.get(name):
            panels.append(_confusions(base, name, found[0], results.get(PHASE_1)))
    for name, found in results.items():
        for quantity, true, predicted in (("tail taken for head", tail, head), ("head taken for tail", head, tail)):
            share = mean(found, partial(flow, true=true, predicted=predicted))
            rows.append(Comparison(f"{quantity} (% of its test images)", name, None, "", share))
        for group, measure in GROUPS.items():
            rows.append(Comparison(f"{ACCURACY}, {group} classes", name, None, "", mean(found, measure)))
    note = f"{title(s, s.strongest)}; lines between head and tail classes; first repeat shown"
    return Drawing(panels, rows, notes(results, note))


def _confusions(base: Panel, name: str, result: Result, first: Sequence[Result] | None) -> Panel:
    """Return a panel with a confusion matrix: Phase I's own, or the change that Phase II makes.

    Without a Phase I to compare with, Phase II's own matrix is shown.
    """
    own = result.confusion("cnn")
    if not first or name == PHASE_1:
        return replace(base, title=f"{name}: {accuracy(result):.2f} %", kind="matrix", matrix=own)
    words = f"{name} - Phase I (test images): {accuracy(result) - accuracy(first[0]):+.2f} points"
    return replace(base, title=words, kind="change", matrix=own - first[0].confusion("cnn"))


def flow(result: Result, true: np.ndarray, predicted: np.ndarray) -> float:
    """Return the share, percent, of test images of the classes `true` that are predicted as one of `predicted`."""
    matrix = result.confusion("cnn")
    return 100.0 * float(matrix[np.ix_(true, predicted)].sum()) / float(matrix[true].sum())


def head_shares(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 8: accuracy over the head's share of the images."""
    lines, rows = list[Curve](), list[Comparison]()
    for factor in dict.fromkeys(factor for _, factor in results):
        found = [mean(results.get((share, factor), [])) for share in s.shares]
        lines.append(through(f"factor {factor:g}", [f"{share:g}" for share in s.shares], found))
        rows += [
            Comparison(f"{ACCURACY}, factor {factor:g}", f"h_r = {share:g}", None, "", e)
            for share, e in zip(s.shares, found, strict=True)
            if e
        ]
    note = "the paper's values are in a picture only: its peak is at about 0.95"
    panel = Panel(title(s, None), "h_r: the head's share of the images", ACCURACY, lines)
    return Drawing([panel], rows, notes(results, note))


def blocks(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 9: accuracy by the block after which features are augmented.

    Augmentation after the last block is FSA itself, whose published numbers are in Tables 1 and 2.
    """
    names, bars, rows = (NO_AUG, *BLOCKS), list[Curve](), list[Comparison]()
    for factor in dict.fromkeys(factor for _, factor in results):
        found = [mean(results.get((n, factor), [])) for n in names]
        bars.append(through(f"factor {factor:g}", names, found))
        for name, e in zip(names, found, strict=True):
            value = printed(s, published, TUNED, factor) if name == BLOCKS[-1] else (None, "")
            rows += [Comparison(f"{ACCURACY}, factor {factor:g}", name, *value, e)] if e else []
            rows += gain_row(
                f"{name} - {NO_AUG} (points, paired), factor {factor:g}",
                name,
                results.get((name, factor), []),
                results.get((NO_AUG, factor), []) if name != NO_AUG else [],
            )
    note = "Block2 and Block3 are always from images drawn afresh, and tune every later layer"
    return Drawing([Panel(title(s, None), "", ACCURACY, bars, kind="bars")], rows, notes(results, note))
