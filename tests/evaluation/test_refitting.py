"""Regressions under case weights against scikit-learn's, on cases that are there as often as they weigh."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mammo_lib.evaluation import refitting
from mammo_lib.evaluation.statistics import Undefined

CASES, RESAMPLES = 120, 5
DRAW = np.random.default_rng(0)
PLACE, OTHER = DRAW.choice([0.2, 0.4, 0.6, 0.8], CASES), DRAW.normal(3, 5, CASES).round()
MALIGNANT = DRAW.random(CASES) < 1 / (1 + np.exp(-4 * (PLACE - 0.5) - 0.3 * (OTHER - 3)))
COLUMNS, WEIGHTS = np.column_stack([PLACE, OTHER]), DRAW.integers(0, 4, (RESAMPLES, CASES)).astype(float)
FOLD, KNOWN = np.arange(CASES) % 3, np.arange(CASES) < CASES // 2


def repeated(weights: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(weights)), weights.astype(int))


def slopes_by_library(columns: np.ndarray, malignant: np.ndarray) -> np.ndarray:
    scaler, model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10, max_iter=1000)).fit(
        columns, malignant
    )
    return model.coef_[0] / scaler.scale_


def test_slopes_are_those_of_repeated_cases() -> None:
    found = refitting.slopes_of(COLUMNS, MALIGNANT, WEIGHTS)
    for weights, slopes in zip(WEIGHTS, found, strict=True):
        cases = repeated(weights)
        np.testing.assert_allclose(slopes, slopes_by_library(COLUMNS[cases], MALIGNANT[cases]), rtol=1e-5)


def test_each_resample_is_fitted_and_tested_anew_in_each_fold() -> None:
    """Tied scores are among them: place and other are coarse."""
    together, alone = refitting.aucs(MALIGNANT, COLUMNS, PLACE, KNOWN, FOLD)
    for weights, auc, read in zip(WEIGHTS, together(WEIGHTS), alone(WEIGHTS), strict=True):
        wins, wins_alone, pairs = 0.0, 0.0, 0
        for fold in range(3):
            learnt, tested = (repeated(weights * (fold == FOLD) * part) for part in (KNOWN, ~KNOWN))
            scores = COLUMNS[tested] @ slopes_by_library(COLUMNS[learnt], MALIGNANT[learnt])
            label = MALIGNANT[tested]
            count = label.sum() * (~label).sum()
            wins += count * roc_auc_score(label, scores.round(6))
            wins_alone += count * roc_auc_score(label, PLACE[tested])
            pairs += count
        assert auc == pytest.approx(wins / pairs)
        assert read == pytest.approx(wins_alone / pairs)


def test_a_resample_that_cannot_be_fitted_has_no_auc_and_takes_no_other_with_it() -> None:
    lacking = WEIGHTS.copy()
    lacking[1, KNOWN & MALIGNANT & (FOLD == 2)] = 0
    lacking[3, KNOWN & (FOLD == 0)] = 0
    found = refitting.aucs(MALIGNANT, COLUMNS, PLACE, KNOWN, FOLD)[0](lacking)
    assert np.isnan(found).tolist() == [False, True, False, True, False]
    np.testing.assert_allclose(
        found[[0, 2, 4]], refitting.aucs(MALIGNANT, COLUMNS, PLACE, KNOWN, FOLD)[0](WEIGHTS)[::2]
    )


@pytest.mark.parametrize(("constant", "elsewhere"), [(7.0, 7.0), (0.1, 0.1), (7.0, 9.0)])
def test_a_column_that_does_not_vary_says_nothing(constant: float, elsewhere: float) -> None:
    """In no case (0.1 has, as computed, a standard deviation above 0), or in none of the resample."""
    weights = WEIGHTS.copy()
    weights[:, :3] = 0
    columns = np.column_stack([np.where(np.arange(CASES) < 3, elsewhere, constant), OTHER])
    slopes = refitting.slopes_of(columns, MALIGNANT, weights)
    np.testing.assert_allclose(slopes[:, 0], 0, atol=1e-9)
    np.testing.assert_allclose(slopes[:, 1], refitting.slopes_of(OTHER[:, None], MALIGNANT, weights)[:, 0])


def test_a_fit_that_does_not_settle_is_told_and_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refitting, "STEPS", 2)
    with pytest.raises(Undefined, match="did not settle in 2 steps"):
        refitting.slopes_of(COLUMNS, MALIGNANT, WEIGHTS)


def test_cases_that_are_told_apart_perfectly_have_finite_slopes() -> None:
    apart = np.where(MALIGNANT, 1.0, -1.0)[:, None]
    slopes = refitting.slopes_of(apart, MALIGNANT, WEIGHTS)
    assert np.isfinite(slopes).all()
    assert (slopes > 1).all()
