"""Tests the reproduce command as a user meets it: files, exit codes, errors of one line, and no run trained twice."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.command import cli, plan
from common.errors import InputError
from common.store import Store

ROOT = Path(__file__).resolve().parents[3]
TINY = ["--only", "fig3", "--epochs-scale", "0.1", "--device", "cpu"]
FIG3A = plan.Choice(only=("fig3a",), epochs_scale=0.1, draw=True)


def reproduce(*words: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lucir.reproduce", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Return one tiny reproduction: iCaRL over one phase and its base model, with one epoch each."""
    out = tmp_path_factory.mktemp("out")
    return out, reproduce(*TINY, "--out", str(out))


def test_a_reproduction_leaves_figures_report_and_runs(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, process = finished
    assert process.returncode == 0, process.stderr
    folder = out / "quick-x0.1" / "lucir"
    for name in ("fig3a.png", "fig3a.pdf", "fig3b.json", "report.md", "report.html"):
        assert (folder / name).stat().st_size > 500
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert "embedded data" in report
    assert "reduced schedule" in report
    assert "## fig3a: Fig. 3 (left): weight norms of iCaRL's last layer (on glyphs)\n" in report
    assert json.loads((folder / "fig3b.json").read_text(encoding="utf-8"))["title"].endswith("last layer (on glyphs)")
    runs = [p for p in (out / "runs").iterdir() if p.is_dir()]
    assert len(runs) == 2
    for run in runs:
        assert {"config.json", "environment.json", "metrics.jsonl", "result.json"} <= {p.name for p in run.iterdir()}
        assert "seconds" not in (run / "result.json").read_text()


def test_the_same_command_again_trains_nothing(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = finished
    before = {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("result.json")}
    again = reproduce(*TINY, "--out", str(out))
    assert again.returncode == 0
    assert "runs on" not in again.stdout
    assert before == {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("result.json")}


def test_list_counts_what_is_finished(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = finished
    listed = reproduce(*TINY, "--out", str(out), "--list").stdout
    assert "1/1 runs finished, 0 to train" in listed
    fresh = reproduce("--out", str(out), "--list").stdout
    assert "0/31 runs finished, 37 to train, 6 of them for others to start from; " in fresh
    assert re.search(r"; [0-9,]+ images to train\n", fresh) and " left\n" not in fresh
    begun = reproduce(*TINY[2:4], "--out", str(out), "--list").stdout  # longer runs, of a known speed
    assert re.search(r"; about [0-9.]+ (s|min|h) left\n", begun) and "images to train" not in begun
    assert len(re.findall(r"\([0-9a-f]{12}\.\.\.\)\n", fresh)) == 37  # the precision is not known yet


@pytest.mark.parametrize(
    ("paper", "preset", "words", "recorded"),
    [
        ("lucir", "quick", ["--seeds", "7", "--only", "fig9"], ["--seeds 1993"]),
        ("lucir", "cifar", ["--seeds", "7", "--only", "fig5"], ["--seeds 1993 --epochs-scale 0.05"]),
        ("der", "cifar", ["--seeds", "7", "--only", "masks-earlier"], ["--seeds 0 --orders O1 --epochs-scale 0.03"]),
        ("bbn", "quick", ["--epochs-scale", "0.3", "--only", "fig2"], ["--seeds 0"]),
        ("lucir", "imagenet", [], []),
    ],
)
def test_drawing_nothing_says_what_is_recorded(
    paper: str,
    preset: str,
    words: list[str],
    recorded: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line covers all figures. The options that it names draw the figures."""
    draw = ["--preset", preset, "--draw", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        cli.main([*draw, *words], paper)
    lines = capsys.readouterr().out.splitlines()
    (undrawn,) = (line for line in lines if line.startswith("not drawn: "))
    assert ended.value.code == 0 and "none of their runs is finished or recorded with these --seeds" in undrawn
    assert [line for line in lines if line.startswith("recorded: ")] == [f"recorded: {found}" for found in recorded]
    if recorded:
        with pytest.raises(SystemExit):
            cli.main([*draw, "--only", undrawn.split()[2].rstrip(",:"), *recorded[0].split()], paper)
        assert "drawn: " in capsys.readouterr().out


def test_runs_finished_here_are_named_too(
    finished: tuple[Path, subprocess.CompletedProcess[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--only", "fig3", "--seeds", "7", "--draw", "--out", str(finished[0])], paper="lucir")
    printed = capsys.readouterr().out
    assert "recorded: --seeds 1993\n" in printed and "recorded: --seeds 1993 --epochs-scale 0.1\n" in printed


@pytest.mark.parametrize("lines", [0, 1, 5])
@pytest.mark.parametrize("buffered", [True, False])
def test_a_reader_that_goes_ends_a_listing_quietly(lines: int, buffered: bool) -> None:
    """A reader such as `| head` may go before or while something is printed."""
    command = [sys.executable, *([] if buffered else ["-u"]), "-m", "class_balanced.reproduce", "--preset", "cifar"]
    with subprocess.Popen([*command, "--list"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        for _ in range(lines):
            assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(60) == 1


def test_recording_nothing_says_why(
    finished: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["record", "--out", str(finished[0]), "--to", str(tmp_path)])
    assert "the 2 finished runs are on embedded data" in capsys.readouterr().out and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("preset", "ends"), [("quick", ", CIFAR-10-LT (on glyphs)"), ("cifar", ", CIFAR-10-LT")])
def test_titles_say_glyphs_where_the_data_are_glyphs(preset: str, ends: str, tmp_path: Path) -> None:
    choice = plan.Choice(preset=preset, draw=True)
    made = plan.make_plan("class_balanced", choice, Store(tmp_path), plan.Data(None, tmp_path / "cache"))
    titles = {figure.id: made.title(figure) for figure in made.figures}
    assert titles["closeup-cifar10"].endswith(ends)
    assert "glyphs" not in titles["fig4"]  # it follows from the published class sizes


def test_an_id_names_its_figure_alone() -> None:
    """Other ids may begin with that id. A beginning that is no id itself names all figures that begin with it."""
    figures = importlib.import_module("bbn.reproduce.catalogue").FIGURES
    assert [f.id for f in plan.select(figures, ["table1-cifar10"], "cifar")[0]] == ["table1-cifar10"]
    assert len(plan.select(figures, ["table1-cifar"], "cifar")[0]) > 1
    figures = importlib.import_module("feature_adaptation.reproduce.catalogue").FIGURES
    chosen = [f.id for f in plan.select(figures, ["fig2"], "imagenet")[0]]  # an id, but one of the other presets
    assert chosen == ["fig2-imagenet-subset", "fig2-imagenet"]


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -m lucir.reproduce --list --only fig3a | true"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    ended = subprocess.run(command, cwd=ROOT, shell=True, capture_output=True, text=True, env=environment)
    assert ended.stderr == ""


def test_records_draw_the_same_figures(
    finished: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = finished
    records = tmp_path / "records"
    for module in ("export", "measured", "queue"):
        monkeypatch.setattr(f"common.command.{module}.records_folder", lambda paper: records)
    with pytest.raises(SystemExit) as ended:
        cli.main(["record", "--out", str(out), "--embedded"])
    assert ended.value.code == 0
    assert len(list(records.glob("*.json"))) == 2
    assert "## Embedded data, epochs × 0.1\n" in (tmp_path / "RESULTS.md").read_text()
    with pytest.raises(SystemExit) as ended:
        cli.main([*TINY, "--draw", "--out", str(tmp_path / "empty")], paper="lucir")
    assert ended.value.code == 0
    drawn, original = (json.loads((f / "quick-x0.1/lucir/fig3a.json").read_text()) for f in (tmp_path / "empty", out))
    assert drawn["panels"] == original["panels"]


def test_records_of_chosen_papers_go_where_they_are_asked_to(
    finished: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    out, words = finished[0], ["record", "--embedded", "--out"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, str(out), "--papers", "lucir", "--to", str(tmp_path / "sent")])
    assert ended.value.code == 0 and len(list((tmp_path / "sent").glob("*.json"))) == 2
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, str(out), "--papers", "der", "--to", str(tmp_path / "none")])
    assert ended.value.code == 2 and not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "large"], "unknown preset 'large'"),
        (["--only", "fig99"], "unknown figure 'fig99'"),
        (["--only", "fig6a"], "needs --preset imagenet"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--precision", "fp8"], "unknown precision"),
        (["--jobs", "-1"], "--jobs"),
        (["--epochs-scale", "0"], "--epochs-scale must be positive"),
        (["--orders", "O9"], "unknown class order 'O9'"),
        (["--preset", "cifar", "--data", "/nowhere"], "/nowhere"),
        (["--seeds", "a"], "--seeds"),
        (["--seeds", "-1"], "--seeds must be 0 or more"),
        (["--seeds", str(2**31)], "--seeds must be 0 or more and below 2^31"),
        (["--seeds", str(2**63)], "below 2^31"),
        (["--orders", "²"], "unknown class order"),
        (["--data=~nobody-here/x"], "no user here"),
        (["--sed", "1"], "--sed"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--out", str(tmp_path)], paper="lucir")
    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not list((tmp_path / "runs").glob("*/metrics.jsonl"))


def test_results_of_another_version_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "FORMAT").write_text("999\n")
    with pytest.raises(SystemExit) as ended:
        cli.main([*TINY, "--out", str(tmp_path)], paper="lucir")
    assert ended.value.code == 2
    assert "another version" in capsys.readouterr().err


def test_too_many_exemplars_are_refused_before_training(tmp_path: Path) -> None:
    from dataclasses import replace

    from common.data.datasets import DataSpec
    from lucir.reproduce.presets import settings

    setting = replace(settings("quick", None, None, 1.0)[0], data=DataSpec("glyphs", 40, 5, 2))
    data = plan.Data(None, tmp_path)
    with pytest.raises(InputError, match="6 exemplars per class asked for"):
        plan.check(setting.runs(setting.icarl(), 5)[0], data.open(setting.data))
    plan.check(setting.runs(setting.icarl(), 5, total=400)[0], data.open(setting.data))
    with pytest.raises(InputError, match="do not divide"):
        plan.check(setting.runs(setting.icarl(), 3)[0], data.open(setting.data))
    with pytest.raises(InputError, match="K = 2"):
        plan.check(setting.runs(setting.lucir(), 20, total=400)[0], data.open(setting.data))


def test_help_and_list_import_no_torch(tmp_path: Path) -> None:
    for words in (["--help"], ["--list", "--out", str(tmp_path)]):
        code = (
            "import sys; from common.command.cli import main\n"
            f"try: main({words!r}, paper='lucir')\n"
            "except SystemExit as e: assert not e.code\n"
            "assert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, timeout=60)


def test_damaged_results_and_records_are_named_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lucir.reproduce.presets import settings

    setting = settings("quick", None, None, 0.1)[0]
    run = setting.runs(setting.icarl(), 1)[0]
    folder = tmp_path / "runs" / run.hash
    folder.mkdir(parents=True)
    (folder / "result.json").write_text('{"phases": [')
    (folder / "config.json").write_text("{}")
    (folder / "environment.json").write_text("{}")
    with pytest.raises(SystemExit) as ended:
        cli.main([*TINY, "--list", "--out", str(tmp_path)], paper="lucir")
    errors = capsys.readouterr().err
    assert ended.value.code == 2
    assert "result.json cannot be read" in errors
    assert errors.count("\n") == 1


def test_a_torn_log_does_not_stop_a_resume(tmp_path: Path) -> None:
    from lucir.reproduce.presets import settings

    setting = settings("quick", None, None, 0.1)[0]
    run = setting.runs(setting.icarl(), 1)[0]
    folder = tmp_path / "runs" / run.hash
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"images": 7}\n{"images": 5, "sec')
    assert Store(tmp_path).trained(run) == 7


def test_a_run_just_trained_replaces_its_committed_record(
    finished: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """While runs are trained, no figure is drawn from records.

    Afterwards records fill gaps, until the run itself is finished.
    """
    from common.command.painter import Painter
    from common.drawing.results import write_record

    store = Store(finished[0])
    results = [r for p in sorted(store.runs.iterdir()) if p.is_dir() and (r := store.load(p.name))]
    for result in results:
        write_record(result, tmp_path / "records")
    fresh = Store(tmp_path, [tmp_path / "records"])
    made = plan.make_plan("lucir", FIG3A, fresh, plan.Data(None, tmp_path / "cache"))
    painter = Painter(made, tmp_path)
    assert painter.draw_complete() == [] and len(painter.draw_rest()) == 1
    assert [*painter.used.values()] == [True]
    for result in results:
        (fresh.runs / result.hash).symlink_to(store.runs / result.hash)
        assert fresh.load_or_note(result.hash)  # as a command does when a run has ended
    assert len(painter.draw_rest()) == 1
    assert [*painter.used.values()] == [False]


def test_a_full_disk_while_drawing_does_not_stop_the_runs(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import errno

    def full(*rest: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "fig3a.png")

    monkeypatch.setattr("common.drawing.plots.render", full)
    with pytest.raises(SystemExit) as ended:
        cli.main([*TINY, "--out", str(finished[0])], paper="lucir")
    captured = capsys.readouterr()
    assert ended.value.code == 1
    assert "fig3a could not be drawn" in captured.err
    assert "Traceback" not in captured.err


def test_records_of_another_copy_of_the_data_are_drawn_unless_something_is_finished_here(
    finished: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With torchvision's CIFAR at hand, records from an image folder are drawn.

    Results of both copies are never mixed.
    """
    from common.drawing.results import write_record

    store = Store(finished[0])
    results = [r for p in sorted(store.runs.iterdir()) if p.is_dir() and (r := store.load(p.name))]
    for result in results:
        write_record(result, tmp_path / "records")
    monkeypatch.setattr(plan.datasets, "fingerprint", lambda *place: "another")
    fresh = Store(tmp_path, [tmp_path / "records"])

    def found(root: Path | None = None) -> int:
        made = plan.make_plan("lucir", FIG3A, fresh, plan.Data(root, tmp_path / "cache"))
        return sum(bool(made.find(run)) for run in made.runs().values())

    assert found() == 1
    assert found(tmp_path) == 0  # the data asked for are others
    one = next(r for r in results if r.config["start"])
    folder = fresh.runs / f"{one.hash[:12]}0000"  # the same run, finished here on the other copy
    folder.mkdir()
    for name, content in (("config", one.config | {"fingerprint": "another"}), ("result", one.values)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "environment.json").write_text(json.dumps(one.environment))
    assert found() == 1
    assert Store(tmp_path).load(folder.name) is not None


def test_papers_without_what_is_asked_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = cli.Arguments(only=("table7",), out=tmp_path, list=True)
    assert cli.reproduce(["lucir", "der"], args) == 0
    printed = capsys.readouterr()
    assert "skipped: lucir: unknown figure 'table7'" in printed.err and "table7 " in printed.out
    with pytest.raises(InputError, match="unknown figure 'nothing'"):
        cli.reproduce(["lucir", "der"], cli.Arguments(only=("nothing",), out=tmp_path, list=True))
    assert not capsys.readouterr().err
