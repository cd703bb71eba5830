"""One training step after another: called from Python, or on CUDA captured once and replayed as a graph.

A small network's step is hundreds of kernels of a few microseconds, fewer than Python takes to launch them. A CUDA
graph launches them all at once, from the cutting of the batch to the optimiser. Nothing falls back silently: a step
that cannot be captured ends the run, and `Counts` say how many steps went which way.
"""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from common.errors import NotCaptured
from common.loader import DeviceImages, Images

Step = Callable[[Tensor, Tensor], None]
"""(images, labels) -> one update of the weights."""
Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Records what a function does on the device, without doing it, and returns what does it again.

What is returned keeps the function alive, and with it the memory that the record reads and writes.
"""

_capturing = threading.Lock()
"""One capture or first step at a time in a process; other threads go on replaying."""
_own = threading.local()


class Steps(Protocol):
    """The steps of an epoch, each to be called once, in order."""

    counts: Counter[str]
    """Steps taken by path: "eager", "graph"; and "captured" graphs."""

    def epoch(self, order: Tensor, batch: int, generator: torch.Generator) -> Iterator[Callable[[], None]]: ...

    def close(self) -> None:
        """Give back what the steps hold on the device."""


@contextmanager
def eagerly() -> Iterator[None]:
    """Call the steps of this thread from Python, on every device."""
    _own.eager = True
    try:
        yield
    finally:
        _own.eager = False


def capture_for(images: Images) -> Capture | None:
    """How steps on these images are captured: as CUDA graphs where the images live on a CUDA device, else not."""
    if getattr(_own, "eager", False):
        return None
    return cuda_graph if isinstance(images, DeviceImages) and images.images.is_cuda else None


def make_steps(images: Images, step: Step, capture: Capture | None) -> Steps:
    """Steps that are captured where `capture` says how, else called from Python."""
    if capture:
        assert isinstance(images, DeviceImages)
        return GraphSteps(images, step, capture)
    return EagerSteps(images, step)


class EagerSteps:
    """Every step is called from Python: on a CPU, and where images are read from files."""

    def __init__(self, images: Images, step: Step) -> None:
        self.images, self.step, self.counts = images, step, Counter[str]()

    def epoch(self, order: Tensor, batch: int, generator: torch.Generator) -> Iterator[Callable[[], None]]:
        for images, labels in self.images.epoch(order, batch, generator):
            self.counts["eager"] += 1
            yield partial(self.step, images, labels)

    def close(self) -> None:
        """Nothing to give back."""


class GraphSteps:
    """Every step replays a graph; there is one for each batch size, which are two where the last batch is smaller.

    A graph reads the same memory at every replay. So an epoch's plan lies in one buffer, and a counter on the device,
    which the graph itself moves on, says which columns are the next batch. The first step of each size is called from
    Python: it does its work, and what libraries set up on first use is then in place.
    """

    def __init__(self, images: DeviceImages, step: Step, capture: Capture) -> None:
        self.images, self.step, self.capture, self.counts = images, step, capture, Counter[str]()
        self.plan = torch.empty(4, 0, dtype=torch.long, device=images.images.device)
        self.next = torch.zeros((), dtype=torch.long, device=self.plan.device)
        self.graphs: dict[int, Callable[[], None]] = {}
        self.warm: set[int] = set()

    def epoch(self, order: Tensor, batch: int, generator: torch.Generator) -> Iterator[Callable[[], None]]:
        plan = self.images.plan(order, generator)
        if plan.shape != self.plan.shape:
            self.plan = torch.empty_like(plan)
            self.close()  # its graphs read the old buffer
        self.plan.copy_(plan)
        self.next.zero_()
        for start in range(0, len(order), batch):
            yield partial(self._step, min(batch, len(order) - start))

    def _step(self, size: int) -> None:
        if size not in self.graphs and size in self.warm:
            try:
                self.graphs[size] = self.capture(partial(self._body, size))
            except RuntimeError as error:
                raise NotCaptured(f"the training step cannot be captured as a CUDA graph: {_reason(error)}") from error
            self.counts["captured"] += 1
        if size in self.graphs:
            self.counts["graph"] += 1
            self.graphs[size]()
        else:
            self.counts["eager"] += 1
            self.warm.add(size)
            with _capturing:  # what libraries do on first use would break another thread's capture
                self._body(size)

    def _body(self, size: int) -> None:
        columns = self.next + torch.arange(size, device=self.next.device)
        self.step(*self.images.take(self.plan[:, columns]))
        self.next.add_(size)

    def close(self) -> None:
        with _capturing:
            self.graphs.clear()  # they refer back to this object, and each holds its own pool of memory


def own_stream() -> torch.cuda.Stream:
    """The CUDA stream of this thread, always the same: torch has 32 to hand out and then shares them."""
    if not hasattr(_own, "stream"):
        _own.stream = torch.cuda.Stream()
    return _own.stream


def cuda_graph(body: Callable[[], None]) -> Callable[[], None]:
    """Record the kernels of `body`, which is not run, and return what launches them all."""
    graph = torch.cuda.CUDAGraph()
    recording = torch.cuda.graph(graph, stream=own_stream(), capture_error_mode="thread_local")
    with _capturing, _no_collection(), recording:
        body()
    return partial(_replay, graph, body)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collect garbage now and not meanwhile: another graph that is destroyed inside a capture ends it."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _replay(graph: torch.cuda.CUDAGraph, body: Callable[[], None]) -> None:
    graph.replay()


def _reason(error: BaseException) -> str:
    """The first line of the error that came first: ending a failed capture raises another."""
    while error.__context__:
        error = error.__context__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
