"""Methods of one's own beside iCaRL and LUCIR, in one call: what a script of one file ends with."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

from common.command import cli
from common.command.console import run_command
from common.command.environment import outside
from common.command.messages import many
from common.command.parsing import parse
from common.command.parts import Part
from common.command.plan import Data, Plan, checked, on_copy, settings_of
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
    if any(_module(method) == "__mp_main__" for method in methods.values()):
        sys.exit(2)  # a worker process that imports a script without a guard; its parent says so
    script = _script(methods)
    shown, name = script or "...", Path(script).stem or "own"
    arguments = list(sys.argv[1:] if words is None else words)

    def command() -> int:
        use = parse(Arguments, f"python {shown}", "Compare methods of one's own with iCaRL and LUCIR.", arguments)
        own = Comparison(
            [name], use, methods=methods, phases=phases, start=start, readout=readout, script=shown, retrain=use.retrain
        )
        own.check()
        # No other process can import the classes of an interactive session.
        return work([own], use if script else replace(use, jobs=1))

    run_command(command)


@dataclass(frozen=True)
class Arguments(cli.Arguments):
    """What a script with `compare` takes."""

    retrain: bool = False
    """Train anew the runs of methods from outside the six packages whose source has changed since."""


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
class Comparison(Command):
    """A command for one figure: methods of one's own beside iCaRL and LUCIR, under the protocol of Fig. 5."""

    methods: Mapping[str, Any]
    phases: int
    start: Start
    readout: str
    script: str

    def check(self) -> None:
        """Raise InputError on a method without a learner, whose name is taken or whose head `start` has not, and on
        another start than there is."""
        from common.heads import CosineHead
        from common.incremental import learner_of

        if self.start not in ("linear", "cosine", None):
            raise InputError(f"start must be 'linear', 'cosine' or None, got {self.start!r}")
        if self.choice.only:
            raise InputError("--only names figures of a paper; this command draws a figure of its own")
        if not self.methods:
            raise InputError("there is no method to compare; give compare a name and a method, {'Mine': Mine()}")
        for name, method in self.methods.items():
            if isinstance(method, type):
                raise InputError(f"{name} is a class; give a method of it, {method.__name__}()")
        for name, method in self.made(SETTINGS["quick"][0]).items():
            if name in ("iCaRL", *THEIRS):
                raise InputError(f"{name} is there already; give your method another name")
            head = learner_of(method).head
            if self.start == "linear" and isinstance(head, type) and issubclass(head, CosineHead):
                raise InputError(
                    f"{name} has a cosine head; say start='cosine', or start=None to train the base itself"
                )

    def part(self, paper: str, store: Store, data: Data, use: Resources) -> Part:
        choice, chosen = self.choice, settings_of("lucir", self.choice, data)
        here = replace(self, phases=chosen[0].phases) if choice.preset == FOLDER else self
        title = f"{', '.join(self.methods)} beside iCaRL and LUCIR, {many(here.phases, 'phase')}"
        presets = ("quick", "cifar", "imagenet", FOLDER)
        figure = Figure("compared", title, partial(here.runs, paper), here.drawing, presets)
        plan = OwnPlan(paper, choice, chosen, [figure], [], store, data, use.precision, script=self.script)
        return Part(checked(on_copy(plan)), use.out, retrain=self.retrain)

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
        return accuracy_figure(results, readouts, published, many(self.phases, "phase"))


def _module(method: Any) -> str:
    """The name of the module that defines a method's class, or the function that makes a method."""
    return method.__module__ if callable(method) else type(method).__module__


def _script(methods: Mapping[str, Any]) -> str:
    """The name of the file that defines the first of the methods; "" for an interactive session."""
    files = [getattr(sys.modules[_module(method)], "__file__", None) for method in methods.values()]
    return next((Path(file).name for file in files if file and Path(file).is_file()), "")
