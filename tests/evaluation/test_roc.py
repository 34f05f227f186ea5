"""The ROC band against scikit-learn's curve and a resampling written out with repeated cases."""

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from mammo_lib.evaluation import roc


def cases(seed=0, patients=60):
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), 3)
    label = np.repeat(rng.integers(0, 2, patients), 3)
    return label, np.round(rng.normal(label, 1), 1), patient  # rounded: ties


@pytest.mark.parametrize("seed", range(5))
def test_a_curve_is_scikit_learns_with_sample_weights(seed):
    label, score, _ = cases(seed)
    weights = np.random.default_rng(seed).integers(0, 4, (2, len(label)))
    for row, read_off in zip(weights, roc.reader(label, score)(weights), strict=True):
        false, true, _ = roc_curve(label, score, sample_weight=row, drop_intermediate=False)
        np.testing.assert_allclose(read_off, np.interp(roc.GRID, false, true))


def test_the_band_is_that_of_repeated_patients():
    label, score, patient = cases()
    grid, low, high = roc.band(label, score, patient, resamples=200, confidence=0.9, seed=4)
    drawn = np.random.default_rng(4).integers(60, size=(200, 60))
    curves = []
    for patients in drawn:
        rows = np.concatenate([np.flatnonzero(patient == p) for p in patients])
        false, true, _ = roc_curve(label[rows], score[rows], drop_intermediate=False)
        curves.append(np.interp(grid, false, true))
    np.testing.assert_allclose([low, high], np.quantile(curves, [0.05, 0.95], axis=0))
    assert (low <= roc.reader(label, score)(np.ones((1, len(label)))) + 0.05).all()


def test_without_both_classes_there_is_no_band():
    np.testing.assert_array_equal(roc.reader([1, 1], [0.2, 0.3])(np.ones((1, 2))), np.full((1, 101), np.nan))
    with pytest.raises(ValueError, match="resamples hold both classes"):
        roc.band([1, 1, 1], [0.2, 0.3, 0.4], ["a", "b", "c"], 20, 0.95, 0)
    with pytest.raises(ValueError, match="at least two"):
        roc.band([0, 1], [0.2, 0.3], ["a", "a"], 20, 0.95, 0)
