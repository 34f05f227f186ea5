"""Logistic regressions fitted anew in every resample, and the AUC of what they say: an interval that knows of the fit.

Knows arrays only. Many resamples at once, as `statistics` has them: weights (B, n), a resample a row.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from mammo_lib.evaluation import statistics
from mammo_lib.evaluation.statistics import Array, Statistic

STEPS = 50  # of Newton's method, which needs under ten
SMALL = 1e-8  # a step after which the fit is taken as found
LEVEL = 1e-12  # a column with less variance than this, of 1 over all cases, does not vary in a resample


def aucs(
    label: ArrayLike, columns: ArrayLike, alone: ArrayLike, known: ArrayLike, fold: ArrayLike
) -> tuple[Statistic, Statistic]:
    """Two AUCs under case weights: that of a regression on `columns` (n, k), and that of the score `alone` (n,).

    In each `fold` (n,) the regression is fitted on the cases that are `known` (n,), under their weights, and tested on
    the others; only pairs of one fold count. nan where the known cases of a fold do not hold both classes.
    """
    malignant, x, score = np.asarray(label) == 1, np.asarray(columns, float), np.asarray(alone, float)
    fitted, folds = np.asarray(known, bool), np.asarray(fold)
    parts = [tuple(np.flatnonzero((folds == one) & part) for part in (fitted, ~fitted)) for one in np.unique(folds)]

    def together(weights: Array) -> Array:
        counted = []
        for learnt, tested in parts:
            slopes = slopes_of(x[learnt], malignant[learnt], weights[:, learnt])
            counted.append(_pairs(malignant[tested], slopes @ x[tested].T, weights[:, tested]))
        wins, pairs = np.sum(counted, axis=0)
        return np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)

    tests = np.concatenate([tested for _, tested in parts])
    return together, statistics.on(tests, statistics.weighted_auc(malignant[tests], score[tests], folds[tests]))


def slopes_of(columns: Array, malignant: NDArray[np.bool_], weights: Array) -> Array:
    """Slopes (B, k) of logistic regressions on `columns` (n, k) under case weights (B, n); the intercepts are left out.

    As scikit-learn fits `StandardScaler` and `LogisticRegression` on the weighted cases: each slope, times its column's
    standard deviation, is held by a penalty of half its square, the intercept by none. nan where a class has no weight.
    statistics.Undefined when the fit of one does not settle.
    """
    usable = (weights @ malignant > 0) & (weights @ ~malignant > 0)
    slopes = np.full((len(weights), columns.shape[1]), np.nan)
    scale = np.where(np.ptp(columns, axis=0) > 0, columns.std(axis=0), 1)
    slopes[usable] = _newton((columns - columns.mean(axis=0)) / scale, malignant, weights[usable]) / scale
    return slopes


def _newton(columns: Array, malignant: NDArray[np.bool_], weights: Array) -> Array:
    """The slopes of `slopes_of` where both classes have weight, by Newton's method. Undefined if it does not settle."""
    x = np.column_stack([np.ones(len(columns)), columns])
    width = x.shape[1]
    products = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    total = weights.sum(axis=1, keepdims=True)
    penalty = np.maximum(weights @ x**2 / total - (weights @ x / total) ** 2, 0)  # variances; 0 of the intercept
    penalty[:, 1:][penalty[:, 1:] < LEVEL] = 1  # or its slope and the intercept could not be told apart
    found = np.zeros(penalty.shape)
    for _ in range(STEPS):
        chance = expit(found @ x.T)
        slope = (weights * (chance - malignant)) @ x + penalty * found
        curvature = ((weights * chance * (1 - chance)) @ products).reshape(-1, width, width)
        curvature += penalty[:, None] * np.eye(width)
        step = np.linalg.solve(curvature, slope[..., None])[..., 0]
        found -= step
        if np.all(np.abs(step) < SMALL):
            return found[:, 1:]
    raise statistics.Undefined(f"the regression of both did not settle in {STEPS} steps in some of the resamples")


def _pairs(malignant: NDArray[np.bool_], scores: Array, weights: Array) -> Array:
    """Pairs ranked rightly, a tie as a half, and all pairs, (2, B): every resample has scores of its own, (B, n).

    `statistics.weighted_auc` sorts one score once; called for each resample, it would take three times as long.
    """
    order = np.argsort(scores, axis=1, kind="stable")
    ranked, weight = (np.take_along_axis(one, order, axis=1) for one in (scores, weights))
    positive = weight * malignant[order]
    below = np.zeros((len(scores), scores.shape[1] + 1))
    np.cumsum(weight - positive, axis=1, out=below[:, 1:])
    place, last = np.arange(scores.shape[1]), scores.shape[1] - 1
    begins = np.ones(scores.shape, bool)  # of a run of equal scores
    begins[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    first = np.maximum.accumulate(np.where(begins, place, 0), axis=1)
    ends = np.roll(begins, -1, axis=1)
    ends[:, last] = True
    after = np.minimum.accumulate(np.where(ends, place, last)[:, ::-1], axis=1)[:, ::-1] + 1
    level = (np.take_along_axis(below, one, axis=1) for one in (first, after))
    wins = (positive * sum(level)).sum(axis=1) / 2
    wins[np.isnan(scores).any(axis=1)] = np.nan
    return np.stack([wins, positive.sum(axis=1) * below[:, -1]])
