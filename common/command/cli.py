"""The `reproduce` command: reads its subcommand and options, and starts the work."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from common.command import train
from common.command.checked import CheckArguments, check_records
from common.command.clean import CleanArguments, clean
from common.command.console import run_command
from common.command.export import RecordArguments, TensorBoardArguments, record, tensorboard
from common.command.parsing import parse
from common.command.plan import PAPERS, Choice
from common.command.queue import Command, Resources, work
from common.command.status import StatusArguments, status
from common.command.weights import ExportArguments, export
from common.errors import InputError

OTHERS = "train PAPER|queue FILE|status|report|record|check-records FOLDER|export HASH|tensorboard|clean"
WORDS = "|".join(["all", *PAPERS, OTHERS])
QUEUE = "Train in one queue what the lines of FILE ask for: the words of a reproduce command each; # begins a comment."
USAGE = f"usage: reproduce {WORDS} [options]; --help after one of these words says more"


@dataclass(frozen=True)
class Arguments(Resources, Choice):
    """Holds the options of every paper's reproduce command."""


def main(argv: Sequence[str] | None = None, paper: str | None = None) -> None:
    """Run `python -m PAPER.reproduce` or, without `paper`, the `reproduce` command. Ends the process."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    run_command(lambda: _run(arguments, paper))


def _run(arguments: Sequence[str], paper: str | None) -> int:
    """Run the subcommand that the words after the command's name ask for. Returns the exit code."""
    first, rest = arguments[:1], arguments[1:]
    if paper:
        return reproduce([paper], _arguments([paper], f"python -m {paper}.reproduce", arguments))
    if first == ["record"]:
        record(parse(RecordArguments, "reproduce record", record.__doc__, rest))
    elif first == ["check-records"]:
        folder, options = _subject(rest, "check-records is followed by a folder: reproduce check-records FOLDER")
        parse(CheckArguments, "reproduce check-records FOLDER", None, options)
        return check_records(Path(folder))
    elif first == ["export"]:
        digest, options = _subject(rest, "export is followed by a run's hash, or how it begins: reproduce export HASH")
        export(digest, parse(ExportArguments, "reproduce export HASH", None, options))
    elif first == ["report"]:
        return report(rest)
    elif first == ["tensorboard"]:
        tensorboard(parse(TensorBoardArguments, "reproduce tensorboard", tensorboard.__doc__, rest))
    elif first == ["clean"]:
        clean(parse(CleanArguments, "reproduce clean", None, rest))
    elif first == ["status"]:
        status(parse(StatusArguments, "reproduce status", None, rest))
    elif first in (["-h"], ["--help"]):
        print(USAGE)
    elif first == ["queue"]:
        return queue(rest)
    elif first == ["train"]:
        return train.command(_paper(rest), rest[1:], f"reproduce train {rest[0]}")
    else:
        papers = _papers(arguments)
        return reproduce(papers, _arguments(papers, f"reproduce {arguments[0]}", rest))
    return 0


def _subject(words: Sequence[str], missing: str) -> tuple[str, Sequence[str]]:
    """Return a subcommand's argument, such as a file or a hash, and the options that follow it.

    The argument is "" if only --help is asked for. Raises InputError with the text `missing` if there is no argument.
    """
    if words and words[0] and not words[0].startswith("-"):
        return words[0], words[1:]
    if {"-h", "--help"} & set(words):
        return "", words
    raise InputError(missing)


def _arguments(papers: Sequence[str], prog: str, words: Sequence[str]) -> Arguments:
    return parse(Arguments, prog, f"Reproduce the figures of {', '.join(papers)}.", words)


def _papers(arguments: Sequence[str]) -> list[str]:
    word = arguments[0] if arguments else ""
    if word == "all":
        return list(PAPERS)
    if word in PAPERS:
        return [word]
    raise InputError(f"unknown command {word!r}; {USAGE}")


def _paper(words: Sequence[str]) -> str:
    """Return the package that the first of the words names. Raises InputError if it names none."""
    if not words or words[0] not in PAPERS:
        raise InputError(f"train is followed by one of {', '.join(PAPERS)}")
    return words[0]


def report(words: Sequence[str]) -> int:
    """Run `reproduce report`. Returns the exit code: 1 if a figure could not be drawn."""
    from common.command import site

    page, problems = site.write(parse(site.SiteArguments, "reproduce report", site.SiteArguments.__doc__, words))
    for problem in problems:
        print(f"failed: {problem}", file=sys.stderr)
    print(page)
    return int(bool(problems))


def reproduce(papers: Sequence[str], args: Arguments) -> int:
    """Reproduce the figures of some papers, as a queue of one command. Returns the exit code."""
    return work([Command(papers, args)], args)


def queue(words: Sequence[str]) -> int:
    """Run `reproduce queue FILE`. Returns the exit code. Raises InputError that names the file and the wrong line."""
    missing = "queue begins with a file that has a reproduce command in each line: reproduce queue FILE [options]"
    file, options = _subject(words, missing)
    use = parse(Resources, "reproduce queue FILE", QUEUE, options)
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {error}") from None
    commands = [c for number, line in enumerate(lines, 1) if (c := _command(line, f"{file}, line {number}: ", use))]
    if not commands:
        raise InputError(f"{file} has no line with a command, such as: lucir --only fig5c")
    return work(commands, use)


def _command(line: str, place: str, use: Resources) -> Command | None:
    """Return the command that a line of a queue asks for, or None if the line is empty or a comment."""
    try:
        if not (words := shlex.split(line, comments=True)):
            return None
        for option in (f"--{f.name}" for f in fields(Resources)):
            if any(word == option or word.startswith(f"{option}=") for word in words):
                raise InputError(f"{option} belongs to the queue command, not to a line of its file")
        if {"-h", "--help"} & set(words):
            raise InputError(f"--help has no place in a queue; run: reproduce {words[0]} --help")
        if words[0] == "train":
            return train.line(_paper(words[1:]), words[2:], place, use)
        return Command(_papers(words), parse(Choice, f"reproduce {words[0]}", None, words[1:]), place)
    except ValueError as error:  # shlex raises it, as on a quotation mark without its partner; InputError is one too
        raise InputError(f"{place}{error}") from None
