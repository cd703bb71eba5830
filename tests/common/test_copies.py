"""A copy of a run's folder or of a record, which a user or a file manager made, does not count as another run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from methods import SHORT, Get

from common.command.export import records_folder
from common.drawing.results import read_record
from common.errors import InputError
from common.runs import is_hash
from common.store import Store
from lucir.methods import Base


@pytest.mark.parametrize("name", ["{} copy", "{}.bak", "{}-2", "{}0"])
def test_a_copy_of_a_folder_is_no_result(name: str, get: Get, tmp_path: Path) -> None:
    from common.command import launcher
    from common.command.launcher import Job

    run = get("tiny_run")(Base(), schedule=SHORT)
    assert launcher.train(run, Job(tmp_path, None, "cpu", 1, 1)) == ""
    folder = Store(tmp_path).folder(run)
    assert Store(tmp_path).find(run)
    shutil.move(folder, folder.with_name(name.format(folder.name)))
    assert Store(tmp_path).find(run) is None and not Store(tmp_path).finished(run) and not Store(tmp_path).refused
    assert Store(tmp_path).load(name.format(folder.name)) is None


def test_a_copy_of_a_record_is_refused(tmp_path: Path) -> None:
    record = min(records_folder("lucir").glob("*.json"))
    read_record(record)
    copy = tmp_path / f"{record.stem} copy.json"
    shutil.copy(record, copy)
    with pytest.raises(InputError, match=r"copy.json is called by no run's hash, .* delete it"):
        read_record(copy)


def test_hashes_are_16_hex_digits() -> None:
    assert is_hash("0123456789abcdef")
    assert not any(map(is_hash, ("0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "._23456789abcdef", "")))
