"""Finds the seeds, class orders and schedule lengths for which a plan's figures have finished runs or records."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from common.command.plan import Choice, Plan
from common.runs import KEY


def recorded(plan: Plan) -> list[str]:
    """Return the options that name runs at hand for the plan's figures, such as "--seeds 1993 --epochs-scale 0.05"."""
    return [_words(order, scale, seeds) for (order, scale), seeds in at_hand(plan).items()]


def choices(plan: Plan) -> list[Choice]:
    """Return the plan's choice with the seeds and orders of the runs at hand, once for each length of the schedules.

    If some class orders differ from those of their seeds, the choice combines every order with every seed, as --orders
    and --seeds do. Some of these pairs may never have been run; their runs then count as missing.
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
    """Return the seeds of the runs at hand by (class order, epochs scale). Order "" is the one that the seed sets."""
    found: dict[tuple[str, float], list[int]] = {}
    keys = {name[:KEY] for name in (*plan.store.records, *plan.store.hashes())}
    for order, seed, ratio in sorted(set(_candidates(plan))):
        for scale in dict.fromkeys(float(f"{ratio:.{digits}g}") for digits in (1, 2, 3)):  # epochs are rounded
            if _at_hand(plan, keys, order, seed, scale):
                found.setdefault((order, scale), []).append(seed)
                break
    return found


def _candidates(plan: Plan) -> Iterator[tuple[str, int, float]]:
    """Yield (class order, seed, epochs as a multiple of the preset's) for every finished or recorded run of the paper.

    The order is "" if it is the one that the seed sets, or the data set's own.
    """
    store, paper = plan.store, plan.paper
    settings = importlib.import_module(f"{paper}.reproduce.presets").settings(plan.choice.preset, None, None, 1.0)
    here = map(store.load_or_note, store.hashes())
    for result in filter(None, chain(here, map(store.record, store.records.values()))):
        config = first = result.config
        while first.get("start"):
            first = first["start"]
        for setting in settings:
            if (config["paper"], first["data"]["name"]) == (paper, setting.data.name) and setting.schedule.epochs:
                order = "" if config["order"] in ("native", str(config["seed"])) else config["order"]
                yield order, config["seed"], first["schedule"]["epochs"] / setting.schedule.epochs


def _at_hand(plan: Plan, keys: set[str], order: str, seed: int, scale: float) -> bool:
    """Return whether any Run of the plan's figures is finished or recorded with these options, as one of `keys`."""
    presets = importlib.import_module(f"{plan.paper}.reproduce.presets")
    settings = presets.settings(plan.choice.preset, (seed,), (order,) if order else None, scale)
    precision = "" if plan.precision == "auto" else plan.precision
    runs = (run for figure in plan.figures for group in figure.runs(settings).values() for run in group)
    return any(plan.find(plan.resolved(run, precision)) for run in runs if run.key in keys)


def _words(order: str, scale: float, seeds: list[int]) -> str:
    words = [f"--seeds {' '.join(map(str, seeds))}"]
    words += [f"--orders {order}"] if order else []
    words += [f"--epochs-scale {scale:g}"] if scale != 1 else []
    return " ".join(words)
