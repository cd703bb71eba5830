"""The one optimisation loop, and the device and precision it runs in."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from common.errors import InputError, RunFailed
from common.loader import Images
from common.runs import Schedule


@dataclass(frozen=True)
class Device:
    """Where and in which precision networks run. Losses, cosines and statistics are always fp32."""

    type: str
    precision: str

    @property
    def torch(self) -> torch.device:
        return torch.device(self.type)

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.type, torch.bfloat16, enabled=self.precision == "bf16")


def choose_device(device: str = "auto", precision: str = "auto") -> Device:
    """Resolve "auto": CUDA where there is one, bf16 only where the hardware has it natively."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA device; use --device cpu, or install a CUDA build of torch")
    if precision == "auto":
        native = torch.cuda.is_bf16_supported(including_emulation=False) if device == "cuda" else cpu_has_bf16()
        precision = "bf16" if native else "fp32"
    return Device(device, precision)


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AVX512-BF16, AMX or ARM's BF16); emulation is slower than fp32."""
    if getattr(torch.cpu, "_is_avx512_bf16_supported", bool)() or getattr(torch.cpu, "_is_amx_tile_supported", bool)():
        return True
    try:
        with open("/proc/cpuinfo") as info:
            words = set(info.read().split())
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & words)


def seeded(device: torch.device, *keys: object) -> torch.Generator:
    """A generator that depends only on `keys` (seed, phase, stage, epoch ...), so that resuming needs no RNG state."""
    digest = hashlib.sha256(repr(keys).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@dataclass
class Stage:
    """One stretch of optimisation: which images, which loss, which parameters."""

    name: str
    schedule: Schedule
    indices: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    """(images, labels) -> scalar"""
    parameters: Iterable[nn.Parameter]
    set_mode: Callable[[], object]
    """Puts every module in train or eval mode; called at the start of each epoch."""
    frozen_rows: list[tuple[nn.Parameter, int]] = field(default_factory=list)
    """(parameter, n): its first n rows keep their bits, as in a group of learning rate and weight decay 0."""


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
) -> None:
    """Train a stage to its last epoch with SGD.

    seed: keys of the batch order and augmentation, to which the epoch is added. resume: (epochs already done, optimiser
    state). after_epoch is called with the optimiser after every epoch, to log and save.

    Raises RunFailed as soon as an epoch's mean loss is not finite; what after_epoch saved before stays.
    """
    parameters = [p for p in stage.parameters if p.requires_grad]
    schedule = stage.schedule
    optimiser = torch.optim.SGD(
        parameters,
        lr=schedule.lr,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
        nesterov=schedule.nesterov,
        fused=True,
    )
    frozen = [(p.data[:n], p.data[:n].clone()) for p, n in stage.frozen_rows]
    first = 0
    if resume is not None:
        first, state = resume
        load_momentum(optimiser, state)
    device = stage.indices.device
    for epoch in range(first, schedule.epochs):
        started = time.perf_counter()
        stage.set_mode()
        lr = schedule.lr_at(epoch)
        for group in optimiser.param_groups:
            group["lr"] = lr
        total = torch.zeros((), device=device)
        for batch, labels in images.epoch(stage.indices, schedule.batch, seeded(device, *seed, epoch)):
            loss = stage.loss(batch, labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            for rows, kept in frozen:
                rows.copy_(kept)
            total += loss.detach() * len(labels)
        mean = float(total) / len(stage.indices)  # the one read from the device
        if not math.isfinite(mean):
            raise RunFailed(f"loss not finite in stage {stage.name}, epoch {epoch + 1}, lr {lr:g}")
        if not all(bool(p.isfinite().all()) for p in parameters):  # by its last step, after the loss was taken
            raise RunFailed(f"weights not finite in stage {stage.name}, epoch {epoch + 1}, lr {lr:g}")
        seconds = time.perf_counter() - started
        after_epoch(Epoch(stage.name, epoch + 1, lr, round(mean, 6), len(stage.indices), round(seconds, 3)), optimiser)


def momentum(optimiser: torch.optim.SGD) -> dict[str, Tensor]:
    """Momentum buffers by parameter number: all the state SGD has."""
    state = optimiser.state_dict()["state"]
    return {str(i): s["momentum_buffer"] for i, s in state.items() if s.get("momentum_buffer") is not None}


def load_momentum(optimiser: torch.optim.SGD, buffers: dict[str, Tensor]) -> None:
    """Undo `momentum`, in each parameter's own memory format (the fused step needs both alike)."""
    parameters = optimiser.param_groups[0]["params"]
    for i, buffer in buffers.items():
        p = parameters[int(i)]
        optimiser.state[p]["momentum_buffer"] = torch.empty_like(p).copy_(buffer)
