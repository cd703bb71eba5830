"""What readers of the paper asked for: where its gain comes from, and what its free numbers do. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from common.curves import Results
from common.figures import Comparison, Curve, Drawing, Panel
from common.store import Result
from fsa.experiments import FIXED, OURS, UNIFORM, sources_of
from fsa.figures import ACCURACY, NO_AUG, across, gain_row, line, notes, title
from fsa.measures import GROUPS, Measure, counts, gain, mean, on_class
from fsa.presets import Setting


def gains(setting: Setting, results: Results) -> Drawing:
    """What augmentation itself adds to balanced classifier retraining, on groups of classes and by class size."""
    groups, rows = list(GROUPS), list[Comparison]()
    bars = [line(name, groups, [mean(found, m) for m in GROUPS.values()]) for name, found in results.items()]
    ours, control, first = (results.get(name, []) for name in (OURS, NO_AUG, "Phase I"))
    for name, found in results.items():
        rows += [Comparison(f"{ACCURACY}, {g}", name, None, "", mean(found, m)) for g, m in GROUPS.items()]
    pairs = {"FSA - No Aug": (ours, control), "No Aug - Phase I": (control, first), "FSA - Phase I": (ours, first)}
    bars_of_gain = []
    for name, (a, b) in pairs.items():
        found_gains = [gain(a, b, m) for m in GROUPS.values()]
        bars_of_gain += [line(name, groups, found_gains)] if any(found_gains) else []
        for group, measure in GROUPS.items():
            rows += gain_row(f"gain (points, paired), {group}", name, a, b, measure)
    panels = [
        Panel(title(setting, setting.factor), "classes", ACCURACY, bars, kind="bars"),
        Panel("paired gains", "classes", "gain (points)", bars_of_gain, kind="bars"),
        by_size({name: pair for name, pair in pairs.items() if name != "FSA - Phase I"}),
    ]
    return Drawing(panels, rows, notes(results))


def by_size(pairs: Mapping[str, tuple[Sequence[Result], Sequence[Result]]]) -> Panel:
    """Paired gain on each class against its training images; classes of one size together."""
    lines = []
    for name, (a, b) in pairs.items():
        if not a or not b:
            continue
        sizes = counts(a[0])
        groups = {int(size): np.flatnonzero(sizes == size) for size in sorted(set(sizes.tolist()))}
        found = [gain(a, b, _over([on_class(int(c)) for c in ids])) for ids in groups.values()]
        lines.append(line(name, list(groups), found))
    return Panel("by size of the class", "training images of the class", "gain (points)", lines, x_log=True)


def _over(measures: Sequence[Measure]) -> Measure:
    return lambda result: float(np.mean([m(result) for m in measures]))


def variants(setting: Setting, results: Results) -> Drawing:
    """Every variant of Phase II from the same Phase I: accuracy, and the difference to the control."""
    groups = {g: line(f"{g} classes", list(results), [mean(f, m) for f in results.values()]) for g, m in GROUPS.items()}
    control, others = results.get(NO_AUG, []), [n for n in results if n not in (NO_AUG, "Phase I")]
    found = {g: [gain(results[n], control, m) for n in others] for g, m in GROUPS.items()}
    differences = [line(f"{g} classes", others, each) for g, each in found.items() if any(each)]
    rows = [
        Comparison(f"{ACCURACY}, {g}", n, None, "", mean(f, m)) for n, f in results.items() for g, m in GROUPS.items()
    ]
    for name in others:
        for group, measure in GROUPS.items():
            rows += gain_row(f"- {NO_AUG} (points, paired), {group}", name, results[name], control, measure)
    panels = [
        Panel(title(setting, setting.factor), "", ACCURACY, list(groups.values()), kind="bars"),
        Panel(f"difference to {NO_AUG}", "", "points, paired", differences, kind="bars"),
    ]
    return Drawing(panels, rows, notes(results))


def sources(setting: Setting, results: Results) -> Drawing:
    """Images drawn afresh for every batch against cached maps of a few views of each, and against fixed fusions."""
    labels, bars, rows = list(sources_of(setting)), list[Curve](), list[Comparison]()
    for name in (NO_AUG, OURS):
        own = [label for label in [*labels, FIXED] if results.get(f"{name}, {label}")]
        found = [mean(results[f"{name}, {label}"]) for label in own]
        bars.append(line(name, own, found))
        rows += [Comparison(ACCURACY, f"{name}, {label}", None, "", e) for label, e in zip(own, found, strict=True)]
    for label in [*labels, FIXED]:
        control = results.get(f"{NO_AUG}, {'1 view' if label == FIXED else label}", [])
        rows += gain_row("FSA - No Aug (points, paired)", label, results.get(f"{OURS}, {label}", []), control)
    start = across("Phase I", [*labels, FIXED], mean(results.get("Phase I", [])))
    note = f"{FIXED}: tail images, donors and what is drawn of them stay the same, as if computed in advance"
    panel = Panel(title(setting, setting.factor), "", ACCURACY, [*bars, *start])
    return Drawing([panel], rows, notes(results, note))


def thresholds(setting: Setting, results: Results) -> Drawing:
    """Accuracy and tail accuracy over both thresholds, which the paper does not give."""
    panels, rows = [], []
    control = results.get(NO_AUG, [])
    for group in ("all", "tail"):
        measure, lines = GROUPS[group], list[Curve]()
        for b in setting.taus[1]:
            found = [mean(results.get(f"{a:g} {b:g}", []), measure) for a in setting.taus[0]]
            lines.append(line(f"tau_g = {b:g}", setting.taus[0], found))
        lines += across(NO_AUG, setting.taus[0], mean(control, measure))
        panels.append(Panel(f"{group} classes", "tau_s, above which a location is class-specific", ACCURACY, lines))
        for name, found_runs in results.items():
            words = name if name == NO_AUG else "tau_s {}, tau_g {}".format(*name.split())
            rows.append(Comparison(f"{ACCURACY}, {group}", words, None, "", mean(found_runs, measure)))
    return Drawing(panels, rows, notes(results, title(setting, setting.factor)))


def numbers(setting: Setting, results: Results) -> Drawing:
    """Accuracy against the ratio, the donors of each tail image and the confusing classes."""
    control, panels = mean(results.get(NO_AUG, [])), []
    labels = {"ratio": "ratio of class-specific vectors", "donors": "donors of each tail image, N_a"}
    labels["confusing"] = "confusing classes, N_f"
    for word, label in labels.items():
        x = [name.split(" ", 1)[1] for name in results if name.startswith(word) and name != UNIFORM]
        found = [mean(results[f"{word} {value}"]) for value in x]
        lines = [line(OURS, x, found), *across(NO_AUG, x, control)]
        lines += across(UNIFORM, x, mean(results.get(UNIFORM, []))) if word == "ratio" else []
        panels.append(Panel("", label, ACCURACY, lines))
    rows = [Comparison(ACCURACY, name, None, "", mean(found)) for name, found in results.items()]
    for name, runs in results.items():
        if name != NO_AUG:
            rows += gain_row(f"- {NO_AUG} (points, paired)", name, runs, results.get(NO_AUG, []))
    note = f"{title(setting, setting.factor)}; N_t = 64 / (1 + N_a), so that a batch stays 128 images"
    return Drawing(panels, rows, notes(results, note))
