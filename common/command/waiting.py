"""Which of the runs of a queue can be started, from how the others have ended."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from common.runs import Run


@dataclass(frozen=True)
class Outcome:
    """How one run ended, or why it stopped. `problem` is one line, or empty when the run is finished."""

    run: Run
    problem: str
    ending: Literal["finished", "failed", "out of time", "not captured", "busy"]


AGAIN = 5.0  # seconds until a run that another process works on is tried again


def unfinished(runs: Iterable[Run], finished: set[str]) -> list[Run]:
    """The runs to train with those they start from, each once, starts first."""
    ordered = {r.hash: r for run in runs if run.hash not in finished for r in run.chain}
    return [run for digest, run in ordered.items() if digest not in finished]


def not_started(run: Run) -> str:
    """What is said of a run whose start has failed."""
    return f"not started: run {run.start.hash if run.start else ''}, which it starts from, failed"


class Waiting:
    """The runs that are not started yet, by hash and in order, and what has become of the others."""

    def __init__(self, runs: Iterable[Run], threads: Mapping[str, int], most: int) -> None:
        self.runs = {run.hash: run for run in runs}
        self.threads, self.most = threads, most
        """CPU threads of each run by its hash, and how many all runs under way may have together."""
        self.open = set(self.runs)  # waiting or running: whatever starts from these is not ready
        self.failed = set[str]()
        self.died = set[str]()  # runs whose worker died once; they go on from their last epoch
        self.eager = dict[str, str]()
        """Runs whose step cannot be captured, with the reason."""
        self.busy = dict[str, float]()
        """When runs that another process works on may be tried again, by `time.monotonic`."""
        self.advanced = False
        """Whether a run has got further: to its end, or by an epoch."""

    def ready(self, running: Collection[Run], jobs: int) -> Iterator[Run]:
        """Take out what can be started beside the runs that are under way, up to `jobs` at once."""
        count, busy = len(running), sum(self.threads.get(run.hash, 1) for run in running)
        alone = bool(self.died & self.open)  # a run whose worker died takes no other with it if it dies again
        for run in list(self.runs.values()):
            own = self.threads.get(run.hash, 1)
            if count >= jobs or (count and busy + own > self.most) or (run.start and run.start.hash in self.open):
                continue
            if alone and (count or run.hash not in self.died):
                continue
            if self.busy.get(run.hash, 0) > time.monotonic():
                continue
            del self.runs[run.hash]
            if not self.blocked(run):
                count, busy = count + 1, busy + own
            yield run

    def blocked(self, run: Run) -> str:
        """Why a run is not started at all, or ""."""
        return not_started(run) if run.start and run.start.hash in self.failed else ""

    def again(self, run: Run) -> bool:
        """Put a run whose worker died back at the front; False where that has been done before."""
        if run.hash in self.died:
            return False
        self.died.add(run.hash)
        self.runs = {run.hash: run, **self.runs}
        return True

    def end(self, outcome: Outcome) -> Outcome:
        """Note how a run ended; one that cannot be captured, or that another process works on, goes to the back."""
        run = outcome.run
        if outcome.ending == "busy":
            self.busy[run.hash] = time.monotonic() + AGAIN
            self.runs[run.hash] = run
            return outcome
        if outcome.ending == "not captured":
            self.eager[run.hash] = outcome.problem
            self.runs[run.hash] = run
            return outcome
        self.open.discard(run.hash)
        if outcome.ending == "failed":
            self.failed.add(run.hash)
            return outcome
        self.advanced = True
        if outcome.ending == "out of time":
            self.runs.clear()  # for the next command, with what starts from this run
        return outcome
