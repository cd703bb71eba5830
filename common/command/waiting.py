"""Decides which runs of a queue can be started, given how the other runs have ended."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from common.runs import Run


@dataclass(frozen=True)
class Outcome:
    """Says how one run ended, or why it stopped. `problem` is one line, or empty if the run is finished."""

    run: Run
    problem: str
    ending: Literal["finished", "failed", "out of time", "not captured", "busy"]


AGAIN = 5.0  # seconds until a run that another process is training is tried again


def unfinished(runs: Iterable[Run], finished: set[str]) -> list[Run]:
    """Return the runs to train and the runs that they start from, each once, starts first. finished: hashes."""
    ordered = {r.hash: r for run in runs if run.hash not in finished for r in run.chain}
    return [run for digest, run in ordered.items() if digest not in finished]


def not_started(run: Run) -> str:
    """Return the problem of a run whose start has failed, as one line."""
    return f"not started: run {run.start.hash if run.start else ''}, which it starts from, failed"


class Waiting:
    """Holds the runs that are not started yet, by hash and in order, and keeps track of the others."""

    def __init__(self, runs: Iterable[Run], threads: Mapping[str, int], most: int) -> None:
        self.runs = {run.hash: run for run in runs}
        self.threads, self.most = threads, most
        """CPU threads of each run by its hash, and the most threads that all running runs may use together."""
        self.open = set(self.runs)  # waiting or running: runs that start from these are not ready
        self.failed = set[str]()
        self.died = set[str]()  # runs whose worker died once; they go on from their last epoch
        self.eager = dict[str, str]()
        """Runs whose step cannot be captured as a CUDA graph, with the reason."""
        self.busy = dict[str, float]()
        """When runs that another process is training may be tried again, by `time.monotonic`."""
        self.advanced = False
        """Whether any run has made progress: finished, or trained an epoch more."""

    def ready(self, running: Collection[Run], jobs: int) -> Iterator[Run]:
        """Remove and yield the runs that can be started beside the running ones, up to `jobs` runs at once."""
        count, busy = len(running), sum(self.threads.get(run.hash, 1) for run in running)
        alone = bool(self.died & self.open)  # such a run is trained alone: if it dies again, no other dies with it
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
        """Return why a run is never started, or "" if it can be."""
        return not_started(run) if run.start and run.start.hash in self.failed else ""

    def again(self, run: Run) -> bool:
        """Put a run whose worker died back at the front. Returns False if that has been done before."""
        if run.hash in self.died:
            return False
        self.died.add(run.hash)
        self.runs = {run.hash: run, **self.runs}
        return True

    def end(self, outcome: Outcome) -> Outcome:
        """Record how a run ended. A run that cannot be captured, or that another process trains, goes to the back."""
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
            self.runs.clear()  # the next command trains them, with the runs that start from this one
        return outcome
