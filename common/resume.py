"""What a checkpoint holds of a learner, and how a resume gives it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from common.checkpoints import Saved
from common.training import momentum

if TYPE_CHECKING:
    from common.incremental import Learner


def tensors(learner: Learner, optimiser: torch.optim.SGD | None = None) -> dict[str, Tensor]:
    """All that a resume needs: weights, exemplars with what is kept beside them, the learner's own state.

    Inside a phase the optimiser's momentum too, but no weights that the phase leaves as they are.
    """
    left, memory = learner.frozen() if optimiser else (), learner.context.memory
    found = {f"net/{k}": v for k, v in learner.net.state_dict().items() if not k.startswith(left)}
    found |= {f"memory/{label}": kept for label, kept in memory.indices.items()}
    found |= {f"beside/{name}/{label}": rows for name, of in memory.tensors.items() for label, rows in of.items()}
    found |= {f"state/{name}": value for name, value in learner.state().items()}
    if optimiser:
        found |= {f"momentum/{k}": v for k, v in momentum(optimiser).items()}
    return found


def load(learner: Learner, saved: Saved) -> None:
    """Give back the weights and the exemplars."""
    learner.net.load_state_dict(saved.part("net/"))
    device, memory = learner.context.device.torch, learner.context.memory
    kept = {int(label): indices.to(device) for label, indices in saved.part("memory/").items()}
    memory.indices, memory.tensors = dict(sorted(kept.items())), {}
    for key, rows in saved.part("beside/").items():
        name, _, label = key.rpartition("/")
        memory.attach(int(label), {name: rows.to(device)})


def load_own(learner: Learner, saved: Saved) -> None:
    """Give back the learner's own state, where it had any."""
    if state := saved.part("state/"):
        learner.load_state({name: value.to(learner.context.device.torch) for name, value in state.items()})
