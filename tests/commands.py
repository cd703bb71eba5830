"""Runs commands in this process, and reads their results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.command import cli


def main(words: list[str], paper: str | None = None) -> object:
    """Return the exit code of a command in this process."""
    with pytest.raises(SystemExit) as ended:
        cli.main(words, paper)
    return ended.value.code


def results(out: Path) -> dict[str, dict]:
    """Return the result of every finished run, by hash."""
    return {p.parent.name: json.loads(p.read_text()) for p in out.glob("runs/*/result.json")}
