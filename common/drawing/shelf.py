"""Results looked up by their Runs, among thousands: folders are listed once, and each result is read once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from common.errors import InputError
from common.runs import KEY, Run

if TYPE_CHECKING:
    from common.store import Result

KEPT = 200  # results in memory at once; one of a paper's own schedule takes up to a fifth of a megabyte

S = TypeVar("S", str, Path)


class Shelf(Generic[S]):
    """Results of one kind, each with a name that begins with its Run's key.

    names: lists the results there are, once, at the first look-up. read: a result by its name, None where there is
    none yet, InputError where it is damaged. refused: takes in what look-ups have passed over as damaged.
    """

    def __init__(
        self, names: Callable[[], Iterable[S]], read: Callable[[S], Result | None], refused: dict[str, None]
    ) -> None:
        self.refused = refused
        self.names: Callable[[], Iterable[S]] = names
        self.read: Callable[[S], Result | None] = read
        self._last: dict[S, Result] = {}
        self._settled: dict[S, tuple[str, str]] = {}
        """(fingerprint, precision) of every result that was ever read, which is all that most look-ups need."""

    @cached_property
    def _by_key(self) -> dict[str, dict[S, None]]:
        found: dict[str, dict[S, None]] = {}
        for name in sorted(self.names()):
            found.setdefault(_key(name), {})[name] = None
        return found

    def get(self, name: S) -> Result | None:
        """A result by its name. One that has ended since the list was made is on it from then on."""
        if name not in self._last:
            result = self.read(name)
            if result is None:
                return None
            self._last[name] = result
            self._settled[name] = result.config["fingerprint"], result.config["precision"]
            self._by_key.setdefault(_key(name), {})[name] = None
            if len(self._last) > KEPT:  # a queue of thousands must not fill the memory
                del self._last[next(iter(self._last))]
        return self._last.get(name)

    def sound(self, name: S) -> Result | None:
        """The same; None too where it is damaged, which is noted in `refused`."""
        try:
            return self.get(name)
        except InputError as error:
            self.refused[str(error)] = None
            return None

    def forget(self, name: S) -> None:
        """Take back that there is such a result; whether there is one again, only `get` finds out."""
        self._last.pop(name, None)
        self._settled.pop(name, None)
        self._by_key.get(_key(name), {}).pop(name, None)

    def first(self, run: Run) -> S | None:
        """The name of the first result with the Run's key; an empty fingerprint or precision stands for any."""
        for name in tuple(self._by_key.get(run.key, ())):
            if name in self._settled or self.sound(name):
                fingerprint, precision = self._settled[name]
                if run.fingerprint in ("", fingerprint) and run.precision in ("", precision):
                    return name
        return None


def _key(name: str | Path) -> str:
    return (name.stem if isinstance(name, Path) else name)[:KEY]
