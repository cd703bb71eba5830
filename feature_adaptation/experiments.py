"""The Runs behind each figure: experiments are data. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.runs import Run
from feature_adaptation.methods import Map, Oracle
from feature_adaptation.presets import Setting

MAPS: tuple[Map, ...] = ("identity", "shift", "sdc", "linear", "residual", "mlp")
Runs = Mapping[str, list[Run]]


def memory(s: Setting) -> Runs:
    """Fig. 2 and Table 1: one point a memory size and method."""
    main = s.stage1()
    runs = {f"FA {count}": s.adapt(main, features_per_class=s.kept(count)) for count in s.features}
    for images, features in s.hybrids:
        runs[f"hybrid {images} {features}"] = s.adapt(s.stage1(images=images), features_per_class=features)
    for images in s.images:
        runs[f"iCaRL {images}"] = s.icarl(images)
    for images in s.lucir_images:
        runs[f"LUCIR {images}"] = s.lucir(images)
    return {**runs, f"EEIL {s.budget}": s.eeil(s.budget), "LwF": lwf(s), "LwF+FD": main}


def lwf(s: Setting, step: int | None = None) -> list[Run]:
    return s.stage1(step, features=0.0)


def finetuning(s: Setting, step: int | None = None) -> list[Run]:
    return s.stage1(step, features=0.0, distillation=0.0)


def frozen(s: Setting, step: int | None = None) -> list[Run]:
    """The extractor of task 1 for ever: kept features never go stale, so the identity is exact."""
    return s.adapt(s.stage1(step, features=0.0, frozen=True, keep="features"), map="identity")


def tasks(s: Setting) -> Runs:
    """Fig. 3: every method at each number of classes a task."""
    runs: dict[str, list[Run]] = {}
    for step in s.steps:
        main = s.stage1(step)
        runs |= {
            f"FA (MLP) {step}": s.adapt(main),
            f"FA (no map) {step}": s.adapt(main, map="identity"),
            f"iCaRL {step}": s.icarl(s.budget, step),
            f"LwF+FD {step}": main,
        }
        if s.every_method or step == s.step:
            runs |= {
                f"true features {step}": s.adapt(main, Oracle()),
                f"frozen extractor {step}": frozen(s, step),
                f"LUCIR {step}": s.lucir(s.budget, step),
                f"LwF {step}": lwf(s, step),
                f"fine-tuning {step}": finetuning(s, step),
            }
    return {**runs, "joint": s.joint()}


def anchors(s: Setting) -> Runs:
    """iCaRL's Table 1a: LwF.MC and iCaRL, whose hyper-parameters stage 1 takes over, with its 2,000 images in all."""
    runs = {f"LwF {step}": lwf(s, step) for step in s.steps}
    return runs | {f"iCaRL {step}": s.icarl(s.budget, step, total=True) for step in s.steps}


def quality(s: Setting) -> Runs:
    """Fig. 4: omega of the MLP, and of no map at all, with and without feature distillation."""
    stages = {"with L_FD": s.stage1(), "without L_FD": lwf(s)}
    return {f"{m} {name}": s.adapt(runs, map=m) for name, runs in stages.items() for m in ("mlp", "identity")}


def gammas(s: Setting) -> Runs:
    """Fig. 5 (gamma), on held-out training images: the network's own head, no map, and maps."""
    runs = {}
    for gamma in s.gammas:
        stage1 = s.stage1(features=gamma, holdout=0.1, keep="features")
        runs[f"head {gamma:g}"] = stage1
        runs |= {f"{name} {gamma:g}": s.adapt(stage1, map=name) for name in s.gamma_maps}
    return runs


def validated(s: Setting) -> list[Run]:
    return s.stage1(holdout=0.1, keep="features")


def alphas(s: Setting) -> Runs:
    """Fig. 5 (alpha), on held-out training images."""
    return {str(alpha): s.adapt(validated(s), alpha=alpha) for alpha in s.alphas}


def widths(s: Setting) -> Runs:
    """Fig. 6 (hidden size), on held-out training images: one and two hidden layers."""
    stage1 = validated(s)
    runs = {f"1 {expansion}": s.adapt(stage1, expansion=expansion) for expansion in s.expansions}
    return runs | {f"2 {e}": s.adapt(stage1, hidden_layers=2, expansion=e) for e in s.deep}


