"""Causes faults on purpose: kills commands, damages files, fills disks. Compares the results with undisturbed runs.

    python benchmarks/faults.py --kills 50 --table docs/reliability.md

This command trains a few short runs of all six quick presets again and again, in a temporary folder. Its exit code is 1
if any run is lost or differs by a bit. Faults that the machine does not allow, such as mounting a small disk, are
skipped with the reason.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from undisturbed import ROOT, Bench, Row, Skipped, children, same, stop

from common.checkpoints import EPOCH
from common.drawing.results import read_record, write_record
from common.errors import InputError
from common.store import Store

Harm = Callable[[Path, random.Random], None]


def interrupted(bench: Bench, name: str, number: int, times: int) -> Row:
    """Interrupt the command at `times` random moments by the signal `number`, then let it end in peace."""
    row, out, left = Row(name, f"{times} at random moments over all six quick presets"), bench.fresh(name, False), times
    while left:
        process = bench.start(False, out)
        moment = time.monotonic() + bench.dice.uniform(0.2 * bench.startup, bench.startup + 8)
        while time.monotonic() < moment and process.poll() is None:
            time.sleep(0.05)
        if process.poll() is None:
            left -= 1
            printed = stop(process, number)
            if "Traceback" in printed and number == signal.SIGINT and "interrupted; the same command" not in printed:
                row.unexpected.append(printed[-300:])
        else:  # the command ended before the signal: start afresh
            bench.expect(row, process.returncode, 0, process.communicate()[0])
            bench.compare(row, False, out)
            out = bench.fresh(name, False)
    bench.finish(row, False, out)
    return row


def dead_workers(bench: Bench, times: int) -> Row:
    """Kill a worker process. The command must go on with a new one."""
    if not Path("/proc/self/task").is_dir():
        raise Skipped("child processes are listed through /proc")
    row = Row("death of a worker under --jobs 2", f"{times} commands over all six quick presets")
    for _ in range(times):
        out = bench.fresh("worker", small=False)
        process = bench.start(False, out)
        time.sleep(bench.startup + bench.dice.uniform(0, 8))
        workers = [pid for pid in children(process.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        for pid in bench.dice.sample(workers, min(1, len(workers))):
            os.kill(pid, signal.SIGKILL)
        printed = process.communicate()[0]
        bench.expect(row, process.returncode, 0, printed)
        bench.compare(row, False, out)
    return row


def cut(path: Path, dice: random.Random) -> None:
    """Cut the file off at a random place."""
    os.truncate(path, dice.randrange(1, path.stat().st_size))


def empty(path: Path, dice: random.Random) -> None:
    """Remove all content of the file."""
    os.truncate(path, 0)


def flip(path: Path, dice: random.Random) -> None:
    """Flip one random bit of the file."""
    content = bytearray(path.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


HARMS: tuple[Harm, ...] = (cut, empty, flip)


def damaged_checkpoints(bench: Bench) -> Row:
    """Damage the newest checkpoints of runs that are half done. They must go on from the checkpoints before."""
    row = Row("damaged checkpoints", "the newest, cut, empty and with a flipped bit")
    for harm in HARMS:
        out = bench.fresh("checkpoint")
        for _ in range(4):  # each command trains one epoch or one phase
            bench.run(True, out, "--minutes", "0.0001")
        for path in sorted(out.glob(f"runs/*/{EPOCH}")):
            harm(path, bench.dice)
        bench.finish(row, True, out)
    return row


def damaged_results(bench: Bench) -> Row:
    """Damage files of a finished run. They must be refused by name; once deleted as told, the same result returns."""
    names = ("result.json", "config.json", "environment.json", "arrays.npz")
    row = Row(
        "damaged results", f"{', '.join(names)}, cut, empty and with a flipped bit; then deleted as the line says"
    )
    for harm in HARMS:
        out = bench.fresh("result")
        shutil.copytree(bench.reference(True) / "runs", out / "runs")
        child = next(p.parent for p in out.glob("runs/*/config.json") if '"start": {' in p.read_text(encoding="utf-8"))
        for name in names:
            content = (child / name).read_bytes()
            harm(child / name, bench.dice)
            accepted(bench, child, row)
            (child / name).write_bytes(content)
        harm(child / "result.json", bench.dice)
        if not accepted(bench, child, row):
            code, printed = bench.run(True, out)
            bench.expect(row, code, 1, printed, str(child))
            shutil.rmtree(child)
        bench.finish(row, True, out)
    return row


def accepted(bench: Bench, folder: Path, row: Row) -> bool:
    """Return whether a damaged run is still read. Its result must then be unchanged: the damage hit unused bytes."""
    whole = Store(bench.reference(True)).load(folder.name)
    try:
        found = Store(folder.parents[1]).load(folder.name)
        row.differing += not (found and whole and same(found, whole))
    except InputError:
        return False
    return True


def damaged_records(bench: Bench, times: int) -> Row:
    """Damage committed records. Each must be refused, or be read unchanged."""
    row = Row("damaged records", f"{times} flipped bits, and each record cut and empty")
    store = Store(bench.reference(True))
    results = [store.load_or_note(folder.name) for folder in store.runs.iterdir()]
    records = [write_record(result, bench.folder / "records") for result in results if result]
    for path in records:
        whole, content = read_record(path), path.read_bytes()
        for harm in (cut, empty, *[flip] * (times // len(records))):
            harm(path, bench.dice)
            try:
                row.differing += not same(read_record(path), whole)
            except InputError:
                pass
            except Exception as error:
                row.unexpected.append(f"{type(error).__name__}: {error}")
            path.write_bytes(content)
    return row


def damaged_cache(bench: Bench) -> Row:
    """Damage the cached images, labels and meta data. They must be made again."""
    row = Row("damaged data cache", "images, labels and meta.json, cut, empty and with a flipped bit")
    for harm in HARMS:
        out = bench.fresh("cache")
        (out / "cache").unlink()
        shutil.copytree(bench.reference(True) / "cache", out / "cache")
        for name in (
            ("train_images.npy", "train_labels.npy", "meta.json") if harm is not flip else ("train_images.npy",)
        ):
            harm(next(out.glob(f"cache/*/{name}")), bench.dice)
        bench.finish(row, True, out)
    return row


def mounted(folder: Path, size: str) -> None:
    """Mount a small disk at `folder`. Raises Skipped if this machine does not allow it."""
    folder.mkdir(exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True) if shutil.which("mount") else None
    if done is None or done.returncode:
        raise Skipped(f"no disk can be mounted here ({done.stderr.strip().splitlines()[0] if done else 'no mount'})")


def full_disk(bench: Bench) -> Row:
    """Let the disk run full. One line must say so, and with more space the same command must go on."""
    row, disk = Row("full disk", "3 sizes of a small disk, widened after the failure"), bench.folder / "disk"
    for size in ("100k", "400k", "900k"):
        mounted(disk, size)
        try:
            (disk / "cache").symlink_to(bench.reference(True) / "cache")
            code, printed = bench.run(True, disk)
            bench.expect(row, code, 1, printed, "disk full")
            subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
            bench.finish(row, True, disk)
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)
    return row


def read_only(bench: Bench) -> Row:
    """Make a new folder read-only, and one with a half-done run. Both must be refused before training."""
    row, disk = Row("read-only folder", "new, and with a run half done"), bench.folder / "read-only"
    mounted(disk, "200m")
    try:
        for begun in (False, True):
            if begun:
                subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
                (disk / "cache").symlink_to(bench.reference(True) / "cache")
                bench.run(True, disk, "--minutes", "0.0001")
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            code, printed = bench.run(True, disk)
            bench.expect(row, code, 2, printed, "cannot write to --out")
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        bench.finish(row, True, disk)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    return row


CLOCK_BACK = """
import time
now, began = time.time, time.monotonic()
time.time = lambda: now() - 86400 * (time.monotonic() - began > 2)
"""
NO_LOCKS = """
import errno, fcntl
def flock(*rest):
    raise OSError(errno.ENOSYS, "Function not implemented")
