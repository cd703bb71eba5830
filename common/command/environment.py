"""What a run was trained by: the commit of the code, the versions of the libraries, the device."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.store import Workspace

PACKAGES = ("common", "lucir", "der", "feature_adaptation", "bbn", "class_balanced", "fsa")


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
    it. Variables such as GIT_DIR, which git sets for its hooks, may name yet another repository.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=True, env=own
        ).stdout

    try:
        if git("rev-parse", "--show-prefix").strip():
            return None
        git("ls-files", "--error-unmatch", "--", *PACKAGES)
        head = git("rev-parse", "HEAD").strip()
        # Records, figures and notes do not decide a result; code and configuration do.
        changed = git("status", "--porcelain", "--untracked-files=all", "--", *PACKAGES, ":!*.json", ":!*.md").strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": head, "dirty": bool(changed)}


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
