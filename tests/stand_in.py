"""Stands in for a GPU: tensors compute on the CPU, say they are on cuda:0, and refuse what CUDA refuses.

An operation on tensors of both devices is refused (in a captured step even with 0-dim host tensors), and so are a CPU
generator for a device tensor and numpy() of one. A captured step may not read a value back, have shapes that depend on
values, or copy between host and device. Only fp32 works, since autocast does not know these tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from recorder import INDEXING, NOT_PERMITTED, reads_back
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

aten, CUDA = torch.ops.aten, torch.device("cuda:0")
_capturing: list[bool] = []


class OnDevice(torch.Tensor):
    """For C++ this is a tensor on `meta`, for which autograd needs no driver. For Python it is on cuda:0."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl
    device, is_cuda, is_meta = (property(lambda self, v=v: v) for v in (CUDA, True, False))  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: torch.Tensor, requires_grad: bool = False) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            layout=inner.layout, device="meta", requires_grad=requires_grad,
        )  # fmt: skip
        made.inner = inner.detach()
        return made

    def __init__(self, *args: Any) -> None: ...

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def __deepcopy__(self, memo: dict) -> Any:
        if id(self) not in memo:
            memo[id(self)] = OnDevice(self.inner.clone(), self.requires_grad)
            memo[id(self)]._is_param = getattr(self, "_is_param", False)
        return memo[id(self)]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Device(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _refuse_in_capture() -> None:
    if _capturing:
        raise RuntimeError(NOT_PERMITTED)


def _run(func: Any, args: Any, kwargs: dict) -> Any:
    leaves = tree_leaves((args, kwargs))
    tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
    device, host = ([t for t in tensors if isinstance(t, OnDevice) == on] for on in (True, False))
    asked = kwargs.get("device")
    target = torch.device(asked).type if asked is not None else None
    there = target in ("cuda", "meta") or (target is None and bool(device))
    if device and reads_back(func, args):
        _refuse_in_capture()
    if func is aten.lift_fresh.default and not device:
        _refuse_in_capture()  # torch.tensor(...)
    if func in (aten._to_copy.default, aten.copy_.default):  # the two ways between host and device
        if func is aten.copy_.default:
            there = isinstance(args[0], OnDevice)
        if host and (device or there):
            _refuse_in_capture()
    elif func in INDEXING and isinstance(args[0], OnDevice) and not isinstance(args[-1], torch.Tensor):
        if host:
            _refuse_in_capture()  # allowed, at the price of a copy
    elif (device or there) and any(t.ndim or _capturing for t in host):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu in {func}")
    for generator in (x for x in leaves if isinstance(x, torch.Generator)):
        if (generator.device.type == "cuda") != there:
            raise RuntimeError(
                f"Expected a 'cuda' device type for generator but found '{generator.device.type}' in {func}"
            )
    inner, words = tree_map(lambda x: x.inner if isinstance(x, OnDevice) else x, (args, kwargs))
    if asked is not None:
        words["device"] = torch.device("cpu")
    out = func(*inner, **words)
    if func is aten._to_copy.default and out is inner[0]:
        out = out.clone()
    if not there or func is aten._local_scalar_dense.default:
        return out
    out = tree_map(lambda x: OnDevice(x) if isinstance(x, torch.Tensor) else x, out)
    aliases = func._schema.is_mutable or any(r.alias_info is not None for r in func._schema.returns)
    return return_and_correct_aliasing(func, args, kwargs, out) if aliases else out


class _Event:
    """An event with nothing to wait for, since everything is done at once."""

    def __init__(self, blocking: bool = False) -> None:
        assert blocking  # else a core of the host spins

    def record(self) -> None: ...

    def synchronize(self) -> None: ...


def capture(body: Callable[[], None]) -> Callable[[], None]:
    """A `common.graphs.Capture` that checks. In contrast, `recorder.record` freezes."""

    def checked() -> None:
        _capturing.append(True)
        try:
            body()
        finally:
            _capturing.pop()

    checked()
    fresh = [True]
    return lambda: fresh.clear() if fresh else checked()


@contextmanager
def stand_in() -> Iterator[None]:
    """Let Job(..., device="cuda") train on the stand-in."""
    from common import graphs, training

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            training.Device, "torch", property(lambda self: CUDA if self.type == "cuda" else torch.device("cpu"))
        )
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        patch.setattr(torch.cuda, "get_device_name", lambda: "stand-in")
        patch.setattr(training, "has_bf16", lambda device: True)
        patch.setattr(torch.cuda, "Event", _Event)
        patch.setattr(graphs, "own_stream", lambda high=False: None)
        patch.setattr(graphs, "cuda_graph", capture)
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            with _Device():
                yield
        finally:
            torch._C._set_only_lift_cpu_tensors(False)
            torch.__future__.set_overwrite_module_params_on_conversion(before)
