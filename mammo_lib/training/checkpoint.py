"""Checkpoints that a crash cannot spoil.

Knows nothing of networks or epochs: a state is a tree of dicts, lists, numbers, strings and tensors.

A checkpoint is a file of `torch.save` with the SHA-256 of these bytes behind them: one file, so that no crash parts the
two, and one that `torch.load` opens as it is, since it ignores what follows. (The checksums inside torch's own format
do not cover its table of contents, torch does not look at them, and they take time: left out.) The file before the last
one is kept beside it, last.pt -> last.previous.pt: a folder holds two states, and three while one is written.
"""

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.serialization import config as serialization

from mammo_lib import paths

CHECKSUM_BYTES = hashlib.sha256().digest_size


class CheckpointDamaged(RuntimeError):
    """Neither a checkpoint nor the one before it is whole."""


class CheckpointMismatch(paths.StageMismatch):
    """A checkpoint was made with another config than is asked for now."""


def previous(path: Path) -> Path:
    """Where the checkpoint before `path` is kept: last.pt -> last.previous.pt."""
    return path.with_suffix(f".previous{path.suffix}")


def save(path: Path, state: Mapping[str, Any], keep_previous: bool = True) -> None:
    """Write `state`, which should hold its "config", to `path` so that a crash at any moment leaves a whole file.

    The new file is complete before the old one is renamed; a crash between the two renames leaves the old one under
    the name that `load` tries next. The bytes depend on the state alone, so their hash identifies it.
    """
    with paths.atomic_write(path) as part:
        # for this thread; on torch 2.11 for the whole process meanwhile
        without_checksums = serialization.patch("save.compute_crc32", False)  # type: ignore[attr-defined]
        with without_checksums, open(part, "wb") as file:  # a path's name, and so the process id, torch would write too
            torch.save(dict(state), file)
        checksum = bytes.fromhex(paths.file_hash(part))
        with open(part, "ab") as file:
            file.write(checksum)
        if keep_previous and path.exists():
            path.replace(previous(path))


def host_copy(tree: Any, place: Any = None) -> Any:
    """A copy of a tree of dicts and tensors, on the CPU, for a write that must not see the tensors change.

    `place`, an earlier copy of a tree of the same form, lends its memory. For CUDA tensors it is pinned, and up
    to twice as large. What is neither dict nor tensor is taken as it is.
    """
    if isinstance(tree, Tensor):
        if place is None:
            place = torch.empty_like(tree, device="cpu", pin_memory=tree.is_cuda)
        return place.copy_(tree)
    if isinstance(tree, Mapping):
        return {key: host_copy(value, None if place is None else place[key]) for key, value in tree.items()}
    return tree


def exists(path: Path) -> bool:
    """Whether `load` has something to read."""
    return path.exists() or previous(path).exists()


def load(path: Path, expected_config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the state in `path`, tensors on the CPU; with a warning that in the file before it if `path` is damaged.

    The damaged file is then deleted. Only plain values and tensors are read (`weights_only=True`), never code.
    FileNotFoundError when there is neither file; CheckpointDamaged when none is whole; CheckpointMismatch, naming the
    fields, when its "config" is not `expected_config` (None: any).
    """
    if not exists(path):
        raise FileNotFoundError(f"{path}: no such checkpoint: train this cell first")
    damage = find_damage(path)
    chosen = path if damage is None else previous(path)
    if damage is not None:
        if find_damage(chosen) is not None:
            raise CheckpointDamaged(f"{path}: {damage}, and none before it is whole: delete its folder to start anew")
        warnings.warn(f"{path}: {damage}; going on from {chosen.name}, which is older", stacklevel=2)
        path.unlink(missing_ok=True)  # the next `save` would put it in the place of the whole one
    state: dict[str, Any] = torch.load(chosen, map_location="cpu", weights_only=True)
    differing = [] if expected_config is None else paths.differences(state["config"], expected_config)
    if differing:
        raise CheckpointMismatch(
            f"{chosen} was made with another config ({'; '.join(differing[:3])}): delete its folder to train it again"
        )
    return state


def find_damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file, in a few words, or None when it is as it was written."""
    if not path.exists():
        return "missing"
    digest, left = hashlib.sha256(), path.stat().st_size - CHECKSUM_BYTES
    with open(path, "rb") as file:
        while left > 0 and (chunk := file.read(min(left, 1 << 20))):
            digest.update(chunk)
            left -= len(chunk)
        return None if file.read() == digest.digest() else "damaged (its checksum does not fit)"
