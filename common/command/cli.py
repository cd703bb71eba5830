"""The reproduce command: its words and options, and how it ends."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from common.command.clean import CleanArguments, clean
from common.command.console import settle
from common.command.export import RecordArguments, TensorBoardArguments, record, tensorboard
from common.command.launcher import DISK_FULL
from common.command.parsing import parse
from common.command.plan import PAPERS, Choice
from common.command.queue import Command, Resources, work
from common.command.status import StatusArguments, status
from common.errors import InputError

WORDS = "|".join(["all", *PAPERS, "queue FILE", "record", "tensorboard", "clean", "status"])
QUEUE = "Train in one queue what the lines of FILE ask for: the words of a reproduce command each; # begins a comment."
USAGE = f"usage: reproduce {WORDS} [options]; --help after one of these words says more"


@dataclass(frozen=True)
class Arguments(Resources, Choice):
    """What every paper's reproduce command takes."""


def main(argv: Sequence[str] | None = None, paper: str | None = None) -> None:
    """Entry point of `python -m PAPER.reproduce` and, without `paper`, of the `reproduce` command. Exits."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    settle()
    try:
        code = 0
        if paper is None and arguments[:1] == ["record"]:
            record(parse(RecordArguments, "reproduce record", record.__doc__, arguments[1:]))
        elif paper is None and arguments[:1] == ["tensorboard"]:
            tensorboard(parse(TensorBoardArguments, "reproduce tensorboard", tensorboard.__doc__, arguments[1:]))
        elif paper is None and arguments[:1] == ["queue"]:
            code = queue(arguments[1:])
        elif paper is None and arguments[:1] == ["clean"]:
            clean(parse(CleanArguments, "reproduce clean", None, arguments[1:]))
        elif paper is None and arguments[:1] == ["status"]:
            status(parse(StatusArguments, "reproduce status", None, arguments[1:]))
        elif paper is None and arguments[:1] in (["-h"], ["--help"]):
            print(USAGE)
        else:
            papers = [paper] if paper else _papers(arguments)
            prog = f"python -m {paper}.reproduce" if paper else f"reproduce {arguments[0]}"
            description = f"Reproduce the figures of {', '.join(papers)}."
            chosen = parse(Arguments, prog, description, arguments[0 if paper else 1 :])
            code = reproduce(papers, chosen)
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
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _papers(arguments: Sequence[str]) -> list[str]:
    word = arguments[0] if arguments else ""
    if word == "all":
        return list(PAPERS)
    if word in PAPERS:
        return [word]
    raise InputError(f"unknown command {word!r}; {USAGE}")


def reproduce(papers: Sequence[str], args: Arguments) -> int:
    """The figures of some papers, as a queue of one line. Returns the exit code."""
    return work([Command(papers, args)], args)


def queue(words: Sequence[str]) -> int:
    """`reproduce queue FILE`. Returns the exit code. Raises InputError with the file and the line that is wrong."""
    names = [word for word in words[:1] if not word.startswith("-")]
    if not names and not {"-h", "--help"} & set(words):
        raise InputError(
            "queue begins with a file that has a reproduce command in each line: reproduce queue FILE [options]"
        )
    use = parse(Resources, "reproduce queue FILE", QUEUE, words[len(names) :])
    try:
        lines = Path(names[0]).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{names[0]} cannot be read: {error}") from None
    commands = [c for number, line in enumerate(lines, 1) if (c := _command(line, f"{names[0]}, line {number}: "))]
    if not commands:
        raise InputError(f"{names[0]} has no line with a command, such as: lucir --only fig5c")
    return work(commands, use)


def _command(line: str, place: str) -> Command | None:
    """What a line of a queue asks for; None where it is empty or a comment."""
    try:
        if not (words := shlex.split(line, comments=True)):
            return None
        for option in (f"--{f.name}" for f in fields(Resources)):
            if any(word == option or word.startswith(f"{option}=") for word in words):
                raise InputError(f"{option} belongs to the queue command, not to a line of its file")
        if {"-h", "--help"} & set(words):
            raise InputError(f"--help has no place in a queue; run: reproduce {words[0]} --help")
        return Command(_papers(words), parse(Choice, f"reproduce {words[0]}", None, words[1:]), place)
    except ValueError as error:  # of shlex, such as a quotation mark without its partner; InputError is one too
        raise InputError(f"{place}{error}") from None
