"""Numbers that every step of an epoch needs anew, drawn before it where a captured step can find them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Draws:
    """A tensor of `shape` for each of `steps`, set before an epoch; the place moves on the device."""

    def __init__(self, steps: int, device: torch.device, shape: tuple[int, ...] = ()) -> None:
        self.values = torch.zeros(steps, *shape, device=device)
        self.place = torch.zeros(1, dtype=torch.long, device=device)

    def set(self, values: Any) -> None:
        """The numbers of the steps to come, [steps, *shape]: a tensor, an array or a list."""
        self.values.copy_(torch.as_tensor(values, dtype=torch.float32))
        self.place.zero_()

    def next(self) -> Tensor:
        """This step's numbers, of `shape`."""
        value = self.values.index_select(0, self.place)[0]
        self.place.add_(1)
        return value
