"""Find the convolutions and BatchNorms of a residual network that share channels, for masks, Eq. 10 and pruning.

Channels fall into groups. Each block has a group of its own between its convolutions. Outputs that are added together
share a group, the residual stream of a stage. The stem, the blocks and the projection of a stage write to this stream,
so they lose a channel of it together or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from common.resnet import BasicBlock, CifarResNet, PreActBlock, PreActResNet

IMAGE = -1
"""The group that the first convolution reads: the colour channels, which have no mask."""


@dataclass(frozen=True)
class Wiring:
    """The groups of channels, in the order of the data flow, and the names of the modules that read and write them."""

    channels: tuple[int, ...]
    """The number of channels in every group."""
    convs: tuple[tuple[str, int, int], ...]
    """(convolution, group it reads, group it writes)"""
    norms: tuple[tuple[str, int], ...]
    """(BatchNorm, its group)"""
    features: int
    """The group of the pooled features."""

    @property
    def inner(self) -> set[int]:
        """The groups between a block's convolutions. The others are residual streams."""
        return {writes for name, _, writes in self.convs if name.endswith(".conv1")}


def wiring(body: nn.Module) -> Wiring:
    """Return the groups of a CifarResNet or PreActResNet with projection shortcuts, pruned or not.

    Raises ValueError on other networks.
    """
    if not isinstance(body, (CifarResNet, PreActResNet)):
        raise ValueError(f"masks need a CifarResNet or PreActResNet, not {type(body).__name__}")
    channels = [body.conv.weight.shape[0]]
    convs: list[tuple[str, int, int]] = [("conv", IMAGE, 0)]
    norms = [("bn", 0)] if isinstance(body, CifarResNet) else []
    stream = 0
    for name, block in body.named_modules():
        if not isinstance(block, (BasicBlock, PreActBlock)):
            continue
        channels.append(block.conv1.weight.shape[0])
        inner, after, projection = len(channels) - 1, stream, _projection(block)
        if projection:
            channels.append(block.conv2.weight.shape[0])
            after = len(channels) - 1
        convs += [(f"{name}.conv1", stream, inner), (f"{name}.conv2", inner, after)]
        if isinstance(block, PreActBlock):
            norms += [(f"{name}.bn1", stream), (f"{name}.bn2", inner), (f"{name}.bn3", after)]
        else:
            norms += [(f"{name}.bn1", inner), (f"{name}.bn2", after)]
            norms += [(f"{name}.shortcut.1", after)] if projection else []
        convs += [(f"{name}.{projection}", stream, after)] if projection else []
        stream = after
    return Wiring(tuple(channels), tuple(convs), tuple(norms), stream)


def _projection(block: BasicBlock | PreActBlock) -> str:
    """Return the name of the block's 1x1 convolution, or "" where the shortcut is the identity."""
    if isinstance(block, PreActBlock):
        return "shortcut" if block.shortcut is not None else ""
    if isinstance(block.shortcut, nn.Identity):
        return ""
    if isinstance(block.shortcut, nn.Sequential):
        return "shortcut.0"
    raise ValueError("masks need projection shortcuts: channels that are padded or pooled cannot be pruned")


def narrow(body: nn.Module, kept: list[Tensor]) -> None:
    """Cut the network down, in place, to the channels `kept` [k_g] of each group, where they are written and read."""
    plan = wiring(body)
    for name, reads, writes in plan.convs:
        conv = body.get_submodule(name)
        weight = conv.weight.detach()[kept[writes]]  # type: ignore[operator]
        weight = weight if reads == IMAGE else weight[:, kept[reads]]
        # The layout is that of a loaded network, so that the same kernels run and give the same bits.
        conv.weight = nn.Parameter(weight.contiguous())
    for name, group in plan.norms:
        norm = body.get_submodule(name)
        norm.weight, norm.bias = (nn.Parameter(p.detach()[kept[group]].clone()) for p in (norm.weight, norm.bias))  # type: ignore[operator]
        norm.running_mean, norm.running_var = (b[kept[group]].clone() for b in (norm.running_mean, norm.running_var))  # type: ignore[index]
    _tell_sizes(body)


def shape_like(body: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give every parameter and buffer of the network the shape it has in `state`, but not the values."""
    for name, tensor in [*body.named_parameters(), *body.named_buffers()]:
        if tensor.shape != state[name].shape:
            tensor.data = torch.zeros(state[name].shape, dtype=tensor.dtype, device=tensor.device)
    _tell_sizes(body)


def _tell_sizes(body: nn.Module) -> None:
    """Set the numbers of channels that modules hold as attributes to the shapes of their weights."""
    plan = wiring(body)
    for name, _, _ in plan.convs:
        conv: Any = body.get_submodule(name)
        conv.out_channels, conv.in_channels = conv.weight.shape[:2]
    for name, group in plan.norms:
        body.get_submodule(name).num_features = plan.channels[group]  # type: ignore[assignment]
    body.out_features = plan.channels[plan.features]  # type: ignore[assignment]
