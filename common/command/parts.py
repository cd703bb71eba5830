"""Handles one paper's part of a command: waits for its runs, draws its figures, and says what was drawn."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from common.command.devices import asked_threads
from common.command.messages import describe
from common.command.plan import Plan
from common.command.recorded import recorded
from common.command.waiting import Outcome, unfinished
from common.runs import Run

if TYPE_CHECKING:
    from common.command.painter import Painter
    from common.training import Device


@dataclass
class Part:
    """One paper's part of a command. It holds the paper's plan and keeps track of its runs."""

    plan: Plan
    out: Path
    open: set[str] = field(default_factory=set)
    """Hashes of the runs that this part waits for."""
    threads: int = 1
    failures: list[str] = field(default_factory=list)
    closed: bool = False
    retrain: bool = False
    """Whether runs of a user's own methods are trained anew if the source code has changed (see `changed`)."""

    @cached_property
    def painter(self) -> Painter:
        """The `Painter` that makes the figures and the report."""
        from common.command.painter import Painter

        return Painter(self.plan, self.out)

    def wait_for(self, device: Device, jobs: int) -> list[Run]:
        """Return the runs to train, starts first, and set how many threads each run may use.

        The number of threads follows from the whole plan, not from the runs that are left or from other parts. The last
        bits of sums depend on it, so a command in a queue must use the same number as the command alone.
        """
        runs = [self.plan.resolved(run, device.precision) for run in self.plan.unfinished()]
        runs = unfinished(runs, {r.hash for run in runs for r in run.chain if self.plan.store.load_or_note(r.hash)})
        self.open = {run.hash for run in runs}
        self.threads = asked_threads() or max(1, cores() // max(1, min(jobs, len(self.plan.runs()))))
        return runs

    def note(self, outcome: Outcome) -> bool:
        """Record how a run ended. Returns whether this part was waiting for the run."""
        if outcome.run.hash not in self.open or outcome.ending not in ("finished", "failed"):
            return False
        self.open.remove(outcome.run.hash)
        self.plan.store.load_or_note(outcome.run.hash)  # adds it to the store's list of results, which is made once
        self.failures += [f"{describe(outcome.run)}: {outcome.problem}"] if outcome.problem else []
        return True

    def follow(self) -> None:
        """Report progress after some training. Does nothing here, since the figures show the progress."""

    def draw(self) -> None:
        """Draw the figures that are now complete. After the last run, draw the others too and write the report."""
        if self.open:
            return _say(self.painter.draw_complete())
        self.closed = True
        _say(self.painter.draw_rest())
        report = self.painter.report(list(dict.fromkeys([*self.failures, *self.plan.store.refused])))
        for problem in self.painter.problems:
            print(f"failed: {problem}", file=sys.stderr)
        for line in self._undrawn():
            print(line)
        print(f"{self.plan.paper}: {self.painter.summary()}; report: {report}")

    def _undrawn(self) -> list[str]:
        """Return a line for each figure that is not drawn. With --draw and no run at hand, one line names them all."""
        undrawn = self.painter.undrawn()
        if not self.plan.choice.draw or not undrawn or self.painter.used:
            return [f"not drawn: {figure}: {reason}" for figure, reason in undrawn.items()]
        asked = "these --seeds, --orders and --epochs-scale"
        lines = [f"not drawn: {', '.join(undrawn)}: none of their runs is finished or recorded with {asked}"]
        return lines + [f"recorded: {words}" for words in recorded(self.plan)]

    @property
    def failed(self) -> bool:
        return bool(self.failures or self.painter.problems)


def _say(drawn: Sequence[str]) -> None:
    for figure in drawn:
        print(f"drawn: {figure}", flush=True)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
