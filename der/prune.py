"""Turn masks into a smaller network: measure BatchNorm under binary masks, cut the channels out, and count the rest."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from der.model import MaskedResNet
from der.wiring import narrow, shape_like


class Filled(nn.Module):
    """A pruned network whose features keep their places: images -> [n, width], with zeros for the pruned channels."""

    places: Tensor

    def __init__(self, body: nn.Module, places: Tensor, width: int) -> None:
        super().__init__()
        self.body, self.out_features = body, width
        self.register_buffer("places", places)

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        full = features.new_zeros(len(features), self.out_features)
        return full.index_copy(1, self.places, features)


def prune(model: nn.Module, fill: bool = True) -> nn.Module:
    """Return a network without the channels that binary masks switch off.

    Its outputs equal those of `model` in eval mode. fill: features have the width of the masked network, with zeros for
    pruned channels; otherwise only the kept features are returned, in order. `model` does not change. Raises ValueError
    on a network without masks.
    """
    if not isinstance(model, MaskedResNet):
        raise ValueError(f"only a network with masks can be pruned, not a {type(model).__name__}")
    kept = [k.nonzero().squeeze(1) for k in model.kept_channels()]
    body = copy.deepcopy(model.body)
    narrow(body, kept)
    return Filled(body, kept[model.wiring.features], model.out_features) if fill else body


def load_pruned(body: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Cut `body`, an unpruned network, down to the shapes in `state`, the state_dict of a pruned one, and load it."""
    inside = {k.removeprefix("body."): v for k, v in state.items() if k != "places"}
    width: Any = body.out_features
    shape_like(body, inside)
    body.load_state_dict(inside)
    return Filled(body, state["places"], width) if "places" in state else body


@torch.no_grad()
def recalibrate(model: MaskedResNet, batches: Iterable[Tensor]) -> None:
    """Measure BatchNorm's mean and variance again under binary masks, as plain averages over `batches` [b, 3, h, w].

    In training, the mean and the variance are measured while s rises and masks go from soft to hard. Sec. 3.3 does not
    say what to do about that.
    """
    norms = [m for m in model.body.modules() if isinstance(m, nn.BatchNorm2d)]
    before, momenta, masks = model.training, [norm.momentum for norm in norms], model.hard()
    model.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    for batch in batches:
        model(batch, masks)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(before)


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters of a network. Mask logits are not counted, since only training needs them."""
    logits = {id(m.e) for m in model.modules() if isinstance(m, MaskedResNet)}
    return sum(p.numel() for p in model.parameters() if id(p) not in logits)


@torch.no_grad()
def count_flops(model: nn.Module, side: int = 32) -> int:
    """Return the multiply-additions of all convolutions for one image of side x side pixels."""
    total = 0

    def count(conv: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal total
        total += output.shape[2] * output.shape[3] * conv.weight.numel()  # type: ignore[operator, union-attr]

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d)]
    weight = next(model.parameters())
    training = model.training
    model.eval()(torch.zeros(1, 3, side, side, device=weight.device, dtype=weight.dtype))
    model.train(training)
    for hook in hooks:
        hook.remove()
    return total
