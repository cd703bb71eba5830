"""What a command settles before it begins, so that the user's surroundings do not decide whether it works."""

from __future__ import annotations

import os
import sys
import warnings


def settle() -> None:
    """Make output and drawing work in any locale and in any notebook's environment. For commands, not for a library.

    What the terminal cannot show is escaped. Warnings are one line each. matplotlib draws into files only, so it takes
    no backend from the environment: the one that notebooks name need not be installed here.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = lambda message, *rest: print(f"note: {message}", file=sys.stderr)
    os.environ["MPLBACKEND"] = "agg"
