"""Draws the figures of a plan as their runs end, and writes the report at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common.command.own import OWN_IMAGES
from common.command.plan import Plan
from common.data.names import FOLDER
from common.drawing import plots
from common.drawing.figures import Figure, verdict
from common.drawing.report import ReportContext, ReportRow, code, write_report
from common.drawing.results import Result
from common.runs import Run


@dataclass
class Painter:
    """Draws the figures of one plan and writes its report, into OUT/PRESET/PAPER or OUT/PRESET-xSCALE/PAPER."""

    plan: Plan
    out: Path
    rows: dict[str, ReportRow] = field(default_factory=dict)
    """The report's row of each figure, by the figure's id."""
    used: dict[str, bool] = field(default_factory=dict)
    """Whether a committed record was drawn, by the hash of each run in figures. Results may be too large to keep."""
    drawn: dict[str, dict[str, bool]] = field(default_factory=dict)
    """The part of `used` that each figure was last drawn from, by the figure's id."""
    groups: dict[str, dict[Any, list[str]]] = field(default_factory=dict)
    """The hashes of the runs behind each drawn figure, by curve."""
    problems: list[str] = field(default_factory=list)
    """Figures that could not be drawn, with the error."""
    formats: tuple[str, ...] = ("png", "pdf")
    """Endings of a figure's files. Without any, only its numbers are collected."""

    @property
    def folder(self) -> Path:
        """The folder of the figures and the report. Each --epochs-scale has its own: none overwrites another."""
        choice = self.plan.choice
        scale = "" if choice.epochs_scale == 1 else f"-x{choice.epochs_scale:g}"
        return self.out / f"{choice.preset}{scale}" / self.plan.paper

    @property
    def full_schedule(self) -> bool:
        return all(s.full_schedule for s in self.plan.settings)

    def labels(self, results: Sequence[Result]) -> list[str]:
        """Return the reasons why the numbers cannot be compared with the published ones; empty if they can."""
        data = [r.config["data"] for r in results if r.embedded]
        sets = dict.fromkeys(f"{d['classes']} classes of {d['per_class']} images" for d in data)
        labels = [f"embedded data (glyphs, {', '.join(sets)}), not comparable with the paper's"] if sets else []
        if parts := sorted({r.config["data"]["name"] for r in results if r.partial}):
            labels.append(f"a small part of {' and '.join(parts)}, not comparable with the paper's")
        if own := [r.config["protocol"]["classes"] for r in results if r.config["data"]["name"] == FOLDER]:
            root = self.plan.data.root
            where = f"{root.resolve().name}, " if root else ""
            labels.append(f"{OWN_IMAGES} ({where}{max(own)} classes), which no published number is about")
        if (scale := self.plan.choice.epochs_scale) != 1:
            labels.append(f"{'reduced' if scale < 1 else 'longer'} schedule (epochs x {scale:g})")
        return labels

    def draw_complete(self) -> list[str]:
        """Draw every figure whose required runs are now all finished here. Returns the paths of these figures."""
        waiting = [f for f in self.plan.figures if f.id not in self.rows and self.plan.complete(f)]
        return [path for figure in waiting if (path := self._draw(figure))]

    def draw_rest(self) -> list[str]:
        """Draw the other figures from the runs and records at hand, and redraw figures with new runs. Returns paths."""
        return [path for figure in self.plan.figures if (path := self._draw(figure))]

    def _draw(self, figure: Figure) -> str:
        """Draw a figure from its finished or recorded runs. Returns its path, or "" if there is nothing new to draw."""
        groups, missing = self.plan.results(figure)
        reason = self._missing(missing)
        shown = {r.hash: r.recorded for group in groups.values() for r in group}
        if not shown and missing:
            self.rows[figure.id] = ReportRow(figure, None, reason)
            return ""
        if self.drawn.get(figure.id) == shown:
            return ""
        self.drawn[figure.id] = shown
        self.used |= shown
        self.groups[figure.id] = {curve: [r.hash for r in group] for curve, group in groups.items()}
        try:
            drawing = figure.draw(self.plan.settings, groups, self.plan.published)
            titled = replace(figure, title=self.plan.title(figure))
            self.rows[figure.id] = ReportRow(titled, drawing, reason)
            caption, path = self._caption(groups, reason), self.folder / figure.id
            if self.formats:
                plots.render(drawing, titled.title, caption, path, self.plan.looks, self.formats)
        except Exception as error:  # a full disk, a damaged file or a bug in one figure must not stop the runs
            self.problems.append(f"{figure.id} could not be drawn: {error}")
            self.rows[figure.id] = ReportRow(figure, None, f"could not be drawn: {error}")
            return ""
        return str(self.folder / f"{figure.id}.png")

    def _missing(self, runs: list[Run]) -> str:
        """Return why a figure is incomplete, or "" if no run is missing."""
        problem = next((p for run in runs if (p := self.plan.data.problem(run))), "")
        some = f"{len(runs)} of its runs {'is' if len(runs) == 1 else 'are'} not finished" if runs else ""
        return f"{some}: {problem}" if problem else some

    def _caption(self, groups: Mapping[str, list[Result]], reason: str) -> str:
        results = [r for group in groups.values() for r in group]
        if not results:
            return "computed from the formulas and the published class sizes; no training"
        counts = sorted({len(group) for group in groups.values()})
        orders, seeds = sorted({r.repeat[0] for r in results}), sorted({r.repeat[1] for r in results})
        varied = [f"class order {', '.join(orders)}"] if orders != ["native"] else []
        if not all(r.repeat[0] == str(r.repeat[1]) for r in results):  # some class order is not that of the seed
            varied.append(f"seed {', '.join(map(str, seeds))}")
        commits = sorted({code(r.environment, 7) + ("+" if r.environment.get("dirty") else "") for r in results})
        words = [f"{self.plan.choice.preset} preset", *self.labels(results)]
        words += [f"n = {' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} ({', '.join(varied)})"]
        return "; ".join([*words, f"commit {', '.join(commits)}", *([reason] if reason else [])])

    def report(self, failures: list[str]) -> Path:
        """Write report.md and report.html. Returns the path of report.html."""
        for figure, why in self.plan.skipped:  # figures of earlier commands stay in the report if their runs are there
            drawn = self.plan.choice.preset in figure.presets and (self.folder / f"{figure.id}.png").exists()
            if drawn and not self.plan.results(figure)[1]:
                self._draw(figure)
            self.rows.setdefault(figure.id, ReportRow(figure, None, why))
        rows = [self.rows[f.id] for f in (*self.plan.figures, *(f for f, _ in self.plan.skipped))]
        write_report(self.folder, self.plan.published.paper, self.plan.choice.preset, rows, self.context(failures))
        return self.folder / "report.html"

    def context(self, failures: Sequence[str] = ()) -> ReportContext:
        """Return what the report says about all figures drawn so far."""
        results, entries = [result.outline() for result in self._results()], self.plan.published.entries_of
        return ReportContext(
            labels=[*self.labels(results), *(f"failed: {f}" for f in failures)],
            full_schedule=self.full_schedule,
            results=results,
            from_records=sum(r.recorded for r in results),
            command=words(self.plan),
            published_on={id: " / ".join(dict.fromkeys(e["dataset"] for e in entries(id))) for id in self.rows},
        )

    def _results(self) -> Iterator[Result]:
        """Read the results that figures show again, one by one. Results that have been removed are left out."""
        store = self.plan.store
        for digest, recorded in self.used.items():
            if found := store.record(store.records[digest]) if recorded else store.load_or_note(digest):
                yield found

    def undrawn(self) -> dict[str, str]:
        """Return why figures that were asked for are not drawn, by the figure's id."""
        rows = [self.rows[f.id] for f in self.plan.figures]
        return {row.figure.id: row.reason for row in rows if row.drawing is None}

    def summary(self) -> str:
        """Return one line: how many figures are drawn, and how many comparisons have each verdict."""
        asked = [self.rows[f.id] for f in self.plan.figures]
        drawn = [row.drawing for row in asked if row.drawing]
        rows = [c for drawing in drawn for c in drawing.comparisons if c.published is not None]
        counts = ", ".join(f"{n} {word}" for word, n in Counter(verdict(c, self.full_schedule) for c in rows).items())
        return f"{len(drawn)} of {len(asked)} figures in {self.folder}{f' ({counts})' if counts else ''}"


def words(plan: Plan) -> str:
    """Return the command that makes a report again, without options that do not change results."""
    choice = plan.choice
    words = [f"python {plan.prog} --preset {choice.preset}"]
    for option in choice.given:
        words.append(f"{option} {getattr(choice, option[2:]):g}")
    words += [f"--only {' '.join(choice.only)}"] if choice.only else []
    words += [f"--seeds {' '.join(map(str, choice.seeds))}"] if choice.seeds else []
    words += [f"--orders {' '.join(choice.orders)}"] if choice.orders else []
    words += [f"--precision {plan.precision}"] if plan.precision != "auto" else []
    words += [f"--epochs-scale {choice.epochs_scale:g}"] if choice.epochs_scale != 1 else []
    words += ["--draw"] if choice.draw else []
    return " ".join(words)
