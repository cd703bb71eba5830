"""Checkpoints, and JSON with a checksum: files that survive kills and power cuts, and whose damage is noticed.

A checkpoint is a safetensors file with a checksum of everything in it. A new one is safely on disk before an old one is
removed. The state at the end of a phase is saved whole, as `checkpoint.safetensors`. The state after an epoch inside a
phase is saved as `epoch.safetensors`. This file leaves out the weights that the phase does not change, and names the
end of a phase that it builds on. The previous version of either file is kept as `NAME.previous.safetensors`. A run
whose newest checkpoint is damaged goes on from the previous one.
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
    """Raised when a file does not hold what was written to it."""


@dataclass(frozen=True, eq=False)
class Saved:
    """A checkpoint that was read from disk."""

    tensors: dict[str, Tensor]
    meta: dict
    checksum: int
    """Checksum of the meta data. They hold the checksums of all tensors, so the number identifies the checkpoint."""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with `prefix`, and leave the prefix out of their names."""
        return {k[len(prefix) :]: v for k, v in self.tensors.items() if k.startswith(prefix)}

    def builds_on(self, boundary: Saved | None) -> bool:
        """Return whether this state belongs to the phase that follows `boundary`, or to phase 0 if it is None.

        Checkpoints written before checksums existed name only the phase, and hold all tensors.
        """
        phase, checksum = (boundary.meta["phase"], boundary.checksum) if boundary else (0, None)
        return self.meta["phase"] == phase and self.meta.get("boundary", checksum) == checksum

    def completed(self, boundary: Saved | None) -> Saved:
        """Return this state together with the tensors that only the boundary holds (the prefixes in meta["frozen"])."""
        frozen = tuple(self.meta.get("frozen", ()))
        kept = {k: v for k, v in boundary.tensors.items() if k.startswith(frozen)} if boundary else {}
        return replace(self, tensors=kept | self.tensors)


def write(path: Path, tensors: Mapping[str, Tensor], meta: dict, keep_previous: bool = False) -> int:
    """Write a checkpoint and return its checksum. The file is on disk when the function returns.

    A reader sees either the old file or the new one, never a part. keep_previous: keep the old file beside the new one.
    Raises OSError, for example on a full disk.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    part = path.with_suffix(".part")
    tensors = {k: v.detach().cpu().contiguous() for k, v in sorted(tensors.items())}
    meta = {**meta, "checksums": {k: _crc(v) for k, v in tensors.items()}}
    checksum = zlib.crc32(json.dumps(meta).encode())
    try:
        save_file(tensors, part, metadata={"meta": json.dumps({**meta, "checksum": checksum})})
    except SafetensorError as error:  # its text hides the operating system's error, such as a full disk
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
    """Return where the previous version of the checkpoint at `path` is kept."""
    return path.with_suffix(f".previous{path.suffix}")


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on disk, where a power cut cannot harm it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_state(path: Path) -> Saved | None:
    """Read a checkpoint file; None if it does not exist. Raises Damaged if a checksum does not match.

    Files written before checksums existed are accepted unchecked.
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
    """Read only the meta data of a checkpoint file; None if there is no file. Raises Damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return _meta(path, file.metadata())[0]
    except FileNotFoundError:
        return None
    except SafetensorError as error:
        raise Damaged(f"{path} is damaged ({error})") from None


def _meta(path: Path, metadata: Mapping[str, str] | None) -> tuple[dict, int]:
    """Return the meta data that `write` was given, and the file's checksum. Raises Damaged."""
    try:
        text = (metadata or {})["meta"]
        meta = json.loads(text)
    except (KeyError, ValueError):
        raise Damaged(f"{path} is damaged (meta data)") from None
    if "checksum" not in meta and "checksums" not in meta:  # written before checksums existed
        return meta, zlib.crc32(text.encode())
    checksum = meta.pop("checksum", None)
    if checksum != zlib.crc32(json.dumps(meta).encode()):
        raise Damaged(f"{path} is damaged (meta data)")
    return meta, checksum


def _crc(tensor: Tensor) -> int:
    """Return the CRC-32 of a tensor's type, shape and bytes."""
    import torch

    start = zlib.crc32(f"{tensor.dtype} {list(tensor.shape)}".encode())
    return zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data, start)


