"""Trains one run on several devices: `torchrun --nproc-per-node N -m PAPER.train ...` starts N processes that share it.

The first process plans, prints, and reads and writes the run's folder, as a single process does. The others wait for
the runs that it announces and train them together with it. `common.training` divides the work: the images of every
batch, the gradients, and the features for herding and tests.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn, TypeVar

from common.checkpoints import Saved
from common.command.devices import pinned, several
from common.errors import InputError, OutOfTime, RunFailed
from common.runs import Run
from common.store import Store, Workspace

if TYPE_CHECKING:
    from torch import Tensor

    from common.command.launcher import Job

PATIENCE = timedelta(hours=12)
"""How long a process waits for the others. The first one may have much to do alone, such as reading a large folder. If
a process dies, torchrun ends all of them."""

T = TypeVar("T")


def together(lead: Callable[[], int]) -> int:
    """Call `lead` and return its exit code. Under torchrun only the first process calls it, and the others help."""
    if not several():
        return lead()
    import torch
    import torch.distributed as dist

    # Python objects go through gloo, tensors on a GPU through NCCL, which does nothing before it is used.
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    if dist.get_rank():
        try:
            _leave(_follow())
        except RuntimeError as error:
            if "by peer" not in str(error):
                raise
            return 1  # the first process has ended, and has said why
    try:
        code = lead()
    except SystemExit as ended:  # as --help does
        code = int(ended.code or 0)
    if code in (0, 130):  # after a failure the others may not listen any more, and torchrun ends them
        as_first(lambda: None)
        _leave(code)
    return code


def _leave(code: int) -> NoReturn:
    """End this process of a group at once. Python's usual clean-up may run into gloo's threads, which then abort it."""
    import torch.distributed as dist

    dist.barrier()  # no process ends while another still listens to it
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def check() -> None:
    """Raise InputError if torchrun has started a command whose work its processes cannot share."""
    if several():
        from common.distributed import ranks

        if ranks() == 1:
            raise InputError(
                "torchrun is for `-m PAPER.train`, where processes share one run; start other commands without it: "
                "--device cuda shares their runs between the GPUs"
            )


def check_norms(runs: Iterable[Run], device: str) -> None:
    """Raise InputError if a run asks for synchronised BatchNorm where PyTorch has none, or where it changes nothing."""
    if any(run.sync_batchnorm for run in runs) and not (several() and device == "cuda"):
        raise InputError(
            "--sync-batchnorm is for several processes on GPUs, as torchrun starts them: one process has all images of "
            "a batch anyway, and torch synchronises no BatchNorm on CPUs; leave it out"
        )


def _follow() -> int:
    """Train the runs that the first process announces, until it announces no more."""
    from common.command.launcher import train_here

    while task := as_first(lambda: None):
        run, job = task
        pinned(job.device)
        try:
            train_here(run, job, lambda images: None)
        except (OutOfTime, RunFailed):  # the first process meets the same error, and reports it
            continue
    return 0


def announce(run: Run, job: Job) -> None:
    """Tell the other processes to train a run together with the first. Does nothing in those or without them."""
    from common.distributed import rank

    if rank() == 0:
        as_first(lambda: (run, job))


def as_first(find: Callable[[], T]) -> T:
    """Call `find` in the first process only, and return its value in all processes."""
    from common.distributed import rank, ranks

    if ranks() == 1:
        return find()
    import torch.distributed as dist

    found = [find() if rank() == 0 else None]
    dist.broadcast_object_list(found, 0)
    return found[0]  # type: ignore[return-value]


@contextmanager
def open_run(store: Store, run: Run) -> Iterator[Workspace]:
    """Open a run's folder, for one process or for all that train it together. Only the first locks and writes it."""
    from common.distributed import rank, ranks

    if rank():
        yield Shared(store.folder(run), store, ranks=ranks())
        return
    with store.open(run) as workspace:
        yield workspace if ranks() == 1 else Shared(workspace.folder, store, ranks=ranks())


@dataclass
class Shared(Workspace):
    """The folder of a run that several processes train. The first one reads and writes it, and tells the others."""

    def __post_init__(self) -> None:
        from common.distributed import rank

        self.first = rank() == 0

    def log(self, line: dict) -> None:
        if self.first:
            super().log(line)
        else:
            self.lines.append(line)

    @property
    def late(self) -> bool:
        return as_first(lambda: Workspace.late.__get__(self))

    def restore(self) -> tuple[Saved | None, Saved | None]:
        def found() -> tuple:
            saved = Workspace.restore(self)
            return saved, self.phases, self.confusion, self.lines

        saved, self.phases, self.confusion, self.lines = as_first(found)
        return saved

    def keep(self, name: str, tensors: dict[str, Tensor]) -> None:
        as_first(lambda: Workspace.keep(self, name, tensors))  # all processes may read the file from here on

    def _save(self, name: str, tensors: dict[str, Tensor], meta: dict) -> None:
        if self.first:
            super()._save(name, tensors, meta)

    def finish(self, result: dict, environment: dict) -> None:  # type: ignore[override]
        if self.first:
            super().finish(result, environment)
