"""Trains the runs of one or many commands in one queue, without a pause between papers and within a time budget.

The figures of each paper are drawn as its runs end. `python -m common.command.queue FILE` does the same as
`reproduce queue FILE`, for machines where the project is not installed.
"""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from common.command import cluster, devices, ranks
from common.command.changed import look_for_changes
from common.command.cluster import Request
from common.command.environment import commit
from common.command.estimates import cost
from common.command.export import records_folder
from common.command.launcher import Job, launch
from common.command.messages import describe, list_plan, progress
from common.command.parts import Part, cores
from common.command.plan import Choice, Data, make_plan
from common.command.waiting import Outcome
from common.drawing.report import counted
from common.drawing.results import write_record
from common.errors import InputError, RunFailed
from common.runs import SEEDS_END, Run
from common.store import Store

if TYPE_CHECKING:
    from common.training import Device


@dataclass(frozen=True)
class Place:
    """Holds the options that say where data and results are, on which device runs are trained, and for how long."""

    data: Path | None = None
    """A data set's folder, or a folder with cifar100/, imagenet/ ... in it; default: CIFAR is downloaded. With --preset
    folder, your own images: train/<class>/* with test/<class>/* or val/<class>/*, or train.txt with test.txt."""
    out: Path = Path("results")
    """The folder for runs, figures and reports."""
    device: str = "auto"
    """auto, cpu, cuda (all GPUs of this machine, with one process each) or cuda:1 (only that GPU)."""
    precision: str = "auto"
    """auto (bf16 where the hardware has it), fp32 or bf16."""
    minutes: float | None = None
    """After so many minutes no epoch begins and the command ends. The same command then goes on from there."""


@dataclass(frozen=True)
class Resources(Place):
    """Holds the options of `Place`, and those for commands with many runs."""

    jobs: int = 0
    """Runs trained at once, on each GPU if there are several; 0: one per CPU core (at most 8), on a GPU as measured."""
    record: Path | None = None
    """Also write a record of each run as it ends, to PAPER/HASH.json in this folder."""
    launcher: str = "here"
    """here, slurm (Slurm jobs train the runs, --jobs runs in each) or local (a rehearsal of slurm on this machine)."""
    slurm_partition: str = ""
    """The partition that jobs are submitted to."""
    slurm_gres: str = ""
    """The resources that each job asks for, such as gpu:a100:1."""
    gpus_per_node: int = 0
    """GPUs that each job asks for, in place of --slurm-gres."""
    slurm_time: int = 240
    """Minutes that a job may take. A run that takes longer goes on when the job is started again."""
    slurm_max_jobs: int = 0
    """Jobs that may wait or run at once; others are submitted as these end. 0: any number."""
    slurm_extra: tuple[str, ...] = ()
    """Other options of sbatch as key=value, such as account=me cpus-per-task=4."""

    @property
    def request(self) -> Request | None:
        """What each job asks of the cluster, or None if this command trains the runs itself."""
        if self.launcher == "here":
            return None
        most = self.slurm_max_jobs or (1 if self.launcher == "local" else 0)
        asked = {"partition": self.slurm_partition, "gres": self.slurm_gres, "gpus_per_node": self.gpus_per_node}
        return Request(self.launcher, self.slurm_time, most, asked, self.slurm_extra)


@dataclass(frozen=True)
class Command:
    """Holds what a command asks for: one line of a queue, or a command on its own."""

    papers: Sequence[str]
    choice: Choice
    place: str = ""
    """Where the command stands, as the beginning of error messages, such as "queue.txt, line 3: "."""
    retrain: bool = field(default=False, kw_only=True)
    """Whether runs of a user's own methods are trained anew if the method's source code has changed since."""

    def part(self, paper: str, store: Store, data: Data, use: Resources) -> Part:
        """Return the command's part for one of its papers. Raises InputError if nothing can be done for the paper."""
        return Part(make_plan(paper, self.choice, store, data, use.precision), use.out)


def work(commands: Sequence[Command], use: Resources) -> int:
    """Train the missing runs, draw figures as their runs end, and write the reports. Returns the exit code.

    Raises InputError, before any training, if nothing of a command can run.
    """
    deadline = time.time() + 60 * use.minutes if use.minutes is not None else math.inf
    return finish(begin(commands, use), use, deadline)


