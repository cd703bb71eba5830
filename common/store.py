"""Runs on disk: config, environment, metrics, checkpoints, result. Written atomically; a finished run stays finished.

OUT/runs/HASH/ holds `config.json`, `environment.json`, `metrics.jsonl` (a line an epoch), `result.json`, `arrays.npz`
and `checkpoint.safetensors` (see `common.checkpoints`). Committed evidence is one JSON a run,
PAPER/records/HASH.json, with the same content.
"""

from __future__ import annotations

import base64
import json
import math
import os
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock, Timeout

from common.checkpoints import (
    BOUNDARY,
    EPOCH,
    Damaged,
    Saved,
    newest,
    previous,
    read_meta,
    read_state,
    sync,
    working_files,
    write,
)
from common.data.datasets import PART
from common.errors import InputError, OutOfTime
from common.runs import Run, canonical
from common.shelf import Shelf

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1  # of everything under OUT/runs; raised when older results can no longer be read
CLOCK = ("seconds", "images_per_second")  # the only fields of metrics.jsonl that differ between equal runs
SAVE_EVERY = 2.0  # seconds between checkpoints inside a phase, so that short epochs do not spend their time saving
CHEAP = 0.04  # seconds; a save that takes n times as long comes n times as seldom, so that saving takes 2 % of the time


class Busy(RuntimeError):
    """Another process works on this run."""


@dataclass(frozen=True, eq=False)
class Result:
    """What a finished run measured, and where and how."""

    hash: str
    config: dict
    environment: dict
    values: dict
    arrays: Path | None = None

    def phases(self) -> list[dict]:
        """A dict a phase: `classes`, `num_old`, and `stages`: {stage: {read-out: values}} in the order evaluated."""
        return self.values["phases"]

    @property
    def recorded(self) -> bool:
        """Whether it comes from a committed record, not from the output folder."""
        return self.arrays is None

    @property
    def embedded(self) -> bool:
        """Whether it is of the embedded data set, which nobody has published numbers on."""
        return self.config["data"]["name"] == "glyphs"

    @property
    def partial(self) -> bool:
        """Whether it, or a run it starts from, is of a known data set with far fewer images than were published."""
        config: dict | None = self.config
        while config:
            if config.get("fingerprint", "").startswith(PART):
                return True
            config = config.get("start")
        return False

    @property
    def repeat(self) -> tuple[str, int]:
        """(class order, seed): what pairs the repeats of two methods."""
        return self.config["order"], self.config["seed"]

    def readout(self, name: str, phase: int = -1) -> dict:
        """Accuracy, accuracy by class group and confusion rates of a read-out, after the phase's last stage."""
        *_, last = self.phases()[phase]["stages"].values()
        return last[name]

    def curve(self, name: str, key: str = "accuracy") -> list[float]:
        """A read-out's value after every phase; nan where it was not measured."""
        return [self.readout(name, i).get(key, float("nan")) for i in range(len(self.phases()))]

    def confusion(self, name: str) -> np.ndarray:
        """Confusion matrix [true, predicted] of a read-out after the last phase."""
        if self.arrays is None:
            return _unpack(self.values["confusion"][name])
        try:
            with np.load(self.arrays) as arrays:
                return arrays[f"confusion/{name}"]
        except (OSError, ValueError, BadZipFile) as error:
            raise InputError(f"{self.arrays} cannot be read ({error}); delete {self.arrays.parent}") from None


