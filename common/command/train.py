"""Trains one method: for `python -m PAPER.train`, for a line `train PAPER ...` of a queue, and for `train(run)`."""

from __future__ import annotations

import importlib
import math
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from common.command import ranks, roots
from common.command.console import run_command
from common.command.messages import title
from common.command.own import Options
from common.command.parsing import change, parse
from common.command.plan import PAPERS, Choice, Data, Plan, checked, settings_of
from common.command.queue import Command, Place, Resources, begin, finish, work
from common.command.single import Single
from common.data.names import FOLDER
from common.drawing.figures import Drawing, Figure
from common.errors import InputError, OutOfTime, RunFailed
from common.runs import Run, type_name
from common.store import Result, Store


@dataclass(frozen=True)
class Which:
    """Holds the options that choose data, schedule and seeds for one method."""

    preset: str = "quick"
    """quick (embedded data, no download), cifar (the paper's schedule), imagenet (image folders) or folder
    (your own images, at the paper's schedule)."""
    dataset: str | None = None
    """The data set, of those that the preset has, such as cifar100; default: the first."""
    seed: int | None = None
    """Seed of initialisation and batch order; without --order, also of the class order. Default: the preset's."""
    order: str | None = None
    """Class order: the seed of the shuffle, or the name of a published order."""
    epochs_scale: float = 1.0
    """Shortens or stretches every schedule."""
    sync_batchnorm: bool = False
    """Under torchrun on GPUs: BatchNorm uses all images of a batch, not each process's share as in the papers' code."""


@dataclass(frozen=True)
class Arguments(Options, Place, Which):
    """Holds the options that `train` takes before the method, in the order of its help."""


@dataclass(frozen=True)
class Line(Options, Which):
    """Holds the options that a `train` line of a queue takes before the method."""


A = TypeVar("A", Arguments, Line)
ELSEWHERE = {
    "seeds": "train takes one --seed",
    "orders": "train takes one --order",
    "only": "train draws no figures and takes the name of a method",
}
"""Options of figure commands that a user may try with `train` too, and what to do instead."""


@dataclass(frozen=True)
class One(Command):
    """A command that trains one run."""

    run: Run = field(kw_only=True)
    settings: tuple[Any, ...] = ()
    """The settings of the preset that the run belongs to; empty for other runs."""
    usual: Any = None
    """The method with the preset's options, from which the heading names the differences."""

    def part(self, paper: str, store: Store, data: Data, use: Resources) -> Single:
        self.run.check()
        heading = title(self.run, self.usual)
        figure = Figure("train", heading, lambda settings: {"": [self.run]}, lambda *given: Drawing([]), role=None)
        plan = Plan(paper, self.choice, self.settings, [figure], [], store, data, use.precision)
        return Single(checked(plan), use.out, retrain=self.retrain)


def train(
    run: Run,
    out: Path | str = "results",
    data: Path | str | None = None,
    device: str = "auto",
    precision: str = "auto",
    minutes: float | None = None,
    retrain: bool = False,
) -> Result:
    """Train a Run, after the Runs that it starts from, and return its Result. A finished Run is only read.

    Prints the progress. The options are those of the command. retrain: trains your own method anew if its source code
    has changed since. Raises InputError on bad input before any training, RunFailed if the run fails, and OutOfTime
    when the minutes are over; the same call then goes on from there.
    """
    roots.check(["common", *PAPERS])
    if precision not in ("auto", run.precision or precision):
        raise InputError(f"the run is in {run.precision}; leave precision out, or resolve the run in {precision}")
    precision = run.precision or precision
    use = Resources(Path(data) if data else None, Path(out), device, precision, minutes, jobs=1)
    deadline = time.time() + 60 * minutes if minutes is not None else math.inf
    parts = begin([One([run.paper], Choice(), run=run, retrain=retrain)], use)
    assert isinstance(parts[0], Single)
    if run.fingerprint not in ("", parts[0].run.fingerprint):
        raise InputError(f"the run is on other images of {run.data.name} than those at hand; give their folder as data")
    if finish(parts, use, deadline) == 130:
        raise OutOfTime("time is up; the same call goes on from here")
    if not (result := parts[0].result):
        raise RunFailed("; ".join(parts[0].failures))
    return result


def main(paper: str, argv: Sequence[str] | None = None) -> None:
    """Run `python -m PAPER.train`. Ends the process."""
    words = list(sys.argv[1:] if argv is None else argv)
    run_command(lambda: ranks.together(lambda: command(paper, words, f"python -m {paper}.train")))


def command(paper: str, words: Sequence[str], prog: str) -> int:
    """Train the method that the words ask for, and print a table. Returns the exit code."""
    args, one = _asked(paper, words, Arguments, prog, None)
    return work([one], Resources(**{f.name: getattr(args, f.name) for f in fields(Place)}, jobs=1))