def finish(parts: Sequence[Part], use: Resources, deadline: float = math.inf) -> int:
    """Do what `work` does for parts that `begin` has made. deadline: the `time.time` after which no epoch begins."""
    for part in parts:
        look_for_changes(part.plan.runs().values(), part.plan.store, part.retrain and part.plan.choice.trains)
    for part in parts:
        if part.plan.choice.list:
            list_plan(part.plan, use.jobs or (1 if use.device.startswith("cuda") else min(cores(), 8)))
    if any(part.plan.choice.list for part in parts):
        print(f"device: {devices.describe(use.device)}")
    parts, refused = [part for part in parts if not part.plan.choice.list], parts[0].plan.store.refused
    if refused and not parts:
        raise InputError("; ".join(refused))
    for part in parts:
        for problem in part.plan.problems():
            print(f"note: {problem}; drawing from committed records", file=sys.stderr)
        for figure, why in part.plan.asked_in_vain():
            print(f"skipped: {figure.id} {why}")
    trained = [part for part in parts if not part.plan.choice.draw and part.plan.unfinished()]
    lost = not _catch_up(parts, use.record) if use.record else False
    lost |= _train(trained, use, deadline) if trained else False
    left = {digest for part in trained for digest in part.open}
    for part in parts:
        waits = left and part not in trained and not part.plan.choice.draw  # a later command will draw this part
        if not part.open and not part.closed and not waits:
            part.draw()
    if left:
        print(f"time is up with {len(left)} runs unfinished; the same command goes on from here", file=sys.stderr)
        return 130
    said = "\n".join(failure for part in parts for failure in part.failures)
    for problem in refused:
        if problem not in said:
            print(f"failed: {problem}", file=sys.stderr)
    return int(lost or bool(refused) or any(part.failed for part in parts))


def _train(parts: Sequence[Part], use: Resources, deadline: float) -> bool:
    """Train the runs that the parts wait for. Returns whether a record could not be written.

    Figures are drawn in between if a CPU or a cluster trains. On a GPU they are drawn at the end, since drawing would
    hold up the threads that train.
    """
    commit()  # finds a wrong REPRO_COMMIT before any training
    device, lost = _device(use), False
    ranks.check_norms((run for part in parts for run in part.plan.unfinished()), device.type)
    jobs = use.jobs or (1 if use.request else _jobs(device, [r for part in parts for r in part.plan.unfinished()]))
    for outcome in _outcomes(parts, device, jobs, use, deadline):
        if outcome.ending == "failed":
            print(f"failed: {describe(outcome.run)}: {outcome.problem}", file=sys.stderr)
        if outcome.ending == "finished" and use.record:
            lost |= not _recorded(parts[0].plan.store, outcome.run, use.record)
        for part in parts:
            if part.note(outcome) and (device.type == "cpu" or use.request):
                part.draw()
    return lost


def _outcomes(parts: Sequence[Part], device: Device, jobs: int, use: Resources, deadline: float) -> Iterator[Outcome]:
    """Train the runs of all parts, show the progress of the whole queue, and yield the Outcome of each run."""
    runs, threads, costs, left = dict[str, Run](), dict[str, int](), dict[str, int](), 0
    for part in parts:
        for run in part.wait_for(device, jobs):
            if run.hash not in runs:
                runs[run.hash], threads[run.hash] = run, part.threads
                costs[run.hash] = cost(run, part.plan.data.opened.get(run.data))
                left += max(costs[run.hash] - part.plan.store.trained(run), 0)
    if not runs:  # another process has finished them meanwhile
        return
    jobs = min(jobs, len(runs))
    each = " to ".join(map(str, sorted({min(threads.values()), max(threads.values())})))
    papers = ", ".join(dict.fromkeys(part.plan.paper for part in parts))
    shared = () if use.request else devices.together(use.device if use.device != "auto" else device.type, len(runs))
    how = f"{jobs} at once{' on each' if shared else ''}, {each} thread{'' if each == '1' else 's'} each"
    how = f"{jobs} in each job of {use.launcher}" if use.request else how
    where = f"{len(shared)} GPUs" if shared else device.type
    print(f"{papers}: {counted(len(runs), 'run')} on {where} in {device.precision}, {how}", flush=True)
    job = Job(use.out, use.data, device.type, jobs, 1, deadline, gpus=shared)
    finished = {start.hash for run in runs.values() for start in run.chain} - runs.keys()
    with progress(left, len(runs)) as (advance, count):

        def trained(images: int) -> None:
            advance(images)
            for part in parts:
                part.follow()

        if use.request:
            outcomes = cluster.launch(runs.values(), job, finished, use.request, costs, trained)
        else:
            outcomes = launch(runs.values(), job, finished, trained, threads)
        for outcome in outcomes:
            if outcome.ending == "not captured":
                print(f"note: {describe(outcome.run)}: {outcome.problem}; trained step by step at the end")
            elif outcome.ending == "busy":
                print(f"note: {describe(outcome.run)}: {outcome.problem}; this command comes back to it", flush=True)
            else:
                count(outcome)
            yield outcome


def _catch_up(parts: Sequence[Part], folder: Path) -> bool:
    """Write the missing records of runs that were finished earlier. Returns whether all of them could be written."""
    finished = {
        digest: (part, run)
        for part in parts
        for run in part.plan.runs().values()
        if (digest := part.plan.finished(run))
    }
    missing = [
        (p, run) for digest, (p, run) in finished.items() if not (folder / run.paper / f"{digest}.json").exists()
    ]
    return all([_recorded(part.plan.store, run, folder) for part, run in missing])


