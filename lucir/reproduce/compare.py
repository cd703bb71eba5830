"""Methods of one's own beside iCaRL and LUCIR, or figures of one's own: what a script of one file ends with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

from common.command.cli import Arguments
from common.command.console import run_command
from common.command.environment import outside
from common.command.parsing import parse
from common.command.parts import Part
from common.command.plan import Data, Plan, checked, on_copy, select, settings_of
from common.command.queue import Command, Resources, work
from common.data.names import FOLDER
from common.drawing.curves import accuracy_figure
from common.drawing.figures import Drawing, Figure, Published, PublishedFigure, Results, Runs
from common.drawing.looks import SHARED, Looks
from common.errors import InputError
from common.store import Store
from lucir.reproduce.presets import SETTINGS, Setting

THEIRS = {"iCaRL-NME": ("iCaRL", "nme"), "LUCIR": ("LUCIR", "cnn")}
"""Curve -> (key of its runs, read-out)."""
Start = Literal["linear", "cosine"] | None


def compare(
    methods: Mapping[str, Any],
    phases: int = 5,
    start: Start = "linear",
    readout: str = "cnn",
    words: Sequence[str] | None = None,
) -> NoReturn:
    """Train `methods` (name -> method) beside iCaRL and LUCIR, draw the figure, and exit.

    A method is a dataclass that names its learner, or a function that makes one from the preset's Setting, for what
    depends on the preset: `lambda s: s.lucir(imprint=False)` is LUCIR without imprinting, with the preset's schedule.

    All have the same data, class orders, exemplars and schedule: those of LUCIR's paper, in the preset that is asked
    for. With the preset `folder`, --phases takes the place of `phases`. words: the options of `python -m
    lucir.reproduce`; default: those of the command line.

    start: which base model a method goes on from, iCaRL's with a linear head or LUCIR's with a cosine head. None: it
    trains its base phase itself. readout: which of a method's predictions is drawn.
    """

    def command(name: str, use: Arguments, shown: str) -> Comparison:
        own = Comparison([name], use, methods=methods, phases=phases, start=start, readout=readout, script=shown)
        own.check()
        return own

    _command(list(methods.values()), "Compare methods of one's own with iCaRL and LUCIR.", command, words)


def study(figures: Sequence[Figure], words: Sequence[str] | None = None) -> NoReturn:
    """Train what figures of one's own need, draw them, and exit.

    Each makes its Runs from the Setting of LUCIR's paper in the preset that is asked for. words: as in `compare`.
    """

    def command(name: str, use: Arguments, shown: str) -> Study:
        return Study([name], use, figures=figures, script=shown)

    _command([figure.experiment for figure in figures], "Draw figures of one's own.", command, words)


def _command(
    owners: Sequence[Any],
    about: str,
    make: Callable[[str, Arguments, str], Command],
    words: Sequence[str] | None,
) -> NoReturn:
    """Do what a script asks for. owners: what it defines; make: (its name, options, its file's name) -> the command."""
    if any(_module(owner) == "__mp_main__" for owner in owners):
        sys.exit(2)  # a worker process that imports a script without a guard; its parent says so
    script = _script(owners)
    shown, name = script or "...", Path(script).stem or "own"

    def command() -> int:
        use = parse(Arguments, f"python {shown}", about, list(sys.argv[1:] if words is None else words))
        # No other process can import the classes of an interactive session.
        return work([make(name, use, shown)], use if script else replace(use, jobs=1))

    run_command(command)


@dataclass
class OwnPlan(Plan):
    """A plan of no paper: nothing published stands beside it."""

    script: str = "..."

    @property
    def prog(self) -> str:
        return self.script

    @property
    def published(self) -> Published:
        return Published({"title": self.figures[0].title}, {})

    @property
    def looks(self) -> Looks:
        return SHARED


@dataclass(frozen=True, kw_only=True)
class Study(Command):
    """A command for figures of one's own."""

    figures: Sequence[Figure]
    script: str

    def part(self, paper: str, store: Store, data: Data, use: Resources) -> Part:
        figures, skipped = select(self.figures, self.choice.only, self.choice.preset)
        figures = [replace(f, experiment=partial(_runs, paper=paper, experiment=f.experiment)) for f in figures]
        chosen = settings_of("lucir", self.choice, data)
        plan = OwnPlan(paper, self.choice, chosen, figures, skipped, store, data, use.precision, script=self.script)
        return Part(checked(on_copy(plan)), use.out)


def _runs(s: Setting, paper: str, experiment: Callable[[Setting], Runs]) -> Runs:
    """The Runs of a figure; those of methods from outside name `paper` as their package."""
    return {k: [replace(r, paper=paper) if outside(r.method) else r for r in g] for k, g in experiment(s).items()}


@dataclass(frozen=True, kw_only=True)
class Comparison(Command):
    """A command for one figure: methods of one's own beside iCaRL and LUCIR, under the protocol of Fig. 5."""

    methods: Mapping[str, Any]
    phases: int
    start: Start
    readout: str
    script: str

    def check(self) -> None:
        """Raise InputError on a method without a learner, or whose name is taken."""
        from common.incremental import learner_of

        for name, method in self.made(SETTINGS["quick"][0]).items():
            if name in ("iCaRL", *THEIRS):
                raise InputError(f"{name} is there already; give your method another name")
            learner_of(method)

    def part(self, paper: str, store: Store, data: Data, use: Resources) -> Part:
        choice, chosen = self.choice, settings_of("lucir", self.choice, data)
        here = replace(self, phases=chosen[0].phases) if choice.preset == FOLDER else self
        title = f"{', '.join(self.methods)} beside iCaRL and LUCIR, {here.phases} phases"
        presets = ("quick", "cifar", "imagenet", FOLDER)
        figure = Figure("compared", title, partial(here.runs, paper), here.drawing, presets)
        plan = OwnPlan(paper, choice, chosen, [figure], [], store, data, use.precision, script=self.script)
        return Part(checked(on_copy(plan)), use.out)

    def runs(self, paper: str, s: Setting) -> Runs:
        """The Runs of iCaRL and LUCIR, and those of the methods; those from outside name `paper` as their package."""
        found = {"iCaRL": s.runs(s.icarl(), self.phases), "LUCIR": s.runs(s.lucir(), self.phases)}
        like = found["LUCIR" if self.start == "cosine" else "iCaRL"]
        if self.start is None:
            like = [replace(run, start=None) for run in like]
        names = {name: paper if outside(m) else s.paper for name, m in self.made(s).items()}
        made = {n: [replace(run, paper=names[n], method=m) for run in like] for n, m in self.made(s).items()}
        return found | made

    def made(self, s: Setting) -> dict[str, Any]:
        """The methods, where functions make them too."""
        return {name: m(s) if callable(m) else m for name, m in self.methods.items()}

    def drawing(self, s: Setting, results: Results, published: PublishedFigure) -> Drawing:
        """Accuracy after every phase."""
        readouts = {**THEIRS, **{name: (name, self.readout) for name in self.methods}}
        return accuracy_figure(results, readouts, published, f"{self.phases} phases")


def _module(method: Any) -> str:
    """The name of the module that defines a method's class, or the function that makes a method."""
    return method.__module__ if callable(method) else type(method).__module__


def _script(owners: Sequence[Any]) -> str:
    """The name of the file that defines the first of them; "" for an interactive session."""
    files = [getattr(sys.modules[_module(owner)], "__file__", None) for owner in owners]
    return next((Path(file).name for file in files if file and Path(file).is_file()), "")
