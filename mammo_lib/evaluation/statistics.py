"""Intervals and tests: bootstrap over patients, DeLong, paired differences, Holm.

Knows arrays only: no file, no table, no network. All of a patient's cases move together through every resample, because
they are not independent. A statistic is a function of case weights: `weights (B, n) -> values (B,)`, nan where a
resample does not define it; so the same code serves an AUC, a rate, and the difference of two networks on the same
cases. DeLong's method takes every case for independent; with patients given, Obuchowski's does not.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]

CHUNK = 50_000  # case weights held at once; larger blocks are fetched anew from the system each time. Changes no result
NO_VARIANCE = 1e-15  # rounding leaves +-1e-18 where it is 0; the crossed terms of patients may take it below
NOTED = 0.001  # ours: a smaller share of resamples that are left out moves no end by a digit that is shown
LEAST_USABLE = 0.5  # ours: an interval from fewer than half of the resamples would describe the exceptions


class Undefined(ValueError):
    """The interval or test does not exist for these cases; the message says why."""


@dataclass(frozen=True)
class Replicates:
    """Bootstrap of one statistic.

    `values`: the resamples that define it. `excluded`: how many did not (one class only). They are left out, not
    redrawn: what is left has the same distribution as redrawing gives, and every network keeps the same resamples.
    `patients` (n,) is kept for the jackknife.
    """

    estimate: float
    values: Array
    excluded: int
    statistic: Statistic
    patients: NDArray[np.intp]


@dataclass(frozen=True)
class Interval:
    """`low <= high`, by `method` ("percentile", "bca", "delong" or "obuchowski")."""

    estimate: float
    low: float
    high: float
    method: str

    @property
    def is_point(self) -> bool:
        """Whether both ends are the same. Such an interval says nothing of other cases: 0 of 20 is not 0 of all."""
        return self.low == self.high


def weighted_auc(label: ArrayLike, probability: ArrayLike, fold: ArrayLike | None = None) -> Statistic:
    """AUC under case weights: sorted once, then cumulative sums; ties count one half.

    `fold` (n,): the fold that each case was tested in; only pairs of one fold count then (`metrics.auc`).
    """
    malignant, scores = np.asarray(label) == 1, np.asarray(probability, dtype=float)
    counted = [_pairs(malignant, scores, cases) for cases in _folds(len(scores), fold)]

    def statistic(weights: Array) -> Array:
        wins, pairs = np.sum([pairs_of(weights) for pairs_of in counted], axis=0)
        return _divide(wins, pairs)

    return statistic


def _pairs(malignant: NDArray[np.bool_], scores: Array, cases: NDArray[np.intp]) -> Statistic:
    """Pairs of `cases` ranked rightly, and all pairs, under case weights: (2, B)."""
    positives, negatives = _by_score(malignant, scores, cases)
    sides = [np.searchsorted(scores[negatives], scores[positives], side) for side in ("left", "right")]

    def pairs(weights: Array) -> Array:
        positive, negative = weights.T[positives], weights.T[negatives]  # a resample a column: whole rows are moved
        below = _running(negative)
        wins = np.sum([np.einsum("pb,pb->b", positive, below[side]) for side in sides], axis=0) / 2  # a tie is a half
        return np.stack([wins, positive.sum(axis=0) * below[-1]])

    return pairs


def _running(ordered: Array) -> Array:
    """Of (n, B): the sums of the first 0, 1, ... n rows, (n + 1, B)."""
    sums = np.zeros((len(ordered) + 1, ordered.shape[1]))
    np.cumsum(ordered, axis=0, out=sums[1:])
    return sums


def _by_score(
    malignant: NDArray[np.bool_], scores: Array, cases: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The malignant and the benign of `cases`, each from the least score up."""
    order = cases[np.argsort(scores[cases], kind="stable")]
    return order[malignant[order]], order[~malignant[order]]


def _folds(cases: int, fold: ArrayLike | None) -> list[NDArray[np.intp]]:
    """The cases of each fold; all of them where there are no folds."""
    code = np.zeros(cases) if fold is None else np.asarray(fold)
    return [np.flatnonzero(code == name) for name in np.unique(code)]


