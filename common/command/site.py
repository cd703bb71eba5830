"""`reproduce report`: writes a static site from committed records alone."""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from common.command.evidence import claims, cost, machines, record_rows
from common.command.export import records_folder
from common.command.measured import PRESETS, claims_of, drawn, in_order, part, recorded_choices, records_of
from common.command.painter import Painter
from common.command.parts import cores
from common.command.plan import PAPERS, Choice, published
from common.drawing import readme, site
from common.drawing.figures import Drawing
from common.drawing.report import citation
from common.drawing.views import FigureView, PaperView, PartView
from common.errors import InputError
from common.store import read_record

ROOT = Path(__file__).resolve().parents[2]
"""The root of the repository, for files that stand beside the packages."""
KINDS = {"matrix": "matrices", "heat": "tables of numbers", "change": "matrices of changes", "picture": "images"}


@dataclass(frozen=True)
class SiteArguments:
    """Write a static site of all figures, claims and tables, from the committed records. Nothing is trained."""

    out: Path = Path("results")
    """The results folder. The site becomes OUT/site/index.html."""


def write(args: SiteArguments) -> tuple[Path, list[str]]:
    """Write the site to OUT/site, in place of an earlier one. Returns its front page, and what could not be drawn.

    Raises InputError if the folder holds something else than an earlier site, or if it cannot be written.
    """
    folder = args.out / "site"
    try:
        _clear(folder)
        with (
            tempfile.TemporaryDirectory() as empty,
            ProcessPoolExecutor(min(cores(), 8), multiprocessing.get_context("spawn")) as pool,
        ):
            work = [(paper, choice, folder, Path(empty)) for paper, choice in _work(Path(empty))]
            parts = list(pool.map(_part, work))
        papers = [_paper(paper, [part for owner, part in parts if owner == paper], folder) for paper in PAPERS]
        site.write(papers, folder, ROOT)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}; choose another --out") from None
    return folder / "index.html", [problem for _, part in parts for problem in part.problems]


def _clear(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / site.MARK).exists():
        raise InputError(f"{folder} is not a site that this command wrote; move it away, or choose another --out")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / site.MARK).write_text("reproduce report replaces this folder.\n", encoding="utf-8")


def _work(empty: Path) -> list[tuple[str, Choice]]:
    """Return every (paper, choice of preset, seeds and schedule) that has records. The slowest to draw come first."""
    stores = {paper: records_of(paper, empty) for paper in PAPERS}
    pairs = [(paper, preset) for preset in reversed(PRESETS) for paper in PAPERS]
    return [(paper, choice) for paper, preset in pairs for choice in recorded_choices(paper, preset, stores[paper])]


def _part(work: tuple[str, Choice, Path, Path]) -> tuple[str, PartView]:
    """Draw all figures of one paper for one choice. Returns (paper, view). Called in a worker process."""
    paper, choice, folder, empty = work
    painter = drawn(paper, choice, records_of(paper, empty), folder / "figures", formats=("png",))
    view = part(painter)
    return paper, replace(view, figures=[_pictured(figure, painter, view.name) for figure in view.figures])


def _pictured(view: FigureView, painter: Painter, part: str) -> FigureView:
    """Return the figure with the address, the size and the alternative text of its picture."""
    drawing = painter.rows[view.figure].drawing
    assert drawing is not None
    with Image.open(painter.folder / f"{view.figure}.png") as image:
        size = image.size
    address = f"figures/{part}/{painter.plan.paper}/{view.figure}"
    return replace(view, image=address, size=size, alt=_alternative(view.title, drawing))


def _alternative(title: str, drawing: Drawing) -> str:
    """Return the alternative text of a figure's image: its panels, axes and curves in words."""
    panels = []
    for panel in drawing.panels[:4]:
        names = ", ".join(dict.fromkeys(c.name for c in panel.curves))
        what = f"{panel.y_label} against {panel.x_label}" if panel.curves else KINDS.get(panel.kind, panel.kind)
        panels.append(f"{panel.title + ': ' if panel.title else ''}{what}{f' for {names}' if names else ''}")
    more = f" and {len(drawing.panels) - 4} more panels" if len(drawing.panels) > 4 else ""
    return f"{title}. {'; '.join(panels)}{more}."


def _paper(paper: str, parts: Sequence[PartView], folder: Path) -> PaperView:
    """Return all content of a paper's page. Its parts follow the order of PRESETS, then the longest schedule first."""
    parts = in_order(parts)
    results = [read_record(path) for path in sorted(records_folder(paper).glob("*.json"))]
    used = {digest for part in parts for digest in part.used}
    bibliography = published(paper).paper
    listed = claims(claims_of(paper), parts)
    methods, deviations = readme.sections(records_folder(paper).parent / "README.md")
    _copy(paper, folder)
    figures = {figure.id: figure for part in parts for figure in part.figures}
    first = next((figures[c.figure] for c in listed if c.figure in figures), next(iter(figures.values()), None))
    return PaperView(
        package=paper,
        paper=bibliography,
        citation=citation(bibliography),
        claims=listed,
        parts=parts,
        methods=methods,
        deviations=deviations,
        machines=machines(results),
        cost=cost(paper, results),
        records=record_rows(paper, results, used),
        bibtex=site.bibtex(ROOT / "docs" / "references.bib", paper),
        unused=len({r.hash for r in results} - used),
        thumbnail=_thumbnail(first, folder),
    )


def _copy(paper: str, folder: Path) -> None:
    there = folder / "records" / paper
    there.mkdir(parents=True)
    for record in records_folder(paper).glob("*.json"):
        shutil.copyfile(record, there / record.name)


def _thumbnail(figure: FigureView | None, folder: Path) -> FigureView | None:
    """Write a small copy of the figure's image, at most 640 x 480 pixels, and return the figure with that image."""
    if figure is None:
        return None
    with Image.open(folder / f"{figure.image}.png") as image:
        small = image.convert("RGB")
    small.thumbnail((640, 480))
    small.save(folder / f"{figure.image}-small.png", optimize=True)
    return replace(figure, image=f"{figure.image}-small", size=small.size)
