"""What a run was trained by: the commit of the code, or what tells a learner from outside; libraries, device."""

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
    """Whether a method's learner comes from outside the six packages. Loads no learner."""
    learner = getattr(method, "learner", None)
    module = learner if isinstance(learner, str) else getattr(learner, "__module__", "")
    return _package(module.partition(":")[0]) not in PACKAGES


def _package(module: str) -> str:
    return module.partition(".")[0]


def source_files(learner: type) -> list[Path]:
    """The files that define a learner, and those of its base classes, as far as they are none of the six packages'."""
    files = dict[Path, None]()
    for each in learner.__mro__:
        if _package(each.__module__) not in PACKAGES:
            with suppress(TypeError, OSError):  # what is built in, or typed into an interactive session
                files[Path(inspect.getfile(each)).resolve()] = None
    return [file for file in files if file.is_file()]


def code_of(learner: type) -> dict[str, Any]:
    """Which code trains with a learner: the commit of this repository, or what tells code from outside apart.

    That is `source`, the digest of its `source_files`; the commit of the repository that tracks the first of them, else
    ""; whether that file differs from it; and this repository's commit, as `common`. It is what this was when it was
    first asked for, right after the learner was loaded.
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
    """The commit of the repository that tracks a file, and whether the file differs from it."""
    try:
        _git(file.parent, "ls-files", "--error-unmatch", "--", file.name)
        changed = _git(file.parent, "status", "--porcelain", "--", file.name).strip()
        return {"commit": _git(file.parent, "rev-parse", "HEAD").strip(), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return None


@lru_cache(maxsize=1)
def commit() -> dict[str, Any]:
    """Commit of the code that runs, and whether the tree differs from it.

    A copy that is no repository of its own has its commit from the environment variable REPRO_COMMIT, of the tree as
    committed; without it the commit is unknown. Raises InputError where REPRO_COMMIT is needed and is no commit.
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
    """What git says of the packages under `root`; None unless `root` is the top of a repository that tracks them.

    Code installed into an environment lies inside whatever repository holds that environment, which knows nothing of
    it.
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
    """Whether this repository has a commit. True where there is no telling: no repository, or only its last commits."""
    root = Path(__file__).resolve().parents[2]
    try:
        if committed(root) is None or _git(root, "rev-parse", "--is-shallow-repository").strip() == "true":
            return True
        _git(root, "cat-file", "-e", f"{commit}^{{commit}}")
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _git(folder: Path, *words: str) -> str:
    """What git says in a folder.

    Variables such as GIT_DIR, which git sets for its hooks, may name another repository.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *words]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=True, env=own)
    return done.stdout


def environment(device: Any, workspace: Workspace, measured: dict[str, float], started: float) -> dict:
    """Device, versions and throughput of a run, once it is trained.

    device: a `common.training.Device`. measured: images/s by number of threads. started: from `time.perf_counter`.
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
        "images_per_second_by_threads": measured,
        "steps": dict(workspace.steps),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "images_per_second": round(images / seconds, 1) if seconds else None,
        "training_seconds": round(seconds, 1),
        "seconds": round(time.perf_counter() - started, 1),
    }
