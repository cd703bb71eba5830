"""Begins and ends every command: makes its output work in any terminal, and turns errors into exit codes."""

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
    """Run a command and exit with the code that it returns. An error or an interruption is printed as one line.

    Exit codes: 1 for an error of the operating system, such as a full disk; 2 for bad input; 130 for an interruption.
    """
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
        text = DISK_FULL.format(error.filename or "the output") if full else str(error)
        print(f"error: {text}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        code = 130
    sys.exit(code)


def _unread() -> bool:
    """Return whether the process that reads our output has ended, as `head` does. Later output is then dropped."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if _gone(stream.fileno())]
    for stream in streams:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(streams)


def _gone(descriptor: int) -> bool:
    """Return whether a pipe has no reader any more.

    A second write would not always fail: the text that the first one could not write may be gone by then.
    """
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _open_closed_streams() -> None:
    """Let standard streams that are closed lead nowhere, here and in the processes that this one starts.

    Otherwise the next file that is opened, such as a log of a run, gets the stream's number and what is printed to it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115 -- it stays open
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def settle() -> None:
    """Make output and drawing work in any locale and from any notebook. Meant for commands, not for library use.

    Characters that the terminal cannot show are escaped. Each warning becomes one line. matplotlib only writes files
    here, so its backend is set to agg: the environment of a notebook may name a backend that is not installed.
    """
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = lambda message, *rest: print(f"note: {message}", file=sys.stderr)
    os.environ["MPLBACKEND"] = "agg"