def newest(folder: Path, lines: int) -> tuple[Saved | None, Saved | None]:
    """Return where an interrupted run goes on: the newest undamaged end of a phase, and the newest epoch after it.

    Either is None if no such checkpoint was saved. lines: how many lines the run's log holds; a checkpoint that counts
    more lines than the log is treated as damaged. Damaged files are named on stderr and removed, so that they never
    replace an undamaged one. Raises Damaged if there are checkpoints, but all are damaged.
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
    """Return the files that only an unfinished run needs: states inside a phase, and the previous end of a phase."""
    return [folder / EPOCH, previous(folder / EPOCH), previous(folder / BOUNDARY)]


def lock(path: Path, timeout: float = -1) -> FileLock:
    """Return a lock that keeps other processes off the file at `path`. Taking it waits `timeout` seconds, -1: for ever.

    Raises OSError if the file system has no locks. The check is made here because filelock does not report the lack:
    some versions act as if another process held the lock, others make a plain file, which a killed process leaves
    behind.
    """
    with suppress(ImportError, BlockingIOError):
        import fcntl  # not on Windows, where every file system has locks

        with open(path, "a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return FileLock(path, timeout=timeout)


def write_atomic(path: Path, text: str, durable: bool = True) -> None:
    """Write a text file so that readers see either the old file or the whole new one, even if others write it too.

    durable: wait until the file is on disk. Without, a power cut within the next minute may leave it empty.
    """
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    part.write_text(text, encoding="utf-8")
    if durable:
        sync(part)
    os.replace(part, path)


def checksum(content: Any) -> str:
    """Return 16 hex digits of the SHA-256 of JSON-ready content. The order of keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def read_json(path: Path, remedy: str, covered: Mapping[str, Any] | None = None, allow_unchecked: bool = True) -> dict:
    """Read a JSON object, compare it with its `checksum`, and return it without that entry.

    covered: further content that the checksum covers. allow_unchecked: accept a file without a checksum, as written
    before checksums existed. A file that lists checksums of arrays is newer, and needs a checksum of its own. Raises
    Damaged if the file is unreadable, changed, or has lost its checksum; the message ends with `remedy`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f"{path} cannot be read ({error}); {remedy}") from None
    if not isinstance(content, dict):
        raise Damaged(f"{path} holds no JSON object; {remedy}")
    expected = content.pop("checksum", None)
    if expected is None and (not allow_unchecked or "arrays" in content):
        raise Damaged(f"{path} has lost its checksum; {remedy}")
    if expected is not None and expected != checksum({**(covered or {}), **content}):
        raise Damaged(f"{path} is damaged (its checksum does not fit); {remedy}")
    return content


def tensors(learner: Learner, optimiser: SGD | None = None) -> dict[str, Tensor]:
    """Return all tensors that a resume needs: weights, exemplars, tensors kept with them, and the learner's own state.

    optimiser: given inside a phase. Its momentum is then included, and weights that the phase does not change are left
    out.
    """
    left, memory = learner.frozen() if optimiser else (), learner.context.memory
    found = {f"net/{k}": v for k, v in learner.net.state_dict().items() if not k.startswith(left)}
    found |= {f"memory/{label}": kept for label, kept in memory.indices.items()}
    found |= {
        f"beside/{name}/{label}": rows for name, by_class in memory.tensors.items() for label, rows in by_class.items()
    }
    found |= {f"state/{name}": value for name, value in learner.state().items()}
    if optimiser:
        from common.training import momentum

        found |= {f"momentum/{k}": v for k, v in momentum(optimiser).items()}
    return found


def load(learner: Learner, saved: Saved) -> None:
    """Restore the network's weights, the exemplars, and the tensors kept with them."""
    learner.net.load_state_dict(saved.part("net/"))
    device, memory = learner.context.device.torch, learner.context.memory
    kept = {int(label): indices.to(device) for label, indices in saved.part("memory/").items()}
    memory.indices, memory.tensors = dict(sorted(kept.items())), {}
    for key, rows in saved.part("beside/").items():
        name, _, label = key.rpartition("/")
        memory.attach(int(label), {name: rows.to(device)})


def load_own(learner: Learner, saved: Saved) -> None:
    """Restore the learner's own state, if it saved any."""
    if state := saved.part("state/"):
        learner.load_state({name: value.to(learner.context.device.torch) for name, value in state.items()})
