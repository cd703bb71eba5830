"""Finds runs of a user's own method whose source code has changed since they were trained.

Such runs are named in a note, or trained anew with --retrain. Methods of the six packages have a `version` for this
purpose. A user changes the code of a method while working on it, without raising a version.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from filelock import Timeout

from common.checkpoints import BOUNDARY, EPOCH, Damaged, lock, read_meta
from common.command.environment import code_of, outside, source_files
from common.command.messages import describe
from common.errors import InputError
from common.runs import Run
from common.store import Store


def look_for_changes(runs: Iterable[Run], store: Store, retrain: bool) -> None:
    """Print a note for each of the runs that an earlier version of its method's source code has trained, even in part.

    Runs that start from such a run count too. retrain: removes the folders of all these runs, so that they are trained
    anew. Raises InputError if another process is training one of them.
    """
    links = {link.key: link for run in runs for link in run.chain}.values()
    files = {link.key: _changed(link, store) for link in links if outside(link.method)}
    for link in links:
        if changed := next(filter(None, (files.get(each.key) for each in link.chain)), None):
            for folder in _folders(link, store):
                _report(link, folder, changed, retrain)
                if retrain:
                    store.forget(folder.name)


def _report(run: Run, folder: Path, files: list[Path], retrain: bool) -> None:
    if not retrain:
        text = "was trained by another version of it; --retrain trains it anew (in Python: retrain=True)"
        print(f"note: {files[0]} has changed: {describe(run)} {text}", file=sys.stderr)
        return
    try:
        with lock(folder / "lock", timeout=0):
            (folder / "result.json").unlink(missing_ok=True)  # first: a folder deleted by half must count as unfinished
            shutil.rmtree(folder)
    except Timeout:
        raise InputError(f"--retrain: another process works on run {folder.name}; wait for it, or end it") from None
    print(f"{files[0]} has changed: {describe(run)} is trained anew")


def _changed(run: Run, store: Store) -> list[Path]:
    """Return the source files of the Run's learner if other source code has trained the Run, else an empty list."""
    from common.incremental import learner_of

    learner = learner_of(run.method)
    now = code_of(learner).get("source")
    trained = {source for folder in _folders(run, store) for source in _sources(folder)}
    return source_files(learner) if now and trained - {now} else []


def _folders(run: Run, store: Store) -> list[Path]:
    """Return the folders of the Run, finished or not, that have its data fingerprint and its precision."""
    found, mine = [], {"fingerprint": run.fingerprint, "precision": run.precision}
    for folder in sorted(store.runs.glob(f"{run.key}*")):
        with suppress(OSError, ValueError, KeyError):  # an unreadable folder is reported when its run is trained
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if all(value in ("", config[name]) for name, value in mine.items()):
                found.append(folder)
    return found


def _sources(folder: Path) -> list[str]:
    """Return the digests of all source code that has trained a run so far."""
    if (folder / "result.json").exists():
        environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        return [environment.get("source", ""), *environment.get("earlier_commits", [])]
    for name in (EPOCH, BOUNDARY):
        with suppress(Damaged):
            if meta := read_meta(folder / name):
                return meta.get("commits", [])
    return []
