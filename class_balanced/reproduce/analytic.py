"""Draw the figures that follow from formulas and class sizes alone. They need no runs and no data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from class_balanced.reproduce.presets import BETAS, CIFAR_SCHEDULE, FACTORS, Setting
from common.drawing.curves import across
from common.drawing.figures import Comparison, Curve, Drawing, Panel, PublishedFigure, Results, computed
from common.imbalance import class_weights, effective_number
from common.splits import longtail_counts

SETS = {"CIFAR-10-LT": (10, 5000), "CIFAR-20-LT": (20, 2500), "CIFAR-100-LT": (100, 500)}
"""(number of classes, images of the largest class) of each data set."""
IMAGES = "images of the class"
INDEX = "class, head to tail"


def beta_name(beta: float) -> str:
    """Return the name of a curve for one beta."""
    return f"beta = {beta:g}"


def line(name: str, x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, legend: str = "") -> Curve:
    """Return a curve from sequences or arrays."""
    return Curve(name, np.asarray(x).tolist(), np.asarray(y).tolist(), legend=legend)


def class_balanced_term(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 3: the class-balanced term 1 / E_n against the number of images of the class."""
    n = np.unique(np.logspace(0, 4, 60).astype(int))
    curves = [line(beta_name(b), n, 1 / effective_number(n, b)) for b in (0.0, *BETAS)]
    panel = Panel("", IMAGES, "class-balanced term 1 / E_n", curves, x_log=True, y_log=True, y_range=(8e-5, 1.3))
    return Drawing([panel], note="beta = 0: no re-weighting; beta near 1: the inverse of the number of images")


