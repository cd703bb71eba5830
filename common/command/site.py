"""`reproduce report`: writes a static site from committed records alone."""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from common.command.evidence import claims, cost, machines, record_rows
from common.command.export import records_folder
from common.command.painter import Painter
from common.command.parts import cores
from common.command.plan import PAPERS, Choice, Data, Plan, make_plan, published
from common.command.recorded import choices
from common.drawing import claims as claimed
from common.drawing import readme, site
from common.drawing.figures import Drawing, Figure, PublishedFigure
from common.drawing.report import ReportRow, citation, facts, shown, table
from common.drawing.tables import Cell, Table, plain
from common.drawing.views import Effect, FigureView, PaperView, PartView
from common.errors import InputError
from common.store import Result, Store, read_record

ROOT = Path(__file__).resolve().parents[2]
"""The root of the repository, for files that stand beside the packages."""
PRESETS = ("cifar", "imagenet", "quick")
"""The presets that may have records, the nearest to the paper's setting first."""
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


def _work(empty: Path) -> Iterator[tuple[str, Choice]]:
    """Yield every (paper, choice of preset, seeds and schedule) that has records. The slowest to draw come first."""
    for preset in reversed(PRESETS):
        for paper in PAPERS:
            try:
                plan = _plan(paper, Choice(preset=preset, draw=True), empty)
            except InputError:  # the paper has no such preset
                continue
            everything = tuple(f.id for f in (*plan.figures, *(f for f, _ in plan.skipped)) if preset in f.presets)
            whole = _plan(paper, replace(plan.choice, only=everything), empty)
            yield from ((paper, choice) for choice in choices(whole))


def _plan(paper: str, choice: Choice, empty: Path) -> Plan:
    """Return a plan that sees committed records only, of any copy of the data. empty: an empty results folder."""
    return make_plan(paper, choice, Store(empty, [records_folder(paper)]), Data(None, empty))


def _part(work: tuple[str, Choice, Path, Path]) -> tuple[str, PartView]:
    """Draw all figures of one paper for one choice. Returns (paper, view). Called in a worker process."""
    paper, choice, folder, empty = work
    painter = Painter(_plan(paper, choice, empty), folder / "figures", formats=("png",))
    painter.draw_rest()
    context = painter.context()
    name = painter.folder.parent.name
    figures = [_figure(painter, row, name) for row in painter.rows.values() if row.drawing]
    labels = ", ".join(painter.labels(context.results)) or "the paper's schedule"
    heading = _heading(context.results, choice.epochs_scale)
    embedded = any(result.embedded for result in context.results)
    view = PartView(
        name=name,
        preset=choice.preset,
        scale=choice.epochs_scale,
        heading=heading,
        schedule=labels if embedded else f"{heading.partition(', epochs')[0]}, {labels}",
        labels=context.labels,
        facts=facts(painter.plan.published.paper, choice.preset, context),
        figures=figures,
        effects=_effects(painter),
        undrawn=[(r.figure.id, r.figure.title, r.reason) for r in painter.rows.values() if r.drawing is None],
        used=sorted(painter.used),
        problems=[f"{paper}, {name}: {problem}" for problem in painter.problems],
    )
    return paper, view


