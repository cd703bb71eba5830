"""Draws scatter plots of features, and activation maps on images, from the summaries of `Survey` runs."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np

from common.data.names import PUBLISHED
from common.drawing.figures import Comparison, Curve, Drawing, Panel, PublishedFigure, Results, estimate
from common.store import Result
from fsa.reproduce.figures import title
from fsa.reproduce.presets import Setting

EMBEDDED = "t-SNE of cosine distances; only nearness within a panel means something"


def class_name(s: Setting, label: int) -> str:
    """Return a class's name for legends. Data sets with a published name have the published labels (see `assign`)."""
    return PUBLISHED[s.data.name][label] if s.data.name in PUBLISHED else f"class {label}"


def class_names(s: Setting, labels: Sequence[int]) -> str:
    """Return the names of several classes, for a panel's title or a row of the report."""
    if s.data.name not in PUBLISHED:
        return f"classes {', '.join(map(str, labels))}"
    return ", ".join(class_name(s, label) for label in labels)


def points(s: Setting, name: str, result: Result, part: str) -> Panel:
    """Return a scatter plot of a survey's test features, with a colour for each class."""
    summary = result.values["summary"]
    labels, where = np.array(summary["labels"]), np.array(summary["scatter"][part])
    colours = [Curve(class_name(s, int(c)), *where[labels == c].T.tolist()) for c in dict.fromkeys(labels.tolist())]
    return Panel(name, "", "", colours, kind="scatter")


def measured(results: Results, key: str, quantity: str, names: tuple[str, ...]) -> list[Comparison]:
    """Return rows with the number `key` of the summary, for each survey and each part of the features."""
    return [
        Comparison(
            f"{quantity}, {part}", name, None, "", estimate([r.values["summary"][key][part] for r in found]), 0.0
        )
        for name, found in results.items()
        for part in names
    ]


def motivation(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 3: features of four classes.

    One class has few training images in the left panel. The right panel has all images of every class.
    """
    panels = [points(s, name, found[0], "whole") for name, found in results.items()]
    rows = measured(results, "neighbours", "class of the 5 nearest (% right)", ("whole",))
    return Drawing(panels, rows, f"{title(s, s.factor)}; test images; {EMBEDDED}")


def parts(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw Fig. 4, 11 and 12: class-specific and class-generic features of a few classes."""
    results = {class_names(s, classes): found for classes, found in results.items()}
    panels = []
    for name, found in results.items():
        words = name if len(results) > 1 else ""
        panels += [points(s, f"{part} {words}".strip(), found[0], part) for part in ("specific", "generic")]
    names = ("whole", "specific", "generic", "specific, predicted class", "generic, predicted class")
    rows = measured(results, "neighbours", "class of the 5 nearest (% right)", names)
    rows += measured(results, "similarity", "mean cosine between class means", names)
    note = (
        f"{title(s, s.factor)}; test images; the true class picks the locations, which by itself pulls "
        f"classes apart: the report has the numbers with the predicted class too; {EMBEDDED}"
    )
    return Drawing(panels, rows, note)


def augmented(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw augmented features of a tail class with its training images, its test images and the donors."""
    panels, rows = [], []
    for found in results.values():
        tail = found[0].values["summary"]["tail"]
        kinds, where = np.array(tail["kinds"]), np.array(tail["points"])
        drawn = [
            Curve(
                kind, where[kinds == kind, 0].tolist(), where[kinds == kind, 1].tolist(), reference=i == 0, legend=" "
            )
            for i, kind in enumerate(dict.fromkeys(kinds.tolist()))
        ]
        donors = class_names(s, tail["donors"])
        name = class_name(s, tail["class"])
        panels.append(Panel(f"{name}; donors: {donors}", "", "", drawn, kind="scatter"))
        for kind in ("training images", "augmented", "donors, head classes"):
            values = [r.values["summary"]["tail"]["distance"][kind] for r in found]
            quantity = f"cosine distance from a test image to the nearest, {name}"
            rows.append(Comparison(quantity, kind, None, "", estimate(values), 0.0))
    return Drawing(panels, rows, f"{title(s, s.factor)}; {EMBEDDED}")


def overlays(s: Setting, results: Results, published: PublishedFigure) -> Drawing:
    """Draw test images with the activation map of their own class, from the largest class to the smallest."""
    pictures = next(iter(results.values()))[0].values["summary"]["pictures"]
    config = next(iter(results.values()))[0].config["method"]["fsa"]
    columns = [_column(p, config["tau_specific"], config["tau_generic"]) for p in pictures]
    names = [class_name(s, p["label"]) for p in pictures]
    wrong = [f"\nas {class_name(s, p['guess'])}" if p["guess"] != p["label"] else "" for p in pictures]
    panel = Panel(
        title(s, s.factor),
        "class, from head to tail",
        "",
        kind="picture",
        matrix=np.concatenate(columns, axis=1),
        rows=("image", "activation", "specific", "generic"),
        columns=[name + guess for name, guess in zip(names, wrong, strict=True)],
    )
    note = "the map before pooling, enlarged; specific and generic: what its thresholds keep; as ...: a wrong guess"
    return Drawing([panel], [], note)


def _column(picture: dict, tau_specific: float, tau_generic: float) -> np.ndarray:
    """Return a column of four pictures, RGB [4 * (h + 1), w + 1, 3], with white lines between them.

    The pictures are the image, the image with its map, and its class-specific and class-generic locations.
    """
    image, cam = np.array(picture["image"], dtype=float), np.array(picture["cam"])
    size = len(image)
    places = (np.arange(size) * len(cam) // size, np.arange(size) * len(cam[0]) // size)
    large = cam[np.ix_(*places)]
    heat = 255 * matplotlib.colormaps["inferno"](_smooth(cam, size))[..., :3]
    masks = [np.where(mask[..., None], image, 235.0) for mask in (large > tau_specific, large < tau_generic)]
    cells = [image, 0.45 * image + 0.55 * heat, *masks]
    return np.concatenate([np.pad(c, ((0, 1), (0, 1), (0, 0)), constant_values=255) for c in cells])


def _smooth(cam: np.ndarray, size: int) -> np.ndarray:
    """Enlarge a map bilinearly to [size, size], with pixel centres aligned."""
    for axis in (0, 1):
        old = (np.arange(size) + 0.5) * cam.shape[axis] / size - 0.5
        known = np.arange(cam.shape[axis])
        cam = np.apply_along_axis(lambda v, old=old, known=known: np.interp(old, known, v), axis, cam)
    return cam
