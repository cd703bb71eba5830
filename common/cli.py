"""The reproduce command: figures say which runs they need, the rest is trained, figures and report are drawn."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import tyro

from common.clean import CleanArguments, clean
from common.errors import InputError
from common.export import RecordArguments, TensorBoardArguments, record, records_folder, tensorboard
from common.launcher import DISK_FULL, Job, Outcome, launch, unfinished
from common.plan import PAPERS, Data, Plan, cost, make_plan, seconds_left
from common.runs import Run
from common.store import Store

T = TypeVar("T")
WORDS = "|".join(["all", *PAPERS, "record", "tensorboard", "clean"])
USAGE = f"usage: reproduce {WORDS} [options]; --help after one of these words says more"


@dataclass(frozen=True)
class Arguments:
    """What every paper's reproduce command takes."""

    preset: str = "quick"
    """quick (embedded data, minutes, no download), cifar (the paper's schedule) or imagenet (image folders)."""
    only: tuple[str, ...] = ()
    """Figure ids, such as fig5c, or their beginnings, such as fig3; default: every figure of the preset."""
    seeds: tuple[int, ...] = ()
    """Seeds of initialisation and batch order; without --orders each also chooses its class order."""
    orders: tuple[str, ...] = ()
    """Class orders: seeds of the shuffle, or names of published orders."""
    data: Path | None = None
    """A data set's folder, or a root with cifar100/, imagenet/ ... inside; default: CIFAR is downloaded."""
    out: Path = Path("results")
    """Where runs, figures and reports go."""
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: str = "auto"
    """auto (bf16 where the hardware has it), fp32 or bf16."""
    jobs: int = 0
    """Runs trained at once; 0: as many as CPU cores (at most 8), one on a GPU."""
    epochs_scale: float = 1.0
    """Shortens or stretches every schedule; what it made is labelled."""
    list: bool = False
    """Print figures, runs, what is finished and the time left, and train nothing."""
    draw: bool = False
    """Draw from finished runs and committed records, and train nothing."""


def main(argv: Sequence[str] | None = None, paper: str | None = None) -> None:
    """Entry point of `python -m PAPER.reproduce` and, without `paper`, of the `reproduce` command. Exits."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = lambda message, *rest: print(f"note: {message}", file=sys.stderr)
    try:
        code = 0
        if paper is None and arguments[:1] == ["record"]:
            record(_parse(RecordArguments, "reproduce record", record.__doc__, arguments[1:]))
        elif paper is None and arguments[:1] == ["tensorboard"]:
            tensorboard(_parse(TensorBoardArguments, "reproduce tensorboard", tensorboard.__doc__, arguments[1:]))
        elif paper is None and arguments[:1] == ["clean"]:
            clean(_parse(CleanArguments, "reproduce clean", None, arguments[1:]))
        elif paper is None and arguments[:1] in (["-h"], ["--help"]):
            print(USAGE)
        else:
            papers = [paper] if paper else _papers(arguments)
            prog = f"python -m {paper}.reproduce" if paper else f"reproduce {arguments[0]}"
            description = f"Reproduce the figures of {', '.join(papers)}."
            chosen = _parse(Arguments, prog, description, arguments[0 if paper else 1 :])
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


def _parse(kind: type[T], prog: str, description: str | None, words: Sequence[str]) -> T:
    """The command line as a dataclass. Raises InputError, in one line, where it does not fit."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(kind, prog=prog, description=description, args=words)
    except SystemExit as ended:
        if not ended.code:
            raise
        lines = [line.strip("│ ") for line in errors.getvalue().splitlines()[1:]]
        message = " ".join(itertools.takewhile(lambda line: not line.startswith("─"), lines))
        raise InputError(f"{message}; {prog} --help lists the options") from None


def reproduce(papers: Sequence[str], args: Arguments) -> int:
    """Train what is missing, draw figures as their runs end, write the reports. Returns the exit code."""
    _check(args)
    store = Store(args.out, [records_folder(p) for p in papers])
    data = Data(args.data, args.out / "cache")
    plans, refused = list[Plan](), dict[str, InputError]()
    for p in papers:
        try:
            plans.append(
                make_plan(
                    p,
                    args.preset,
                    args.only,
                    args.seeds,
                    args.orders,
                    args.epochs_scale,
                    store,
                    data,
                    args.precision,
                    decode=not (args.list or args.draw),
                )
            )
        except InputError as error:
            refused[p] = error
    if not plans:
        raise next(iter(refused.values()))
    for p, reason in refused.items():  # it has no such figure, or its data are not at hand; the others go on
        print(f"skipped: {p}: {reason}", file=sys.stderr)
    if args.list:
        return _list(plans, args)
    return sum(_reproduce(plan, args) for plan in plans) and 1


