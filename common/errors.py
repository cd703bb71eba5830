"""The errors that a user can meet: bad input before any training, and runs that failed or stopped."""

from __future__ import annotations


class InputError(ValueError):
    """Raised on bad usage or input, before any training. The message is one line that says what to do; exit code 2."""


class RunFailed(RuntimeError):
    """Raised when one run fails, for example on a loss that is not finite. Other runs go on; exit code 1."""


class NotCaptured(RunFailed):
    """Raised when no CUDA graph can hold a training step. The run can still be trained step by step from Python."""


class OutOfTime(Exception):
    """Raised when the time budget is spent. The run has been saved, and the same command resumes it; exit code 130."""


def in_a_line(error: BaseException) -> str:
    """Return an error's message as one line.

    Usually this is the first line. An error from a DataLoader worker puts its traceback first, so there it is the last.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    line = lines[-1] if "DataLoader worker" in lines[0] else lines[0]
    if any(sign in str(error) for sign in ("shared memory", "</torch_", "Bus error")):
        line += (
            " (workers hand over images in /dev/shm: is it full? In a container, `docker run --shm-size=8g` widens it)"
        )
    return line
