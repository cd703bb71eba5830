"""What shells and scripts do by accident: closed streams, unset variables, lists given twice, names in other codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.command import cli, train
from common.command.parsing import parse
from common.command.queue import Resources
from common.command.train import Arguments as TrainArguments
from common.errors import InputError

ROOT = Path(__file__).resolve().parents[3]


def closed(streams: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run Python with standard streams closed, such as ">&- 2>&-"."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    shell = ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, *words]
    return subprocess.run(shell, env=environment, capture_output=True)


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_ends_well_without_its_streams(streams: str, tmp_path: Path) -> None:
    ended = closed(streams, "-m", "bbn.reproduce", "--list", "--only", "fig4", "--out", str(tmp_path))
    assert ended.returncode == 0 and ended.stderr == b""
    refused = closed(streams, "-m", "bbn.reproduce", "--list", "--only", "nothing", "--out", str(tmp_path))
    assert refused.returncode == 2


def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    """What this process and its children print would end in the file otherwise."""
    script = (
        "import os, subprocess, sys\n"
        "from common.command.console import settle\n"
        "settle()\n"
        f"with open({str(tmp_path / 'log')!r}, 'w') as file:\n"
        "    assert file.fileno() > 2\n"
        "    os.write(1, b'loud')\n"
        "    subprocess.run(['echo', 'louder'], check=True)\n"
    )
    ended = closed("<&- >&-", "-c", script)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "log").read_bytes() == b""


@pytest.mark.parametrize("words", [["--out", ""], ["--out="], ["--data="], ["--data", ""], ["--preset="]])
@pytest.mark.parametrize("kind", [cli.Arguments, TrainArguments])
def test_an_empty_value_is_refused(words: list[str], kind: Any) -> None:
    with pytest.raises(InputError, match=f"{words[0].rstrip('=')} has an empty value; give it one, or leave"):
        parse(kind, "reproduce", None, words)


@pytest.mark.parametrize("option", ["--order", "--dataset"])
def test_an_empty_name_is_not_the_default(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train.main("lucir", [option, ""])
    assert ended.value.code == 2 and f"{option} has an empty value" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--seeds", "0", "--seeds=1"], ["--slurm-extra", "a=b", "--slurm_extra", "c=d"]])
def test_a_list_that_is_given_twice_is_not_cut_short(words: list[str]) -> None:
    option = words[0]
    with pytest.raises(InputError, match=f"{option} is given twice; give it once, with all of its values"):
        parse(cli.Arguments, "reproduce", None, words)
    assert parse(cli.Arguments, "reproduce", None, ["--jobs", "1", "--jobs", "2"]).jobs == 2  # as everywhere


def test_options_of_a_cluster_are_not_left_out_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--slurm-partition", "gpu"], ["--gpus-per-node", "1"], ["--slurm-time", "10"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["--list", "--out", str(tmp_path), *words], paper="lucir")
        assert ended.value.code == 2 and f"{words[0]} is for the jobs of a cluster" in capsys.readouterr().err
    with pytest.raises(InputError, match="and so is --gpus-per-node"):
        request = Resources(launcher="slurm", gpus_per_node=-1).request
        assert request is not None
        request.check()


@pytest.mark.parametrize(
    ("name", "words"), [("x" * 300, "cannot write to --out"), (os.fsdecode(b"caf\xe9"), "is not UTF-8; rename it")]
)
def test_a_folder_that_cannot_be_used_is_named(
    name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--only", "fig4", "--out", str(tmp_path / name)], paper="bbn")
    assert ended.value.code == 2 and words in capsys.readouterr().err
    assert not list(tmp_path.glob("*/runs/*/*"))


def test_a_queue_file_may_begin_with_a_byte_order_mark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "queue.txt").write_text("bbn --list --only fig4\n", encoding="utf-8-sig")
    with pytest.raises(SystemExit) as ended:
        cli.main(["queue", str(tmp_path / "queue.txt"), "--out", str(tmp_path)])
    assert ended.value.code == 0 and "fig4" in capsys.readouterr().out
