"""The paper's tables and curves, and what readers asked for: Results to a Drawing. No torch, no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from common.curves import Results, mean_curve
from common.figures import Comparison, Curve, Drawing, Estimate, Panel, Published
from common.splits import longtail_counts
from common.store import Result
from fsa import experiments as ex
from fsa.experiments import OURS, Setting, cell
from fsa.measures import GROUPS, Measure, accuracy, counts, gain, mean, on_class, over_what
from fsa.methods import FSA, STEPS
from fsa.splits import head_and_tail

PUBLISHED = Published(Path(__file__).with_name("published.json"))
ACCURACY, FACTOR = "test accuracy (%)", "imbalance factor"
NO_AUG = "No Aug"
NAMES = {
    "cifar10": "CIFAR-10-LT",
    "cifar100": "CIFAR-100-LT",
    "imagenet-lt": "ImageNet-LT",
    "places-lt": "Places-LT",
    "inat2017": "iNaturalist 2017",
    "inat2018": "iNaturalist 2018",
}


def comparable(setting: Setting) -> bool:
    """Whether published values may be drawn over ours: the paper's data set, whatever the schedule."""
    return setting.preset != "quick"


def title(setting: Setting, factor: float | None) -> str:
    """Which data set and network it is about, and what stands for it."""
    name, _, network = setting.role.partition("-resnet")
    words = [NAMES[name] if comparable(setting) else f"glyphs for {NAMES[name]}"]
    words += [f"factor {factor:g}"] if factor else []
    return ", ".join([*words, *([f"ResNet-{network}"] if network else [])])


def published(entry: str, method: str, x: float | str) -> tuple[float | None, str]:
    """A published number and its provenance; (None, "") where there is none."""
    series = PUBLISHED.series(entry, method)
    known = dict(zip(series["x"], series["y"], strict=True)) if series else {}
    return (known[x], series["provenance"]) if series and x in known else (None, "")


def line(name: str, x: Sequence[float | str], found: Sequence[Estimate | None], **fields: object) -> Curve:
    """A curve through Estimates with their intervals, without those that lack."""
    pairs = [(at, e) for at, e in zip(x, found, strict=True) if e]
    n = max((e.n for _, e in pairs), default=1)
    interval = [e.interval for _, e in pairs] if n > 1 else None
    return Curve(name, [at for at, _ in pairs], [e.mean for _, e in pairs], interval, n, **fields)  # type: ignore[arg-type]


def across(name: str, x: Sequence[float | str], found: Estimate | None) -> list[Curve]:
    """A dashed line to hold others against; none without an Estimate."""
    return [Curve(name, x, [found.mean] * len(x), reference=True, legend=" ")] if found and x else []


def gain_row(
    quantity: str, name: str, ours: Sequence[Result], theirs: Sequence[Result], measure: Measure = accuracy
) -> list[Comparison]:
    """The paired gain as a row without a published number; none where no repeat is shared."""
    found = gain(ours, theirs, measure)
    return [Comparison(quantity, name, None, "", found, tolerance=0.0)] if found else []


def table(setting: Setting, results: Results, entry: str) -> Drawing:
    """Tables 1 and 2: accuracy by imbalance factor; the control isolates what augmentation adds."""
    names, factors = [*setting.baselines(), NO_AUG, OURS], setting.factors
    words, rows, ours, paper = [f"{f:g}" for f in factors], list[Comparison](), list[Curve](), list[Curve]()
    for name in names:
        found = [mean(results.get(cell(name, f), [])) for f in factors]
        values = [published(entry, name, f) for f in factors]
        known = zip(factors, values, found, strict=True)
        rows += [Comparison(f"{ACCURACY}, factor {f:g}", name, *value, e) for f, value, e in known if e]
        ours += [line(name, words, found)] if any(found) else []
        if any(value is not None for value, _ in values):
            y = [np.nan if value is None else value for value, _ in values]
            paper.append(Curve(name, words, y, published=True))
    for f in factors:
        tuned = results.get(cell(OURS, f), [])
        for other in ("CE", NO_AUG):
            quantity = f"FSA - {other} (points, paired), factor {f:g}"
            rows += gain_row(quantity, OURS, tuned, results.get(cell(other, f), []))
            theirs = published(entry, OURS, f)[0], published(entry, other, f)[0]
            if rows and rows[-1].quantity == quantity and None not in theirs:
                value = round(theirs[0] - theirs[1], 2)  # type: ignore[operator]
                rows[-1] = Comparison(quantity, OURS, value, "difference of two printed numbers", rows[-1].ours)
    panels = [Panel(f"{title(setting, None)}, ours", FACTOR, ACCURACY, ours)]
    if comparable(setting):
        panels.append(Panel("the paper", FACTOR, ACCURACY, paper))
    note = f"{NO_AUG}: Phase II on the same batches, half tail images, without augmentation; the paper has no such row"
    return Drawing(panels, rows, "; ".join(filter(None, [note, over_what(results.values())])))


