"""List every figure of the paper, in its order, then those that readers ask for: id, title, Runs, and what draws it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from common.data.names import FOLDER
from common.drawing.curves import AVERAGE
from common.drawing.effects import Sides, disagreements, headline
from common.drawing.figures import Figure, Runs, per_data
from common.drawing.looks import GREEN, GREY, INDIGO, OLIVE, ORANGE, PINK, WINE, declare
from common.runs import Run
from feature_adaptation.methods import Map, Oracle
from feature_adaptation.reproduce import figures as draw
from feature_adaptation.reproduce import questions as ask
from feature_adaptation.reproduce.presets import Setting

LOOKS = declare(
    (GREEN, "P", "FA (MLP)", "mlp", "predicted by the MLP"),
    (PINK, "v", "FA (no map)", "identity"),
    (WINE, ">", "FA hybrid", "fine-tuning", "residual"),
    (INDIGO, "X", "frozen extractor", "linear"),
    (ORANGE, "^", "true features", "true drift", "EEIL-style"),
    (OLIVE, "h", "LwF+FD", "own head", "sdc"),
    (GREY, "p", "LwF", "stored"),
    (GREY, "v", "LwF.MC"),
)

MAPS: tuple[Map, ...] = ("identity", "shift", "sdc", "linear", "residual", "mlp")


def lwf(s: Setting, task_size: int | None = None) -> list[Run]:
    """Return the Runs of LwF: stage 1 without feature distillation."""
    return s.stage1(task_size, features=0.0)


def frozen(s: Setting, task_size: int | None = None) -> list[Run]:
    """Return the Runs with the extractor of task 1 frozen.

    Kept features never go stale, so the identity map is exact.
    """
    return s.adapt(s.stage1(task_size, features=0.0, frozen=True, keep="features"), map="identity")


def memory(s: Setting) -> Runs:
    """Return the Runs of every method at every memory size, by (method, images a class, features a class)."""
    main = s.stage1()
    return {
        **{("FA (MLP)", 0, n): s.adapt(main, features_per_class=s.kept(n)) for n in s.features},
        **{("FA hybrid", p, n): s.adapt(s.stage1(images=p), features_per_class=n) for p, n in s.hybrids},
        **{("iCaRL", p, 0): s.icarl(p) for p in s.images},
        **{("LUCIR", p, 0): s.lucir(p) for p in s.lucir_images},
        ("EEIL-style", s.budget, 0): s.eeil(s.budget),
        ("LwF", 0, 0): lwf(s),
        ("LwF+FD", 0, 0): main,
    }


def main(s: Setting, task_size: int | None = None) -> Runs:
    """Return the Runs of the paper's method, no map, iCaRL and stage 1 alone (LwF+FD). task_size: classes a task."""
    task_size, stage1 = task_size or s.classes_per_task, s.stage1(task_size)
    return {
        ("FA (MLP)", task_size): s.adapt(stage1),
        ("FA (no map)", task_size): s.adapt(stage1, map="identity"),
        ("iCaRL", task_size): s.icarl(s.budget, task_size),
        ("LwF+FD", task_size): stage1,
    }


def oracle(s: Setting, name: Any, stage1: list[Run], **changes: Any) -> Runs:
    """Return the Runs of an `Oracle` under this name; none if stage 1 of the setting keeps no true features."""
    return {name: s.adapt(stage1, Oracle(), **changes)} if s.truth else {}


def tasks(s: Setting) -> Runs:
    """Return the Runs of every method at each number of classes a task."""
    runs: dict[Any, list[Run]] = {}
    for task_size in s.task_sizes:
        runs |= main(s, task_size)
        if s.every_method or task_size == s.classes_per_task:
            runs |= {
                **oracle(s, ("true features", task_size), s.stage1(task_size)),
                ("frozen extractor", task_size): frozen(s, task_size),
                ("LUCIR", task_size): s.lucir(s.budget, task_size),
                ("LwF", task_size): lwf(s, task_size),
                ("fine-tuning", task_size): s.stage1(task_size, features=0.0, distillation=0.0),
            }
    return {**runs, "joint": s.joint()}


def quality(s: Setting) -> Runs:
    """Return the Runs of the MLP and of no map, with and without feature distillation."""
    stages = {"with L_FD": s.stage1(), "without L_FD": lwf(s)}
    maps: tuple[Map, ...] = ("mlp", "identity")
    return {(m, name): s.adapt(runs, map=m) for name, runs in stages.items() for m in maps}