def distilled(s: Setting) -> Runs:
    """Table 2: L_KD and L_KD + L_FD, for the network's head and for adapted features."""
    stages = {"L_KD": lwf(s), "L_KD + L_FD": s.stage1()}
    heads = {f"head {name}": runs for name, runs in stages.items()}
    return heads | {f"FA {name}": s.adapt(runs) for name, runs in stages.items()}


def _small(s: Setting) -> dict[str, Any]:
    return {"features_per_class": s.small}


def balance(s: Setting) -> Runs:
    """Table 3: classes drawn alike or by their rows, which differ where all current features train g~ too."""
    main, small = s.stage1(), _small(s)
    return {
        "kept rows": s.adapt(main, **small),
        "all current, balanced": s.adapt(main, **small, current="all"),
        "all current, unbalanced": s.adapt(main, **small, current="all", balanced=False),
    }


def maps(s: Setting) -> Runs:
    """Every map on the same memory and pairs, and two oracles."""
    main = s.stage1()
    runs: dict[str, list[Run]] = {name: s.adapt(main, map=name) for name in MAPS}
    runs["mlp, L_sim alone"] = s.adapt(main, alpha=None)
    runs["mlp on true pairs"] = s.adapt(main, Oracle(map="mlp-true-pairs"))
    return {**runs, "true features": s.adapt(main, Oracle())}


def sizes(s: Setting) -> Runs:
    """Maps at every memory size, all from one run of stage 1."""
    main, runs = s.stage1(), dict[str, list[Run]]()
    names: tuple[Map, ...] = ("identity", "linear", "mlp") if s.every_method else ("mlp",)
    for count in s.features:
        kept = s.kept(count)
        runs |= {f"{name} {count}": s.adapt(main, map=name, features_per_class=kept) for name in names}
        runs[f"true features {count}"] = s.adapt(main, Oracle(), features_per_class=kept)
    return {**runs, "own head": main}


def stage1(s: Setting) -> Runs:
    """The network alone, as stages 2 and 3 find it."""
    return {"own head": s.stage1()}


def adapted(s: Setting) -> Runs:
    return {"FA (MLP)": s.adapt(s.stage1())}


def drift(s: Setting) -> Runs:
    """True against predicted drift: some maps of `maps`."""
    return {name: runs for name, runs in maps(s).items() if name in ("identity", "sdc", "linear", "mlp")}


def choices(s: Setting) -> Runs:
    """What the paper leaves open in stages 2 and 3, one choice changed at a time, on the same run of stage 1."""
    main, small = s.stage1(), _small(s)
    return {
        "default": s.adapt(main, **small),
        "two hidden layers": s.adapt(main, **small, hidden_layers=2),
        "norms matched": s.adapt(main, **small, norm="match"),
        "norms as they come": s.adapt(main, **small, norm="none"),
        "sigmoid classifier": s.adapt(main, **small, loss="sigmoid"),
        "classifier from scratch": s.adapt(main, **small, fresh=True),
        "all current features": s.adapt(main, **small, current="all"),
    }


def controls(s: Setting) -> Runs:
    """What the paper leaves open in stage 1, one choice changed at a time; stages 2 and 3 as ever."""
    small = _small(s)
    hybrid = s.stage1(images=s.hybrids[0][0])
    stages = {
        "default": s.stage1(),
        "rate of iCaRL, 2.0": s.at_rate(2.0),
        "softmax": s.stage1(loss="softmax", keep="features"),
        "the last ReLU kept": s.stage1(final_relu=True, keep="features"),
        "BatchNorm as task 1 left it": s.stage1(freeze_norms=True, keep="features"),
        "LwM's attention for L_FD": s.stage1(features=0.0, attention=0.1, keep="features"),
        "hybrid": hybrid,
    }
    runs = {name: s.adapt(runs, **small) for name, runs in stages.items()}
    return {**runs, "hybrid, exemplars train the map": s.adapt(hybrid, **small, exemplar_pairs=True)}
