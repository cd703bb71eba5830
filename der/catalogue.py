"""Every figure and table of the paper with the runs it needs, in the paper's order. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from common.curves import Results
from common.figures import Drawing, Figure, about
from common.runs import Run
from der import experiments as ex
from der.figures import ablation, bound, curves, small, statistics, table
from der.inside import channels, masks, silenced, transfer
from der.presets import Setting
from der.sweeps import sensitivity, sizes

Runs = Mapping[str, list[Run]]
IMAGENET100, IMAGENET = "imagenet-100", "imagenet"


def entry(
    id: str,
    title: str,
    runs: Callable[[Setting], Runs],
    draw: Callable[[Setting, Results], Drawing],
    data: str = "",
    presets: tuple[str, ...] = ("quick", "cifar"),
    optional: Callable[[Setting], Runs] = lambda setting: {},
    on_request: bool = False,
) -> Figure:
    """A Figure whose functions see the one setting they are about: of the imagenet preset's two, that on `data`."""
    presets = ("imagenet",) if data else presets
    return about(lambda s: data in ("", s.data.name), id, title, presets, runs, draw, optional, on_request)


def curve(steps: int, base: bool) -> Figure:
    """Accuracy after every step on CIFAR-100; the other methods are drawn where Tables 1 and 2 have run them."""
    id = f"curve_cifar100_{'b50' if base else 'b0'}_{steps}"
    title = f"Curve: {'half of the classes as base' if base else 'no base'}, {steps} steps"
    return entry(
        id,
        title,
        lambda s: ex.both(s, steps, base),
        lambda s, r: curves(s, r, id, f"{steps} steps"),
        presets=("quick", "cifar") if steps <= 5 else ("cifar",),
        optional=lambda s: ex.all_of(s, steps, base),
    )


def photos(id: str, title: str, data: str, base: bool) -> Figure:
    """Table 3 on one data set: every method over 10 steps."""
    entries = (f"{id}_top1", f"{id}_top5")
    return entry(id, title, lambda s: ex.all_of(s, 10, base), lambda s, r: statistics(s, r, entries, base), data=data)


def photo_curve(id: str, title: str, data: str, base: bool, readout: str) -> Figure:
    """DER's curve on ImageNet beside the official one."""
    return entry(id, title, lambda s: ex.both(s, 10, base), lambda s, r: curves(s, r, id, "10 steps", readout), data)


FIGURES: list[Figure] = [
    entry("fig1", "Fig. 1: accuracy against parameters", ex.sparsities, sizes, optional=ex.baselines),
    entry("table1", "Table 1: no base", ex.table1, lambda s, r: table(s, r, "table1", s.b0, False)),
    entry("table2", "Table 2: a base of half the classes", ex.table2, lambda s, r: table(s, r, "table2", s.b50, True)),
    photos("table3_imagenet100", "Table 3: ImageNet-100", IMAGENET100, False),
    photos("table3_imagenet1000", "Table 3: ImageNet-1000", IMAGENET, False),
    photos("imagenet100_b50", "ImageNet-100, a base of 50 classes", IMAGENET100, True),
    *(curve(n, False) for n in (5, 10, 20, 50)),
    *(curve(n, True) for n in (2, 5, 10)),
    photo_curve("curve_imagenet100_b0_10", "Curve: ImageNet-100, no base", IMAGENET100, False, "top5"),
    photo_curve("curve_imagenet1000_b0_10", "Curve: ImageNet-1000, no base", IMAGENET, False, "top5"),
    photo_curve("curve_imagenet100_b50_10", "Curve: ImageNet-100, a base of 50 classes", IMAGENET100, True, "cnn"),
    entry("ablation_b0_10", "Ablation: expansion, auxiliary loss, masks", ex.ablation, ablation),
    entry("transfer_b0_10", "Forward and backward transfer", ex.transfer, transfer),
    entry("sensitivity", "Sensitivity to lambda_a and lambda_s", ex.sensitivity, sensitivity),
    entry("table7_resnet32", "Table 7 (appendix): a smaller extractor", ex.small, small),
    entry("masks", "Readers: learned masks against random channels", ex.masks, masks),
    entry("channels", "Readers: channels kept per layer and step", ex.pruned, channels),
    entry("silenced", "Readers: which extractor serves which classes", lambda s: ex.both(s, s.steps), silenced),
    entry("bound", "Bound: joint training (on request)", ex.bound, bound, on_request=True),
]  # fmt: skip
