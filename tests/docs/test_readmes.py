"""Tests the READMEs and docs: their commands can be given, their Python runs, and their numbers come from records."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.command import cli, train
from common.command.parsing import parse
from common.command.plan import PAPERS, select

ROOT = Path(__file__).parents[2]
each_paper = pytest.mark.parametrize("paper", PAPERS)
NUMBER = re.compile(r"\d+\.\d{2,3}")


def readme(paper: str) -> str:
    return (ROOT / paper / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str = "") -> str:
    """Return the content of all code blocks of a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join(content for name, content in found if name == language)


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (module, words) of every command in a text's code blocks that trains or draws a paper's methods."""
    for line in blocks(text).replace("\\\n", " ").splitlines():
        if found := re.search(rf"-m (({'|'.join(PAPERS)})\.(train|reproduce))( .*)?$", line):
            yield found[1], [word for word in shlex.split(found[4] or "", comments=True) if word != "..."]


DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")),
]


@pytest.mark.parametrize("document", [*DOCUMENTS, *(f"{paper}/README.md" for paper in PAPERS)])
def test_commands_name_options_methods_and_figures_that_exist(document: str) -> None:
    found = list(commands((ROOT / document).read_text(encoding="utf-8")))
    own = document.removesuffix("/README.md")
    assert own not in PAPERS or {name for name, _ in found} == {f"{own}.train", f"{own}.reproduce"}
    for name, words in found:
        paper, kind = name.split(".")
        if kind == "train":
            preset = train._parted(words, train.Arguments)[0]
            assert "folder" in preset or train.line(paper, _without_place(words), "").run
        else:
            args = parse(cli.Arguments, name, None, words)
            catalogue = importlib.import_module(f"{paper}.reproduce.catalogue")
            assert select([*catalogue.FIGURES, *catalogue.OWN], args.only, args.preset)[0]


def _without_place(words: list[str]) -> list[str]:
    """Return the words that a line of a queue takes: those without place, minutes, device and precision."""
    at = [i for i, word in enumerate(words) if word in ("--data", "--out", "--minutes", "--device", "--precision")]
    return [word for i, word in enumerate(words) if i not in at and i - 1 not in at]


def numbers(path: str) -> set[str]:
    return set(NUMBER.findall((ROOT / path).read_text(encoding="utf-8")))


def test_numbers_of_the_root_readme_are_measured_or_published() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = {paper: re.search(rf"^\| \[`{paper}`\].*$", text, flags=re.MULTILINE) for paper in PAPERS}
    for paper, row in rows.items():
        assert row
        *_, published, measured, _, _ = row[0].split("|")
        printed = numbers(f"{paper}/published.json")
        printed |= {f"{100 - float(number):.2f}" for number in printed}  # an accuracy is 100 minus an error
        ours = numbers(f"{paper}/RESULTS.md")
        assert set(NUMBER.findall(measured)) <= ours and NUMBER.search(measured)
        assert set(NUMBER.findall(published)) <= printed | ours
    elsewhere = re.sub(r"^\|.*$|Python 3\.10", "", text, flags=re.MULTILINE)
    assert set(NUMBER.findall(elsewhere)) <= set().union(*(numbers(f"{paper}/RESULTS.md") for paper in PAPERS))


@each_paper
def test_what_we_found_says_numbers_that_stand_in_the_results(paper: str) -> None:
    """RESULTS.md itself is written from the records."""
    found = NUMBER.findall(readme(paper).split("## What we found\n")[1].split("\n## ")[0])
    results = set(NUMBER.findall((ROOT / paper / "RESULTS.md").read_text(encoding="utf-8")))
    assert found and [number for number in found if number not in results] == []


@each_paper
def test_a_readme_is_read_in_minutes_and_its_links_lead_somewhere(paper: str) -> None:
    text = readme(paper)
    assert len(text.splitlines()) < 130
    for address in re.findall(r"\]\(([^)#]+)\)", text):
        assert address.startswith("https://") or (ROOT / paper / address).is_file(), address


def test_the_python_of_a_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code = blocks(readme("der"), "python")
    exec(compile(code, "der/README.md", "exec"), {})
    before, after = map(int, capsys.readouterr().out.split())
    assert 0 < after < before
