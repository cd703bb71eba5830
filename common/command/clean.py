"""What finished runs no longer need: leftovers of interruptions, caches and, if asked for, network weights."""

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
    """Remove leftovers of interrupted runs, and cached feature maps once every run that draws from them is finished.

    No result and no trained state goes; a new run that needs a removed cache computes it again.
    """

    out: Path = Path("results")
    """The results folder to clean; what another process works on is left alone."""
    states: bool = False
    """Also the network weights and kept features of finished runs, unless a run begun here starts from them. Use it
    when nothing more is to be trained in this folder: a later run that needs them ends with a line that says which
    folder to delete so that it is trained again."""
    dry_run: bool = False
    """Print what would be removed, and remove nothing."""


@dataclass(frozen=True)
class Found:
    """A run's folder, the names of the runs it starts from, nearest first, and what clean has to know of it."""

    folder: Path
    name: str
    starts: list[str]
    trains: bool
    finished: bool
    busy: bool


def clean(args: CleanArguments) -> None:
    """Remove what is not needed, and print each file or folder with its size, and the sum."""
    if not (args.out / "runs").is_dir():
        raise InputError(f"--out {args.out} holds no runs; pass the folder a reproduce command wrote to")
    configs = sorted(Store(args.out).runs.glob("*/config.json"))
    found = [_look(path.parent) for path in configs if not path.parent.is_symlink()]  # a link's files are another's
    unneeded: dict[Path, Found] = {}
    if busy := [run for run in found if run.busy]:  # whatever it begins next may need any state
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
            continue  # taken up since
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
    """Whether another process works on the run of a folder."""
    try:
        with lock(folder / "lock", timeout=0):
            return False
    except Timeout:
        return True


def _leftovers(run: Found) -> Iterator[Path]:
    """Files that a kill left half written, and what only an unfinished run needs."""
    yield from run.folder.glob("*.part")
    if run.finished:
        yield from (path for path in working_files(run.folder) if path.exists())


def _warm_ups(out: Path) -> list[Path]:
    """Folders of epochs trained for nothing before a queue began, which a kill left behind."""
    folders = [f for f in sorted(out.glob("warm-up-*")) if not f.is_symlink()]
    return [f for f in folders if not any(locked(run) for run in f.glob("runs/*") if run.is_dir())]


def _states(found: list[Found], trained: bool) -> dict[Path, Found]:
    """Caches that finished runs started from and, if asked for, `trained` states; none that an unfinished run may need.

    A cache is the state of a run that trains nothing. Its whole folder goes, so that it counts as not computed yet. It
    stays where the state that it was computed from is gone.
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
    """A folder loses its result first, so that one removed by half counts as unfinished."""
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
