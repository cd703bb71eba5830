"""Trains and draws what a user's script defines. A script ends with `compare` (methods) or `study` (figures)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

from common.command import cli
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
from common.drawing.report import counted
from common.errors import InputError
from common.store import Store
from lucir.reproduce.presets import SETTINGS, Setting

Start = Literal["linear", "cosine"] | None


def compare(
    methods: Mapping[str, Any],
    phases: int = 5,
    start: Start = "linear",
    words: Sequence[str] | None = None,
) -> NoReturn:
    """Train `methods` (name -> method) in addition to iCaRL and LUCIR, draw one figure of all, and exit.

    A method is a dataclass that names its learner. If its options depend on the preset, it may be a function that makes
    the dataclass from the preset's Setting: `lambda s: s.lucir(imprint=False)` is LUCIR without imprinting, with the
    preset's schedule.

    All methods have the same data, class orders, exemplars and schedule: those of LUCIR's paper in the chosen preset.
    With the preset `folder`, --phases takes the place of `phases`. words: the options of `python -m lucir.reproduce`,
    by default those of the command line.

    start: the base model that a method starts from: iCaRL's with a linear head, or LUCIR's with a cosine head. None:
    the method trains its own base phase. The figure has two curves a method, one for each read-out: CNN and NME.
    """

    def command(name: str, use: Arguments, shown: str) -> Comparison:
        own = Comparison([name], use, methods=methods, phases=phases, start=start, script=shown, retrain=use.retrain)
        own.check()
        return own

    _command(list(methods.values()), "Compare methods of one's own with iCaRL and LUCIR.", command, words)


def study(figures: Sequence[Figure], words: Sequence[str] | None = None) -> NoReturn:
    """Train the Runs of the user's own figures, draw the figures, and exit.

    A figure makes its Runs from the Setting of LUCIR's paper in the chosen preset. words: as in `compare`.
    """

    def command(name: str, use: Arguments, shown: str) -> Study:
        return Study([name], use, figures=figures, script=shown, retrain=use.retrain)

    _command([figure.experiment for figure in figures], "Draw figures of one's own.", command, words)


def _command(
    owners: Sequence[Any],
    about: str,
    make: Callable[[str, Arguments, str], Command],
    words: Sequence[str] | None,
) -> NoReturn:
    """Run the command that a script ends with, and exit.

    owners: the methods or functions that the script defines. make: (its name, its options, its file's name) -> the
    command.
    """
    if any(_module(owner) == "__mp_main__" for owner in owners):
        sys.exit(2)  # a worker process has imported a script without a guard; its parent prints the error
    script = _script(owners)
    shown, name = script or "...", Path(script).stem or "own"

    def command() -> int:
        use = parse(Arguments, f"python {shown}", about, list(sys.argv[1:] if words is None else words))
        # No other process can import the classes of an interactive session.
        return work([make(name, use, shown)], use if script else replace(use, jobs=1))

    run_command(command)


@dataclass(frozen=True)
class Arguments(cli.Arguments):
    """Holds the options of a script that ends with `compare`."""

    retrain: bool = False
    """Train anew the runs of methods from outside the six packages whose source has changed since."""


@dataclass
class OwnPlan(Plan):
    """A plan that belongs to no paper, and so has no published numbers."""

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
class Script(Command):
    """A command that a user's script ends with. It draws figures of the script's own, on LUCIR's settings."""

    script: str

    def figures_for(self, settings: Sequence[Setting]) -> Sequence[Figure]:
        """Return the script's figures for the settings of the chosen preset."""
        raise NotImplementedError

    def part(self, paper: str, store: Store, data: Data, use: Resources) -> Part:
        """Make the plan for the figures, and the queue's part that carries it out."""
        choice, chosen = self.choice, settings_of("lucir", self.choice, data)
        figures, skipped = select(self.figures_for(chosen), choice.only, choice.preset)
        figures = [replace(f, experiment=partial(_runs, paper=paper, experiment=f.experiment)) for f in figures]
        plan = OwnPlan(paper, choice, chosen, figures, skipped, store, data, use.precision, script=self.script)
        return Part(checked(on_copy(plan)), use.out, retrain=self.retrain)


def _runs(s: Setting, paper: str, experiment: Callable[[Setting], Runs]) -> Runs:
    """Return the Runs of a figure. Those of the user's own methods get `paper` as their package."""
    return {k: [replace(r, paper=paper) if outside(r.method) else r for r in g] for k, g in experiment(s).items()}


@dataclass(frozen=True, kw_only=True)
class Study(Script):
    """A command that draws the user's own figures."""

    figures: Sequence[Figure]

    def figures_for(self, settings: Sequence[Setting]) -> Sequence[Figure]:
        return self.figures


@dataclass(frozen=True, kw_only=True)
class Comparison(Script):
    """A command that draws one figure: the user's methods, iCaRL and LUCIR under the protocol of Fig. 5."""

    methods: Mapping[str, Any]
    phases: int
    start: Start

    def check(self) -> None:
        """Raise InputError if there is nothing to compare, if a method has no learner or a taken name, or if `start`
        does not exist or has another head than the method."""
        from common.heads import CosineHead
        from common.incremental import Learner, learner_of

        if self.start not in ("linear", "cosine", None):
            raise InputError(f"start must be 'linear', 'cosine' or None, got {self.start!r}")
        if self.choice.only:
            raise InputError("--only names figures of a paper; this command draws a figure of its own")
        if not self.methods:
            raise InputError("there is no method to compare; give compare a name and a method, {'Mine': Mine()}")
        for name, method in self.methods.items():
            if isinstance(method, type) and issubclass(method, Learner):
                raise InputError(f"{name} is a learner; give the dataclass that names it")
            if isinstance(method, type):
                raise InputError(f"{name} is a class; give a method of it, {method.__name__}()")
        for name, method in self.made(SETTINGS["quick"][0]).items():
            if name in ("iCaRL", "LUCIR"):
                raise InputError(f"{name} is there already; give your method another name")
            head = learner_of(method).head
            if self.start == "linear" and isinstance(head, type) and issubclass(head, CosineHead):
                raise InputError(
                    f"{name} has a cosine head; say start='cosine', or start=None to train the base itself"
                )

    def figures_for(self, settings: Sequence[Setting]) -> Sequence[Figure]:
        here = replace(self, phases=settings[0].phases) if self.choice.preset == FOLDER else self
        title = f"{', '.join(self.methods)} beside iCaRL and LUCIR, {counted(here.phases, 'phase')}"
        return [Figure("compared", title, here.runs, here.drawing, ("quick", "cifar", "imagenet", FOLDER))]

    def runs(self, s: Setting) -> Runs:
        """Return the Runs of iCaRL, LUCIR and the methods."""
        found = {"iCaRL": s.runs(s.icarl(), self.phases), "LUCIR": s.runs(s.lucir(), self.phases)}
        like = found["LUCIR" if self.start == "cosine" else "iCaRL"]
        if self.start is None:
            like = [replace(run, start=None) for run in like]
        return found | {name: [replace(run, method=m) for run in like] for name, m in self.made(s).items()}

    def made(self, s: Setting) -> dict[str, Any]:
        """Return the methods as dataclasses, by name. A method given as a function is made from the Setting."""
        return {name: m(s) if callable(m) else m for name, m in self.methods.items()}

    def drawing(self, s: Setting, results: Results, published: PublishedFigure) -> Drawing:
        """Draw the accuracy after every phase."""
        found = {name: results[name][0].phases()[-1]["stages"].values() for name in results}
        readouts = {
            f"{name}-{readout.upper()}": (name, readout)
            for name, stages in found.items()
            for readout in ("cnn", "nme")
            if readout in list(stages)[-1]
        }
        return accuracy_figure(results, readouts, published, counted(self.phases, "phase"))


def _module(method: Any) -> str:
    """Return the name of the module that defines a method's class, or the function that makes the method."""
    while isinstance(method, partial):
        method = method.func
    return method.__module__ if callable(method) else type(method).__module__


def _script(owners: Sequence[Any]) -> str:
    """Return the name of the file that defines methods or functions, or "" in an interactive session."""
    files = [getattr(sys.modules[_module(owner)], "__file__", None) for owner in owners]
    return next((Path(file).name for file in files if file and Path(file).is_file()), "")
