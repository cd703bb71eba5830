"""The one optimisation loop, and the device and precision that it uses."""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from functools import lru_cache, partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from common.distributed import broadcast_from_first, rank_share, ranks, sum_gradients
from common.errors import InputError, RunFailed
from common.graphs import capture_for, capture_mode, wait
from common.loader import Images, decodes_on_device
from common.runs import Schedule
from common.steps import make_steps


@dataclass(frozen=True)
class Device:
    """The device that networks run on, and their precision. Losses, cosines and statistics are always fp32."""

    type: str
    precision: str

    @property
    def torch(self) -> torch.device:
        return torch.device(self.type)

    def autocast(self) -> AbstractContextManager:
        """Return a context that runs operations in bf16 if that is the precision, and else changes nothing."""
        # No cache: autocast shares its cache of converted weights between threads, so runs would affect each other.
        return torch.autocast(self.type, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False)


def choose_device(device: str = "auto", precision: str = "auto") -> Device:
    """Resolve "auto" to CUDA if there is a device, and to bf16 only if the hardware supports it natively.

    Raises InputError on a missing device, or an unknown value of REPRO_CAPTURE or REPRO_DECODE.
    """
    capture_mode()
    decodes_on_device()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA device; use --device cpu, or install a CUDA build of torch")
    if precision == "auto":
        precision = "bf16" if has_bf16(device) else "fp32"
    return Device(device, precision)


@lru_cache(maxsize=2)
def has_bf16(device: str) -> bool:
    """Return whether the device multiplies bf16 in hardware, as emulation is slow.

    On a CPU, AVX512-BF16, AMX and ARM's BF16 do so.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if getattr(torch.cpu, "_is_avx512_bf16_supported", bool)() or getattr(torch.cpu, "_is_amx_tile_supported", bool)():
        return True
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as info:
            words = set(info.read().split())
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & words)


def seeded(device: torch.device, *keys: object) -> torch.Generator:
    """Return a generator that depends on `keys` alone (seed, phase, stage, epoch ...): a resume needs no RNG state."""
    digest = hashlib.sha256(repr(keys).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def shuffled(indices: Tensor, generator: torch.Generator) -> Tensor:
    """Return every index once, in random order."""
    return indices[torch.randperm(len(indices), generator=generator).to(indices.device)]


@dataclass
class Stage:
    """One stage of optimisation: which images, which loss and which parameters."""

    name: str
    schedule: Schedule
    indices: Tensor
    loss: Callable[..., Tensor]
    """(images, labels) -> scalar. It must read nothing back from the device, so that a CUDA graph can hold the step."""
    parameters: Iterable[nn.Parameter]
    set_mode: Callable[[], object]
    """Puts every module in train or eval mode, the same in every epoch. Called at the start of each epoch."""
    frozen_rows: list[tuple[nn.Parameter, int]] = field(default_factory=list)
    """(parameter, n): the parameter's first n rows keep their bits, as with learning rate and weight decay 0."""
    no_decay: Iterable[nn.Parameter] = ()
    """The members of `parameters` that get no weight decay."""
    sampler: Callable[[Tensor, torch.Generator], Tensor] = shuffled
    """(indices, CPU generator) -> the indices of one epoch, in the order of training. Repeats are allowed."""
    on_epoch: Callable[[int], object] = lambda epoch: None
    """Sets whatever depends on the epoch (from 0), such as class weights. Tensors must change in place, since a CUDA
    graph reads them."""
    on_end: Callable[[], object] = lambda: None
    """Called after the last epoch to turn the network into its trained form, also on a resume with all epochs done."""
    wants_indices: bool = False
    """Whether the loss takes a third argument: each image's training index, int64 [n]."""
    parts: int = 1
    """The number of equal parts, one after another, that make up a batch. Processes get a share of each (`rank_share`).
    0: the images belong together, and every process takes all of them."""


@dataclass(frozen=True)
class Epoch:
    """The report of one epoch of `fit`. Everything but the seconds is reproducible."""

    stage: str
    epoch: int
    lr: float
    loss: float
    images: int
    seconds: float


