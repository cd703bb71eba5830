"""Defines `Result`, the measurements of a finished run, and reads and writes committed records."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from common.checkpoints import Damaged, checksum, read_json, write_atomic
from common.data.datasets import PART
from common.errors import InputError
from common.runs import is_hash, key_of

FORMAT = 1  # version of the files under OUT/runs and of records; raised when older results can no longer be read

NUMBER = (int, float, NoneType)
ENVIRONMENT: dict[str, Any] = {
    **{name: str for name in ("commit", "source", "device", "precision", "python", "torch", "numpy")},
    **{name: NUMBER for name in ("training_seconds", "images_per_second", "seconds")},
    **{"earlier_commits": list, "threads": int, "ranks": int, "dirty": bool},
}
"""The type of each entry of a Result's environment that is read. Any may be missing."""


@dataclass(frozen=True, eq=False)
class Result:
    """Holds what a finished run measured, with its configuration and environment."""

    hash: str
    config: dict
    environment: dict
    values: dict
    arrays: Path | None = None
    checksums: dict[str, str] = field(default_factory=dict)
    """Checksums of the arrays by name. Empty for results from before checksums were introduced."""

    def outline(self) -> Result:
        """Return a copy without measurements. It still says which run this is, and where and how it was trained."""
        return replace(self, values={}, checksums={})

    def phases(self) -> list[dict]:
        """Return a dict per phase: `classes`, `num_old` and `stages`: {stage: {read-out: values}} in training order."""
        return self.values["phases"]

    @property
    def recorded(self) -> bool:
        """Whether the result comes from a committed record, not from the results folder."""
        return self.arrays is None

    @property
    def embedded(self) -> bool:
        """Whether the run is on the embedded data set, for which no published numbers exist."""
        return self.config["data"]["name"] == "glyphs"

    @property
    def partial(self) -> bool:
        """Whether the run, or one it starts from, had far fewer images of a known data set than were published."""
        config: dict | None = self.config
        while config:
            if config.get("fingerprint", "").startswith(PART):
                return True
            config = config.get("start")
        return False

    @property
    def repeat(self) -> tuple[str, int]:
        """(class order, seed), by which repeats of two methods are paired."""
        return self.config["order"], self.config["seed"]

    def readout(self, name: str, phase: int = -1) -> dict:
        """Return a read-out's accuracy, accuracy by class group and confusion rates after the last stage of a phase."""
        *_, last = self.phases()[phase]["stages"].values()
        return last[name]

    def curve(self, name: str, key: str = "accuracy") -> list[float]:
        """Return a read-out's value after every phase, nan if it was not measured. Raises KeyError if it never was."""
        last = [list(phase["stages"].values())[-1] for phase in self.phases()]
        if not any(name in readouts for readouts in last):
            raise KeyError(f"no read-out {name!r}; there are {', '.join(sorted({n for r in last for n in r}))}")
        return [readouts.get(name, {}).get(key, float("nan")) for readouts in last]

    def confusion(self, name: str) -> np.ndarray:
        """Return a read-out's confusion matrix [true, predicted] after the last phase. Raises Damaged on a bad file."""
        return self.confusions([name])[name]

    def confusions(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the confusion matrices of several read-outs by name, and open their file once. Raises Damaged."""
        if self.arrays is None:
            return {name: _unpack(self.values["confusion"][name]) for name in names}
        try:
            with np.load(self.arrays) as arrays:
                found = {name: arrays[f"confusion/{name}"] for name in names}
        except Exception as error:  # damaged archives make their readers raise nearly anything
            raise Damaged(f"{self.arrays} cannot be read ({error}); delete {self.arrays.parent}") from None
        for name, array in found.items():
            if self.checksums and self.checksums.get(name) != array_checksum(array):
                raise Damaged(
                    f"{self.arrays} is damaged (the checksum of {name} does not fit); delete {self.arrays.parent}"
                )
        return found


def write_record(result: Result, folder: Path, durable: bool = True) -> Path:
    """Write a finished run to `folder` as one small JSON: config, environment, metrics; no images, no weights.

    durable: wait until the file is on disk, as in `common.checkpoints.write_atomic`.
    """
    *_, readouts = result.phases()[-1]["stages"].values()
    confusion = {name: _pack(matrix) for name, matrix in result.confusions(readouts).items()}
    head = {"format": FORMAT, "config": result.config, "environment": result.environment}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.hash}.json"
    write_atomic(path, stamped({**head, **result.values, "confusion": confusion}), durable)
    return path


def stamped(record: dict) -> str:
    """Return the text of a record, with its checksum added."""
    return json.dumps({**record, "checksum": checksum(record)}, separators=(",", ":")) + "\n"


def read_record(path: Path) -> Result:
    """Read a committed record. Raises InputError if it was changed, or was written by another version."""
    if not is_hash(path.stem):  # such as "0123456789abcdef copy", which would count as another run
        raise InputError(f"{path} is called by no run's hash, as a copy of a record may be; delete it")
    record = read_json(path, f"bring it back with `git checkout -- {path.name}` in its folder, or delete it")
    if record.pop("format", None) != FORMAT:
        raise InputError(f"{path} is a record of another version; this one reads format {FORMAT}")
    config, environment = record.pop("config", None), record.pop("environment", None)
    require_whole(path, path.stem, config, environment, record)
    return Result(path.stem, config, environment, record)


def require_whole(path: Path, digest: str, config: Any, environment: Any, values: Mapping[str, Any]) -> None:
    """Raise InputError if the content of `path` is not the result of the Run whose hash is `digest`."""
    phases = values.get("phases")
    named = isinstance(config, dict) and all(isinstance(config.get(k), str) for k in ("fingerprint", "precision"))
    if not named or key_of(config) != digest[:12]:
        raise InputError(f"{path} is of another run than its name says; delete it")
    if not (
        _is_environment(environment)
        and isinstance(phases, list)
        and phases
        and all(
            isinstance(phase, dict) and isinstance(phase.get("stages"), dict) and phase["stages"] for phase in phases
        )
    ):
        raise InputError(f"{path} is no result of a run; delete it")


def _is_environment(value: Any) -> bool:
    """Whether figures and reports can read where a run was trained, and by which code."""
    return isinstance(value, dict) and all(isinstance(value[n], kind) for n, kind in ENVIRONMENT.items() if n in value)


def array_checksum(array: np.ndarray) -> str:
    """Return a checksum of an array's type, shape and content."""
    return checksum([str(array.dtype), list(array.shape), zlib.crc32(np.ascontiguousarray(array).data)])


def _pack(confusion: np.ndarray) -> str:
    """Pack a square int32 matrix into text, by zlib and base64: a few kB for 100 classes."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(confusion, dtype="<i4").tobytes(), 6)).decode()


def _unpack(text: str) -> np.ndarray:
    values = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<i4")
    return values.reshape(math.isqrt(len(values)), -1)
