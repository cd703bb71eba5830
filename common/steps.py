"""Runs the training steps of an epoch: called from Python, or on CUDA captured once and replayed as a graph.

A small network's step consists of hundreds of kernels. Each takes a few microseconds, which is less than Python needs
to launch it. A CUDA graph launches them all at once, from augmentation to the optimiser. A step that cannot be captured
raises NotCaptured. `Steps.counts` counts the steps that went each way.
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
from common.loader import DeviceImages, Images, Share, no_share

Step = Callable[[Tensor, Tensor, Tensor], None]
"""Updates the weights once: (images, labels, their training indices) -> None."""


class Steps(Protocol):
    """Makes the steps of an epoch. Each step must be called once, in order."""

    counts: Counter[str]
    """Counts of steps taken from Python ("eager") and by replay ("graph"), and of captured graphs ("captured")."""

    def epoch(self, order: Tensor, batch: int, generator: torch.Generator) -> Iterator[Callable[[], None]]:
        """Yield one function for each step of the epoch, which takes the step when called."""
        ...

    def close(self) -> None:
        """Release what the steps hold, such as memory on the device or worker processes."""


def make_steps(
    images: Images, step: Step, capture: Capture | None, net: nn.Module | None = None, share: Share = no_share
) -> Steps:
    """Return steps that `capture` captures, or steps that are called from Python if it is None.

    net: a network whose BatchNorm layers count their batches once an epoch instead of at every replay. share: selects
    the part of every batch that a step gets; a captured step always gets the whole batch.
    """
    if capture:
        assert isinstance(images, DeviceImages)
        return GraphSteps(images, step, capture, net)
    return EagerSteps(images, step, share)


class EagerSteps:
    """Steps that are all called from Python, because none is captured: on a CPU, or if images are read from files."""

    def __init__(self, images: Images, step: Step, share: Share = no_share) -> None:
        self.images, self.step, self.share, self.counts = images, step, share, Counter[str]()

    def epoch(self, order: Tensor, batch: int, generator: torch.Generator) -> Iterator[Callable[[], None]]:
        batches = self.images.epoch(order, batch, generator, self.share)
        for (images, labels), indices in zip(batches, map(self.share, order.split(batch)), strict=True):
            self.counts["eager"] += 1
            yield partial(self.step, images, labels, indices)

    def close(self) -> None:
        """End the worker processes, if images are read from files."""
        self.images.close()


class GraphSteps:
    """Steps that replay CUDA graphs, one graph for each batch size. A smaller last batch makes a second size.

    A graph reads the same memory at every replay. So one buffer holds an epoch's plan, and a counter on the device says
    which of its columns are the next batch. The graph itself advances the counter. The first step of each size is
    called from Python. It is a normal training step, and lets libraries do their set-up of first use before the
    capture.
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
        """By batch size: how many training batches one replay shows to each BatchNorm layer."""

    def epoch(self, order: Tensor, batch: int, generator: torch.Generator) -> Iterator[Callable[[], None]]:
        plan = self.images.plan(order, generator)
        if plan.shape != self.plan.shape:
            self.plan = torch.empty_like(plan)
            self.close()  # the captured graphs read the old buffer
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
        """Take a step of this batch size: the first one from Python, and all others by replaying a graph."""
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
            with CAPTURING:  # the set-up that libraries do on first use would break another thread's capture
                self._body(size)

    def _captured(self, size: int) -> Callable[[], None]:
        """Capture a step of this batch size. Raises NotCaptured if that is impossible."""
        try:
            with _uncounted(self.norms) as calls:
                graph = self.capture(partial(self._body, size, calls))
        except torch.OutOfMemoryError:  # this does not mean that the step cannot be captured
            raise
        except RuntimeError as error:
            raise NotCaptured(f"the training step cannot be captured as a CUDA graph: {reason(error)}") from error
        self.counts["captured"] += 1
        self.calls[size] = calls
        return graph

    def _body(self, size: int, calls: Counter[_BatchNorm] | None = None) -> None:
        """Do the work of one step: augment the next columns of the plan, train, and advance the counter."""
        if calls is not None:
            calls.clear()  # an earlier try may have counted
        columns = self.next + torch.arange(size, device=self.next.device)
        plan = self.plan[:, columns]
        self.step(*self.images.take(plan), plan[0])
        self.next.add_(size)

    def close(self) -> None:
        """Drop all graphs, and the memory that they hold."""
        with CAPTURING:
            self.graphs.clear()  # graphs hold memory, and refer back to this object


def _counts(norm: _BatchNorm) -> bool:
    """Return whether a layer counts its training batches but does not use the count, as with a fixed momentum."""
    return norm.num_batches_tracked is not None and norm.momentum is not None


@contextmanager
def _uncounted(norms: Iterable[_BatchNorm]) -> Iterator[Counter[_BatchNorm]]:
    """Stop BatchNorm layers from updating `num_batches_tracked`; yield by how much each would have grown.

    In a graph, each update would be a kernel of its own, although no step reads the count.
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


class StepNumbers:
    """Numbers that change at every step. They are set before an epoch, and stored where a captured step can read them.

    There is a tensor of `shape` for each of `steps` steps. The current position is kept on the device.
    """

    def __init__(self, steps: int, device: torch.device, shape: tuple[int, ...] = ()) -> None:
        self.values = torch.zeros(steps, *shape, device=device)
        self.place = torch.zeros(1, dtype=torch.long, device=device)

    def set(self, values: Any) -> None:
        """Set the numbers of the coming steps, [steps, *shape], from a tensor, an array or a list."""
        self.values.copy_(torch.as_tensor(values, dtype=torch.float32))
        self.place.zero_()

    def next(self) -> Tensor:
        """Return the next step's numbers, of `shape`, and advance."""
        value = self.values.index_select(0, self.place)[0]
        self.place.add_(1)
        return value