def fit(
    stage: Stage,
    images: Images,
    seed: tuple[object, ...],
    after_epoch: Callable[[Epoch, torch.optim.SGD], None],
    resume: tuple[int, dict] | None = None,
    net: nn.Module | None = None,
) -> Counter[str]:
    """Train a stage to its last epoch with SGD. Returns `Steps.counts` (see `common.steps`).

    seed: keys for batch order and augmentation, to which the epoch is added. after_epoch: called with the optimiser
    after every epoch, to log and save. resume: (epochs already done, momentum buffers). net: the network whose
    BatchNorm layers `make_steps` needs. On CUDA the whole step is one CUDA graph, replayed for every batch.

    Several processes (see `ranks`) share each batch, and the gradients are those of the whole batch. BatchNorm uses the
    statistics of each process's own images, and of the whole batch if it is `Synchronised`. The running statistics are
    those of process 0, as in PyTorch's DataParallel.

    Raises RunFailed as soon as an epoch's mean loss, or a weight, is not finite. Everything that after_epoch saved
    before remains.
    """
    capture = capture_for(images) if ranks() == 1 else None
    optimiser = make_sgd(stage, lr_in_tensor=capture is not None)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    common = [stage.indices, *(parameters if net is None else net.state_dict().values())]
    broadcast_from_first(common)
    frozen = [(p.data[:n], p.data[:n].clone()) for p, n in stage.frozen_rows]
    schedule, device = stage.schedule, stage.indices.device
    first = 0
    if resume is not None:
        first, state = resume
        load_momentum(optimiser, state)
    total = torch.zeros((), device=device)
    size = 0  # images in the whole batch, over all processes

    def step(batch: Tensor, labels: Tensor, indices: Tensor) -> None:
        loss = stage.loss(batch, labels, indices) if stage.wants_indices else stage.loss(batch, labels)
        optimiser.zero_grad(set_to_none=True)
        counted = len(labels) / (ranks() if len(labels) == size else 1)  # each image once, over all processes
        if ranks() == 1:
            loss.backward()
        else:  # weighted before the backward pass, which mixes processes' losses where they share statistics
            (loss * (counted / size)).backward()
            sum_gradients(parameters)
        optimiser.step()
        for rows, kept in frozen:
            rows.copy_(kept)
        total.add_(loss.detach() * counted)

    steps = make_steps(images, step, capture, net, partial(rank_share, parts=stage.parts))
    with closing(steps):
        for epoch in range(first, schedule.epochs):
            started = time.perf_counter()
            stage.set_mode()
            stage.on_epoch(epoch)
            total.zero_()
            generator = seeded(torch.device("cpu"), *seed, epoch)
            order = _order(stage, generator)
            count = math.ceil(len(order) / schedule.batch)
            lr = math.nan
            for number, take_step in enumerate(steps.epoch(order, schedule.batch, generator)):
                if (now := schedule.lr_at(epoch, number / count)) != lr:
                    set_lr(optimiser, lr := now)
                size = min(schedule.batch, len(order) - number * schedule.batch)
                take_step()
            broadcast_from_first(common)
            lr = round(lr, 12)
            mean = _sum(total, parameters, f"in stage {stage.name}, epoch {epoch + 1}, lr {lr:g}") / len(order)
            seconds = time.perf_counter() - started
            after_epoch(Epoch(stage.name, epoch + 1, lr, round(mean, 6), len(order), round(seconds, 3)), optimiser)
    optimiser.zero_grad(set_to_none=True)  # the gradients lie in the graphs' memory
    stage.on_end()
    return steps.counts


def _order(stage: Stage, generator: torch.Generator) -> Tensor:
    """Return the indices of one epoch, without a smaller last batch if the schedule drops it."""
    order, batch = stage.sampler(stage.indices, generator), stage.schedule.batch
    whole = len(order) // batch * batch
    return order[:whole] if stage.schedule.drop_last and whole else order


def _sum(total: Tensor, parameters: list[nn.Parameter], where: str) -> float:
    """Return the sum of an epoch's losses over all processes. Raises RunFailed unless sum and weights are finite."""
    if ranks() > 1:
        dist.all_reduce(total)
    largest = torch.stack(torch._foreach_norm([p.detach() for p in parameters], ord=math.inf)).max()
    values = torch.stack([total, largest])
    wait(total.device)
    loss, weight = values.tolist()  # the only read from the device in an epoch
    if not math.isfinite(loss):
        raise RunFailed(f"loss not finite {where}")
    if not math.isfinite(weight):  # the last step can break the weights after its loss was computed
        raise RunFailed(f"weights not finite {where}")
    return loss


def make_sgd(stage: Stage, lr_in_tensor: bool = False) -> torch.optim.SGD:
    """Return SGD over the parameters that a stage trains.

    lr_in_tensor: keep the learning rate in a tensor, from which a captured step reads it at every replay.
    """
    parameters = [p for p in stage.parameters if p.requires_grad]
    spared = {id(p) for p in stage.no_decay}
    schedule = stage.schedule
    lr = torch.tensor(schedule.lr, device=parameters[0].device) if lr_in_tensor else schedule.lr
    groups = [
        {"params": [p for p in parameters if id(p) not in spared], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if id(p) in spared], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=lr,
        momentum=schedule.momentum,
        nesterov=schedule.nesterov,
        fused=True,
    )


def set_lr(optimiser: torch.optim.SGD, lr: float) -> None:
    """Set the learning rate of every group. A rate kept in a tensor changes in place, since a CUDA graph reads it."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def momentum(optimiser: torch.optim.SGD) -> dict[str, Tensor]:
    """Return the momentum buffers by parameter number. SGD has no other state."""
    state = optimiser.state_dict()["state"]
    return {str(i): s["momentum_buffer"] for i, s in state.items() if s.get("momentum_buffer") is not None}


def load_momentum(optimiser: torch.optim.SGD, buffers: dict[str, Tensor]) -> None:
    """Restore the buffers that `momentum` returned, in each parameter's memory format, as the fused step requires."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for i, buffer in buffers.items():
        p = parameters[int(i)]
        optimiser.state[p]["momentum_buffer"] = torch.empty_like(p).copy_(buffer)
