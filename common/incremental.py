"""The one loop over phases, and the Learner that it drives. A run that learns all classes at once has one phase."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common import metrics
from common.checkpoints import load, load_own, tensors
from common.data.datasets import Dataset
from common.distributed import synchronise
from common.errors import InputError, OutOfTime
from common.heads import LinearHead, Net, extract, frozen_copy
from common.memory import Context, Phase, by_class, open_context
from common.resnet import backbone
from common.runs import Flip, Run
from common.store import Saved, Workspace
from common.training import Device, Epoch, Stage, fit


class Learner:
    """Trains with cross-entropy on a growing head. Other learners are subclasses, which override some of the hooks.

    Used as it is, this class trains the base phase of most methods, or all classes at once. The loop over phases calls
    the hooks below. Before `begin_phase` it sets `phase`, and also `teacher` if the class sets `distils`.

    hook         when it is called                                  what it does by default
    -----------  -------------------------------------------------  --------------------------------------------
    device_for   before the images are opened                       returns the device that was asked for
    build        first in a Run and in every resume of it           makes a network for the first classes
    start_from   next, if the Run has a start and no phase is done  loads the final weights of that start
    load_state   on a resume, with what `state` gave; see below     loads nothing
    begin_phase  before a phase, and again on a resume inside it    grows the head by the new classes
    inherits     next, if an incremental Run has a start            returns True in phase 0, which the start trained
    stages       next; a stage is trained before the next is made   yields `main` alone
    main         by `stages`                                        trains all weights on new images and exemplars
    loss         in every step; once if a CUDA graph captures it    is cross-entropy over all classes seen
    entropy      by `loss`, that of other methods too               is cross-entropy, a mean over the batch
    trace        after every epoch                                  adds nothing to the epoch's line
    frozen       after `trace`                                      names no weights that the phase leaves unchanged
    remember     when exemplars of a new class have been chosen     keeps no tensors with them
    test_set     after a stage, and every `test_every` epochs       returns features of the classes seen
    readouts     after `test_set`                                   predicts by the head and by exemplar means
    tested       after `readouts`, but not at a stage's end         adds nothing to the epoch's line
    end_phase    after the last test of a phase                     adds nothing to the phase's results
    state        whenever a checkpoint is saved                     adds no tensors to it
    summary      at the end of the Run                              returns the head's norms, and biases or scale
    exported     by `reproduce export`                              returns the network as the Run left it

    Exemplars are chosen after the first stage. Every stage ends with a test.

    A checkpoint holds the network's state, the exemplars and the tensors kept with them, the optimiser's momentum, and
    the tensors that `state` returns. `state` must return everything else that the rest of a run depends on, such as a
    teacher that `stages` makes. A resume calls `__init__` and `build` again. At the end of a phase, `load_state` comes
    next. Inside a phase, `begin_phase` is called, the network and the exemplars are loaded, `stages` runs on to the
    interrupted stage, and `load_state` comes last. The tensors that `stages` makes then exist with the right
    shape, and `load_state` restores their values.
    """

    head: Callable[..., Any] = LinearHead
    """Makes the classifier: (features, classes, generator) -> a LinearHead, or a module like it."""
    final_relu = True
    nme_flip: Flip = "none"
    distils = False
    """Whether every phase with old classes sets `teacher` to a frozen copy of the network, made as the phase begins."""
    wants_indices = False
    """Whether the `loss` of `main` takes a third argument: each image's training index, int64 [n]."""
    phase: Phase
    teacher: Any = None

    def __init__(self, config: Any, context: Context) -> None:
        self.config, self.context = config, context

    @classmethod
    def device_for(cls, run: Run, device: str) -> str:
        """Return the device that `run` really trains on when `device`, "cpu" or "cuda", is asked for."""
        return device

    def build(self, classes: int) -> None:
        """Make `net`, a fresh network for `classes` classes."""
        run = self.context.run
        body: Any = backbone(run.network, self.final_relu, seed=run.seed)
        head = self.head(body.out_features, classes, self.context.generator("head", 0))
        self.net = Net(body, head, self.context.device)

    def start_from(self, state: dict[str, Tensor]) -> None:
        """Load the final weights of the Run that this one starts from. Raises RuntimeError if they do not fit."""
        self.net.load_state_dict(state)

    def begin_phase(self, phase: Phase) -> None:
        """Grow the head, and set up whatever the phase needs. A resume calls this again from the same state."""
        if phase.num_old:
            self.net.head.grow(phase.num_new, self.context.generator("head", phase.index))

    def stages(self, phase: Phase) -> Iterator[Stage]:
        """Yield the stages of this phase. After the first, the memory also holds exemplars of the new classes."""
        yield self.main(phase)

    def main(self, phase: Phase) -> Stage:
        """Return the main stage: all parameters, on all images of the new classes and the exemplars of the old."""
        indices = self.context.of_phase(phase)
        stage = Stage("main", self.context.run.schedule, indices, self.loss, self.net.parameters(), self.net.train)
        stage.wants_indices = self.wants_indices
        return stage

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy over all classes seen (LUCIR Eq. 1)."""
        return self.entropy(self.net(images), labels)

    def entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of logits [n, c] and labels [n]. A method with class weights changes this term."""
        return F.cross_entropy(logits, labels)

    @torch.no_grad()
    def frozen_features(self, images: Tensor) -> Tensor:
        """Return features [n, d] without gradients, for a loss that trains only the head."""
        return self.net.features(images)

    def frozen(self) -> tuple[str, ...]:
        """Return prefixes of the names of weights that this phase does not change. Epochs do not save these weights."""
        return ()

    def inherits(self, phase: Phase) -> bool:
        """Return whether a Run that starts from another skips training in this phase, as the other has trained it."""
        return phase.index == 0

    def remember(self, indices: Tensor) -> dict[str, Tensor]:
        """Return tensors to keep with one class's new exemplars: name -> floats [m, ...], in the exemplars' order.

        indices [m]: the exemplars' positions in the training set, by which `context.memory.lookup` finds the rows
        again. A name must be kept for every class or for none.
        """
        return {}

    def state(self) -> dict[str, Tensor]:
        """Return the tensors, by name, that a resume needs in addition to the network and the exemplars."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Load the tensors that `state` returned, already on the device. Not called if there were none.

        At the end of a phase the learner is as `build` left it; inside a phase, it is as `stages` left it. Assigning a
        tensor also restores its shape. `load_state_dict` needs a network of the same shapes, which `stages` makes.
        """

    def end_phase(self, phase: Phase) -> dict[str, Any]:
        """Finish a phase after its last test. Returns whatever figures need of the phase, JSON-ready."""
        return {}

    def trace(self, phase: Phase) -> dict[str, float]:
        """Return scalars to plot as curves, read at the end of each epoch."""
        return {}

    def tested(self, confusions: dict[str, np.ndarray]) -> dict[str, float]:
        """Return more scalars to plot as curves, from a test during training. confusions: read-out -> matrix [c, c]."""
        return {}

    def summary(self, phase: Phase) -> dict[str, Any]:
        """Return what figures need of the final head: each class's weight norm, the biases or the scale.

        Long-tailed Runs add the class sizes.
        """
        head = self.net.head
        summary: dict[str, Any] = {"norms": [round(x, 5) for x in head.weight.norm(dim=1).tolist()]}
        if isinstance(head, LinearHead):
            summary["biases"] = [round(x, 5) for x in head.bias.tolist()]
        else:
            summary["scale"] = round(head.scale.item(), 5)
        if self.context.long_tailed:
            summary["counts"] = self.context.counts.tolist()
        return summary

    @classmethod
    def exported(cls, run: Run, left: Callable[[Run], dict[str, Tensor]]) -> tuple[Run, dict[str, Tensor]]:
        """Return the trained network for use elsewhere: a Run whose `build` makes it, and its final state.

        left: a function that returns the final state of `run`, or of a Run that it starts from. Raises InputError,
        which says what to do, if no single network maps images to logits.
        """
        return run, left(run)

    def test_set(self, phase: Phase) -> tuple[Tensor, Tensor]:
        """Return the features [n, d] and labels [n] of the test images of all classes seen, to score read-outs on."""
        test = self.context.test
        indices = (test.labels < phase.seen).nonzero().squeeze(1)
        return extract(self.net, test, indices), test.labels[indices]

    def readouts(self, features: Tensor, phase: Phase) -> dict[str, Tensor]:
        """Return predictions from test features [n, d], by read-out: classes [n], or [n, k] for top-k accuracy."""
        logits = self.net.head(features)
        predictions = {"cnn": logits.argmax(dim=1)}
        if self.context.run.inputs.kind == "resized-crop":  # for large images papers also print top-5 accuracy
            predictions["top5"] = logits.topk(min(5, phase.seen), dim=1).indices
        if self.context.memory.indices:
            predictions["nme"] = metrics.nearest_mean(features, self.exemplar_means())
        return predictions

    def exemplar_means(self) -> Tensor:
        """Return unit class means [c, d] of the exemplars' normalised features.

        If `nme_flip` names a flip, the means include features of flipped images.
        """
        memory = self.context.memory.indices
        indices = torch.cat([memory[label] for label in sorted(memory)])
        labels = self.context.train.labels[indices]
        means = torch.zeros(len(memory), self.net.head.weight.shape[1], device=labels.device)
        flips: list[Flip] = ["none"] if self.nme_flip == "none" else ["none", self.nme_flip]
        for flip in flips:
            features = F.normalize(extract(self.net, self.context.train, indices, flip), dim=1)
            sums = torch.zeros_like(means).index_add_(0, labels, features)
            means += sums / torch.bincount(labels, minlength=len(memory)).unsqueeze(1)
        return F.normalize(means, dim=1)


