"""The paper's tables and curves: Results to a Drawing. No torch, no training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from common.curves import Results, mean_curve
from common.figures import Comparison, Curve, Drawing, Estimate, Panel, Published, comparable
from common.splits import longtail_counts
from common.store import Result
from fsa.experiments import OURS, cell
from fsa.measures import GROUPS, Measure, accuracy, counts, gain, mean, over_what, repeat
from fsa.methods import FSA, STEPS
from fsa.presets import Setting
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


def title(setting: Setting, factor: float | None) -> str:
    """Which data set and network it is about, and what stands for it."""
    name, _, network = setting.role.partition("-resnet")
    words = [NAMES[name] if comparable(setting) else f"glyphs for {NAMES[name]}"]
    words += [f"factor {factor:g}"] if factor else []
    return ", ".join([*words, *([f"ResNet-{network}"] if network else [])])


def line(name: str, x: Sequence[float | str], found: Sequence[Estimate | None], **fields: object) -> Curve:
    """A curve through Estimates with their intervals, without those that lack."""
    pairs = [(at, e) for at, e in zip(x, found, strict=True) if e]
    n = max((e.n for _, e in pairs), default=1)
    interval = [e.interval for _, e in pairs] if n > 1 else None
    return Curve(name, [at for at, _ in pairs], [e.mean for _, e in pairs], interval, n, **fields)  # type: ignore[arg-type]


def across(name: str, x: Sequence[float | str], found: Estimate | None) -> list[Curve]:
    """A dashed line to hold others against; none without an Estimate."""
    return [Curve(name, x, [found.mean] * len(x), reference=True, legend=" ")] if found and x else []


def notes(results: Results, *words: str) -> str:
    """A figure's note: `words`, what Phase II's features come from, and what intervals are over."""
    tuned = [r.config["start"]["method"] for found in results.values() for r in found if r.config.get("start")]
    views = sorted({start.get("views", 0) for start in tuned if "views" in start or start["type"] == "Rebalance"})
    places = [f"{n} cached augmented view{'s' * (n > 1)} of each image" if n else "images drawn afresh" for n in views]
    source = f"Phase II from {' or '.join(places)}" if places else ""
    return "; ".join(filter(None, [*words, source, over_what(results.values())]))


def shared(panels: Sequence[Panel]) -> list[Panel]:
    """The panels on one scale, which their means fill; bars from zero up."""
    values = np.concatenate([np.asarray(c.y, dtype=float) for panel in panels for c in panel.curves])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.08 * (high - low) + 0.5
    bars = any(panel.kind == "bars" for panel in panels)
    return [replace(panel, y_range=(0.0 if bars else low - margin, high + margin)) for panel in panels]


def printed(setting: Setting, name: str, factor: float | None = None) -> tuple[float | None, str]:
    """ResNet-18's number in Table 1 or 2 on the data set that the setting is or stands for; its factor by default."""
    table = f"table{1 if setting.role == 'cifar10' else 2}-resnet18"
    return PUBLISHED.value(table, "CE" if name == "Phase I" else name, factor or setting.factor or 0)


def difference(ours: tuple[float | None, str], theirs: tuple[float | None, str]) -> tuple[float | None, str]:
    """One published number minus another; none where either lacks."""
    if ours[0] is None or theirs[0] is None:
        return None, ""
    return round(ours[0] - theirs[0], 2), "difference of two printed numbers"


def gain_row(
    quantity: str,
    name: str,
    ours: Sequence[Result],
    theirs: Sequence[Result],
    measure: Measure = accuracy,
    published: tuple[float | None, str] = (None, ""),
) -> list[Comparison]:
    """The paired gain as a row; none where no repeat is shared."""
    found = gain(ours, theirs, measure)
    return [Comparison(quantity, name, *published, found, tolerance=0.0)] if found else []


def table(setting: Setting, results: Results, entry: str) -> Drawing:
    """Tables 1 and 2: accuracy by imbalance factor; the control isolates what augmentation adds."""
    names, factors = [*setting.baselines(), NO_AUG, OURS], setting.factors
    words, rows, ours, paper = [f"{f:g}" for f in factors], list[Comparison](), list[Curve](), list[Curve]()
    for name in names:
        found = [mean(results.get(cell(name, f), [])) for f in factors]
        values = [PUBLISHED.value(entry, name, f) for f in factors]
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
            value = difference(PUBLISHED.value(entry, OURS, f), PUBLISHED.value(entry, other, f))
            rows += gain_row(quantity, OURS, tuned, results.get(cell(other, f), []), published=value)
    kind: Literal["lines", "bars"] = "lines" if len(factors) > 1 else "bars"
    panels = [Panel(f"{title(setting, None)}, ours", FACTOR, ACCURACY, ours, kind=kind)]
    if comparable(setting):
        panels = shared([*panels, Panel("the paper", FACTOR, ACCURACY, paper)])
    note = f"{NO_AUG}: Phase II on the same batches, half tail images, without augmentation; the paper has no such row"
    return Drawing(panels, rows, notes(results, note))


