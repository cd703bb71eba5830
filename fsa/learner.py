"""Learners of Phase II, and of the pass that caches feature maps for it. `common` has the training loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.errors import RunFailed
from common.heads import LinearHead, Net, extract, frozen_copy
from common.incremental import Learner, Phase
from common.resnet import backbone, pool
from common.runs import Run
from common.steps import StepNumbers
from common.training import Stage
from fsa.augment import augmented, replaced
from fsa.batches import class_scores, head_tail_sampler, plain_sampler
from fsa.cam import class_activation_map, normalise, split
from fsa.maps import Maps, Pool, halves
from fsa.methods import FSA, Views


class FSALearner(Learner):
    """Trains Phase II: tunes the classifier. All layers before pooling stay as Phase I left them, in eval mode."""

    config: Any  # an FSA
    net: Any

    @property
    def fsa(self) -> FSA:
        """The options of Phase II."""
        return self.config

    @property
    def cached(self) -> bool:
        """Whether feature maps come from the `Views` that this run starts from, and not from images."""
        start = self.context.run.start
        return start is not None and isinstance(start.method, Views)

    def build(self, classes: int) -> None:
        """Make the network; with cached maps, its backbone only pools."""
        super().build(classes)
        if self.cached:
            self.net = Net(Pool(), self.net.head, self.context.device)

    def start_from(self, state: dict[str, Tensor]) -> None:
        """Load Phase I's weights or, with cached maps, the classifier and the maps."""
        if not self.cached:
            super().start_from(state)
            return
        context, device = self.context, self.context.device.torch
        self.net.load_state_dict({k: v for k, v in state.items() if k.startswith("head.")})
        indices = context.of_classes(0, len(self.net.head.weight))
        context.train = Maps(state["maps"].to(device), context.train.labels, indices)
        everything = torch.arange(len(context.test.labels), device=device)
        context.test = Maps(state["test"].to(device)[:, None, :, None, None], context.test.labels, everything)
        self.scores = state["scores"]

    @classmethod
    def exported(cls, run: Run, left: Callable[[Run], dict[str, Tensor]]) -> tuple[Run, dict[str, Tensor]]:
        """Return Phase I's backbone with the tuned classifier, if this run used cached maps.

        Such a run has saved only its classifier.
        """
        if run.start is None or not isinstance(run.start.method, Views):
            return super().exported(run, left)
        phase1 = run.start.start
        assert phase1 is not None
        backbone = {name: value for name, value in left(phase1).items() if name.startswith("backbone.")}
        return replace(run, start=phase1), backbone | left(run)

    def begin_phase(self, phase: Phase) -> None:
        """Set what depends on Phase I alone: the frozen backbone, activation maps' weights, and class scores."""
        indices = self.context.of_classes(0, phase.seen)
        self.weight = self.net.head.weight.detach().clone()
        if not self.cached:
            self.scores = class_scores(self.net, self.context, indices)
        self.fixed = frozen_copy(self.net.backbone, self.context.device)
        with torch.no_grad():
            one = self.maps(next(iter(self.context.train.plain(indices[:1]))))
        samples, locations = self.fsa.tail * self.fsa.donors, one.shape[2] * one.shape[3]
        if locations < 2:
            raise RunFailed(f"{self.context.run.network} pools a single location here, which has no parts to augment")
        self.fusion_numbers = StepNumbers(self.fsa.steps, self.context.device.torch, (samples, 1 + locations))

    def main(self, phase: Phase) -> Stage:
        """Return a main stage that trains only the classifier, on Phase II's batches."""
        main = super().main(phase)
        main.parameters, main.set_mode = self.net.head.parameters(), self.net.eval
        self.sample(main)
        return main

    def sample(self, stage: Stage) -> None:
        """Make a stage sample Phase II's batches. Raises RunFailed if they do not fit the schedule or the cache."""
        c, labels, size = self.fsa, self.context.train.labels, stage.schedule.batch
        if c.batch != "head-tail":
            stage.sampler = plain_sampler(c, labels, size)
            return
        if size != c.images:
            raise RunFailed(f"a batch of {c.tail} tail images with {c.donors} donors each is {c.images}, not {size}")
        stage.parts = 0  # donors are fused with the tail images of their batch, so a batch must stay whole
        train = self.context.train
        if c.offline and not (isinstance(train, Maps) and train.images.shape[1] == 1):
            raise RunFailed("features fused once need maps of one cached view of each image")
        fixed = (lambda: self.context.generator("tail and donors")) if c.offline else None
        try:
            stage.sampler = head_tail_sampler(c, labels, self.context.counts, self.scores, fixed)
        except ValueError as error:
            raise RunFailed(str(error)) from None
        if c.donors:
            stage.on_epoch = lambda epoch: self.begin_epoch(0 if c.offline else epoch)

    def begin_epoch(self, epoch: int) -> None:
        """Set the uniform numbers of all fusions in this epoch."""
        generator = self.context.generator("fusion", epoch)
        self.fusion_numbers.set(torch.rand(self.fusion_numbers.values.shape, generator=generator))

    @property
    def cam_weight(self) -> Tensor:
        """The weight of the classifier that makes the activation maps, [c, d]."""
        return self.weight if self.fsa.cam_weights == "phase1" else self.net.head.weight.detach()

    def maps(self, images: Tensor) -> Tensor:
        """Return the feature maps before pooling, fp32 [n, c, h, w]."""
        with self.context.device.autocast():
            return self.fixed.maps(images).float()

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy over real and augmented features. An augmented one has its tail image's label."""
        with torch.no_grad():
            features, labels = self.features(self.maps(images), labels)
        return F.cross_entropy(self.net.head(features), labels)

    def features(self, maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features and labels that the classifier is trained on.

        In place of a donor there is an augmented feature, with the label of its tail image.
        """
        c = self.fsa
        if c.batch != "head-tail" or not c.donors:
            return maps.mean(dim=(2, 3)), labels
        (real, donors, _), (own, theirs, other) = (part.split(sizes(c)) for part in (maps, labels))
        own = own.repeat_interleave(c.donors)
        numbers = self.fusion_numbers.next()
        fused = augmented(c, self.cam_weight, real, own, donors, theirs, numbers)
        means = maps.mean(dim=(2, 3))
        return means.index_copy(0, donor_rows(c, maps.device), fused), torch.cat([labels[: c.tail], own, other])


def sizes(config: FSA) -> list[int]:
    """Return the numbers of tail images, donors and head images in a batch."""
    return [config.tail, config.tail * config.donors, config.tail * (1 + config.donors)]


def donor_rows(config: FSA, device: torch.device) -> Tensor:
    """Return the positions of the donors in a batch."""
    return torch.arange(config.tail, config.tail * (1 + config.donors), device=device)


class EarlierBlockLearner(FSALearner):
    """Trains Fig. 9's ablation, which augments after an earlier block.

    Later blocks are tuned too, with their BatchNorm in eval mode.
    """

    config: Any  # an EarlierBlock

    @property
    def fsa(self) -> FSA:
        """The options that this ablation shares with Phase II."""
        return self.config.fsa

    def begin_phase(self, phase: Phase) -> None:
        """Divide the backbone at the block, and keep frozen copies of both parts.

        Activation maps are those of Phase I's last feature map, enlarged to the size of the block's map.
        """
        self.front, self.back = halves(self.net.backbone, self.config.behind)
        device, images = self.context.device, self.context.train
        self.front, self.last = frozen_copy(self.front, device), frozen_copy(self.back, device)
        super().begin_phase(phase)
        with torch.no_grad(), device.autocast():
            size = self.front(next(iter(images.plain(self.context.of_classes(0, 1)[:1])))).shape[2:]
        numbers = 1 + 2 * size.numel()
        self.fusion_numbers = StepNumbers(self.fsa.steps, device.torch, (self.fsa.tail * self.fsa.donors, numbers))

    def main(self, phase: Phase) -> Stage:
        """Return a main stage that trains the later blocks and the classifier."""
        main = super().main(phase)
        main.parameters = [*self.back.parameters(), *self.net.head.parameters()]
        return main

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy over real and augmented maps, passed through the later blocks."""
        maps, labels = self.mixed(images, labels)
        with self.context.device.autocast():
            features = pool(self.back(maps))
        return F.cross_entropy(self.net.head(features), labels)

    def mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the batch's maps after the block, and their labels. Donors' maps are mixed with their tail images'."""
        c = self.fsa
        with torch.no_grad():
            with self.context.device.autocast():
                maps = self.front(images)
                last = self.last(maps)
            cams = class_activation_map(last, self.cam_weight, labels, c.scaling)
            cams = normalise(F.interpolate(cams.unsqueeze(1), maps.shape[2:], mode="bilinear").squeeze(1), c.scaling)
            specific, generic = split(cams, c.tau_specific, c.tau_generic)
            (tail, donors, head), (own, _, other) = (part.split(sizes(c)) for part in (maps, labels))
            mine, theirs = specific[: c.tail], generic.split(sizes(c))[1]
            mixed = replaced(tail, mine, donors, theirs, self.fusion_numbers.next(), c.ratio)
            return torch.cat([tail, mixed, head]), torch.cat([own, own.repeat_interleave(c.donors), other])


class ViewsLearner(Learner):
    """Trains nothing. Computes maps of augmented views of every image, class scores and test features.

    It saves them as if they were weights.
    """

    config: Views
    net: Any
    source: Any

    def build(self, classes: int) -> None:
        """Make Phase I's network, and a network whose state will hold the maps, scores and features."""
        context, run = self.context, self.context.run
        body: Any = backbone(run.network, seed=run.seed)
        head = LinearHead(body.out_features, classes, context.generator("head", 0))
        self.source, self.net = (Net(part, head, context.device) for part in (body, Pool()))
        device = context.device
        indices = context.of_classes(0, classes)
        shape = self.maps(next(iter(context.train.plain(indices[:1])))).shape[1:]
        # In bf16 precision the maps are bf16 already. In fp32 they are stored as half precision.
        kind = torch.bfloat16 if device.precision == "bf16" else torch.half
        maps = torch.zeros(len(indices), self.config.views, *shape, dtype=kind, device=device.torch)
        self.net.register_buffer("maps", maps)
        self.net.register_buffer("test", torch.zeros(len(context.test.labels), shape[0], device=device.torch))
        self.net.register_buffer("scores", torch.zeros(classes, classes, device=device.torch))

    def maps(self, images: Tensor) -> Tensor:
        """Return the feature maps of images before pooling, in eval mode."""
        self.source.eval()
        with torch.no_grad(), self.context.device.autocast():
            return self.source.backbone.maps(images)

    def start_from(self, state: dict[str, Tensor]) -> None:
        """Load Phase I's final weights."""
        self.source.load_state_dict(state)

    def begin_phase(self, phase: Phase) -> None:
        """Fill the caches: maps of every view, test features and class scores."""
        context, kept = self.context, self.net.maps
        indices = context.of_classes(0, phase.seen)
        small = context.device.type == "cuda" and context.run.inputs.kind == "crop-flip"
        for view in range(self.config.views):
            done = 0
            for images, _ in context.train.epoch(indices, 1000 if small else 128, context.generator("view", view)):
                kept[done : done + len(images), view] = self.maps(images)
                done += len(images)
        context.train.close()
        everything = torch.arange(len(context.test.labels), device=indices.device)
        self.net.test.copy_(extract(self.source, context.test, everything))
        self.net.scores.copy_(class_scores(self.source, context, indices))
        context.test = Maps(self.net.test[:, None, :, None, None], context.test.labels, everything)
