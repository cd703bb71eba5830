"""The loss of bilateral branches as a pure function; mixup's is the same with its own share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bilateral_loss(logits: Tensor, labels_uniform: Tensor, labels_reversed: Tensor, alpha: Tensor | float) -> Tensor:
    """Eq. 3: alpha CE(z, y_c) + (1 - alpha) CE(z, y_r) of one mixed logit z [n, c], batch means; labels [n] each.

    That is cross-entropy with the soft label alpha y_c + (1 - alpha) y_r, and not a loss a branch.
    """
    conventional = F.cross_entropy(logits, labels_uniform)
    rebalancing = F.cross_entropy(logits, labels_reversed)
    return alpha * conventional + (1 - alpha) * rebalancing
