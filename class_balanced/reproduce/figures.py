"""Draw each figure that needs trained runs, from finished Runs and from what the paper prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from class_balanced.reproduce.presets import Setting
from class_balanced.reproduce.tables import ERROR, GRIDS, cell_row, data_name, error, mean_error, printed_name
from common.data.names import FOLDER
from common.drawing.curves import across, by_epoch, class_bars, mean_curve, paired, published_points, through
from common.drawing.figures import Comparison, Curve, Drawing, Estimate, Panel, PublishedFigure, Results, estimate
from common.metrics import class_accuracies
from common.store import Result

INDEX = "classes, head to tail"
SHOTS = {"many": "many (> 100 images)", "medium": "medium (20-100)", "few": "few (< 20)"}
"""Groups of classes by their number of training images."""
GAIN = "last minus best test epoch (points)"


def legend_of(s: Setting, name: str) -> tuple[str, str]:
    """Return (method, options) of a row of the grid, for legends.

    Focal_1.0_0.9 is ("CB focal", "gamma 1, beta 0.9").
    """
    model = s.models()[name]
    words = [f"gamma {model.gamma:g}"] if model.loss == "focal" else []
    words += [f"beta {model.beta:g}"] if model.beta else []
    return f"CB {model.loss}" if model.beta else model.loss.capitalize(), ", ".join(words)


def panel_title(s: Setting, factor: float | None) -> str:
    """Return a panel's title: the data set and its imbalance factor."""
    return f"{data_name(s)}, factor {factor:g}" if factor else data_name(s)


