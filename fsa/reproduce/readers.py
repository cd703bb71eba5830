"""Draws figures that are not in the paper: where the gain comes from, and how hyper-parameters change it."""

from __future__ import annotations

from functools import partial

import numpy as np

from common.drawing.curves import across, neighbours, span, through
from common.drawing.figures import Comparison, Curve, Drawing, Panel, PublishedFigure, Results
from fsa.reproduce.figures import ACCURACY, NO_AUG, PHASE_1, TUNED, difference, gain_row, notes, printed, title
from fsa.reproduce.measures import GROUPS, counts, gain, mean, on_classes
from fsa.reproduce.presets import Setting

FIXED = "fused once"
"""The variant of FSA whose features are computed in advance, from one view of each image."""
UNIFORM = "ratio U(0, 1)"
FSA_BY_CLASS, NO_AUG_BY_CLASS = "FSA, tail by class", "No Aug, tail by class"
"""Variants that sample tail images class by class, with a control that does so too."""
SIZE, GAIN = "training images of a class", "gain (points, paired)"


def variants(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw all variants of Phase II from the same Phase I: accuracy, difference to the control, gain by class size."""
    control, others = results.get(NO_AUG, []), [n for n in results if n not in (NO_AUG, PHASE_1)]
    heights, differences, rows = list[Curve](), list[Curve](), list[Comparison]()
    for group, measure in GROUPS.items():
        name = f"{group} classes"
        found = {n: mean(runs, measure) for n, runs in results.items()}
        heights.append(through(name, list(found), list(found.values())))
        rows += [Comparison(f"{ACCURACY}, {group}", n, *on_all(s, published, n, group), e) for n, e in found.items()]
        gains = [gain(results[n], control, measure) for n in others]
        differences += [through(name, others, gains)] if any(gains) else []
    pairs = [(n, NO_AUG) for n in others] + [(FSA_BY_CLASS, NO_AUG_BY_CLASS), (NO_AUG, PHASE_1), (TUNED, PHASE_1)]
    for name, other in pairs:
        for group, measure in GROUPS.items():
            quantity = f"minus {other} (points, paired), {group}"
            value = difference(*(on_all(s, published, n, group) for n in (name, other)))
            rows += gain_row(quantity, name, results.get(name, []), results.get(other, []), measure, value)
    added = [by_class_size("FSA - No Aug", results, TUNED, NO_AUG)]
    tuned = [
        by_class_size("No Aug - Phase I", results, NO_AUG, PHASE_1),
        by_class_size("FSA - Phase I", results, TUNED, PHASE_1),
    ]
    panels = [
        Panel(title(s, s.factor), "", ACCURACY, heights, kind="bars"),
        Panel(f"difference to {NO_AUG}", "", "points, paired", differences, kind="bars"),
        Panel("what augmentation adds, by class size", SIZE, GAIN, [c for c in added if c.x], kind="bars"),
        Panel("what Phase II adds, by class size", SIZE, GAIN, [c for c in tuned if c.x], kind="bars"),
    ]
    return Drawing([p for p in panels if p.curves], rows, notes(results))


def on_all(s: Setting, published: PublishedFigure, name: str, group: str) -> tuple[float | None, str]:
    """Return the number that Tables 1 and 2 print for a method. They print only the accuracy on all classes."""
    return printed(s, published, name) if group == "all" else (None, "")


def by_class_size(label: str, results: Results, name: str, other: str) -> Curve:
    """Return the paired gain on ten groups of classes of similar size, from the smallest to the largest.

    Classes of the same size are in the same group.
    """
    tuned, against = results.get(name, []), results.get(other, [])
    sizes = counts(tuned[0]) if tuned and against else np.array([], dtype=int)
    different = np.unique(sizes)
    groups = [different[places] for places in neighbours(len(different))]
    labels = [np.flatnonzero(np.isin(sizes, group)) for group in groups]
    found = [gain(tuned, against, partial(on_classes, labels=classes)) for classes in labels]
    return through(label, [span(group[0], group[-1]) for group in groups], found)


def sources(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw the accuracy of Phase II by the source of its features.

    The sources are images augmented anew for every batch, cached maps of a few views, and fused samples that stay
    fixed.
    """
    places = {0: "drawn afresh", s.views: f"{s.views} views", 1: "1 view", FIXED: "1 view, fused once"}
    bars, rows = list[Curve](), list[Comparison]()
    for name in (NO_AUG, TUNED):
        own = [place for place in places if results.get((name, place))]
        found = [mean(results[name, place]) for place in own]
        bars.append(through(name, [places[place] for place in own], found))
        rows += [Comparison(ACCURACY, f"{name}, {places[p]}", None, "", e) for p, e in zip(own, found, strict=True)]
    for place, words in places.items():
        control = results.get((NO_AUG, 1 if place == FIXED else place), [])
        rows += gain_row("FSA - No Aug (points, paired)", words, results.get((TUNED, place), []), control)
    if start := mean(results.get(PHASE_1, [])):
        bars.append(across(PHASE_1, list(places.values()), start.mean))
    note = f"{places[FIXED]}: tail images, donors and what is drawn of them stay the same, as if computed in advance"
    return Drawing([Panel(title(s, s.factor), "", ACCURACY, bars)], rows, notes(results, note))


def thresholds(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw the accuracy on all and on tail classes over both thresholds, whose values the paper does not give."""
    panels, rows, (specific, generic) = [], list[Comparison](), s.taus
    for group in ("all", "tail"):
        measure, lines = GROUPS[group], list[Curve]()
        for b in generic:
            found = [mean(results.get((a, b), []), measure) for a in specific]
            lines.append(through(f"tau_g = {b:g}", specific, found))
        if control := mean(results.get(NO_AUG, []), measure):
            lines.append(across(NO_AUG, specific, control.mean))
        panels.append(Panel(f"{group} classes", "tau_s, above which a location is class-specific", ACCURACY, lines))
        for key, runs in results.items():
            words = key if key == NO_AUG else "tau_s {:g}, tau_g {:g}".format(*key)
            rows.append(Comparison(f"{ACCURACY}, {group}", words, None, "", mean(runs, measure)))
    return Drawing(panels, rows, notes(results, title(s, s.factor)))


def numbers(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw the accuracy over the ratio, the number of donors per tail image, and the number of confusing classes."""
    panels, rows, gains = [], list[Comparison](), list[Comparison]()
    labels = {"ratio": "ratio of class-specific vectors", "donors": "donors of each tail image, N_a"}
    labels["confusing"] = "confusing classes, N_f"
    known = {name: found.mean for name in (NO_AUG, UNIFORM) if (found := mean(results.get(name, [])))}
    swept = {key: runs for key, runs in results.items() if key not in (NO_AUG, UNIFORM)}
    for word, label in labels.items():
        mine = {f"{value:g}": mean(runs) for (number, value), runs in swept.items() if number == word}
        lines = [through(TUNED, list(mine), list(mine.values()))]
        shown = {name: height for name, height in known.items() if mine and (name == NO_AUG or word == "ratio")}
        panels.append(Panel("", label, ACCURACY, [*lines, *(across(n, list(mine), y) for n, y in shown.items())]))
    for key, runs in results.items():
        name = key if key in (NO_AUG, UNIFORM) else "{} {:g}".format(*key)
        rows.append(Comparison(ACCURACY, name, None, "", mean(runs)))
        if key != NO_AUG:
            gains += gain_row(f"minus {NO_AUG} (points, paired)", name, runs, results.get(NO_AUG, []))
    note = f"{title(s, s.factor)}; N_t = 64 / (1 + N_a), so that a batch stays 128 images"
    return Drawing(panels, [*rows, *gains], notes(results, note))
