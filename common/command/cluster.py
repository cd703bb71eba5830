"""Trains runs as jobs of a cluster, through submitit. One command submits them, any later one collects the results."""

from __future__ import annotations

import contextlib
import io
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from common.command.board import Alive, Board
from common.command.launcher import Job
from common.command.messages import describe
from common.command.pack import Pack
from common.command.status import FAILED, reason
from common.command.waiting import Outcome, not_started, unfinished
from common.errors import InputError
from common.runs import Run
from common.store import Store

T = TypeVar("T")

ARRAY = 1000  # jobs in an array; Slurm's default MaxArraySize allows 1,001
SLOWEST = 30.0  # seconds between two looks at the queue, which many users share
FOREVER = 10_000  # requeues; a job that gets no further is not requeued (see `common.command.pack`)


@dataclass(frozen=True)
class Request:
    """Says what each job asks of the cluster."""

    engine: str
    """slurm, or local for processes of this machine that submitit treats as jobs."""
    minutes: int
    """The time limit of a job."""
    most: int = 0
    """Jobs that may wait or run at once; 0: any number."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of submitit's SlurmExecutor. Empty values are left out."""
    extra: tuple[str, ...] = ()
    """Other options of sbatch as key=value."""

    @property
    def delay(self) -> int:
        """Seconds before the limit at which a job is told to save: two minutes, or a quarter of a short limit."""
        return min(120, 15 * self.minutes)

    def check(self) -> None:
        """Raise InputError on values that sbatch would not understand."""
        if self.minutes < 1 or self.most < 0 or self.parameters.get("gpus_per_node", 0) < 0:
            raise InputError(
                "--slurm-time is in minutes and at least 1, --slurm-max-jobs is 0 (any number) or more, and so is "
                "--gpus-per-node"
            )
        if wrong := [word for word in self.extra if "=" not in word.strip("=")]:
            raise InputError(
                f"--slurm-extra {wrong[0]}: write key=value, as in --slurm-extra account=me cpus-per-task=4"
            )

    def executor(self, folder: Path, after: str) -> Any:
        """Return submitit's executor for jobs that begin when the job `after` has ended ("": at once).

        Raises InputError if submitit or Slurm is not installed.
        """
        try:
            import submitit
        except ImportError:
            raise InputError("submitit is not installed; pip install '.[cluster]'") from None
        if self.engine == "local":
            local = submitit.LocalExecutor(folder, max_num_timeout=FOREVER)
            local.update_parameters(timeout_min=self.minutes, signal_delay_s=self.delay)
            return local
        try:
            slurm = submitit.SlurmExecutor(folder, max_num_timeout=FOREVER)
        except RuntimeError:
            raise InputError("there is no srun here; give this command on a machine that submits to Slurm") from None
        slurm.update_parameters(
            **{name: value for name, value in self.parameters.items() if value},
            job_name="reproduce",
            time=self.minutes,
            signal_delay_s=self.delay,
            array_parallelism=ARRAY,
            additional_parameters=dict(word.split("=", 1) for word in self.extra),
            setup=["export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}"],  # not inherited by srun since 22.05
            **({"dependency": f"afterany:{after}"} if after else {}),
        )
        return slurm


def launch(
    runs: Iterable[Run],
    job: Job,
    finished: set[str],
    request: Request,
    costs: Mapping[str, int],
    progress: Callable[[int], None] = lambda images: None,
) -> Iterator[Outcome]:
    """Submit every run that has no job yet and whose hash is not in `finished`. Yield the Outcome of each as it ends.

    Shared starts are submitted first. Jobs of runs that start from them depend on their jobs, so everything is in the
    cluster's queue at once. This command may then be stopped: the next command finds the jobs and collects the results.
    One command submits no run twice, so a failed run is tried again by the next command. Ends at the job's deadline.
    costs: training images of each run, by hash. Raises InputError if the cluster refuses the jobs.
    """
    collector = _Collector(job, request, costs, unfinished(runs, finished))
    began = time.time()
    while True:  # a command looks at least once, however short its time is
        alive = collector.submit()
        yield from collector.ended(alive)
        progress(collector.trained(alive))
        if not collector.open or (now := time.time()) >= job.deadline:
            return
        time.sleep(min(SLOWEST, 1 + 0.05 * (now - began), job.deadline - now))


