"""What has become of the runs of a results folder, whoever trains them: `reproduce status`."""

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
"""In a run's folder: why it failed, in a line, until it is tried again."""


def note(out: Path, outcome: Outcome) -> None:
    """Leave the reason in the folder of a run that failed, and remove that of an earlier failure where it did not."""
    path = out / "runs" / outcome.run.hash / FAILED
    with suppress(OSError):  # on a full disk the reason itself may find no room
        if outcome.ending == "failed":
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, outcome.problem + "\n")
        else:
            path.unlink(missing_ok=True)


def reason(folder: Path) -> str:
    """Why the run of a folder failed, in a line; "" where it did not."""
    path = folder / FAILED
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


@dataclass(frozen=True)
class StatusArguments:
    """Say which runs are queued, running, finished and failed, and how long is left."""

    out: Path = Path("results")
    """The results folder to look at."""


@dataclass(frozen=True)
class Standing:
    """How a run stands that is not finished."""

    state: Literal["running", "queued", "failed", "stopped"]
    words: str
    left: int = 0
    """Images it is still to be trained on, as far as a job knows them."""
    rate: float = 0.0
    """Images a second at which it is trained now."""


def status(args: StatusArguments) -> None:
    """Print a line for each run that is not finished, and a sum. Raises InputError where Slurm does not answer."""
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
    """How the run of a folder stands, from the job that has it, if any, and from what it has left there."""
    lines = read_lines(folder / "metrics.jsonl")
    images, rate = sum(line["images"] for line in lines), lines[-1]["images_per_second"] if lines else 0.0
    words, left = entry.words if entry else _words(folder), max(entry.images - images, 0) if entry else 0
    if entry and job and job.waits:
        return Standing("queued", f"{words}: job {entry.job}, {job.reason}", left)
    problem = reason(folder)  # removed when a job is submitted, so of the job that has the run now
    if entry and job and not problem:
        time = f", about {duration(left / rate)} left" if rate else ""
        return Standing("running", f"{words}: job {entry.job}{time}", left, rate)
    if not job and folder.exists() and locked(folder):
        return Standing("running", words, left, rate)
    if problem := problem or (board.last_words(entry.job) if entry else ""):
        return Standing("failed", f"{words}: {problem}")
    return Standing("stopped", f"{words}: the same command goes on with it")


def _words(folder: Path) -> str:
    """A run in a few words, from its configuration."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return f"{config['method']['type']}, order {config['order']}, seed {config['seed']} ({folder.name})"
    except (OSError, ValueError, KeyError, TypeError):
        return f"a run without a readable config.json ({folder.name})"
