"""What a CUDA graph does, on a CPU: kernels are recorded once with the memory they read and write, and run again there.

Whatever a step takes from Python (a number that changes, a branch, a shape) is frozen at recording, as in a graph, and
reading a value back is refused, as CUDA refuses it. So a step that ends with other weights when it is replayed than
when it is called from Python would do so on a GPU too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable, tuple, dict, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in READS:
            raise RuntimeError("operation not permitted when stream is capturing")
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result


def record(body: Callable[[], None]) -> Callable[[], None]:
    """A `common.graphs.Capture`. Recording runs the body, so the first replay has nothing left to do."""
    recorder, fresh = _Recorder(), [True]
    with recorder:
        body()

    @torch.no_grad()
    def replay() -> None:
        if fresh:
            fresh.clear()
            return
        for func, args, kwargs, kept in recorder.calls:
            for old, new in zip(tree_leaves(kept), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.detach().copy_(new)

    return replay