def gammas(s: Setting) -> Runs:
    """Return the Runs for each gamma: the network's own head, and maps. They test on held-out training images."""
    runs = dict[tuple[str, float], list[Run]]()
    for gamma in s.gammas:
        stage1 = s.stage1(features=gamma, holdout=0.1, keep="features")
        runs["own head", gamma] = stage1
        runs |= {(m, gamma): s.adapt(stage1, map=m) for m in s.gamma_maps}
    return runs


def alphas(s: Setting) -> Runs:
    """Return the Runs for each weight of L_sim. They test on held-out training images."""
    stage1 = s.stage1(holdout=0.1, keep="features")
    return {("mlp", alpha): s.adapt(stage1, alpha=alpha) for alpha in s.alphas}


def widths(s: Setting) -> Runs:
    """Return the Runs for each hidden size, with one and two hidden layers. They test on held-out training images."""
    stage1 = s.stage1(holdout=0.1, keep="features")
    wanted = [(1, e) for e in s.expansions] + [(2, e) for e in s.deep]
    return {(layers, e): s.adapt(stage1, hidden_layers=layers, expansion=e) for layers, e in wanted}


def distilled(s: Setting) -> Runs:
    """Return the Runs with L_KD and with L_KD + L_FD, for the network's own head and for adapted features."""
    stages = {"L_KD": lwf(s), "L_KD + L_FD": s.stage1()}
    heads = {("own head", name): runs for name, runs in stages.items()}
    return heads | {("FA (MLP)", name): s.adapt(runs) for name, runs in stages.items()}


def balance(s: Setting) -> Runs:
    """Return the Runs with balanced and with unbalanced sampling of classes.

    They differ where all current features train g~, since old classes then have fewer rows than new ones.
    """
    main, small = s.stage1(), s.small
    return {
        "kept rows": s.adapt(main, features_per_class=small),
        "all current, balanced": s.adapt(main, features_per_class=small, current="all"),
        "all current, unbalanced": s.adapt(main, features_per_class=small, current="all", balanced=False),
    }


def stage1(s: Setting) -> Runs:
    """Return the Runs of the network alone, as stages 2 and 3 find it."""
    return {"own head": s.stage1()}


def adapted(s: Setting) -> Runs:
    """Return the Runs of the paper's method on the network of `stage1`."""
    return {"FA (MLP)": s.adapt(s.stage1())}


def maps(s: Setting) -> Runs:
    """Return the Runs of every map on the same memory and pairs, and of two oracles."""
    main = s.stage1()
    return {
        **{name: s.adapt(main, map=name) for name in MAPS},
        "mlp, L_sim alone": s.adapt(main, alpha=None),
        **oracle(s, "mlp on true pairs", main, map="mlp-true-pairs"),
        **oracle(s, "true features", main),
    }


def sizes(s: Setting) -> Runs:
    """Return the Runs of maps at every memory size, all from one run of stage 1."""
    main, runs = s.stage1(), dict[Any, list[Run]]()
    names: tuple[Map, ...] = ("identity", "linear", "mlp") if s.every_method else ("mlp",)
    for count in s.features:
        kept = s.kept(count)
        runs |= {(name, count): s.adapt(main, map=name, features_per_class=kept) for name in names}
        runs |= oracle(s, ("true features", count), main, features_per_class=kept)
    return {**runs, "own head": main}


def drift(s: Setting) -> Runs:
    """Return the Runs of some of the maps."""
    return {name: runs for name, runs in maps(s).items() if name in ("identity", "sdc", "linear", "mlp")}


def anchors(s: Setting) -> Runs:
    """Return the Runs of iCaRL's Table 1a: LwF.MC, and iCaRL with 2,000 images in all.

    Stage 1 takes its hyper-parameters from iCaRL.
    """
    runs = {("LwF", task_size): lwf(s, task_size) for task_size in s.task_sizes}
    return runs | {("iCaRL", task_size): s.icarl(s.budget, task_size, total=True) for task_size in s.task_sizes}


def choices(s: Setting) -> Runs:
    """Return Runs that change one choice of stages 2 and 3 at a time, all on the same run of stage 1.

    The paper leaves these choices open.
    """
    changes: dict[str, dict[str, Any]] = {
        "default": {},
        "two hidden layers": {"hidden_layers": 2},
        "norms matched": {"norm": "match"},
        "norms as they come": {"norm": "none"},
        "sigmoid classifier": {"loss": "sigmoid"},
        "classifier from scratch": {"fresh": True},
        "all current features": {"current": "all"},
    }
    main = s.stage1()
    return {name: s.adapt(main, features_per_class=s.small, **change) for name, change in changes.items()}


