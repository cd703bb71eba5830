"""Reads constraints.txt, the exact versions that `make reproduce LOCKED=1` installs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"


@lru_cache
def versions(path: Path = CONSTRAINTS) -> dict[str, str]:
    """Return the exact versions by package name in lower case; empty if the file does not exist."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    pairs = [line.partition("#")[0].strip().lower().split("==") for line in lines]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def matches(environment: Mapping[str, Any], path: Path = CONSTRAINTS) -> bool:
    """Return whether a run's torch and NumPy have the versions of constraints.txt. A suffix such as +cpu is ignored."""
    locked = versions(path)
    names = ("torch", "numpy")
    return all(name in locked and str(environment.get(name, "")).split("+")[0] == locked[name] for name in names)
