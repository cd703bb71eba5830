"""Runs trained one after another in this process, or several at once in worker processes."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

from common.datasets import Dataset, load
from common.errors import InputError, RunFailed
from common.runs import Run, Schedule
from common.store import Busy, Store, Workspace

DISK_FULL = "disk full while writing {}; free some space and run the same command, it goes on"
PACKAGES = ("common", "lucir", "der", "feature_adaptation", "bbn", "class_balanced", "fsa")


@dataclass(frozen=True)
class Job:
    """Where runs go and on what they run; none of it decides an outcome."""

    out: Path
    data: Path | None
    device: str
    jobs: int
    threads: int
    """CPU threads a run may take; how many it does take is measured (see `common.tuning`)."""


@dataclass(frozen=True)
class Outcome:
    """How one run ended: `problem` is one line, or empty when it finished."""

    run: Run
    problem: str


def train(run: Run, job: Job, progress: Callable[[int], None] = lambda images: None) -> str:
    """Train one run to its end, or go on with it. Returns a one-line problem, or "" when it is finished."""
    try:
        _train(run, job, progress)
    except (RunFailed, Busy, InputError) as error:
        return str(error).strip().splitlines()[-1]  # a data loader's worker puts its traceback before the message
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DISK_FULL.format(job.out)
        return f"{type(error).__name__}: {error}"
    except Exception as error:  # one run's bug must not stop the others
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    return ""


def _train(run: Run, job: Job, progress: Callable[[int], None]) -> None:
    import torch

    from common import incremental
    from common.graphs import own_stream
    from common.training import Device
    from common.tuning import choose_threads

    store = Store(job.out)
    dataset = _dataset(run, job.data, job.out / "cache")
    learner = _learner(run)
    with store.open(run) as workspace:
        if store.load(run.hash):  # finished by another process since
            return
        workspace.progress = progress
        started, code = time.perf_counter(), commit()  # of the code now loaded, not of what is there when it ends
        workspace.commits = [code["commit"]]
        device, measured = Device(learner.device_for(run, job.device), run.precision), dict[str, float]()
        most = job.threads if job.device == "cpu" else 1  # beside a GPU the other cores are left to other runs
        workspace.threads = workspace.saved_threads() or most
        if most > 1 and not workspace.saved_threads():
            workspace.threads, measured = choose_threads(run, device, most, job.out / "cache/threads.json")
        torch.set_num_threads(workspace.threads)
        # Shapes are few, and a graph keeps what its first step chose. But trying algorithms waits for the whole device,
        # which no other thread's capture survives.
        torch.backends.cudnn.benchmark = job.jobs == 1
        torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32; bf16 is there for speed
        chain = len(run.protocol.sizes) > 1  # its phases wait for one another, so it goes before runs of one phase
        with torch.cuda.stream(own_stream(high=chain)) if device.type == "cuda" else nullcontext():
            result = incremental.run(run, dataset, learner, workspace, device)
        earlier = [c for c in workspace.commits if c != code["commit"]]
        workspace.finish(
            result, {**code, "earlier_commits": earlier, **_environment(device, workspace, measured, started)}
        )


def _learner(run: Run) -> Any:
    return importlib.import_module(f"{run.paper}.learner").LEARNERS[type(run.method)]


def warm_up(run: Run, job: Job) -> str:
    """Train `run` and what it starts from for one epoch a stage, for nothing. Returns a problem as `train` does.

    Called while no other run is under way: what CUDA's libraries set up on first use would break captures of others.
    Runs that capture nothing need none of it.
    """
    elsewhere = _learner(run).device_for(run, job.device) != job.device
    if elsewhere or not run.schedule.epochs or run.inputs.kind != "crop-flip":
        return ""
    cache = (job.out / "cache").resolve()
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=job.out, prefix="warm-up-") as folder:
        (Path(folder) / "cache").symlink_to(cache)
        problems = (train(link, replace(job, out=Path(folder))) for link in briefly(run).chain)
        return next(filter(None, problems), "")


def briefly(run: Run) -> Run:
    """The same with one epoch a stage, and so what it starts from; of cached views one is made."""
    changes: dict[str, Any] = {"views": 1} if hasattr(run.method, "views") else {}
    for each in fields(run.method):
        if isinstance(value := getattr(run.method, each.name), Schedule):
            changes[each.name] = _one_epoch(value)
    method = replace(run.method, **changes)
    return replace(run, method=method, schedule=_one_epoch(run.schedule), start=run.start and briefly(run.start))


def _one_epoch(schedule: Schedule) -> Schedule:
    return replace(schedule, epochs=min(schedule.epochs, 1), milestones=(), warmup=min(schedule.warmup, 1))


@lru_cache(maxsize=2)
def _load(spec: Any, root: Path | None, cache: Path) -> Dataset:
    return load(spec, root, cache)


def _dataset(run: Run, root: Path | None, cache: Path) -> Dataset:
    dataset = _load(run.data, root, cache)
    if dataset.fingerprint != run.fingerprint:
        raise InputError(f"the {run.data.name} images changed while runs were under way; start the command again")
    return dataset


def _environment(device: Any, workspace: Workspace, measured: dict[str, float], started: float) -> dict:
    import numpy
    import torch

    from common.training import has_bf16
    from common.tuning import cpu_name

    images, seconds = (sum(line[name] for line in workspace.lines) for name in ("images", "seconds"))
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else cpu_name(),
        "precision": device.precision,
        "native_bf16": has_bf16(device.type),
        "threads": workspace.threads,
        "images_per_second_by_threads": measured,
        "steps": dict(workspace.steps),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "images_per_second": round(images / seconds, 1) if seconds else None,
        "training_seconds": round(seconds, 1),
        "seconds": round(time.perf_counter() - started, 1),
    }


@lru_cache(maxsize=1)
def commit() -> dict[str, Any]:
    """Commit of the code that runs and whether the tree differs from it; unknown outside a git checkout."""
    root = Path(__file__).resolve().parents[1]

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout

    try:
        head = git("rev-parse", "HEAD").strip()
        # Records, figures and notes do not decide a result; code and configuration do.
        changed = git("status", "--porcelain", "--", *PACKAGES, ":!*.json", ":!*.md").strip()
        return {"commit": head, "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown", "dirty": True}


def launch(
    runs: Iterable[Run], job: Job, finished: set[str], progress: Callable[[int], None] = lambda images: None
) -> Iterator[Outcome]:
    """Train every run not in `finished` (hashes), shared starts first, and yield each as it ends.

    A failed run does not stop the others, only those that start from it. On KeyboardInterrupt workers are stopped
    where they are; their checkpoints let the same command go on.
    """
    waiting = unfinished(runs, finished)
    if job.jobs == 1:
        yield from _in_turn(waiting, job, progress)
    else:
        yield from _side_by_side(waiting, job, progress)


def unfinished(runs: Iterable[Run], finished: set[str]) -> list[Run]:
    """The runs to train with those they start from, each once, starts first."""
    ordered = {r.hash: r for run in runs if run.hash not in finished for r in run.chain}
    return [run for digest, run in ordered.items() if digest not in finished]


def _blocked(run: Run, failed: dict[str, str]) -> str:
    start = run.start.hash if run.start else ""
    return f"not started: run {start}, which it starts from, failed" if start in failed else ""


def _in_turn(waiting: list[Run], job: Job, progress: Callable[[int], None]) -> Iterator[Outcome]:
    failed: dict[str, str] = {}
    for run in waiting:
        problem = _blocked(run, failed) or train(run, job, progress)
        if problem:
            failed[run.hash] = problem
        yield Outcome(run, problem)


def _side_by_side(waiting: list[Run], job: Job, progress: Callable[[int], None]) -> Iterator[Outcome]:
    captured = job.device == "cuda" and all(run.inputs.kind == "crop-flip" for run in waiting)
    pool: _Processes | _Threads = _Threads(job) if captured else _Processes(job)
    running = dict[Future, Run]()
    pending, failed = {run.hash: run for run in waiting}, dict[str, str]()
    open_runs = set(pending)  # waiting or running: whatever starts from these is not ready
    again = set[str]()  # runs whose worker died once; they go on from their last epoch
    try:
        while pending or running:
            alone = bool(again & open_runs)  # a run whose worker died takes no other with it if it dies again
            for run in list(pending.values()):
                if len(running) == job.jobs or (run.start and run.start.hash in open_runs):
                    continue
                if alone and (running or run.hash not in again):
                    continue
                del pending[run.hash]
                if problem := _blocked(run, failed):
                    open_runs.discard(run.hash)
                    failed[run.hash] = problem
                    yield Outcome(run, problem)
                else:
                    running[pool.submit(run)] = run
            done, _ = wait(running, timeout=0.3, return_when=FIRST_COMPLETED)
            for images in drain(pool.queue):
                progress(images)
            for future in done:
                run = running.pop(future)
                died = isinstance(future.exception(), BrokenProcessPool)
                if died and run.hash not in again:
                    again.add(run.hash)
                    pending = {run.hash: run, **pending}
                    continue
                problem = DIED if died else future.result()
                open_runs.discard(run.hash)
                if problem:
                    failed[run.hash] = problem
                yield Outcome(run, problem)
    finally:
        pool.kill()


DIED = "its worker process died twice (out of memory?); with fewer --jobs the same command goes on from its last epoch"


class _Processes:
    """A worker process for each run at a time. One that dies takes the pool with it, so a new one is made."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        self.queue = context.Queue()  # new with every pool: a worker killed while writing leaves its queue locked
        self.pool = ProcessPoolExecutor(self.job.jobs, context, _start_worker, (self.queue, os.getpid()))

    def submit(self, run: Run) -> Future:
        try:
            return self.pool.submit(_work, run, self.job)
        except BrokenProcessPool:
            self.kill()
            self._start()
            return self.pool.submit(_work, run, self.job)

    def kill(self) -> None:
        for process in list((self.pool._processes or {}).values()):
            process.kill()
        self.pool.shutdown(wait=False, cancel_futures=True)


