"""Files that outlive kills and power cuts and notice changed bytes: checkpoints, and JSON with a checksum.

Checkpoints are safetensors with a checksum of everything in them, on disk for good before the last one goes. A phase's
end is saved whole, as `checkpoint.safetensors`. An epoch inside a phase is saved as `epoch.safetensors`, without what
the phase leaves as it was, and names the phase's end it builds on. Of both, the one before is kept as
`NAME.previous.safetensors`: a run whose newest file is damaged goes on from that.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import uuid
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from common.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import SGD

    from common.incremental import Learner

BOUNDARY, EPOCH = "checkpoint.safetensors", "epoch.safetensors"


class Damaged(InputError):
    """A file does not hold what was written to it."""


@dataclass(frozen=True, eq=False)
class Saved:
    """A checkpoint as read back."""

    tensors: dict[str, Tensor]
    meta: dict
    checksum: int
    """Of the meta data, which hold those of the tensors: it tells one checkpoint from another."""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under a prefix, by the rest of their names."""
        return {k[len(prefix) :]: v for k, v in self.tensors.items() if k.startswith(prefix)}

    def builds_on(self, boundary: Saved | None) -> bool:
        """Whether this state inside a phase belongs to the phase that begins at `boundary` (None: at the start).

        A file from before checkpoints had checksums names the phase alone, and is whole.
        """
        phase, checksum = (boundary.meta["phase"], boundary.checksum) if boundary else (0, None)
        return self.meta["phase"] == phase and self.meta.get("boundary", checksum) == checksum

    def completed(self, boundary: Saved | None) -> Saved:
        """This state with the tensors that it left to the boundary (those whose names begin as `frozen` says)."""
        frozen = tuple(self.meta.get("frozen", ()))
        kept = {k: v for k, v in boundary.tensors.items() if k.startswith(frozen)} if boundary else {}
        return replace(self, tensors=kept | self.tensors)


def write(path: Path, tensors: Mapping[str, Tensor], meta: dict, keep_previous: bool = False) -> int:
    """Write a checkpoint, on disk when this returns, and give its checksum. A reader sees the old file or the new.

    keep_previous: the file that was there is kept beside the new one. Raises OSError, as on a full disk.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    part = path.with_suffix(".part")
    tensors = {k: v.detach().cpu().contiguous() for k, v in sorted(tensors.items())}
    meta = {**meta, "checksums": {k: _crc(v) for k, v in tensors.items()}}
    checksum = zlib.crc32(json.dumps(meta).encode())
    try:
        save_file(tensors, part, metadata={"meta": json.dumps({**meta, "checksum": checksum})})
    except SafetensorError as error:  # it hides the operating system's error, such as a full disk, in its text
        if found := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(part)) from None
        raise
    sync(part)
    if keep_previous and path.exists():
        os.replace(path, previous(path))
    os.replace(part, path)
    sync(path.parent)
    return checksum


def previous(path: Path) -> Path:
    """Where the checkpoint before the one at `path` is kept."""
    return path.with_suffix(f".previous{path.suffix}")


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on disk and outlives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_state(path: Path) -> Saved | None:
    """A checkpoint file, or None where there is none. Raises Damaged where a checksum does not fit.

    Files from before there were checksums are taken as they are.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            meta, checksum = _meta(path, file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise Damaged(f"{path} is damaged ({error})") from None
    expected = meta.pop("checksums", None)
    if expected is not None and expected.keys() != tensors.keys():
        raise Damaged(f"{path} is damaged (tensors are missing)")
    for name, value in (expected or {}).items():
        if _crc(tensors[name]) != value:
            raise Damaged(f"{path} is damaged (tensor {name})")
    return Saved(tensors, meta, checksum)


def read_meta(path: Path) -> dict | None:
    """The meta data of a checkpoint file alone, or None where there is none. Raises Damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return _meta(path, file.metadata())[0]
    except FileNotFoundError:
        return None
    except SafetensorError as error:
        raise Damaged(f"{path} is damaged ({error})") from None


def _meta(path: Path, metadata: Mapping[str, str] | None) -> tuple[dict, int]:
    """What `write` was given, and the file's checksum."""
    try:
        text = (metadata or {})["meta"]
        meta = json.loads(text)
    except (KeyError, ValueError):
        raise Damaged(f"{path} is damaged (meta data)") from None
    if "checksum" not in meta and "checksums" not in meta:  # from before there were any
        return meta, zlib.crc32(text.encode())
    checksum = meta.pop("checksum", None)
    if checksum != zlib.crc32(json.dumps(meta).encode()):
        raise Damaged(f"{path} is damaged (meta data)")
    return meta, checksum


def _crc(tensor: Tensor) -> int:
    """CRC-32 of a tensor's type, shape and bytes."""
    import torch

    start = zlib.crc32(f"{tensor.dtype} {list(tensor.shape)}".encode())
    return zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data, start)


