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
    read_off = reader(label, probability)
    curves = np.concatenate([read_off(weights) for weights in statistics.draws(patients, resamples, seed)])
    usable = curves[~np.isnan(curves[:, 0])]
    statistics.assure_usable(len(usable), resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile(usable, [tail, 1 - tail], axis=0)
    return GRID, low, high


def reader(label: ArrayLike, probability: ArrayLike) -> Callable[[Array], Array]:
    """A function of case weights (B, n): the true positive rates at GRID, (B, 101), straight between the points of each
    curve; nan where the weights leave one class."""
    order = np.argsort(-np.asarray(probability, dtype=float), kind="stable")
    scores, malignant = np.asarray(probability)[order], np.asarray(label)[order] == 1
    ends = np.flatnonzero(np.r_[np.diff(scores) != 0, True])  # last case of each group of equal scores

    def read_off(weights: Array) -> Array:
        true, false = (_called(weights[:, order] * cases, ends) for cases in (malignant, ~malignant))
        rates = np.full((len(weights), len(GRID)), np.nan)
        for row in np.flatnonzero((true[:, -1] > 0) & (false[:, -1] > 0)):
            rates[row] = np.interp(GRID, false[row] / false[row, -1], true[row] / true[row, -1])
        return rates

    return read_off


def _called(weights: Array, ends: NDArray[np.intp]) -> Array:
    """Weight of what is called malignant, from no case on to all of them: (B, points)."""
    return np.insert(np.cumsum(weights, axis=1)[:, ends], 0, 0, axis=1)
