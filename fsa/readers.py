"""What readers of the paper asked for: where its gain comes from, and what its free numbers do. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from common.curves import Results
from common.figures import Comparison, Curve, Drawing, Panel
from common.store import Result
from fsa.experiments import FIXED, OURS, UNIFORM, sources_of
from fsa.figures import ACCURACY, NO_AUG, across, difference, gain_row, line, notes, printed, title
from fsa.measures import GROUPS, Measure, counts, gain, mean, on_class
from fsa.presets import Setting

GAIN = "gain (points)"
Pairs = Mapping[str, tuple[Sequence[Result], Sequence[Result]]]
"""Ours and theirs, by the name of their difference."""


def gains(setting: Setting, results: Results) -> Drawing:
    """What augmentation itself adds to classifier retraining, on groups of classes and by class size."""
    pairs = {
        "FSA - No Aug": (OURS, NO_AUG),
        "No Aug - Phase I": (NO_AUG, "Phase I"),
        "FSA - Phase I": (OURS, "Phase I"),
    }
    found = {name: (results.get(a, []), results.get(b, [])) for name, (a, b) in pairs.items()}
    groups, rows = list(GROUPS), accuracies(setting, results)
    for group, measure in GROUPS.items():
        for name, (a, b) in pairs.items():
            value = difference(*(paper(setting, n, group) for n in (a, b)))
            rows += gain_row(f"gain (points, paired), {group}", name, *found[name], measure, value)
    bars = [line(name, groups, [mean(runs, m) for m in GROUPS.values()]) for name, runs in results.items()]
    added = {"FSA - No Aug": found.pop("FSA - No Aug")}
    panels = [
        Panel(title(setting, setting.factor), "classes", ACCURACY, bars, kind="bars"),
        by_group("what augmentation adds", added),
        by_size("what augmentation adds, by class size", added),
        by_size("what Phase II adds, by class size", found),
    ]
    return Drawing([p for p in panels if p.curves], rows, notes(results))


def accuracies(setting: Setting, results: Results) -> list[Comparison]:
    """Accuracy on all, head and tail classes; that on all beside the published one."""
    return [
        Comparison(f"{ACCURACY}, {group}", name, *paper(setting, name, group), mean(runs, measure))
        for name, runs in results.items()
        for group, measure in GROUPS.items()
    ]


def paper(setting: Setting, name: str, group: str) -> tuple[float | None, str]:
    """What Tables 1 and 2 print of a method: its accuracy on all classes."""
    return printed(setting, name) if group == "all" else (None, "")


def by_group(name: str, pairs: Pairs) -> Panel:
    """Paired gains on all, head and tail classes."""
    found = {label: [gain(a, b, m) for m in GROUPS.values()] for label, (a, b) in pairs.items()}
    bars = [line(label, list(GROUPS), gains) for label, gains in found.items() if any(gains)]
    return Panel(name, "classes", GAIN, bars, kind="bars")


def by_size(name: str, pairs: Pairs) -> Panel:
    """Paired gain on each class against its training images; classes of one size together."""
    lines = []
    for label, (a, b) in pairs.items():
        if not a or not b:
            continue
        sizes = counts(a[0])
        groups = {int(size): np.flatnonzero(sizes == size) for size in sorted(set(sizes.tolist()))}
        found = [gain(a, b, _over([on_class(int(c)) for c in ids])) for ids in groups.values()]
        lines.append(line(label, list(groups), found))
    return Panel(name, "training images of the class", GAIN, lines, x_log=True)


def _over(measures: Sequence[Measure]) -> Measure:
    return lambda result: float(np.mean([m(result) for m in measures]))


def variants(setting: Setting, results: Results) -> Drawing:
    """Every variant of Phase II from the same Phase I: accuracy, and the difference to the control."""
    groups = {g: line(f"{g} classes", list(results), [mean(f, m) for f in results.values()]) for g, m in GROUPS.items()}
    control, others = results.get(NO_AUG, []), [n for n in results if n not in (NO_AUG, "Phase I")]
    found = {g: [gain(results[n], control, m) for n in others] for g, m in GROUPS.items()}
    differences = [line(f"{g} classes", others, each) for g, each in found.items() if any(each)]
    rows = accuracies(setting, results)
    for name in others:
        for group, measure in GROUPS.items():
            rows += gain_row(f"- {NO_AUG} (points, paired), {group}", name, results[name], control, measure)
    ours, theirs = (results.get(f"{name}, tail by class", []) for name in ("FSA", NO_AUG))
    for group, measure in GROUPS.items():  # the other draw of tail images has a control of its own
        rows += gain_row(
            f"- {NO_AUG}, tail by class (points, paired), {group}", "FSA, tail by class", ours, theirs, measure
        )
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
