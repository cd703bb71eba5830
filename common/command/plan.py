"""What a command has to do: which figures, which Runs they need, what is finished, what is left."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from common import splits
from common.data import datasets, lists
from common.data.datasets import Dataset, DataSpec
from common.drawing.figures import Figure, Published
from common.errors import InputError
from common.runs import Run, canonical
from common.store import Result, Store

PAPERS = ("lucir", "der", "feature_adaptation", "bbn", "class_balanced", "fsa")
IMAGES_PER_SECOND = {
    "resnet8-half": 3500.0,
    "resnet32": 100.0,
    "resnet32-pad": 100.0,
    "resnet32-avgpool": 80.0,
    "resnet18": 15.0,
    "resnet18-pool": 2.0,
    "resnet18-preact": 6.0,
    "resnet34": 8.0,
    "resnet10-imagenet": 10.0,
    "resnet18-imagenet": 6.0,
    "resnet50-imagenet": 2.0,
    "resnet50-default": 2.0,
    "resnet101-imagenet": 1.2,
    "resnet152-imagenet": 0.8,
    "resnet152-pretrained": 0.8,
}
"""A rough training rate of one CPU core in fp32, for estimates before anything has been measured here."""

PER_CLASS = {
    "imagenet": 1300,
    "imagenet-subset": 1300,
    "imagenet-100": 1300,
    "cifar10": 5000,
    "cifar20": 2500,
    **{name: images / classes for name, (classes, images, _) in lists.PUBLISHED.items()},
}
"""Training images a class, for estimates before the data are at hand."""


@dataclass
class Data:
    """The data sets a command can reach: opened once, with the reason where one cannot be."""

    root: Path | None
    cache: Path
    opened: dict[DataSpec, Dataset | InputError] = field(default_factory=dict)
    known: dict[DataSpec, str] = field(default_factory=dict)
    """Fingerprints found without decoding; a folder of large images is listed once."""

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
        if spec not in self.known:
            try:
                self.known[spec] = datasets.fingerprint(spec, self.root, self.cache) or ""
            except InputError as error:
                self.opened[spec] = error
                return ""
        return self.known[spec]

    def problem(self, run: Run) -> str:
        """Why `run`, or one it starts from, cannot be trained for want of data, or ""."""
        for each in run.chain:
            found = self.opened.get(each.data)
            if isinstance(found, InputError):
                return str(found)
            if found is not None:
                try:
                    class_counts(each, found)
                except ValueError as error:
                    return f"{found.name}: {error}"
        return ""


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
    skipped: list[tuple[Figure, str]]
    """Figures this command cannot or does not make, with the reason."""
    decode: bool = True
    any_copy: bool = False
    """Whether results on any copy of the data will do: for drawing from records where nothing is finished here."""

    def required(self, figure: Figure) -> Mapping[str, list[Run]]:
        """The figure's Runs by curve, on the data at hand."""
        return self._on_data(figure.runs(self.settings))

    def _on_data(self, groups: Mapping[str, list[Run]]) -> Mapping[str, list[Run]]:
        precision = "" if self.precision == "auto" else self.precision

        def content(spec: DataSpec) -> str:
            return "" if self.any_copy else self.data.fingerprint(spec, self.decode)

        return {name: [r.resolved(content, precision) for r in runs] for name, runs in groups.items()}

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

    def problems(self) -> list[str]:
        """Why some of the Runs cannot be trained for want of data, each reason once."""
        return [problem for problem in dict.fromkeys(map(self.data.problem, self.runs().values())) if problem]

    def results(self, figure: Figure, records: bool = True) -> tuple[dict[str, list[Result]], list[Run]]:
        """What is finished or recorded of a figure's required and optional Runs, and the required ones missing."""
        groups, missing = dict[str, list[Result]](), list[Run]()
        for name, runs in self.required(figure).items():
            found = [(run, self.find(run, records)) for run in runs]
            missing += [run for run, result in found if result is None]
            if results := [result for _, result in found if result]:
                groups[name] = results
        if missing and not groups:
            return {}, missing
        for name, runs in self._on_data(figure.optional(self.settings)).items():
            if results := [r for run in runs if (r := self.find(run, records))]:
                groups[name] = results
        return groups, missing

    def asked_in_vain(self, only: Sequence[str]) -> list[tuple[Figure, str]]:
        """Figures that --only names and this command cannot make, with the reason."""
        wanted = named([*self.figures, *(f for f, _ in self.skipped)], only, self.settings[0].preset)
        return [(f, why) for f, why in self.skipped if f.id in wanted]

    @property
    def published(self) -> Published:
        return published(self.paper)


@lru_cache
def published(paper: str) -> Published:
    """The paper's numbers, from the package's published.json; none for a package without that file."""
    path = Path(importlib.import_module(paper).__path__[0], "published.json")
    return Published.load(path) if path.exists() else Published({"title": paper}, {})


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
    """The plan of one paper. Raises InputError on an unknown preset or figure, or without data for any Run.

    decode: read the data sets, as training needs; listing and drawing do without, and take missing data for no error.
    Without it and without --data, records count whatever copy of the data they are of, unless a run is finished here.
    """
    presets = importlib.import_module(f"{paper}.reproduce.presets")
    figures = importlib.import_module(f"{paper}.reproduce.catalogue").FIGURES
    settings = presets.settings(preset, seeds, orders, epochs_scale)
    chosen, skipped = select(figures, only, preset)
    plan = Plan(paper, settings, chosen, store, data, precision, skipped, decode)
    runs = plan.runs().values()
    plan.any_copy = not decode and data.root is None and not any(plan.find(run, records=False) for run in runs)
    if decode and not all(plan.find(run, records=False) for run in runs) and all(data.problem(run) for run in runs):
        raise InputError("; ".join(plan.problems()))
    for run in plan.unfinished():
        check(run, data.opened.get(run.data))
    return plan