def controls(s: Setting) -> Runs:
    """Return Runs that change one choice of stage 1 at a time. Stages 2 and 3 stay as they are.

    The paper leaves these choices open.
    """
    hybrid = s.stage1(images=s.hybrids[0][0])
    stages = {
        "default": s.stage1(),
        "mean over classes seen": s.stage1(nodes="seen", keep="features"),
        "softmax": s.stage1(loss="softmax", keep="features"),
        "the last ReLU kept": s.stage1(final_relu=True, keep="features"),
        "BatchNorm as task 1 left it": s.stage1(freeze_norms=True, keep="features"),
        "LwM's attention for L_FD": s.stage1(features=0.0, attention=0.1, keep="features"),
        "hybrid": hybrid,
    }
    runs = {name: s.adapt(runs, features_per_class=s.small) for name, runs in stages.items()}
    return {**runs, "hybrid, exemplars train the map": s.adapt(hybrid, features_per_class=s.small, exemplar_pairs=True)}


def claim(s: Setting) -> Sides:
    """Return the sides of the headline: a memory that the paper's map moves, and a memory that stays as it was."""
    stage1 = s.stage1()
    return {"FA (MLP)": s.adapt(stage1), "FA (no map)": s.adapt(stage1, map="identity")}


def unknowns(s: Setting) -> Mapping[str, Sides]:
    """Return the sides of each choice that the paper does not tell. Its code is not public.

    The second side is the default of this repository.
    """
    here = s.adapt(s.stage1())
    images, features = s.hybrids[0]
    hybrid = s.stage1(images=images)
    pairs = {"exemplars too": True, "current images": False}
    return {
        "sigmoid loss over": {"classes seen": s.adapt(s.stage1(nodes="seen")), "all classes": here},
        "pairs of the hybrid's map": {
            words: s.adapt(hybrid, features_per_class=features, exemplar_pairs=both) for words, both in pairs.items()
        },
        "norm of features": {"as they come": s.adapt(s.stage1(), norm="none"), "unit": here},
    }


LARGE = {"imagenet-subset": "ImageNet-100", "imagenet": "ImageNet-1000"}
large = partial(per_data, LARGE, presets=dict.fromkeys(LARGE, ("imagenet",)))

FIGURES: list[Figure] = [
    Figure("fig2", "Fig. 2: memory against accuracy", memory, draw.memory, formerly=("claim",)),
    *large("fig2", "Fig. 2: memory against accuracy", memory, draw.memory),
    Figure("fig3", "Fig. 3: accuracy against classes", tasks, draw.tasks, formerly=("orderings",)),
    *large("fig3", "Fig. 3: accuracy against classes", tasks, draw.tasks),
    Figure("table1", "Table 1: memory and average accuracy", memory, draw.memory_bars),
    *large("table1", "Table 1: memory and average accuracy", memory, draw.memory_bars),
    Figure("fig4", "Fig. 4: quality of feature adaptation", quality, draw.quality),
    Figure("fig5-gamma", "Fig. 5: sensitivity to gamma", gammas, draw.gammas),
    Figure("fig5-alpha", "Fig. 5: sensitivity to alpha", alphas, draw.alphas),
    Figure("fig6", "Fig. 6: sensitivity to the hidden size", widths, draw.widths, formerly=("fig5-hidden",)),
    Figure("table2", "Table 2: feature distillation", distilled, draw.distilled),
    Figure("table3", "Table 3: balanced feature classifier", balance, draw.balance),
    Figure("stage1", "Beyond the paper: what stage 1 forgets", stage1, ask.forgetting, extra=adapted),
    Figure(
        "maps", "Beyond the paper: every map, and accuracy against omega", maps, ask.maps, formerly=("map-orderings",)
    ),
    Figure("sizes", "Beyond the paper: every memory size from one stage 1", sizes, ask.sizes),
    Figure("drift", "Beyond the paper: true against predicted drift", drift, ask.drift),
    Figure("steps", "Beyond the paper: one step and all steps, old and current classes", maps, ask.steps),
    Figure("anchors", "Beyond the paper: LwF.MC and iCaRL against iCaRL's paper", anchors, ask.anchors, ("cifar",)),
    Figure("choices", "Beyond the paper: stages 2 and 3, what is open", choices, ask.choices, on_request=True),
    Figure("controls", "Beyond the paper: stage 1, what is open", controls, ask.controls, on_request=True),
    headline(claim, AVERAGE),
    disagreements(unknowns, AVERAGE),
]
OWN = [
    Figure("incremental", "Class-incremental accuracy", main, draw.tasks, (FOLDER,)),
    Figure("maps", "Every map, and accuracy against omega", maps, ask.maps, (FOLDER,)),
]
"""Figures for a folder of your own images."""
