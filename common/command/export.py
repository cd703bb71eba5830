"""Writes finished runs for others to read: as committed records, and as event files for TensorBoard."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from common.command.environment import PACKAGES
from common.command.plan import PAPERS
from common.drawing.results import Result, read_record, write_record
from common.errors import InputError
from common.store import Store, read_lines


def records_folder(paper: str) -> Path:
    """Return the folder of a package's committed records, or of a script's, which is beside it. It need not exist."""
    spec = importlib.util.find_spec(paper)
    if spec and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))) / "records"
    return Path(spec.origin if spec and spec.origin else ".").parent / "records"


@dataclass(frozen=True)
class RecordArguments:
    """Holds the options of `reproduce record`."""

    out: Path = Path("results")
    """The results folder to read."""
    papers: tuple[str, ...] = ()
    """Packages whose runs are copied; default: all."""
    to: Path | None = None
    """Write to this folder instead, such as to send records to someone."""
    embedded: bool = False
    """Also copy runs on the embedded data set."""
    results_only: bool = False
    """Copy nothing. Write PAPER/RESULTS.md from the records that are there."""


def record(args: RecordArguments) -> None:
    """Copy finished runs on real data into records: PAPER/records/HASH.json, which are committed, or TO/HASH.json.

    Then write PAPER/RESULTS.md from all records of each package that has such runs.
    """
    refused = list[str]()
    if not args.results_only:
        papers, refused = _copy(args)
    elif unknown := set(args.papers) - set(PAPERS):
        raise InputError(f"there is no package {', '.join(sorted(unknown))}; choose from {', '.join(PAPERS)}")
    elif args.to:
        raise InputError("--results-only writes into the packages; leave --to out")
    else:
        papers = list(args.papers or PAPERS)
    if papers and not args.to:
        from common.command.measured import write_results  # loads matplotlib, which nothing else here needs

        for paper in papers:
            print(write_results(paper))
    if refused:
        raise InputError(f"all but these were recorded: {'; '.join(refused)}")


def _copy(args: RecordArguments) -> tuple[list[str], list[str]]:
    """Write the records that are asked for. Returns the packages that they belong to, and what is wrong with others."""
    store = opened(args.out)
    folders = [args.to] if args.to else map(records_folder, PACKAGES)
    places = {path.stem: path for folder in folders for path in folder.glob("*.json")}
    papers, asked, wanted = set[str](), 0, set[str]()
    for digest in store.hashes():
        known = _up_to_date(places[digest], store.runs / digest / "result.json") if digest in places else None
        if not (result := known or store.load_or_note(digest)):
            continue
        paper = result.config["paper"]
        papers.add(paper)
        if args.papers and paper not in args.papers:
            continue
        asked += 1
        if result.embedded and not args.embedded:
            continue
        wanted.add(paper)
        if paper not in PACKAGES and not args.to:
            print(f"not recorded: {digest}, whose method {paper} has no package here; --to DIR writes it there")
        elif not known:
            # Waiting for the disk takes most of the time of thousands of records. A record that a power cut tears is
            # noticed by its checksum, and the same command writes it again from its run.
            print(write_record(result, args.to or records_folder(paper), durable=False))
    if unknown := set(args.papers) - papers:
        raise InputError(f"{args.out} holds no finished run of {', '.join(sorted(unknown))}")
    if not wanted:
        why = f"the {asked} finished runs are on embedded data; --embedded has them" if asked else "no finished run"
        print(f"nothing recorded from {args.out}: {why}")
    return [paper for paper in PAPERS if paper in wanted], list(store.refused)


def _up_to_date(path: Path, result: Path) -> Result | None:
    """Return the record at `path` if it is whole and younger than the run's result: it need not be written again."""
    try:
        return read_record(path) if path.stat().st_mtime_ns > result.stat().st_mtime_ns else None
    except (OSError, InputError):  # a power cut has torn it
        return None


@dataclass(frozen=True)
class TensorBoardArguments:
    """Write the metrics of every run, finished or not, as TensorBoard event files under OUT/tensorboard."""

    out: Path = Path("results")
    """The results folder to read."""


def tensorboard(args: TensorBoardArguments) -> None:
    """Write a curve for each metric of each run, over the epochs of all phases, into OUT/tensorboard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("TensorBoard is not installed; pip install '.[tensorboard]'") from None
    for metrics in sorted(Store(args.out).runs.glob("*/metrics.jsonl")):
        with SummaryWriter(str(args.out / "tensorboard" / metrics.parent.name)) as writer:
            for step, line in enumerate(read_lines(metrics)):
                for name, value in line.items():
                    if isinstance(value, (int, float)):
                        writer.add_scalar(name, value, step)
    print(f"tensorboard --logdir {args.out / 'tensorboard'}")


def opened(out: Path) -> Store:
    """Return the runs of a results folder, without changing it. Raises InputError if it holds no runs."""
    if not (out / "runs").is_dir():
        raise InputError(f"--out {out} holds no runs; pass the folder a reproduce command wrote to")
    return Store(out)
