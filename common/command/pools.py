"""Trains several runs at once in worker processes, or in threads on a GPU, and runs one by one in this thread."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from common.command.waiting import Outcome
from common.errors import InputError, RunFailed
from common.runs import Run

if TYPE_CHECKING:
    from common.command.launcher import Job

Attempt = Callable[[Run, "Job", Callable[[int], None]], Outcome]
"""A function that trains one run: `common.command.launcher.attempt`."""

UNGUARDED = (
    "no worker process gets as far as its first run: each imports the script that was started, so in a script the "
    'calls that train belong under `if __name__ == "__main__":`; or train one run at a time (jobs 1)'
)


class Here:
    """Trains runs one after another in this thread. A run has ended when `submit` returns."""

    def __init__(self, attempt: Attempt, progress: Callable[[int], None]) -> None:
        self.attempt, self.progress, self.queue = attempt, progress, SimpleQueue[int]()

    def submit(self, run: Run, job: Job) -> Future:
        future = Future[Outcome]()
        future.set_result(self.attempt(run, job, self.progress))
        return future

    def kill(self) -> None:
        """Do nothing, since no run is under way any more."""


class Processes:
    """Trains each run in a worker process. A worker that dies breaks the whole pool, so a new pool is then made."""

    def __init__(self, attempt: Attempt, jobs: int, prepare: Callable[[], None]) -> None:
        self.attempt, self.jobs, self.prepare = attempt, jobs, prepare
        self.began = get_context("spawn").Event()  # set once a worker has reached our own code
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        self.queue = context.Queue()  # new with every pool: a worker killed while writing leaves its queue locked
        begins = self.queue, os.getpid(), self.prepare, self.began
        self.pool = ProcessPoolExecutor(self.jobs, context, _start_worker, begins)

    def submit(self, run: Run, job: Job) -> Future:
        try:
            return self.pool.submit(_work, self.attempt, run, job)
        except BrokenProcessPool:
            self.kill()
            self._start()
            return self.pool.submit(_work, self.attempt, run, job)
        except RuntimeError as error:
            if "bootstrapping" not in str(error):
                raise
            raise InputError(UNGUARDED) from None  # this process is itself such a worker

    def kill(self) -> None:
        for process in list((self.pool._processes or {}).values()):
            process.kill()
        self.pool.shutdown(wait=False, cancel_futures=True)


class Threads:
    """Trains each run in a thread of this process, on a CUDA stream of its own.

    Processes only take turns on a GPU, while streams of one process run side by side. A captured step (see
    `common.graphs`) needs Python for a single launch, so threads do not wait for each other. An error of the device
    itself, such as an illegal address, ends every run of the process. The same command then goes on with them.
    """

    def __init__(self, attempt: Attempt, jobs: int) -> None:
        self.attempt, self.queue, self.stopped = attempt, SimpleQueue[int](), threading.Event()
        self.pool = ThreadPoolExecutor(jobs)

    def submit(self, run: Run, job: Job) -> Future:
        return self.pool.submit(self.attempt, run, job, self._report)

    def _report(self, images: int) -> None:
        self.queue.put(images)
        if self.stopped.is_set():  # between two epochs, so that the run can go on from what is saved
            raise RunFailed("interrupted; the same command goes on from its last saved epoch")

    def kill(self) -> None:
        self.stopped.set()
        self.pool.shutdown(wait=True, cancel_futures=True)


def drain(queue: Any) -> Iterator[int]:
    """Yield the numbers of trained images that workers have reported since the last call."""
    while True:
        try:
            yield queue.get_nowait()
        except Empty:
            return


_queue: Any = None  # the queue of this worker process, set once by its initialiser


def _start_worker(queue: Any, parent: int, prepare: Callable[[], None], began: Any) -> None:
    global _queue
    _queue = queue
    began.set()
    prepare()
    leave_signals()
    threading.Thread(target=die_with, args=(parent,), daemon=True).start()


def leave_signals() -> None:
    """Ignore signals in a worker: a terminal and Slurm send them to every process, but the parent handles them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def die_with(parent: int) -> None:
    """End this worker when its parent is gone, so that a killed command leaves nothing behind."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work(attempt: Attempt, run: Run, job: Job) -> Outcome:
    return attempt(run, job, _queue.put)
