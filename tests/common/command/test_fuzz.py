"""Tests that wrong options, lists and folders end in one clear line and an exit code, never in a traceback.

REPRO_FUZZ=50 tries fifty times as many examples as the suite does.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import main
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from common.checkpoints import BOUNDARY, EPOCH, Damaged, newest
from common.command import cli, queue, train
from common.command.clean import CleanArguments
from common.command.export import RecordArguments, TensorBoardArguments
from common.command.plan import PAPERS, Choice
from common.command.status import StatusArguments
from common.command.weights import ExportArguments
from common.data.datasets import DataSpec, load
from common.errors import InputError
from common.runs import Schedule
from common.store import Store, read_lines
from common.tuning import choose_threads
from lucir.methods import LUCIR

MORE = int(os.environ.get("REPRO_FUZZ", "1"))


def fuzz(examples: int) -> settings:
    """Return settings for a test that takes `examples` in the suite, and more if the environment asks for more."""
    health = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]
    phases = [Phase.generate] if MORE == 1 else list(Phase)  # shrinking takes long
    return settings(max_examples=examples * MORE, suppress_health_check=health, phases=phases, database=None)


WORDS = st.sampled_from(
    ["", "0", "-1", "1e9", "nan", "inf", "²", "fig3a", "fig", "quick", "cifar", "auto", "cpu", "~", "~x/y"]
)
VALUES = st.one_of(WORDS, st.integers(-(2**70), 2**70).map(str), st.floats().map(str), st.text(max_size=12))
PATHS = ("out", "record", "to")  # where a command writes to: always inside the test's folder
SLOW = ("draw", "results_only")  # both take seconds, and results_only writes into the packages
COMMANDS: dict[tuple[str, ...], list[type]] = {
    **{(paper,): [cli.Arguments] for paper in PAPERS},
    ("all",): [cli.Arguments],
    ("queue", "queue.txt"): [queue.Resources],
    ("record",): [RecordArguments],
    ("tensorboard",): [TensorBoardArguments],
    ("clean",): [CleanArguments],
    ("status",): [StatusArguments],
    ("export", "0123"): [ExportArguments],
    **{("train", paper): [train.Arguments] for paper in PAPERS},
    ("train", "lucir", "LUCIR"): [LUCIR, Schedule],
    ("train", "lucir", "--preset", "folder", "--data", "nowhere"): [train.Arguments],
}
SCHEDULE = {f.name for f in fields(Schedule)}


@st.composite
def commands(draw: st.DrawFn) -> list[str]:
    """Return a command with some of its options.

    Each has up to two values of any kind; paths name the test's folder.
    """
    first = draw(st.sampled_from(list(COMMANDS)))
    names = [f.name for kind in COMMANDS[first] for f in fields(kind) if f.name not in SLOW]
    words = list(first)
    for name in draw(st.lists(st.sampled_from(names), max_size=3)):
        values = ["PATH"] if name in PATHS else draw(st.lists(VALUES, max_size=2))
        option = name if name not in SCHEDULE else f"finetune.{name}"
        words += [f"--{option.replace('_', '-')}", *values]
    return words


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with `out`, where commands write, and `elsewhere`, where they are started."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "queue.txt").write_text("lucir --only fig3a\n")
    yield folder


def tried(words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> int:
    """Return the exit code of a command that does not train. Asserts that it wrote only into its own folder."""
    started = list[object]()

    def launch(runs: Any, *rest: object) -> Iterator[Any]:
        started.extend(runs)
        return iter(())

    monkeypatch.chdir(place / "elsewhere")
    monkeypatch.setattr(queue, "launch", launch)
    monkeypatch.setattr(Path, "home", lambda: place / "out")
    monkeypatch.setenv("HOME", str(place / "out"))
    before = {path: path.stat().st_mtime_ns for path in (place / "elsewhere").rglob("*")}
    code = main([w if w != "PATH" else str(place / "out") for w in words])
    said = capsys.readouterr()
    assert code in (0, 1, 2, 130), words
    assert "Traceback" not in said.err + said.out, words
    assert before == {path: path.stat().st_mtime_ns for path in (place / "elsewhere").rglob("*")}, words
    if code == 2:
        assert not started and "error: " in said.err, words
    assert isinstance(code, int)
    return code


@fuzz(40)
@given(commands())
def test_any_options_of_any_command(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """The data are missing, so that a command that could train says so."""

    def load(*rest: object) -> None:
        raise InputError("there are no data")

    monkeypatch.setattr("common.command.plan.datasets.load", load)
    if "--out" not in words:  # before a method's name
        at = next((i for i in range(1, len(words)) if words[i] == "LUCIR" or words[i].startswith("--")), len(words))
        words = [*words[:at], "--out", "PATH", *words[at:]]
    tried(words, place, monkeypatch, capsys)


LINES = st.one_of(
    st.text(max_size=30),
    st.builds(lambda paper, rest: f"{paper} {rest}", st.sampled_from([*PAPERS, "all"]), st.text(max_size=20)),
    st.builds(
        lambda f, v: f"lucir --{f.replace('_', '-')} {v}", st.sampled_from([f.name for f in fields(Choice)]), VALUES
    ),
)


@fuzz(40)
@given(
    st.one_of(st.lists(LINES, max_size=3).map(lambda lines: "\n".join(lines).encode("utf-8", "replace")), st.binary())
)
def test_any_queue_file(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (place / "any.txt").write_bytes(content)
    monkeypatch.setattr("common.command.painter.Painter.draw_rest", lambda painter: [])  # --draw calls it
    tried(["queue", str(place / "any.txt"), "--out", "PATH"], place, monkeypatch, capsys)


@fuzz(150)
@given(
    st.lists(
        st.one_of(st.binary(max_size=40), st.sampled_from([b"a/0.png 0", b"b/0.png 1", b"a/1.png 0", b"\xef\xbb\xbf"]))
    )
)
def test_any_list_of_images(place: Path, lines: list[bytes]) -> None:
    root = place / "mine"
    if not root.exists():
        for name in "ab":
            (root / name).mkdir(parents=True)
            for i in range(3):
                Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(root / name / f"{i}.png")
        (root / "test.txt").write_text("a/2.png 0\nb/2.png 1\n")
    (root / "train.txt").write_bytes(b"\n".join(lines))
    try:
        found = load(DataSpec("mine"), root)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert len(found.train_labels) and found.classes


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


def replaced(content: Any, path: list[int], value: Any) -> Any:
    """Return `content` with the part that `path` leads to replaced."""
    content = copy.deepcopy(content)
    steps: list[Any] = []
    part = content
    for number in path:
        keys = list(part) if isinstance(part, dict) else list(range(len(part))) if isinstance(part, list) else []
        if not keys:
            break
        steps.append((part, keys[number % len(keys)]))
        part = part[keys[number % len(keys)]]
    if not steps:
        return value
    holder, key = steps[-1]
    holder[key] = value
    return content


@pytest.fixture(scope="module")
def finished(place: Path) -> Path:
    """Return the folder of two finished runs and of a run that is half done."""
    out = place / "runs-of-mine"
    words = ["--only", "fig3a", "--epochs-scale", "0.1", "--device", "cpu", "--jobs", "1", "--out", str(out)]
    assert main(words, "lucir") == 0
    assert main([*words[:3], "0.25", *words[4:], "--minutes", "0.0001"], "lucir") == 130
    return out


FILES = ("result.json", "config.json", "environment.json")


@fuzz(8)
@given(st.sampled_from(FILES), st.lists(st.integers(0, 50), max_size=6), JSON)
def test_any_json_of_a_run(
    finished: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    path: list[int],
    value: Any,
) -> None:
    """Results without checksums, as earlier versions wrote them, are drawn, listed, recorded, cleaned or refused."""
    shutil.rmtree(place / "out", ignore_errors=True)
    shutil.copytree(finished, place / "out")
    for file in place.glob(f"out/runs/*/{name}"):
        content = json.loads(file.read_text())
        content.pop("checksum", None), content.pop("arrays", None)
        file.write_text(json.dumps(replaced(content, path, value)))
    draw = ["lucir", "--only", "fig3a", "--epochs-scale", "0.1", "--out", "PATH"]
    for words in (
        [*draw, "--draw"],
        [*draw, "--list"],
        draw,
        ["record", "--embedded", "--out", "PATH", "--to", "PATH"],
    ):
        tried(words, place, monkeypatch, capsys)
    tried(["clean", "--states", "--out", "PATH"], place, monkeypatch, capsys)


@fuzz(12)
@given(st.lists(st.integers(0, 50), max_size=6), JSON)
def test_any_record(
    finished: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    path: list[int],
    value: Any,
) -> None:
    records = place / "records"
    if not records.exists():
        assert main(["record", "--embedded", "--out", str(finished), "--to", str(records)]) == 0
    changed = place / "changed"
    shutil.rmtree(changed, ignore_errors=True)
    changed.mkdir()
    for file in records.glob("*.json"):
        content = json.loads(file.read_text())
        del content["checksum"]
        (changed / file.name).write_text(json.dumps(replaced(content, path, value)))
    monkeypatch.setattr("common.command.queue.records_folder", lambda paper: changed)
    shutil.rmtree(place / "out", ignore_errors=True)
    words = ["lucir", "--only", "fig3a", "--epochs-scale", "0.1", "--out", "PATH"]
    for more in ("--draw", "--list"):
        tried([*words, more], place, monkeypatch, capsys)


@fuzz(100)
@given(st.one_of(st.binary(max_size=200), JSON.map(lambda value: json.dumps(value).encode())))
def test_any_other_file_of_a_folder(finished: Path, place: Path, content: bytes) -> None:
    """These are the folder's marker, logs, checkpoints, the cache's meta data, and measurements of threads."""
    out = place / "other"
    if not out.exists():
        shutil.copytree(finished, out)
    half = next(p.parent for p in out.glob(f"runs/*/{EPOCH}"))
    (out / "runs/FORMAT").write_bytes(content)
    with suppress(InputError):
        Store(out)
    (half / "log").write_bytes(content)
    assert all(isinstance(line, dict) for line in read_lines(half / "log"))
    for name in (EPOCH, BOUNDARY):
        (half / name).write_bytes(content)
    with suppress(Damaged):
        newest(half, 0)
    meta = next(out.glob("cache/*/meta.json"))
    meta.write_bytes(content)
    spec = DataSpec("glyphs", 3, 4, 2)
    load(spec, None, out / "small")
    next((out / "small").glob("*/meta.json")).write_bytes(content)
    assert load(spec, None, out / "small").fingerprint == load(spec).fingerprint


@fuzz(40)
@given(JSON)
def test_any_memory_of_threads(place: Path, monkeypatch: pytest.MonkeyPatch, tiny_run: Any, value: Any) -> None:
    from common.training import Device
    from lucir.methods import ICaRL

    monkeypatch.setattr("common.tuning._measure", lambda *rest: {"1": 10.0, "2": 30.0})
    memo, run = place / "threads.json", tiny_run(ICaRL())
    memo.unlink(missing_ok=True)
    assert choose_threads(run, Device("cpu", "fp32"), 2, memo)[0] == 2
    known = json.loads(memo.read_text())
    memo.write_text(json.dumps({name: value for name in known if name != "checksum"}))
    assert 1 <= choose_threads(run, Device("cpu", "fp32"), 2, memo)[0] <= 2
    memo.write_text(json.dumps(value))
    assert choose_threads(run, Device("cpu", "fp32"), 2, memo)[0] == 2