def weighted_ratio(numerator: ArrayLike, denominator: ArrayLike) -> Statistic:
    """Sum of `numerator` (n,) over sum of `denominator` (n,) under case weights: any rate or mean."""
    above, below = np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)

    def statistic(weights: Array) -> Array:
        return _divide(weights @ above, weights @ below)

    return statistic


def weighted_average_precision(label: ArrayLike, probability: ArrayLike) -> Statistic:
    """Average precision under case weights: sum of precision at each observed score times the recall it adds."""
    called = -np.asarray(probability, dtype=float)  # the highest score first
    positives, negatives = _by_score(np.asarray(label) == 1, called, np.arange(len(called)))
    ends = [np.searchsorted(called[cases], called[positives], "right") for cases in (positives, negatives)]

    def statistic(weights: Array) -> Array:
        positive, negative = weights.T[positives], weights.T[negatives]  # a resample a column, as in `_pairs`
        found, false = (_running(some)[end] for some, end in zip((positive, negative), ends, strict=True))
        precision = np.divide(found, found + false, out=np.zeros_like(found), where=found > 0)
        return _divide(np.einsum("pb,pb->b", positive, precision), positive.sum(axis=0))

    return statistic


def difference(first: Statistic, second: Statistic) -> Statistic:
    """First minus second on the same cases and the same resamples."""
    return lambda weights: first(weights) - second(weights)


def mean(of: Sequence[Statistic]) -> Statistic:
    """The mean of several statistics of the same cases on the same resamples."""
    return lambda weights: np.mean([statistic(weights) for statistic in of], axis=0)


def on(cases: NDArray[np.intp], statistic: Statistic) -> Statistic:
    """`statistic` of a subset of the cases, given by their indices: to compare two overlapping sets of patients."""
    return lambda weights: statistic(weights[:, cases])


def _divide(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)


def bootstrap(statistic: Statistic, patients: ArrayLike, resamples: int, seed: int) -> Replicates:
    """Resample patients with replacement, `resamples` times; a case weighs as often as its patient was drawn.

    `patients`: the patient of each case, (n,). The draw depends on seed, resamples and number of patients alone.
    Undefined for fewer than two patients, for a statistic that the cases do not define, and when fewer than half of
    the resamples define it.
    """
    code = np.unique(np.asarray(patients), return_inverse=True)[1]
    drawn = draws(code, resamples, seed)
    estimate = float(statistic(np.ones((1, len(code))))[0])
    if np.isnan(estimate):
        raise Undefined("bootstrap over patients: the cases do not define the statistic (one class only)")
    values = np.concatenate([statistic(weights) for weights in drawn])
    usable = values[~np.isnan(values)]
    assure_usable(len(usable), resamples)
    return Replicates(estimate, usable, resamples - len(usable), statistic, code)


def left_out(replicates: Replicates) -> str:
    """How many resamples were left out, in words; nothing where it is less than the share NOTED."""
    count = replicates.excluded + len(replicates.values)
    told = replicates.excluded >= NOTED * count and replicates.excluded > 0
    return f"{replicates.excluded} of {count} resamples hold one class and are left out" if told else ""


def draws(patients: ArrayLike, resamples: int, seed: int) -> Iterator[Array]:
    """The case weights of `bootstrap`, some resamples at once: (B, n) each. Undefined for fewer than two patients."""
    names, code = np.unique(np.asarray(patients), return_inverse=True)
    if len(names) < 2:
        raise Undefined(f"bootstrap over patients: {len(names)} patient, at least two are needed")
    times, rows = _times_drawn(len(names), resamples, seed), _rows(len(code))
    # in memory a resample is a column, as `_pairs` wants it
    return (times[:, start : start + rows].astype(float)[code].T for start in range(0, resamples, rows))


@lru_cache(maxsize=4)
def _times_drawn(patients: int, resamples: int, seed: int) -> NDArray[np.uint8]:
    """How often each resample draws each patient: (patients, resamples). Kept, for every network is asked of the same.

    A byte holds it: that one patient is drawn 256 times has a chance below 1e-500.
    """
    generator, rows = np.random.default_rng(seed), _rows(patients)
    times = np.empty((patients, resamples), np.uint8)
    for start in range(0, resamples, rows):
        part = times[:, start : start + rows]
        chosen = generator.integers(patients, size=part.T.shape) + patients * np.arange(part.shape[1])[:, None]
        part[:] = np.bincount(chosen.ravel(), minlength=chosen.size).reshape(chosen.shape).T
    times.flags.writeable = False
    return times