class Store:
    """The runs under one output folder, and the committed records that figures may fall back on."""

    def __init__(self, out: Path, records: list[Path] | None = None) -> None:
        self.runs = out / "runs"
        self._here = Shelf(lambda: os.listdir(self.runs), self._read)
        self.records = {p.stem: p for folder in records or [] for p in sorted(folder.glob("*.json"))}
        self._there = Shelf(self.records.values, read_record)
        marker = self.runs / "FORMAT"
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            if not marker.exists():
                write_atomic(marker, f"{FORMAT}\n")
            found = marker.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise InputError(
                f"cannot write to --out {out}: {error.strerror}; choose a folder you can write to"
            ) from None
        if found != str(FORMAT):
            raise InputError(
                f"{out} was written by another version (format {found}, this is {FORMAT}); choose another --out, "
                "or keep that folder with the version that wrote it"
            )

    def folder(self, run: Run) -> Path:
        return self.runs / run.hash

    def load(self, digest: str) -> Result | None:
        """The finished run of this hash in the output folder."""
        return self._here.get(digest)

    def _read(self, digest: str) -> Result | None:
        folder = self.runs / digest
        if not (folder / "result.json").exists():
            return None
        config, environment, values = (
            _read_json(folder / f"{name}.json", folder) for name in ("config", "environment", "result")
        )
        return Result(digest, config, environment, values, folder / "arrays.npz")

    def forget(self, digest: str) -> None:
        """Take back that a run was found finished: its folder is gone."""
        self._here.forget(digest)

    def trained(self, run: Run) -> int:
        """Images that an unfinished run has already been trained on, up to the last line of its log."""
        return sum(line["images"] for line in read_lines(self.folder(run) / "metrics.jsonl"))

    def find(self, run: Run, records: bool = True) -> Result | None:
        """A finished run with the same key, else its committed record.

        An empty fingerprint or precision in `run` stands for any; results on other data never stand in where the data
        at hand are known.
        """
        if digest := self._here.first(run):
            return self.load(digest)
        path = self._there.first(run) if records else None
        return self._there.get(path) if path else None

    def finished(self, run: Run) -> str:
        """The hash of the finished run that `find` gives, or "". Of what was looked up before nothing is read again."""
        return self._here.first(run) or ""

    @contextmanager
    def open(self, run: Run) -> Iterator[Workspace]:
        """The folder of an unfinished run, locked against other processes. Raises Busy if one holds it."""
        folder = self.folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / "lock", timeout=0):
                write_atomic(folder / "config.json", json.dumps(canonical(run), indent=1))
                yield Workspace(folder, self)
        except Timeout:
            raise Busy(f"run {run.hash} is being worked on by another process") from None


