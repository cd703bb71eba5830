"""What a command has to do: which figures, which Runs they need, what is finished, what is left. No torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from common import datasets, splits
from common.datasets import Dataset, DataSpec
from common.errors import InputError
from common.figures import Figure, Published
from common.runs import Run
from common.store import Result, Store

PAPERS = ("lucir",)
IMAGES_PER_SECOND = {"resnet8-half": 3500.0, "resnet32": 300.0, "resnet18-imagenet": 6.0}
"""A rough training rate of one CPU core, for estimates before anything has been measured here."""


@dataclass
class Data:
    """The data sets a command can reach: opened once, with the reason where one cannot be."""

    root: Path | None
    cache: Path
    opened: dict[DataSpec, Dataset | InputError] = field(default_factory=dict)

    def open(self, spec: DataSpec) -> Dataset | InputError:
        if spec not in self.opened:
            try:
                self.opened[spec] = datasets.load(spec, self.root, self.cache)
            except InputError as error:
                self.opened[spec] = error
        return self.opened[spec]

    def fingerprint(self, spec: DataSpec, decode: bool) -> str:
        """Of the data set; "" where it cannot be had, or not without decoding when that is not asked for."""
        if decode or spec in self.opened:
            found = self.open(spec)
            return "" if isinstance(found, InputError) else found.fingerprint
        try:
            return datasets.fingerprint(spec, self.root, self.cache) or ""
        except InputError as error:
            self.opened[spec] = error
            return ""

    def problems(self) -> list[str]:
        """Why data sets that were looked for are not there."""
        return [str(found) for found in self.opened.values() if isinstance(found, InputError)]

    def problem(self, run: Run) -> str:
        """Why `run` cannot be trained for want of data, or ""."""
        found = self.opened.get(run.data)
        return str(found) if isinstance(found, InputError) else ""


@dataclass
class Plan:
    """One paper's figures under one setting, and the Runs behind them."""

    paper: str
    settings: tuple[Any, ...]
    figures: list[Figure]
    store: Store
    data: Data
    precision: str
    """The precision asked for; auto accepts finished runs in any."""
    decode: bool = True

    def required(self, figure: Figure) -> Mapping[str, list[Run]]:
        """The figure's Runs by curve, on the data at hand."""
        return self._on_data(figure.runs(self.settings))

    def _on_data(self, groups: Mapping[str, list[Run]]) -> Mapping[str, list[Run]]:
        precision = "" if self.precision == "auto" else self.precision
        return {
            name: [r.resolved(self.data.fingerprint(r.data, self.decode), precision) for r in runs]
            for name, runs in groups.items()
        }

    def find(self, run: Run, records: bool = True) -> Result | None:
        return self.store.find(run, records)

    def runs(self) -> dict[str, Run]:
        """Every Run the figures need, by key, in the figures' order."""
        found: dict[str, Run] = {}
        for figure in self.figures:
            for runs in self.required(figure).values():
                found |= {run.key: run for run in runs if run.key not in found}
        return found

    def unfinished(self) -> list[Run]:
        """The Runs to train: not finished here, and their data at hand. Committed records do not count as finished."""
        return [r for r in self.runs().values() if not self.find(r, records=False) and not self.data.problem(r)]

    def results(self, figure: Figure) -> tuple[dict[str, list[Result]], list[Run]]:
        """What is finished of a figure's required and optional Runs, and the required ones that are missing."""
        groups, missing = dict[str, list[Result]](), list[Run]()
        for name, runs in self.required(figure).items():
            found = [(run, self.find(run)) for run in runs]
            missing += [run for run, result in found if result is None]
            if results := [result for _, result in found if result]:
                groups[name] = results
        if not groups:
            return {}, missing
        for name, runs in self._on_data(figure.optional(self.settings)).items():
            if results := [r for r in map(self.find, runs) if r]:
                groups[name] = results
        return groups, missing

    @property
    def published(self) -> Published:
        return importlib.import_module(f"{self.paper}.figures").PUBLISHED


