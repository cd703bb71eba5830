"""Defines a table that can be written as HTML, CSV, LaTeX and Markdown, with the same cells in each."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """A text, and the address that it links to, if any."""

    text: str
    link: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a title for each column. `name` is the stem of the table's files."""

    name: str
    caption: str
    titles: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def plain(name: str, caption: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table without links."""
    return Table(name, caption, titles, [[Cell(text) for text in row] for row in rows])


def as_csv(table: Table) -> str:
    """Return the table as comma-separated values, with titles and with cells as they are shown."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(table.titles)
    lines.writerows([cell.text for cell in row] for row in table.rows)
    return text.getvalue()


def as_latex(table: Table) -> str:
    r"""Return the table as a tabular for \usepackage{booktabs}, in plain LaTeX without Unicode."""
    lines = [[cell.text for cell in row] for row in table.rows]
    body = "\n".join(" & ".join(map(latex, line)) + r" \\" for line in lines)
    head = " & ".join(map(latex, table.titles)) + r" \\"
    parts = [
        f"% {_line(table.caption)}",
        rf"\begin{{tabular}}{{{'l' * len(table.titles)}}}",
        rf"\toprule{chr(10)}{head}{chr(10)}\midrule",
        body,
        "\\bottomrule\n\\end{tabular}",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def markdown(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in GitHub's Markdown."""
    lines = [titles, ["---"] * len(titles), *([escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str) -> str:
    """Return the text on one line, with everything escaped that means something to Markdown."""
    for mark, safe in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("*", "\\*"), ("\n", " ")):
        text = text.replace(mark, safe)
    return text


_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", "–": "--", "—": "---", "−": "$-$", "×": r"$\times$",
    "·": r"$\cdot$", "≤": r"$\le$", "≥": r"$\ge$", "→": r"$\to$", "≈": r"$\approx$", "…": r"\dots{}", "∞": r"$\infty$",
    "‘": "`", "’": "'", "“": "``", "”": "''",
}  # fmt: skip


def latex(text: str) -> str:
    """Escape every character that means something to LaTeX. Greek letters become commands, others plain ASCII."""
    return "".join(_latex(character) for character in _line(text))


def _latex(character: str) -> str:
    if character in _LATEX:
        return _LATEX[character]
    if character in "&%$#_{}":
        return "\\" + character
    if character.isascii():
        return character
    if greek := re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (\w+)", unicodedata.name(character, "")):
        name = greek[2].lower() if greek[1] == "SMALL" else greek[2].title()
        return rf"$\{name}$"
    base = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return base or "?"


def _line(text: str) -> str:
    return " ".join(text.split())
