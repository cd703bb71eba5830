"""Records which job of a cluster has which runs, and asks the cluster which jobs are alive.

OUT/cluster/ holds submitit's scripts and logs, and `jobs.jsonl` with one line per job. If several jobs had a run, the
last one counts. Only Slurm knows whether a job is alive, not a file or a lock: locks are unreliable if OUT is shared by
NFS. The one lock here keeps two commands on the same machine from submitting at once.
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
    """One run as it was submitted to the cluster."""

    job: str
    engine: str
    """slurm or local."""
    words: str
    """A short description of the run."""
    images: int
    """Images that the run trains on over all epochs."""


@dataclass(frozen=True)
class Alive:
    """The state of a job that the cluster still knows."""

    waits: bool
    """Whether the job has not begun, or waits to begin again."""
    reason: str
    """Why the job waits, in the cluster's words."""


class Board:
    """Records the jobs of one results folder."""

    def __init__(self, out: Path) -> None:
        self.folder = out / "cluster"
        self.path = self.folder / "jobs.jsonl"

    def lock(self) -> FileLock:
        """Return the lock that a command holds while it looks up jobs and submits new ones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / "lock")

    def entries(self) -> dict[str, Entry]:
        """Return the last entry of each run, by the run's hash."""
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        lines = map(json.loads, text.splitlines())
        return {d: Entry(line["job"], line["engine"], *rest) for line in lines for d, *rest in line["runs"]}

    def add(self, engine: str, jobs: Iterable[tuple[str, Iterable[tuple[str, str, int]]]]) -> None:
        """Append jobs to `jobs.jsonl`. jobs: pairs of a job's id and its runs, each run as (hash, words, images)."""
        lines = [json.dumps({"job": job, "engine": engine, "runs": list(runs)}) + "\n" for job, runs in jobs]
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(lines))

    def alive(self) -> dict[str, Alive]:
        """Return the recorded jobs that wait or run, by id. Raises InputError if Slurm does not answer."""
        jobs = {entry.job: entry.engine for entry in self.entries().values()}
        found = {job: Alive(False, "") for job, engine in jobs.items() if engine == "local" and _runs_here(int(job))}
        if "slurm" in jobs.values():
            found |= {job: state for job, state in _queue().items() if job in jobs}
        return found

    def last_words(self, job: str) -> str:
        """Return the last line of a job's log, or "" if it has no log."""
        for name in (f"{job}_0_log.err", f"{job}_0_log.out"):
            with suppress(OSError):
                text = (self.folder / name).read_text(encoding="utf-8", errors="replace")
                if lines := [line.strip() for line in text.splitlines() if line.strip()]:
                    return lines[-1]
        return ""


def _queue() -> dict[str, Alive]:
    """Return this user's jobs in Slurm, by id. The id of a task in an array is ID_INDEX."""
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
        os.waitpid(process, os.WNOHANG)  # removes a child that has ended, which would else count as alive
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True
