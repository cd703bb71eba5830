"""CUDA graphs for runs that share a device. Each run has a thread, with its own stream and memory pool.

The environment variable REPRO_CAPTURE chooses how training steps are captured:
- new (the default) neither waits for the device nor disturbs other threads;
- torch uses `torch.cuda.graph`;
- off captures nothing, and every step is called from Python.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch

from common.errors import InputError
from common.loader import DeviceImages, Images

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Records the device work of a function without executing it, and returns a function that replays the record.

The returned function keeps the recorded function alive, and with it the memory that the record reads and writes.
"""
WAYS = ("new", "torch", "off")
BURST = 8
"""Number of replays between two checks of how far the device has come."""
TRIES_AGAIN = 3
"""How often a capture is tried again after something outside has broken it."""

# CUDA reads this variable when it starts, which is later than the import of torch. With CUDA's default of 8 queues,
# streams would wait for each other.
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")

CAPTURING = threading.Lock()
"""Allows one capture or first step at a time in a process, while other threads go on replaying."""
_broken: list[torch.cuda.CUDAGraph] = []
"""Graphs whose capture failed. They are kept, since some versions of the pinned-memory allocator still query them."""


class _ThreadState(threading.local):
    """State that each thread has to itself: whether steps run without capture, its streams, and its memory pools."""

    def __init__(self) -> None:
        self.eager = False
        self.streams: dict[bool, torch.cuda.Stream] = {}
        self.pools: dict[int, _Pool] = {}


_thread = _ThreadState()


def capture_mode() -> str:
    """Return how REPRO_CAPTURE says steps are captured on CUDA. Raises InputError on a value outside `WAYS`."""
    chosen = os.environ.get("REPRO_CAPTURE") or WAYS[0]
    if chosen not in WAYS:
        raise InputError(f"REPRO_CAPTURE={chosen}: choose one of {', '.join(WAYS)}")
    return chosen


@contextmanager
def eagerly() -> Iterator[None]:
    """Make this thread call every step from Python inside the `with` block, on CUDA too."""
    before, _thread.eager = _thread.eager, True
    try:
        yield
    finally:
        _thread.eager = before


def capture_for(images: Images) -> Capture | None:
    """Return what captures steps on these images; None unless the images live on a CUDA device."""
    if _thread.eager or not (isinstance(images, DeviceImages) and images.images.is_cuda):
        return None
    return chosen_capture()


def chosen_capture() -> Capture | None:
    """Return the function that captures a step on CUDA, as REPRO_CAPTURE says; None if it says off."""
    return {"new": cuda_graph, "torch": torch_graph, "off": None}[capture_mode()]


class Pace:
    """Keeps a thread at most three bursts of replays ahead of the device, so that the launch queue does not fill up."""

    def __init__(self, device: torch.device) -> None:
        self.events = [torch.cuda.Event(blocking=True) for _ in range(2)] if device.type == "cuda" else []
        self.launched = 0

    def __call__(self) -> None:
        self.launched += 1
        if self.events and self.launched % BURST == 0:
            event = self.events[self.launched // BURST % 2]
            event.synchronize()  # recorded two bursts ago
            event.record()


def wait(device: torch.device) -> None:
    """Wait until this thread's CUDA stream has finished its work, without holding up other threads. No-op on a CPU.

    Call it before reading values from the device. Otherwise the copy to pageable memory would wait while it holds locks
    of the driver, and other threads would wait for these locks.
    """
    if device.type == "cuda":
        event = torch.cuda.Event(blocking=True)
        event.record()
        event.synchronize()


def own_stream(high: bool = False) -> torch.cuda.Stream:
    """Return this thread's CUDA stream, the same one at every call: torch has only 32, and shares them beyond that.

    high: return the thread's stream of high priority, whose kernels run before those of other streams.
    """
    if high not in _thread.streams:
        _thread.streams[high] = torch.cuda.Stream(priority=-1 if high else 0)
    return _thread.streams[high]


def cuda_graph(body: Callable[[], None]) -> Callable[[], None]:
    """Record the kernels of `body` without executing them, and return a function that launches them all.

    A capture that something outside breaks, such as another thread that waits for the whole device, is tried again.
    Raises RuntimeError if every try fails, or if the body does what a capture forbids.
    """
    stream = _capture_stream()
    with CAPTURING, _no_collection(), torch.cuda.stream(stream):
        tries = 1 + TRIES_AGAIN
        while True:
            try:
                return partial(_replay, _recorded(body, _pool(stream).handle), body)
            except RuntimeError as error:
                _thread.pools.pop(stream.cuda_stream, None)  # a failed capture spoils its pool
                tries -= 1
                if not tries or "previous error during capture" not in reason(error):
                    raise


def torch_graph(body: Callable[[], None]) -> Callable[[], None]:
    """Record like `cuda_graph`, but with `torch.cuda.graph`.

    It waits for the whole device, and gives each graph a memory pool of its own.
    """
    graph = torch.cuda.CUDAGraph()
    recording = torch.cuda.graph(graph, stream=_capture_stream(), capture_error_mode="thread_local")
    with CAPTURING, _no_collection():
        gc.collect()
        with recording:
            body()
    return partial(_replay, graph, body)


class _Pool:
    """A memory pool for the graphs of one thread and stream. They may share it because they never run at once.

    No graph passes data to another through the pool. The allocator releases a pool with its last graph, so the pool
    holds a tiny graph of its own.
    """

    def __init__(self) -> None:
        self.handle = torch.cuda.graph_pool_handle()
        self.anchor = _recorded(_little, self.handle)


def _little() -> None:
    torch.zeros(1, device="cuda")


def _pool(stream: torch.cuda.Stream) -> _Pool:
    """Return the memory pool of this thread and stream."""
    if stream.cuda_stream not in _thread.pools:
        _thread.pools[stream.cuda_stream] = _Pool()
    return _thread.pools[stream.cuda_stream]


def _capture_stream() -> torch.cuda.Stream:
    """Return the current stream, or the thread's own one in place of the default stream, where CUDA cannot capture."""
    current = torch.cuda.current_stream()
    return own_stream() if current == torch.cuda.default_stream() else current


def _recorded(body: Callable[[], None], pool: Any) -> torch.cuda.CUDAGraph:
    """Capture the kernels of `body`, with their memory in `pool`.

    A failure leaves the stream and the allocator as they were, and raises the error that caused it.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        graph.capture_begin(pool, capture_error_mode="thread_local")
        body()
        graph.capture_end()
    except BaseException:
        _unwind(graph, pool)
        raise
    return graph


def _unwind(graph: torch.cuda.CUDAGraph, pool: Any) -> None:
    """End a failed capture. Otherwise the allocator of torch before 2.12 goes on recording, for the whole process."""
    _broken.append(graph)
    with suppress(RuntimeError):  # it says that the capture is broken
        graph.capture_end()
    with suppress(RuntimeError):  # it says that nothing is being recorded, where torch has ended the recording itself
        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
        torch._C._cuda_releasePool(torch.cuda.current_device(), pool)
    graph.reset()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Suspend garbage collection: destroying another graph during a capture would break the capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _replay(graph: torch.cuda.CUDAGraph, body: Callable[[], None]) -> None:
    graph.replay()


def reason(error: BaseException) -> str:
    """Return the first line of the original error, since ending a failed capture raises another one after it."""
    while error.__context__:
        error = error.__context__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
