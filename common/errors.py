"""The errors a user meets: bad input before any training, and a run that failed or stopped while others go on."""

from __future__ import annotations


class InputError(ValueError):
    """Bad usage or input, found before any training. One line that says what to do; exit code 2."""


class RunFailed(RuntimeError):
    """One run stopped, such as on a loss that is not finite. One line; the other runs go on; exit code 1."""


class NotCaptured(RunFailed):
    """A training step does what no CUDA graph can hold. Called from Python, step by step, the run can be trained."""


class OutOfTime(Exception):
    """The time budget is spent. The run is saved, and the same command goes on with it; exit code 130."""


def in_a_line(error: BaseException) -> str:
    """An error's message in one line. Of an error in a loader's worker process it is the last, after its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    line = lines[-1] if "DataLoader worker" in lines[0] else lines[0]
    if any(sign in str(error) for sign in ("shared memory", "</torch_", "Bus error")):
        line += (
            " (workers hand over images in /dev/shm: is it full? In a container, `docker run --shm-size=8g` widens it)"
        )
    return line