@dataclass
class Workspace:
    """One unfinished run: its log, its checkpoints and the results of the phases already evaluated."""

    folder: Path
    store: Store
    phases: list[dict] = field(default_factory=list)
    confusion: dict[str, np.ndarray] = field(default_factory=dict)
    lines: list[dict] = field(default_factory=list)
    progress: Callable[[int], None] = lambda images: None
    threads: int = 0
    """CPU threads of the run; kept across a resume, since sums depend on it in the last bits."""
    commits: list[str] = field(default_factory=list)
    """Commits of the code that trained it, more than one where it was interrupted and the code changed."""
    steps: Counter[str] = field(default_factory=Counter)
    """Training steps taken since the last start, by path (see `common.steps`)."""
    saved_at: float = 0.0
    save_seconds: float = 0.0
    """What the last save inside a phase took."""
    pace: float = 1.0
    """By how much saves are rarer than on a CPU; on a GPU they wait for its queue."""
    boundary_checksum: int | None = None
    """Of the phase boundary that states inside the phase build on."""
    deadline: float = math.inf
    """Time of the day, in seconds since 1970, after which no epoch begins."""
    stop: Path | None = None
    """A file that, once it is there, ends the run as the deadline does."""

    def log(self, line: dict) -> None:
        """Add an epoch to metrics.jsonl."""
        line["images_per_second"] = round(line["images"] / max(line["seconds"], 1e-9), 1)
        self.lines.append(line)
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.progress(line["images"])

    def trace(self) -> dict[str, list]:
        """metrics.jsonl by column, without the clock."""
        names = dict.fromkeys(name for line in self.lines for name in line if name not in CLOCK)
        return {name: [line.get(name) for line in self.lines] for name in names}

    def checkpoint(self, state: Callable[[], tuple[dict[str, Tensor], dict]]) -> None:
        """Save the state inside a phase: (tensors, meta). Skipped where the last save is too short ago.

        After the deadline it is saved whenever the last save was. Raises OutOfTime then.
        """
        late = self.late
        if late or time.monotonic() - self.saved_at >= SAVE_EVERY * max(self.pace, self.save_seconds / CHEAP):
            tensors, meta = state()
            self._save("epoch", tensors, {**meta, "boundary": self.boundary_checksum})
        if late:
            raise OutOfTime

    @property
    def late(self) -> bool:
        """Whether no epoch begins any more."""
        return time.time() >= self.deadline or (self.stop is not None and self.stop.exists())

    def boundary(self, tensors: dict[str, Tensor], meta: dict) -> None:
        """Save the state between two phases."""
        self._save("checkpoint", tensors, meta)

    def _save(self, name: str, tensors: dict[str, Tensor], meta: dict) -> None:
        import torch

        started = time.monotonic()
        meta = {**meta, "phases": self.phases, "lines": len(self.lines)}
        meta |= {"threads": self.threads, "commits": self.commits}
        tensors = tensors | {f"confusion/{k}": torch.from_numpy(v) for k, v in self.confusion.items()}
        if self.lines:
            sync(self.folder / "metrics.jsonl")  # it outlives a power cut wherever the checkpoint that counts it does
        checksum = write(self.folder / f"{name}.safetensors", tensors, meta, keep_previous=True)
        self.saved_at = time.monotonic()
        if name == "checkpoint":
            self.boundary_checksum = checksum
        else:
            self.save_seconds = self.saved_at - started

    def keep(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Leave tensors for the Runs that start from this one, as NAME.safetensors beside the checkpoint."""
        write(self.folder / f"{name}.safetensors", tensors, {})

    def kept(self, run: Run, name: str) -> dict[str, Tensor]:
        """What `run` has kept under a name. Raises InputError where that is damaged or gone."""
        return self._left_by(run, f"{name}.safetensors").tensors

    def state_of(self, run: Run) -> dict[str, Tensor]:
        """Network weights at the end of a finished run. Raises InputError where they are damaged or gone."""
        return self._left_by(run, BOUNDARY).part("net/")

    def _left_by(self, run: Run, name: str) -> Saved:
        path = self.store.folder(run) / name
        try:
            found, problem = read_state(path), f"{path} is gone"
        except Damaged as error:
            found, problem = None, str(error)
        if found is None:
            raise InputError(f"the final state this run starts from: {problem}; delete {path.parent} to train it again")
        return found

    def restore(self) -> tuple[Saved | None, Saved | None]:
        """The state at the last phase boundary and, if a later epoch was saved, the state inside the phase.

        Where the newest checkpoint is damaged, the one before counts (see `common.checkpoints.newest`).
        """
        metrics_file = self.folder / "metrics.jsonl"
        lines = read_lines(metrics_file)
        boundary, inside = newest(self.folder, len(lines))
        latest = inside or boundary
        if latest is None:
            metrics_file.unlink(missing_ok=True)
            return None, None
        self.boundary_checksum = boundary.checksum if boundary else None
        self.phases = latest.meta["phases"]
        self.commits = list(dict.fromkeys([*latest.meta.get("commits", []), *self.commits]))
        self.confusion = {k: v.numpy() for k, v in latest.part("confusion/").items()}
        self.lines = lines[: latest.meta["lines"]]
        write_atomic(metrics_file, "".join(json.dumps(line) + "\n" for line in self.lines))
        return boundary, inside

    def saved_threads(self) -> int | None:
        """Threads of the interrupted run this workspace goes on with; every checkpoint of a run says the same."""
        for name in (EPOCH, BOUNDARY):
            for path in (self.folder / name, previous(self.folder / name)):
                with suppress(Damaged):  # `restore` says so
                    if meta := read_meta(path):
                        return meta["threads"]
        return None

    def finish(self, result: dict, environment: dict) -> Result:
        """Write the result; from here on the run counts as finished."""
        with open(self.folder / "arrays.part", "wb") as file:
            np.savez_compressed(file, **{f"confusion/{k}": v for k, v in self.confusion.items()})  # type: ignore[arg-type]
        sync(self.folder / "arrays.part")
        os.replace(self.folder / "arrays.part", self.folder / "arrays.npz")
        write_atomic(self.folder / "environment.json", json.dumps(environment, indent=1))
        write_atomic(self.folder / "result.json", json.dumps(result))
        sync(self.folder)
        for path in working_files(self.folder):
            path.unlink(missing_ok=True)
        finished = self.store.load(self.folder.name)
        assert finished is not None
        return finished


def read_lines(path: Path) -> list[dict]:
    """metrics.jsonl up to the first line that a kill left torn; empty where there is no file."""
    lines: list[dict] = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the whole new one, whoever else writes it."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    part.write_text(text, encoding="utf-8")
    sync(part)
    os.replace(part, path)


def write_record(result: Result, folder: Path) -> Path:
    """Copy a finished run to `folder` as one small JSON: config, environment, metrics; no images, no weights."""
    *_, readouts = result.phases()[-1]["stages"].values()
    confusion = {name: _pack(result.confusion(name)) for name in readouts}
    head = {"format": FORMAT, "config": result.config, "environment": result.environment}
    record = {**head, **result.values, "confusion": confusion}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.hash}.json"
    write_atomic(path, json.dumps(record, separators=(",", ":")) + "\n")
    return path


def read_record(path: Path) -> Result:
    """A committed record as a Result. Raises InputError on one written by another version."""
    record = _read_json(path, path)
    if record.pop("format", None) != FORMAT or not {"config", "environment", "phases"} <= set(record):
        raise InputError(f"{path} is a record of another version; this one reads format {FORMAT}")
    config, environment = record.pop("config"), record.pop("environment")
    return Result(path.stem, config, environment, record)


def _read_json(path: Path, remove: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); delete {remove} and run the same command") from None


def _pack(confusion: np.ndarray) -> str:
    """A square int32 matrix as text: zlib and base64, a few kB for 100 classes. Level 9 takes 20 times as long."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(confusion, dtype="<i4").tobytes(), 6)).decode()


def _unpack(text: str) -> np.ndarray:
    values = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<i4")
    return values.reshape(math.isqrt(len(values)), -1)
