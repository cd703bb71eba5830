"""Holds what the parity tests share: the stored arrays, and a table's row that compares one formula with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parent / "arrays"
FLOAT32 = {"rtol": 1e-4, "atol": 1e-5}
"""Tolerances for functions that compute in fp32 whatever they are given. All others have float64's tolerances."""


def arrays(name: str) -> dict[str, Any]:
    """Return all arrays of the files that begin with `name`, as tensors. Those of a float type become float64."""
    found: dict[str, Any] = {}
    for file in sorted(FOLDER.glob(f"{name}*.npz")):
        with np.load(file, allow_pickle=False) as stored:
            found |= {k: torch.from_numpy(v) for k, v in stored.items()}
    assert found, f"no arrays of {name} in {FOLDER}"
    return {k: v.double() if v.is_floating_point() else v for k, v in found.items()}


def same(ours: Any, theirs: Any, what: str, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    """Fail, with `what` in the message, if ours differs from theirs. Whole numbers and masks must be equal."""
    ours, theirs = (x if isinstance(x, Tensor) else torch.from_numpy(np.asarray(x)) for x in (ours, theirs))
    if not theirs.is_floating_point():
        rtol = atol = 0.0
    torch.testing.assert_close(
        ours.detach().double(), theirs.double(), rtol=rtol, atol=atol, msg=lambda text: f"{what}\n{text}"
    )


@dataclass(frozen=True)
class Case:
    """A row of a table: ours(*inputs) must equal `value`, and its derivatives by the inputs must equal `gradients`.

    Inputs, value and gradients are names of stored arrays. A gradient belongs to the input in the same place.
    """

    what: str
    ours: Callable[..., Any]
    value: str
    inputs: Sequence[str] = ()
    gradients: Sequence[str] = ()
    tolerances: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.what

    def check(self, stored: dict[str, Any], source: str) -> None:
        """Compare with the stored arrays. `source` says in messages where the expected numbers come from."""
        inputs = [stored[name].clone() for name in self.inputs]
        leaves = [x.requires_grad_() for x, _ in zip(inputs, self.gradients, strict=False)]
        found = self.ours(*inputs)
        words = f"{self.what}: ours differs from {source}, array"
        same(found, stored[self.value], f"{words} {self.value}", **self.tolerances)
        for name, gradient in zip(self.gradients, torch.autograd.grad(found, leaves) if leaves else (), strict=True):
            same(gradient, stored[name], f"{words} {name}", **self.tolerances)


def load_in_order(net: nn.Module, weights: Sequence[Tensor]) -> None:
    """Fill a network in float64 with tensors in the order of its own state. They do not include counts of batches."""
    names = [name for name in net.state_dict() if not name.endswith("num_batches_tracked")]
    net.double().load_state_dict(dict(zip(names, weights, strict=True)), strict=False)


def numbered(stored: dict[str, Any], prefix: str) -> list[Tensor]:
    """Return the arrays prefix000, prefix001 and so on."""
    return [stored[name] for name in sorted(stored) if name.startswith(prefix) and name[len(prefix) :].isdigit()]
