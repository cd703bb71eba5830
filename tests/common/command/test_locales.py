"""Tests commands in locales other than UTF-8, in which the terminal cannot show every path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
STRICT = (  # a file opened in the locale's encoding is an error
    "import sys, warnings; from common.command.cli import main; "
    "warnings.filterwarnings('error', category=EncodingWarning, module='common|lucir'); main(sys.argv[1:])"
)


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def command(folder: Path, locale: dict[str, str], *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command with `folder` as its working folder."""
    known = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "PYTHON"))}
    python = [sys.executable, "-X", "warn_default_encoding", "-c", STRICT, *words]
    return subprocess.run(python, cwd=folder, env={**known, "PYTHONPATH": str(ROOT), **locale}, capture_output=True)


def test_a_command_trains_and_draws_in_an_ascii_locale(tmp_path: Path) -> None:
    (tmp_path / "später.txt").write_text("# für später\nlucir --only fig3a --epochs-scale 0.1\n", encoding="utf-8")
    words = ["--device", "cpu", "--jobs", "1", "--out", "größe λ", "--record", "größe λ/records"]
    for _ in range(2):  # the second time everything is read
        ended = command(tmp_path, ASCII, "queue", "später.txt", *words)
        assert ended.returncode == 0, ended.stderr
    assert len(list((tmp_path / "größe λ").glob("records/lucir/*.json"))) == 2
    figure = tmp_path / "größe λ/quick-x0.1/lucir/fig3a.png"
    assert figure.stat().st_size > 500


def test_what_the_output_cannot_show_is_escaped(tmp_path: Path) -> None:
    locale = {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"}
    ended = command(tmp_path, locale, *["bbn", "--draw", "--only", "fig4", "--out", "σ"])
    assert ended.returncode == 0 and b"drawn: \\u03c3/quick/bbn/fig4.png" in ended.stdout, ended.stderr
    report = (tmp_path / "σ/quick/bbn/report.md").read_text(encoding="utf-8")
    assert "σ of the norms" in report


def test_an_error_is_one_line_where_tyro_draws_no_boxes(tmp_path: Path) -> None:
    for word, message in (("--seeds", b"--seeds does not take 'x'"), ("--seedz", b"Unrecognized options: --seedz, x")):
        ended = command(tmp_path, ASCII, "lucir", word, "x")
        assert ended.returncode == 2 and ended.stderr.startswith(b"error: " + message)
        assert ended.stderr.count(b"\n") == 1 and b"---" not in ended.stderr