def shots(setting: Setting, results: Results, entry: str) -> Drawing:
    """Table 3: classes of many, medium and few images, and all."""
    groups = {"many": "many", "medium": "medium", "few": "few", "overall": "accuracy"}
    rows, ours, paper = list[Comparison](), list[Curve](), list[Curve]()
    for name, found in results.items():
        present = {g: key for g, key in groups.items() if key in found[0].readout("cnn")}
        values = [mean(found, lambda r, key=key: r.readout("cnn")[key]) for key in present.values()]  # type: ignore[misc]
        ours.append(line(name, list(present), values))
        rows += [
            Comparison(f"top-1 accuracy (%), {g}", name, *PUBLISHED.value(entry, name, g), e)
            for g, e in zip(present, values, strict=True)
        ]
    for series in PUBLISHED.entries[entry]["series"]:
        paper.append(Curve(series["method"], series["x"], series["y"], published=True))
    rows += gain_row("FSA - No Aug (points, paired)", OURS, results.get(OURS, []), results.get(NO_AUG, []))
    panels = [
        Panel(f"{title(setting, None)}, ours", "training images of the class", "top-1 accuracy (%)", ours, kind="bars"),
        Panel("the paper", "training images of the class", "top-1 accuracy (%)", paper, kind="bars"),
    ]
    return Drawing(shared(panels), rows, notes(results, "many: > 100, medium: 20 to 100, few: < 20 training images"))


def depths(setting: Setting, results: Results, entry: str) -> Drawing:
    """Table 4: ResNet-50, -101 and -152."""
    x, rows, curves = (50, 101, 152), list[Comparison](), list[Curve]()
    for name in ("CE", "CB", NO_AUG, OURS):
        found = [mean(results.get(cell(name, d), [])) for d in x]
        values = [PUBLISHED.value(entry, name, d) for d in x]
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
    panel = Panel(title(setting, None), "depth of the ResNet", "top-1 accuracy (%)", curves)
    return Drawing([panel], rows, notes(results))


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


def tested(
    results: Sequence[Result], name: str, to_x: float, shift: float = 0.0, start: Results | None = None
) -> Curve:
    """Test accuracy over a run's log; an epoch is `to_x` of the axis, after `shift`.

    start: what the runs start from, by Phase-I seed in its "Phase I"; its accuracy becomes the first point.
    """
    traces = [r.values["trace"] for r in results]
    pairs = [(i, e) for i, e in enumerate(traces[0]["epoch"]) if traces[0]["test_accuracy"][i] is not None]
    x, lines = [shift + e * to_x for _, e in pairs], [[t["test_accuracy"][i] for i, _ in pairs] for t in traces]
    before = {repeat(r)[0]: accuracy(r) for r in (start or {}).get("Phase I", [])}
    if all(repeat(r)[0] in before for r in results):
        x, lines = [shift, *x], [[before[repeat(r)[0]], *line] for r, line in zip(results, lines, strict=True)]
    return mean_curve(name, x, lines)


def trained(results: Sequence[Result], name: str) -> Curve:
    """The loss of Phase II's batches by iteration, a mean over each epoch of its log."""
    traces = [r.values["trace"] for r in results]
    return mean_curve(name, [e * STEPS for e in traces[0]["epoch"]], [t["loss"] for t in traces])


