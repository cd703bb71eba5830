"""Does on a CPU what a CUDA graph does: records kernels once, with the memory they read and write, and replays them.

Everything that a step takes from Python (a number that changes, a branch, a shape) is frozen at recording, as in a
graph. Everything that CUDA refuses is refused: reading a value back, results whose size depends on values, tensors made
from Python's numbers. If replaying a step gives other weights here than calling it from Python, the same would happen
on a GPU. Streams, memory pools and the libraries' own state have no counterpart here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
READS_BACK = {
    *(aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.bincount.default),
    *(aten._unique2.default, aten.unique_dim.default, aten.unique_consecutive.default, aten.repeat_interleave.Tensor),
    aten.equal.default,
}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
NOT_PERMITTED = "operation not permitted when stream is capturing"


def reads_back(func: Any, args: tuple) -> bool:
    """Return whether an operation reads values from the device, for Python or to know the shape of its result."""
    masks = args[1] if func in INDEXING else ()
    return func in READS_BACK or any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in masks)


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable, tuple, dict, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        made = func is aten.lift_fresh.default  # torch.tensor(...): a copy from the host's pageable memory
        if made or reads_back(func, args):
            raise RuntimeError(NOT_PERMITTED)
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result


def _refuse(*arguments: object, **keywords: object) -> None:
    raise RuntimeError(NOT_PERMITTED)


def record(body: Callable[[], None]) -> Callable[[], None]:
    """A `common.graphs.Capture`. Recording runs the body, so the first replay has nothing left to do."""
    recorder, fresh = _Recorder(), [True]
    with pytest.MonkeyPatch.context() as patch, recorder:
        for name in ("tolist", "numpy", "__array__"):
            patch.setattr(torch.Tensor, name, _refuse)
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
