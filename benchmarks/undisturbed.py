"""Helps `faults.py`: starts commands in folders of their own, and compares them with undisturbed commands."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.checkpoints import BOUNDARY, read_state  # noqa: E402
from common.drawing.results import Result  # noqa: E402
from common.store import CLOCK, Store, read_lines  # noqa: E402

LINES = (
    "lucir --only fig3a fig9",
    "der --only channels",
    "feature_adaptation --only fig5-alpha",
    "bbn --only fig4",
    "class_balanced --only table2-cifar100",
    "fsa --only fig4",
)
SMALL = ("lucir", "--only", "fig3a", "--epochs-scale", "0.25")  # a base model, and iCaRL that starts from it


class Skipped(Exception):
    """Raised if this machine does not allow the fault."""


@dataclass
class Row:
    """Holds what was tried for one fault, and the outcome."""

    fault: str
    tried: str
    lost: int = 0
    differing: int = 0
    unexpected: list[str] = field(default_factory=list)
    """Commands that ended in another way than promised, such as with a traceback."""
    skipped: str = ""

    @property
    def sound(self) -> bool:
        return not (self.lost or self.differing or self.unexpected)


@dataclass(eq=False)
class Bench:
    """Runs commands in a temporary folder, and compares their results with those of undisturbed commands."""

    folder: Path
    scale: float
    dice: random.Random

    def words(self, small: bool, out: Path, *more: str) -> list[str]:
        """Return the words of a command: the small one, or the queue of all papers with two runs at once."""
        queue = ["queue", str(self.folder / "queue.txt"), "--jobs", "2"]
        return [
            *(SMALL if small else queue),
            *(["--jobs", "1"] if small else []),
            "--device",
            "cpu",
            "--out",
            str(out),
            *more,
        ]

    def start(self, small: bool, out: Path, *more: str, before: str = "") -> subprocess.Popen[str]:
        """Start the small command on one core, or the queue of all papers on two, and return its process.

        before: Python code that runs first in the process.
        """
        code = f"{before}\nfrom common.command.cli import main\nmain()"
        cores = sorted(os.sched_getaffinity(0))[: 1 if small else 2] if hasattr(os, "sched_getaffinity") else []
        return subprocess.Popen(
            [sys.executable, "-c", code, *self.words(small, out, *more)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
        )

    def run(self, small: bool, out: Path, *more: str, before: str = "") -> tuple[int, str]:
        """Run a command to its end. Returns (exit code, what it printed)."""
        process = self.start(small, out, *more, before=before)
        printed = process.communicate()[0]
        return process.returncode, printed

    def fresh(self, name: str, small: bool = True) -> Path:
        """Make a new output folder that shares the data cache of the undisturbed command."""
        out = self.folder / f"{name}-{self.dice.randrange(10**9)}"
        out.mkdir()
        (out / "cache").symlink_to(self.reference(small) / "cache")
        return out

    @cache  # noqa: B019
    def reference(self, small: bool) -> Path:
        """Return the folder of the undisturbed command, which runs at the first call."""
        text = "".join(f"{line} --epochs-scale {self.scale:g}\n" for line in LINES)
        (self.folder / "queue.txt").write_text(text, encoding="utf-8")
        out = self.folder / ("small" if small else "all")
        code, printed = self.run(small, out)
        if code:
            raise SystemExit(f"the undisturbed command failed:\n{printed}")
        return out

    @cached_property
    def startup(self) -> float:
        """Seconds until the command of all papers logs its first epoch."""
        out, started = self.fresh("startup", small=False), time.monotonic()
        process = self.start(False, out)
        while process.poll() is None and not list(out.glob("runs/*/metrics.jsonl")):
            time.sleep(0.1)
        taken = time.monotonic() - started
        stop(process, signal.SIGKILL)
        return taken

    def finish(self, row: Row, small: bool, out: Path, code: int = 0) -> None:
        """Run the command to its end, and count the runs that are lost or differ."""
        ended, printed = self.run(small, out)
        self.expect(row, ended, code, printed)
        self.compare(row, small, out)

    def expect(self, row: Row, ended: int, code: int, printed: str, words: str = "") -> None:
        """Note the end of a command if it is not as promised. words: text that must have been printed."""
        if ended != code or words not in printed or "Traceback" in printed:
            row.unexpected.append(f"exit code {ended}, not {code} with {words!r}: {' '.join(printed.split())[-300:]}")

    def compare(self, row: Row, small: bool, out: Path) -> None:
        expected, found = measured(self.reference(small)), measured(out)
        row.lost += len(expected.keys() - found.keys())
        row.differing += sum(found[name] != expected[name] for name in expected.keys() & found.keys())
        shutil.rmtree(out, ignore_errors=True)


def measured(out: Path) -> dict[str, tuple]:
    """Return everything that finished runs have written and that does not depend on the clock, by hash."""
    found = dict[str, tuple]()
    for path in out.glob("runs/*/result.json"):
        state = read_state(path.parent / BOUNDARY)
        lines = [
            {k: v for k, v in line.items() if k not in CLOCK} for line in read_lines(path.parent / "metrics.jsonl")
        ]
        result = Store(out).load(path.parent.name)
        assert result is not None
        *_, readouts = result.phases()[-1]["stages"].values()
        arrays = [result.confusion(name).tobytes() for name in readouts]
        found[path.parent.name] = (path.read_bytes(), arrays, lines, state.checksum if state else None)
    return found


def stop(process: subprocess.Popen[str], number: int) -> str:
    """Send a signal to a command, and wait for it and its workers to end. Returns what it printed."""
    if process.poll() is None:
        os.kill(process.pid, number)
    printed = process.communicate()[0]  # workers keep the pipe open until they notice that the command is gone
    return printed


def same(ours: Result, other: Result) -> bool:
    """Return whether two results are equal in everything that figures read."""
    parts = [(r.config, r.phases(), r.values["summary"], r.values["trace"]) for r in (ours, other)]
    *_, readouts = other.phases()[-1]["stages"].values()
    return (
        parts[0] == parts[1]
        and all(ours.environment.get(name) == value for name, value in other.environment.items())
        and all((ours.confusion(name) == other.confusion(name)).all() for name in readouts)
    )


def children(pid: int) -> list[int]:
    """Return the ids of the processes that `pid` has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for task in tasks for word in task.read_text(encoding="utf-8").split()]
