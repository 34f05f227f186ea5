"""The history of a cell as TensorBoard events, when the extra `tensorboard` is installed.

Knows history.csv alone: events are drawn from it anew after every epoch, so that a training that was killed and goes on
has each of its epochs once.
"""

from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from mammo_lib.training.folder import HISTORY

FILES = "events.out.tfevents.*"  # as TensorBoard names them


def installed() -> bool:
    """Whether the extra `tensorboard` is there."""
    return find_spec("tensorboard") is not None


def write(folder: Path) -> None:
    """Replace the events of the cell in `folder` by those of its history.csv: a scalar a column, the epoch as step.

    The time of an event is that of training so far, seconds from 0: "relative" in TensorBoard, sound after a resume.
    """
    from torch.utils.tensorboard import SummaryWriter

    old = list(folder.glob(FILES))
    table = pd.read_csv(folder / HISTORY).set_index("epoch")
    with SummaryWriter(folder, purge_step=0) as writer:  # one that watches forgets what it read of the old file
        for (epoch, row), time in zip(table.iterrows(), table["seconds"].cumsum(), strict=True):
            for name, value in row.dropna().items():
                writer.add_scalar(str(name), value, epoch, walltime=time)
    for file in old:
        file.unlink()
