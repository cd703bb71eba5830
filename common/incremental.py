"""The one loop over phases, and the Learner it drives. A run that covers all classes at once has a single phase."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import metrics, splits
from common.data.datasets import Dataset
from common.errors import OutOfTime
from common.graphs import wait
from common.heads import CosineHead, LinearHead
from common.loader import Images, open_images
from common.memory import ExemplarMemory
from common.resnet import backbone
from common.runs import Flip, Run
from common.store import Saved, Workspace
from common.training import Device, Epoch, Stage, fit, momentum, seeded

WIDE = 2**21
"""Parameters from which a network, such as ResNet-18, takes half as many images at once where there is no gradient."""


class Net(nn.Module):
    """A backbone under autocast and an fp32 head: images [n, 3, h, w] -> logits [n, c]."""

    head: Any  # a LinearHead or a CosineHead

    def __init__(self, body: nn.Module, head: LinearHead | CosineHead, device: Device) -> None:
        super().__init__()
        self.backbone, self.head, self.device = body, head, device
        self.to(device.torch, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, images: Tensor) -> Tensor:
        """Pooled features before any normalisation, fp32 [n, d]."""
        with self.device.autocast():
            features = self.backbone(images)
        return features.float()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def frozen_copy(net: nn.Module, device: Device) -> Any:
    """A teacher: a deep copy in eval mode without gradients; its BatchNorm statistics never move.

    Convolutions keep their weights in bf16 where they run in it: the numbers that autocast would make at every call.
    """
    teacher = copy.deepcopy(net).eval().requires_grad_(False)
    if device.precision == "bf16":
        for module in teacher.modules():
            if isinstance(module, nn.Conv2d):
                module.to(torch.bfloat16)
    return teacher


@torch.no_grad()
def extract(net: Net, images: Images, indices: Tensor, flip: Flip = "none") -> Tensor:
    """Features of un-augmented images in eval mode. fp32 [n, d]."""
    net.eval()
    most = 5000 if sum(p.numel() for p in net.parameters()) < WIDE else 2500
    features = torch.cat(
        [net.features(part) for batch in images.plain(indices, flip=flip) for part in batch.split(most)]
    )
    wait(features.device)
    return features


@dataclass(frozen=True)
class Phase:
    """Phase `index`: `num_new` classes join the `num_old` known ones. Labels num_old..seen-1 are the new classes."""

    index: int
    num_old: int
    num_new: int

    @property
    def seen(self) -> int:
        return self.num_old + self.num_new


@dataclass
class Context:
    """What a learner may use: the Run, the images with their labels, and the exemplars kept so far."""

    run: Run
    device: Device
    train: Images
    test: Images
    memory: ExemplarMemory
    subset: Tensor | None = None
    """Which training images the Run sees, bool [n]; None: all."""
    workspace: Workspace | None = None
    """The run's folder, where a learner may keep tensors for the Runs that start from this one."""

    @cached_property
    def counts(self) -> np.ndarray:
        """Training images of every class that the Run sees, in class order. int64 [c]."""
        labels = self.train.labels if self.subset is None else self.train.labels[self.subset]
        return torch.bincount(labels, minlength=sum(self.run.protocol.sizes)).cpu().numpy()

    @property
    def long_tailed(self) -> bool:
        """Whether all classes are learnt at once from unequal numbers of images, by which results are told apart."""
        if len(self.run.protocol.sizes) > 1:
            return False
        return self.run.longtail is not None or len(set(self.counts.tolist())) > 1

    def generator(self, *keys: object) -> torch.Generator:
        """A CPU generator for initialisation, a function of the Run's seed and `keys` alone."""
        return seeded(torch.device("cpu"), self.run.seed, *keys)

    def of_classes(self, first: int, last: int) -> Tensor:
        """Training indices of the classes first..last-1."""
        labels = self.train.labels
        inside = (labels >= first) & (labels < last)
        return (inside if self.subset is None else inside & self.subset).nonzero().squeeze(1)


def by_class(net: Net, context: Context, phase: Phase) -> dict[int, tuple[Tensor, Tensor]]:
    """Training indices [n] and features [n, d] of every new class."""
    indices = context.of_classes(phase.num_old, phase.seen)
    labels, features = context.train.labels[indices], extract(net, context.train, indices)
    return {c: (indices[labels == c], features[labels == c]) for c in range(phase.num_old, phase.seen)}