def learner_of(method: Any) -> type[Learner]:
    """Return the class that trains a method. `method` is its options or their class.

    The method's `learner` is that class, or names it as "module:Class". Raises InputError if it is no Learner.
    """
    found = named = getattr(method, "learner", None)
    if isinstance(named, str):
        module, _, name = named.partition(":")
        try:
            found = getattr(importlib.import_module(module), name, None)
        except (ImportError, ValueError) as error:
            raise InputError(f"the learner {named!r} cannot be loaded: {error}") from None
    if not (isinstance(found, type) and issubclass(found, Learner)):
        kind = method if isinstance(method, type) else type(method)
        raise InputError(
            f"{kind.__name__} names no learner but {named!r}; give it `learner: ClassVar[type] = ...`, a subclass of "
            'common.incremental.Learner or where one is, such as "lucir.learner:LUCIRLearner"'
        )
    return found


def run(spec: Run, dataset: Dataset, learner_class: type[Learner], workspace: Workspace, device: Device) -> dict:
    """Train `spec` to its end, from where its workspace left off. Returns the values of its Result, JSON-ready.

    The values contain no times, so equal Runs have equal Results. `workspace.confusion` holds the confusion matrices of
    the last phase afterwards.
    """
    spec.check()
    context = open_context(spec, dataset, device, workspace)
    learner = learner_class(spec.method, context)
    sizes = spec.protocol.sizes
    phases = [Phase(i, sum(sizes[:i]), size) for i, size in enumerate(sizes)]
    learner.build(phases[0].num_new)
    workspace.pace = 10.0 if device.type == "cuda" else 1.0
    boundary, inside = workspace.restore()
    done = boundary.meta["phase"] if boundary else 0
    for phase in phases[1:done]:
        learner.net.head.grow(phase.num_new, torch.Generator())  # the checkpoint overwrites these weights
    if boundary:
        load(learner, boundary)
        load_own(learner, boundary)
    elif spec.start:
        _start(learner, workspace.state_of(spec.start))
    logged = len(workspace.lines)
    for phase in phases[done:]:
        if workspace.late and len(workspace.lines) > logged:  # every command trains at least one epoch
            raise OutOfTime
        begin(learner, phase)
        if spec.start and len(phases) > 1 and learner.inherits(phase):  # the Run this one starts from has trained it
            _choose_exemplars(learner, phase)
            _evaluate(learner, phase, workspace, "start")
        else:
            _train(learner, phase, workspace, inside)
        inside = None
        workspace.phases[phase.index] |= learner.end_phase(phase)
        workspace.boundary(tensors(learner), {"phase": phase.index + 1})
    return {
        "phases": workspace.phases,
        "average_accuracy": _averages(workspace.phases),
        "summary": learner.summary(phases[-1]),
        "trace": workspace.trace(),
    }


