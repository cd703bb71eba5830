"""Whose commit a run names: the code's own repository, and none that merely holds it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from common.command.environment import PACKAGES, committed


def git(folder: Path, *words: str) -> str:
    options = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", folder, *options, *words], check=True, capture_output=True, text=True).stdout


def repository(folder: Path, packages: Path) -> str:
    """A repository at `folder`, which commits a file and what lies in `packages` unless it ignores it. Its HEAD."""
    folder.mkdir(exist_ok=True)
    for package in PACKAGES:
        (packages / package).mkdir(parents=True)
        (packages / package / "code.py").write_text("")
    (folder / ".gitignore").write_text("venv/\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "one")
    return git(folder, "rev-parse", "HEAD").strip()


def test_a_checkout_names_its_own_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, other = tmp_path / "here", tmp_path / "other"
    head = repository(here, here)
    assert committed(here) == {"commit": head, "dirty": False}
    (other / "more").mkdir(parents=True)
    repository(other, other / "more")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))  # as in a hook of another repository
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert committed(here) == {"commit": head, "dirty": False}


@pytest.mark.parametrize("setting", ["normal", "no"])
def test_changed_and_new_code_is_dirty_but_records_are_not(tmp_path: Path, setting: str) -> None:
    repository(tmp_path, tmp_path)
    git(tmp_path, "config", "status.showUntrackedFiles", setting)
    (tmp_path / "common" / "record.json").write_text("{}")
    found = committed(tmp_path)
    assert found and not found["dirty"]
    (tmp_path / "common" / "new.py").write_text("")
    found = committed(tmp_path)
    assert found and found["dirty"]


@pytest.mark.parametrize("packages", ["venv/lib/site-packages", "vendored"])
def test_somebody_elses_repository_does_not_count(tmp_path: Path, packages: str) -> None:
    repository(tmp_path, tmp_path / packages)
    assert committed(tmp_path / packages) is None


def test_a_repository_that_does_not_track_the_code_does_not_count(tmp_path: Path) -> None:
    repository(tmp_path, tmp_path / "venv")
    for package in PACKAGES:
        (tmp_path / "venv" / package).rename(tmp_path / package)
    assert committed(tmp_path) is None
