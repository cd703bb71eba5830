"""Plans what a command has to do: which figures it makes, which Runs they need, and which of them are finished."""

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
from common.runs import Run, type_name
from common.store import Result, Store

PAPERS = ("lucir", "der", "feature_adaptation", "bbn", "class_balanced", "fsa")
Copy = Literal["read", "known", "any"]
"""Which copy of a data set results must come from. "read": the copy at hand, which is read in full, as training needs.
"known": the same copy if its fingerprint is known without decoding images, else any copy. "any": any copy."""


@dataclass(frozen=True)
class Figures:
    """Holds the options that choose the figures and their runs."""

    preset: str = "quick"
    """quick (embedded data, minutes, no download), cifar (the paper's schedule), imagenet (image folders) or folder
    (your own images, at the paper's schedule)."""
    only: tuple[str, ...] = ()
    """Figure ids, such as fig5c, or their beginnings, such as fig3; default: every figure of the preset."""
    seeds: tuple[int, ...] = ()
    """Seeds of initialisation and batch order; without --orders each also chooses its class order."""
    orders: tuple[str, ...] = ()
    """Class orders: seeds of the shuffle, or names of published orders."""
    epochs_scale: float = 1.0
    """Shortens or stretches every schedule. Figures made with it are labelled."""
    list: bool = False
    """Print figures, finished runs and runs still to train, and train nothing."""
    draw: bool = False
    """Draw from finished runs and committed records, and train nothing."""


@dataclass(frozen=True)
class Choice(Options, Figures):
    """Holds what a command asks for. Its options stand in the order of the help: those of --preset folder come last."""

    @property
    def trains(self) -> bool:
        return not (self.list or self.draw)


@dataclass
class Data:
    """Opens each data set once for a command, and keeps the reason if one cannot be opened."""

    root: Path | None
    cache: Path
    opened: dict[DataSpec, Dataset | InputError] = field(default_factory=dict)
    known: dict[DataSpec, str] = field(default_factory=dict)
    """Fingerprints that were found without decoding images. Kept, so that a folder of large images is listed once."""

    def open(self, spec: DataSpec) -> Dataset | InputError:
        if spec not in self.opened:
            try:
                self.opened[spec] = datasets.load(spec, self.root, self.cache)
            except InputError as error:
                self.opened[spec] = error
        return self.opened[spec]

    def fingerprint(self, spec: DataSpec, copy: Copy) -> str:
        """Return the fingerprint of the copy of a data set that results must come from, or "" if any copy will do."""
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
        """Return why the data for `run`, or for a run it starts from, are missing or too few; "" if they are not."""
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
    """A `Plan` holds the figures of one paper that a command chooses, and finds the Runs behind them."""

    paper: str
    choice: Choice
    settings: tuple[Any, ...]
    figures: list[Figure]
    skipped: list[tuple[Figure, str]]
    """Figures that this command cannot make or was not asked for, with the reason."""
    store: Store
    data: Data
    precision: str = "auto"
    """The precision asked for. With auto, finished runs of any precision count."""
    copy: Copy = "read"
    _required: dict[str, Runs] = field(default_factory=dict, init=False)

    def required(self, figure: Figure) -> Runs:
        """Return the figure's required Runs by curve, with the data's fingerprint (see `Copy`)."""
        if figure.id not in self._required:
            self._required[figure.id] = self._resolved(figure.runs(self.settings))
        return self._required[figure.id]

    def _resolved(self, groups: Runs) -> Runs:
        precision = "" if self.precision == "auto" else self.precision
        return {name: [self.resolved(run, precision) for run in runs] for name, runs in groups.items()}

    def resolved(self, run: Run, precision: str) -> Run:
        """Return the Run with the fingerprint of its data (see `Copy`) and with this precision."""
        return run.resolved(lambda spec: self.data.fingerprint(spec, self.copy), precision)

    def runs(self) -> dict[str, Run]:
        """Return every Run that the figures need, by key, in the order of the figures."""
        found: dict[str, Run] = {}
        for figure in self.figures:
            for runs in self.required(figure).values():
                found |= {run.key: run for run in runs if run.key not in found}
        return found

    def find(self, run: Run) -> Result | None:
        """Return the Run's result from the results folder, else its committed record, else None."""
        return self.store.find(run)

    def finished(self, run: Run) -> str:
        """Return the Run's hash if it is finished in the results folder, else "". A committed record does not count."""
        return self.store.finished(run)

    def unfinished(self) -> list[Run]:
        """Return the Runs to train: those that are not finished here and whose data are at hand."""
        return [run for run in self.runs().values() if not self.finished(run) and not self.data.problem(run)]

    def problems(self) -> list[str]:
        """Return the reasons why the data of some Runs are missing, each reason once."""
        return [problem for problem in dict.fromkeys(map(self.data.problem, self.runs().values())) if problem]

    def complete(self, figure: Figure) -> bool:
        """Return whether every Run that the figure needs is finished here."""
        return all(self.finished(run) for runs in self.required(figure).values() for run in runs)

    def results(self, figure: Figure) -> tuple[Results, list[Run]]:
        """Return the Results of a figure's required and optional Runs by curve, and the required Runs without one."""
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
        """Return the figures that --only names but this command cannot make, with the reason."""
        wanted = named([*self.figures, *(f for f, _ in self.skipped)], self.choice.only, self.choice.preset)
        return [(f, why) for f, why in self.skipped if f.id in wanted]

    def title(self, figure: Figure) -> str:
        """Return the figure's title. "(on glyphs)" is added on embedded data, since the title may name the paper's."""
        glyphs = any(run.data.name == "glyphs" for runs in self.required(figure).values() for run in runs)
        return f"{figure.title} (on glyphs)" if glyphs else figure.title

    @property
    def prog(self) -> str:
        """The words after `python` that make this plan again."""
        return f"-m {self.paper}.reproduce"

    @property
    def published(self) -> Published:
        return published(self.paper)

    @property
    def looks(self) -> Looks:
        """Colours and markers of methods: those that all packages share, and those that this package declares."""
        return {**SHARED, **getattr(importlib.import_module(f"{self.paper}.reproduce.catalogue"), "LOOKS", {})}