def shots(setting: Setting, results: Results, entry: str) -> Drawing:
    """Table 3: classes of many, medium and few images, and all."""
    groups = {"many": "many", "medium": "medium", "few": "few", "overall": "accuracy"}
    rows, ours, paper = list[Comparison](), list[Curve](), list[Curve]()
    for name, found in results.items():
        present = {g: key for g, key in groups.items() if key in found[0].readout("cnn")}
        values = [mean(found, lambda r, key=key: r.readout("cnn")[key]) for key in present.values()]  # type: ignore[misc]
        ours.append(line(name, list(present), values))
        rows += [
            Comparison(f"top-1 accuracy (%), {g}", name, *published(entry, name, g), e)
            for g, e in zip(present, values, strict=True)
        ]
    for series in PUBLISHED.entries[entry]["series"]:
        paper.append(Curve(series["method"], series["x"], series["y"], published=True))
    rows += gain_row("FSA - No Aug (points, paired)", OURS, results.get(OURS, []), results.get(NO_AUG, []))
    panels = [
        Panel(f"{title(setting, None)}, ours", "training images of the class", "top-1 accuracy (%)", ours, kind="bars"),
        Panel("the paper", "training images of the class", "top-1 accuracy (%)", paper, kind="bars"),
    ]
    return Drawing(panels, rows, "many: > 100, medium: 20 to 100, few: < 20 training images")


def depths(setting: Setting, results: Results, entry: str) -> Drawing:
    """Table 4: ResNet-50, -101 and -152."""
    x, rows, curves = (50, 101, 152), list[Comparison](), list[Curve]()
    for name in ("CE", "CB", NO_AUG, OURS):
        found = [mean(results.get(cell(name, d), [])) for d in x]
        values = [published(entry, name, d) for d in x]
        curves += [line(name, x, found)] if any(found) else []
        known = [np.nan if v is None else v for v, _ in values]
        curves += [Curve(name, x, known, published=True)] if np.isfinite(known).any() else []
        rows += [
            Comparison(f"top-1 accuracy (%), ResNet-{d}", name, *value, e)
            for d, value, e in zip(x, values, found, strict=True)
            if e or value[0] is not None
        ]
    for d in x:
        pair = results.get(cell(OURS, d), []), results.get(cell(NO_AUG, d), [])
        rows += gain_row(f"FSA - No Aug (points, paired), ResNet-{d}", OURS, *pair)
    return Drawing([Panel(title(setting, None), "depth of the ResNet", "top-1 accuracy (%)", curves)], rows)


def fig2(settings: Sequence[Setting], results: Results) -> Drawing:
    """Fig. 2: class sizes of the long-tailed CIFAR sets, where their tail begins, and of others a run has seen."""
    panels, rows = [], []
    for name, classes, largest in (("CIFAR-10-LT", 10, 5000), ("CIFAR-100-LT", 100, 500)):
        curves = []
        for factor in (10, 20, 50, 100, 200):
            sizes = longtail_counts(classes, largest, factor)
            head, tail = head_and_tail(sizes)
            words = f"{len(head)} head, {len(tail)} tail classes"
            curves.append(Curve(f"factor {factor}", list(range(classes)), sizes.tolist(), legend=words))
            quantities = {"head classes": len(head), "tail images": int(sizes[tail].sum())}
            for quantity, value in quantities.items():
                known = Estimate(value, float("nan"), float("nan"), 1)
                rows.append(Comparison(f"{name}, factor {factor}", quantity, None, "", known, tolerance=0.0))
        panels.append(Panel(name, "class, from head to tail", "training images", curves, y_log=True))
    for name, found in results.items():
        sizes = np.sort(counts(found[0]))[::-1]
        panels.append(
            Panel(
                name,
                "class, from head to tail",
                "training images",
                [Curve(name, list(range(len(sizes))), sizes.tolist())],
            )
        )
    return Drawing(panels, rows, "the head is the fewest largest classes with 90 % of the images")


