"""Tests commands and their worker processes that are interrupted or killed."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def test_interrupt_exits_130_and_the_same_command_goes_on(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "lucir.reproduce", "--only", "fig3", "--epochs-scale", "0.5", "--out", str(tmp_path)]
    # A shell's background jobs ignore SIGINT, and what they start does too unless told otherwise.
    default = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=default
    )
    deadline = time.monotonic() + 300
    while not list((tmp_path / "runs").glob("*/epoch.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 130
    assert "the same command goes on" in errors
    assert "Traceback" not in errors
    assert list((tmp_path / "runs").glob("*/epoch.safetensors")), "the checkpoint is kept"
    again = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 2


def test_a_dead_worker_is_replaced_and_its_run_goes_on(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "lucir.reproduce",
        "--only",
        "fig3",
        "--epochs-scale",
        "0.1",
        "--jobs",
        "2",
        "--out",
        str(tmp_path),
    ]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "runs").glob("*/lock")) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in _children(process.pid):
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 2


def test_killed_command_leaves_no_workers(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "lucir.reproduce", "--only", "fig5a", "--jobs", "2", "--out", str(tmp_path)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "runs").glob("*/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = _children(process.pid)
    assert workers
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def _children(pid: int) -> list[int]:
    if not Path("/proc").is_dir():
        pytest.skip("lists child processes through /proc")
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
        except OSError:
            continue
        if fields and int(fields[1]) == pid:
            found.append(int(entry.name))
    return found