def curves(setting: Setting, results: Results, entry: str | None = None) -> Drawing:
    """Fig. 6 and 10: both phases. In Phase II an epoch is a pass over the tail's images, as in the paper."""
    first = results.get("Phase I", [])
    tuned = {name: found for name, found in results.items() if name != "Phase I"}
    sample = next(iter(results.values()))[0]
    tail_images = counts(sample)[head_and_tail(counts(sample))[1]].sum()
    passes, epochs = STEPS * FSA().tail / tail_images, setting.phase1.epochs
    both = [tested(first, "Phase I", 1)] if first else []
    both += [tested(found, name, passes, epochs, results) for name, found in tuned.items()]
    zoom = [tested(found, name, STEPS, 0, results) for name, found in tuned.items()]
    panels = [
        Panel(title(setting, setting.strongest), "epoch; in Phase II, pass over the tail", ACCURACY, both),
        Panel("Phase II", "iteration", ACCURACY, zoom),
        Panel(
            "Phase II, training", "iteration", "cross-entropy of its batches", [trained(f, n) for n, f in tuned.items()]
        ),
    ]
    rows = []
    for name, found in results.items():
        key = {"Phase I": "CE"}.get(name, name)
        value = PUBLISHED.value(entry, key, setting.strongest or 0) if entry else (None, "")
        rows.append(Comparison(f"{ACCURACY}, end", name, *value, mean(found)))
    for name, found in tuned.items():
        rows += gain_row("Phase II - Phase I (points, paired)", name, found, first)
    return Drawing([p for p in panels if p.curves], rows, notes(results))


def confusion(setting: Setting, results: Results) -> Drawing:
    """Fig. 7: confusion after Phase I, and how Phase II changes it, with and without augmentation."""
    first = results["Phase I"][0]
    head, tail = head_and_tail(counts(first))
    before, rows = first.confusion("cnn"), list[Comparison]()
    base = Panel(f"Phase I: {accuracy(first):.2f} %", "predicted class", "true class", boundary=len(head))
    panels = [replace(base, kind="matrix", matrix=before)]
    for name in (NO_AUG, OURS):
        if found := results.get(name):
            words = f"{name} - Phase I (test images): {accuracy(found[0]) - accuracy(first):+.2f} points"
            panels.append(replace(base, title=words, kind="change", matrix=found[0].confusion("cnn") - before))
    for name, found in results.items():
        for quantity, true, predicted in (("tail taken for head", tail, head), ("head taken for tail", head, tail)):
            share = mean(found, lambda r, t=true, p=predicted: flow(r, t, p))  # type: ignore[misc]
            rows.append(Comparison(f"{quantity} (% of its test images)", name, None, "", share))
        for group, measure in GROUPS.items():
            rows.append(Comparison(f"{ACCURACY}, {group} classes", name, None, "", mean(found, measure)))
    note = f"{title(setting, setting.strongest)}; lines between head and tail classes; first repeat shown"
    return Drawing(panels, rows, notes(results, note))


def flow(result: Result, true: np.ndarray, predicted: np.ndarray) -> float:
    """Share of the test images of some classes that are taken for some others, percent."""
    matrix = result.confusion("cnn")
    return 100.0 * float(matrix[np.ix_(true, predicted)].sum()) / float(matrix[true].sum())


def fig8(setting: Setting, results: Results) -> Drawing:
    """Fig. 8: accuracy against the head's share of the images."""
    lines, rows = list[Curve](), list[Comparison]()
    for factor in dict.fromkeys(float(name.rsplit(" at ")[1]) for name in results):
        found = [mean(results.get(cell(f"{s:g}", factor), [])) for s in setting.shares]
        lines.append(line(f"factor {factor:g}", [f"{s:g}" for s in setting.shares], found))
        rows += [
            Comparison(f"{ACCURACY}, factor {factor:g}", f"h_r = {s:g}", None, "", e)
            for s, e in zip(setting.shares, found, strict=True)
            if e
        ]
    note = "the paper's values are in a picture only: its peak is at about 0.95"
    panel = Panel(title(setting, None), "h_r: the head's share of the images", ACCURACY, lines)
    return Drawing([panel], rows, notes(results, note))


def fig9(setting: Setting, results: Results) -> Drawing:
    """Fig. 9: the block after which features are augmented."""
    names, bars, rows = ("No Aug", "Block2", "Block3", "Block4"), list[Curve](), list[Comparison]()
    for factor in dict.fromkeys(float(name.rsplit(" at ")[1]) for name in results):
        found = [mean(results.get(cell(n, factor), [])) for n in names]
        bars.append(line(f"factor {factor:g}", names, found))
        for name, e in zip(names, found, strict=True):
            value = printed(setting, OURS, factor) if name == "Block4" else (None, "")
            rows += [Comparison(f"{ACCURACY}, factor {factor:g}", name, *value, e)] if e else []
            rows += gain_row(
                f"{name} - {NO_AUG} (points, paired), factor {factor:g}",
                name,
                results.get(cell(name, factor), []),
                results.get(cell(NO_AUG, factor), []) if name != NO_AUG else [],
            )
    note = "Block2 and Block3 are always from images drawn afresh, and tune every later layer"
    return Drawing([Panel(title(setting, None), "", ACCURACY, bars, kind="bars")], rows, notes(results, note))
