"""Trains runs one after another in this process, or several at once in a pool (see `common.command.pools`)."""

from __future__ import annotations

import errno
import math
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common.command import ranks
from common.command.console import DISK_FULL
from common.command.devices import Gpus, asked_threads
from common.command.environment import code_of, commit, environment
from common.command.pools import UNGUARDED, Here, Processes, Threads, drain
from common.command.waiting import Outcome, Waiting, unfinished
from common.data.datasets import Dataset, load
from common.errors import InputError, NotCaptured, OutOfTime, RunFailed, in_a_line
from common.runs import Run, Schedule
from common.store import Busy, Store


@dataclass(frozen=True)
class Job:
    """Says where runs are written and on which hardware they train. No field changes the outcome of a run."""

    out: Path
    data: Path | None
    device: str
    jobs: int
    threads: int
    """The most CPU threads that a run may use. The number it does use is measured (see `common.tuning`), or is that of
    OMP_NUM_THREADS."""
    deadline: float = math.inf
    """The `time.time` (seconds since 1970) after which no epoch begins."""
    stop: Path | None = None
    """The path of a file. Once the file exists, no run is started and no epoch begins."""
    eager: str = ""
    """Why steps are called from Python on a device that captures them as graphs; empty if they are captured."""
    gpus: tuple[str, ...] = ()
    """GPUs that share the runs, as CUDA_VISIBLE_DEVICES names them; `jobs` runs train on each. Empty for one device."""
    methods: frozenset[type] = frozenset()
    """Classes of the methods whose learners a worker process loads before its first run."""


def train(run: Run, job: Job, progress: Callable[[int], None] = lambda images: None) -> str:
    """Train one run to its end, or resume it. Returns its problem in one line, or "" if the run is finished."""
    return attempt(run, job, progress).problem


def attempt(run: Run, job: Job, progress: Callable[[int], None] = lambda images: None) -> Outcome:
    """Train one run to its end, or resume it, and return how it ended. progress: takes numbers of trained images."""
    from common.graphs import eagerly

    try:
        with eagerly() if job.eager else nullcontext():
            train_here(run, job, progress)
    except OutOfTime:
        return Outcome(run, "out of time; the same command goes on from here", "out of time")
    except NotCaptured as error:
        return Outcome(run, str(error), "not captured")
    except Busy as error:
        late = time.time() >= job.deadline
        return Outcome(run, str(error), "out of time" if late else "busy")
    except (RunFailed, InputError) as error:
        problem = in_a_line(error)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        problem = DISK_FULL.format(job.out) if full else f"{type(error).__name__}: {in_a_line(error)}"
    except Exception as error:  # one run's bug must not stop the others
        traceback.print_exc()
        problem = f"{type(error).__name__}: {in_a_line(error)}"
    else:
        return Outcome(run, "", "finished")
    return Outcome(run, problem, "failed")


def train_here(run: Run, job: Job, progress: Callable[[int], None]) -> None:
    """Train one run as `attempt` does, but raise whatever stops it.

    That is an error of `common.errors`, `Busy`, an OSError, or any other error if the code has a bug.
    """
    import torch

    from common import incremental
    from common.graphs import own_stream
    from common.training import Device
    from common.tuning import choose_threads

    ranks.announce(run, job)
    store = Store(job.out)
    dataset = _dataset(run, job.data, job.out / "cache")
    learner = incremental.learner_of(run.method)
    with ranks.open_run(store, run) as workspace:
        if ranks.as_first(lambda: store.load(run.hash) is not None):  # another process has finished it meanwhile
            return
        workspace.progress, workspace.deadline, workspace.stop = progress, job.deadline, job.stop
        started, code = time.perf_counter(), code_of(learner)  # the code as it was loaded; files may change later
        version = code.get("source") or code["commit"]
        workspace.commits = [version]
        device, measured = Device(learner.device_for(run, job.device), run.precision), dict[str, float]()
        asked = asked_threads()
        most = asked or (job.threads if job.device == "cpu" else 1)  # on a GPU, other runs need the other cores
        workspace.threads = workspace.saved_threads() or most
        if most > 1 and not asked and not workspace.saved_threads():
            workspace.threads, measured = choose_threads(run, device, most, job.out / "cache/threads.json")
        torch.set_num_threads(workspace.threads)
        # `cudnn.benchmark` synchronises the device, which breaks another thread's capture: only with one run at a time.
        torch.backends.cudnn.benchmark = job.jobs == 1
        torch.backends.cudnn.allow_tf32 = False  # fp32 must be fp32; bf16 is there for speed
        chain = len(run.protocol.sizes) > 1  # phases must run in sequence, so their kernels get priority
        with torch.cuda.stream(own_stream(high=chain)) if device.type == "cuda" else nullcontext():
            result = incremental.run(run, dataset, learner, workspace, device)
        earlier = [c for c in workspace.commits if c != version]
        eager = {"eager": job.eager} if job.eager else {}
        where = environment(device, workspace, measured, started)
        workspace.finish(result, {**code, "earlier_commits": earlier, **where, **eager})