def _check(args: Arguments) -> None:
    for name, value, allowed in (
        ("device", args.device, ("auto", "cpu", "cuda")),
        ("precision", args.precision, ("auto", "fp32", "bf16")),
    ):
        if value not in allowed:
            raise InputError(f"unknown {name} {value!r}; choose one of {', '.join(allowed)}")
    if negative := [s for s in args.seeds if s < 0]:
        raise InputError(f"--seeds must be 0 or more, got {negative[0]}")
    if args.jobs < 0:
        raise InputError(f"--jobs must be 0 (automatic) or more, got {args.jobs}")


def _reproduce(plan: Plan, args: Arguments) -> int:
    """One paper. Returns the number of runs that failed."""
    from common.drawing import Painter

    for problem in plan.problems():
        print(f"note: {problem}; drawing from committed records", file=sys.stderr)
    for figure, why in plan.asked_in_vain(args.only):
        print(f"skipped: {figure.id} {why}")
    painter = Painter(plan, args.out, args.preset, args.epochs_scale, _command(plan, args))
    waiting = [] if args.draw else plan.unfinished()
    failures: list[Outcome] = []
    _say(painter.draw_complete() if waiting else [])
    for outcome in _train(plan, waiting, args) if waiting else ():
        if outcome.problem:
            failures.append(outcome)
            print(f"failed: {describe(outcome.run)}: {outcome.problem}", file=sys.stderr)
        else:
            _say(painter.draw_complete())
    _say(painter.draw_rest())
    report = painter.report([f"{describe(o.run)}: {o.problem}" for o in failures])
    for problem in painter.problems:
        print(f"failed: {problem}", file=sys.stderr)
    undrawn = painter.undrawn()
    for line in undrawn:
        print(f"not drawn: {line}")
    if args.draw and undrawn and not painter.used:
        print("no run of these figures is finished or recorded with these --seeds, --orders and --epochs-scale")
    print(f"{plan.paper}: {painter.summary()}; report: {report}")
    return len(failures) + len(painter.problems)


def _say(drawn: Sequence[str]) -> None:
    for figure in drawn:
        print(f"drawn: {figure}", flush=True)


def _command(plan: Plan, args: Arguments) -> str:
    words = [f"python -m {plan.paper}.reproduce --preset {args.preset}"]
    words += [f"--only {' '.join(args.only)}"] if args.only else []
    words += [f"--seeds {' '.join(map(str, args.seeds))}"] if args.seeds else []
    words += [f"--orders {' '.join(args.orders)}"] if args.orders else []
    words += [f"--precision {args.precision}"] if args.precision != "auto" else []
    words += [f"--epochs-scale {args.epochs_scale:g}"] if args.epochs_scale != 1 else []
    words += ["--draw"] if args.draw else []
    return " ".join(words)


def _train(plan: Plan, waiting: list[Run], args: Arguments) -> Iterator[Outcome]:
    """Train the runs with a progress line over the whole job; a line a run where output is not a terminal."""
    from common.training import choose_device

    device = choose_device(args.device, args.precision)
    contents = {r.data: r.fingerprint for run in waiting for r in run.chain}
    runs = [run.resolved(contents.__getitem__, device.precision) for run in waiting]
    finished = {r.hash for run in runs for r in run.chain if plan.store.load(r.hash)}
    todo = unfinished(runs, finished)
    # From the whole plan, not from what is left: sums depend on the threads in the last bits.
    jobs, threads = _jobs(args.jobs, device.type, len(plan.runs()))
    job = Job(args.out, args.data, device.type, jobs, threads)
    left = [max(cost(run, plan.data.opened.get(run.data)) - plan.store.trained(run), 0) for run in todo]
    print(
        f"{plan.paper}: {len(todo)} runs on {device.type} in {device.precision}, {jobs} at once, "
        f"{threads} thread{'s' if threads > 1 else ''} each",
        flush=True,
    )
    with _progress(sum(left), len(todo)) as (advance, count):
        for outcome in launch(todo, job, finished, advance):
            count(outcome)
            yield outcome