def named(figures: Sequence[Figure], only: Sequence[str], preset: str) -> set[str]:
    """The ids that words name: each an id of the preset, an id that a figure had before, or the beginning of some."""
    exact = {f.id for f in figures if preset in f.presets and {f.id, *f.formerly} & set(only)}
    known = {id for f in figures if f.id in exact for id in (f.id, *f.formerly)}
    begun = tuple(word for word in only if word and word not in known)
    return exact | {f.id for f in figures if f.id.startswith(begun)}


def select(
    figures: Sequence[Figure], only: Sequence[str], preset: str
) -> tuple[list[Figure], list[tuple[Figure, str]]]:
    """(figures to make, figures left out with the reason): those of a preset, or those that `only` names.

    A word of `only` is an id of the preset, or else the beginning of some.
    Raises InputError where a word fits no figure, or all fit another preset only.
    """
    for word in only:
        if not named(figures, [word], preset):
            raise InputError(f"unknown figure {word!r}; choose from {' '.join(f.id for f in figures)}")
        for figure in figures:
            if word in figure.formerly:
                warnings.warn(f"figure {word} is now {figure.id}", stacklevel=2)
    wanted = named(figures, only, preset)
    chosen: list[Figure] = []
    skipped: list[tuple[Figure, str]] = []
    for figure in figures:
        if preset not in figure.presets:
            skipped.append((figure, f"needs --preset {' or '.join(figure.presets)}"))
        elif only and figure.id not in wanted:
            skipped.append((figure, "not asked for"))
        elif figure.on_request and not only:
            skipped.append((figure, f"costly, on request: --only {figure.id}"))
        else:
            chosen.append(figure)
    if not chosen:
        asked = [(f, reason) for f, reason in skipped if f.id in wanted]
        raise InputError("; ".join(f"{figure.id} {reason}" for figure, reason in asked))
    return chosen, skipped


def class_counts(run: Run, dataset: Dataset) -> np.ndarray:
    """Training images of every class that a Run sees, in the data set's order. ValueError where there are too few."""
    available = np.bincount(dataset.train_labels, minlength=len(dataset.classes))
    tail = run.longtail
    return splits.longtail_sizes(available, tail.imbalance, tail.profile) if tail else available


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
    small = isinstance(dataset.train_images, np.ndarray)
    if small != (run.inputs.kind == "crop-flip"):
        size = "small images (up to 64 pixels)" if small else "large images"
        raise InputError(f"{dataset.name} has {size}, which {run.inputs.kind} inputs are not for; check --data")
    if run.longtail and sum(sizes) < len(dataset.classes):
        raise InputError(f"a long-tailed run is on all of the {len(dataset.classes)} classes, not on {sum(sizes)}")
    counts = class_counts(run, dataset)
    asked, smallest = run.protocol.exemplars_per_class or 0, int(counts.argmin())
    if asked > counts[smallest]:
        raise InputError(
            f"{asked} exemplars per class asked for, but class {dataset.classes[smallest]!r} has {counts[smallest]} "
            "training images; ask for fewer, or give a total budget, which is capped"
        )


def cost(run: Run, dataset: Dataset | InputError | None) -> int:
    """Training images of a Run over all epochs, without those of the Run it starts from.

    A method that trains on no images says itself what it costs (`work`). One that counts iterations has `steps`, those
    it calls an epoch. `branches`: how many images are taken for each one of an epoch (BBN's two samplers).
    """
    if hasattr(run.method, "work"):
        return run.method.work(run.protocol)
    if steps := getattr(run.method, "steps", 0):
        return run.schedule.epochs * steps * run.schedule.batch
    protocol, total = run.protocol, 0
    if isinstance(dataset, Dataset):
        per_class = float(class_counts(run, dataset).mean())
    else:
        per_class = float(run.data.per_class or PER_CLASS.get(run.data.name, 500))
        if tail := run.longtail:
            classes = sum(protocol.sizes)
            per_class = float(splits.longtail_counts(classes, int(per_class), tail.imbalance, tail.profile).mean())
    seen = 0
    finetune = getattr(run.method, "finetune", None)
    for index, size in enumerate(protocol.sizes):
        quota = protocol.exemplars_per_class
        kept = quota if quota is not None else (protocol.exemplars_total or 0) / max(seen, 1)
        if not (run.start and index == 0 and len(protocol.sizes) > 1):  # the start has trained the base phase
            total += run.schedule.epochs * int(size * per_class + (kept * seen if seen else 0))
        seen += size
        if finetune and index:
            total += finetune.epochs * int(kept * seen)
    return total * getattr(run.method, "branches", 1)


def seconds_left(runs: Sequence[Run], costs: Sequence[int], results: Sequence[Result], jobs: int) -> float:
    """Estimate for training `runs`: from finished runs of a method on the same network, else a rough default.

    A method whose runs others draw from a cache says in `feeds` how many images a second they take of it.
    """

    def kind(config: dict) -> tuple[str, str, str]:
        return config["network"], config["method"]["type"], (config.get("start") or config)["method"]["type"]

    total = 0.0
    for run, images in zip(runs, costs, strict=True):
        found = [r for r in results if kind(r.config) == kind(canonical(run))]
        measured = [rate for r in found if (rate := r.environment.get("images_per_second"))]
        rough = IMAGES_PER_SECOND.get(run.network, 100.0)
        if run.start:
            rough = getattr(run.start.method, "feeds", rough)
        total += images / (median(measured) if measured else rough)
    return total / jobs