def over_beta(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 5: error against beta for three class-balanced losses, and what choosing the test epoch would gain."""
    models, betas = s.beta_models(), [f"{b:g}" for b in s.betas]
    curves, gains, rows, gain_rows = list[Curve](), list[Curve](), list[Comparison](), list[Comparison]()
    for loss in dict.fromkeys(model.loss for model in models.values()):
        names = [name for name, model in models.items() if model.loss == loss]
        plain, *weighted = line = [cell_row(s, results, published, name, s.factor) for name in names]
        if plain.ours:
            curves.append(across(f"CB {loss}", betas, plain.ours.mean, "base loss"))
        if any(row.ours for row in weighted):
            curves.append(through(f"CB {loss}", betas, [row.ours for row in weighted]))
        curves += published_points(f"CB {loss}", betas, [row.published for row in weighted])
        gain = {name: selection_bias(results.get((name, s.factor))) for name in names}
        gains.append(through(f"CB {loss}", ["0", *betas], list(gain.values())))
        rows += line
        gain_rows += [Comparison(GAIN, name, None, "", e) for name, e in gain.items() if e]
    top = 1.1 * max([0.9, *(y for curve in gains for y in curve.y)])
    panels = [
        Panel(panel_title(s, s.factor), "beta", ERROR, curves),
        Panel("what choosing the test epoch would gain", "beta", GAIN, gains, kind="bars", y_range=(0, top)),
    ]
    note = (
        f"dashed across, and beta 0: the loss without class weights; focal loss: gamma {s.gammas[0]:g}; "
        f"tested every {s.test_every} epochs"
    )
    return Drawing(panels, [*rows, *gain_rows], note)


def selection_bias(found: Sequence[Result] | None) -> Estimate | None:
    """Return how far the last epoch's error lies above the error at the best tested epoch.

    The last epoch is always tested.
    """
    return estimate([max(by_epoch(r).values()) - r.readout("cnn")["accuracy"] for r in found]) if found else None


def errors_over_epochs(found: Sequence[Result], method: str, legend: str = "") -> Curve:
    """Return the curve of the test error over the epochs that were tested, the mean of the repeats."""
    lines = [by_epoch(r) for r in found]
    return mean_curve(method, list(lines[0]), [[100 - v for v in line.values()] for line in lines], legend)


def losses_over_epochs(found: Sequence[Result], method: str, legend: str = "") -> Curve:
    """Return the curve of the training loss over all epochs: the mean of the repeats."""
    traces = [r.values["trace"] for r in found]
    return mean_curve(method, traces[0]["epoch"], [trace["loss"] for trace in traces], legend)


def training(s: Setting, results: Results, names: Iterable[str], factor: float | None) -> list[Panel]:
    """Draw test error and training loss over epochs."""
    found = {name: group for name in names if (group := results.get((name, factor)))}
    tested, losses = (
        [over_epochs(group, *legend_of(s, name)) for name, group in found.items()]
        for over_epochs in (errors_over_epochs, losses_over_epochs)
    )
    return [
        Panel(panel_title(s, factor), "epoch", ERROR, tested),
        Panel("training", "epoch", "training loss", losses, y_log=True),
    ]


def loss_curves(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw training loss and test error of each loss, without and with class weights."""
    rerun = published.figure(f"official-rerun-{s.role}-lt")
    rows = [
        Comparison(
            f"{ERROR}; published: authors' re-run",
            name,
            *rerun.value(printed_name(model), s.factor),
            mean_error(results.get((name, s.factor))),
        )
        for name, model in s.curve_models().items()
    ]
    note = "training losses of sigmoid and focal are sums over the classes"
    return Drawing(training(s, results, s.curve_models(), s.factor), rows, note)


def closeup(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw a few cells of the grid: error at the end and over training, and accuracy and weight norm of each class."""
    factor = s.closeup_factor
    axis = "class" if s.preset == FOLDER else INDEX  # classes of a folder are in the order of their names
    found = {name: group for name in s.closeup if (group := results.get((name, factor)))}
    rows = [cell_row(s, results, published, name, factor) for name in found]
    labels = [" ".join(filter(None, legend_of(s, name))) for name in found]
    bars = [through("last epoch", labels, [row.ours for row in rows])]
    bars += published_points("last epoch", labels, [row.published for row in rows])
    accuracy, norms = list[Curve](), list[Curve]()
    for name, group in found.items():
        method, legend = legend_of(s, name)
        lines = [class_accuracies(r.confusion("cnn")).tolist() for r in group]
        accuracy.append(class_bars(method, lines, legend))
        norms.append(class_bars(method, [r.values["summary"]["norms"] for r in group], legend))
        rows += [Comparison(f"accuracy (%), {k}", name, None, "", e) for k, e in shot_accuracies(group).items()]
    panels = [
        Panel(panel_title(s, factor), "", ERROR, bars, kind="bars"),
        *training(s, results, found, factor),
        Panel("accuracy by groups of classes", axis, "mean accuracy of the classes (%)", accuracy, kind="bars"),
        Panel("last layer", axis, "mean L2 norm of the classes' weights", norms, kind="bars"),
    ]
    return Drawing(panels, rows)


def shot_accuracies(found: Sequence[Result]) -> dict[str, Estimate]:
    """Return the accuracy on classes with many, medium and few training images. A group without classes is left out."""
    values = {label: [r.readout("cnn")[k] for r in found if k in r.readout("cnn")] for k, label in SHOTS.items()}
    return {label: estimate(v) for label, v in values.items() if v}


def reductions(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw CB softmax against beta, with losses divided by the batch size, and by the sum of their weights."""
    factor, models = s.closeup_factor, s.softmax_models()
    plain = [name for name, model in models.items() if not model.beta]  # without weights both reductions are the same
    lines, rows = [], []
    for label, reduction in (("over the batch size", "batch"), ("over the sum of weights", "weighted_mean")):
        groups = {name: results.get((name, "batch" if name in plain else reduction)) for name in models}
        ends = {name: e for name, group in groups.items() if (e := mean_error(group))}
        lines.append(through(label, [f"{models[name].beta:g}" for name in ends], list(ends.values())))
        for name, e in ends.items():
            printed = published.figure(GRIDS[s.role]).value(name, factor) if reduction == "batch" else (None, "")
            rows.append(Comparison(ERROR, f"{name}, {label}", *printed, e))
    for name in models:
        pairs = paired([results.get((name, reduction), []) for reduction in ("weighted_mean", "batch")])
        if gaps := [error(a) - error(b) for a, b in zip(*pairs, strict=True)]:
            quantity = "over the sum of weights - over the batch size (points, paired by seed)"
            rows.append(Comparison(quantity, name, None, "", estimate(gaps)))
    note = "the sum of weighted losses is divided by the batch size (official code) or by the sum of weights (PyTorch)"
    return Drawing([Panel(panel_title(s, factor), "beta", ERROR, lines)], rows, note)


def baselines(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Compare the baselines of long-tailed papers with a few class-balanced cells, on one network and schedule."""
    cells = {(name, s.closeup_factor): name for name in s.closeup}
    groups = {name: found for name, found in results.items() if name not in cells}
    groups |= {name: results[key] for key, name in cells.items() if s.models()[name].beta and results.get(key)}
    end = {name: estimate([error(r) for r in found]) for name, found in groups.items()}
    parts = {name: shot_accuracies(found) for name, found in groups.items()}
    rows = [Comparison(ERROR, name, None, "", e) for name, e in end.items()]
    rows += [Comparison(f"accuracy (%), {k}", n, None, "", e) for n, found in parts.items() for k, e in found.items()]
    labels = dict.fromkeys(label for found in parts.values() for label in found)
    split = [through(label, list(parts), [found.get(label) for found in parts.values()]) for label in labels]
    whole = through("all classes", list(end), list(end.values()))
    panels = [
        Panel(panel_title(s, s.closeup_factor), "", ERROR, [whole], kind="bars"),
        Panel("by training images of the class", "", "accuracy (%)", split, kind="bars"),
    ]
    note = (
        f"RW and DRW weigh by effective number, beta {s.betas[-1]:g}, over the sum of weights; all on this "
        "paper's network and schedule"
    )
    return Drawing(panels, rows, note)


def resnet50(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 7: validation error of ResNet-50 over epochs, for softmax and class-balanced focal loss."""
    lines = [errors_over_epochs(found, loss) for loss, found in results.items()]
    rows = [Comparison("top-1 error (%)", loss, None, "", mean_error(found)) for loss, found in results.items()]
    return Drawing([Panel(f"{data_name(s)}, ResNet-50", "epoch", "validation error (%)", lines)], rows)