def _jobs(asked: int, device: str, runs: int) -> tuple[int, int]:
    """(runs at once, CPU threads of each)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = asked or (min(cores, 8) if device == "cpu" else 1)
    jobs = max(1, min(jobs, runs))
    return jobs, max(1, cores // jobs)


@contextmanager
def _progress(total: int, runs: int) -> Iterator[tuple[Callable[[int], None], Callable[[Outcome], None]]]:
    """(advance by images, count a run): a bar with the time left for the whole job, or plain lines."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    started, done, ended = time.perf_counter(), 0, 0
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.fields[runs]} runs"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, speed_estimate_period=120) as progress:
        task = progress.add_task("", total=max(total, 1), runs=f"0/{runs}")

        def advance(images: int) -> None:
            nonlocal done
            done += images
            progress.update(task, completed=done)

        def count(outcome: Outcome) -> None:
            nonlocal ended
            ended += 1
            progress.update(task, runs=f"{ended}/{runs}")
            if not console.is_terminal:
                elapsed = time.perf_counter() - started
                left = elapsed * max(total - done, 0) / done if done else float("nan")
                state = "failed" if outcome.problem else "done"
                print(f"[{ended}/{runs}] {state}: {describe(outcome.run)}; about {_duration(left)} left", flush=True)

        yield advance, count


def describe(run: Run) -> str:
    """A Run in a few words."""
    protocol = run.protocol
    phases = len(protocol.sizes) - 1
    budget = (
        f"R={protocol.exemplars_per_class}" if protocol.exemplars_total is None else f"total {protocol.exemplars_total}"
    )
    words = [_method(run.method), f"base {protocol.base}"]
    words += [f"+ {phases} phases", budget] if phases else []
    if tail := run.longtail:
        words = [_method(run.method), f"on {run.data.name}, imbalance {tail.imbalance:g}"]
    order = f", order {run.order}" if run.order != "native" else ""
    start = f", from {_folder(run.start)}" if run.start else ""
    return f"{' '.join(words)}{order}, seed {run.seed}{start} ({_folder(run)})"


def _folder(run: Run) -> str:
    """The name of a Run's folder, or how it begins where the data or the precision are not settled."""
    return run.hash if run.fingerprint and run.precision else f"{run.key}..."


def _method(method: Any) -> str:
    """A method's name with the settings that are not its defaults; of one with parts of its own the name alone."""
    values = {f.name: value for f in fields(method) if (value := getattr(method, f.name)) != f.default}
    settings = ", ".join(
        f"no {name}" if value is None else f"{name} {value}" if isinstance(value, (str, int, float)) else name
        for name, value in values.items()
    )
    return type(method).__name__ + (f" ({settings})" if settings else "")


def _duration(seconds: float) -> str:
    if seconds != seconds:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _list(plans: Sequence[Plan], args: Arguments) -> int:
    for plan in plans:
        runs = plan.runs()
        finished = {key: found for key, run in runs.items() if (found := plan.find(run, records=False))}
        recorded = {key for key, run in runs.items() if key not in finished and plan.find(run)}
        for figure in plan.figures:
            keys = {run.key for group in plan.required(figure).values() for run in group}
            problem = next((p for run in runs.values() if run.key in keys and (p := plan.data.problem(run))), "")
            note = f"; {len(keys & recorded)} more in records" if keys & recorded else ""
            state = f"{len(keys & set(finished))}/{len(keys)} runs finished{note}"
            print(f"{figure.id:10} {figure.title:58} {state}{'; skipped: ' + problem if problem else ''}")
        for figure, reason in plan.asked_in_vain(args.only) if args.only else plan.skipped:
            print(f"{figure.id:10} {figure.title:58} skipped: {reason}")
        todo = _todo(plan)
        costs = [cost(run, plan.data.opened.get(run.data)) for run in todo]
        jobs, _ = _jobs(args.jobs, "cpu" if args.device == "auto" else args.device, len(runs))
        left = seconds_left(todo, costs, list(finished.values()), jobs)
        note = "" if finished else " on a CPU, a rough guess before the first run"
        time_left = f"; about {_duration(left)} left{note}" if todo else ""
        idle = [run for run in runs.values() if run.key not in finished and plan.data.problem(run)]
        starts = f", {n} of them for others to start from" if (n := sum(r.key not in runs for r in todo)) else ""
        without = f"; {len(idle)} lack their data, see above" if idle else ""
        print(
            f"{plan.paper}: {len(finished)}/{len(runs)} runs finished, {len(todo)} to train{starts}{time_left}{without}"
        )
        for run in todo:
            print(f"  to train: {describe(run)}")
    return 0


def _todo(plan: Plan) -> list[Run]:
    """Unfinished runs and their unfinished starts."""
    chained = {r.key: r for run in plan.unfinished() for r in run.chain}
    return [run for run in chained.values() if not plan.find(run, records=False)]
