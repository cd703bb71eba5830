"""Tests that importing modules for drawing and for commands loads no torch, which only training needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from common.command.plan import PAPERS

ROOMS = ("common.data", "common.drawing", "common.command", *(f"{paper}.reproduce" for paper in PAPERS))
SCRIPT = """
import importlib, pkgutil, sys

for room in sys.argv[1:]:
    package = importlib.import_module(room)
    for found in pkgutil.walk_packages(package.__path__, room + "."):
        importlib.import_module(found.name)
        assert "torch" not in sys.modules, found.name + " loads torch"
print(*(name for name in sys.modules if name.startswith(tuple(sys.argv[1:]))))
"""


def test_rooms_that_do_not_train_do_not_load_torch() -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", SCRIPT, *ROOMS]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert {*ROOMS, "common.command.launcher", "fsa.reproduce.figures"} <= {*process.stdout.split()}
