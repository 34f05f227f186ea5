"""Scores in, numbers out: what one set of labels and malignancy scores amounts to.

Knows no file, no network and no table; `aggregate` knows the column names of a predictions table. Throughout, `label`
is int (n,) with 1 = malignant (the positive class, section 3.1 of the paper) and `probability` is float (n,) of
malignancy. A number that does not exist for the cases given (the AUC of one class) raises `Undefined`; only the
calibration error of no case is nan.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

UNITS = ("patch", "mass", "image", "breast", "patient")
CALIBRATION_BINS = 10  # of the expected calibration error, the usual number (Naeini et al. 2015)


class Undefined(ValueError):
    """The number asked for does not exist for these cases; the message says why."""


@dataclass(frozen=True)
class Counts:
    """Confusion matrix at one threshold. Rates raise Undefined where their class has no case."""

    true_positive: int
    false_negative: int
    true_negative: int
    false_positive: int

    @property
    def malignant(self) -> int:
        return self.true_positive + self.false_negative

    @property
    def benign(self) -> int:
        return self.true_negative + self.false_positive

    @property
    def sensitivity(self) -> float:
        return _share(self.true_positive, self.malignant, "sensitivity: no malignant case")

    @property
    def specificity(self) -> float:
        return _share(self.true_negative, self.benign, "specificity: no benign case")

    @property
    def accuracy(self) -> float:
        return _share(self.true_positive + self.true_negative, self.malignant + self.benign, "accuracy: no case")


def _share(part: int, whole: int, reason: str) -> float:
    if whole == 0:
        raise Undefined(reason)
    return part / whole


def checked(label: ArrayLike, probability: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Label as bool and probability as float64, both (n,); ValueError for other shapes, labels or a nan."""
    labels, scores = np.asarray(label), np.asarray(probability, dtype=float)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(
            f"label {labels.shape} and probability {scores.shape} must be one-dimensional and equally long"
        )
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"label holds {np.setdiff1d(labels, (0, 1))[:3].tolist()}: only 0 and 1 (malignant) are known")
    if np.isnan(scores).any():
        raise ValueError(f"probability holds {int(np.isnan(scores).sum())} nan")
    return labels.astype(bool), scores


def counts(label: ArrayLike, probability: ArrayLike, threshold: float) -> Counts:
    """Confusion matrix when `probability >= threshold` is called malignant."""
    malignant, scores = checked(label, probability)
    called = scores >= threshold
    return Counts(
        true_positive=int((malignant & called).sum()),
        false_negative=int((malignant & ~called).sum()),
        true_negative=int((~malignant & ~called).sum()),
        false_positive=int((~malignant & called).sum()),
    )


def auc(label: ArrayLike, probability: ArrayLike, fold: ArrayLike | None = None) -> float:
    """Area under the ROC curve: share of (malignant, benign) pairs ranked rightly, ties one half (Mann-Whitney).

    `fold` (n,): the fold that each case was tested in. Only pairs of one fold count then: scores of two networks are
    not ranked against each other.
    """
    malignant, scores = checked(label, probability)
    wins, pairs = 0.0, 0
    for chosen in _folds(len(malignant), fold):
        positives, negatives = int(malignant[chosen].sum()), int((~malignant[chosen]).sum())
        wins += float(rankdata(scores[chosen])[malignant[chosen]].sum()) - positives * (positives + 1) / 2
        pairs += positives * negatives
    if not pairs:
        raise Undefined(
            f"AUC: {len(malignant)} cases, all of one class" + (" in each fold" if fold is not None else "")
        )
    return wins / pairs


def _folds(cases: int, fold: ArrayLike | None) -> list[NDArray[np.bool_]]:
    """Which cases are of each fold; all of them where there are no folds."""
    code = np.zeros(cases) if fold is None else np.asarray(fold)
    return [code == name for name in np.unique(code)]


def calibration_error(label: ArrayLike, probability: ArrayLike) -> float:
    """Expected calibration error, in [0, 1]: sum_b (n_b / n) |mean probability - malignant share| of bin b.

    Naeini et al. 2015, for the positive class. It depends on the CALIBRATION_BINS, which are of equal width, the last
    with 1: state them. nan without cases.
    """
    scores = np.asarray(probability, dtype=float)
    gap, edges = scores - (np.asarray(label) == 1), np.linspace(0, 1, CALIBRATION_BINS + 1)
    by_bin = np.bincount(np.digitize(scores, edges[1:-1]), weights=gap)
    return float(np.abs(by_bin).sum() / len(gap)) if len(gap) else float("nan")


