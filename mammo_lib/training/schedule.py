"""The history of a training, and what follows from it: when the learning rate falls, when it ends, what is kept (2.5).

Knows neither images nor files. Each rule is a function of the finished epochs alone, so that a training which was
interrupted decides as one that was not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mammo_lib.config import Training


@dataclass(frozen=True)
class Epoch:
    """One finished epoch: a row of history.csv. Losses are mean cross entropies in nats, accuracies shares."""

    epoch: int  # from 1
    learning_rate: float  # the one it was trained with
    train_loss: float  # of the augmented images, each with the weights of its own step
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    validation_auc: float  # NaN when the validation part holds one class only
    seconds: float  # training and validation, not waiting for a checkpoint


@dataclass(frozen=True)
class History:
    """What a training returns: its epochs and how fast they went."""

    epochs: tuple[Epoch, ...]
    train_images: int  # per epoch

    @property
    def best(self) -> Epoch:
        """The epoch whose weights are kept."""
        return best(self.epochs)

    @property
    def images_per_second(self) -> float:
        """Training images per second of the median epoch, validation included, waiting for a checkpoint excluded."""
        return self.train_images / float(np.median([row.seconds for row in self.epochs]))

    def frame(self) -> pd.DataFrame:
        """One row per epoch: the columns of history.csv."""
        return pd.DataFrame(self.epochs)


def plateau(optimiser: Optimizer, settings: Training, epochs: Sequence[Epoch] = ()) -> ReduceLROnPlateau:
    """The rule "learning rate x 0.2 when validation accuracy has not risen for 10 epochs", brought up to `epochs`.

    Torch's `patience` counts the epochs without a rise that it lets pass, and acts on the next: one more than the
    text says. The optimiser must have the initial learning rate; on return it has the one of the next epoch.
    """
    rule = ReduceLROnPlateau(
        optimiser, mode="max", factor=settings.plateau_factor, patience=settings.plateau_patience - 1, threshold=0.0
    )
    for row in epochs:
        rule.step(row.validation_accuracy)
    return rule


def learning_rate(optimiser: Optimizer) -> float:
    """The one of the next epoch, to six digits: on CUDA it is a float32 tensor, in which 1e-5 is 9.99999975e-06."""
    return float(f"{float(optimiser.param_groups[0]['lr']):.6g}")


def without_rise(epochs: Sequence[Epoch]) -> int:
    """Epochs since validation accuracy last rose above all before; 0 when the last epoch did, or when there is none."""
    accuracies = [row.validation_accuracy for row in epochs]
    return len(accuracies) - 1 - accuracies.index(max(accuracies)) if accuracies else 0


def finished(epochs: Sequence[Epoch], settings: Training) -> bool:
    """Whether the training ends here: epochs used up, or validation accuracy has not risen for `stop_patience`."""
    return len(epochs) >= settings.max_epochs or without_rise(epochs) >= settings.stop_patience


def best(epochs: Sequence[Epoch]) -> Epoch:
    """The epoch to keep: highest validation accuracy; of equals the lowest validation loss; of equals the first.

    A tie that a lower loss wins is kept, and is no rise: plateau and stop go by accuracy alone.
    """
    return min(epochs, key=lambda row: (-row.validation_accuracy, row.validation_loss))


def describe(epochs: Sequence[Epoch], settings: Training) -> str:
    """The last finished epoch in one line, with the longest time that may be left."""
    row, kept = epochs[-1], best(epochs)
    seconds = float(np.mean([past.seconds for past in epochs])) * (settings.max_epochs - row.epoch)
    return (
        f"epoch {row.epoch}/{settings.max_epochs}  loss {row.train_loss:.4f}  "
        f"validation loss {row.validation_loss:.4f}  accuracy {row.validation_accuracy:.4f} "
        f"(best {kept.validation_accuracy:.4f}, epoch {kept.epoch})  learning rate {row.learning_rate:.3g}  "
        f"{row.seconds:.1f} s  at most {format_seconds(seconds)} left"
    )


def format_seconds(seconds: float) -> str:
    """12 s, 3 min, 2 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
