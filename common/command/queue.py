"""The runs of many commands in one queue: no pause between papers, each part drawn as its runs end, and a time budget.

`python -m common.command.queue FILE` is `reproduce queue FILE`, for machines where the project is not installed.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.command import cluster
from common.command.cluster import Request
from common.command.environment import commit
from common.command.estimates import cost
from common.command.export import records_folder
from common.command.launcher import Job, launch
from common.command.messages import describe, list_plan, progress
from common.command.parts import Part, cores
from common.command.plan import Choice, Data, make_plan
from common.command.waiting import Outcome
from common.errors import InputError, RunFailed
from common.runs import SEEDS_END, Run
from common.store import Store, write_record

if TYPE_CHECKING:
    from common.training import Device


@dataclass(frozen=True)
class Resources:
    """What runs are trained from and on, for how long, and where they go."""

    data: Path | None = None
    """A data set's folder, or a root with cifar100/, imagenet/ ... inside; default: CIFAR is downloaded."""
    out: Path = Path("results")
    """Where runs, figures and reports go."""
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: str = "auto"
    """auto (bf16 where the hardware has it), fp32 or bf16."""
    jobs: int = 0
    """Runs trained at once; 0: as many as CPU cores (at most 8), on a GPU what a short measurement says."""
    minutes: float | None = None
    """After so many minutes no epoch begins and the command ends; the same command goes on from there."""
    record: Path | None = None
    """Also write a record of each run as it ends, to PAPER/HASH.json in this folder."""
    launcher: str = "here"
    """here, slurm (runs are trained by jobs of Slurm, --jobs of them in each) or local (a rehearsal of that)."""
    slurm_partition: str = ""
    """The partition that jobs are submitted to."""
    slurm_gres: str = ""
    """What each job asks for, such as gpu:a100:1."""
    gpus_per_node: int = 0
    """GPUs that each job asks for, in place of --slurm-gres."""
    slurm_time: int = 240
    """Minutes a job may take; a run that takes longer goes on in the job's next turn."""
    slurm_max_jobs: int = 0
    """Jobs that wait and run at once, the rest is submitted as they end; 0: any number."""
    slurm_extra: tuple[str, ...] = ()
    """Other options of sbatch, key=value: account=me cpus-per-task=4."""

    @property
    def request(self) -> Request | None:
        """What a job asks of the cluster; None where this command trains."""
        if self.launcher == "here":
            return None
        most = self.slurm_max_jobs or (1 if self.launcher == "local" else 0)
        asked = {"partition": self.slurm_partition, "gres": self.slurm_gres, "gpus_per_node": self.gpus_per_node}
        return Request(self.launcher, self.slurm_time, most, asked, self.slurm_extra)


@dataclass(frozen=True)
class Command:
    """What one line of a queue asks for, or a command on its own."""

    papers: Sequence[str]
    choice: Choice
    place: str = ""
    """Where it stands, to begin an error with, such as "queue.txt, line 3: "."""


def work(commands: Sequence[Command], use: Resources) -> int:
    """Train what is missing, draw figures as their runs end, write the reports. Returns the exit code.

    Raises InputError, before any training, where a command has nothing that can run.
    """
    deadline = time.time() + 60 * use.minutes if use.minutes is not None else math.inf
    _check(commands, use)
    parts = _parts(commands, use)
    for part in parts:
        if part.plan.choice.list:
            list_plan(part.plan, use.jobs or (1 if use.device == "cuda" else min(cores(), 8)))
    parts = [part for part in parts if not part.plan.choice.list]
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
        waits = left and part not in trained and not part.plan.choice.draw  # for the command that comes to an end
        if not part.open and not part.closed and not waits:
            part.draw()
    if left:
        print(f"time is up with {len(left)} runs unfinished; the same command goes on from here", file=sys.stderr)
        return 130
    return int(lost or any(part.failed for part in parts))