def _start(learner: Learner, state: dict[str, Tensor]) -> None:
    """Call `start_from`. Raises InputError if the state does not fit."""
    try:
        learner.start_from(state)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, KeyError) as error:  # an InputError passes
        none = "" if getattr(learner.config, "starts_from", "") else ", or from none"
        raise InputError(
            f"{type(learner).__name__} cannot start from another run's network; let it start from a run with the same "
            f"head and network{none}: {' '.join(str(error).split())}"
        ) from error


def _averages(phases: list[dict]) -> dict[str, float]:
    """Return the average incremental accuracy, percent, of every read-out that was measured after all phases."""
    last = [[*phase["stages"].values()][-1] for phase in phases]
    names = [name for name in last[-1] if all(name in readouts for readouts in last)]
    return {n: metrics.average_incremental_accuracy([readouts[n]["accuracy"] for readouts in last]) for n in names}


def begin(learner: Learner, phase: Phase) -> None:
    """Set a learner's `phase` and `teacher`, then call its `begin_phase`.

    The teacher is thus a copy of the network before the phase changes it.
    """
    learner.phase = phase
    if learner.distils:
        learner.teacher = frozen_copy(learner.net, learner.context.device) if phase.num_old else None
    learner.begin_phase(phase)


def _train(learner: Learner, phase: Phase, workspace: Workspace, inside: Saved | None) -> None:
    """Train one phase: train every stage, choose exemplars after the first, evaluate after each.

    inside: the state of an interrupted epoch to go on from, or None.
    """
    context = learner.context
    if inside:
        load(learner, inside)
    for number, stage in enumerate(learner.stages(phase)):
        if inside and number < inside.meta["stage"]:
            continue
        resume = None
        if inside:
            resume = inside.meta["epoch"], inside.part("momentum/")
            load_own(learner, inside)
        inside = None

        def after_epoch(epoch: Epoch, optimiser: torch.optim.SGD, number: int = number) -> None:
            line = {"phase": phase.index, **asdict(epoch), **learner.trace(phase)}
            every = context.run.test_every
            if every and epoch.epoch % every == 0:
                confusions = _confusions(learner, phase)
                line |= {"test_accuracy": metrics.accuracy(confusions["cnn"]), **learner.tested(confusions)}
            workspace.log(line)
            frozen = [f"net/{name}" for name in learner.frozen()]
            meta = {"phase": phase.index, "stage": number, "epoch": epoch.epoch, "frozen": frozen}
            workspace.checkpoint(lambda: (tensors(learner, optimiser), meta))

        if context.run.sync_batchnorm:
            synchronise(learner.net)
        seed = (context.run.seed, "phase", phase.index, stage.name)
        workspace.steps += fit(stage, context.train, seed, after_epoch, resume, learner.net)
        if number == 0:
            _choose_exemplars(learner, phase)
        _evaluate(learner, phase, workspace, stage.name)