def line(paper: str, words: Sequence[str], place: str, use: Place | None = None) -> One:
    """Return the command for the words after `train PAPER` in a line of a queue.

    place: the line's file and number, for errors found later. use: the queue's options, which say where the user's
    images are.
    """
    return replace(_asked(paper, words, Line, f"reproduce train {paper}", use or Place())[1], place=place)


def _asked(paper: str, words: Sequence[str], kind: type[A], prog: str, use: Place | None) -> tuple[A, One]:
    """Return the options before the method, and the command for the run that options and method make.

    use: says where data and results are; None if the options themselves say so.
    """
    presets = importlib.import_module(f"{paper}.reproduce.presets")
    methods = {type_name(type(m)): m for m in presets.settings("quick", (), (), 1.0)[0].defaults()}
    own, *others = methods
    first, rest = _parted(words, kind)
    description = (
        f"Train one method, on embedded data unless told otherwise. After these options may stand {own} (the paper's "
        f"own, and the default), {', '.join(others)}, and then its own options: {prog} {own} --help lists them."
    )
    _in_place(first, rest, kind, methods, prog)
    args = parse(kind, prog, description, first)
    seeds, orders = (args.seed,) if args.seed is not None else (), (args.order,) if args.order else ()
    given = {f.name: getattr(args, f.name) for f in fields(Options)}
    factor = None if args.preset == FOLDER else given.pop("imbalance")
    choice = Choice(args.preset, seeds=seeds, orders=orders, epochs_scale=args.epochs_scale, **given)
    place: Any = use or args
    settings = settings_of(paper, choice, Data(place.data, place.out / "cache"))
    settings = tuple(replace(s, repeats=s.repeats[:1]) for s in settings)
    setting = _named({s.role: s for s in settings}, args.dataset or "", "--dataset")
    if factor is not None:
        setting = setting.at_imbalance(factor)  # `settings` stay the paper's, beside which published numbers stand
    default = _named({type_name(type(m)): m for m in setting.defaults()}, rest[0] if rest else "", "method")
    note = f"The defaults below are those of --preset {args.preset}; another preset stands before the method's name."
    method = change(default, f"{prog} {type_name(type(default))}", rest[1:], setting, note)
    choice = replace(choice, seeds=(), orders=())  # the run has them already
    run = setting.main(method)[0]
    run = _synchronised(run) if args.sync_batchnorm else run
    return args, One([paper], choice, run=run, settings=settings, usual=default)


def _synchronised(run: Run) -> Run:
    return replace(run, sync_batchnorm=True, start=run.start and _synchronised(run.start))


def _parted(words: Sequence[str], kind: type[A]) -> tuple[Sequence[str], Sequence[str]]:
    """Split the words into options with their values before the method's name, and the words from the name on."""
    flags = [f.name.replace("_", "-") for f in fields(kind) if isinstance(f.default, bool)]
    alone = {f"--{no}{name}" for name in flags for no in ("", "no-")} | {"-h", "--help"}
    at = 0
    while at < len(words) and words[at].startswith("-"):
        at += 1 if "=" in words[at] or words[at] in alone else 2
    return words[:at], words[at:]


def _in_place(first: Sequence[str], rest: Sequence[str], kind: type[A], methods: Mapping[str, Any], prog: str) -> None:
    """Raise InputError on an option that stands on the wrong side of the method's name."""
    general = {f.name for f in fields(kind)}
    owned = {name: {f.name for f in fields(method)} for name, method in methods.items()}
    for word in first:
        if other := ELSEWHERE.get(_field(word)):
            raise InputError(f"{word} is an option of reproduce; {other}")
        owner = next((name for name, names in owned.items() if _field(word) in names - general), None)
        if owner:
            raise InputError(f"{word} is an option of {owner} and stands after its name: {prog} {owner} {word} ...")
    for word in rest[1:]:
        if _field(word) in general - owned.get(rest[0], general):
            raise InputError(f"{word} stands before the method's name: {prog} {word} ... {rest[0]}")


def _field(word: str) -> str:
    """Return the field that an option sets, such as "finetune" for --finetune.epochs=5, or "" for other words."""
    return re.split(r"[=.]", word[2:])[0].replace("-", "_") if word.startswith("--") else ""


def _named(choices: dict[str, Any], name: str, what: str) -> Any:
    """Return the choice with this name, or the first choice if the name is "". Raises InputError on an unknown name."""
    if name and name not in choices:
        raise InputError(f"unknown {what} {name!r}; choose one of {', '.join(choices)}")
    return choices[name] if name else next(iter(choices.values()))
