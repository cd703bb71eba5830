"""Stages 2 and 3 as a learner: adapt the memory, then train a classifier on it.

All input is features that stage 1 kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.errors import InputError
from common.heads import LinearHead
from common.incremental import Context, Learner, Phase
from common.memory import ExemplarMemory
from common.metrics import nearest_mean
from common.runs import Run
from common.samplers import class_sampler
from common.training import shuffled
from feature_adaptation.adapter import batches, descend
from feature_adaptation.cache import KeptFeatures, TrueFeatures
from feature_adaptation.evaluation import Origins, with_truth, without_truth
from feature_adaptation.losses import one_hot
from feature_adaptation.maps import Pairs, Transform, fit_map
from feature_adaptation.memory import among_first, ranks
from feature_adaptation.methods import ROWS_PER_IMAGE, Adaptation, Extractor, Oracle, Recipe
from feature_adaptation.metrics import class_means
from feature_adaptation.model import FeatureMemory

HELD_OUT = 0.1  # share of the current pairs to which no map is fitted; they measure how well a map does on other images


class AdaptationLearner(Learner):
    """Trains the map of Eq. 7 and the feature classifier. It opens no image: features come from the run of stage 1."""

    config: Adaptation
    net: FeatureMemory  # type: ignore[assignment]

    def __init__(self, config: Adaptation, context: Context) -> None:
        super().__init__(config, context)
        assert context.run.start is not None and context.workspace is not None
        context.memory = ExemplarMemory(per_class=0)  # stage 1 has kept the images, if any
        self.stage1: Extractor = context.run.start.method
        self.kept_features = KeptFeatures(context.workspace, context.run.start, context.device.torch)
        self.images = context.run.protocol.exemplars_per_class or 0
        self.held: Pairs | None = None
        self.map: Transform | None = None

    @classmethod
    def device_for(cls, run: Run, device: str) -> str:
        """Return "cpu" even where there is a GPU, except for large images.

        A step on 64 features takes less time than its launch on a GPU.
        """
        return "cpu" if run.inputs.kind == "crop-flip" else device

    def inherits(self, phase: Phase) -> bool:
        """Return True: all training is in `begin_phase`, so the loop has no stage to train."""
        return True

    def build(self, classes: int) -> None:
        """Make the feature classifier and an empty memory."""
        dim = self.kept_features.current(0).new.shape[1]
        self.net = FeatureMemory(LinearHead(dim, classes, self.context.generator("head", 0)))
        self.net.to(self.context.device.torch)

    def start_from(self, state: dict[str, Tensor]) -> None:
        """Take over nothing: the head of stage 1 comes with the features of every task."""

    @classmethod
    def exported(cls, run: Run, left: Callable[[Run], dict[str, Tensor]]) -> tuple[Run, dict[str, Tensor]]:
        """Raise InputError, which names the run of stage 1 to export instead."""
        assert run.start is not None
        raise InputError(
            f"run {run.hash}: {type(run.method).__name__} is a classifier on features, no network that takes images; "
            f"export the network of stage 1, which made the features: reproduce export {run.start.hash}"
        )

    def begin_phase(self, phase: Phase) -> None:
        """Fit the map, move the memory, add the new classes, and train the classifier.

        Stage 1 of this task has been trained before.
        """
        super().begin_phase(phase)
        self.now, net = self.kept_features.current(phase.index), self.net
        net.scale.copy_(self.now.new.norm(dim=1).mean())
        self.map = self.held = None
        if phase.num_old:
            net.rows = self.adapted(phase)
        kept = among_first(self.now.labels, self.per_class)
        net.remember(self.now.new[kept], self.now.labels[kept], phase.index)
        self.train_classifier(phase)

    @property
    def per_class(self) -> int | None:
        """The number of feature rows that a class keeps; None: all.

        It is at least `self.images`: the first so many rows of a class belong to kept images, whose features are exact.
        """
        count = self.config.features_per_class
        return None if count is None else max(count, self.images)

    # Stage 2

    def pairs(self, phase: Phase) -> tuple[Pairs, Pairs]:
        """Return two sets of pairs of the current images: those to fit the map to, and a held-out tenth."""
        now = self.now
        everything = Pairs(now.old, now.new, now.labels)
        order = torch.randperm(len(now.labels), generator=self.context.generator("held out", phase.index))
        order = order.to(now.labels.device)
        count = int(HELD_OUT * len(order))
        fitted, held = everything.at(order[count:]), everything.at(order[:count])
        if self.config.exemplar_pairs:
            fitted = fitted.join(Pairs(now.image_old, now.image_new, now.image_labels))
        return fitted, held

    def adapted(self, phase: Phase) -> Tensor:
        """Return the memory in the new space, [m, d]: mapped features, or exact ones where the image is still there."""
        started, net = time.perf_counter(), self.net
        fitted, self.held = self.pairs(phase)
        generator = self.context.generator("map", phase.index)

        def rows(count: int) -> Iterator[Tensor]:
            everything = torch.arange(count, device=fitted.old.device)
            return batches(everything, shuffled, self.config.adapter, generator)

        self.map, loss = fit_map(self.config, fitted, rows, self.class_loss, generator, positive=self.stage1.final_relu)
        if loss == loss:
            self.log(phase, "adapter", loss, started, self.config.adapter)
        moved = self.map(net.rows)
        if self.config.norm == "match":
            moved = F.normalize(moved, dim=1) * net.rows.norm(dim=1, keepdim=True)
        if self.images:
            moved = moved.clone()
            moved[ranks(net.labels) < self.images] = self.now.image_new
        return moved

    def class_loss(self, mapped: Tensor, labels: Tensor) -> Tensor:
        """Return L_cls of Eq. 7: stage 1's loss through its fixed head W^t, the mean over the classes seen."""
        logits = self.stage1_head(mapped)
        if self.stage1.loss == "softmax":
            return F.cross_entropy(logits, labels)
        return F.binary_cross_entropy_with_logits(logits, one_hot(labels, logits.shape[1]))

    def stage1_head(self, features: Tensor) -> Tensor:
        """Return the logits of W^t, the head of stage 1, [m, c]."""
        return F.linear(self.prepare(features), self.now.weight, self.now.bias)

    def prepare(self, features: Tensor) -> Tensor:
        """Return features as the classifiers see them: by default, all have the mean norm of the current features."""
        return self.net.scale * F.normalize(features, dim=1) if self.config.norm == "unit" else features

    # Stage 3

    def train_classifier(self, phase: Phase) -> None:
        """Train the feature classifier g~ on the memory.

        By default classes are balanced, and g~ starts as stage 1's head.
        """
        started, c, net, now = time.perf_counter(), self.config, self.net, self.now
        head, generator = net.head, self.context.generator("classifier", phase.index)
        if c.fresh:
            head.load_state_dict(LinearHead(now.new.shape[1], phase.seen, generator).state_dict())
        else:
            head.load_state_dict({"weight": now.weight, "bias": now.bias})
        features, labels = net.rows, net.labels
        if c.current == "all":
            old = labels < phase.num_old
            features, labels = torch.cat([features[old], now.new]), torch.cat([labels[old], now.labels])
        features, targets = self.prepare(features), one_hot(labels, phase.seen)

        def loss(batch: Tensor) -> Tensor:
            logits = head(features[batch])
            if c.loss == "softmax":
                return F.cross_entropy(logits, labels[batch])
            return F.binary_cross_entropy_with_logits(logits, targets[batch])

        sampler = class_sampler(labels, "balanced" if c.balanced else "uniform")
        everything = torch.arange(len(labels), device=labels.device)
        rows = batches(everything, sampler, c.classifier, generator)
        mean = descend("classifier", loss, list(head.parameters()), rows, c.classifier)
        self.log(phase, "classifier", mean, started, c.classifier)

    def log(self, phase: Phase, stage: str, loss: float, started: float, recipe: Recipe) -> None:
        """Write a line of metrics.jsonl for a whole stage.

        `images` is the number of features trained on, divided by `ROWS_PER_IMAGE`.
        """
        assert self.context.workspace is not None
        self.context.workspace.log(
            {
                "phase": phase.index,
                "stage": stage,
                "epoch": 1,
                "lr": recipe.lr,
                "loss": round(loss, 6),
                "images": recipe.steps * recipe.batch // ROWS_PER_IMAGE,
                "seconds": round(time.perf_counter() - started, 3),
            }
        )

    # What is measured

    def test_set(self, phase: Phase) -> tuple[Tensor, Tensor]:
        """Return the test features and labels that stage 1 has kept."""
        return self.now.test, self.now.test_labels

    def readouts(self, features: Tensor, phase: Phase) -> dict[str, Tensor]:
        """Predict by g~, as the paper does (cnn), by W^t, biased to new classes (stage1), and by nearest mean (ncm).

        Nearest means are class means of the memory. Large images also have the five best guesses of g~ (top5).
        """
        logits = self.net.head(self.prepare(features))
        means = class_means(F.normalize(self.net.rows, dim=1), self.net.labels)
        predictions = {
            "cnn": logits.argmax(dim=1),
            "stage1": F.linear(features, self.now.weight, self.now.bias).argmax(dim=1),
            "ncm": nearest_mean(F.normalize(features, dim=1), means),
        }
        if self.context.run.inputs.kind == "resized-crop":
            predictions["top5"] = logits.topk(min(5, phase.seen), dim=1).indices
        return predictions

    def end_phase(self, phase: Phase) -> dict[str, Any]:
        """Measure how good the memory is, with features that the learner never sees."""
        found = without_truth(self.net, phase, self.stage1_head, self.held, self.map)
        if self.stage1.keep == "truth":
            sizes = self.context.run.protocol.sizes
            found |= with_truth(self.net, phase, sizes, self.origins(), self.map)
        return {"quality": found}

    def origins(self) -> Origins:
        """Return the features of old images under later extractors, for evaluation and oracles."""
        assert self.context.run.start is not None and self.context.workspace is not None
        truth = TrueFeatures(self.context.workspace, self.context.run.start, self.context.device.torch)
        return Origins(self.kept_features, truth, self.per_class)


class OracleLearner(AdaptationLearner):
    """Looks at the true features of old images.

    Its results are references, not bounds: a map that errs can still classify better.
    """

    config: Oracle

    def adapted(self, phase: Phase) -> Tensor:
        """Return the memory in the new space, [m, d]: its true features, or those of an MLP fitted to true pairs."""
        origins, now = self.origins(), phase.index
        if self.config.map == "true":
            _, self.held = self.pairs(phase)
            return origins.true_features(now, now)
        before, after = (origins.true_features(t, now) for t in (now - 1, now))
        self.true_pairs = Pairs(before, after, self.net.labels)
        return super().adapted(phase)

    def pairs(self, phase: Phase) -> tuple[Pairs, Pairs]:
        """Return pairs to fit the map to, which are the old images' pairs for the MLP, and a held-out tenth of current
        pairs.
        """
        fitted, held = super().pairs(phase)
        return (fitted if self.config.map == "true" else self.true_pairs), held
