"""What a command has to do: which figures, which Runs they need, what is finished, what is left."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from common import splits
from common.command.own import Folder, Options
from common.command.smallest import refuse_lone_images
from common.data import datasets
from common.data.datasets import Dataset, DataSpec
from common.data.names import FOLDER
from common.drawing.figures import Figure, Published, Results, Runs
from common.drawing.looks import SHARED, Looks
from common.errors import InputError
from common.runs import Run
from common.store import Result, Store

PAPERS = ("lucir", "der", "feature_adaptation", "bbn", "class_balanced", "fsa")
Copy = Literal["read", "known", "any"]
"""Which copy of a data set a Run is on. read: the one at hand, read as training needs; known: that one, where its
fingerprint is known without decoding, else any; any."""


@dataclass(frozen=True)
class Choice(Options):
    """Which figures to make, and of which runs."""

    preset: str = "quick"
    """quick (embedded data, minutes, no download), cifar (the paper's schedule), imagenet (image folders) or folder
    (images of one's own, at the paper's schedule)."""
    only: tuple[str, ...] = ()
    """Figure ids, such as fig5c, or their beginnings, such as fig3; default: every figure of the preset."""
    seeds: tuple[int, ...] = ()
    """Seeds of initialisation and batch order; without --orders each also chooses its class order."""
    orders: tuple[str, ...] = ()
    """Class orders: seeds of the shuffle, or names of published orders."""
    epochs_scale: float = 1.0
    """Shortens or stretches every schedule; what it made is labelled."""
    list: bool = False
    """Print figures, runs, what is finished and what is left to train, and train nothing."""
    draw: bool = False
    """Draw from finished runs and committed records, and train nothing."""

    @property
    def trains(self) -> bool:
        return not (self.list or self.draw)


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

    def fingerprint(self, spec: DataSpec, copy: Copy) -> str:
        """Of the copy that counts; "" for any."""
        if copy == "any":
            return ""
        if copy == "read" or spec in self.opened:
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
    """One paper's figures as a command chooses them, and the Runs behind them."""

    paper: str
    choice: Choice
    settings: tuple[Any, ...]
    figures: list[Figure]
    skipped: list[tuple[Figure, str]]
    """Figures this command cannot or does not make, with the reason."""
    store: Store
    data: Data
    precision: str = "auto"
    """The precision asked for; auto accepts finished runs in any."""
    copy: Copy = "read"
    _required: dict[str, Runs] = field(default_factory=dict, init=False)

    def required(self, figure: Figure) -> Runs:
        """The figure's Runs by curve, on the copy of the data that counts."""
        if figure.id not in self._required:
            self._required[figure.id] = self._resolved(figure.runs(self.settings))
        return self._required[figure.id]

    def _resolved(self, groups: Runs) -> Runs:
        precision = "" if self.precision == "auto" else self.precision
        return {name: [self.resolved(run, precision) for run in runs] for name, runs in groups.items()}

    def resolved(self, run: Run, precision: str) -> Run:
        """The Run on the copy of the data that counts."""
        return run.resolved(lambda spec: self.data.fingerprint(spec, self.copy), precision)

    def runs(self) -> dict[str, Run]:
        """Every Run the figures need, by key, in the figures' order."""
        found: dict[str, Run] = {}
        for figure in self.figures:
            for runs in self.required(figure).values():
                found |= {run.key: run for run in runs if run.key not in found}
        return found

    def find(self, run: Run) -> Result | None:
        """The Run finished here, else its committed record."""
        return self.store.find(run)

    def finished(self, run: Run) -> str:
        """The hash of the Run where it is finished here, else ""; a committed record does not count."""
        return self.store.finished(run)

    def unfinished(self) -> list[Run]:
        """The Runs to train: not finished here, and their data at hand."""
        return [run for run in self.runs().values() if not self.finished(run) and not self.data.problem(run)]

    def problems(self) -> list[str]:
        """Why some of the Runs cannot be trained for want of data, each reason once."""
        return [problem for problem in dict.fromkeys(map(self.data.problem, self.runs().values())) if problem]

    def complete(self, figure: Figure) -> bool:
        """Whether every Run that the figure needs is finished here."""
        return all(self.finished(run) for runs in self.required(figure).values() for run in runs)

    def results(self, figure: Figure) -> tuple[Results, list[Run]]:
        """What is finished or recorded of a figure's required and optional Runs, and the required ones missing."""
        found, missing = dict[Any, list[Result]](), list[Run]()
        for name, runs in self.required(figure).items():
            pairs = [(run, self.find(run)) for run in runs]
            missing += [run for run, result in pairs if not result]
            if results := [result for _, result in pairs if result]:
                found[name] = results
        if missing and not found:
            return {}, missing
        for name, runs in self._resolved(figure.optional(self.settings)).items():
            if results := [result for run in runs if (result := self.find(run))]:
                found[name] = results
        return found, missing

    def asked_in_vain(self) -> list[tuple[Figure, str]]:
        """Figures that --only names and this command cannot make, with the reason."""
        wanted = named([*self.figures, *(f for f, _ in self.skipped)], self.choice.only, self.choice.preset)
        return [(f, why) for f, why in self.skipped if f.id in wanted]

    def title(self, figure: Figure) -> str:
        """The figure's title, which may name the paper's data, and that they are glyphs where they are."""
        glyphs = any(run.data.name == "glyphs" for runs in self.required(figure).values() for run in runs)
        return f"{figure.title} (on glyphs)" if glyphs else figure.title

    @property
    def prog(self) -> str:
        """What python is called with to make this plan again."""
        return f"-m {self.paper}.reproduce"

    @property
    def published(self) -> Published:
        return published(self.paper)

    @property
    def looks(self) -> Looks:
        """Colours and markers of methods: those that packages share, and what this one declares."""
        return {**SHARED, **getattr(importlib.import_module(f"{self.paper}.reproduce.catalogue"), "LOOKS", {})}


@lru_cache
def published(paper: str) -> Published:
    """The paper's numbers, from the package's published.json; none for a package without that file."""
    path = Path(importlib.import_module(paper).__path__[0], "published.json")
    return Published.load(path) if path.exists() else Published({"title": paper}, {})


def make_plan(paper: str, choice: Choice, store: Store, data: Data, precision: str = "auto") -> Plan:
    """The plan of one paper. Raises InputError on an unknown preset or figure, or without data for any Run.

    Only training reads the data sets; listing and drawing take missing data for no error. Without --data they count
    records on whatever copy of the data, unless a run is finished here on the known one.
    """
    settings, catalogue = settings_of(paper, choice, data), importlib.import_module(f"{paper}.reproduce.catalogue")
    figures = catalogue.OWN if choice.preset == FOLDER else catalogue.FIGURES
    figures, skipped = select(figures, choice.only, choice.preset)
    return checked(on_copy(Plan(paper, choice, settings, figures, skipped, store, data, precision)))


def on_copy(plan: Plan) -> Plan:
    """The plan on the copy of the data that counts: the one read where it trains, else the known one or any."""
    if plan.choice.trains:
        return replace(plan, copy="read")
    known = replace(plan, copy="known")
    if plan.data.root is None and not any(map(known.finished, known.runs().values())):
        return replace(plan, copy="any")
    return known


def checked(plan: Plan) -> Plan:
    """A plan of which something can be trained, if it is to train. Raises InputError where not, or on bad input."""
    runs = plan.runs().values()
    if plan.choice.trains and not all(map(plan.finished, runs)) and all(map(plan.data.problem, runs)):
        raise InputError("; ".join(plan.problems()))
    for run in plan.unfinished():
        check(run, plan.data.opened.get(run.data))
    return plan


def settings_of(paper: str, choice: Choice, data: Data) -> tuple[Any, ...]:
    """The settings of a paper that a command chooses; those of the preset `folder` depend on the images at hand.

    Raises InputError on an unknown preset, on options that are another preset's, and without images of one's own.
    """
    presets = importlib.import_module(f"{paper}.reproduce.presets")
    chosen = choice.preset, choice.seeds, choice.orders, choice.epochs_scale
    if choice.preset != FOLDER:
        if choice.given:
            wrong = " and ".join(choice.given)
            raise InputError(f"{wrong}: for --preset folder only; --preset {choice.preset} has the paper's protocol")
        return presets.settings(*chosen)
    if not hasattr(presets, "on_folder"):
        raise InputError(f"{paper} has no --preset folder; choose another preset")
    found = data.open(DataSpec(FOLDER))
    if isinstance(found, InputError):
        raise found
    return presets.settings(*chosen, Folder.of(found, choice))


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
        run.check()
        sizes = run.protocol.sizes
        splits.named_order(run.order, sum(sizes))
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
    if asked > counts[smallest] and not run.longtail:  # of a long-tailed subset, small classes keep all they have
        raise InputError(
            f"{asked} exemplars per class asked for, but class {dataset.classes[smallest]!r} has {counts[smallest]} "
            "training images; ask for fewer, or give a total budget, which is capped"
        )
    refuse_lone_images(run, dataset, counts)
