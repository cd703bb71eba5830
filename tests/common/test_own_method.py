"""The example of a method from outside the six packages does what the README says of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from common.store import Store

ROOT = Path(__file__).resolve().parents[2]


def test_a_method_of_ones_own_is_trained_drawn_and_reported(tmp_path: Path) -> None:
    words = ["--epochs-scale", "0.1", "--device", "cpu", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "own_method.reproduce", *words]
    path = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "docs")])}
    environment = os.environ | path
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    folder = tmp_path / "quick-x0.1" / "own_method"
    assert (folder / "compared.png").stat().st_size > 500
    assert "| average incremental accuracy (%) | Balanced replay |" in (folder / "report.md").read_text()
    results = [Store(tmp_path).load(p.name) for p in (tmp_path / "runs").iterdir() if p.is_dir()]
    own = [r for r in results if r and r.config["paper"] == "own_method"]
    assert len(results) == 5 and len(own) == 1  # two base models, iCaRL, LUCIR and this
    assert own[0].config["method"] == {"type": "BalancedReplay", "version": 1, "strength": 1.0}
