"""DER as a learner: what each step trains, and how the network changes after it. `common` has loops and data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.incremental import Context, Learner, Phase
from common.resnet import backbone
from common.training import Stage, shuffled
from der.expand import Classifier, Expandable, classifier_for, successor
from der.losses import auxiliary
from der.masks import scale
from der.methods import DER
from der.model import MaskedResNet, extractor, inner_only, mask_logits
from der.prune import count_flops, count_parameters, prune, recalibrate
from der.readouts import fit_probe, logits_without_each
from der.wiring import wiring

MOST_SILENCED = 11
"""The last test silences each extractor in turn, if there are at most this many."""


class DERLearner(Learner):
    """Trains the paper's method, its ablations and the control with random channels."""

    config: DER
    net: Any  # an Expandable

    def __init__(self, config: DER, context: Context) -> None:
        super().__init__(config, context)
        device = context.device.torch
        self.batch = torch.zeros((), device=device)  # batches of this epoch; a tensor, since captured steps count it
        self.batches = 1
        self.probe: Callable[[Tensor], Tensor] | None = None
        """The classifier of the `probe` read-out. It is fitted once the step's extractor is final, since the classifier
        stage does not change features."""

    def build(self, classes: int) -> None:
        """Make the first extractor and its classifier."""
        run = self.context.run
        body: Any = extractor(run.network, run.seed, self.config.zero_last)
        head = Classifier(body.out_features, classes, self.context.generator("head", 0))
        self.net = Expandable(lambda: backbone(run.network), body, head, self.context.device)

    def start_from(self, state: dict[str, Tensor]) -> None:
        """Load the base phase of another Run. With random channels, read only how many channels that Run kept."""
        if self.config.channels == "learned":
            super().start_from(state)
            return
        run = self.context.run
        head = Classifier(1, 1, torch.Generator())
        other = Expandable(lambda: backbone(run.network), backbone(run.network), head, self.context.device)
        other.load_state_dict(state)
        self.net.wanted = torch.tensor(other.channels(), device=self.context.device.torch)

    def inherits(self, phase: Phase) -> bool:
        """Return whether another Run has trained this phase: True for the base phase, unless channels are random."""
        return super().inherits(phase) and self.config.channels == "learned"

    def frozen(self) -> tuple[str, ...]:
        """Return prefixes of the names of the old extractors' tensors, which no later step changes."""
        return tuple(f"extractors.{i}." for i in range(len(self.net.extractors) - 1))

    def begin_phase(self, phase: Phase) -> None:
        """Expand the network, put masks on the new extractor, and choose the images of the phase."""
        self.probe = None
        if phase.num_old and self.config.expand:
            self.expand(phase)
        elif phase.num_old:
            self.renew_classifier(phase)
        trained = self.context.run.start and self.inherits(phase)  # another Run has trained and pruned this phase
        if self.config.sparsity is not None and not trained:
            self.put_masks()
        self.net.place()
        self.indices = self.context.of_phase(phase)
        # The balanced subset is of D_t and M_(t-1). It is chosen now: the memory shrinks before the classifier stage.
        self.balanced_indices = balanced_subset(self.indices, self.context.train.labels, self.generator("balanced"))

    def generator(self, name: str) -> torch.Generator:
        """Return this step's random generator for one purpose."""
        return self.context.generator(name, self.phase.index)

    def expand(self, phase: Phase) -> None:
        """Freeze the old extractors, and add F_t and the step's classifiers (Sec. 3.1)."""
        run = self.context.run
        fresh = self.config.init == "random"
        seed = int(self.generator("extractor").initial_seed())
        self.net.add_extractor(extractor(run.network, seed, self.config.zero_last) if fresh else successor(self.net))
        self.renew_classifier(phase)
        self.net.aux = Classifier(self.net.widths[-1], phase.num_new + 1, self.generator("aux"))

    def renew_classifier(self, phase: Phase) -> None:
        """Make H_t: random, or with H_(t-1) as its old block."""
        inherit = self.config.classifier == "inherit"
        self.net.head = classifier_for(self.net, phase.seen, inherit, self.generator("head"))

    def put_masks(self) -> None:
        """Put masks on the new extractor (Sec. 3.3)."""
        new, c = self.net.new.requires_grad_(True), self.config
        body, before = (new.body, new.e.detach()) if isinstance(new, MaskedResNet) else (new, None)
        plan = wiring(body)
        if c.channels == "random":
            counts = self.net.wanted[self.phase.index].tolist()
            e = random_mask_logits(plan.channels, counts, self.generator("channels"))
        elif c.mask_start == "inherit" and before is not None:
            e = before
        else:
            e = mask_logits(sum(plan.channels), c.mask_init, self.generator("masks"))
        masked = MaskedResNet(body, inner_only(e, plan) if c.mask_groups == "inner" else e)
        self.net.extractors[-1] = masked
        self.net.place()
        share = masked.sparsity(masked.hard()).detach().reshape(1)
        self.net.initial = torch.cat([self.net.initial[: self.phase.index].to(share), share])

    def main(self, phase: Phase) -> Stage:
        """Return the representation stage, which trains the new extractor and both classifiers."""
        schedule, net = self.context.run.schedule, self.net
        self.batches = -(-len(self.indices) // schedule.batch)
        heads = [h for h in (net.head, net.aux) if h is not None]
        parameters = [p for module in (net.new, *heads) for p in module.parameters()]
        main = Stage("main", schedule, self.indices, self.loss, parameters, net.train)
        main.no_decay = [net.new.e] if isinstance(net.new, MaskedResNet) else []
        main.on_epoch, main.on_end = self.begin_epoch, self.end_representation
        return main

    def stages(self, phase: Phase) -> Iterator[Stage]:
        """Yield the representation stage and, from step 2 on, the classifier stage on a balanced subset (Sec. 3.4)."""
        yield self.main(phase)
        if self.config.finetune and phase.num_old:
            net, head, indices = self.net, list(self.net.head.parameters()), self.balanced_indices
            stage = Stage("classifier", self.config.finetune, indices, self.classifier_loss, head, net.eval)
            stage.on_epoch = lambda epoch: epoch or net.head.reset(self.generator("classifier"))
            yield stage

    def begin_epoch(self, epoch: int) -> None:
        """Count batches from zero again, and reset the classifiers after the warm-up if `reset` is on."""
        self.batch.zero_()
        if self.config.reset and epoch and epoch == self.context.run.schedule.warmup:
            self.net.head.reset(self.generator("head reset"))
            if self.net.aux is not None:
                self.net.aux.reset(self.generator("aux reset"))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return Eq. 11: L_H + lambda_a L_Ha + lambda_s L_S."""
        c, net = self.config, self.net
        masks = self.masks()
        features = net.features(images, masks)
        loss = self.entropy(net.head(features), labels)  # Eq. 3
        if net.aux is not None:
            loss = loss + c.aux * auxiliary(net.aux(net.newest_columns(features)), labels, self.phase.num_old)  # Eq. 4
        if masks is not None and c.sparsity is not None:
            loss = loss + c.sparsity * net.new.sparsity(masks)  # Eq. 10
        return loss

    def masks(self) -> tuple[Tensor, ...] | None:
        """Return the soft masks of this batch, or None where nothing is masked. The batch is counted on the device."""
        new = self.net.new
        if not isinstance(new, MaskedResNet):
            return None
        new.clamp(self.config.mask_bound)
        self.batch.add_(1)
        s = scale(self.batch, self.batches, self.config.s_max)  # Eq. 8
        return new.soft(s, self.config.mask_rate if self.config.channels == "learned" else 0.0)

    def end_representation(self) -> None:
        """Finish the extractor: drop the auxiliary classifier, prune if there are masks, fit the probe if it is on."""
        self.net.aux = None
        if isinstance(self.net.new, MaskedResNet):
            self.prune(self.net.new)
        if self.config.probe:
            self.probe = fit_probe(self.net, self.context, self.phase.seen)

    def prune(self, new: MaskedResNet) -> None:
        """Measure BatchNorm under binary masks, and put the pruned network in place of the masked one."""
        if self.config.recalibrate:
            order, batch = shuffled(self.indices, self.generator("recalibrate")), self.context.run.schedule.batch
            with self.context.device.autocast():
                recalibrate(new, self.context.train.plain(order, batch))
        self.net.replace_new(prune(new, fill=False), new.kept_channels()[new.wiring.features].nonzero().squeeze(1))

    def classifier_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return cross-entropy of the logits over the temperature, with frozen features (Sec. 3.4)."""
        return F.cross_entropy(self.net.head(self.frozen_features(images)) / self.config.temperature, labels)

    def trace(self, phase: Phase) -> dict[str, float]:
        """Return the share of convolution weights that binary masks would keep now."""
        new = self.net.new
        return {"kept": round(float(new.sparsity(new.hard())), 5)} if isinstance(new, MaskedResNet) else {}

    def summary(self, phase: Phase) -> dict[str, Any]:
        """Describe all extractors: channels by group, parameters, multiply-additions, share kept by untrained masks."""
        inputs, net = self.context.run.inputs, self.net
        side = 32 if inputs.kind == "crop-flip" else inputs.size
        whole = net.make()
        return {
            "norms": [round(x, 5) for x in net.head.weight.norm(dim=1).tolist()],
            "channels": net.channels(),
            "full_channels": list(wiring(whole).channels) if self.config.sparsity is not None else [],
            "features": net.widths,
            "parameters": [count_parameters(f) for f in net.extractors],
            "full_parameters": count_parameters(whole),
            "flops": [count_flops(f, side) for f in net.extractors],
            "full_flops": count_flops(whole, side),
            "initial_share": [round(x, 5) for x in net.initial.tolist()],
        }

    def readouts(self, features: Tensor, phase: Phase) -> dict[str, Tensor]:
        """Predict by the classifier (cnn) and its five best guesses.

        At the end of the Run, also predict without each extractor. With `probe`, also predict by the fitted classifier.
        """
        weight = self.net.head.weight
        logits = features @ weight.T
        found = {"cnn": logits.argmax(dim=1), "top5": logits.topk(min(5, logits.shape[1]), dim=1).indices}
        if phase.index == len(self.context.run.protocol.sizes) - 1 and 1 < len(self.net.extractors) <= MOST_SILENCED:
            for i, rest in enumerate(logits_without_each(features, weight, self.net.widths)):
                found[f"without {i + 1}"] = rest.argmax(dim=1)
        if self.config.probe:
            found["probe"] = (self.probe or fit_probe(self.net, self.context, phase.seen))(features)
        return found


def balanced_subset(indices: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Choose at random as many of `indices` in every class as the smallest class has."""
    shuffled_indices = shuffled(indices, generator)
    own = labels[shuffled_indices]
    classes, counts = own.unique(return_counts=True)
    smallest = int(counts.min())
    return torch.cat([shuffled_indices[own == c][:smallest] for c in classes])


def random_mask_logits(channels: Sequence[int], channels_to_keep: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return mask logits [c]: +1 for `channels_to_keep` channels of each group, chosen at random, -1 for the others.

    All logits have the same size, so every mask is soft at the start of an epoch and binary well before its end.
    """
    pairs = zip(channels, channels_to_keep, strict=True)
    kept = [torch.randperm(size, generator=generator) < count for size, count in pairs]
    return 2.0 * torch.cat(kept) - 1
