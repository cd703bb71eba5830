"""Tests that both commands can learn from the folder of images that docs/own_images.py makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import own_images
import pytest

from common.command import cli


def test_both_commands_find_their_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures are listed, not trained."""

    def listed(papers: Sequence[str], asked: cli.Arguments) -> int:
        return cli.reproduce(papers, replace(asked, list=True))

    monkeypatch.setattr(own_images, "reproduce", listed)
    assert own_images.main(tmp_path) == 0
    said = capsys.readouterr().out
    assert "3 phases" in said
    assert len(list((tmp_path / "characters" / "train").glob("*/*.png"))) == own_images.CLASSES * own_images.TRAIN
    assert said.count("runs finished") >= 2 and "skipped" not in said