@lru_cache
def published(paper: str) -> Published:
    """Return the paper's numbers from the package's published.json. They are empty if there is no such file."""
    path = Path(importlib.import_module(paper).__path__[0], "published.json")
    return Published.load(path) if path.exists() else Published({"title": paper}, {})


def make_plan(paper: str, choice: Choice, store: Store, data: Data, precision: str = "auto") -> Plan:
    """Make the plan of one paper. Raises InputError on an unknown preset or figure, or if no Run has its data.

    Only training reads the data sets. For listing and drawing, missing data are no error. Without --data these accept
    records of any copy of the data, unless a run on the known copy is finished here.
    """
    settings, catalogue = settings_of(paper, choice, data), importlib.import_module(f"{paper}.reproduce.catalogue")
    figures = catalogue.OWN if choice.preset == FOLDER else catalogue.FIGURES
    figures, skipped = select(figures, choice.only, choice.preset)
    return checked(on_copy(Plan(paper, choice, settings, figures, skipped, store, data, precision)))


def on_copy(plan: Plan) -> Plan:
    """Return the plan with its `copy` set: "read" if it trains, else "known" or "any" (see `make_plan`)."""
    if plan.choice.trains:
        return replace(plan, copy="read")
    known = replace(plan, copy="known")
    if plan.data.root is None and not any(map(known.finished, known.runs().values())):
        return replace(plan, copy="any")
    return known


def checked(plan: Plan) -> Plan:
    """Check the plan's Runs, and return it. Raises InputError on bad input, or if it trains but no Run has its data."""
    runs = plan.runs().values()
    if plan.choice.trains and not all(map(plan.finished, runs)) and all(map(plan.data.problem, runs)):
        raise InputError("; ".join(plan.problems()))
    for run in plan.unfinished():
        check(run, plan.data.opened.get(run.data))
    return plan


def settings_of(paper: str, choice: Choice, data: Data) -> tuple[Any, ...]:
    """Return the settings of a paper that a command chooses. Those of --preset folder depend on the user's images.

    Raises InputError on an unknown preset, on options that belong to another preset, and if --preset folder finds no
    images.
    """
    presets = importlib.import_module(f"{paper}.reproduce.presets")
    chosen = choice.preset, choice.seeds, choice.orders, choice.epochs_scale
    if choice.preset != FOLDER:
        if choice.given:
            wrong = " and ".join(choice.given)
            train = f", or python -m {paper}.train" if choice.given == ["--imbalance"] and presets.Setting.tails else ""
            figures = f"figures of --preset {choice.preset} have the paper's protocol"
            raise InputError(f"{wrong}: for --preset folder only{train}; {figures}")
        return presets.settings(*chosen)
    found = data.open(DataSpec(FOLDER))
    if isinstance(found, InputError):
        raise found
    return presets.settings(*chosen, Folder.from_dataset(found, choice))


def named(figures: Sequence[Figure], only: Sequence[str], preset: str) -> set[str]:
    """Return the ids of the figures that the words of `only` name.

    A word is the id of a figure of this preset, or an id that it had earlier, or else the beginning of ids.
    """
    exact = {f.id for f in figures if preset in f.presets and {f.id, *f.formerly} & set(only)}
    known = {id for f in figures if f.id in exact for id in (f.id, *f.formerly)}
    begun = tuple(word for word in only if word and word not in known)
    return exact | {f.id for f in figures if f.id.startswith(begun)}


def select(
    figures: Sequence[Figure], only: Sequence[str], preset: str
) -> tuple[list[Figure], list[tuple[Figure, str]]]:
    """Return the figures to make, and the other figures with the reason why they are left out.

    Figures of the preset are made or, with `only`, those of them that its words name (see `named`). Raises InputError
    if a word names no figure, or if all named figures belong to other presets.
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
        asked = [(f, reason) for f, reason in skipped if f.id in wanted] or skipped
        raise InputError("; ".join(f"{figure.id} {reason}" for figure, reason in asked))
    return chosen, skipped


def class_counts(run: Run, dataset: Dataset) -> np.ndarray:
    """Return how many training images of each class a Run sees, in the data set's class order.

    Raises ValueError if the data set has too few images for the long-tailed subset.
    """
    available = np.bincount(dataset.train_labels, minlength=len(dataset.classes))
    tail = run.longtail
    return splits.longtail_sizes(available, tail.imbalance, tail.profile) if tail else available


def check(run: Run, dataset: Dataset | InputError | None) -> None:
    """Raise InputError on bad input, before any training.

    Checks phases, class order, seeds and the method's own options and, if the data set is open, the number of classes,
    the image size and the exemplars per class.
    """
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
    if asked > counts[smallest] and not run.longtail:  # in a long-tailed subset, small classes keep all their images
        raise InputError(
            f"{asked} exemplars per class asked for, but class {dataset.classes[smallest]!r} has {counts[smallest]} "
            "training images; ask for fewer, or give a total budget, which is capped"
        )
    if hasattr(run.method, "check_counts"):
        try:
            run.method.check_counts(counts)
        except ValueError as error:
            raise InputError(f"{type_name(type(run.method))}: {error}") from None
    refuse_lone_images(run, dataset, counts)