def _train(parts: Sequence[Part], use: Resources, deadline: float) -> bool:
    """Train what the parts wait for, and draw beside it on a CPU. Returns whether a record could not be written.

    On a GPU drawing waits: it would hold up the threads that train.
    """
    commit()  # finds a wrong REPRO_COMMIT before any training
    device, lost = _device(use), False
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
    """Train with a progress line over the whole queue; a line a run where output is not a terminal."""
    runs, threads, costs, left = dict[str, Run](), dict[str, int](), dict[str, int](), 0
    for part in parts:
        for run in part.wait_for(device, jobs):
            if run.hash not in runs:
                runs[run.hash], threads[run.hash] = run, part.threads
                costs[run.hash] = cost(run, part.plan.data.opened.get(run.data))
                left += max(costs[run.hash] - part.plan.store.trained(run), 0)
    if not runs:  # another process has finished them since
        return
    jobs = min(jobs, len(runs))
    each = " to ".join(map(str, sorted({min(threads.values()), max(threads.values())})))
    how = f"{jobs} at once, {each} thread{'' if each == '1' else 's'} each"
    how = f"{jobs} in each job of {use.launcher}" if use.request else how
    papers = ", ".join(dict.fromkeys(part.plan.paper for part in parts))
    print(f"{papers}: {len(runs)} runs on {device.type} in {device.precision}, {how}", flush=True)
    job = Job(use.out, use.data, device.type, jobs, 1, deadline)
    finished = {start.hash for run in runs.values() for start in run.chain} - runs.keys()
    with progress(left, len(runs)) as (advance, count):
        if use.request:
            outcomes = cluster.launch(runs.values(), job, finished, use.request, costs, advance)
        else:
            outcomes = launch(runs.values(), job, finished, advance, threads)
        for outcome in outcomes:
            if outcome.ending == "not captured":
                print(f"note: {describe(outcome.run)}: {outcome.problem}; trained step by step at the end")
            else:
                count(outcome)
            yield outcome


def _catch_up(parts: Sequence[Part], folder: Path) -> bool:
    """Write the records that are missing of runs finished earlier. Returns whether all could be written."""
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
    """Write the record of a finished run; a full disk must not stop the other runs."""
    result = store.find(run, records=False)
    assert result is not None
    try:
        write_record(result, folder / run.paper)
    except OSError as error:
        print(f"failed: no record of {run.hash} in {folder}: {error}", file=sys.stderr)
        return False
    return True


def _check(commands: Sequence[Command], use: Resources) -> None:
    for name, value, allowed in (
        ("device", use.device, ("auto", "cpu", "cuda")),
        ("precision", use.precision, ("auto", "fp32", "bf16")),
        ("launcher", use.launcher, ("here", "slurm", "local")),
    ):
        if value not in allowed:
            raise InputError(f"unknown {name} {value!r}; choose one of {', '.join(allowed)}")
    if use.request:
        use.request.check()
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


def _parts(commands: Sequence[Command], use: Resources) -> list[Part]:
    """The plans of every paper of every command. Raises InputError where a command has none."""
    store = Store(use.out, [records_folder(p) for p in dict.fromkeys(p for c in commands for p in c.papers)])
    data = Data(use.data, use.out / "cache")
    parts: list[Part] = []
    for command in commands:
        choice, refused = command.choice, dict[str, InputError]()
        for paper in command.papers:
            try:
                parts.append(Part(make_plan(paper, choice, store, data, use.precision), use.out))
            except InputError as error:
                refused[paper] = error
        if len(refused) == len(command.papers):
            raise InputError(f"{command.place}{next(iter(refused.values()))}")
        for paper, reason in refused.items():  # it has no such figure, or its data are not at hand; the others go on
            print(f"skipped: {command.place}{paper}: {reason}", file=sys.stderr)
    return parts


def _device(use: Resources) -> Device:
    """What runs are trained on. Of a cluster it is known only what is asked for, so there auto says no more than that.

    bf16 is what the GPUs have that are worth their electricity; an older one needs --precision fp32.
    """
    from common.training import Device, choose_device

    if not use.request:
        return choose_device(use.device, use.precision)
    gpu = use.device == "cuda" or (use.device == "auto" and bool(use.slurm_gres or use.gpus_per_node))
    return Device("cuda" if gpu else "cpu", use.precision if use.precision != "auto" else "bf16" if gpu else "fp32")


def _jobs(device: Device, runs: Sequence[Run]) -> int:
    """How many runs are trained at once where nobody says.

    On a GPU large images get one run at a time: its loader already takes every core, and it fills the device.
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
