"""Chooses the CPU threads and GPUs that a command uses, and runs one process for each GPU if there are several."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from common.command.waiting import Outcome
from common.errors import InputError
from common.runs import Run

if TYPE_CHECKING:
    from common.command.launcher import Job

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The environment variable that lists the GPUs that CUDA sees. Their order there makes them cuda:0, cuda:1 ..."""


def asked_threads() -> int | None:
    """Return the CPU threads per run that OMP_NUM_THREADS asks for, or None if it is unset or not a number."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # later entries are for nested regions
    return int(first) if first.isdecimal() and int(first) else None


def several() -> bool:
    """Return whether this is one of several processes that torchrun has started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def visible(count: int) -> list[str]:
    """Return the names of the GPUs that CUDA sees: those in the environment variable, else "0" to `count` - 1."""
    given = os.environ.get(VISIBLE)
    return [str(i) for i in range(count)] if given is None else [name for name in given.split(",") if name]


_taken: list[str] = []
"""The GPU that is the only one CUDA sees in this process, such as "cuda:1"; empty as long as CUDA sees all."""


def pinned(device: str) -> str:
    """Make GPU N the only one that CUDA sees if `device` is "cuda:N", and return "cuda". Return other words unchanged.

    If torchrun has started several processes, "cuda" and "auto" give each process a GPU of its own. The first call must
    come before CUDA is used. Raises InputError if there is no such GPU, or if this process already has another one.
    """
    if device == "cpu" or not (device.startswith("cuda:") or several()):
        return device
    import torch

    if several():
        if device.startswith("cuda:"):
            raise InputError(f"--device {device}: torchrun gives each of its processes a GPU of its own; say cuda")
        if device == "auto" and not torch.cuda.is_available():
            return "cpu"
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    if _taken and device not in _taken:
        raise InputError(f"--device {device}: this process has {_taken[0]} already; train there from another process")
    if _taken:
        return "cuda"
    if torch.cuda.is_initialized():
        raise InputError(f"--device {device}: this process uses CUDA already; train there from another process")
    number, before = int(device.removeprefix("cuda:")), os.environ.get(VISIBLE)
    os.environ[VISIBLE] = ",".join(visible(number + 1)[number : number + 1])
    if not torch.cuda.is_available():
        if before is None:
            del os.environ[VISIBLE]
        else:
            os.environ[VISIBLE] = before
        raise InputError(f"--device {device}: torch sees no such GPU; the first is cuda:0, and --device cuda takes all")
    _taken.append(device)
    return "cuda"


def together(device: str, runs: int) -> tuple[str, ...]:
    """Return the GPUs that share `runs` runs: all that CUDA sees, at most one per run.

    The result is empty if there would be only one GPU, or if `device` is not "cuda".
    """
    if device != "cuda":
        return ()
    import torch

    found = visible(torch.cuda.device_count())[:runs]
    return tuple(found) if len(found) > 1 else ()


def describe(device: str) -> str:
    """Return which device `--device` means on this machine, for `--list`. Asks nvidia-smi, so torch is not loaded."""
    try:
        words = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        names = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        names = []
    seen = [f"GPU {gpu}" + (f" ({names[int(gpu)]})" if gpu in map(str, range(len(names))) else "")
            for gpu in visible(len(names))]  # fmt: skip
    if device == "cpu" or (device == "auto" and not seen):
        return "the CPU"
    if device.startswith("cuda:"):
        return (seen[int(device[5:]) :] or [f"no GPU: {device} is not here"])[0]
    return ", ".join(seen) + (", a process each" if len(seen) > 1 else "") if seen else "no GPU: none is found here"


class Gpus:
    """Starts one process for each GPU in `job.gpus`. Each process trains `job.jobs` runs at a time."""

    def __init__(self, job: Job, runs: Iterable[Run]) -> None:
        self.queue, self.began = SimpleQueue[int](), threading.Event()
        waiting = list(runs)
        inside = replace(job, gpus=(), methods=frozenset(type(run.method) for run in waiting))
        self.gpus = [_Gpu(name, inside, waiting, self) for name in job.gpus]

    def submit(self, run: Run, job: Job) -> Future:
        """Give a run to the GPU that has the fewest runs.

        The future gives the run's Outcome, or raises BrokenProcessPool if the GPU's process dies.
        """
        return min(self.gpus, key=lambda gpu: len(gpu.futures)).submit(run, replace(job, gpus=()))

    def kill(self) -> None:
        for gpu in self.gpus:
            gpu.process.kill()


class _Gpu:
    """One GPU, its process, and the runs that train there. If the process has died, the next run starts it again."""

    def __init__(self, name: str, job: Job, runs: Sequence[Run], pool: Gpus) -> None:
        self.name, self.job, self.runs, self.pool = name, job, runs, pool
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        self.futures: dict[str, Future] = {}
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.job, self.runs, os.getpid()))
        with _seeing(self.name):
            self.process.start()
        theirs.close()
        threading.Thread(target=self._listen, args=(self.connection, self.futures), daemon=True).start()

    def submit(self, run: Run, job: Job) -> Future:
        if not self.process.is_alive():
            self._start()
        future = self.futures[run.hash] = Future[Outcome]()
        try:
            self.connection.send((run, job))
        except OSError:
            _break(self.futures)
        return future

    def _listen(self, connection: Any, futures: dict[str, Future]) -> None:
        """Receive the reports of one process until it ends. Then fail the futures of its unfinished runs."""
        with suppress(EOFError, OSError):
            while True:
                report = connection.recv()
                self.pool.began.set()
                if isinstance(report, int):
                    self.pool.queue.put(report)
                else:
                    futures.pop(report.run.hash).set_result(report)
        _break(futures)


def _break(futures: dict[str, Future]) -> None:
    while futures:
        with suppress(KeyError):
            futures.popitem()[1].set_exception(BrokenProcessPool())


@contextmanager
def _seeing(gpu: str) -> Iterator[None]:
    """Let processes that start inside this context see only `gpu`, as their cuda:0."""
    before = os.environ.get(VISIBLE)
    os.environ[VISIBLE] = gpu
    try:
        yield
    finally:
        del os.environ[VISIBLE]
        os.environ.update({VISIBLE: before} if before is not None else {})


def _serve(connection: Any, job: Job, runs: Sequence[Run], parent: int) -> None:
    """Train the runs that come through the connection, in the process of one GPU.

    Reports go back through the connection: numbers of trained images, and the Outcome of each run.
    """
    from common.command import launcher, pools

    pools.leave_signals()
    threading.Thread(target=pools.die_with, args=(parent,), daemon=True).start()
    lock = threading.Lock()

    def report(what: int | Outcome) -> None:
        with lock:
            connection.send(what)

    report(0)  # tells the parent that this process has begun
    launcher.load_code(job.methods)
    pool = launcher._pool(job, runs, report)
    while True:
        for images in pools.drain(pool.queue):
            report(images)
        if connection.poll(0.3):
            run, own = connection.recv()
            pool.submit(run, own).add_done_callback(partial(_end, run, report))


def _end(run: Run, report: Callable[[Outcome], None], future: Future) -> None:
    error = future.exception()
    report(Outcome(run, f"{type(error).__name__}: {error}", "failed") if error else future.result())
