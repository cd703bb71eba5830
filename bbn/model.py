"""The bilateral network: a shared trunk, one residual block per branch, and one classifier (Sec. 4.1 and 4.2)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from common.heads import LinearHead
from common.resnet import backbone, parts, pool
from common.training import Device

SECOND = 2**31
"""Added to a Run's seed to initialise a second network of the same kind. Torch uses 32 bits of a seed."""


def cut(body: nn.Module) -> tuple[nn.Sequential, nn.Module, int]:
    """Return a ResNet without its last residual block, that block, and the width of the block's output.

    Neither part pools. Raises ValueError if `body` is no ResNet of `common.resnet`.
    """
    stem, (*stages, last) = parts(body)
    return nn.Sequential(*stem, *stages, last[:-1]), last[-1], body.out_features  # type: ignore[return-value]


def two_branches(network: str, seed: int | None = None) -> tuple[nn.Sequential, nn.Module, nn.Module, int]:
    """Return the trunk, the conventional block, the re-balancing block and their width, for a backbone's name.

    The two blocks are initialised differently. seed: as in `backbone`, which raises ValueError on an unknown name.
    """
    trunk, cb_block, width = cut(backbone(network, seed=seed))
    _, rb_block, _ = cut(backbone(network, seed=None if seed is None else seed + SECOND))
    return trunk, cb_block, rb_block, width


class BilateralNet(nn.Module):
    """Maps images to logits [n, c]. Trunk and blocks run under the autocast of `device`, the classifier in fp32.

    Training takes two batches, [b, 3, h, w] each, and alpha (Eq. 1). Testing takes one batch, which both branches see.
    Raises ValueError on one batch in training mode, or on two batches without alpha.
    """

    def __init__(
        self,
        network: str,
        num_classes: int,
        device: Device | None = None,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        concatenated: bool = False,
    ) -> None:
        super().__init__()
        self.trunk, self.cb_block, self.rb_block, self.width = two_branches(network, seed)
        self.classifier = LinearHead(2 * self.width, num_classes, generator)  # [W_c, W_r], with one bias for both
        self.device, self.concatenated = device, concatenated

    @property
    def head(self) -> LinearHead:
        """The classifier, under the name that `common.heads.Net` gives to it."""
        return self.classifier

    def _autocast(self) -> AbstractContextManager:
        return self.device.autocast() if self.device else nullcontext()

    def features(self, images: Tensor) -> Tensor:
        """Return both branches' features of the same images, concatenated: fp32 [n, 2d]."""
        with self._autocast():
            maps = self.trunk(images)
            return torch.cat([pool(self.cb_block(maps)), pool(self.rb_block(maps))], dim=1)

    def branch_features(self, x_uniform: Tensor, x_reversed: Tensor) -> tuple[Tensor, Tensor]:
        """Return f_c of the first batch and f_r of the second, fp32 [b, d] each.

        Unless `concatenated` is set, the trunk sees one batch after the other. So its BatchNorm updates twice, with the
        reversed batch last.
        """
        with self._autocast():
            if self.concatenated:
                maps, reversed_maps = self.trunk(torch.cat([x_uniform, x_reversed])).split(len(x_uniform))
            else:
                maps, reversed_maps = self.trunk(x_uniform), self.trunk(x_reversed)
            return pool(self.cb_block(maps)), pool(self.rb_block(reversed_maps))

    def forward(
        self, x_uniform: Tensor, x_reversed: Tensor | None = None, alpha: Tensor | float | None = None
    ) -> Tensor:
        """Return the logits of mixed batches, or of one batch in testing."""
        if x_reversed is None:
            if self.training:
                raise ValueError("training takes two batches and an alpha; call eval() first to test one batch")
            return self.classifier(self.features(x_uniform))  # equals the training formula at alpha = 0.5 (Sec. 4.3)
        if alpha is None:
            raise ValueError("two batches need an alpha to mix them with")
        return self.classifier(mix(*self.branch_features(x_uniform, x_reversed), alpha))


def mix(conventional: Tensor, rebalancing: Tensor, alpha: Tensor | float) -> Tensor:
    """Return 2 [alpha f_c, (1 - alpha) f_r]: features [n, d] each -> [n, 2d].

    The classifier then computes z = 2 alpha W_c f_c + 2 (1 - alpha) W_r f_r + b. The factor 2 is in the official code
    but not in Eq. 1. With it, alpha = 0.5 is the plain concatenation that testing uses.
    """
    return 2 * torch.cat([alpha * conventional, (1 - alpha) * rebalancing], dim=1)


def BBNResNet32(num_classes: int) -> BilateralNet:
    """Return BBN-ResNet-32 for 32x32 images. It has 538,778 parameters with 10 classes, and 550,388 with 100."""
    return BilateralNet("resnet32-pad", num_classes)


class Branch(nn.Module):
    """A backbone of the trunk and one branch's block: [n, 3, h, w] -> [n, d]."""

    def __init__(self, network: str) -> None:
        super().__init__()
        self.trunk, self.block, self.out_features = cut(backbone(network, seed=0))

    def forward(self, images: Tensor) -> Tensor:
        return pool(self.block(self.trunk(images)))


class Unit(nn.Module):
    """Scales features to unit length: [n, d] -> fp32 [n, d]."""

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.normalize(features.float(), dim=1)
