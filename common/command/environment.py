"""Describes how a run was trained: the commit of the code (or a digest of a user's own method), libraries, device."""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.store import Workspace

PACKAGES = ("common", "lucir", "der", "feature_adaptation", "bbn", "class_balanced", "fsa")


def outside(method: Any) -> bool:
    """Return whether a method's learner comes from outside the six packages. The learner is not loaded."""
    learner = getattr(method, "learner", None)
    module = learner if isinstance(learner, str) else getattr(learner, "__module__", "")
    return _package(module.partition(":")[0]) not in PACKAGES


def _package(module: str) -> str:
    return module.partition(".")[0]


def source_files(learner: type) -> list[Path]:
    """Return the files that define a learner and its base classes, without files of the six packages."""
    files = dict[Path, None]()
    for each in learner.__mro__:
        if _package(each.__module__) not in PACKAGES:
            with suppress(TypeError, OSError):  # built-in classes and those typed into a session have no file
                files[Path(inspect.getfile(each)).resolve()] = None
    return [file for file in files if file.is_file()]


def code_of(learner: type) -> dict[str, Any]:
    """Return which code a learner trains with, as `commit` and `dirty`.

    For a learner of the six packages these are the commit of this repository and whether the code differs from it. For
    a learner from outside they are about the repository that tracks its first source file (commit "" if there is none).
    `source`, a digest of its `source_files`, and `common`, the commit of this repository, are then added. The answer is
    kept from the first call, right after the learner is loaded, since files may change later.
    """
    return _code_of(learner)


@lru_cache
def _code_of(learner: type) -> dict[str, Any]:
    ours, files = commit(), source_files(learner)
    if not files:
        return ours
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]
    own = _tracked(files[0]) or {"commit": "", "dirty": False}
    return {**own, "source": digest, "common": ours}


def _tracked(file: Path) -> dict[str, Any] | None:
    """Return the commit of the repository that tracks a file, and whether the file differs from that commit."""
    try:
        _git(file.parent, "ls-files", "--error-unmatch", "--", file.name)
        changed = _git(file.parent, "status", "--porcelain", "--", file.name).strip()
        return {"commit": _git(file.parent, "rev-parse", "HEAD").strip(), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return None


@lru_cache(maxsize=1)
def commit() -> dict[str, Any]:
    """Return the commit of the code that runs, and whether the working tree differs from that commit.

    For a copy that is no repository, the environment variable REPRO_COMMIT names the commit, and the tree counts as
    unchanged. Without the variable the commit is unknown. Raises InputError if REPRO_COMMIT is needed and malformed.
    """
    if found := committed(Path(__file__).resolve().parents[2]):
        return found
    given = os.environ.get("REPRO_COMMIT", "")
    if given and not re.fullmatch("[0-9a-f]{7,40}", given):
        raise InputError(
            f"REPRO_COMMIT is {given!r}; set it to what `git rev-parse HEAD` says where the code comes from"
        )
    return {"commit": given or "unknown", "dirty": not given}


def committed(root: Path) -> dict[str, Any] | None:
    """Return the commit and the dirty flag of the packages under `root`, or None if git does not track them.

    `root` must be the top of the repository: an installed copy may lie inside another repository, such as the one that
    holds the virtual environment.
    """
    try:
        if _git(root, "rev-parse", "--show-prefix").strip():
            return None
        _git(root, "ls-files", "--error-unmatch", "--", *PACKAGES)
        head = _git(root, "rev-parse", "HEAD").strip()
        # Records, figures and notes do not decide a result; code and configuration do.
        words = ("status", "--porcelain", "--untracked-files=all", "--", *PACKAGES, ":!*.json", ":!*.md")
        changed = _git(root, *words).strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": head, "dirty": bool(changed)}


@lru_cache
def known_commit(commit: str) -> bool:
    """Return whether this repository has a commit. True too if nobody can tell: no repository, or a shallow one."""
    root = Path(__file__).resolve().parents[2]
    try:
        if committed(root) is None or _git(root, "rev-parse", "--is-shallow-repository").strip() == "true":
            return True
        _git(root, "cat-file", "-e", f"{commit}^{{commit}}")
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _git(folder: Path, *words: str) -> str:
    """Return what a git command prints in a folder.

    Variables such as GIT_DIR are removed: git sets them for its hooks, and they may name another repository.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *words]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=True, env=own)
    return done.stdout


def environment(device: Any, workspace: Workspace, measured: dict[str, float], started: float) -> dict:
    """Return the device, the library versions and the throughput of a run that has just been trained.

    device: a `common.training.Device`. measured: images/s by number of threads. started: when this process began with
    the run, by `time.perf_counter`.
    """
    import numpy
    import torch

    from common.training import has_bf16
    from common.tuning import cpu_name

    images, seconds = (sum(line[name] for line in workspace.lines) for name in ("images", "seconds"))
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else cpu_name(),
        "precision": device.precision,
        "native_bf16": has_bf16(device.type),
        "threads": workspace.threads,
        "ranks": workspace.ranks,
        "images_per_second_by_threads": measured,
        "steps": dict(workspace.steps),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "images_per_second": round(images / seconds, 1) if seconds else None,
        "training_seconds": round(seconds, 1),
        "seconds": round(time.perf_counter() - started, 1),
    }