def newest(folder: Path, lines: int) -> tuple[Saved | None, Saved | None]:
    """Where an interrupted run goes on: at its last whole phase end and, if saved, the last whole epoch after that.

    lines: how many the run's log has; a checkpoint that counts more of them came after what is left. Damaged files are
    named on stderr and removed, so that they never take a whole one's place. Raises Damaged where no whole one is left.
    """
    damaged: dict[Path, str] = {}

    def first(name: str, fits: Callable[[Saved], bool]) -> Saved | None:
        for path in (folder / name, previous(folder / name)):
            try:
                saved = read_state(path)
                if saved and fits(saved):
                    if saved.meta["lines"] <= lines:
                        return saved
                    raise Damaged(f"{path} counts {saved.meta['lines']} epochs, but the log holds {lines}")
            except Damaged as error:
                damaged[path] = str(error)
        return None

    boundary = first(BOUNDARY, lambda saved: True)
    inside = first(EPOCH, lambda saved: saved.builds_on(boundary))
    if damaged and not (boundary or inside):
        found = "; ".join(damaged.values())
        raise Damaged(f"{found}; no earlier checkpoint is left, delete {folder} to train the run from its beginning")
    for path, problem in damaged.items():
        print(f"note: {problem}; it is removed, and the run goes on from the checkpoint before", file=sys.stderr)
        path.unlink()
    return boundary, inside.completed(boundary) if inside else None


def working_files(folder: Path) -> list[Path]:
    """What only an unfinished run needs: epochs, and the phase's end before the last."""
    return [folder / EPOCH, previous(folder / EPOCH), previous(folder / BOUNDARY)]


def lock(path: Path, timeout: float = -1) -> FileLock:
    """A lock of the file at `path` against other processes; `timeout` seconds are waited for it, -1 for ever.

    Raises OSError where the file system has no locks. Some versions of filelock take that for a lock that another
    process holds, others put a file in its place, which a killed process leaves behind.
    """
    with suppress(ImportError, BlockingIOError):
        import fcntl  # not on Windows, where every file system has locks

        with open(path, "a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return FileLock(path, timeout=timeout)


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the whole new one, whoever else writes it."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    part.write_text(text, encoding="utf-8")
    sync(part)
    os.replace(part, path)


def checksum(content: Any) -> str:
    """16 hex digits over JSON-ready content, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def read_json(path: Path, remedy: str, beside: Mapping[str, Any] | None = None, bare: bool = True) -> dict:
    """A JSON object without its `checksum`, which is of the object and of what is `beside` it.

    bare: whether files from before there were checksums are taken as they are. A result that has checksums of its
    arrays is none of them. Raises Damaged, which tells the remedy.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f"{path} cannot be read ({error}); {remedy}") from None
    if not isinstance(content, dict):
        raise Damaged(f"{path} holds no JSON object; {remedy}")
    expected = content.pop("checksum", None)
    if expected is None and (not bare or "arrays" in content):
        raise Damaged(f"{path} has lost its checksum; {remedy}")
    if expected is not None and expected != checksum({**(beside or {}), **content}):
        raise Damaged(f"{path} is damaged (its checksum does not fit); {remedy}")
    return content


def tensors(learner: Learner, optimiser: SGD | None = None) -> dict[str, Tensor]:
    """All that a resume needs: weights, exemplars with what is kept beside them, the learner's own state.

    Inside a phase the optimiser's momentum too, but no weights that the phase leaves as they are.
    """
    left, memory = learner.frozen() if optimiser else (), learner.context.memory
    found = {f"net/{k}": v for k, v in learner.net.state_dict().items() if not k.startswith(left)}
    found |= {f"memory/{label}": kept for label, kept in memory.indices.items()}
    found |= {f"beside/{name}/{label}": rows for name, of in memory.tensors.items() for label, rows in of.items()}
    found |= {f"state/{name}": value for name, value in learner.state().items()}
    if optimiser:
        from common.training import momentum

        found |= {f"momentum/{k}": v for k, v in momentum(optimiser).items()}
    return found


def load(learner: Learner, saved: Saved) -> None:
    """Give back the weights and the exemplars."""
    learner.net.load_state_dict(saved.part("net/"))
    device, memory = learner.context.device.torch, learner.context.memory
    kept = {int(label): indices.to(device) for label, indices in saved.part("memory/").items()}
    memory.indices, memory.tensors = dict(sorted(kept.items())), {}
    for key, rows in saved.part("beside/").items():
        name, _, label = key.rpartition("/")
        memory.attach(int(label), {name: rows.to(device)})


def load_own(learner: Learner, saved: Saved) -> None:
    """Give back the learner's own state, where it had any."""
    if state := saved.part("state/"):
        learner.load_state({name: value.to(learner.context.device.torch) for name, value in state.items()})
