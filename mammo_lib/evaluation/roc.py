"""Interval band of a ROC curve: resampled over patients, read off at fixed false positive rates.

Knows arrays only, as statistics.py does, and draws patients as it does: all of a patient's cases move together.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mammo_lib.evaluation import statistics

Array = NDArray[np.float64]

GRID = np.linspace(0, 1, 101)  # ours: false positive rates at which the band is read


def band(
    label: ArrayLike, probability: ArrayLike, patients: ArrayLike, resamples: int, confidence: float, seed: int
) -> tuple[Array, Array, Array]:
    """Pointwise percentile limits of the true positive rate: (false positive rates, low, high), each (101,).

    label: 1 = malignant; all three of one length. A resample without one of the classes has no curve and is left out;
    statistics.Undefined when fewer than half are usable, or there is one patient only.
    """
    drawn = (weights for some in statistics.draws(patients, resamples, seed) for weights in some)
    read_off = reader(label, probability)
    usable = [curve for curve in map(read_off, drawn) if curve is not None]
    statistics.assure_usable(len(usable), resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile(usable, [tail, 1 - tail], axis=0)
    return GRID, low, high


def reader(label: ArrayLike, probability: ArrayLike) -> Callable[[Array], Array | None]:
    """A function of case weights (n,): the true positive rate at GRID, straight between the curve's points; None where
    the weights leave one class."""
    order = np.argsort(-np.asarray(probability, dtype=float), kind="stable")
    scores, malignant = np.asarray(probability)[order], np.asarray(label)[order] == 1
    ends = np.flatnonzero(np.r_[np.diff(scores) != 0, True])  # last case of each group of equal scores

    def read_off(weights: Array) -> Array | None:
        weight = weights[order]
        true = np.r_[0, np.cumsum(weight * malignant)[ends]]
        false = np.r_[0, np.cumsum(weight * ~malignant)[ends]]
        if true[-1] == 0 or false[-1] == 0:
            return None
        return np.interp(GRID, false / false[-1], true / true[-1])

    return read_off