class Learner:
    """Cross-entropy on a growing head: the base phase of every method, joint training, and what methods override."""

    head: type[LinearHead] | type[CosineHead] = LinearHead
    final_relu = True
    nme_flip: Flip = "none"

    def __init__(self, config: Any, context: Context) -> None:
        self.config, self.context = config, context

    @classmethod
    def device_for(cls, run: Run, device: str) -> str:
        """Where `run` trains when it is sent to `device`, "cpu" or "cuda"."""
        return device

    def build(self, classes: int) -> None:
        """A fresh network for `classes` classes."""
        run = self.context.run
        body: Any = backbone(run.network, self.final_relu, seed=run.seed)
        head = self.head(body.out_features, classes, self.context.generator("head", 0))
        self.net = Net(body, head, self.context.device)

    def start_from(self, state: dict[str, Tensor]) -> None:
        """Take over the final weights of the Run that this one starts from."""
        self.net.load_state_dict(state)

    def begin_phase(self, phase: Phase) -> None:
        """Grow and set up what the phase needs. On resume it runs again from the same state."""
        if phase.num_old:
            self.net.head.grow(phase.num_new, self.context.generator("head", phase.index))

    def stages(self, phase: Phase) -> Iterator[Stage]:
        """What to train in this phase, in order; after the first, the memory holds the new classes' exemplars too.

        By default one stage: all images of the new classes and the exemplars of the old, every parameter trained.
        """
        new = self.context.of_classes(phase.num_old, phase.seen)
        indices = torch.cat([new, self.context.memory.all().to(new.device)])
        yield Stage("main", self.context.run.schedule, indices, self.loss, self.net.parameters(), self.net.train)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """LUCIR Eq. 1: cross-entropy over all classes seen."""
        return F.cross_entropy(self.net(images), labels)

    def frozen(self) -> tuple[str, ...]:
        """How the names in the network's state begin that this phase does not change; no epoch saves them again."""
        return ()

    def inherits(self, phase: Phase) -> bool:
        """Whether a Run that starts from another trains no stage in this phase: the other one has."""
        return phase.index == 0

    def end_phase(self, phase: Phase) -> dict[str, Any]:
        """What is left to do once a phase is trained and tested; returns what figures ask of it, JSON-ready."""
        return {}

    def trace(self, phase: Phase) -> dict[str, float]:
        """Scalars worth a curve, read at the end of each epoch."""
        return {}

    def tested(self, confusions: dict[str, np.ndarray]) -> dict[str, float]:
        """More scalars worth a curve, from the confusion matrices of a test during training, by read-out."""
        return {}

    def summary(self, phase: Phase) -> dict[str, Any]:
        """What figures ask of the final head: the norm of each class's weight, biases or scale; class sizes."""
        head = self.net.head
        summary: dict[str, Any] = {"norms": [round(x, 5) for x in head.weight.norm(dim=1).tolist()]}
        if isinstance(head, LinearHead):
            summary["biases"] = [round(x, 5) for x in head.bias.tolist()]
        else:
            summary["scale"] = round(head.scale.item(), 5)
        if self.context.long_tailed:
            summary["counts"] = self.context.counts.tolist()
        return summary

    def test_set(self, phase: Phase) -> tuple[Tensor, Tensor]:
        """What read-outs are scored on: features [n, d] and labels [n] of the test images of all classes seen."""
        test = self.context.test
        indices = (test.labels < phase.seen).nonzero().squeeze(1)
        return extract(self.net, test, indices), test.labels[indices]

    def readouts(self, features: Tensor, phase: Phase) -> dict[str, Tensor]:
        """Predictions by name from test features [n, d]: classes [n], or guesses [n, k] of which one must be right."""
        logits = self.net.head(features)
        predictions = {"cnn": logits.argmax(dim=1)}
        if self.context.run.inputs.kind == "resized-crop":  # large images, of which papers print top-5 too
            predictions["top5"] = logits.topk(min(5, phase.seen), dim=1).indices
        if self.context.memory.indices:
            predictions["nme"] = metrics.nearest_mean(features, self.exemplar_means())
        return predictions

    def exemplar_means(self) -> Tensor:
        """Unit class means over exemplars [c, d]: normalised features, averaged with those of the flipped images."""
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


def run(spec: Run, dataset: Dataset, learner_class: type[Learner], workspace: Workspace, device: Device) -> dict:
    """Train `spec` to its end, from where its workspace left off, and return its Result: JSON-ready, without a clock.

    The confusion matrices of the last phase are left in `workspace.confusion`.
    """
    context = _context(spec, dataset, device, workspace)
    learner = learner_class(spec.method, context)
    sizes = spec.protocol.sizes
    phases = [Phase(i, sum(sizes[:i]), size) for i, size in enumerate(sizes)]
    learner.build(phases[0].num_new)
    workspace.pace = 10.0 if device.type == "cuda" else 1.0
    boundary, inside = workspace.restore()
    done = boundary.meta["phase"] if boundary else 0
    for phase in phases[1:done]:
        learner.net.head.grow(phase.num_new, torch.Generator())  # overwritten by what was saved
    if boundary:
        _load(learner, boundary)
    elif spec.start:
        learner.start_from(workspace.state_of(spec.start))
    logged = len(workspace.lines)
    for phase in phases[done:]:
        if workspace.late and len(workspace.lines) > logged:  # each command gets an epoch further at least
            raise OutOfTime
        learner.begin_phase(phase)
        if spec.start and len(phases) > 1 and learner.inherits(phase):  # trained by the Run this one starts from
            _choose_exemplars(learner, phase)
            _evaluate(learner, phase, workspace, "start")
        else:
            _train(learner, phase, workspace, inside)
        inside = None
        workspace.phases[phase.index] |= learner.end_phase(phase)
        workspace.boundary(_tensors(learner), {"phase": phase.index + 1})
    return {"phases": workspace.phases, "summary": learner.summary(phases[-1]), "trace": workspace.trace()}