fcntl.flock = flock
"""


def clock_back(bench: Bench) -> Row:
    """Set the clock back a day between two commands, so that files are from tomorrow, and again during the second."""
    row, out = Row("clock set back", "a day, under a command and between two"), bench.fresh("clock")
    bench.run(True, out, "--minutes", "0.0001")
    for path in out.glob("runs/*/*"):
        os.utime(path, (time.time() + 86400,) * 2)
    code, printed = bench.run(True, out, "--minutes", "60", before=CLOCK_BACK)
    bench.expect(row, code, 0, printed)
    bench.compare(row, True, out)
    return row


def without_locks(bench: Bench) -> Row:
    """Simulate a file system without locks. It must be refused before training."""
    row, out = (
        Row("file system without locks", "its answer to flock, simulated; then one with locks"),
        bench.fresh("locks"),
    )
    code, printed = bench.run(True, out, before=NO_LOCKS)
    bench.expect(row, code, 2, printed, "without locks")
    if list(out.glob("runs/*/config.json")):
        row.unexpected.append("a run was begun")
    bench.finish(row, True, out)
    return row


def two_commands(bench: Bench) -> Row:
    """Start two equal commands on one new folder. Both must end well, with the same results as undisturbed."""
    row, out = Row("two commands on one --out", "from the start, over all six quick presets"), bench.fresh("two", False)
    both = [bench.start(False, out) for _ in range(2)]
    for process in both:
        printed = process.communicate()[0]
        bench.expect(row, process.returncode, 0, printed)
    bench.compare(row, False, out)
    return row


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| fault | tried | runs lost | runs that differ | otherwise not as promised |", "|---|---|---|---|---|"]
    for row in rows:
        cells = ("skipped: " + row.skipped, "", "") if row.skipped else (row.lost, row.differing, len(row.unexpected))
        lines.append(f"| {row.fault} | {row.tried} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def faults(bench: Bench, kills: int) -> dict[str, Callable[[], Row]]:
    """Return functions by the words of --only. Each causes its fault and returns the fault's row of the table."""
    few = max(1, kills // 10)
    return {
        "record": lambda: damaged_records(bench, 40 * kills),
        "result": lambda: damaged_results(bench),
        "checkpoint": lambda: damaged_checkpoints(bench),
        "cache": lambda: damaged_cache(bench),
        "full": lambda: full_disk(bench),
        "readonly": lambda: read_only(bench),
        "clock": lambda: clock_back(bench),
        "locks": lambda: without_locks(bench),
        "two": lambda: two_commands(bench),
        "worker": lambda: dead_workers(bench, max(1, few // 2)),
        "int": lambda: interrupted(bench, "SIGINT", signal.SIGINT, few),
        "term": lambda: interrupted(bench, "SIGTERM", signal.SIGTERM, few),
        "kill": lambda: interrupted(bench, "kill -9", signal.SIGKILL, kills),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="kill -9 at random moments; other counts follow it")
    parser.add_argument("--scale", type=float, default=0.25, help="length of the runs, as --epochs-scale")
    parser.add_argument("--only", nargs="*", help="some of the faults: record result checkpoint ...")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and places")
    parser.add_argument("--table", type=Path, help="a Markdown file, between whose marks the table is written anew")
    parser.add_argument("--folder", type=Path, help="an empty folder to work in; default: a temporary one")
    args = parser.parse_args()
    started, rows = time.monotonic(), list[Row]()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        bench = Bench(Path(folder), args.scale, random.Random(args.seed))
        chosen = faults(bench, args.kills)
        if unknown := set(args.only or ()) - chosen.keys():
            parser.error(f"unknown fault {' '.join(unknown)}; choose from {' '.join(chosen)}")
        for name, make in chosen.items():
            if args.only and name not in args.only:
                continue
            began = time.monotonic()
            try:
                row = make()
            except Skipped as why:
                row = Row(name, "", skipped=str(why))
            rows.append(row)
            print(f"{row.fault}: {'skipped: ' + row.skipped if row.skipped else 'sound' if row.sound else row}", end="")
            print(f" ({time.monotonic() - began:.0f} s)", flush=True)
    minutes = (time.monotonic() - started) / 60
    text = table(rows).replace(platform.node() or "\0", "HOST").replace(str(ROOT), "REPOSITORY")
    text = re.sub(r"/tmp/\S+", "FOLDER", text)
    print("\n" + text)
    if args.table:
        write_table(args.table, args, text, minutes)
    return int(not all(row.sound for row in rows))


def write_table(path: Path, args: argparse.Namespace, text: str, minutes: float) -> None:
    """Write the table, and the command that made it, between the marks in the file."""
    words = f"--kills {args.kills} --scale {args.scale:g} --seed {args.seed}"
    words += f" --only {' '.join(args.only)}" if args.only else ""
    heading = f"`python benchmarks/faults.py {words}`, {minutes:.0f} minutes on {os.cpu_count()} cores.\n\n"
    begin, end = "<!-- faults -->\n", "<!-- end -->"
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    path.write_text(f"{before}{begin}{heading}{text}{end}{rest.partition(end)[2]}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
