"""`reproduce export HASH`: writes the network of a finished run for others to use, and loads it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.checkpoints import BOUNDARY, read_state, write, write_atomic
from common.command.card import card
from common.command.export import opened
from common.command.revived import run_of
from common.data.coarse import CIFAR20
from common.data.datasets import DataSpec
from common.data.lists import PUBLISHED as LISTS
from common.data.names import PUBLISHED
from common.errors import InputError
from common.runs import Run, canonical, type_name
from common.splits import named_order
from common.store import Store

if TYPE_CHECKING:
    from torch import Tensor, nn

FILE, CARD = "model.safetensors", "README.md"
FORMAT = 1  # the version of the layout of exported files
PER_CLASS = 100
"""Images per class of the stand-in data set with which a learner builds a network for export."""


@dataclass(frozen=True)
class ExportArguments:
    """Write the network of a finished run to DIR/HASH/model.safetensors, with a model card beside it. HASH is the run's
    hash or its beginning. Nothing is uploaded."""

    out: Path = Path("results")
    """The results folder to read."""
    to: Path = Path("exported")
    """The folder to write to."""


@dataclass(frozen=True)
class Exported:
    """A trained network in evaluation mode, with the Run that trained it and the meaning of its outputs."""

    net: nn.Module
    """Maps normalised images [n, 3, h, w] to logits [n, c]."""
    run: Run
    labels: Sequence[int] | None
    """The data set's label that each output stands for, [c]; None if it is not known without the images."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits [n, c] of images, uint8 [n, 3, h, w] on the network's device. No gradients are kept."""
        import torch

        from common.loader import scale_and_shift

        scale, shift = scale_and_shift(self.run.inputs, images.device)
        with torch.no_grad():
            return self.net((images * scale + shift).contiguous(memory_format=torch.channels_last))


def load_exported(folder: Path | str, device: str = "cpu") -> Exported:
    """Load the network that `reproduce export` wrote to a folder, on "cpu" or "cuda", in its training precision.

    Raises InputError if there is no network, if it is damaged, or if it is one for timm to load.
    """
    path = Path(folder) / FILE
    saved = read_state(path)
    if saved is None:
        raise InputError(f"{path} is not there; name a folder that `reproduce export` wrote")
    if saved.meta.get("format") != FORMAT:
        raise InputError(f"{path} was exported by another version; export it again")
    if creation := saved.meta["timm"]:
        raise InputError(f"{path} is a network of timm's: timm.create_model({creation}, checkpoint_path={str(path)!r})")
    run = run_of(saved.meta["run"], saved.meta["network"])
    net = build(run, device)
    net.load_state_dict(saved.tensors)
    return Exported(net.eval(), run, saved.meta["labels"])


def build(run: Run, device: str = "cpu") -> nn.Module:
    """Build the network that a Run ends with, with the learner's initial weights. No image is opened."""
    import numpy as np
    import torch

    from common.incremental import learner_of
    from common.loader import DeviceImages
    from common.memory import Context, ExemplarMemory
    from common.training import Device

    labels = torch.arange(run.protocol.classes).repeat_interleave(PER_CLASS)
    where = Device(device, run.precision)
    images = DeviceImages(np.zeros((len(labels), 1, 1, 3), np.uint8), labels, run.inputs, where.torch)
    learner = learner_of(run.method)(run.method, Context(run, where, images, images, ExemplarMemory(per_class=0)))
    first, *others = run.protocol.sizes
    learner.build(first)
    for size in others:
        learner.net.head.grow(size, torch.Generator())
    return learner.net


def export(beginning: str, args: ExportArguments) -> None:
    """Run `reproduce export HASH`. Raises InputError, and writes nothing, if that run has no network to export."""
    from common.incremental import learner_of

    store = opened(args.out)
    result = store.load(found(beginning, store))
    assert result is not None
    recorded = run_of(result.config, result.hash)
    if recorded.start and not recorded.schedule.epochs:
        raise InputError(
            f"run {recorded.hash}: {type_name(type(recorded.method))} trains no network; export the one that it looks "
            f"at: reproduce export {recorded.start.hash}"
        )
    run, state = learner_of(recorded.method).exported(recorded, lambda run: _left(store, run))
    net = build(run)
    net.load_state_dict(state)
    labels, timm = labels_of(run), as_timm(net)
    creation, tensors = timm or ("", net.state_dict())
    meta = {"format": FORMAT, "hash": result.hash, "network": run.hash, "run": canonical(run), "labels": labels}
    folder = args.to / result.hash
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / FILE, tensors, {**meta, "timm": creation})
        write_atomic(folder / CARD, card(result, recorded, labels, creation))
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}; choose another --to") from None
    print(folder / FILE, folder / CARD, sep="\n")


def found(beginning: str, store: Store) -> str:
    """Return the hash of the finished run whose hash begins with `beginning`. Raises InputError on none or several."""
    begun = sorted(path.name for path in store.runs.iterdir() if path.is_dir() and path.name.startswith(beginning))
    finished = [name for name in begun if (store.runs / name / "result.json").exists()]
    if len(finished) == 1:
        return finished[0]
    if finished:
        some = ", ".join(finished[:5])
        raise InputError(f"{len(finished)} finished runs begin with {beginning!r}, such as {some}; give more digits")
    if begun:
        raise InputError(f"run {begun[0]} is not finished; the command that began it goes on with it")
    raise InputError(f"no run begins with {beginning!r} in {store.runs}, where each folder has a run's hash for a name")


def _left(store: Store, run: Run) -> dict[str, Tensor]:
    """Return the weights at the end of a finished run. Raises InputError if they are damaged or gone."""
    path = store.folder(run) / BOUNDARY
    if (saved := read_state(path)) is None:
        raise InputError(f"the weights of run {run.hash} are gone; delete {path.parent} and train it again")
    return saved.part("net/")


def labels_of(run: Run) -> list[int] | None:
    """Return the data set's label for each output of a Run's network.

    Returns None if the class order is a shuffle and the number of classes is not known without the data.
    """
    total, seen = number_of_classes(run.data), run.protocol.classes
    if total is None and run.order != "native":
        return None
    return named_order(run.order, total or seen)[:seen].tolist()


def number_of_classes(data: DataSpec) -> int | None:
    """Return the number of classes of a data set that is known by name, else None."""
    if data.name == "glyphs":
        return data.classes or 100
    published: dict[str, Sequence] = {"cifar20": tuple(CIFAR20), **PUBLISHED}
    if data.name in published:
        return len(published[data.name])
    return LISTS[data.name][0] if data.name in LISTS else None


def as_timm(net: Any) -> tuple[str, dict[str, Tensor]] | None:
    """Return the arguments of `timm.create_model` that make this network, and its weights under timm's names.

    Returns None if timm has no such network: another backbone, one without its last ReLU, or a classifier other than
    `LinearHead`.
    """
    from common.heads import LinearHead
    from common.resnet import ImageNetResNet

    body = getattr(net, "backbone", None)
    if not (isinstance(body, ImageNetResNet) and body.final_relu and isinstance(net.head, LinearHead)):
        return None
    arguments = {**body.architecture, "num_classes": len(net.head.weight)}
    tensors = {**body.body.state_dict(), "fc.weight": net.head.weight, "fc.bias": net.head.bias}
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items()), tensors