def _recorded(store: Store, run: Run, folder: Path) -> bool:
    """Write the record of a finished run. Returns whether it could be written: a full disk must not stop other runs."""
    result = store.load_or_note(run.hash) or store.find(run, records=False)
    assert result is not None
    try:
        write_record(result, folder / run.paper)
    except OSError as error:
        print(f"failed: no record of {run.hash} in {folder}: {error}", file=sys.stderr)
        return False
    return True


def _refuse_cluster_options(use: Resources) -> None:
    """Raise InputError on an option that only jobs of a cluster have, as it would be left out without a word here."""
    for option in fields(use):
        if option.name.startswith(("slurm", "gpus")) and getattr(use, option.name) != option.default:
            name = f"--{option.name.replace('_', '-')}"
            raise InputError(f"{name} is for the jobs of a cluster; add --launcher slurm, or leave it out")


def _check(commands: Sequence[Command], use: Resources) -> None:
    ranks.check()
    if use.launcher not in ("here", "slurm", "local"):
        raise InputError(f"unknown launcher {use.launcher!r}; choose one of here, slurm, local")
    if use.request:
        use.request.check()
    else:
        _refuse_cluster_options(use)
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", use.device):
        raise InputError(f"unknown device {use.device!r}; choose one of auto, cpu, cuda, or a GPU such as cuda:1")
    if use.precision not in ("auto", "fp32", "bf16"):
        raise InputError(f"unknown precision {use.precision!r}; choose one of auto, fp32, bf16")
    if use.jobs < 0:
        raise InputError(f"--jobs must be 0 (automatic) or more, got {use.jobs}")
    if use.minutes is not None and not 0 < use.minutes < math.inf:
        raise InputError(f"--minutes must be more than 0, got {use.minutes:g}")
    if use.record:
        try:
            use.record.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to --record {use.record}: {error.strerror}; choose another") from None
    for command in commands:
        if wrong := [s for s in command.choice.seeds if not 0 <= s < SEEDS_END]:
            raise InputError(f"{command.place}--seeds must be 0 or more and below 2^31, got {wrong[0]}")


def begin(commands: Sequence[Command], use: Resources) -> list[Part]:
    """Make a part for every paper of every command. Raises InputError if a command has no part, or on bad options."""
    _check(commands, use)
    store = Store(use.out, [records_folder(p) for p in dict.fromkeys(p for c in commands for p in c.papers)])
    if not all(command.choice.list for command in commands):
        store.prepare()
    data = Data(use.data, use.out / "cache")
    parts: list[Part] = []
    for command in commands:
        refused = dict[str, InputError]()
        for paper in command.papers:
            try:
                parts.append(command.part(paper, store, data, use))
            except InputError as error:
                refused[paper] = error
        if len(refused) == len(command.papers):
            raise InputError(f"{command.place}{next(iter(refused.values()))}")
        for paper, reason in refused.items():  # the paper has no such figure or lacks its data; other papers go on
            print(f"skipped: {command.place}{paper}: {reason}", file=sys.stderr)
    quick = all(command.choice.preset == "quick" for command in commands)
    if use.data and quick and all(run.data.name == "glyphs" for part in parts for run in part.plan.runs().values()):
        raise InputError(
            f"--data {use.data} is not used: the quick preset draws its own images; --preset folder trains on yours, "
            "--preset cifar and imagenet on the papers' data sets"
        )
    return parts


def _device(use: Resources) -> Device:
    """Return the device and precision that runs are trained with.

    On a cluster only the request is known: auto means a GPU if the request asks for one, and bf16 there. GPUs without
    bf16 need --precision fp32.
    """
    from common.training import Device, choose_device

    if not use.request:
        return choose_device(devices.pinned(use.device), use.precision)
    gpu = use.device.startswith("cuda") or (use.device == "auto" and bool(use.slurm_gres or use.gpus_per_node))
    return Device("cuda" if gpu else "cpu", use.precision if use.precision != "auto" else "bf16" if gpu else "fp32")


def _jobs(device: Device, runs: Sequence[Run]) -> int:
    """Return how many runs to train at once if --jobs does not say so.

    On a GPU, large images are trained one run at a time: its loader already uses every core, and it fills the GPU.
    """
    if device.type == "cpu":
        return min(cores(), 8)
    if len(runs) == 1 or any(run.inputs.kind != "crop-flip" for run in runs):
        return 1
    from common.tuning import choose_jobs

    try:
        return choose_jobs(device)
    except RunFailed as error:
        print(f"note: {error}; so one run at once, unless --jobs says more", file=sys.stderr)
        return 1


if __name__ == "__main__":
    from common.command.cli import main

    main(["queue", *sys.argv[1:]])
