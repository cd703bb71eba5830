"""BBN's loss as a pure function. Mixup uses the same loss, with its share in place of alpha."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bilateral_loss(logits: Tensor, labels_uniform: Tensor, labels_reversed: Tensor, alpha: Tensor | float) -> Tensor:
    """Return Eq. 3: alpha CE(z, y_c) + (1 - alpha) CE(z, y_r), for mixed logits z [n, c], averaged over the batch.

    labels_uniform (y_c) and labels_reversed (y_r) are [n]. The result is cross-entropy with the soft label
    alpha y_c + (1 - alpha) y_r. The branches have no losses of their own.
    """
    conventional = F.cross_entropy(logits, labels_uniform)
    rebalancing = F.cross_entropy(logits, labels_reversed)
    return alpha * conventional + (1 - alpha) * rebalancing