def _heading(results: Sequence[Result], scale: float) -> str:
    names = {"glyphs": "Embedded data", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
    data = " and ".join(sorted({names.get(d := r.config["data"]["name"], d) for r in results}))
    return data + (f", epochs × {scale:g}" if scale != 1 else "")


def _figure(painter: Painter, row: ReportRow, part: str) -> FigureView:
    assert row.drawing is not None
    figure, path, paper = row.figure, painter.folder / row.figure.id, painter.plan.paper
    with Image.open(f"{path}.png") as image:
        size = image.size
    records = {_key(key): [r.hash for r in group] for key, group in painter.groups[figure.id].items()}
    return FigureView(
        id=f"{part}-{figure.id}",
        title=figure.title,
        image=f"figures/{part}/{paper}/{figure.id}",
        size=size,
        alt=_alternative(figure.title, row.drawing),
        notes=[text for text in (row.drawing.note, row.reason) if text],
        table=_table(painter, row, part, records) if row.drawing.comparisons else None,
        printed=_printed(painter.plan.published.figure(figure.id), painter, figure, part),
        records=records,
    )


def _key(key: object) -> str:
    return ", ".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _table(painter: Painter, row: ReportRow, part: str, records: Mapping[str, Sequence[str]]) -> Table:
    """Return the report's table. Each measured number links to its record, or to the figure's list of records."""
    titles, body = table(row, painter.context())
    at, paper = titles.index("ours"), painter.plan.paper
    rows = []
    for line in body:
        cells = [Cell(text) for text in line]
        hashes = records.get(line[1], ())
        one = f"records/{paper}.html#{hashes[0]}" if len(hashes) == 1 else f"#{part}-{row.figure.id}-runs"
        if line[at] != shown(None) and records:
            cells[at] = Cell(line[at], one)
        rows.append(cells)
    return Table(f"{part}-{row.figure.id}", row.figure.title, titles, rows)


def _printed(published: PublishedFigure, painter: Painter, figure: Figure, part: str) -> Table | None:
    """Return a table of every number that the paper prints in the figure, with its provenance; None without numbers."""
    rows = []
    for entry in painter.plan.published.entries_of(figure.id):
        for series in entry["series"]:
            points = [*zip(series["x"], series["y"], strict=True)]
            points += [("average", series["average"])] if series["average"] is not None else []
            rows += [[series["method"], str(x), str(y), series["provenance"]] for x, y in points if y is not None]
    if not rows:
        return None
    entries = painter.plan.published.entries_of(figure.id)
    metric = " / ".join(dict.fromkeys(e["metric"].replace("_", " ") for e in entries))
    data = " / ".join(dict.fromkeys(e["dataset"] for e in entries))
    at = " / ".join(dict.fromkeys(e["x_label"] for e in entries if e.get("x_label"))) or "at"
    return plain(f"published-{figure.id}", f"{figure.title}: {metric} ({data})", ["method", at, metric, "from"], rows)


def _alternative(title: str, drawing: Drawing) -> str:
    """Return the alternative text of a figure's image: its panels, axes and curves in words."""
    panels = []
    for panel in drawing.panels[:4]:
        names = ", ".join(dict.fromkeys(c.name for c in panel.curves))
        what = f"{panel.y_label} against {panel.x_label}" if panel.curves else KINDS.get(panel.kind, panel.kind)
        panels.append(f"{panel.title + ': ' if panel.title else ''}{what}{f' for {names}' if names else ''}")
    more = f" and {len(drawing.panels) - 4} more panels" if len(drawing.panels) > 4 else ""
    return f"{title}. {'; '.join(panels)}{more}."


def _effects(painter: Painter) -> list[Effect]:
    """Return the effects of the paper's claims that this part of the records measures."""
    figures = {figure.id: figure for figure in painter.plan.figures}
    path, found = records_folder(painter.plan.paper).parent / "claims.json", []
    for claim in claimed.load(path):
        if claim.figure in painter.groups:
            settings, groups = painter.plan.settings, painter.groups[claim.figure]
            ours = claim.measure(figures[claim.figure], settings, groups, painter.plan.published)
            if ours:
                judged = claim.verdict(ours, painter.full_schedule)
                part = painter.folder.parent.name
                found.append(Effect(claim.id, claim.words(ours), judged, f"{part}-{claim.figure}"))
    return found


def _paper(paper: str, parts: Sequence[PartView], folder: Path) -> PaperView:
    """Return all content of a paper's page. Its parts follow the order of PRESETS, then the longest schedule first."""
    parts = sorted(parts, key=lambda part: (PRESETS.index(part.preset), -part.scale))
    results = [read_record(path) for path in sorted(records_folder(paper).glob("*.json"))]
    used = {digest for part in parts for digest in part.used}
    bibliography = published(paper).paper
    listed = claims(claimed.load(records_folder(paper).parent / "claims.json"), parts)
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