def _rows(cases: int) -> int:
    """How many resamples of so many cases are held at once."""
    return max(1, CHUNK // cases)


def assure_usable(usable: int, resamples: int) -> None:
    """Undefined when too few of the resamples define what is asked of them."""
    if usable < LEAST_USABLE * resamples:
        raise Undefined(f"bootstrap over patients: only {usable} of {resamples} resamples hold both classes")


def percentile(replicates: Replicates, confidence: float = 0.95) -> Interval:
    """Efron's percentile interval; one point when every resample gives the estimate (perfect separation)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(replicates.values, [tail, 1 - tail])
    return Interval(replicates.estimate, float(low), float(high), "percentile")


def auc_interval(
    label: ArrayLike, probability: ArrayLike, patients: ArrayLike, resamples: int, confidence: float, seed: int
) -> Interval:
    """Percentile interval, over patients, of the AUC of some cases, (n,) each. Undefined as in `bootstrap`."""
    return percentile(bootstrap(weighted_auc(label, probability), patients, resamples, seed), confidence)


def bca(replicates: Replicates, confidence: float = 0.95) -> Interval:
    """Bias-corrected and accelerated interval (Efron 1987), acceleration by leaving out one patient at a time.

    Undefined when the estimate lies outside all resamples or when leaving one patient out leaves one class. Costs one
    evaluation per patient.
    """
    tail, values = (1 - confidence) / 2, replicates.values
    below = (np.mean(values < replicates.estimate) + np.mean(values <= replicates.estimate)) / 2
    if below in (0, 1):
        raise Undefined("BCa interval: the estimate lies outside all resamples")
    bias, acceleration = norm.ppf(below), _acceleration(replicates)
    shifted = bias + norm.ppf([tail, 1 - tail])
    low, high = np.quantile(values, norm.cdf(bias + shifted / (1 - acceleration * shifted)))
    return Interval(replicates.estimate, float(low), float(high), "bca")


def _acceleration(replicates: Replicates) -> float:
    code = replicates.patients
    count, rows = int(code.max()) + 1, _rows(len(code))
    left_out = np.concatenate(
        [
            replicates.statistic((np.arange(start, min(start + rows, count))[:, None] != code).astype(float))
            for start in range(0, count, rows)
        ]
    )
    if np.isnan(left_out).any():
        raise Undefined("BCa interval: without one of the patients a class is empty; use the percentile interval")
    spread = left_out.mean() - left_out
    scale = (spread**2).sum() ** 1.5
    return float((spread**3).sum() / (6 * scale)) if scale > 0 else 0.0


def bootstrap_p(replicates: Replicates) -> float:
    """Two-sided p that a difference is 0: twice the smaller share of resamples on either side of 0.

    The percentile interval inverted; one is added to count and total (Davison and Hinkley 1997, 4.2), so that p is
    never 0.
    """
    values = replicates.values
    smaller = min(int((values <= 0).sum()), int((values >= 0).sum()))
    return float(min(1.0, 2 * (smaller + 1) / (len(values) + 1)))


def delong(
    label: ArrayLike, probabilities: ArrayLike, fold: ArrayLike | None = None, patients: ArrayLike | None = None
) -> tuple[Array, Array]:
    """AUCs (k,) and their covariance (k, k) for k scores of the same n cases (DeLong et al. 1988).

    `probabilities` is (k, n) or (n,). By midranks, O(k n log n) (Sun and Xu 2014). With `patients` (n,) the cases of a
    patient may depend on each other, of either class (Obuchowski 1997); without, every case is a patient of its own.
    With `fold` (n,) each fold's AUC weighs as its pairs do (`metrics.auc`), and the folds' variances add up: no patient
    is tested in two. Undefined with fewer than two patients in a class, where the variance does not exist.
    """
    malignant, scores = np.asarray(label) == 1, np.atleast_2d(np.asarray(probabilities, dtype=float))
    patient = np.arange(len(malignant)) if patients is None else np.unique(patients, return_inverse=True)[1]
    folds = [(malignant[cases], scores[:, cases], patient[cases]) for cases in _folds(len(malignant), fold)]
    used = [one for one in folds if one[0].any() and not one[0].all()]
    if not used:
        raise Undefined(f"DeLong: no fold of these {len(malignant)} cases holds both classes")
    pairs = np.array([float(classes.sum()) * float((~classes).sum()) for classes, *_ in used])
    found, shares = [_delong(*one) for one in used], pairs / pairs.sum()
    aucs = np.sum([share * auc for share, (auc, _) in zip(shares, found, strict=True)], axis=0)
    return aucs, np.sum([share**2 * one for share, (_, one) in zip(shares, found, strict=True)], axis=0)


def _delong(malignant: NDArray[np.bool_], scores: Array, patient: NDArray[np.intp]) -> tuple[Array, Array]:
    """Of one fold: a case's placement is the share of the other class that it is ranked rightly against.

    The covariance is that of the placements' means over malignant and over benign cases, summed within patients first.
    """
    positives, negatives = int(malignant.sum()), int((~malignant).sum())
    names, code = np.unique(patient, return_inverse=True)
    of_class = [len(np.unique(code[cases])) for cases in (malignant, ~malignant)]
    if min(of_class) < 2:
        raise Undefined(
            f"DeLong: malignant cases of {of_class[0]} and benign of {of_class[1]} patients, of two at least"
        )
    ranks = rankdata(scores, axis=1)
    above_benign = (ranks[:, malignant] - rankdata(scores[:, malignant], axis=1)) / negatives
    below_malignant = 1 - (ranks[:, ~malignant] - rankdata(scores[:, ~malignant], axis=1)) / positives
    aucs = above_benign.mean(axis=1)
    sums = np.zeros((2, len(scores), len(names)))  # of what placements differ from the AUC, by class and patient
    for total, values, cases in zip(sums, (above_benign, below_malignant), (malignant, ~malignant), strict=True):
        np.add.at(total.T, code[cases], (values - aucs[:, None]).T)
    first, second = sums[0] / positives, sums[1] / negatives
    within = [count / (count - 1) for count in (*of_class, len(names))]
    crossed = first @ second.T
    covariance = within[0] * first @ first.T + within[1] * second @ second.T + within[2] * (crossed + crossed.T)
    return aucs, covariance


def delong_interval(
    label: ArrayLike,
    probability: ArrayLike,
    confidence: float = 0.95,
    fold: ArrayLike | None = None,
    patients: ArrayLike | None = None,
) -> Interval:
    """Normal interval of one AUC, cut to [0, 1]; one point under perfect separation, where the variance is 0."""
    aucs, covariance = delong(label, probability, fold, patients)
    if covariance[0, 0] < NO_VARIANCE and 0 < aucs[0] < 1:
        by = "" if patients is None else " by patient"
        raise Undefined(f"DeLong's interval{by}: it has no variance in these cases")
    half = norm.ppf((1 + confidence) / 2) * np.sqrt(max(covariance[0, 0], 0))
    low, high = np.clip([aucs[0] - half, aucs[0] + half], 0, 1)
    return Interval(float(aucs[0]), float(low), float(high), "delong" if patients is None else "obuchowski")


def delong_test(
    label: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    fold: ArrayLike | None = None,
    patients: ArrayLike | None = None,
) -> float:
    """Two-sided p of DeLong's test that two scores of the same cases have the same AUC. Identical ranks: 1."""
    aucs, covariance = delong(label, np.stack([np.asarray(first, float), np.asarray(second, float)]), fold, patients)
    gap = float(aucs[0] - aucs[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    error = float(np.sqrt(variance)) if variance > NO_VARIANCE else 0.0
    if error == 0 and abs(gap) > 1e-12:
        raise Undefined("DeLong's test: the two AUCs differ and their difference has no variance in these cases")
    return float(2 * norm.sf(abs(gap) / error)) if error else 1.0


def holm(p_values: ArrayLike) -> Array:
    """Holm's (1979) adjusted p values of one family, (m,) in the order given; each is at most 1."""
    p = np.asarray(p_values, dtype=float)
    if np.isnan(p).any() or (p < 0).any() or (p > 1).any():
        raise ValueError("holm: every p value must lie in [0, 1]")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted
