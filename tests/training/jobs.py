"""Jobs that tests hand to other processes, which import this module by name: no torch before a job needs it."""

import os
import signal
import time
from pathlib import Path

from mammo_lib.training.experiments import Cell, Outcome
from mammo_lib.training.folder import claim


def note(folder, cell: Cell) -> Outcome:
    """Say when the cell began and ended, and in which process."""
    started = time.time()
    time.sleep(0.05)
    place = Path(folder) / cell.name
    place.mkdir(parents=True, exist_ok=True)
    threads = os.environ.get("OMP_NUM_THREADS", "")
    (place / "note").write_text(f"{started} {time.time()} {os.getpid()} {threads}")
    return Outcome(cell, "done")


def deadly_once(folder, cell: Cell) -> Outcome:
    """The first attempt at vgg16 kills its process; every other attempt is a note."""
    mark = Path(folder) / "killed"
    if cell.network == "vgg16" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return note(folder, cell)


def deadly(folder, cell: Cell) -> Outcome:
    """Every attempt at vgg16 kills its process."""
    if cell.network == "vgg16":
        os.kill(os.getpid(), signal.SIGKILL)
    return note(folder, cell)


def train_resnet_slowly(folder, cell: Cell) -> Outcome:
    """Train the P cell of resnet50; every other cell is a note.

    A line in `attempts` for each process that trains: its number, and the epochs that it finds done.
    """
    if cell.stage != "P" or cell.network != "resnet50":
        return note(folder, cell)
    import tiny_training

    from mammo_lib.training import checkpoint

    place = Path(folder) / cell.name
    place.mkdir(parents=True, exist_ok=True)
    last = place / "last.pt"
    finished = checkpoint.load(last)["epoch"] if checkpoint.exists(last) else 0
    with open(place / "attempts", "a") as file:
        file.write(f"{os.getpid()} {finished}\n")
    tiny_training.train(place, seed=cell.seed, progress=lambda line: time.sleep(0.1))
    return Outcome(cell, "done")


def hold(folder) -> None:
    """Hold a cell's folder for five minutes."""
    with claim(Path(folder)):
        time.sleep(300)
