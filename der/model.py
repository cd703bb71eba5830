"""Put channel masks (Sec. 3.3) on any residual network that `wiring` knows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from common.resnet import BasicBlock, backbone
from common.training import seeded
from der.losses import weight_share
from der.masks import mask, survives
from der.methods import Init
from der.wiring import IMAGE, Wiring, wiring

ZERO_LAST = ("resnet18", "resnet18-pool", "resnet32")
"""Networks whose blocks may start as their shortcuts, with a last gamma of 0. In the official ResNet-18 they do."""

OPEN = 1e9
"""The logit of a channel without a mask: sigmoid(s e) is 1 and its gradient is 0, at every s of Eq. 8."""


class MaskedResNet(nn.Module):
    """A residual network whose channels are multiplied by masks after every BatchNorm: [n, 3, h, w] -> [n, d].

    `e` is one tensor with the logits of all masks: a number for each channel of every group of `wiring`. Training
    passes soft masks, `soft(s)`, to every call. A call without masks uses binary ones. It then behaves like the pruned
    network, and `e` gets no gradient.
    """

    kernels: Tensor
    reads: Tensor
    writes: Tensor

    def __init__(self, body: nn.Module, e: Tensor) -> None:
        super().__init__()
        self.body, self.wiring = body, wiring(body)
        self.out_features: int = body.out_features  # type: ignore[assignment]
        if len(e) != sum(self.wiring.channels):
            raise ValueError(f"{len(e)} mask logits for {sum(self.wiring.channels)} channels")
        self.e = nn.Parameter(e)
        sizes = [body.get_submodule(name).weight[0, 0].numel() for name, _, _ in self.wiring.convs]  # type: ignore[index, operator, union-attr]
        reads, writes = ([c[i] for c in self.wiring.convs] for i in (1, 2))
        for name, values in (("kernels", sizes), ("reads", reads), ("writes", writes)):
            self.register_buffer(name, torch.tensor(values, device=e.device), persistent=False)
        self.weights = sum(body.get_submodule(name).weight.numel() for name, _, _ in self.wiring.convs)  # type: ignore[operator, union-attr, misc]
        """The number of weights in all convolutions."""

    def soft(self, s: float | Tensor, rate: float = 1.0) -> tuple[Tensor, ...]:
        """Return the soft masks [c_g] of every group at s. rate: as in `masks.mask`."""
        return mask(self.e, s, rate).split(self.wiring.channels)

    def kept_channels(self) -> list[Tensor]:
        """Return which channels pruning keeps, bool [c_g] for every group."""
        return [survives(e) for e in self.e.detach().split(self.wiring.channels)]

    def hard(self) -> tuple[Tensor, ...]:
        """Return the binary masks [c_g] of every group."""
        return tuple(k.to(self.e.dtype) for k in self.kept_channels())

    def forward(self, x: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
        if masks is None:
            masks = self.hard()
        # m * BatchNorm(x) is BatchNorm with m * gamma and m * beta, so masks need no pass over the images of their own.
        masked = {}
        for name, group in self.wiring.norms:
            norm = self.body.get_submodule(name)
            masked[f"{name}.weight"] = norm.weight * masks[group]  # type: ignore[operator]
            masked[f"{name}.bias"] = norm.bias * masks[group]  # type: ignore[operator]
        return functional_call(self.body, masked, (x,))

    def sparsity(self, masks: Sequence[Tensor]) -> Tensor:
        """Return Eq. 10: the share of convolution weights in use. Binary masks give the share that pruning keeps."""
        sums = torch.stack([m.sum() for m in masks])
        sums = torch.cat([sums, sums.new_full((1,), 3.0)])  # the image's three channels, at the index `IMAGE`
        return weight_share(self.kernels, sums[self.reads], sums[self.writes], self.weights)

    @torch.no_grad()
    def clamp(self, bound: float) -> None:
        """Clamp the logits to -bound..bound, where masks can still change (HAT). Logits that are `OPEN` stay so."""
        self.e.copy_(torch.where(self.e == OPEN, self.e, self.e.clamp(-bound, bound)))


assert IMAGE == -1, "MaskedResNet.reads counts on it"


def mask_logits(count: int, init: Init, generator: torch.Generator | None = None) -> Tensor:
    """Sample logits [count] as in HAT. normal: N(0, 1), which keeps half of the channels. uniform: U(0, 2), all."""
    if init == "normal":
        return torch.randn(count, generator=generator)
    return 2 * torch.rand(count, generator=generator)


def inner_only(e: Tensor, plan: Wiring) -> Tensor:
    """Return the logits [c] with `OPEN` for all channels of residual streams."""
    inner = [group in plan.inner for group in range(len(plan.channels))]
    free = torch.tensor(inner, device=e.device).repeat_interleave(torch.tensor(plan.channels, device=e.device))
    return e.masked_fill(~free, OPEN)


def masked(body: nn.Module, init: Init = "normal", generator: torch.Generator | None = None) -> MaskedResNet:
    """Put fresh masks on a network."""
    return MaskedResNet(body, mask_logits(sum(wiring(body).channels), init, generator))


def masked_resnet18(seed: int | None = None, init: Init = "normal") -> MaskedResNet:
    """Return the paper's extractor for 32x32 images, with masks: [n, 3, 32, 32] -> [n, 512]."""
    return _masked_named("resnet18", seed, init, zero_last=True)


def masked_resnet32(seed: int | None = None, init: Init = "normal") -> MaskedResNet:
    """Return the small extractor of the appendix, with masks: [n, 3, 32, 32] -> [n, 64]."""
    return _masked_named("resnet32", seed, init, zero_last=False)


def _masked_named(name: str, seed: int | None, init: Init, zero_last: bool) -> MaskedResNet:
    generator = None if seed is None else seeded(torch.device("cpu"), seed, "masks")
    return masked(extractor(name, seed, zero_last), init, generator)


def extractor(name: str, seed: int | None = None, zero_last: bool = True) -> nn.Module:
    """Return a fresh backbone by name. zero_last: in networks of `ZERO_LAST`, each block's last gamma starts at 0."""
    body = backbone(name, seed=seed)
    for block in body.modules() if zero_last and name in ZERO_LAST else ():
        if isinstance(block, BasicBlock):
            nn.init.zeros_(block.bn2.weight)
    return body
