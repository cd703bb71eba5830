"""Finds the Results of Runs among thousands. Folders are listed only once, and each result is read only once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from common.errors import InputError
from common.runs import KEY, Run

if TYPE_CHECKING:
    from common.store import Result

MOST_IN_MEMORY = 200  # the most results in memory; one at a paper's own schedule takes up to a fifth of a megabyte

S = TypeVar("S", str, Path)


class ResultIndex(Generic[S]):
    """An index of Results from one source. The name of each begins with its Run's key.

    names: lists all results; called once, at the first look-up. read: returns a result by its name, or None if there is
    none yet, and raises InputError if it is damaged. refused: collects the problems of damaged results.
    """

    def __init__(
        self, names: Callable[[], Iterable[S]], read: Callable[[S], Result | None], refused: dict[str, None]
    ) -> None:
        self.refused = refused
        self.names: Callable[[], Iterable[S]] = names
        self.read: Callable[[S], Result | None] = read
        self._last: dict[S, Result] = {}
        self._settled: dict[S, tuple[str, str]] = {}
        """(fingerprint, precision) of every result that was ever read. Most look-ups need no more than this."""

    @cached_property
    def _by_key(self) -> dict[str, dict[S, None]]:
        found: dict[str, dict[S, None]] = {}
        for name in sorted(self.names()):
            found.setdefault(_key(name), {})[name] = None
        return found

    def get(self, name: S) -> Result | None:
        """Return a result by its name, or None. A result that is newer than the list is added to the list."""
        if name not in self._last:
            result = self.read(name)
            if result is None:
                return None
            self._last[name] = result
            self._settled[name] = result.config["fingerprint"], result.config["precision"]
            self._by_key.setdefault(_key(name), {})[name] = None
            if len(self._last) > MOST_IN_MEMORY:  # a queue of thousands must not fill the memory
                del self._last[next(iter(self._last))]
        return self._last.get(name)

    def get_or_note(self, name: S) -> Result | None:
        """Return a result as `get` does, but None if it is damaged. The problem is then added to `refused`."""
        try:
            return self.get(name)
        except InputError as error:
            self.refused[str(error)] = None
            return None

    def forget(self, name: S) -> None:
        """Remove a result from the index. Only `get` finds out whether it exists again."""
        self._last.pop(name, None)
        self._settled.pop(name, None)
        self._by_key.get(_key(name), {}).pop(name, None)

    def first(self, run: Run) -> S | None:
        """Return the name of the first result of the Run, or None. An empty fingerprint or precision fits any."""
        for name in tuple(self._by_key.get(run.key, ())):
            if name in self._settled or self.get_or_note(name):
                fingerprint, precision = self._settled[name]
                if run.fingerprint in ("", fingerprint) and run.precision in ("", precision):
                    return name
        return None


def _key(name: str | Path) -> str:
    return (name.stem if isinstance(name, Path) else name)[:KEY]
