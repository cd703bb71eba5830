"""`reproduce clean`: removes leftovers of interrupted runs, caches and, on request, the weights of finished runs."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from common.checkpoints import BOUNDARY, lock, read_json, working_files
from common.errors import InputError
from common.store import Store


@dataclass(frozen=True)
class CleanArguments:
    """Remove leftovers of interrupted runs, and cached feature maps once every run that uses them is finished.

    Results and trained networks stay. A new run that needs a removed cache computes it again.
    """

    out: Path = Path("results")
    """The results folder to clean. Runs that another process is training are left alone."""
    states: bool = False
    """Also remove the network weights and kept features of finished runs, unless an unfinished run here starts from
    them. Use this option when no more runs will be trained in this folder. A later run that needs removed weights ends
    with a line that says which folder to delete so that they are trained again."""
    dry_run: bool = False
    """Print what would be removed, and remove nothing."""


@dataclass(frozen=True)
class Found:
    """One run's folder and its state. A name is the run's configuration as JSON text."""

    folder: Path
    name: str
    starts: list[str]
    """Names of the runs that this one starts from, the nearest first."""
    trains: bool
    """Whether the run trains a network. If not, its state is a cache, such as feature maps."""
    finished: bool
    busy: bool
    """Whether another process is working on the run."""


def clean(args: CleanArguments) -> None:
    """Remove the files that are no longer needed. Print each file or folder with its size, and the total size."""
    if not (args.out / "runs").is_dir():
        raise InputError(f"--out {args.out} holds no runs; pass the folder a reproduce command wrote to")
    configs = sorted(Store(args.out).runs.glob("*/config.json"))
    found = [_look(path.parent) for path in configs if not path.parent.is_symlink()]  # a link leads to another folder
    unneeded: dict[Path, Found] = {}
    if busy := [run for run in found if run.busy]:  # its process may next begin a run that needs any of the states
        print(f"another process works on {', '.join(run.folder.name for run in busy)}: every state is left alone")
    else:
        unneeded = _states(found, args.states)
    for run in found:
        if not run.busy and run.folder not in unneeded:
            unneeded |= dict.fromkeys(_leftovers(run), run)
    guarded = {path: run.folder for path, run in unneeded.items()} | {path: path for path in _warm_ups(args.out)}
    freed = 0
    for path, folder in guarded.items():
        if not args.dry_run and locked(folder):
            continue  # a process has begun to work on the run in the meantime
        freed += (size := _size(path))
        print(f"{path}  {_bytes(size)}")
        if not args.dry_run:
            _remove(path)
    print(f"{_bytes(freed)} {'would be freed' if args.dry_run else 'freed'}")


def _look(folder: Path) -> Found:
    try:
        config = read_json(folder / "config.json", f"delete {folder}")
        chain = [config]
        while chain[-1]["start"]:
            chain.append(chain[-1]["start"])
        trains = config["schedule"]["epochs"] > 0
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / 'config.json'} cannot be read ({error}); delete {folder}") from None
    name, *starts = (json.dumps(each, sort_keys=True) for each in chain)
    return Found(folder, name, starts, trains, (folder / "result.json").exists(), locked(folder))


def locked(folder: Path) -> bool:
    """Return whether another process is working on the run in this folder."""
    try:
        with lock(folder / "lock", timeout=0):
            return False
    except Timeout:
        return True


def _leftovers(run: Found) -> Iterator[Path]:
    """Yield files that a killed process left half written and, for a finished run, its working checkpoints."""
    yield from run.folder.glob("*.part")
    if run.finished:
        yield from (path for path in working_files(run.folder) if path.exists())


def _warm_ups(out: Path) -> list[Path]:
    """Return the folders that commands killed in `launcher.warm_up` have left. Folders in use are not returned."""
    folders = [f for f in sorted(out.glob("warm-up-*")) if not f.is_symlink()]
    return [f for f in folders if not any(locked(run) for run in f.glob("runs/*") if run.is_dir())]


def _states(found: list[Found], trained: bool) -> dict[Path, Found]:
    """Return the caches that only finished runs start from and, if `trained` is set, also the states of trained runs.

    No state is returned that an unfinished run starts from. A cache is the state of a run that trains nothing. Its
    whole folder is removed, so that the cache counts as not computed yet. A cache stays if the state that it was
    computed from is gone, because it could not be computed again.
    """
    dependants = defaultdict[str, list[Found]](list)
    for run in found:
        for start in run.starts:
            dependants[start].append(run)
    at_hand = {run.name for run in found if (run.folder / BOUNDARY).exists()}
    unneeded: dict[Path, Found] = {}
    for run in found:
        if not run.finished or not all(other.finished for other in dependants[run.name]):
            continue
        if run.trains and trained:
            unneeded |= dict.fromkeys(sorted(run.folder.glob("*.safetensors")), run)
        elif not run.trains and dependants[run.name] and at_hand.issuperset(run.starts[:1]):
            unneeded[run.folder] = run
    return unneeded


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _remove(path: Path) -> None:
    """Delete a file or a folder. A folder loses its result first: deleted by half, it must count as unfinished."""
    if path.is_dir():
        (path / "result.json").unlink(missing_ok=True)
        shutil.rmtree(path)
    else:
        path.unlink()


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