def tested(results: Sequence[Result], name: str, to_x: float, shift: float = 0.0) -> Curve:
    """Test accuracy over a run's log; an epoch is `to_x` of the axis, after `shift`."""
    traces = [r.values["trace"] for r in results]
    pairs = [(i, e) for i, e in enumerate(traces[0]["epoch"]) if traces[0]["test_accuracy"][i] is not None]
    lines = [[t["test_accuracy"][i] for i, _ in pairs] for t in traces]
    return mean_curve(name, [shift + e * to_x for _, e in pairs], lines)


def curves(setting: Setting, results: Results, entry: str | None = None) -> Drawing:
    """Fig. 6 and 10: test accuracy through both phases. In Phase II an epoch is a pass over the tail's images."""
    first = results.get("Phase I", [])
    tuned = {name: found for name, found in results.items() if name != "Phase I"}
    sample = next(iter(results.values()))[0]
    tail_images = counts(sample)[head_and_tail(counts(sample))[1]].sum()
    passes, epochs = STEPS * FSA().tail / tail_images, setting.phase1.epochs
    both = [tested(first, "Phase I", 1)] if first else []
    both += [tested(found, name, passes, epochs) for name, found in tuned.items()]
    start = across("Phase I", [0, setting.phase2.epochs * STEPS], mean(first))
    zoom = [tested(found, name, STEPS) for name, found in tuned.items()]
    panels = [
        Panel(title(setting, setting.strongest), "epoch; in Phase II, pass over the tail", ACCURACY, both),
        Panel("Phase II", "iteration", ACCURACY, [*start, *zoom]),
    ]
    rows = []
    for name, found in results.items():
        key = {"Phase I": "CE"}.get(name, name)
        value = published(entry, key, setting.strongest or 0) if entry else (None, "")
        rows.append(Comparison(f"{ACCURACY}, end", name, *value, mean(found)))
    for name, found in tuned.items():
        rows += gain_row("Phase II - Phase I (points, paired)", name, found, first)
    return Drawing(panels, rows, over_what(results.values()))


def confusion(setting: Setting, results: Results) -> Drawing:
    """Fig. 7: confusion after Phase I, and how Phase II changes it, with and without augmentation."""
    first = results["Phase I"][0]
    head, tail = head_and_tail(counts(first))
    before, boundary = first.confusion("cnn"), len(head)
    panel = Panel(f"Phase I: {accuracy(first):.2f} %", "predicted class", "true class", kind="matrix")
    panels, rows = [Panel(**{**vars(panel), "matrix": before, "boundary": boundary})], list[Comparison]()
    for name in (NO_AUG, OURS):
        if not (found := results.get(name)):
            continue
        panels.append(
            Panel(
                f"{name} - Phase I (test images): {accuracy(found[0]) - accuracy(first):+.2f} points",
                "predicted class",
                "true class",
                kind="change",
                matrix=found[0].confusion("cnn") - before,
            )
        )
    for name, found in results.items():
        for quantity, true, predicted in (("tail taken for head", tail, head), ("head taken for tail", head, tail)):
            share = mean(found, lambda r, t=true, p=predicted: flow(r, t, p))  # type: ignore[misc]
            rows.append(Comparison(f"{quantity} (% of its test images)", name, None, "", share))
        for group, measure in GROUPS.items():
            rows.append(Comparison(f"{ACCURACY}, {group} classes", name, None, "", mean(found, measure)))
    note = f"{title(setting, setting.strongest)}; classes from head to tail, lines between them; first repeat shown"
    return Drawing(panels, rows, note)


def flow(result: Result, true: np.ndarray, predicted: np.ndarray) -> float:
    """Share of the test images of some classes that are taken for some others, percent."""
    matrix = result.confusion("cnn")
    return 100.0 * float(matrix[np.ix_(true, predicted)].sum()) / float(matrix[true].sum())