def class_sizes(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 4: the number of images of every class of CIFAR-100-LT."""
    classes, most = SETS["CIFAR-100-LT"]
    curves = [line(f"factor {f:g}", range(classes), longtail_counts(classes, most, f)) for f in FACTORS[::-1]]
    return Drawing([Panel("CIFAR-100-LT", INDEX, "training images", curves)])


def effective_numbers(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 6: the number of images and the effective number of every class, at factor 50."""
    panels, rows = [], []
    for name, figure in (("CIFAR-10-LT", "fig6-cifar10-lt"), ("CIFAR-100-LT", "fig6-cifar100-lt")):
        counts = longtail_counts(*SETS[name], 50)
        index = range(len(counts))
        curves = [line("number of images n", index, counts)]
        curves += [line(beta_name(b), index, effective_number(counts, b)) for b in BETAS]
        if series := published.figure(figure).series("number of samples n"):
            curves.append(Curve("number of images n", series["x"], series["y"], published=True))
            pairs = zip(series["y"], counts, strict=True)
            rows += [
                Comparison(f"images of class {i}", name, y, series["provenance"], computed(n), tolerance=0.0)
                for i, (y, n) in enumerate(pairs)
            ]
        panels.append(Panel(f"{name}, factor 50", INDEX, "n and effective number E_n", curves, y_log=True))
    return Drawing(panels, rows)


def limits(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw both limits of E_n: n as beta goes to 1, and N = 1 / (1 - beta) as n grows."""
    volumes, sizes = np.logspace(0, 7, 71), (5, 50, 500, 5000)
    ends = [float(volumes[0]), float(volumes[-1])]
    near_one = [line(f"n = {n}", volumes, [effective_number([n], 1 - 1 / v)[0] for v in volumes]) for n in sizes]
    near_one += [across("limit", ends, n, "E_n = n" if n == sizes[0] else "") for n in sizes]
    n = np.unique(np.logspace(0, 6, 61).astype(int))
    many = [line(beta_name(b), n, effective_number(n, b), f"N = {1 / (1 - b):.0f}") for b in BETAS]
    many += [across("limit", [1, int(n[-1])], 1 / (1 - b), "E_n = N" if b == BETAS[0] else "") for b in BETAS]
    many.append(Curve("all new", [1, 20_000], [1, 20_000], reference=True, legend="E_n = n"))
    label = "effective number E_n"
    return Drawing(
        [
            Panel("n fixed, beta to 1", "N = 1 / (1 - beta)", label, near_one, x_log=True, y_log=True),
            Panel("beta fixed, n to infinity", IMAGES, label, many, x_log=True, y_log=True),
        ],
        note="E_n never exceeds n or N; it is N that must be large, not n, for the effective number to equal n",
    )


def weights(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw what beta does to the size of a step: the mean weight of an image, and the learning rate of its class."""
    betas, labels = (0.0, *BETAS), ["0", *(f"{b:g}" for b in BETAS)]
    scale, rates = [], []
    for name in ("CIFAR-10-LT", "CIFAR-100-LT"):
        curves = []
        for factor in FACTORS[::-1]:
            counts = longtail_counts(*SETS[name], factor)
            curves.append(Curve(f"factor {factor:g}", labels, [mean_weight(counts, b) for b in betas]))
        scale.append(Panel(name, "beta", "mean weight of a training image", curves, y_range=(0, 1.05)))
        counts = longtail_counts(*SETS[name], 100)
        of_class = np.array([CIFAR_SCHEDULE.lr * class_weights(counts, b) for b in betas])
        mean = [CIFAR_SCHEDULE.lr * mean_weight(counts, b) for b in betas]
        lines = {"smallest class": of_class[:, -1], "mean image": mean, "largest class": of_class[:, 0]}
        curves = [Curve(k, labels, np.asarray(v).tolist()) for k, v in lines.items()]
        rates.append(Panel(f"{name}, factor 100", "beta", "learning rate x weight", curves, y_log=True))
    note = (
        "the loss is summed over the batch and divided by its size, so its mean weight scales the step, while weight "
        f"decay stays; learning rate {CIFAR_SCHEDULE.lr:g}; dividing by the sum of weights makes the mean weight 1"
    )
    return Drawing([*scale, *rates], note=note)


def mean_weight(counts: Sequence[int] | np.ndarray, beta: float) -> float:
    """Return the mean class weight of a training image: the sum of n_i alpha_i over the sum of n_i."""
    return float(np.average(class_weights(counts, beta), weights=counts))


def data_sets(settings: Sequence[Setting], results: Results, published: PublishedFigure) -> Drawing:
    """Draw Table 1: the data sets. The numbers of iNaturalist and ILSVRC come from finished runs, if there are any."""
    factors = (1.0, *FACTORS[::-1])
    labels, totals, ratios = [f"{f:g}" for f in factors], [], []
    for name, (classes, most) in SETS.items():
        counts = [longtail_counts(classes, most, f) for f in factors]
        totals.append(Curve(name, labels, [int(c.sum()) for c in counts], legend=f"{classes} classes"))
        ratios.append(Curve(name, labels, [float(c[0] / c[-1]) for c in counts]))
    ratios.append(Curve("the factor", labels, factors, reference=True, legend="as named"))
    rows = []
    for name in ("iNaturalist 2017", "iNaturalist 2018", "ILSVRC 2012"):
        series = published.series(name)
        assert series is not None
        seen = [r.values["summary"]["counts"] for r in results.get(name, [])[:1]]
        ours = [(len(c), sum(c), round(max(c) / min(c), 2)) for c in seen]  # as printed
        for i, (quantity, value) in enumerate(zip(series["x"], series["y"], strict=True)):
            found = computed(ours[0][i]) if ours else None
            rows.append(Comparison(quantity, name, value, series["provenance"], found, tolerance=0.0))
    return Drawing(
        [
            Panel("long-tailed CIFAR", "imbalance factor", "training images", totals),
            Panel("long-tailed CIFAR", "imbalance factor", "largest / smallest class", ratios, y_log=True),
        ],
        rows,
        "numbers of images are truncated, so that factor 200 is 250 on CIFAR-100 and 208 on CIFAR-20",
    )