class _Threads:
    """A thread of this process for each run at a time, each on its own CUDA stream.

    Processes only take turns on a GPU; streams of one process run side by side, and a captured step (see
    `common.graphs`) needs Python for one launch, so that threads do not wait for each other. An error of the device
    itself, such as an illegal address, ends every run of the process; the same command goes on.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.queue, self.stopped = job, SimpleQueue[int](), threading.Event()
        self.pool = ThreadPoolExecutor(job.jobs)

    def submit(self, run: Run) -> Future:
        return self.pool.submit(train, run, self.job, self._report)

    def _report(self, images: int) -> None:
        self.queue.put(images)
        if self.stopped.is_set():  # between two epochs; what was saved lets the run go on
            raise RunFailed("interrupted; the same command goes on from its last saved epoch")

    def kill(self) -> None:
        self.stopped.set()
        self.pool.shutdown(wait=True, cancel_futures=True)


def drain(queue: Any) -> Iterator[int]:
    """Numbers of images trained, as workers have reported them since the last call."""
    while True:
        try:
            yield queue.get_nowait()
        except Empty:
            return


_queue: Any = None  # of this worker process, set once by its initialiser


def _start_worker(queue: Any, parent: int) -> None:
    global _queue
    _queue = queue
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent: int) -> None:
    """End this worker when its parent is gone, so that a killed command leaves nothing behind."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work(run: Run, job: Job) -> str:
    return train(run, job, _queue.put)
