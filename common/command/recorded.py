"""With which options figures can be drawn, where those of a command name no run that is finished or recorded."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace

from common.command.plan import Choice, Plan


def recorded(plan: Plan) -> list[str]:
    """Options for which runs of the plan's figures are at hand, such as "--seeds 1993 --epochs-scale 0.05"."""
    return [_words(order, scale, seeds) for (order, scale), seeds in at_hand(plan).items()]


def choices(plan: Plan) -> list[Choice]:
    """The choices under which runs of the plan's figures are at hand, one for each length of the schedules.

    Where some runs have a class order of their own, seeds and orders are combined as --seeds and --orders are: pairs
    that were never run are missing then.
    """
    found: dict[float, list[tuple[str, int]]] = {}
    for (order, scale), seeds in at_hand(plan).items():
        found.setdefault(scale, []).extend((order, seed) for seed in seeds)
    return [_choice(plan.choice, scale, pairs) for scale, pairs in found.items()]


def _choice(choice: Choice, scale: float, pairs: list[tuple[str, int]]) -> Choice:
    named = any(order for order, _ in pairs)
    orders = tuple(dict.fromkeys(order or str(seed) for order, seed in pairs)) if named else ()
    seeds = tuple(dict.fromkeys(seed for _, seed in pairs))
    return replace(choice, epochs_scale=scale, seeds=seeds, orders=orders)


def at_hand(plan: Plan) -> dict[tuple[str, float], list[int]]:
    """The seeds of runs that are at hand, by class order ("": that of the seed) and length of schedules."""
    found: dict[tuple[str, float], list[int]] = {}
    for order, seed, ratio in sorted(set(_candidates(plan))):
        for scale in dict.fromkeys(float(f"{ratio:.{digits}g}") for digits in (1, 2, 3)):  # epochs are rounded
            if _at_hand(plan, order, seed, scale):
                found.setdefault((order, scale), []).append(seed)
                break
    return found


def _candidates(plan: Plan) -> Iterator[tuple[str, int, float]]:
    """(class order, seed, epochs as a multiple of the preset's) of every run of the paper here and in the records.

    The order is "" where it is that of the seed, or of the data set.
    """
    store, paper = plan.store, plan.paper
    settings = importlib.import_module(f"{paper}.reproduce.presets").settings(plan.choice.preset, None, None, 1.0)
    here = [result for folder in store.runs.glob("*/") if (result := store.sound(folder.name))]
    for result in [*here, *filter(None, map(store.record, store.records.values()))]:
        config = first = result.config
        while first.get("start"):
            first = first["start"]
        for setting in settings:
            if (config["paper"], first["data"]["name"]) == (paper, setting.data.name) and setting.schedule.epochs:
                order = "" if config["order"] in ("native", str(config["seed"])) else config["order"]
                yield order, config["seed"], first["schedule"]["epochs"] / setting.schedule.epochs


def _at_hand(plan: Plan, order: str, seed: int, scale: float) -> bool:
    """Whether any Run of the plan's figures is finished or recorded with these options."""
    presets = importlib.import_module(f"{plan.paper}.reproduce.presets")
    settings = presets.settings(plan.choice.preset, (seed,), (order,) if order else None, scale)
    precision = "" if plan.precision == "auto" else plan.precision
    known = {name[:12] for name in (*plan.store.records, *(folder.name for folder in plan.store.runs.glob("*/")))}
    runs = {run.key: run for figure in plan.figures for group in figure.runs(settings).values() for run in group}
    return any(plan.find(plan.resolved(runs[key], precision)) for key in runs.keys() & known)


def _words(order: str, scale: float, seeds: list[int]) -> str:
    words = [f"--seeds {' '.join(map(str, seeds))}"]
    words += [f"--orders {order}"] if order else []
    words += [f"--epochs-scale {scale:g}"] if scale != 1 else []
    return " ".join(words)
