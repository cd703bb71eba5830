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
    """A linear classifier without a bias: features [n, d] -> logits [n, c], weight [c, d]."""

    def __init__(self, in_features: int, num_classes: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        # N(0, 1/d), Kaiming's normal for a linear layer, as in the official code: rows have a norm of about 1
        fresh = torch.randn(num_classes, in_features, generator=generator) / math.sqrt(in_features)
        self.weight = nn.Parameter(fresh)

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight)

    def grow(self, count: int, generator: torch.Generator | None = None) -> None:
        """Add rows for `count` new classes and keep the old rows."""
        fresh = Classifier(self.weight.shape[1], count, generator).weight.data.to(self.weight)
        self.weight = nn.Parameter(torch.cat([self.weight.data, fresh]))

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Sample new weights in place from U(-1/sqrt(d), 1/sqrt(d)), as the official code does after the warm-up."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        self.weight.copy_(torch.empty(self.weight.shape).uniform_(-bound, bound, generator=generator))


class Expandable(nn.Module):
    """The super-feature u = [F_1(x), ..., F_t(x)] (Eq. 1) and its classifier: images [n, 3, h, w] -> logits [n, c].

    All extractors but the last are frozen: they stay in eval mode and run without gradients.
    """

    initial: Tensor
    wanted: Tensor

    def __init__(self, make: Callable[[], nn.Module], body: nn.Module, head: Classifier, device: Device) -> None:
        """make: returns an unpruned extractor with any weights, into which saved states are loaded."""
        super().__init__()
        self.make, self.device = make, device
        self.extractors = nn.ModuleList([body])
        self.head = head
        self.aux: Classifier | None = None
        """H^a of Eq. 4, which reads the new extractor alone. It exists during the representation stage only."""
        self.full: nn.Module | None = None
        """The last extractor before pruning, with its masks. The next extractor starts as its copy."""
        self.frozen: list[nn.Module] = []
        """The old extractors as `features` runs them: copies (see `frozen_copy`), or in fp32 the extractors themselves.
        """
        self.register_buffer("initial", torch.zeros(0))
        """The share of convolution weights that each extractor's masks kept before they were trained, [t]."""
        self.register_buffer("wanted", torch.zeros(0, 0, dtype=torch.long))
        """The number of channels to keep in each step and group, [T, g]. It is empty unless channels are random."""
        self.place()

    def place(self) -> None:
        """Move the whole network to the device, newly added modules included."""
        self.to(self.device.torch, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def new(self) -> Any:
        """The last extractor."""
        return self.extractors[-1]

    @property
    def widths(self) -> list[int]:
        """The number of features of every extractor."""
        return [int(f.out_features) for f in self.extractors]  # type: ignore[arg-type]

    def train(self, mode: bool = True) -> Expandable:
        super().train(mode)
        for old in self.extractors[:-1]:
            old.eval()
        if self.full is not None:
            self.full.eval()
        return self

    def features(self, images: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
        """Return the super-feature of images, fp32 [n, sum of widths].

        masks: soft masks for the last extractor. Without them a masked extractor uses binary ones.
        """
        with self.device.autocast():
            with torch.no_grad():
                parts = [old(images) for old in self.frozen]
            parts.append(self.new(images) if masks is None else self.new(images, masks))
        return torch.cat([part.float() for part in parts], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def newest_columns(self, features: Tensor) -> Tensor:
        """Return the columns of super-features [n, d] that come from the last extractor."""
        return features[:, -self.widths[-1] :]

    def add_extractor(self, body: nn.Module) -> None:
        """Freeze the present extractors and add `body` as the new one."""
        self.extractors.append(body)
        self.full = None
        self.freeze()

    def freeze(self) -> None:
        """Let only the last extractor and the classifiers take gradients, and renew `frozen`."""
        for module in [*self.extractors[:-1], *([self.full] if self.full else [])]:
            module.requires_grad_(False)
            module.zero_grad()  # frees the gradients of the module's last training step
        self.train(self.training)
        whole, old = self.device.precision == "fp32", list(self.extractors[:-1])
        self.frozen = old if whole else [frozen_copy(extractor, self.device) for extractor in old]

    def replace_new(self, pruned: nn.Module, features: Tensor) -> None:
        """Put a pruned network in place of the masked last extractor, which stays as `full`.

        features: positions [k] of the features that pruning kept. The classifier keeps the columns at these positions.
        """
        before = sum(self.widths[:-1])
        columns = torch.cat([torch.arange(before, device=features.device), before + features])
        self.full, self.extractors[-1] = self.new, pruned
        self.head.weight = nn.Parameter(self.head.weight.data[:, columns].clone())
        self.place()
        self.freeze()

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state. First give extractors, channels and classifiers the shapes they had when it was saved."""
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
        """Return an extractor with the shapes in `state`, masked if the state holds mask logits."""
        body = self.make()
        if "e" not in state:
            shape_like(body, state)
            return body
        shape_like(body, _part(state, "body."))
        return MaskedResNet(body, torch.empty_like(state["e"]))

    def channels(self) -> list[list[int]]:
        """Return the present number of channels in every group (see `wiring`) of every extractor."""
        return [list(wiring(getattr(f, "body", f)).channels) for f in self.extractors]


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def successor(net: Expandable) -> nn.Module:
    """Return a trainable deep copy of the last extractor before pruning, with its weights, statistics and masks."""
    body = copy.deepcopy(net.full if net.full is not None else net.new)
    return body.requires_grad_(True)


def classifier_for(net: Expandable, classes: int, inherit: bool, generator: torch.Generator) -> Classifier:
    """Return a classifier with random weights, from the super-feature to `classes` logits.

    inherit: copy the current classifier's weights for old classes and old features, as in the paper.
    """
    old = net.head.weight.data
    head = Classifier(sum(net.widths), classes, generator).to(old.device)
    if inherit:
        head.weight.data[: old.shape[0], : old.shape[1]] = old
    return head
