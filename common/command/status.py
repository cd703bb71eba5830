"""`reproduce status`: tells how the runs of a results folder stand, wherever they are trained."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.checkpoints import write_atomic
from common.command.board import Alive, Board, Entry
from common.command.clean import locked
from common.command.messages import duration
from common.command.waiting import Outcome
from common.errors import InputError
from common.store import read_lines

FAILED = "failed.txt"
"""A file in a run's folder that says in one line why the run failed, until it is tried again."""


def note(out: Path, outcome: Outcome) -> None:
    """Write the reason into the folder of a run if it failed, else remove the reason of an earlier failure."""
    path = out / "runs" / outcome.run.hash / FAILED
    with suppress(OSError):  # on a full disk the reason itself may find no room
        if outcome.ending == "failed":
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, outcome.problem + "\n")
        else:
            path.unlink(missing_ok=True)


def reason(folder: Path) -> str:
    """Return in one line why the run in a folder failed, or "" if it did not."""
    path = folder / FAILED
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


@dataclass(frozen=True)
class StatusArguments:
    """Tell which runs are queued, running and failed, how many are finished, and how long the rest will take."""

    out: Path = Path("results")
    """The results folder to look at."""


@dataclass(frozen=True)
class Standing:
    """Holds the state of a run that is not finished."""

    state: Literal["running", "queued", "failed", "stopped"]
    words: str
    left: int = 0
    """Images still to train on; 0 if the run was not submitted as a job."""
    rate: float = 0.0
    """Images per second in the run's last epoch; 0 if it is not running."""


def status(args: StatusArguments) -> None:
    """Print a line for each unfinished run, and a summary. Raises InputError if Slurm does not answer."""
    if not (args.out / "runs").is_dir():
        raise InputError(f"--out {args.out} holds no runs; pass the folder a reproduce command wrote to")
    board = Board(args.out)
    jobs, entries = board.alive(), board.entries()
    names = {folder.name for folder in (args.out / "runs").iterdir() if folder.is_dir()} | entries.keys()
    unfinished = sorted(name for name in names if not (args.out / "runs" / name / "result.json").exists())
    standings = list[Standing]()
    for name in unfinished:
        entry = entries.get(name)
        found = _standing(board, args.out / "runs" / name, entry, jobs.get(entry.job) if entry else None)
        standings.append(found)
        print(f"{found.state:8} {found.words}")
    counts = Counter(each.state for each in standings)
    words = [f"{len(names) - len(unfinished)} finished", *(f"{n} {state}" for state, n in counts.items())]
    images, rate = sum(each.left for each in standings), sum(each.rate for each in standings)
    print(", ".join(words) + (f"; about {duration(images / rate)} left" if images and rate else ""))


def _standing(board: Board, folder: Path, entry: Entry | None, job: Alive | None) -> Standing:
    """Return the state of the run in a folder, given its entry and its job on the cluster, if any, and its files."""
    lines = read_lines(folder / "metrics.jsonl")
    images, rate = sum(line["images"] for line in lines), lines[-1]["images_per_second"] if lines else 0.0
    words, left = entry.words if entry else _words(folder), max(entry.images - images, 0) if entry else 0
    if entry and job and job.waits:
        return Standing("queued", f"{words}: job {entry.job}, {job.reason}", left)
    problem = reason(folder)  # removed when a job is submitted, so it comes from the job that has the run now
    if entry and job and not problem:
        time = f", about {duration(left / rate)} left" if rate else ""
        return Standing("running", f"{words}: job {entry.job}{time}", left, rate)
    if not job and folder.exists() and locked(folder):
        return Standing("running", words, left, rate)
    if problem := problem or (board.last_words(entry.job) if entry else ""):
        return Standing("failed", f"{words}: {problem}")
    return Standing("stopped", f"{words}: the same command goes on with it")


def _words(folder: Path) -> str:
    """Return a short description of a run, read from its config.json."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return f"{config['method']['type']}, order {config['order']}, seed {config['seed']} ({folder.name})"
    except (OSError, ValueError, KeyError, TypeError):
        return f"a run without a readable config.json ({folder.name})"
