"""The folder of one training: the names of its files, and the claim of one process on it.

Knows nothing of what the files hold.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mammo_lib import paths

LAST = "last.pt"  # state after an epoch, written while the next one trains
BEST = "best.pt"  # weights of the best epoch
HISTORY = "history.csv"  # one row per finished epoch; may be ahead of last.pt
RECORD = "run.json"  # written last: the cell is done
WARM_UP = "warm_up"  # a folder of the same kind below it, where a training goes before this one
TRAINING_CLAIM = ".claim"  # held while a training runs,
CELL_CLAIM = ".cell"  # and around it until the cell's record is written
RUN_LOCK = ".lock"  # in the folder of a profile's runs, held by run_all.sh
WORK_LOCK = ".work"  # in the same folder, held together by all that train below it, by `forget` alone
FAILURE = "failure.txt"  # traceback of the last attempt, if it failed
BUSY = "another process trains here: wait until it ends, or end it"
PAUSES = (0, *[0.02] * 25)  # seconds between attempts: `is_claimed` holds a lock for a moment, longer on a busy machine


class FolderBusy(RuntimeError):
    """Another process is writing to this folder."""


@contextmanager
def claim(folder: Path, lock: str = TRAINING_CLAIM) -> Iterator[None]:
    """Make `folder` and hold one of its locks for this process; FolderBusy when it is held already.

    The claim is a lock of the operating system: it ends with the process, however that ends. What a killed process
    left half-written is removed; other steps may be writing here.
    """
    with _locked(folder, lock, fcntl.LOCK_EX, BUSY):
        paths.remove_parts(folder)
        yield


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Say that this process trains somewhere below `folder`, as others may; FolderBusy while another is `alone_in` it.

    Held from the first to the last of its cells, also while their processes start and none is claimed yet.
    """
    with _locked(folder, WORK_LOCK, fcntl.LOCK_SH, "what is here is being deleted: wait until that ends"):
        yield


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold `folder` with nobody `at_work` below it; FolderBusy when somebody is."""
    with _locked(folder, WORK_LOCK, fcntl.LOCK_EX, BUSY):
        yield


@contextmanager
def _locked(folder: Path, lock: str, kind: int, busy: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / lock, "a+") as file:  # NFS wants a file that can be read for a lock that is shared
        if not any(_held(file, kind, pause) for pause in PAUSES):
            raise FolderBusy(f"{folder}: {busy}")
        yield


def _held(file: IO[str], kind: int, pause: float) -> bool:
    """Whether the lock could be had, after `pause` seconds."""
    time.sleep(pause)
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def turn(file: Path) -> Iterator[None]:
    """Wait until no process holds `file`, then hold it; as with `claim`, the lock ends with the process."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_claimed(folder: Path) -> bool:
    """Whether a live process holds a lock of `folder`."""
    for lock in filter(Path.exists, (folder / name for name in (TRAINING_CLAIM, CELL_CLAIM, RUN_LOCK))):
        with open(lock) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False
