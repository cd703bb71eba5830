"""Writes what a command prints: descriptions of runs, the progress with the time left, and the output of --list."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

from common.command.estimates import cost, seconds_left
from common.command.own import OWN_IMAGES
from common.command.plan import Plan
from common.command.waiting import Outcome
from common.data.names import FOLDER
from common.drawing.report import counted
from common.runs import Run, type_name

STATES = {"finished": "done", "failed": "failed", "out of time": "saved, to go on later"}


@contextmanager
def progress(total: int, runs: int) -> Iterator[tuple[Callable[[int], None], Callable[[Outcome], None]]]:
    """Show a progress bar with the time left for `runs` runs of `total` images in all; off a terminal, a line per run.

    Yields two functions to call: the first with a number of trained images, the second with the Outcome of a run.
    """
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
    with Progress(*columns, console=console, disable=not console.is_terminal, speed_estimate_period=120) as bar:
        task = bar.add_task("", total=max(total, 1), runs=f"0/{runs}")

        def advance(images: int) -> None:
            nonlocal done
            done += images
            bar.update(task, completed=done)

        def count(outcome: Outcome) -> None:
            nonlocal ended
            ended += 1
            bar.update(task, runs=f"{ended}/{runs}")
            if not console.is_terminal:
                elapsed = time.perf_counter() - started
                left = elapsed * max(total - done, 0) / done if done else float("nan")
                print(
                    f"[{ended}/{runs}] {STATES[outcome.ending]}: {describe(outcome.run)}; about {duration(left)} left",
                    flush=True,
                )

        yield advance, count


def describe(run: Run) -> str:
    """Return a one-line description of a Run: method, protocol, class order, seed, start and folder."""
    protocol = run.protocol
    phases = len(protocol.sizes) - 1
    budget = (
        f"R={protocol.exemplars_per_class}" if protocol.exemplars_total is None else f"total {protocol.exemplars_total}"
    )
    words, tail = [_method(run.method)], run.longtail
    words += [f"base {protocol.base}"] if phases or not tail else []
    words += [f"+ {counted(phases, 'phase')}", budget] if phases else []
    words += [f"on {run.data.name}, imbalance {tail.imbalance:g}"] if tail else []
    words += [f"(subset {tail.seed})"] if tail and tail.seed else []
    words += ["BatchNorm synchronised"] if run.sync_batchnorm else []
    order = f", order {run.order}" if run.order != "native" else ""
    start = f", from {_folder(run.start)}" if run.start else ""
    return f"{' '.join(words)}{order}, seed {run.seed}{start} ({_folder(run)})"


def title(run: Run, usual: Any = None) -> str:
    """Return a heading for a Run: method, options that differ from `usual`, data, protocol, class order and seed."""
    protocol, tail = run.protocol, run.longtail
    phases, total = len(protocol.sizes) - 1, protocol.exemplars_total
    words = [f"base {protocol.base} + {counted(phases, 'phase')}" if phases else f"{protocol.classes} classes at once"]
    if phases:
        words += [f"{total} exemplars in all" if total else f"{protocol.exemplars_per_class} exemplars a class"]
    words += [f"imbalance {tail.imbalance:g}"] if tail else []
    same = run.order == str(run.seed)
    words += [f"order and seed {run.seed}" if same else f"order {run.order}, seed {run.seed}"]
    words += ["BatchNorm synchronised"] if run.sync_batchnorm else []
    data = OWN_IMAGES if run.data.name == FOLDER else run.data.name
    return f"{_method(run.method, usual)} on {data}: {', '.join(words)}"


def _folder(run: Run) -> str:
    """Return the name of a Run's folder, or its beginning as long as the data or the precision are not known."""
    return run.hash if run.fingerprint and run.precision else f"{run.key}..."


def _method(method: Any, usual: Any = None) -> str:
    """Return a method's name, and in brackets the settings that differ from `usual` or else from the class's defaults.

    A setting that is no plain value is only named. Without `usual`, a schedule in place of the class's is left out: a
    preset has its own anyway.
    """
    values = {f.name: (getattr(method, f.name), getattr(usual, f.name, f.default)) for f in fields(method)}
    if usual is None:
        values = {n: pair for n, pair in values.items() if not is_dataclass(pair[0]) or pair[1] is None}
    words = ", ".join(_setting(name, value, known) for name, (value, known) in values.items() if value != known)
    return type_name(type(method)) + (f" ({words})" if words else "")


def _setting(name: str, value: Any, known: Any) -> str:
    if value is None or value is False:
        return f"no {name}"
    if isinstance(value, (str, int, float)):
        return f"{name} {value}"
    return f"with {name}" if known is None else f"other {name}"


def duration(seconds: float) -> str:
    if seconds != seconds:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def list_plan(plan: Plan, jobs: int) -> None:
    """Print the figures and the runs, how many are finished, and the time left with up to `jobs` runs at once.

    Until a run with each network has ended here, the number of images to train stands in place of the time. Figures
    that are left out are listed with the reason; with --only, just those that it names.
    """
    runs = plan.runs()
    finished = {key for key, run in runs.items() if plan.finished(run)}
    recorded = {key for key, run in runs.items() if key not in finished and plan.find(run)}
    for figure in plan.figures:
        needed = {run.key: run for group in plan.required(figure).values() for run in group}
        problem = next((p for run in needed.values() if (p := plan.data.problem(run))), "")
        note = f"; {more} more in records" if (more := len(needed.keys() & recorded)) else ""
        state = f"{len(needed.keys() & finished)}/{len(needed)} runs finished{note}"
        print(f"{figure.id:10} {figure.title:58} {state}{'; skipped: ' + problem if problem else ''}")
    for figure, reason in plan.asked_in_vain() if plan.choice.only else plan.skipped:
        print(f"{figure.id:10} {figure.title:58} skipped: {reason}")
    todo = list({r.key: r for run in plan.unfinished() for r in run.chain if not plan.finished(r)}.values())
    idle = [run for run in runs.values() if run.key not in finished and plan.data.problem(run)]
    starts = f", {n} of them for others to start from" if (n := sum(r.key not in runs for r in todo)) else ""
    left = f"; {_left(plan, todo, max(1, min(jobs, len(runs))))}" if todo else ""
    without = f"; {len(idle)} lack their data, see above" if idle else ""
    print(f"{plan.paper}: {len(finished)}/{len(runs)} runs finished, {len(todo)} to train{starts}{left}{without}")
    for run in todo:
        print(f"  to train: {describe(run)}")


def _left(plan: Plan, todo: Sequence[Run], jobs: int) -> str:
    """Return the time that runs take, as text, or the number of images to train if no speed is known yet."""
    ended = {r.key: r for run in plan.runs().values() for r in run.chain if plan.finished(r)}
    found = [result for run in ended.values() if (result := plan.store.find(run, records=False))]
    costs = [cost(run, plan.data.opened.get(run.data)) for run in todo]
    seconds = seconds_left(todo, costs, found, jobs)
    return f"{sum(costs):,} images to train" if seconds is None else f"about {duration(seconds)} left"
