"""One paper's part of a command: which figures it makes, what they wait for, and what it says when they are drawn."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from common.command.messages import describe
from common.command.plan import Plan
from common.command.waiting import Outcome, unfinished
from common.runs import Run

if TYPE_CHECKING:
    from common.training import Device


@dataclass(frozen=True)
class Choice:
    """Which figures to make, and of which runs."""

    preset: str = "quick"
    """quick (embedded data, minutes, no download), cifar (the paper's schedule) or imagenet (image folders)."""
    only: tuple[str, ...] = ()
    """Figure ids, such as fig5c, or their beginnings, such as fig3; default: every figure of the preset."""
    seeds: tuple[int, ...] = ()
    """Seeds of initialisation and batch order; without --orders each also chooses its class order."""
    orders: tuple[str, ...] = ()
    """Class orders: seeds of the shuffle, or names of published orders."""
    epochs_scale: float = 1.0
    """Shortens or stretches every schedule; what it made is labelled."""
    list: bool = False
    """Print figures, runs, what is finished and the time left, and train nothing."""
    draw: bool = False
    """Draw from finished runs and committed records, and train nothing."""


@dataclass
class Part:
    """One paper's part of a command: its plan, and what has become of its runs."""

    plan: Plan
    choice: Choice
    out: Path
    open: set[str] = field(default_factory=set)
    """Hashes of the runs that it waits for."""
    threads: int = 1
    failures: list[str] = field(default_factory=list)
    closed: bool = False

    def __post_init__(self) -> None:
        from common.command.painter import Painter

        command = words(self.plan, self.choice)
        self.painter = Painter(self.plan, self.out, self.choice.preset, self.choice.epochs_scale, command)

    def wait_for(self, device: Device, jobs: int) -> list[Run]:
        """Find out what is to be trained, starts first, and how many threads each run may have.

        The threads depend on the whole plan, not on what is left or on other parts: sums depend on them in the last
        bits, and in a queue they are to be those of the command alone.
        """
        waiting = self.plan.unfinished()
        contents = {r.data: r.fingerprint for run in waiting for r in run.chain}
        runs = [run.resolved(contents.__getitem__, device.precision) for run in waiting]
        runs = unfinished(runs, {r.hash for run in runs for r in run.chain if self.plan.store.load(r.hash)})
        self.open = {run.hash for run in runs}
        self.threads = max(1, cores() // max(1, min(jobs, len(self.plan.runs()))))
        return runs

    def note(self, outcome: Outcome) -> bool:
        """Take in how a run ended. Returns whether this part has waited for it."""
        if outcome.run.hash not in self.open or outcome.ending not in ("finished", "failed"):
            return False
        self.open.remove(outcome.run.hash)
        self.failures += [f"{describe(outcome.run)}: {outcome.problem}"] if outcome.problem else []
        return True

    def draw(self) -> None:
        """Draw what has become complete; when nothing is left to wait for, draw the rest and write the report."""
        if self.open:
            return _say(self.painter.draw_complete())
        self.closed = True
        _say(self.painter.draw_rest())
        report = self.painter.report(self.failures)
        for problem in self.painter.problems:
            print(f"failed: {problem}", file=sys.stderr)
        undrawn = self.painter.undrawn()
        for line in undrawn:
            print(f"not drawn: {line}")
        if self.choice.draw and undrawn and not self.painter.used:
            print("no run of these figures is finished or recorded with these --seeds, --orders and --epochs-scale")
        print(f"{self.plan.paper}: {self.painter.summary()}; report: {report}")

    @property
    def failed(self) -> bool:
        return bool(self.failures or self.painter.problems)


def words(plan: Plan, choice: Choice) -> str:
    """The command that makes a report, without what decides no result."""
    words = [f"python -m {plan.paper}.reproduce --preset {choice.preset}"]
    words += [f"--only {' '.join(choice.only)}"] if choice.only else []
    words += [f"--seeds {' '.join(map(str, choice.seeds))}"] if choice.seeds else []
    words += [f"--orders {' '.join(choice.orders)}"] if choice.orders else []
    words += [f"--precision {plan.precision}"] if plan.precision != "auto" else []
    words += [f"--epochs-scale {choice.epochs_scale:g}"] if choice.epochs_scale != 1 else []
    words += ["--draw"] if choice.draw else []
    return " ".join(words)


def _say(drawn: Sequence[str]) -> None:
    for figure in drawn:
        print(f"drawn: {figure}", flush=True)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
