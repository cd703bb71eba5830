"""Tests two commands on one output folder: a run that another process trains is tried again, and folders need locks."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import main, results
from killed import job

from common import incremental
from common.command import waiting
from common.command.launcher import launch
from common.errors import InputError
from common.runs import Protocol, Run
from common.store import Store
from lucir.methods import Base, ICaRL

MakeRun = Callable[..., Run]


@pytest.fixture
def family(tiny_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Return a run with a start, and a run without one. A busy run is tried again at once."""
    monkeypatch.setattr(waiting, "AGAIN", 0.05)
    base = tiny_run(Base(), protocol=Protocol(4, 4, 0, 0))
    return [tiny_run(ICaRL(), start=base), tiny_run(ICaRL())]


def test_a_busy_start_is_come_back_to_at_the_end(family: list[Run], tmp_path: Path) -> None:
    """The other process leaves the start unfinished once the other runs are done.

    Then the start is trained here, and the run that needs it.
    """
    child, alone = family
    base = child.start
    assert base
    held, ended = Store(tmp_path).open(base), list[tuple[str, str]]()
    held.__enter__()
    for outcome in launch(family, job(tmp_path), set()):
        ended.append((outcome.run.hash, outcome.ending))
        if outcome.run == alone:
            threading.Timer(0.5, held.__exit__, (None, None, None)).start()
    finished = [(run.hash, "finished") for run in (alone, base, child)]
    assert ended == [(base.hash, "busy"), *finished]


def test_what_another_command_has_finished_is_not_trained_again(
    family: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other command is a thread, which waits in the middle of its first run."""
    trained, meet, real = list[str](), threading.Barrier(2, timeout=60), incremental.run

    def slow(spec: Run, *rest: object) -> dict:
        trained.append(spec.hash)
        if len(trained) == 1:
            meet.wait()  # the second command begins now
            meet.wait()  # and has done everything except this run
        return real(spec, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(incremental, "run", slow)
    first = threading.Thread(target=lambda: list(launch(family, job(tmp_path), set())))
    first.start()
    meet.wait()
    endings = list[str]()
    for outcome in launch(family, job(tmp_path), set()):
        endings.append(outcome.ending)
        if outcome.run == family[1]:
            meet.wait()
    first.join()
    assert endings[0] == "busy" and endings.count("finished") == 3 and set(endings) == {"busy", "finished"}
    assert len(trained) == len(set(trained)) == len(results(tmp_path)) == 3


def test_time_is_not_spent_on_waiting_for_others(family: list[Run], tmp_path: Path) -> None:
    from dataclasses import replace

    with Store(tmp_path).open(family[1]):
        late = replace(job(tmp_path), deadline=1.0)
        assert [o.ending for o in launch(family[1:], late, set())] == ["out of time"]


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_refused_before_training(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def flock(*rest: object) -> None:
        raise OSError(code, "no locks here")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert main(["--only", "fig3a", "--out", str(tmp_path)], "lucir") == 2
    said = capsys.readouterr().err
    assert f"--out {tmp_path} is on a file system without locks (no locks here)" in said and said.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["runs", "FORMAT"]


def test_a_list_is_printed_of_a_folder_that_may_not_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Listing writes nothing, so it works on somebody else's folder. Training is refused."""

    def refuse(*rest: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    for name in ("mkdir", "write_text", "touch"):
        monkeypatch.setattr(Path, name, refuse)
    assert main(["--only", "fig3a", "--list", "--out", str(tmp_path / "theirs")], "lucir") == 0
    assert "0/1 runs finished, 1 to train" in capsys.readouterr().out.replace("2 to train", "1 to train")
    assert main(["--only", "fig3a", "--out", str(tmp_path / "theirs")], "lucir") == 2
    assert "cannot write to --out" in capsys.readouterr().err and not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="Permission denied"):
        Store(tmp_path / "theirs").prepare()
