"""Draws a plan's figures as their runs end, and the report when all is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from common import plots
from common.figures import verdict
from common.plan import Plan
from common.report import ReportContext, ReportRow, write_report
from common.store import Result


@dataclass
class Painter:
    """Figures and report of one plan under OUT/PRESET/PAPER."""

    plan: Plan
    out: Path
    preset: str
    epochs_scale: float
    command: str
    rows: dict[str, ReportRow] = field(default_factory=dict)
    used: dict[str, Result] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.out / self.preset / self.plan.paper

    @property
    def full_schedule(self) -> bool:
        return all(s.full_schedule for s in self.plan.settings)

    def labels(self) -> list[str]:
        """What keeps the numbers from being held against the published ones, if anything."""
        specs = {s.data for s in self.plan.settings}
        labels = [
            f"embedded data (glyphs, {s.classes} classes of {s.per_class} images), not comparable with the paper's"
            for s in specs
            if s.name == "glyphs"
        ]
        if self.epochs_scale != 1:
            labels.append(f"reduced schedule (epochs x {self.epochs_scale:g})")
        return labels

    def draw_complete(self) -> list[str]:
        """Draw every figure that has all its required runs and is not drawn yet; their paths."""
        return [path for figure in self.plan.figures if (path := self._draw(figure.id, partial=False))]

    def draw_rest(self) -> list[str]:
        """Draw what can be drawn of the others, from the runs and records there are."""
        return [path for figure in self.plan.figures if (path := self._draw(figure.id, partial=True))]

    def _draw(self, id: str, partial: bool) -> str:
        if id in self.rows:
            return ""
        figure = next(f for f in self.plan.figures if f.id == id)
        groups, missing = self.plan.results(figure)
        reason = ""
        if missing:
            if not partial:
                return ""
            problem = next((p for run in missing if (p := self.plan.data.problem(run))), "")
            reason = f"{len(missing)} of its runs are not finished{': ' + problem if problem else ''}"
        if not groups:
            self.rows[id] = ReportRow(figure, None, reason)
            return ""
        drawing = figure.draw(self.plan.settings, groups)
        results = {r.hash: r for group in groups.values() for r in group}
        self.used |= results
        self.rows[id] = ReportRow(figure, drawing, reason)
        plots.render(drawing, figure.title, self._caption(list(results.values()), reason), self.folder / id)
        return str(self.folder / f"{id}.png")

    def _caption(self, results: list[Result], reason: str) -> str:
        seeds = {(r.config["order"], r.config["seed"]) for r in results}
        orders = ", ".join(sorted({order for order, _ in seeds}))
        commits = sorted({r.environment["commit"][:7] + ("+" if r.environment["dirty"] else "") for r in results})
        words = [f"{self.preset} preset", *self.labels()]
        words += [f"n = {len(seeds)} (class order {orders})", f"commit {', '.join(commits)}"]
        return "; ".join(words + ([reason] if reason else []))

    def report(self, failures: list[str]) -> Path:
        """Write report.md and report.html; the path of the latter."""
        results, entries = list(self.used.values()), self.plan.published.entries
        context = ReportContext(
            labels=[*self.labels(), *(f"failed: {f}" for f in failures)],
            full_schedule=self.full_schedule,
            results=results,
            from_records=sum(r.arrays is None for r in results),
            command=self.command,
            published_on=" / ".join(dict.fromkeys(e["dataset"] for f in self.plan.figures if (e := entries.get(f.id)))),
        )
        rows = [self.rows[f.id] for f in self.plan.figures]
        write_report(self.folder, self.plan.published.paper, self.preset, rows, context)
        return self.folder / "report.html"

    def summary(self) -> str:
        """How many figures were drawn and how the comparisons came out, in a line."""
        drawn = [row for row in self.rows.values() if row.drawing]
        verdicts: dict[str, int] = {}
        for row in drawn:
            for comparison in row.drawing.comparisons if row.drawing else ():
                word = verdict(comparison, self.full_schedule)
                verdicts[word] = verdicts.get(word, 0) + 1
        counts = ", ".join(f"{n} {word}" for word, n in verdicts.items())
        return f"{len(drawn)} of {len(self.rows)} figures in {self.folder} ({counts})"
