"""The one optimisation loop, the device and precision it runs in, and how several processes share its work."""

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

from common.errors import InputError, RunFailed
from common.graphs import capture_for, wait, way
from common.loader import Images, decodes_on_device
from common.runs import Schedule
from common.steps import make_steps


@dataclass(frozen=True)
class Device:
    """Where and in which precision networks run. Losses, cosines and statistics are always fp32."""

    type: str
    precision: str

    @property
    def torch(self) -> torch.device:
        return torch.device(self.type)

    def autocast(self) -> AbstractContextManager:
        # Autocast caches converted weights for the whole process: a run in one thread would depend on the others.
        return torch.autocast(self.type, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False)


def choose_device(device: str = "auto", precision: str = "auto") -> Device:
    """Resolve "auto": CUDA where there is one, bf16 only where the hardware has it natively.

    Raises InputError on a device that is not there, or a REPRO_CAPTURE or REPRO_DECODE that says nothing known.
    """
    way()
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
    """Whether the device multiplies bf16 in hardware (on a CPU AVX512-BF16, AMX or ARM's BF16); emulation is slow."""
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
    """A generator that depends only on `keys` (seed, phase, stage, epoch ...), so that resuming needs no RNG state."""
    digest = hashlib.sha256(repr(keys).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def shuffled(indices: Tensor, generator: torch.Generator) -> Tensor:
    """Every index once, in random order."""
    return indices[torch.randperm(len(indices), generator=generator).to(indices.device)]


def ranks() -> int:
    """Processes that train a run together; 1 unless torchrun has started more (see `common.command.ranks`)."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0. The first is the one that reads and writes the run's folder."""
    return dist.get_rank() if ranks() > 1 else 0


def share(batch: Tensor, parts: int = 1) -> Tensor:
    """What of a batch [..., n] this process takes: its share of each of `parts` equal parts, as even as can be.

    All of it where `parts` is 0, or where a part has fewer images than there are processes: all then do the same.
    """
    if ranks() == 1 or not parts or batch.shape[-1] // parts < ranks():
        return batch
    return torch.cat([part.tensor_split(ranks(), dim=-1)[rank()] for part in batch.chunk(parts, dim=-1)], dim=-1)


def gathered(make: Callable[[Tensor], Tensor], indices: Tensor) -> Tensor:
    """make(indices), fp32 [n, ...] with a row for each of `indices`; every process makes its share of the rows."""
    own = make(share(indices))
    if len(own) == len(indices):
        return own
    rows = own.new_zeros(len(indices), *own.shape[1:])
    rows[share(torch.arange(len(indices), device=own.device))] = own
    dist.all_reduce(rows)
    return rows


def of_batch(count: Tensor, images: int) -> Tensor:
    """What a loss divides a sum over its images by, where that is a count of the batch, such as of its old images.

    count: a scalar of the `images` that this process has of the batch. Returned is its share of the same count of the
    whole batch, in proportion to its images, so that the loss of the batch is the mean over all images again.
    """
    if ranks() == 1:
        return count
    both = torch.stack([count.detach().float(), torch.tensor(float(images), device=count.device)])
    dist.all_reduce(both)
    return both[0] * images / both[1]


def add_up(parameters: Iterable[nn.Parameter], weight: float) -> None:
    """Give every gradient the sum over all processes of theirs, each times its `weight`."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients]).mul_(weight)
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view(gradient.shape))


def agree(tensors: Iterable[Tensor]) -> None:
    """Give every process the first one's values, in place."""
    for tensor in tensors if ranks() > 1 else ():
        values = tensor.detach().contiguous()  # also of what lies in channels_last
        dist.broadcast(values, 0)
        tensor.detach().copy_(values)


@dataclass
class Stage:
    """One stretch of optimisation: which images, which loss, which parameters."""

    name: str
    schedule: Schedule
    indices: Tensor
    loss: Callable[..., Tensor]
    """(images, labels) -> scalar. It reads nothing back from the device, so that the step can be a CUDA graph."""
    parameters: Iterable[nn.Parameter]
    set_mode: Callable[[], object]
    """Puts every module in train or eval mode, the same throughout; called at the start of each epoch."""
    frozen_rows: list[tuple[nn.Parameter, int]] = field(default_factory=list)
    """(parameter, n): its first n rows keep their bits, as in a group of learning rate and weight decay 0."""
    no_decay: Iterable[nn.Parameter] = ()
    """Those of `parameters` that weight decay leaves alone."""
    sampler: Callable[[Tensor, torch.Generator], Tensor] = shuffled
    """(indices, CPU generator) -> the indices of one epoch in the order they are trained on; repeats are allowed."""
    on_epoch: Callable[[int], object] = lambda epoch: None
    """(epoch from 0) sets what changes with it, such as class weights: tensors in place, where a graph reads them."""
    on_end: Callable[[], object] = lambda: None
    """Called after the last epoch, also where a resume finds all epochs done: what the network becomes of training."""
    wants_indices: bool = False
    """Whether the loss takes a third argument: where each image lies in the training set, int64 [n]."""
    parts: int = 1
    """A batch is so many equal parts, one after another, and processes get a share of each (see `share`). 0: its images
    belong together, and every process takes all of them."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch of `fit` reports. Everything but the seconds is reproducible."""

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
    """Train a stage to its last epoch with SGD. Returns how many steps went which way (see `common.steps`).

    seed: keys of the batch order and augmentation, to which the epoch is added. resume: (epochs already done, optimiser
    state). after_epoch is called with the optimiser after every epoch, to log and save. On CUDA the whole step is one
    CUDA graph, replayed for every batch. net: holds the BatchNorm layers, for `make_steps`.

    Several processes (see `ranks`) share each batch, and the gradients are those of the whole batch. BatchNorm takes
    the statistics of each process's own images; the running ones are the first process's, as in PyTorch's DataParallel.

    Raises RunFailed as soon as an epoch's mean loss is not finite; what after_epoch saved before stays.
    """
    capture = capture_for(images) if ranks() == 1 else None
    optimiser = make_sgd(stage, lr_in_tensor=capture is not None)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    common = [stage.indices, *(parameters if net is None else net.state_dict().values())]
    agree(common)
    frozen = [(p.data[:n], p.data[:n].clone()) for p, n in stage.frozen_rows]
    schedule, device = stage.schedule, stage.indices.device
    first = 0
    if resume is not None:
        first, state = resume
        load_momentum(optimiser, state)
    total = torch.zeros((), device=device)
    size = 0  # of the whole batch

    def step(batch: Tensor, labels: Tensor, indices: Tensor) -> None:
        loss = stage.loss(batch, labels, indices) if stage.wants_indices else stage.loss(batch, labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        counted = len(labels) / (ranks() if len(labels) == size else 1)  # each image once, over all processes
        if ranks() > 1:
            add_up(parameters, counted / size)
        optimiser.step()
        for rows, kept in frozen:
            rows.copy_(kept)
        total.add_(loss.detach() * counted)

    steps = make_steps(images, step, capture, net, partial(share, parts=stage.parts))
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
            agree(common)
            lr = round(lr, 12)
            mean = _sum(total, parameters, f"in stage {stage.name}, epoch {epoch + 1}, lr {lr:g}") / len(order)
            seconds = time.perf_counter() - started
            after_epoch(Epoch(stage.name, epoch + 1, lr, round(mean, 6), len(order), round(seconds, 3)), optimiser)
    optimiser.zero_grad(set_to_none=True)  # the gradients lie in the graphs' memory
    stage.on_end()
    return steps.counts


def _order(stage: Stage, generator: torch.Generator) -> Tensor:
    """The indices of one epoch, of which the schedule may leave out the last smaller batch."""
    order, batch = stage.sampler(stage.indices, generator), stage.schedule.batch
    whole = len(order) // batch * batch
    return order[:whole] if stage.schedule.drop_last and whole else order


def _sum(total: Tensor, parameters: list[nn.Parameter], where: str) -> float:
    """The losses of an epoch, added up by every process. Raises RunFailed unless they and the weights are finite."""
    if ranks() > 1:
        dist.all_reduce(total)
    largest = torch.stack(torch._foreach_norm([p.detach() for p in parameters], ord=math.inf)).max()
    values = torch.stack([total, largest])
    wait(total.device)
    loss, weight = values.tolist()  # the one read from the device
    if not math.isfinite(loss):
        raise RunFailed(f"loss not finite {where}")
    if not math.isfinite(weight):  # by the last step, after its loss
        raise RunFailed(f"weights not finite {where}")
    return loss


def make_sgd(stage: Stage, lr_in_tensor: bool = False) -> torch.optim.SGD:
    """The optimiser over what a stage trains; a captured step reads its rate anew from a tensor."""
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
    """Set the rate of every group; a tensor keeps its place in memory, where a CUDA graph reads it."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def momentum(optimiser: torch.optim.SGD) -> dict[str, Tensor]:
    """Momentum buffers by parameter number: all the state SGD has."""
    state = optimiser.state_dict()["state"]
    return {str(i): s["momentum_buffer"] for i, s in state.items() if s.get("momentum_buffer") is not None}


def load_momentum(optimiser: torch.optim.SGD, buffers: dict[str, Tensor]) -> None:
    """Undo `momentum`, in each parameter's own memory format (the fused step needs both alike)."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for i, buffer in buffers.items():
        p = parameters[int(i)]
        optimiser.state[p]["momentum_buffer"] = torch.empty_like(p).copy_(buffer)