def youden_threshold(label: ArrayLike, probability: ArrayLike) -> float:
    """The observed score that maximises sensitivity + specificity - 1; of equals the lowest, the more sensitive (ours).

    Choose it on validation and apply it to test.
    """
    thresholds, found, cleared = _operating_points(label, probability, "Youden threshold")
    malignant, benign = int(found[0]), int(np.size(label) - found[0])  # the lowest score finds every malignant case
    return float(thresholds[np.argmax(found * benign + cleared * malignant)])  # in integers, so that ties are exact


def threshold_at_specificity(label: ArrayLike, probability: ArrayLike, specificity: float) -> float:
    """Lowest threshold at which at least `specificity` of the benign cases are called benign.

    An observed score, or the next float above the highest one when no observed score does it. Choose it on validation.
    """
    thresholds, found, cleared = _operating_points(label, probability, "threshold at fixed specificity")
    enough = np.flatnonzero(cleared / (np.size(label) - found[0]) >= specificity)
    return float(thresholds[enough[0]] if len(enough) else np.nextafter(thresholds[-1], np.inf))


def _operating_points(
    label: ArrayLike, probability: ArrayLike, what: str
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Each observed score, ascending, with the true positives and true negatives when it is the threshold."""
    malignant, scores = _two_classes(label, probability, what)
    thresholds = np.unique(scores)
    missed = np.searchsorted(np.sort(scores[malignant]), thresholds, side="left")
    cleared = np.searchsorted(np.sort(scores[~malignant]), thresholds, side="left")
    return thresholds, malignant.sum() - missed, cleared


def _two_classes(label: ArrayLike, probability: ArrayLike, what: str) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    malignant, scores = checked(label, probability)
    if malignant.all() or not malignant.any():
        raise Undefined(f"{what}: {len(malignant)} cases, all of one class")
    return malignant, scores


def aggregate(predictions: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Predictions per patch, mass, image, breast or patient; a unit is malignant if any of its cases is.

    A mass is the mean of its patches; an image the highest of its masses (what an image is judged by); a breast, by
    `side`, the mean of its views; a patient the higher of her breasts (all but the first are ours). Predictions without
    `mass_id` are images already. Never crosses `part` nor `fold`.

    Returns columns `id, patient_id, part, fold, label, probability, cases` (rows that went in), sorted by part, fold
    and id.
    ValueError for an unknown unit or one finer than the predictions.
    """
    _check_unit(predictions, unit)
    frame = predictions.assign(cases=1)
    if unit == "patch":
        return _tidy(frame)
    if _has_masses(predictions):
        frame = _merge(frame, "mass_id", "mean")
        if unit == "mass":
            return _tidy(frame)
        frame = _merge(frame, "image_id", "max")
    else:
        frame = frame.assign(id=frame["image_id"])
    if unit == "image":
        return _tidy(frame)
    frame = _merge(frame.assign(breast_id=frame["patient_id"] + "_" + frame["side"]), "breast_id", "mean")
    return _tidy(frame if unit == "breast" else _merge(frame, "patient_id", "max"))


def _has_masses(predictions: pd.DataFrame) -> bool:
    return "mass_id" in predictions and bool(predictions["mass_id"].astype(object).fillna("").ne("").all())


def _check_unit(predictions: pd.DataFrame, unit: str) -> None:
    if unit not in UNITS:
        raise ValueError(f"unknown unit {unit!r}: choose one of {', '.join(UNITS)}")
    if unit in ("patch", "mass") and not _has_masses(predictions):
        raise ValueError(f"unit {unit}: predictions without mass_id are per image, which is coarser")


def _merge(frame: pd.DataFrame, key: str, how: str) -> pd.DataFrame:
    kept = {name: (name, "first") for name in ("mass_id", "image_id", "patient_id", "side") if name in frame}
    kept.pop(key, None)
    columns = kept | {"label": ("label", "max"), "probability": ("probability", how), "cases": ("cases", "sum")}
    merged = frame.groupby(["part", "fold", key], sort=True).agg(**columns).reset_index()
    return merged.assign(id=merged[key])


def _tidy(frame: pd.DataFrame) -> pd.DataFrame:
    columns = ["id", "patient_id", "part", "fold", "label", "probability", "cases"]
    return frame.sort_values(["part", "fold", "id"])[columns].reset_index(drop=True)