def _choose_exemplars(learner: Learner, phase: Phase) -> None:
    """Choose exemplars of the new classes by herding, with the network just trained.

    Old classes keep their exemplars, truncated under a total budget.
    """
    context = learner.context
    if context.memory.quota(phase.seen) == 0:
        return
    context.memory.shrink(phase.seen)
    for label, (indices, features) in by_class(learner.net, context, phase).items():
        context.memory.add(label, indices, features, phase.seen)
        context.memory.attach(label, learner.remember(context.memory.indices[label]))


def _confusions(learner: Learner, phase: Phase) -> dict[str, np.ndarray]:
    """Return the confusion matrix of each read-out on the test images of all classes seen so far."""
    with torch.no_grad():
        features, labels = learner.test_set(phase)
        predictions = learner.readouts(features, phase)
    true = labels.cpu().numpy()
    return {k: metrics.confusion_matrix(true, p.cpu().numpy(), phase.seen) for k, p in predictions.items()}


def _evaluate(learner: Learner, phase: Phase, workspace: Workspace, stage: str) -> None:
    """Test every read-out and add its scores to the workspace's results."""
    context, values = learner.context, {}
    sizes = context.run.protocol.sizes[: phase.index + 1]
    for name, confusion in _confusions(learner, phase).items():
        workspace.confusion[name] = confusion.astype(np.int32)
        values[name] = {
            "accuracy": metrics.accuracy(confusion),
            "groups": metrics.group_accuracies(confusion, sizes),
            **metrics.confusion_rates(confusion, phase.num_old),
            **(metrics.shot_accuracies(confusion, context.counts[: phase.seen]) if context.long_tailed else {}),
        }
    if len(workspace.phases) == phase.index:
        workspace.phases.append({"classes": phase.seen, "num_old": phase.num_old, "stages": {}})
    workspace.phases[phase.index]["stages"][stage] = values
