"""Turns sections of a package's README into HTML, for its page of the site."""

from __future__ import annotations

import re
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

SHOWN_OTHERWISE = ("Run it", "What we found")
"""Titles of sections that are left out, since the page shows their content in its own form."""
DIFFERS = re.compile("deviation|disagree|leaves open|is known", re.IGNORECASE)

Sections = list[tuple[str, str]]
"""The title and the HTML of each section."""


def sections(path: Path) -> tuple[Sections, Sections]:
    """Return a README's sections: (those on the method, those on deviations). Both are empty if there is no file."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    found = [(title.strip(), _html(body)) for title, body in zip(parts[::2], parts[1::2], strict=True)]
    kept = [(title, body) for title, body in found if title not in SHOWN_OTHERWISE]
    return [s for s in kept if not DIFFERS.search(s[0])], [s for s in kept if DIFFERS.search(s[0])]


def _html(markdown: str) -> str:
    """Convert Markdown to HTML. Raw HTML and links to files of the repository become plain text; tables can scroll."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    for token in tokens:
        if token.children:
            token.children = _without_local_links(token.children)
    html = parser.renderer.render(tokens, parser.options, {})
    return html.replace("<table>", '<div class="table" role="region" aria-label="table" tabindex="0"><table>').replace(
        "</table>", "</table></div>"
    )


def _without_local_links(tokens: list[Token]) -> list[Token]:
    kept, inside = list[Token](), False
    for token in tokens:
        if token.type == "link_open" and not str(token.attrGet("href")).startswith("http"):
            inside = True
        elif token.type == "link_close" and inside:
            inside = False
        elif token.type != "image":
            kept.append(token)
    return kept