def warm_up(run: Run, job: Job) -> str:
    """Train `run` and the runs it starts from for one epoch per stage, and throw the results away.

    Returns a problem as `train` does. To be called while no other run is under way: what CUDA's libraries set up on
    first use would break the captures of other runs. Runs that capture no graphs are skipped.
    """
    from common.incremental import learner_of

    elsewhere = learner_of(run.method).device_for(run, job.device) != job.device
    if elsewhere or not run.schedule.epochs or run.inputs.kind != "crop-flip":
        return ""
    cache = (job.out / "cache").resolve()
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=job.out, prefix="warm-up-") as folder:
        (Path(folder) / "cache").symlink_to(cache)
        problems = (train(link, replace(job, out=Path(folder))) for link in briefly(run).chain)
        return next(filter(None, problems), "")


def briefly(run: Run) -> Run:
    """Return the Run with one epoch per stage and one cached view; the Runs it starts from are cut down likewise."""
    changes: dict[str, Any] = {"views": 1} if hasattr(run.method, "views") else {}
    for each in fields(run.method):
        if isinstance(value := getattr(run.method, each.name), Schedule):
            changes[each.name] = _one_epoch(value)
    method = replace(run.method, **changes)
    return replace(run, method=method, schedule=_one_epoch(run.schedule), start=run.start and briefly(run.start))


def _one_epoch(schedule: Schedule) -> Schedule:
    return replace(schedule, epochs=min(schedule.epochs, 1), milestones=(), warmup=min(schedule.warmup, 1))


UNRESOLVED = (
    "this Run is not resolved: it does not say on which copy of its images and in which precision it trains; "
    'call run.resolved(fingerprint, precision) first, as with load(run.data, root).fingerprint and "fp32"'
)


@lru_cache(maxsize=2)
def _load(spec: Any, root: Path | None, cache: Path) -> Dataset:
    return load(spec, root, cache)


def _dataset(run: Run, root: Path | None, cache: Path) -> Dataset:
    if not (run.fingerprint and run.precision):
        raise InputError(UNRESOLVED)
    dataset = _load(run.data, root, cache)
    if dataset.fingerprint != run.fingerprint:
        raise InputError(f"the {run.data.name} images changed while runs were under way; start the command again")
    return dataset


def launch(
    runs: Iterable[Run],
    job: Job,
    finished: set[str],
    progress: Callable[[int], None] = lambda images: None,
    threads: Mapping[str, int] | None = None,
) -> Iterator[Outcome]:
    """Train every run whose hash is not in `finished`, shared starts first. Yield the Outcome of each run as it ends.

    threads: the CPU threads of a run by its hash, if they are not `job.threads`. A failed run stops only the runs that
    start from it. A run whose step cannot be captured is yielded as "not captured", and trained at the end with its
    steps called from Python. A run that another process trains is yielded once as "busy", and tried again until that
    process has finished or left it. After the deadline no run is started, unless no run has made any progress yet. On
    KeyboardInterrupt the workers are stopped where they are; the same command resumes from their checkpoints. Raises
    InputError if no worker process can be started, as by a script that trains when it is imported.
    """
    todo, cores = unfinished(runs, finished), os.cpu_count() or 1
    jobs = job.jobs * max(1, len(job.gpus))
    load_code({type(run.method) for run in todo})
    own = {run.hash: (threads or {}).get(run.hash, job.threads) for run in todo}
    waiting = Waiting(todo, own, max(cores, jobs * job.threads))
    running = dict[Future, Run]()
    pool = _pool(job, waiting.runs.values(), progress)
    try:
        while waiting.runs or running:
            late, stopped = time.time() >= job.deadline, bool(job.stop and job.stop.exists())
            if stopped or (late and waiting.advanced):
                waiting.runs.clear()
            for run in waiting.ready(running.values(), 1 if late else jobs):
                if problem := waiting.blocked(run):
                    yield waiting.end(Outcome(run, problem, "failed"))
                else:
                    eager = waiting.eager.get(run.hash, "")
                    running[pool.submit(run, replace(job, threads=own[run.hash], eager=eager))] = run
            done, _ = wait(running, timeout=0.3, return_when=FIRST_COMPLETED)
            if not running:  # other processes train the runs that are left
                time.sleep(0.3)
            for images in drain(pool.queue):
                progress(images)
            for future in done:
                run = running.pop(future)
                if not isinstance(future.exception(), BrokenProcessPool):
                    again = run.hash in waiting.busy
                    if waiting.end(future.result()).ending != "busy" or not again:
                        yield future.result()
                elif isinstance(pool, Processes | Gpus) and not pool.began.is_set():
                    raise InputError(UNGUARDED)
                elif not waiting.again(run):
                    yield waiting.end(Outcome(run, DIED, "failed"))
    finally:
        pool.kill()


def load_code(methods: Iterable[type]) -> None:
    """Load the learners of some methods and look up the commit of their code, before any of them trains.

    Files that change while a queue is under way then do not affect it. Raises InputError as `learner_of` does.
    """
    from common.incremental import learner_of

    commit()
    for method in methods:
        code_of(learner_of(method))


def _pool(job: Job, runs: Iterable[Run], progress: Callable[[int], None]) -> Here | Processes | Threads | Gpus:
    if job.gpus:
        return Gpus(job, runs)
    if job.jobs == 1:
        return Here(attempt, progress)
    if job.device == "cpu" or any(run.inputs.kind != "crop-flip" for run in runs):
        return Processes(attempt, job.jobs, partial(load_code, {type(run.method) for run in runs}))
    for run in {(run.paper, type(run.method), run.network): run for run in runs}.values():
        warm_up(run, job)  # its problem is ignored: the run itself will report it
    return Threads(attempt, job.jobs)


DIED = "its worker process died twice (out of memory?); with fewer --jobs the same command goes on from its last epoch"