def make_plan(
    paper: str,
    preset: str,
    only: Sequence[str],
    seeds: Sequence[int] | None,
    orders: Sequence[str] | None,
    epochs_scale: float,
    store: Store,
    data: Data,
    precision: str,
    decode: bool,
) -> Plan:
    """The plan of one paper. Raises InputError on an unknown preset or figure, or without data for any Run."""
    experiments = importlib.import_module(f"{paper}.experiments")
    figures = importlib.import_module(f"{paper}.figures").FIGURES
    settings = experiments.settings(preset, seeds, orders, epochs_scale)
    plan = Plan(paper, settings, select(figures, only, preset), store, data, precision, decode)
    runs = list(plan.runs().values())
    problems = {run.data.name: p for run in runs if (p := data.problem(run))}
    if problems and all(data.problem(run) and not plan.find(run) for run in runs):
        raise InputError("; ".join(problems.values()))
    for run in plan.unfinished():
        check(run, data.opened.get(run.data))
    return plan


def select(figures: Sequence[Figure], only: Sequence[str], preset: str) -> list[Figure]:
    """The figures of a preset; with `only`, those whose ids begin with one of its words.

    Raises InputError where a word fits no figure, or only figures of another preset.
    """
    if not only:
        return [f for f in figures if preset in f.presets and not f.on_request]
    chosen: list[Figure] = []
    for word in only:
        named = [f for f in figures if f.id.startswith(word)]
        fitting = [f for f in named if preset in f.presets]
        if not named:
            raise InputError(f"unknown figure {word!r}; choose from {' '.join(f.id for f in figures)}")
        if not fitting:
            raise InputError(f"{word} needs --preset {' or '.join(named[0].presets)}")
        chosen += [f for f in fitting if f not in chosen]
    return chosen


def check(run: Run, dataset: Dataset | InputError | None) -> None:
    """Find bad input before any training: phases that do not divide, K, exemplars. Raises InputError."""
    try:
        sizes = run.protocol.sizes
        splits.named_order(run.order, sum(sizes))
        if hasattr(run.method, "check"):
            run.method.check(run.protocol)
    except ValueError as error:
        raise InputError(str(error)) from None
    if not isinstance(dataset, Dataset):
        return
    if sum(sizes) > len(dataset.classes):
        raise InputError(
            f"the protocol has {sum(sizes)} classes but {dataset.name} has {len(dataset.classes)}; use another preset"
        )
    counts = np.bincount(dataset.train_labels, minlength=len(dataset.classes))
    asked, smallest = run.protocol.exemplars_per_class or 0, int(counts.argmin())
    if asked > counts[smallest]:
        raise InputError(
            f"{asked} exemplars per class asked for, but class {dataset.classes[smallest]!r} has {counts[smallest]} "
            "training images; ask for fewer, or give a total budget, which is capped"
        )


def cost(run: Run, dataset: Dataset | InputError | None) -> int:
    """Training images of a Run over all epochs, without those of the Run it starts from."""
    protocol, total = run.protocol, 0
    if isinstance(dataset, Dataset):
        per_class = len(dataset.train_labels) / len(dataset.classes)
    else:
        per_class = run.data.per_class or (1300 if run.data.name.startswith("imagenet") else 500)
    seen = 0
    finetune = getattr(run.method, "finetune", None)
    for index, size in enumerate(protocol.sizes):
        quota = protocol.exemplars_per_class
        kept = quota if quota is not None else (protocol.exemplars_total or 0) / max(seen, 1)
        if not (run.start and index == 0):
            total += run.schedule.epochs * int(size * per_class + (kept * seen if seen else 0))
        seen += size
        if finetune and index:
            total += finetune.epochs * int((quota if quota is not None else 0) * seen or protocol.exemplars_total or 0)
    return total


def seconds_left(runs: Sequence[Run], costs: Sequence[int], results: Sequence[Result], jobs: int) -> float:
    """Estimate for training `runs`: from the rates of finished runs of the same network, else a rough default."""
    total = 0.0
    for run, images in zip(runs, costs, strict=True):
        rates = [r.environment.get("images_per_second") for r in results if r.config["network"] == run.network]
        measured = [rate for rate in rates if rate]
        total += images / (median(measured) if measured else IMAGES_PER_SECOND.get(run.network, 100.0))
    return total / jobs
