"""Reports on a single run: lines while it trains, then a table, the published numbers and the run's folder."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from common.checkpoints import BOUNDARY, Damaged, read_meta
from common.command.parts import Part
from common.command.plan import Plan
from common.metrics import average_incremental_accuracy
from common.runs import Run, type_name
from common.store import Result, read_lines

if TYPE_CHECKING:
    from common.training import Device

LINES = 10
"""The most lines that report on the epochs of a run with one phase."""


@dataclass
class Single(Part):
    """A part of a command that has a single run. It prints a table and draws no figure."""

    training: list[Run] = field(default_factory=list)
    """The runs to train: the run itself and the runs that it starts from, as far as they are not finished."""
    told: dict[str, int] = field(default_factory=dict)
    """How many phases or epochs of each run have been reported, by the run's hash."""

    @property
    def run(self) -> Run:
        return next(iter(self.plan.runs().values()))

    @property
    def title(self) -> str:
        return self.plan.figures[0].title

    @property
    def result(self) -> Result | None:
        """The run's Result, or None if the run is not finished in the results folder."""
        return self.plan.store.find(self.run, records=False)

    def wait_for(self, device: Device, jobs: int) -> list[Run]:
        print(self.title, flush=True)
        self.training = super().wait_for(device, jobs)
        return self.training

    def follow(self) -> None:
        """Print a line for each phase that has ended since the last call or, in one-phase runs, for some epochs."""
        for run in self.training:
            if run.hash in self.open:
                for line in self._news(run):
                    print(f"  {type_name(type(run.method))}, {line}", flush=True)

    def _news(self, run: Run) -> Iterator[str]:
        folder, told = self.plan.store.folder(run), self.told.get(run.hash, 0)
        if len(run.protocol.sizes) > 1:
            phases = _ended(folder / BOUNDARY)
            for index, phase in enumerate(phases[told:], told):
                yield f"phase {index}, {phase['classes']} classes: {_accuracies(phase)}"
            self.told[run.hash] = max(told, len(phases))
            return
        lines, every = read_lines(folder / "metrics.jsonl"), -(-run.schedule.epochs // LINES)
        for index, line in enumerate(lines[told:], told + 1):
            if index % every == 0:
                tested = f", accuracy {line['test_accuracy']:.2f}" if line.get("test_accuracy") is not None else ""
                yield f"epoch {index} of {run.schedule.epochs}: loss {line['loss']:.4f}{tested}"
        self.told[run.hash] = max(told, len(lines))

    def draw(self) -> None:
        """Print the table, the published numbers and the folder, once the run is finished."""
        if self.open or self.closed:
            return
        self.closed = True
        if result := self.result:
            lines = ["", self.title, *table(result), *_shared(result), *published_lines(self.plan, self.run, result)]
            print("\n".join([*lines, str(self.plan.store.runs / result.hash)]), flush=True)

    @property
    def failed(self) -> bool:
        return bool(self.failures)


def _ended(path: Path) -> list[dict]:
    """Return the finished phases of a run under way, read from its checkpoint."""
    with suppress(Damaged):  # the run reports the damage itself when it goes on
        return (read_meta(path) or {"phases": []})["phases"]
    return []


def _accuracies(phase: dict) -> str:
    *_, last = phase["stages"].values()
    return ", ".join(f"{name} {values['accuracy']:.2f}" for name, values in last.items())


def table(result: Result) -> list[str]:
    """Return a table of the accuracies of all read-outs, in percent.

    A run of several phases has a row for each phase and one for the average, and a column for each read-out. A run of
    one phase has a row for each read-out: the accuracy over all classes and, for long-tailed data, over classes with
    many, medium and few images.
    """
    *_, last = result.phases()[-1]["stages"].values()
    if len(result.phases()) == 1:
        groups = [key for key in ("accuracy", "many", "medium", "few") if key in next(iter(last.values()))]
        return aligned([["read-out", *groups], *([n, *(f"{v[g]:.2f}" for g in groups)] for n, v in last.items())])
    curves = {name: result.curve(name) for name in last}
    rows = [["phase", "classes", *curves]]
    for index, phase in enumerate(result.phases()):
        rows.append([str(index), str(phase["classes"]), *(_cell(curve[index]) for curve in curves.values())])
    averages = (average_incremental_accuracy(curve) for curve in curves.values())
    return aligned([*rows, ["average", "", *map(_cell, averages)]])


def _cell(value: float) -> str:
    """Return a value with two decimals, or "" for nan: a read-out need not exist in every phase."""
    return "" if math.isnan(value) else f"{value:.2f}"


def _shared(result: Result) -> list[str]:
    """Return a line if several processes have trained the run. A single process would have measured other numbers."""
    ranks = result.environment.get("ranks", 1)
    whose = "all images of a batch" if result.config.get("sync_batchnorm") else "each one's images"
    return [f"trained by {ranks} processes, BatchNorm by the statistics of {whose}"] if ranks > 1 else []


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines of text. The first column is aligned to the left, the others to the right."""
    first, *others = ([len(cell) for cell in column] for column in zip(*rows, strict=True))
    widths = [max(column) for column in others]
    return [
        "  ".join([row[0].ljust(max(first)), *(c.rjust(w) for c, w in zip(row[1:], widths, strict=True))])
        for row in rows
    ]


def published_lines(plan: Plan, run: Run, result: Result) -> list[str]:
    """Return lines with the paper's numbers for this run, from the first figure that compares it with any.

    The list is empty if the data are not the paper's, or if no figure has a number.
    """
    if not plan.settings or not all(s.comparable for s in plan.settings):
        return []
    preset, scale = plan.choice.preset, plan.choice.epochs_scale
    for figure in importlib.import_module(f"{plan.paper}.reproduce.catalogue").FIGURES:
        if preset not in figure.presets:
            continue
        needed = figure.runs(plan.settings).items()
        groups = {name: [result] for name, runs in needed if any(r.key == run.key for r in runs)}
        rows = figure.draw(plan.settings, groups, plan.published).comparisons if groups else ()
        if found := [row for row in rows if row.published is not None and row.ours]:
            settings = "the paper's settings" if scale == 1 else f"here the paper's epochs x {scale:g}"
            lines = [f"  {c.method}, {c.quantity}: {c.published:g}, here {c.ours.mean:.2f}" for c in found if c.ours]
            return [f"published ({figure.title}; {settings})", *lines]
    return []
