"""One training step after another: called from Python, or on CUDA captured once and replayed as a graph.

A small network's step is hundreds of kernels of a few microseconds, fewer than Python takes to launch them. A CUDA
graph launches them all at once, from the cutting of the batch to the optimiser. A step that cannot be captured raises
NotCaptured. `Steps.counts` say how many steps went which way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.errors import NotCaptured
from common.graphs import CAPTURING, Capture, Pace, reason
from common.loader import DeviceImages, Images, Share, whole

Step = Callable[[Tensor, Tensor, Tensor], None]
"""(images, labels, where they lie in the training set) -> one update of the weights."""


class Steps(Protocol):
    """The steps of an epoch, each to be called once, in order."""

    counts: Counter[str]
    """Steps taken by path: "eager", "graph"; and "captured" graphs."""

    def epoch(self, order: Tensor, batch: int, generator: torch.Generator) -> Iterator[Callable[[], None]]: ...

    def close(self) -> None:
        """Give back what the steps hold on the device."""


def make_steps(
    images: Images, step: Step, capture: Capture | None, net: nn.Module | None = None, share: Share = whole
) -> Steps:
    """Steps that are captured where `capture` says how, else called from Python.

    net: whose BatchNorm layers count their batches once an epoch instead of once a replay. share: what of every batch
    a step gets; a captured one gets the whole.
    """
    if capture:
        assert isinstance(images, DeviceImages)
        return GraphSteps(images, step, capture, net)
    return EagerSteps(images, step, share)


class EagerSteps:
    """Every step is called from Python: on a CPU, and where images are read from files."""

    def __init__(self, images: Images, step: Step, share: Share = whole) -> None:
        self.images, self.step, self.share, self.counts = images, step, share, Counter[str]()

    def epoch(self, order: Tensor, batch: int, generator: torch.Generator) -> Iterator[Callable[[], None]]:
        batches = self.images.epoch(order, batch, generator, self.share)
        for (images, labels), indices in zip(batches, map(self.share, order.split(batch)), strict=True):
            self.counts["eager"] += 1
            yield partial(self.step, images, labels, indices)

    def close(self) -> None:
        """End the worker processes of images that are read from files."""
        self.images.close()


class GraphSteps:
    """Every step replays a graph; there is one for each batch size, which are two where the last batch is smaller.

    A graph reads the same memory at every replay. So an epoch's plan lies in one buffer, and a counter on the device,
    which the graph itself moves on, says which columns are the next batch. The first step of each size is called from
    Python: it does its work, and what libraries set up on first use is then in place.
    """

    def __init__(self, images: DeviceImages, step: Step, capture: Capture, net: nn.Module | None = None) -> None:
        self.images, self.step, self.capture, self.counts = images, step, capture, Counter[str]()
        self.plan = torch.empty(4, 0, dtype=torch.long, device=images.images.device)
        self.next = torch.zeros((), dtype=torch.long, device=self.plan.device)
        self.pace = Pace(self.plan.device)
        self.graphs: dict[int, Callable[[], None]] = {}
        self.warm: set[int] = set()
        self.norms = [] if net is None else [m for m in net.modules() if isinstance(m, _BatchNorm) and _counts(m)]
        self.calls: dict[int, Counter[_BatchNorm]] = {}
        """Training batches that one replay shows to each BatchNorm layer."""

    def epoch(self, order: Tensor, batch: int, generator: torch.Generator) -> Iterator[Callable[[], None]]:
        plan = self.images.plan(order, generator)
        if plan.shape != self.plan.shape:
            self.plan = torch.empty_like(plan)
            self.close()  # its graphs read the old buffer
        self.plan.copy_(plan)
        self.next.zero_()
        replays = Counter[int]()
        for start in range(0, len(order), batch):
            yield partial(self._step, min(batch, len(order) - start), replays)
        for size, times in replays.items():
            for norm, calls in self.calls[size].items():
                if (count := norm.num_batches_tracked) is not None:
                    count.add_(calls * times)

    def _step(self, size: int, replays: Counter[int]) -> None:
        if size not in self.graphs and size in self.warm:
            self.graphs[size] = self._captured(size)
        if size in self.graphs:
            self.counts["graph"] += 1
            replays[size] += 1
            self.graphs[size]()
            self.pace()
        else:
            self.counts["eager"] += 1
            self.warm.add(size)
            with CAPTURING:  # what libraries do on first use would break another thread's capture
                self._body(size)

    def _captured(self, size: int) -> Callable[[], None]:
        try:
            with _uncounted(self.norms) as calls:
                graph = self.capture(partial(self._body, size, calls))
        except torch.OutOfMemoryError:  # no fault of the step
            raise
        except RuntimeError as error:
            raise NotCaptured(f"the training step cannot be captured as a CUDA graph: {reason(error)}") from error
        self.counts["captured"] += 1
        self.calls[size] = calls
        return graph

    def _body(self, size: int, calls: Counter[_BatchNorm] | None = None) -> None:
        if calls is not None:
            calls.clear()  # of an attempt before
        columns = self.next + torch.arange(size, device=self.next.device)
        plan = self.plan[:, columns]
        self.step(*self.images.take(plan), plan[0])
        self.next.add_(size)

    def close(self) -> None:
        with CAPTURING:
            self.graphs.clear()  # they refer back to this object, and hold memory


def _counts(norm: _BatchNorm) -> bool:
    """Whether a layer counts its training batches without using the number itself."""
    return norm.num_batches_tracked is not None and norm.momentum is not None


@contextmanager
def _uncounted(norms: Iterable[_BatchNorm]) -> Iterator[Counter[_BatchNorm]]:
    """Inside, BatchNorm layers leave their `num_batches_tracked` alone; yields by how much each would have risen.

    In a graph each count would be a kernel of its own, and no step reads it.
    """
    calls = Counter[_BatchNorm]()

    def count(norm: _BatchNorm, inputs: object) -> None:
        calls[norm] += norm.training

    kept = {norm: norm.num_batches_tracked for norm in norms}
    hooks = [norm.register_forward_pre_hook(count) for norm in kept]
    try:
        for norm in kept:
            norm.num_batches_tracked = None
        yield calls
    finally:
        for norm, number in kept.items():
            norm.num_batches_tracked = number
        for hook in hooks:
            hook.remove()


class Draws:
    """Numbers that every step of an epoch needs anew, drawn before it where a captured step can find them.

    A tensor of `shape` for each of `steps`; the place moves on the device.
    """

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
