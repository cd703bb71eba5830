"""Helps the `__init__` of every package: loads public names only when used, and checks which package Python finds."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common.errors import InputError

HERE = Path(__file__).resolve().parents[2]
"""The folder that the packages of this project share."""


def lazily(package: str, **homes: tuple[str, ...]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__` (PEP 562), so that importing the package loads nothing heavy.

    homes: the public names of each module of the package. A module is loaded when one of its names is first used.
    """
    home = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{home[name]}"), name)

    return get, lambda: sorted({*vars(importlib.import_module(package)), *home})


def check(packages: Iterable[str]) -> None:
    """Raise InputError if Python finds another package under the name of one of this project's packages."""
    for name in packages:
        spec = find_spec(name)
        if spec is None:
            raise InputError(f"the package {name} is missing beside {HERE / 'common'}; install the project again")
        places = [Path(place) for place in spec.submodule_search_locations or [spec.origin or name]]
        if HERE / name not in [place.resolve() for place in places]:
            raise InputError(
                f"Python finds another {name!r}, {places[0]}, where this project needs its own, {HERE / name}; "
                "rename that one, or start from another folder"
            )
