"""One function per figure of trained runs: Results to a Drawing. No torch, no training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from class_balanced import experiments as ex
from class_balanced.experiments import cell
from class_balanced.presets import Setting
from class_balanced.published import PUBLISHED, printed_name, published_error
from class_balanced.tables import ERROR, data_name, error, errors
from common.curves import Results, mean_curve, paired
from common.figures import Comparison, Curve, Drawing, Estimate, Panel, comparable, estimate
from common.metrics import class_accuracies
from common.store import Result

__all__ = ["PUBLISHED"]  # where the report looks for the paper

INDEX = "class, head to tail"
SHOTS = {"many": "many (> 100 images)", "medium": "medium (20-100)", "few": "few (< 20)"}
"""Groups of classes by their training images."""


def shown(setting: Setting, name: str) -> tuple[str, str]:
    """(method, its settings) of a row of the grid, for legends: Focal_1.0_0.9 is (CB focal, gamma 1, beta 0.9)."""
    model = setting.models()[name]
    settings = [f"gamma {model.gamma:g}"] if model.loss == "focal" else []
    settings += [f"beta {model.beta:g}"] if model.beta else []
    return f"CB {model.loss}" if model.beta else model.loss.capitalize(), ", ".join(settings)


def means(name: str, x: Sequence[str], found: Sequence[Estimate]) -> Curve:
    """A bar or point for each Estimate, with its interval."""
    return Curve(name, x, [e.mean for e in found], [e.interval for e in found], max((e.n for e in found), default=1))


def fig5(setting: Setting, results: Results) -> Drawing:
    """Fig. 5: error against beta of three class-balanced losses, their base losses as lines across."""
    models, names, factor = setting.models(), ex.fig5_names(setting), setting.fig5
    curves, rows = list[Curve](), list[Comparison]()
    for base in [n for n in names if not models[n].beta]:
        line = [n for n in names if replace(models[n], beta=0.0) == models[base]]
        found = [errors(results.get(cell(n, factor))) for n in line]
        rows += [
            Comparison(ERROR, n, *published_error(setting, n, factor), e) for n, e in zip(line, found, strict=True)
        ]
        method, betas = f"CB {models[base].loss}", [f"{b:g}" for b in setting.betas]
        if found[0]:
            curves.append(Curve(method, betas, [found[0].mean] * len(betas), reference=True, legend="base loss"))
        if known := [(b, e) for b, e in zip(betas, found[1:], strict=True) if e]:
            curves.append(means(method, [b for b, _ in known], [e for _, e in known]))
        if comparable(setting):
            curves.append(
                Curve(method, betas, [row.published or np.nan for row in rows[-len(betas) :]], published=True)
            )
    panel = Panel(f"{data_name(setting)}, factor {factor:g}", "beta", ERROR, curves)
    note = f"dashed across: the loss without class weights; focal loss: gamma {setting.gammas[0]:g}"
    return Drawing([panel], rows, note)


def over_epochs(found: Sequence[Result], key: str, method: str, legend: str = "") -> Curve:
    """A column of the trace at the epochs where it was measured, the mean of the repeats; accuracy as error."""
    traces = [r.values["trace"] for r in found]
    epochs = [e for e, v in zip(traces[0]["epoch"], traces[0][key], strict=True) if v is not None]
    lines = [[100 - v if key == "test_accuracy" else v for v in t[key] if v is not None] for t in traces]
    return mean_curve(method, epochs, lines, legend)


def training(setting: Setting, results: Results, names: Sequence[str], factor: float) -> list[Panel]:
    """Test error and training loss over epochs."""
    head = f"{data_name(setting)}, factor {factor:g}"
    return [
        Panel(
            title,
            "epoch",
            label,
            [over_epochs(r, key, *shown(setting, n)) for n in names if (r := results.get(cell(n, factor)))],
            y_log=key == "loss",
        )
        for title, key, label in ((head, "test_accuracy", ERROR), ("training", "loss", "training loss"))
    ]


def curves(setting: Setting, results: Results) -> Drawing:
    """Loss curves: training loss and test error of each loss without and with class weights."""
    figure, factor, models = f"official-rerun-{setting.role}-lt", setting.fig5, setting.models()
    rows = [
        Comparison(
            f"{ERROR}; published: authors' re-run",
            name,
            *PUBLISHED.value(figure, printed_name(models[name]), factor),
            errors(results.get(cell(name, factor))),
        )
        for name in ex.curves_names(setting)
    ]
    note = "training losses of sigmoid and focal are sums over the classes"
    return Drawing(training(setting, results, ex.curves_names(setting), factor), rows, note)


def cells(setting: Setting, results: Results) -> Drawing:
    """Chosen cells of the grid: error at the end beside the published one, and over training."""
    factor, names = setting.chosen
    here = {n: found for n in names if (found := errors(results.get(cell(n, factor))))}
    rows = [Comparison(ERROR, n, *published_error(setting, n, factor), found) for n, found in here.items()]
    columns = [means("at the end", list(here), list(here.values()))]
    if comparable(setting):
        columns.append(Curve("at the end", list(here), [row.published or np.nan for row in rows], published=True))
    end = Panel(f"{data_name(setting)}, factor {factor:g}", "", ERROR, columns, kind="bars")
    return Drawing([end, *training(setting, results, names, factor)], rows)


def classes(setting: Setting, results: Results) -> Drawing:
    """Accuracy and weight norm of every class, head to tail; accuracy on classes of many, medium and few images."""
    (factor, names), index = setting.chosen, list(range(setting.classes))
    accuracy, norms, rows = list[Curve](), list[Curve](), list[Comparison]()
    for name in names:
        if not (found := results.get(cell(name, factor))):
            continue
        method, legend = shown(setting, name)
        lines = [class_accuracies(r.confusion("cnn")).tolist() for r in found]
        accuracy.append(mean_curve(method, index, lines, legend))
        norms.append(mean_curve(method, index, [r.values["summary"]["norms"] for r in found], legend))
        rows += [Comparison(f"accuracy (%), {k}", name, None, "", e) for k, e in shots(found).items()]
    head = Panel(f"{data_name(setting)}, factor {factor:g}", INDEX, "accuracy on the class (%)", accuracy)
    return Drawing([head, Panel("last layer", INDEX, "L2 norm of the class's weight", norms)], rows)


def shots(found: Sequence[Result]) -> dict[str, Estimate]:
    """Accuracy on classes of many, medium and few training images, where there are such."""
    values = {label: [r.readout("cnn")[k] for r in found if k in r.readout("cnn")] for k, label in SHOTS.items()}
    return {label: estimate(v) for label, v in values.items() if v}


def selection(setting: Setting, results: Results) -> Drawing:
    """Error at the last and at the best test epoch: what choosing on test data would gain."""
    last, least, gain = dict[str, Estimate](), dict[str, Estimate](), dict[str, Estimate]()
    for name in ex.fig5_names(setting):
        if found := results.get(cell(name, setting.fig5)):
            at_end, at_best = [error(r) for r in found], [100 - max(tested(r)) for r in found]
            last[name], least[name] = estimate(at_end), estimate(at_best)
            gain[name] = estimate([a - b for a, b in zip(at_end, at_best, strict=True)])
    names = list(last)
    both = [means("last epoch", names, list(last.values())), means("best test epoch", names, list(least.values()))]
    bias = means("last - best", names, list(gain.values()))
    rows = [Comparison("selection bias: last - best (points)", n, None, "", e) for n, e in gain.items()]
    panels = [
        Panel(f"{data_name(setting)}, factor {setting.fig5:g}", "", ERROR, both, kind="bars"),
        Panel("selection bias", "", "last - best (points)", [bias], "bars", y_range=(0, 1.1 * max([*bias.y, 0.9]))),
    ]
    note = f"tested every {setting.test_every} epochs; every other figure shows the last epoch"
    return Drawing(panels, rows, note)


def tested(result: Result) -> list[float]:
    """Test accuracies over training, that at the end among them."""
    found = [a for a in result.values["trace"]["test_accuracy"] if a is not None]
    return [*found, result.readout("cnn")["accuracy"]]


def reductions(setting: Setting, results: Results) -> Drawing:
    """CB softmax against beta: weighted losses over the batch size, and over the sum of their weights."""
    factor, models = setting.chosen[0], setting.models()
    names = [n for n in models if n.startswith("SM")]
    batch = {n: found for n in names if (found := results.get(cell(n, factor)))}
    mean = {n: found for n in names if (found := results.get(f"{n} mean"))}
    plain = {n: found for n, found in batch.items() if not models[n].beta}  # without weights both are one
    lines, rows = [], []
    for label, groups in (("over the batch size", batch), ("over the sum of weights", plain | mean)):
        ends = {n: estimate([error(r) for r in group]) for n, group in groups.items()}
        lines.append(means(label, [f"{models[n].beta:g}" for n in ends], list(ends.values())))
        for n, e in ends.items():
            value = published_error(setting, n, factor) if groups is batch else (None, "")
            rows.append(Comparison(ERROR, f"{n}, {label}", *value, e))
    for n in mean:
        gaps = [error(a) - error(b) for a, b in zip(*paired([mean[n], batch.get(n, [])]), strict=True)]
        if gaps:
            quantity = "over the sum of weights - over the batch size (points, paired by seed)"
            rows.append(Comparison(quantity, n, None, "", estimate(gaps)))
    panel = Panel(f"{data_name(setting)}, factor {factor:g}", "beta", ERROR, lines)
    note = "the sum of weighted losses is divided by the batch size (official code) or by the sum of weights (PyTorch)"
    return Drawing([panel], rows, note)


def baselines(setting: Setting, results: Results) -> Drawing:
    """What long-tailed papers compare with, and the chosen class-balanced cells, on one network and schedule."""
    factor, names = setting.chosen
    groups = {name: found for name in ex.baselines(setting) if (found := results.get(name))}
    weighted = [n for n in names if setting.models()[n].beta]
    groups |= {n: found for n in weighted if (found := results.get(cell(n, factor)))}
    end = {name: estimate([error(r) for r in found]) for name, found in groups.items()}
    parts = {name: shots(found) for name, found in groups.items()}
    rows = [Comparison(ERROR, name, None, "", e) for name, e in end.items()]
    rows += [Comparison(f"accuracy (%), {k}", n, None, "", e) for n, found in parts.items() for k, e in found.items()]
    split = [
        means(
            label, [n for n in parts if label in parts[n]], [found[label] for found in parts.values() if label in found]
        )
        for label in dict.fromkeys(k for found in parts.values() for k in found)
    ]
    head = f"{data_name(setting)}, factor {factor:g}"
    panels = [
        Panel(head, "", ERROR, [means("all classes", list(end), list(end.values()))], kind="bars"),
        Panel("by training images of the class", "", "accuracy (%)", split, kind="bars"),
    ]
    note = (
        f"RW and DRW weigh by effective number, beta {setting.betas[-1]:g}, over the sum of weights; all on this "
        "paper's network and schedule"
    )
    return Drawing(panels, rows, note)


def fig7(setting: Setting, results: Results) -> Drawing:
    """Fig. 7: validation error of ResNet-50 over epochs, softmax and class-balanced focal."""
    lines = [over_epochs(found, "test_accuracy", name.split(" (")[0]) for name, found in results.items()]
    rows = [Comparison("top-1 error (%)", name, None, "", errors(found)) for name, found in results.items()]
    return Drawing([Panel(f"{data_name(setting)}, ResNet-50", "epoch", "validation error (%)", lines)], rows)
