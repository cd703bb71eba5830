"""What `faults.py` works with: commands on folders of their own, and what undisturbed ones have measured."""

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
SMALL = ("lucir", "--only", "fig3a", "--epochs-scale", "0.25")  # a base model, and iCaRL from it


class Skipped(Exception):
    """This machine does not allow the fault."""


@dataclass
class Row:
    """What was tried of one fault, and what came of it."""

    fault: str
    tried: str
    lost: int = 0
    differing: int = 0
    unexpected: list[str] = field(default_factory=list)
    """Ends of commands that are not as promised, such as a traceback."""
    skipped: str = ""

    @property
    def sound(self) -> bool:
        return not (self.lost or self.differing or self.unexpected)


@dataclass(eq=False)
class Bench:
    """The temporary folder, the options, and what undisturbed commands have measured."""

    folder: Path
    scale: float
    dice: random.Random

    def words(self, small: bool, out: Path, *more: str) -> list[str]:
        """The words of a command: of the queue of all papers, two at once, or of the small one."""
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
        """A command, on one core or on two; `before`: Python that is executed in its process first."""
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
        """(exit code, what it printed) of a command that is left in peace."""
        process = self.start(small, out, *more, before=before)
        printed = process.communicate()[0]
        return process.returncode, printed

    def fresh(self, name: str, small: bool = True) -> Path:
        """A new output folder, whose data are those that the undisturbed command has prepared."""
        out = self.folder / f"{name}-{self.dice.randrange(10**9)}"
        out.mkdir()
        (out / "cache").symlink_to(self.reference(small) / "cache")
        return out

    @cache  # noqa: B019
    def reference(self, small: bool) -> Path:
        """The folder of the undisturbed command."""
        text = "".join(f"{line} --epochs-scale {self.scale:g}\n" for line in LINES)
        (self.folder / "queue.txt").write_text(text, encoding="utf-8")
        out = self.folder / ("small" if small else "all")
        code, printed = self.run(small, out)
        if code:
            raise SystemExit(f"the undisturbed command failed:\n{printed}")
        return out

    @cached_property
    def startup(self) -> float:
        """Seconds until the command of all papers has logged its first epoch."""
        out, started = self.fresh("startup", small=False), time.monotonic()
        process = self.start(False, out)
        while process.poll() is None and not list(out.glob("runs/*/metrics.jsonl")):
            time.sleep(0.1)
        taken = time.monotonic() - started
        stop(process, signal.SIGKILL)
        return taken

    def finish(self, row: Row, small: bool, out: Path, code: int = 0) -> None:
        """Let a command come to its end, and count what is lost and what differs."""
        ended, printed = self.run(small, out)
        self.expect(row, ended, code, printed)
        self.compare(row, small, out)

    def expect(self, row: Row, ended: int, code: int, printed: str, words: str = "") -> None:
        """Note an end that is not as promised."""
        if ended != code or words not in printed or "Traceback" in printed:
            row.unexpected.append(f"exit code {ended}, not {code} with {words!r}: {' '.join(printed.split())[-300:]}")

    def compare(self, row: Row, small: bool, out: Path) -> None:
        expected, found = measured(self.reference(small)), measured(out)
        row.lost += len(expected.keys() - found.keys())
        row.differing += sum(found[name] != expected[name] for name in expected.keys() & found.keys())
        shutil.rmtree(out, ignore_errors=True)


def measured(out: Path) -> dict[str, tuple]:
    """What every finished run has left that does not depend on the clock, by hash."""
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
    """Send a signal to the command itself, and wait for its end and its workers'. What it printed."""
    if process.poll() is None:
        os.kill(process.pid, number)
    printed = process.communicate()[0]  # its workers hold the pipe until they have noticed
    return printed


def same(ours: Result, other: Result) -> bool:
    """Whether two results hold the same for all that figures read of them."""
    parts = [(r.config, r.phases(), r.values["summary"], r.values["trace"]) for r in (ours, other)]
    *_, readouts = other.phases()[-1]["stages"].values()
    return (
        parts[0] == parts[1]
        and all(ours.environment.get(name) == value for name, value in other.environment.items())
        and all((ours.confusion(name) == other.confusion(name)).all() for name in readouts)
    )


def children(pid: int) -> list[int]:
    """Processes that `pid` has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for task in tasks for word in task.read_text(encoding="utf-8").split()]
