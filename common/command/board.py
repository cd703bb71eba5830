"""Which job of a cluster has which runs: what was submitted is written down here, what is alive the cluster says.

OUT/cluster/ holds submitit's scripts and logs, and `jobs.jsonl`, a line a job. Whoever looks a run up takes the last
job that has it. Whether that job is alive is asked of Slurm, never read from a file or a lock: locks are not to be
relied on where OUT is shared by NFS. The one lock here keeps two commands on one machine from submitting at once.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from common.errors import InputError


@dataclass(frozen=True)
class Entry:
    """One run as it was submitted."""

    job: str
    engine: str
    """slurm or local."""
    words: str
    """The run in a few words."""
    images: int
    """What it trains on altogether."""


@dataclass(frozen=True)
class Alive:
    """A job that the cluster knows."""

    waits: bool
    """Whether it has not begun, or waits to begin again."""
    reason: str
    """Why it waits, as the cluster says."""


class Board:
    """The jobs of one results folder."""

    def __init__(self, out: Path) -> None:
        self.folder = out / "cluster"
        self.path = self.folder / "jobs.jsonl"

    def lock(self) -> FileLock:
        """Held while a command looks what is there and submits what is not."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / "lock")

    def entries(self) -> dict[str, Entry]:
        """The last job of each run, by the run's hash."""
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        lines = map(json.loads, text.splitlines())
        return {d: Entry(line["job"], line["engine"], *rest) for line in lines for d, *rest in line["runs"]}

    def add(self, engine: str, jobs: Iterable[tuple[str, Iterable[tuple[str, str, int]]]]) -> None:
        """Write down (job, its runs as (hash, words, images)) for each of some jobs."""
        lines = [json.dumps({"job": job, "engine": engine, "runs": list(runs)}) + "\n" for job, runs in jobs]
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(lines))

    def alive(self) -> dict[str, Alive]:
        """The jobs of these runs that wait or run, by id. Raises InputError where Slurm does not answer."""
        jobs = {entry.job: entry.engine for entry in self.entries().values()}
        found = {job: Alive(False, "") for job, engine in jobs.items() if engine == "local" and _runs_here(int(job))}
        if "slurm" in jobs.values():
            found |= {job: state for job, state in _queue().items() if job in jobs}
        return found

    def last_words(self, job: str) -> str:
        """The last line of a job's log; "" where it has none."""
        for name in (f"{job}_0_log.err", f"{job}_0_log.out"):
            with suppress(OSError):
                text = (self.folder / name).read_text(encoding="utf-8", errors="replace")
                if lines := [line.strip() for line in text.splitlines() if line.strip()]:
                    return lines[-1]
        return ""


def _queue() -> dict[str, Alive]:
    """What Slurm has of this user, by id; a task of an array is ID_INDEX."""
    command = ["squeue", "--me", "--array", "--noheader", "--format=%i|%T|%r"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    except FileNotFoundError:
        raise InputError("there is no squeue here; give this command on a machine that submits to Slurm") from None
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        problem = str(error.stderr or error).strip()
        raise InputError(f"squeue does not answer: {problem}; try again later") from None
    rows = [line.split("|", 2) for line in text.splitlines()]
    return {job: Alive(state == "PENDING", reason) for job, state, reason in rows}


def _runs_here(process: int) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(process, os.WNOHANG)  # of a child that has ended nothing remains then
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True