def fig8(setting: Setting, results: Results) -> Drawing:
    """Fig. 8: accuracy against the head's share of the images."""
    lines, rows = list[Curve](), list[Comparison]()
    for factor in dict.fromkeys(float(name.rsplit(" at ")[1]) for name in results):
        found = [mean(results.get(cell(f"{s:g}", factor), [])) for s in setting.shares]
        lines.append(line(f"factor {factor:g}", setting.shares, found))
        rows += [
            Comparison(f"{ACCURACY}, factor {factor:g}", f"h_r = {s:g}", None, "", e)
            for s, e in zip(setting.shares, found, strict=True)
            if e
        ]
    note = "the paper's values are in a picture only: its peak is at about 0.95"
    return Drawing([Panel(title(setting, None), "h_r: the head's share of the images", ACCURACY, lines)], rows, note)


def fig9(setting: Setting, results: Results) -> Drawing:
    """Fig. 9: the block after which features are augmented."""
    names, bars, rows = ("No Aug", "Block2", "Block3", "Block4"), list[Curve](), list[Comparison]()
    for factor in dict.fromkeys(float(name.rsplit(" at ")[1]) for name in results):
        found = [mean(results.get(cell(n, factor), [])) for n in names]
        bars.append(line(f"factor {factor:g}", names, found))
        table = f"table{1 if setting.role == 'cifar10' else 2}-resnet18"
        for name, e in zip(names, found, strict=True):
            value = published(table, OURS, factor) if name == "Block4" else (None, "")
            rows += [Comparison(f"{ACCURACY}, factor {factor:g}", name, *value, e)] if e else []
            rows += gain_row(
                f"{name} - {NO_AUG} (points, paired), factor {factor:g}",
                name,
                results.get(cell(name, factor), []),
                results.get(cell(NO_AUG, factor), []) if name != NO_AUG else [],
            )
    return Drawing([Panel(title(setting, None), "", ACCURACY, bars, kind="bars")], rows)


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
    return Drawing(panels, rows, over_what(results.values()))


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
    found = [gain(results[n], control) for n in others]
    differences = [line("gain", others, found)] if any(found) else []
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
    return Drawing(panels, rows, over_what(results.values()))


def sources(setting: Setting, results: Results) -> Drawing:
    """Images drawn afresh for every batch against cached maps of a few views of each."""
    labels, rows = list(ex.sources_of(setting)), list[Comparison]()
    bars = []
    for name in (NO_AUG, OURS):
        found = [mean(results.get(f"{name}, {label}", [])) for label in labels]
        bars.append(line(name, labels, found))
        rows += [
            Comparison(ACCURACY, f"{name}, {label}", None, "", e) for label, e in zip(labels, found, strict=True) if e
        ]
    for label in labels:
        pair = results.get(f"{OURS}, {label}", []), results.get(f"{NO_AUG}, {label}", [])
        rows += gain_row("FSA - No Aug (points, paired)", label, *pair)
    start = across("Phase I", labels, mean(results.get("Phase I", [])))
    panel = Panel(title(setting, setting.factor), "", ACCURACY, [*bars, *start], kind="lines")
    return Drawing([panel], rows, over_what(results.values()))


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
        panels.append(Panel(f"{group} classes", "tau_s", ACCURACY, lines))
        for name, found_runs in results.items():
            words = name if name == NO_AUG else "tau_s {}, tau_g {}".format(*name.split())
            rows.append(Comparison(f"{ACCURACY}, {group}", words, None, "", mean(found_runs, measure)))
    return Drawing(panels, rows, f"{title(setting, setting.factor)}; {over_what(results.values())}".rstrip("; "))


def numbers(setting: Setting, results: Results) -> Drawing:
    """Accuracy against the ratio, the donors of each tail image and the confusing classes."""
    control, panels = mean(results.get(NO_AUG, [])), []
    labels = {"ratio": "ratio of class-specific vectors", "donors": "donors of each tail image, N_a"}
    labels["confusing"] = "confusing classes, N_f"
    for word, label in labels.items():
        x = [name.split(" ", 1)[1] for name in results if name.startswith(word)]
        found = [mean(results[f"{word} {value}"]) for value in x]
        panels.append(Panel("", label, ACCURACY, [line(OURS, x, found), *across(NO_AUG, x, control)]))
    rows = [Comparison(ACCURACY, name, None, "", mean(found)) for name, found in results.items()]
    for name, runs in results.items():
        if name != NO_AUG:
            rows += gain_row(f"- {NO_AUG} (points, paired)", name, runs, results.get(NO_AUG, []))
    note = f"{title(setting, setting.factor)}; N_t = 64 / (1 + N_a), so that a batch stays 128 images"
    return Drawing(panels, rows, "; ".join(filter(None, [note, over_what(results.values())])))
