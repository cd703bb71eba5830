"""Tests which commit a run names: that of the code's own repository, not of one that merely contains the code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from outside import method

from common.command.environment import PACKAGES, code_of, commit, committed, outside
from common.incremental import learner_of
from lucir.methods import LUCIR, Base


def git(folder: Path, *words: str) -> str:
    options = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", folder, *options, *words], check=True, capture_output=True, text=True).stdout


def repository(folder: Path, packages: Path) -> str:
    """Make a repository at `folder` that commits a file, and also `packages` unless it ignores them.

    Returns its HEAD.
    """
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


def test_the_six_packages_are_not_outside(tmp_path: Path) -> None:
    class Own(learner_of(Base())):  # type: ignore[misc]
        """A learner from outside the packages, whose base class is from inside."""

    assert not outside(LUCIR()) and outside(method(tmp_path / "mine.py"))
    assert code_of(learner_of(LUCIR())) == commit()
    assert code_of(Own)["source"] and code_of(Own)["common"] == commit()


def test_a_file_is_told_by_its_digest_and_by_the_commit_that_tracks_it(tmp_path: Path) -> None:
    alone = code_of(learner_of(method(tmp_path / "mine.py")))
    assert (alone["commit"], alone["dirty"], alone["common"]) == ("", False, commit())
    git(tmp_path, "init", "--quiet")
    assert code_of(learner_of(method(tmp_path / "mine.py")))["commit"] == ""  # not tracked yet
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "mine")
    head = git(tmp_path, "rev-parse", "HEAD").strip()
    assert code_of(learner_of(method(tmp_path / "mine.py"))) == {**alone, "commit": head}
    changed = code_of(learner_of(method(tmp_path / "mine.py", "2.0")))
    assert changed == {**alone, "commit": head, "dirty": True, "source": changed["source"]}
    assert changed["source"] != alone["source"]
