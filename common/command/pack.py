"""Defines the work of one cluster job: trains some runs at once, and saves them when the job has to end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from common.checkpoints import BOUNDARY, EPOCH
from common.command.launcher import Job, launch
from common.command.status import note
from common.command.waiting import Outcome, not_started
from common.runs import Run
from common.store import Store

TOO_SHORT = "no epoch could be saved within the {} minutes of a job; give it more by --slurm-time"


@dataclass
class Pack:
    """Runs that one job trains at once. submitit calls a `Pack`, and calls it again after each requeue.

    Slurm sends SIGUSR2 some time before the job's limit, and a site may send SIGUSR1. Then no epoch begins any more,
    epochs under way are finished and saved, and the job puts itself back into the queue. SIGTERM has the same effect,
    except that its sender, such as `scancel` or a preemption, decides whether the job comes back.
    """

    runs: tuple[Run, ...]
    job: Job
    minutes: int
    """The job's time limit."""
    grace: float
    """Seconds after the signal within which epochs under way must end."""

    def __call__(self) -> None:
        self.began, self.saved = time.monotonic(), self._states()
        self.over, self.told = Future[None](), False
        with TemporaryDirectory() as folder:
            self.stop = Path(folder) / "stop"
            signal.signal(signal.SIGTERM, self._told)
            signal.signal(signal.SIGUSR1, signal.getsignal(signal.SIGUSR2))  # submitit handles the latter
            Thread(target=self._train, daemon=True).start()  # this thread stays free for signals
            self.over.result()
            while self.told and self._unfinished():
                signal.pause()  # a job that ended by itself now would not be requeued

    def checkpoint(self) -> Any:
        """Return what submitit must submit again after the signal, or None if no epoch can be saved within a job."""
        from submitit.helpers import DelayedSubmission

        self._end()
        wait([self.over], timeout=self.grace)
        if self._states() == self.saved and time.monotonic() - self.began > 30 * self.minutes:
            for run in self._unfinished():
                note(self.job.out, Outcome(run, TOO_SHORT.format(self.minutes), "failed"))
            return None
        return DelayedSubmission(Pack(self.runs, self.job, self.minutes, self.grace))

    def _told(self, number: int, frame: Any) -> None:
        self.told = True
        self._end()

    def _end(self) -> None:
        """Tell all runs of the pack to begin no further epoch."""
        with suppress(OSError):  # all runs have ended, and the folder of the file is gone
            self.stop.touch()

    def _train(self) -> None:
        try:
            threads = max(1, int(os.environ.get("SLURM_CPUS_PER_TASK", self.job.jobs)) // self.job.jobs)
            job, ready = replace(self.job, threads=threads, stop=self.stop), list(self._ready())
            starts = {start.hash for run in ready for start in run.chain[:-1]}
            for outcome in launch(ready, job, starts):
                note(job.out, outcome)
                print(f"{outcome.ending}: {outcome.run.hash} {outcome.problem}", flush=True)
            self.over.set_result(None)
        except BaseException as error:
            self.over.set_exception(error)

    def _ready(self) -> Iterable[Run]:
        """Yield the unfinished runs whose starts are finished, and note the others as failed."""
        store = Store(self.job.out)
        for run in self._unfinished():
            if run.start and not store.load_or_note(run.start.hash):
                note(self.job.out, Outcome(run, not_started(run), "failed"))
            else:
                yield run

    def _unfinished(self) -> list[Run]:
        store = Store(self.job.out)
        return [run for run in self.runs if not store.load_or_note(run.hash)]

    def _states(self) -> dict[Path, int]:
        """Return the modification time of each file that a run can go on from, in nanoseconds."""
        folders = [self.job.out / "runs" / run.hash for run in self.runs]
        paths = [folder / name for folder in folders for name in (EPOCH, BOUNDARY, "result.json")]
        return {path: path.stat().st_mtime_ns for path in paths if path.exists()}
