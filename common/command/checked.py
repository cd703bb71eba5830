"""`reproduce check-records FOLDER`: checks whether records from another machine may be committed."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.command.environment import PACKAGES, known_commit
from common.drawing.results import Result, read_record
from common.errors import InputError
from common.metrics import accuracy
from common.runs import hash_of

TOLERANCE = 0.01  # percent: how far a recorded accuracy may lie from the one that its confusion matrix gives


@dataclass(frozen=True)
class CheckArguments:
    """Check the records in FOLDER and its subfolders, as `reproduce record --to FOLDER` wrote them. The command prints
    a line for each record that may not be committed, and ends with exit code 1 if there is one."""


def check_records(folder: Path) -> int:
    """Print the problem of each bad record. Returns the exit code. Raises InputError if the folder holds no record."""
    paths = sorted(folder.rglob("*.json"))
    if not paths:
        raise InputError(f"{folder} holds no records; name a folder that `reproduce record --to` wrote to")
    bad = [f"{path}: {problem}" for path in paths if (problem := problem_of(path))]
    for line in bad:
        print(line)
    if not bad:
        print(f"{len(paths)} records, all in order")
    return 1 if bad else 0


def problem_of(path: Path) -> str:
    """Return the first problem of a record, or "" if it has none."""
    try:
        result = read_record(path)
        if "checksum" not in json.loads(path.read_text(encoding="utf-8")):
            return "it has no checksum; write it again with `reproduce record`"
        return next(_problems(result), "")
    except InputError as error:
        return str(error).removeprefix(f"{path} ")
    except KeyError as error:
        return f"it has no {error}"
    except (IndexError, TypeError, AttributeError, ValueError, zlib.error) as error:
        return f"it is no record of a run ({type(error).__name__}: {error})"


def _problems(result: Result) -> Iterator[str]:
    config, place = result.config, result.environment
    if hash_of(config) != result.hash:
        yield f"its name is not the hash of its config, {hash_of(config)}"
    if config["paper"] not in PACKAGES[1:]:
        yield f"its method is of {config['paper']}, which has no package here"
    if not re.fullmatch("(part-)?[0-9a-f]{16}", config["fingerprint"]) or not config["precision"]:
        yield "its config does not say on which data, by fingerprint, or in which precision it was trained"
    for commit in (place["commit"], *place.get("earlier_commits", ())):
        if not re.fullmatch("[0-9a-f]{40}", commit):
            yield f"its commit is {commit!r}, not one of 40 digits"
        if not known_commit(commit):
            yield f"its commit {commit} is none of this repository's"
    if place["dirty"] is not False:
        yield "the code had changes that were not committed"
    if not isinstance(result.values["trace"], dict):
        yield "its trace is no table of curves"
    if unfinite := next(_unfinite(result.values), ""):
        yield f"{unfinite} is not a finite number"
    if len(result.phases()) != _phases(config["protocol"]):
        yield f"it has {len(result.phases())} phases, and its protocol {_phases(config['protocol'])}"
    yield from _accuracies(result)


def _accuracies(result: Result) -> Iterator[str]:
    """Yield a problem for each read-out whose accuracy after the last phase does not fit its confusion matrix."""
    *_, last = result.phases()[-1]["stages"].values()
    for name, values in last.items():
        measured = accuracy(result.confusion(name))
        if abs(measured - values["accuracy"]) > TOLERANCE:
            yield f"{name} has accuracy {values['accuracy']:g}, but its confusion matrix {measured:.2f}"


def _phases(protocol: dict[str, Any]) -> int:
    rest = protocol["classes"] - protocol["base"]
    return 1 + (rest // protocol["step"] if rest else 0)


def _unfinite(value: Any, name: str = "") -> Iterator[str]:
    """Yield the dotted name of each number in JSON-ready values that is infinite or nan."""
    if isinstance(value, float) and not math.isfinite(value):
        yield name
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inside:
        yield from _unfinite(each, f"{name}.{key}" if name else str(key))