def _parts(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


class _Collector:
    """Keeps track of the runs of one command that have not ended, and of their jobs."""

    def __init__(self, job: Job, request: Request, costs: Mapping[str, int], runs: Sequence[Run]) -> None:
        self.job, self.request, self.costs = job, request, costs
        self.board, self.store = Board(job.out), Store(job.out)
        self.open = {run.hash: run for run in runs}
        self.jobs = dict[str, str]()
        """The job of each run that this command has submitted or found alive."""
        self.failed = set[str]()
        self.images = dict[str, int]()

    def submit(self) -> dict[str, Alive]:
        """Submit the runs that have no job and whose start is finished or has one. Returns the jobs that are alive."""
        with self.board.lock():
            alive, entries = self.board.alive(), self.board.entries()
            if not self.jobs:
                self.jobs = {d: entries[d].job for d in self.open if d in entries and entries[d].job in alive}
                if self.jobs:
                    print(f"in the queue already, runs: {len(self.jobs)}", flush=True)
            room = self.request.most - len(alive) if self.request.most else len(self.open)
            while room > 0 and (groups := self._groups(alive)):
                for after, members in groups.items():
                    packs = _parts(members, self.job.jobs)[:room]
                    room -= len(packs)
                    for array in _parts(packs, ARRAY):
                        alive |= dict.fromkeys(self._send(array, after), Alive(True, "submitted"))
        return alive

    def _groups(self, alive: Mapping[str, Alive]) -> dict[str, list[Run]]:
        """Return the runs to submit, by the job of their start, or by "" if they need not wait for any.

        Such runs have no job yet, and their start is finished or has a job.
        """
        groups = defaultdict[str, list[Run]](list)
        for run in self.open.values():
            start = run.start.hash if run.start else ""
            if run.hash in self.jobs or start in self.failed or self.store.load_or_note(run.hash):
                continue
            if start not in self.open:
                groups[""].append(run)
            elif self.jobs.get(start) in alive and self.request.engine == "slurm":
                groups[self.jobs[start]].append(run)
        return groups

    def _send(self, packs: Sequence[Sequence[Run]], after: str) -> list[str]:
        """Submit an array. Returns the ids of its jobs."""
        executor = self.request.executor(self.board.folder, after)
        for run in (run for pack in packs for run in pack):
            (self.store.folder(run) / FAILED).unlink(missing_ok=True)
        grace = 0.75 * self.request.delay
        out, data = self.job.out.absolute(), self.job.data and self.job.data.absolute()
        job = replace(self.job, out=out, data=data, deadline=math.inf)
        work = [Pack(tuple(pack), job, self.request.minutes, grace) for pack in packs]
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises
                ids = [sent.job_id for sent in executor.submit_array(work)]
        except Exception as error:  # submitit and sbatch raise many kinds
            raise InputError(
                f"{self.request.engine} refuses the jobs: {str(error).strip().splitlines()[-1]}"
            ) from error
        rows = [[(r.hash, describe(r), self.costs[r.hash]) for r in pack] for pack in packs]
        self.board.add(self.request.engine, zip(ids, rows, strict=True))
        self.jobs |= {run.hash: job for job, pack in zip(ids, packs, strict=True) for run in pack}
        span = f"job {ids[0]}" if len(ids) == 1 else f"jobs {ids[0]} to {ids[-1]}"
        print(f"submitted: {span}, runs in all: {sum(map(len, packs))}", flush=True)
        return ids

    def ended(self, alive: Mapping[str, Alive]) -> Iterator[Outcome]:
        """Yield the Outcomes of runs that have ended. Runs whose job still waits are skipped."""
        for digest, run in list(self.open.items()):
            job = self.jobs.get(digest, "")
            if job in alive and alive[job].waits:
                continue
            folder = self.store.folder(run)
            if job and job not in alive:
                with contextlib.suppress(OSError):
                    os.listdir(folder)  # NFS shows what another machine has written once its folder is read anew
            if self.store.load_or_note(digest):
                yield self._end(Outcome(run, "", "finished"))
            elif run.start and run.start.hash in self.failed:
                yield self._end(Outcome(run, not_started(run), "failed"))
            elif job and (problem := reason(folder) or self._gone(job, alive)):
                yield self._end(Outcome(run, problem, "failed"))

    def _gone(self, job: str, alive: Mapping[str, Alive]) -> str:
        """Return why a run has failed that its job left unfinished, or "" if the job is alive."""
        return "" if job in alive else self.board.last_words(job) or f"job {job} ended without a word"

    def _end(self, outcome: Outcome) -> Outcome:
        del self.open[outcome.run.hash]
        if outcome.ending == "failed":
            self.failed.add(outcome.run.hash)
        return outcome

    def trained(self, alive: Mapping[str, Alive]) -> int:
        """Return how many images the jobs have trained on since the last call."""
        before = sum(self.images.values())
        for digest, job in self.jobs.items():
            if digest not in self.open:
                self.images[digest] = self.costs[digest]
            elif job in alive and not alive[job].waits:
                self.images[digest] = self.store.trained(self.open[digest])
        return max(0, sum(self.images.values()) - before)
