"""The expandable representation (Sec. 3.1): frozen extractors, a new one, and linear classifiers without biases."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.heads import frozen_copy
from common.training import Device
from der.model import MaskedResNet
from der.wiring import shape_like, wiring


class Classifier(nn.Module):
    """weight [c, d], no bias: features [n, d] -> logits [n, c]."""

    def __init__(self, in_features: int, num_classes: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        # Kaiming's normal for a linear layer, N(0, 1/d): rows of norm about 1 (official code)
        fresh = torch.randn(num_classes, in_features, generator=generator) / math.sqrt(in_features)
        self.weight = nn.Parameter(fresh)

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight)

    def grow(self, count: int, generator: torch.Generator | None = None) -> None:
        """Add `count` fresh classes; the old rows are kept."""
        fresh = Classifier(self.weight.shape[1], count, generator).weight.data.to(self.weight)
        self.weight = nn.Parameter(torch.cat([self.weight.data, fresh]))

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Start again in place from U(-1/sqrt(d), 1/sqrt(d)), as the official code does after the warm-up."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        self.weight.copy_(torch.empty(self.weight.shape).uniform_(-bound, bound, generator=generator))


class Expandable(nn.Module):
    """u = [F_1(x), ..., F_t(x)] (Eq. 1) and its classifier: images [n, 3, h, w] -> logits [n, c].

    All extractors but the last are frozen: always in eval mode, run without gradients.
    """

    initial: Tensor
    wanted: Tensor

    def __init__(self, make: Callable[[], nn.Module], body: nn.Module, head: Classifier, device: Device) -> None:
        """make: an extractor before pruning, of any weights, which states are loaded into."""
        super().__init__()
        self.make, self.device = make, device
        self.extractors = nn.ModuleList([body])
        self.head = head
        self.aux: Classifier | None = None
        """H^a of Eq. 4, on the new extractor alone; there during the representation stage only."""
        self.full: nn.Module | None = None
        """The last extractor before it was pruned, with its masks, which the next one starts from."""
        self.frozen: list[nn.Module] = []
        """Copies of the old extractors as they run (see `frozen_copy`); in fp32 the extractors themselves."""
        self.register_buffer("initial", torch.zeros(0))
        """Share of the weights that the fresh masks of each extractor kept, [t]."""
        self.register_buffer("wanted", torch.zeros(0, 0, dtype=torch.long))
        """Channels to keep in each step and group, where they are given [T, g]."""
        self.place()

    def place(self) -> None:
        """Move to the device; fresh modules join the others there."""
        self.to(self.device.torch, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def new(self) -> Any:
        """The last extractor."""
        return self.extractors[-1]

    @property
    def widths(self) -> list[int]:
        """Features of every extractor."""
        return [int(f.out_features) for f in self.extractors]  # type: ignore[arg-type]

    def train(self, mode: bool = True) -> Expandable:
        super().train(mode)
        for old in self.extractors[:-1]:
            old.eval()
        if self.full is not None:
            self.full.eval()
        return self

    def features(self, images: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
        """The super-feature, fp32 [n, sum of widths]; `masks` for the last extractor, where it has some."""
        with self.device.autocast():
            with torch.no_grad():
                parts = [old(images) for old in self.frozen]
            parts.append(self.new(images) if masks is None else self.new(images, masks))
        return torch.cat([part.float() for part in parts], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def of_new(self, features: Tensor) -> Tensor:
        """The part of super-features [n, d] that the last extractor gave."""
        return features[:, -self.widths[-1] :]

    def begin(self, body: nn.Module) -> None:
        """Freeze what is there and add an extractor."""
        self.extractors.append(body)
        self.full = None
        self.freeze()

    def freeze(self) -> None:
        """Only the last extractor and the classifiers take gradients."""
        for module in [*self.extractors[:-1], *([self.full] if self.full else [])]:
            module.requires_grad_(False)
            module.zero_grad()  # of its own last step; frees the memory
        self.train(self.training)
        whole, old = self.device.precision == "fp32", list(self.extractors[:-1])
        self.frozen = old if whole else [frozen_copy(extractor, self.device) for extractor in old]

    def replace_new(self, pruned: nn.Module, features: Tensor) -> None:
        """Put a pruned network in place of the masked last one, whose weights stay as `full`.

        Of its features the classifier keeps those at `features`.
        """
        before = sum(self.widths[:-1])
        columns = torch.cat([torch.arange(before, device=features.device), before + features])
        self.full, self.extractors[-1] = self.new, pruned
        self.head.weight = nn.Parameter(self.head.weight.data[:, columns].clone())
        self.place()
        self.freeze()

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take over a state, and first the shape it was saved with: extractors, their channels, the classifiers."""
        count = 1 + max(int(k.split(".")[1]) for k in state if k.startswith("extractors."))
        self.extractors = nn.ModuleList(self._shaped(_part(state, f"extractors.{i}.")) for i in range(count))
        self.full = self._shaped(full) if (full := _part(state, "full.")) else None
        self.aux = Classifier(1, 1, torch.Generator()) if "aux.weight" in state else None
        for name in ("head", "aux"):
            if head := getattr(self, name):
                head.weight = nn.Parameter(torch.empty_like(state[f"{name}.weight"]))
        self.initial, self.wanted = (torch.empty_like(state[name]) for name in ("initial", "wanted"))
        self.place()
        loaded = super().load_state_dict(state, strict, assign)
        self.freeze()
        return loaded

    def _shaped(self, state: Mapping[str, Tensor]) -> nn.Module:
        """An extractor of the shapes in its state: masked where that holds mask logits."""
        body = self.make()
        if "e" not in state:
            shape_like(body, state)
            return body
        shape_like(body, _part(state, "body."))
        return MaskedResNet(body, torch.empty_like(state["e"]))

    def channels(self) -> list[list[int]]:
        """Channels of every extractor's groups (see `wiring`), as they are now."""
        return [list(wiring(getattr(f, "body", f)).channels) for f in self.extractors]


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def successor(net: Expandable) -> nn.Module:
    """A trainable copy of the last extractor before pruning, weights, statistics and masks; nothing is shared."""
    body = copy.deepcopy(net.full if net.full is not None else net.new)
    return body.requires_grad_(True)


def classifier_for(net: Expandable, classes: int, inherit: bool, generator: torch.Generator) -> Classifier:
    """A classifier of `classes` rows on the super-feature; inherit: with the current one as its old block (paper)."""
    old = net.head.weight.data
    head = Classifier(sum(net.widths), classes, generator).to(old.device)
    if inherit:
        head.weight.data[: old.shape[0], : old.shape[1]] = old
    return head
