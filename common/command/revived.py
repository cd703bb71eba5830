"""Makes a Run again from its configuration in `config.json` or in a record."""

from __future__ import annotations

import importlib
from dataclasses import is_dataclass
from typing import Any

from common import imbalance, runs
from common.command.plan import PAPERS
from common.data.datasets import DataSpec
from common.errors import InputError
from common.runs import Run, type_name


def run_of(config: dict, digest: str) -> Run:
    """Return the Run with this canonical form (see `common.runs.canonical`) and this hash.

    Raises InputError if the code here cannot make such a Run: no package has its method, or the version differs.
    """
    paper = config["paper"]
    modules = [runs, imbalance, *(importlib.import_module(f"{p}.methods") for p in sorted(PAPERS, key=paper.__eq__))]
    kinds = {type_name(v): v for m in modules for v in vars(m).values() if isinstance(v, type) and is_dataclass(v)}
    kinds |= {"DataSpec": DataSpec}
    method = config["method"]["type"]
    if method not in kinds:
        raise InputError(f"run {digest}: its method {method} is of none of the packages here; only theirs are known")
    try:
        run: Run | None = _made(config, kinds)
    except (KeyError, TypeError):
        run = None
    if run is None or run.hash != digest:
        raise InputError(
            f"run {digest}: the code here has no such {method}; use the code that trained it, or train {method} again"
        )
    return run


def _made(value: Any, kinds: dict[str, type]) -> Any:
    """Return a value of a Run, made from its JSON-ready form. kinds: the dataclasses by name."""
    if isinstance(value, list):
        return tuple(_made(each, kinds) for each in value)
    if not isinstance(value, dict):
        return value
    kind = kinds[value["type"]]
    parts = {k: _made(v, kinds) for k, v in value.items() if k not in ("type", "version")}
    return kind(**parts)
