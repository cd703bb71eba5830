"""Shares the training of one run among processes: batches, gradients, features and BatchNorm's statistics.

torchrun starts the processes (see `common.command.ranks`). Without torchrun there is one process, and no function here
communicates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def ranks() -> int:
    """Return how many processes train a run together: 1 unless torchrun started more (see `common.command.ranks`)."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process among those that train a run, from 0.

    Process 0 reads and writes the run's folder.
    """
    return dist.get_rank() if ranks() > 1 else 0


def rank_share(batch: Tensor, parts: int = 1) -> Tensor:
    """Return the part of a batch [..., n] that this process takes: an even share of each of `parts` equal parts.

    Every process takes the whole batch if `parts` is 0, or if a part has fewer images than there are processes.
    """
    if ranks() == 1 or not parts or batch.shape[-1] // parts < ranks():
        return batch
    return torch.cat([part.tensor_split(ranks(), dim=-1)[rank()] for part in batch.chunk(parts, dim=-1)], dim=-1)


def gathered(make: Callable[[Tensor], Tensor], indices: Tensor) -> Tensor:
    """Return make(indices), fp32 [n, ...] with one row per index. Every process computes its share of the rows."""
    own = make(rank_share(indices))
    if len(own) == len(indices):
        return own
    rows = own.new_zeros(len(indices), *own.shape[1:])
    rows[rank_share(torch.arange(len(indices), device=own.device))] = own
    dist.all_reduce(rows)
    return rows


def count_over_batch(count: Tensor, images: int) -> Tensor:
    """Return what a process divides its sum of losses by, if a loss is a sum divided by a count such as of old images.

    count: that number among the `images` that this process has of the batch. One process gets it back as it is. With
    several, the result is the count over the whole batch times this process's share of the images. The mean over
    processes, weighted by their images, then equals the loss of the whole batch.
    """
    if ranks() == 1:
        return count
    both = torch.stack([count.detach().float(), torch.tensor(float(images), device=count.device)])
    dist.all_reduce(both)
    return both[0] * images / both[1]


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by the sum of all processes' gradients."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view(gradient.shape))


def broadcast_from_first(tensors: Iterable[Tensor]) -> None:
    """Copy the values of process 0 to every process, in place."""
    for tensor in tensors if ranks() > 1 else ():
        values = tensor.detach().contiguous()  # channels_last tensors are not contiguous
        dist.broadcast(values, 0)
        tensor.detach().copy_(values)


class Synchronised(nn.SyncBatchNorm, nn.BatchNorm2d):
    """BatchNorm2d with the statistics of all processes' images. PyTorch has it on GPUs only.

    It stays a BatchNorm2d, since masks and frozen statistics find the layers of a network by that type.
    """

    process_group = None  # all processes


def synchronise(net: nn.Module) -> None:
    """Turn every BatchNorm2d of a network into a `Synchronised`, in place: references to a layer stay valid."""
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = Synchronised