def _context(spec: Run, dataset: Dataset, device: Device, workspace: Workspace | None = None) -> Context:
    position = splits.positions(splits.named_order(spec.order, len(dataset.classes)))
    protocol = spec.protocol
    memory = ExemplarMemory(protocol.exemplars_per_class, protocol.exemplars_total, rounding=protocol.rounding)
    train, test = (open_images(dataset, split, position, spec.inputs, device.torch) for split in ("train", "test"))
    subset = None
    if tail := spec.longtail:
        subset = torch.zeros(len(train.labels), dtype=torch.bool)
        subset[splits.longtail_indices(dataset.train_labels, tail.imbalance, tail.seed, tail.profile)] = True
        subset = subset.to(device.torch)
    return Context(spec, device, train, test, memory, subset, workspace)


def _train(learner: Learner, phase: Phase, workspace: Workspace, inside: Saved | None) -> None:
    """One phase: train each stage, choose exemplars after the first, evaluate after every one."""
    context = learner.context
    if inside:
        _load(learner, inside)
    for number, stage in enumerate(learner.stages(phase)):
        if inside and number < inside.meta["stage"]:
            continue
        resume = (inside.meta["epoch"], inside.part("momentum/")) if inside else None
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
            workspace.checkpoint(lambda: (_tensors(learner, optimiser), meta))

        seed = (context.run.seed, "phase", phase.index, stage.name)
        workspace.steps += fit(stage, context.train, seed, after_epoch, resume, learner.net)
        if number == 0:
            _choose_exemplars(learner, phase)
        _evaluate(learner, phase, workspace, stage.name)


def _choose_exemplars(learner: Learner, phase: Phase) -> None:
    """Herd the new classes with the network just trained; old classes keep theirs, truncated under a total budget."""
    context = learner.context
    if context.memory.quota(phase.seen) == 0:
        return
    context.memory.shrink(phase.seen)
    for label, (indices, features) in by_class(learner.net, context, phase).items():
        context.memory.add(label, indices, features, phase.seen)


def _confusions(learner: Learner, phase: Phase) -> dict[str, np.ndarray]:
    """Confusion matrices on the test images of all classes seen so far, by read-out."""
    with torch.no_grad():
        features, labels = learner.test_set(phase)
        predictions = learner.readouts(features, phase)
    true = labels.cpu().numpy()
    return {k: metrics.confusion_matrix(true, p.cpu().numpy(), phase.seen) for k, p in predictions.items()}


def _evaluate(learner: Learner, phase: Phase, workspace: Workspace, stage: str) -> None:
    """Test every read-out and add what it scores to the workspace's results."""
    values = {}
    context = learner.context
    sizes = context.run.protocol.sizes[: phase.index + 1]
    for name, confusion in _confusions(learner, phase).items():
        workspace.confusion[name] = confusion.astype(np.int32)
        values[name] = {
            "accuracy": metrics.accuracy(confusion),
            "groups": metrics.group_accuracies(confusion, sizes),
            **metrics.confusion_rates(confusion, phase.num_old),
        }
        if context.long_tailed:
            values[name] |= metrics.shot_accuracies(confusion, context.counts)
    if len(workspace.phases) == phase.index:
        workspace.phases.append({"classes": phase.seen, "num_old": phase.num_old, "stages": {}})
    workspace.phases[phase.index]["stages"][stage] = values


def _tensors(learner: Learner, optimiser: torch.optim.SGD | None = None) -> dict[str, Tensor]:
    """Everything a resume needs: weights, exemplars; inside a phase momentum, but no weights that it leaves alone."""
    left = learner.frozen() if optimiser else ()
    tensors = {f"net/{k}": v for k, v in learner.net.state_dict().items() if not k.startswith(left)}
    tensors |= {f"memory/{label}": kept for label, kept in learner.context.memory.indices.items()}
    if optimiser:
        tensors |= {f"momentum/{k}": v for k, v in momentum(optimiser).items()}
    return tensors


def _load(learner: Learner, saved: Saved) -> None:
    learner.net.load_state_dict(saved.part("net/"))
    device = learner.context.device.torch
    memory = {int(label): kept.to(device) for label, kept in saved.part("memory/").items()}
    learner.context.memory.indices = dict(sorted(memory.items()))
