"""Results: what finished runs have measured, as figures read it, from a run's folder or from a committed record."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from common.checkpoints import Damaged, checksum, read_json, write_atomic
from common.data.datasets import PART
from common.errors import InputError
from common.runs import key_of

FORMAT = 1  # of everything under OUT/runs and of records; raised when older results can no longer be read

NUMBER = (int, float, NoneType)
ENVIRONMENT: dict[str, Any] = {
    **{name: str for name in ("commit", "source", "device", "precision", "python", "torch", "numpy")},
    **{name: NUMBER for name in ("training_seconds", "images_per_second", "seconds")},
    **{"earlier_commits": list, "threads": int, "ranks": int, "dirty": bool},
}
"""The type of each entry of a Result's environment that is read. Any may be missing."""


@dataclass(frozen=True, eq=False)
class Result:
    """What a finished run measured, and where and how."""

    hash: str
    config: dict
    environment: dict
    values: dict
    arrays: Path | None = None
    checksums: dict[str, str] = field(default_factory=dict)
    """Of the arrays by name; none where they were written before there were any."""

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
        """A read-out's value after every phase; nan where it was not measured. KeyError where it never was."""
        last = [list(phase["stages"].values())[-1] for phase in self.phases()]
        if not any(name in readouts for readouts in last):
            raise KeyError(f"no read-out {name!r}; there are {', '.join(sorted({n for r in last for n in r}))}")
        return [readouts.get(name, {}).get(key, float("nan")) for readouts in last]

    def confusion(self, name: str) -> np.ndarray:
        """Confusion matrix [true, predicted] of a read-out after the last phase."""
        if self.arrays is None:
            return _unpack(self.values["confusion"][name])
        try:
            with np.load(self.arrays) as arrays:
                found = arrays[f"confusion/{name}"]
        except Exception as error:  # damaged archives make their readers raise nearly anything
            raise Damaged(f"{self.arrays} cannot be read ({error}); delete {self.arrays.parent}") from None
        if self.checksums and self.checksums.get(name) != array_checksum(found):
            raise Damaged(
                f"{self.arrays} is damaged (the checksum of {name} does not fit); delete {self.arrays.parent}"
            )
        return found


def write_record(result: Result, folder: Path) -> Path:
    """Copy a finished run to `folder` as one small JSON: config, environment, metrics; no images, no weights."""
    *_, readouts = result.phases()[-1]["stages"].values()
    confusion = {name: _pack(result.confusion(name)) for name in readouts}
    head = {"format": FORMAT, "config": result.config, "environment": result.environment}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.hash}.json"
    write_atomic(path, stamped({**head, **result.values, "confusion": confusion}))
    return path


def stamped(record: dict) -> str:
    """The text of a record, with its checksum."""
    return json.dumps({**record, "checksum": checksum(record)}, separators=(",", ":")) + "\n"


def read_record(path: Path) -> Result:
    """A committed record as a Result. Raises InputError on one that has changed or was written by another version."""
    record = read_json(path, f"bring it back with `git checkout -- {path.name}` in its folder, or delete it")
    if record.pop("format", None) != FORMAT:
        raise InputError(f"{path} is a record of another version; this one reads format {FORMAT}")
    config, environment = record.pop("config", None), record.pop("environment", None)
    require_whole(path, path.stem, config, environment, record)
    return Result(path.stem, config, environment, record)


def require_whole(path: Path, digest: str, config: Any, environment: Any, values: Mapping[str, Any]) -> None:
    """Raises InputError where what `path` holds is not the result of the Run whose hash is `digest`."""
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
    """Of an array's type, shape and content."""
    return checksum([str(array.dtype), list(array.shape), zlib.crc32(np.ascontiguousarray(array).data)])


def _pack(confusion: np.ndarray) -> str:
    """A square int32 matrix as text: zlib and base64, a few kB for 100 classes."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(confusion, dtype="<i4").tobytes(), 6)).decode()


def _unpack(text: str) -> np.ndarray:
    values = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<i4")
    return values.reshape(math.isqrt(len(values)), -1)
