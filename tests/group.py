"""Starts a group of processes as torchrun does, but forked from a test, with everything that the test has set up."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from killed import job

from common.command import launcher, ranks
from common.runs import Run


def together(count: int, lead: Callable[[], int]) -> list[int | None]:
    """Return the exit codes of `count` processes. The first one does what `lead` does.

    As under torchrun, the others are ended if one of them fails.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = get_context("fork")
    processes = [context.Process(target=_member, args=(i, count, port, lead)) for i in range(count)]
    for process in processes:
        process.start()
    while any(p.exitcode is None for p in processes) and not any(p.exitcode for p in processes):
        time.sleep(0.02)
    for process in processes:
        process.terminate()
        process.join()
    return [process.exitcode for process in processes]


def _member(rank: int, count: int, port: int, lead: Callable[[], int]) -> None:
    words = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in words.items()} | {"TORCHELASTIC_RUN_ID": "test"})
    os._exit(ranks.together(lead))


def trained(count: int, run: Run, out: Path, progress: Callable[[int], Any] = lambda images: None) -> list[int | None]:
    """Return the exit codes of processes that train a run and its starts in `out`."""

    def lead() -> int:
        problems = [launcher.train(link, job(out), progress) for link in run.chain]
        print(*filter(None, problems), flush=True)
        return int(any(problems))

    return together(count, lead)
