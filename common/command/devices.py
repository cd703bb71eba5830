"""What of this machine a command may use: CPU threads and GPUs."""

from __future__ import annotations

import os


def asked_threads() -> int | None:
    """CPU threads of each run that the user asks for by OMP_NUM_THREADS; None where it is unset or no number."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # a list says more of nested regions
    return int(first) if first.isdecimal() and int(first) else None
