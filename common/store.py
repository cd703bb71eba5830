"""Runs on disk. Results and checkpoints are written atomically, and a finished run is never trained again.

OUT/runs/HASH/ holds `config.json`, `environment.json`, `metrics.jsonl` (one line per epoch), `result.json`,
`arrays.npz` and `checkpoint.safetensors` (see `common.checkpoints`). A committed record, PAPER/records/HASH.json, holds
the same content of one run in a single file. Results and records carry a checksum.
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import Timeout

from common.checkpoints import (
    BOUNDARY,
    EPOCH,
    Damaged,
    Saved,
    checksum,
    lock,
    newest,
    previous,
    read_json,
    read_meta,
    read_state,
    sync,
    working_files,
    write,
    write_atomic,
)
from common.drawing.result_index import ResultIndex
from common.drawing.results import FORMAT, Result, array_checksum, read_record, require_whole
from common.errors import InputError, OutOfTime
from common.runs import Run, canonical, is_hash

if TYPE_CHECKING:
    from torch import Tensor

NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
CLOCK = ("seconds", "images_per_second")  # the only fields of metrics.jsonl that differ between equal runs
SAVE_EVERY = 2.0  # least seconds between checkpoints inside a phase, so that short epochs do not spend time on saving
CHEAP = 0.04  # seconds; a save that takes n times this long is n times rarer, so that saving takes 2 % of the time


class Busy(RuntimeError):
    """Raised when another process is working on this run."""


class Store:
    """The runs under one output folder, and the committed records that figures may use in their place."""

    def __init__(self, out: Path, records: list[Path] | None = None) -> None:
        self.runs = out / "runs"
        self.records = {p.stem: p for folder in records or [] for p in sorted(folder.glob("*.json"))}
        self.refused: dict[str, None] = {}
        """One note for each result or record that is damaged or of another version, with what to do about it. The notes
        are the keys, which keeps them in order and each of them once."""
        self._here = ResultIndex(self.hashes, self._read, self.refused)
        self._there = ResultIndex(self.records.values, read_record, self.refused)
        with suppress(OSError):  # the runs in somebody else's folder can be listed without writing to it
            self.runs.mkdir(parents=True, exist_ok=True)
        if os.path.exists(self.runs / "FORMAT"):  # Path.exists raises on a name that is too long
            self._check_format()

    def prepare(self) -> None:
        """Create the output folder, or check that this version can use it.

        Raises InputError if the folder cannot be written to, if another version wrote it, if its file system has no
        locks, which keep two commands from working on one run, or if its name is not UTF-8, as safetensors requires.
        """
        marker = self.runs / "FORMAT"
        try:
            os.fsencode(marker).decode()
        except UnicodeDecodeError:
            raise InputError(
                f"the name of --out {self.runs.parent} is not UTF-8; rename it, or choose another"
            ) from None
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            if not marker.exists():
                write_atomic(marker, f"{FORMAT}\n")
            lock(marker)
        except OSError as error:
            problem = f"cannot write to --out {self.runs.parent}: {error.strerror}; choose a folder you can write to"
            if error.errno in NO_LOCKS:
                problem = (
                    f"--out {self.runs.parent} is on a file system without locks ({error.strerror}), which keep two "
                    "commands off one run; choose a folder on another, such as a local disk"
                )
            raise InputError(problem) from None
        self._check_format()

    def _check_format(self) -> None:
        """Raise InputError if another version wrote the folder, or its marker cannot be read."""
        marker = self.runs / "FORMAT"
        try:
            found = marker.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise InputError(f"{marker} cannot be read ({error}); write a line with {FORMAT} into it") from None
        if found != str(FORMAT):
            raise InputError(
                f"{self.runs.parent} was written by another version (format {found[:20]!r}, this is {FORMAT}); choose "
                "another --out, or keep that folder with the version that wrote it"
            )

    def folder(self, run: Run) -> Path:
        """Return the folder of a Run, whether it exists or not."""
        return self.runs / run.hash

    def hashes(self) -> list[str]:
        """Return the hash of every run in the output folder, finished or not, in order."""
        return sorted(filter(is_hash, os.listdir(self.runs))) if self.runs.is_dir() else []

    def load(self, digest: str) -> Result | None:
        """Return the finished run with this hash in the output folder, or None. Raises Damaged if its files changed."""
        return self._here.get(digest)

    def _read(self, digest: str) -> Result | None:
        """Read a finished run and check it; None if there is no result. Raises Damaged.

        A folder of another name, such as a user's copy of a run, is no run.
        """
        folder = self.runs / digest
        if not is_hash(digest) or not (folder / "result.json").exists():
            return None
        remedy = f"delete {folder} and run the same command"
        config = read_json(folder / "config.json", remedy)
        values = read_json(folder / "result.json", remedy, {"config": config})
        environment = read_json(folder / "environment.json", remedy, allow_unchecked="arrays" not in values)
        arrays = values.pop("arrays", {})
        require_whole(folder / "result.json", digest, config, environment, values)
        return Result(digest, config, environment, values, folder / "arrays.npz", arrays)

    def forget(self, digest: str) -> None:
        """Drop a run from the list of finished ones, because its folder was deleted."""
        self._here.forget(digest)

    def load_or_note(self, digest: str) -> Result | None:
        """Return the finished run as `load` does. A damaged run is None, with a note in `refused`."""
        return self._here.get_or_note(digest)

    def record(self, path: Path) -> Result | None:
        """Read a committed record. A damaged record is None, with a note in `refused`."""
        return self._there.get_or_note(path)

    def trained(self, run: Run) -> int:
        """Return the number of images that an unfinished run has been trained on, up to the last line of its log."""
        return sum(line["images"] for line in read_lines(self.folder(run) / "metrics.jsonl"))

    def find(self, run: Run, records: bool = True) -> Result | None:
        """Return a finished run with the same key, else its committed record, else None.

        An empty fingerprint or precision in `run` matches any. If `run` has a fingerprint, results on other data are
        never used.
        """
        if digest := self._here.first(run):
            return self.load_or_note(digest)
        path = self._there.first(run) if records else None
        return self.record(path) if path else None

    def finished(self, run: Run) -> str:
        """Return the hash of the finished run that `find` would return, or "". Nothing is read twice."""
        return self._here.first(run) or ""

    @contextmanager
    def open(self, run: Run) -> Iterator[Workspace]:
        """Open the folder of an unfinished run, locked against other processes. Raises Busy if one holds the lock."""
        self.prepare()
        folder = self.folder(run)
        folder.mkdir(exist_ok=True)
        try:
            with lock(folder / "lock", timeout=0):
                write_atomic(folder / "config.json", json.dumps(canonical(run), indent=1))
                yield Workspace(folder, self)
        except Timeout:
            raise Busy(f"run {run.hash} is being worked on by another process") from None


@dataclass
class Workspace:
    """One unfinished run: its log, its checkpoints, and the results of the phases evaluated so far."""

    folder: Path
    store: Store
    phases: list[dict] = field(default_factory=list)
    confusion: dict[str, np.ndarray] = field(default_factory=dict)
    lines: list[dict] = field(default_factory=list)
    progress: Callable[[int], None] = lambda images: None
    threads: int = 0
    """CPU threads of the run. A resume keeps the number, since the last bits of sums depend on it."""
    commits: list[str] = field(default_factory=list)
    """Commits of the code that trained the run: more than one if the code changed while the run was interrupted."""
    steps: Counter[str] = field(default_factory=Counter)
    """Training steps since the last start, by how they were taken (see `common.steps.Steps.counts`)."""
    ranks: int = 1
    """Processes that train the run together. A resume needs the same number, since BatchNorm depends on it."""
    saved_at: float = 0.0
    save_seconds: float = 0.0
    """Seconds that the last save inside a phase took."""
    pace: float = 1.0
    """Factor by which saves are rarer than on a CPU. On a GPU, a save waits until the queued work is done."""
    boundary_checksum: int | None = None
    """Checksum of the last end of a phase, which states inside the next phase build on."""
    deadline: float = math.inf
    """Time in seconds since 1970 after which no epoch begins."""
    stop: Path | None = None
    """A file that ends the run, as the deadline does, once the file exists."""

    def log(self, line: dict) -> None:
        """Append an epoch's line to metrics.jsonl."""
        line["images_per_second"] = round(line["images"] / max(line["seconds"], 1e-9), 1)
        self.lines.append(line)
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.progress(line["images"])

    def trace(self) -> dict[str, list]:
        """Return the columns of metrics.jsonl, except those that contain times."""
        names = dict.fromkeys(name for line in self.lines for name in line if name not in CLOCK)
        return {name: [line.get(name) for line in self.lines] for name in names}

    def checkpoint(self, state: Callable[[], tuple[dict[str, Tensor], dict]]) -> None:
        """Save the state inside a phase, unless the last save was too recent. state: returns (tensors, meta data).

        After the deadline the state is always saved, and OutOfTime is raised.
        """
        late = self.late
        if late or time.monotonic() - self.saved_at >= SAVE_EVERY * max(self.pace, self.save_seconds / CHEAP):
            tensors, meta = state()
            self._save("epoch", tensors, {**meta, "boundary": self.boundary_checksum})
        if late:
            raise OutOfTime

    @property
    def late(self) -> bool:
        """Whether the run must stop: the deadline has passed, or the stop file exists."""
        return time.time() >= self.deadline or (self.stop is not None and self.stop.exists())

    def boundary(self, tensors: dict[str, Tensor], meta: dict) -> None:
        """Save the state between two phases."""
        self._save("checkpoint", tensors, meta)

    def _save(self, name: str, tensors: dict[str, Tensor], meta: dict) -> None:
        """Write a checkpoint of the tensors, with all that `restore` needs in its meta data."""
        import torch

        started = time.monotonic()
        meta = {**meta, "phases": self.phases, "lines": len(self.lines)}
        meta |= {"threads": self.threads, "commits": self.commits, "ranks": self.ranks}
        tensors = tensors | {f"confusion/{k}": torch.from_numpy(v) for k, v in self.confusion.items()}
        if self.lines:
            sync(self.folder / "metrics.jsonl")  # the log must be on disk before the checkpoint that counts its lines
        checksum = write(self.folder / f"{name}.safetensors", tensors, meta, keep_previous=True)
        self.saved_at = time.monotonic()
        if name == "checkpoint":
            self.boundary_checksum = checksum
        else:
            self.save_seconds = self.saved_at - started

    def keep(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Save tensors for the Runs that start from this one, as NAME.safetensors in the run's folder."""
        write(self.folder / f"{name}.safetensors", tensors, {})

    def kept(self, run: Run, name: str) -> dict[str, Tensor]:
        """Return the tensors that `run` saved with `keep` under a name. Raises InputError if damaged or gone."""
        return self._left_by(run, f"{name}.safetensors").tensors

    def state_of(self, run: Run) -> dict[str, Tensor]:
        """Return the network's weights at the end of a finished run. Raises InputError if they are damaged or gone."""
        return self._left_by(run, BOUNDARY).part("net/")

    def _left_by(self, run: Run, name: str) -> Saved:
        """Read a file that a finished run left. Raises InputError if it is damaged or gone."""
        path = self.store.folder(run) / name
        try:
            found, problem = read_state(path), f"{path} is gone"
        except Damaged as error:
            found, problem = None, str(error)
        if found is None:
            raise InputError(f"the final state this run starts from: {problem}; delete {path.parent} to train it again")
        return found

    def restore(self) -> tuple[Saved | None, Saved | None]:
        """Return the state at the end of the last phase, and the state inside the next one if an epoch of it was saved.

        The log and the results so far are restored too. If the newest checkpoint is damaged, the previous one is used
        (see `common.checkpoints.newest`). Raises InputError if another number of processes has trained the run so far.
        """
        metrics_file = self.folder / "metrics.jsonl"
        lines = read_lines(metrics_file)
        boundary, inside = newest(self.folder, len(lines))
        latest = inside or boundary
        if latest is None:
            metrics_file.unlink(missing_ok=True)
            return None, None
        if (before := latest.meta.get("ranks", 1)) != self.ranks:
            raise InputError(
                f"{before} process{'es have' if before > 1 else ' has'} trained this run so far, and BatchNorm's "
                f"statistics are those of {self.ranks} now: go on with torchrun --nproc-per-node {before}, or delete "
                f"{self.folder} to train it from its beginning"
            )
        self.boundary_checksum = boundary.checksum if boundary else None
        self.phases = latest.meta["phases"]
        self.commits = list(dict.fromkeys([*latest.meta.get("commits", []), *self.commits]))
        self.confusion = {k: v.numpy() for k, v in latest.part("confusion/").items()}
        self.lines = lines[: latest.meta["lines"]]
        write_atomic(metrics_file, "".join(json.dumps(line) + "\n" for line in self.lines))
        return boundary, inside

    def saved_threads(self) -> int | None:
        """Return the number of CPU threads of the interrupted run, or None if it has no checkpoint yet.

        All checkpoints of a run hold the same number.
        """
        for name in (EPOCH, BOUNDARY):
            for path in (self.folder / name, previous(self.folder / name)):
                with suppress(Damaged):  # `restore` reports the damage
                    if meta := read_meta(path):
                        return meta["threads"]
        return None

    def finish(self, result: dict, environment: dict) -> Result:
        """Write the result. From then on the run counts as finished."""
        self.confusion = dict(sorted(self.confusion.items()))  # the order must not depend on a resume
        with open(self.folder / "arrays.part", "wb") as file:
            np.savez_compressed(file, **{f"confusion/{k}": v for k, v in self.confusion.items()})  # type: ignore[arg-type]
        sync(self.folder / "arrays.part")
        os.replace(self.folder / "arrays.part", self.folder / "arrays.npz")
        config = read_json(self.folder / "config.json", "it was written when this run began")
        result = {**result, "arrays": {name: array_checksum(found) for name, found in self.confusion.items()}}
        environment = {**environment, "checksum": checksum(environment)}
        write_atomic(self.folder / "environment.json", json.dumps(environment, indent=1))
        write_atomic(
            self.folder / "result.json", json.dumps({**result, "checksum": checksum({"config": config, **result})})
        )
        sync(self.folder)
        for path in working_files(self.folder):
            path.unlink(missing_ok=True)
        finished = self.store.load(self.folder.name)
        assert finished is not None
        return finished


def read_lines(path: Path) -> list[dict]:
    """Read metrics.jsonl up to the first incomplete line, which a kill may leave. No file gives an empty list."""
    lines: list[dict] = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            break
        if not isinstance(line, dict) or not isinstance(line.get("images"), int):
            break
        lines.append(line)
    return lines
