"""CUDA graphs for runs that share a device, each in a thread with a stream and a memory pool of its own.

REPRO_CAPTURE chooses how training steps are captured: new (the default), which neither waits for the device nor
disturbs other threads; torch, by `torch.cuda.graph`; or off, where every step is called from Python.
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
"""Records what a function does on the device, without doing it, and returns what does it again.

What is returned keeps the function alive, and with it the memory that the record reads and writes.
"""
WAYS = ("new", "torch", "off")
BURST = 8
"""Replays between two looks at how far the device has come."""
TRIES_AGAIN = 3
"""How often a capture that something else broke is made again."""

# CUDA reads this as it starts, which importing torch does not do. With its 8 queues streams would wait for each other.
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")

CAPTURING = threading.Lock()
"""One capture or first step at a time in a process; other threads go on replaying."""
_broken: list[torch.cuda.CUDAGraph] = []
"""Graphs whose capture failed. Some versions of the allocator for pinned memory still ask them, so they must stay."""


class _Own(threading.local):
    """What every thread has to itself."""

    def __init__(self) -> None:
        self.eager = False
        self.streams: dict[bool, torch.cuda.Stream] = {}
        self.pools: dict[int, _Pool] = {}


_own = _Own()


def way() -> str:
    """How steps are captured on CUDA: what REPRO_CAPTURE says. Raises InputError where it is none of `WAYS`."""
    chosen = os.environ.get("REPRO_CAPTURE") or WAYS[0]
    if chosen not in WAYS:
        raise InputError(f"REPRO_CAPTURE={chosen}: choose one of {', '.join(WAYS)}")
    return chosen


@contextmanager
def eagerly() -> Iterator[None]:
    """Inside, this thread calls every step from Python, also on CUDA."""
    before, _own.eager = _own.eager, True
    try:
        yield
    finally:
        _own.eager = before


def capture_for(images: Images) -> Capture | None:
    """How steps on these images are captured: as CUDA graphs where the images live on a CUDA device, else not."""
    if _own.eager or not (isinstance(images, DeviceImages) and images.images.is_cuda):
        return None
    return chosen_capture()


def chosen_capture() -> Capture | None:
    """What captures a step on CUDA, as REPRO_CAPTURE says; None where steps are called from Python."""
    return {"new": cuda_graph, "torch": torch_graph, "off": None}[way()]


class Pace:
    """Keeps a thread at most three bursts of replays ahead of the device, where more would fill the launch queue."""

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
    """Wait until this thread's stream is done, if it is a CUDA stream, without holding up other threads.

    To be called before values are read: a copy to pageable memory would hold locks of the driver for as long.
    """
    if device.type == "cuda":
        event = torch.cuda.Event(blocking=True)
        event.record()
        event.synchronize()


def own_stream(high: bool = False) -> torch.cuda.Stream:
    """The CUDA stream of this thread, always the same: torch has 32 to hand out and then shares them.

    high: the one whose kernels go before those of other threads' streams.
    """
    if high not in _own.streams:
        _own.streams[high] = torch.cuda.Stream(priority=-1 if high else 0)
    return _own.streams[high]


def cuda_graph(body: Callable[[], None]) -> Callable[[], None]:
    """Record the kernels of `body`, which is not run, and return what launches them all.

    A capture that something outside has broken, such as another thread that waits for the whole device, is made again.
    Raises RuntimeError where that does not help, or the body does what a capture forbids.
    """
    stream = _capture_stream()
    with CAPTURING, _no_collection(), torch.cuda.stream(stream):
        tries = 1 + TRIES_AGAIN
        while True:
            try:
                return partial(_replay, _recorded(body, _pool(stream).handle), body)
            except RuntimeError as error:
                _own.pools.pop(stream.cuda_stream, None)  # what the failed capture left in it is lost
                tries -= 1
                if not tries or "previous error during capture" not in reason(error):
                    raise


def torch_graph(body: Callable[[], None]) -> Callable[[], None]:
    """The same by `torch.cuda.graph`, which waits for the whole device and gives each graph a pool of its own."""
    graph = torch.cuda.CUDAGraph()
    recording = torch.cuda.graph(graph, stream=_capture_stream(), capture_error_mode="thread_local")
    with CAPTURING, _no_collection():
        gc.collect()
        with recording:
            body()
    return partial(_replay, graph, body)


class _Pool:
    """Memory shared by the graphs of one thread and stream, which never run at the same time.

    Nothing is handed from one graph to another in it. The allocator gives a pool up when its last graph is gone, so a
    small one of its own stays.
    """

    def __init__(self) -> None:
        self.handle = torch.cuda.graph_pool_handle()
        self.anchor = _recorded(_little, self.handle)


def _little() -> None:
    torch.zeros(1, device="cuda")


def _pool(stream: torch.cuda.Stream) -> _Pool:
    """The pool of this thread and stream."""
    if stream.cuda_stream not in _own.pools:
        _own.pools[stream.cuda_stream] = _Pool()
    return _own.pools[stream.cuda_stream]


def _capture_stream() -> torch.cuda.Stream:
    """The current stream; CUDA does not capture on the default one."""
    current = torch.cuda.current_stream()
    return own_stream() if current == torch.cuda.default_stream() else current


def _recorded(body: Callable[[], None], pool: Any) -> torch.cuda.CUDAGraph:
    """The kernels of `body`, with their memory in `pool`. A failure leaves the stream and the allocator as before."""
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
    """End a capture that failed. Before torch 2.12 the allocator would go on recording, for the whole process."""
    _broken.append(graph)
    with suppress(RuntimeError):  # that the capture is broken
        graph.capture_end()
    with suppress(RuntimeError):  # that nothing is recorded any more: torch has ended it itself
        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
        torch._C._cuda_releasePool(torch.cuda.current_device(), pool)
    graph.reset()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collect no garbage meanwhile: another graph that is destroyed inside a capture ends it."""
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
    """The first line of the error that came first: ending a failed capture raises another."""
    while error.__context__:
        error = error.__context__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
