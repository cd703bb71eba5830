"""How a command begins and ends: what it settles, whatever the user's surroundings are, and its exit codes."""

from __future__ import annotations

import errno
import os
import select
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from common.command import roots
from common.command.plan import PAPERS
from common.errors import InputError

DISK_FULL = "disk full while writing {}; free some space and run the same command, it goes on"


def run_command(command: Callable[[], int]) -> NoReturn:
    """Settle, run a command and exit by its code; an error or an interruption is one line and a code of its own."""
    settle()
    try:
        roots.check(["common", *PAPERS])
        code = command()
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _unread():
            sys.exit(1)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        text = DISK_FULL.format(error.filename or "the output folder") if full else str(error)
        print(f"error: {text}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        code = 130
    sys.exit(code)


def _unread() -> bool:
    """Whether the reader of what is printed has gone, as `head` does; what is left to print is dropped then."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if _gone(stream.fileno())]
    for stream in streams:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(streams)


def _gone(descriptor: int) -> bool:
    """Whether a pipe has no reader any more. Another write does not always tell: what failed may be dropped by then."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


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
