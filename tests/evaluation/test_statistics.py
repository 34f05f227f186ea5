"""Intervals and tests against R's pROC (stored values), scipy, scikit-learn and cases counted by hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import norm
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, roc_auc_score

from mammo_lib.evaluation import metrics, statistics

REFERENCE = json.loads((Path(__file__).parent / "pROC_reference.json").read_text(encoding="utf-8"))
EXPECTED = REFERENCE["expected"]
LABEL, FIRST, SECOND = (np.array(REFERENCE[name]) for name in ("label", "first", "second"))


def made(seed: int, cases: int, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label, score rounded so that ties occur, and patient (two cases each)."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 2, cases)
    return label, np.round(generator.normal(size=cases) + shift * label, 1), np.arange(cases) // 2


def test_delong_agrees_with_proc() -> None:
    aucs, covariance = statistics.delong(LABEL, np.stack([FIRST, SECOND]))
    assert aucs == pytest.approx(EXPECTED["auc"], abs=1e-13)
    assert covariance.diagonal() == pytest.approx(EXPECTED["variance"], abs=1e-13)
    assert covariance[0, 1] == pytest.approx(EXPECTED["covariance"][0], abs=1e-13)
    for score, confidence, name in ((FIRST, 0.95, "ci_first"), (SECOND, 0.9, "ci_second")):
        found = statistics.delong_interval(LABEL, score, confidence)
        assert [found.low, found.estimate, found.high] == pytest.approx(EXPECTED[name], abs=1e-12)


def z_of(p: float) -> float:
    """Distance from 0, in standard errors, of a two-sided p."""
    return float(norm.isf(p / 2))


def test_delong_test_agrees_with_proc() -> None:
    found = statistics.delong_test(LABEL, FIRST, SECOND)
    assert found == pytest.approx(EXPECTED["p"][0], abs=1e-12)
    assert z_of(found) == pytest.approx(EXPECTED["z"][0], abs=1e-11)
    assert statistics.delong_test(LABEL, SECOND, FIRST) == pytest.approx(found)
    with pytest.raises(statistics.Undefined, match="no variance"):
        statistics.delong_test([0, 0, 1, 1], [1, 2, 3, 4], [4, 3, 2, 1])


def test_delong_interval_ends_at_1() -> None:
    """AUC 8 / 9; each class has the shares 2/3, 1, 1, so a variance of 2 x (1/27) / 3, and 1.96 SE is 0.31."""
    found = statistics.delong_interval([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.6, 0.5, 0.8, 0.9])
    assert (found.estimate, found.high) == (pytest.approx(8 / 9), 1)
    assert found.low == pytest.approx(8 / 9 - 1.959964 * (2 / 81) ** 0.5)


@pytest.mark.parametrize("every", [0.5, 1.5], ids=["below", "above"])
def test_bca_needs_resamples_on_both_sides_of_the_estimate(every: float) -> None:
    everything = statistics.Replicates(
        1.0, np.full(50, every), 0, statistics.weighted_ratio(np.ones(4), np.ones(4)), np.arange(4)
    )
    with pytest.raises(statistics.Undefined, match="outside"):
        statistics.bca(everything)


def obuchowski(label: np.ndarray, scores: np.ndarray, patient: np.ndarray) -> np.ndarray:
    """Covariance of AUCs for clustered data as section 2 of Obuchowski (1997) writes it, sum by sum."""
    malignant, benign = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    m, n, everybody = len(malignant), len(benign), np.unique(patient)
    kernel = [np.array([[(x > y) + 0.5 * (x == y) for y in s[benign]] for x in s[malignant]]) for s in scores]
    auc = [k.mean() for k in kernel]
    x = [[sum(k.mean(axis=1)[i] - a for i in range(m) if patient[malignant[i]] == p) for p in everybody]
         for k, a in zip(kernel, auc, strict=True)]  # fmt: skip
    y = [[sum(k.mean(axis=0)[j] - a for j in range(n) if patient[benign[j]] == p) for p in everybody]
         for k, a in zip(kernel, auc, strict=True)]  # fmt: skip
    i10, i01, i = len(set(patient[malignant])), len(set(patient[benign])), len(everybody)
    found = np.empty((len(scores), len(scores)))
    for r in range(len(scores)):
        for s in range(len(scores)):
            s10 = i10 / ((i10 - 1) * m) * np.dot(x[r], x[s])
            s01 = i01 / ((i01 - 1) * n) * np.dot(y[r], y[s])
            s11 = i / (i - 1) * np.dot(x[r], y[s])
            other = i / (i - 1) * np.dot(x[s], y[r])
            found[r, s] = s10 / m + s01 / n + (s11 + other) / (m * n)
    return found


def test_delong_of_patients_is_obuchowskis() -> None:
    generator = np.random.default_rng(3)
    patient = generator.integers(0, 25, size=80)
    label = generator.integers(0, 2, size=80)
    common = generator.normal(size=25)[patient]
    scores = np.round(np.stack([common + generator.normal(size=80) + label * shift for shift in (1, 0.5)]), 1)
    aucs, covariance = statistics.delong(label, scores, patients=patient)
    assert aucs == pytest.approx([roc_auc_score(label, score) for score in scores])
    assert covariance == pytest.approx(obuchowski(label, scores, patient), abs=1e-14)
    assert covariance != pytest.approx(statistics.delong(label, scores)[1], rel=0.1)


def test_no_variance_between_patients_is_no_interval() -> None:
    """A malignant and a benign case of each patient whose placements cancel out."""
    label, patients = np.tile([1, 0], 8), np.arange(8).repeat(2)
    score = np.array([1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8.0])
    with pytest.raises(statistics.Undefined, match="no variance"):
        statistics.delong_interval(label, score, patients=patients)


def test_cases_counted_twice_add_nothing_where_patients_are_known() -> None:
    twice = [values.repeat(2) for values in (LABEL, FIRST, SECOND)]
    patients = np.arange(len(LABEL)).repeat(2)
    known, unknown = (z_of(statistics.delong_test(*twice, patients=given)) for given in (patients, None))
    assert known == pytest.approx(EXPECTED["z"][0], abs=1e-11)
    assert unknown == pytest.approx(np.sqrt(2) * EXPECTED["z"][0], rel=0.05)
    with pytest.raises(statistics.Undefined, match="malignant cases of 1 and benign of 2 patients"):
        statistics.delong([1, 1, 0, 0], [4.0, 3, 2, 1], patients=[1, 1, 2, 3])


def test_holm_agrees_with_r() -> None:
    assert statistics.holm(REFERENCE["p_values"]) == pytest.approx(EXPECTED["holm"])
    assert statistics.holm([0.6, 0.7]).tolist() == [1, 1]
    assert len(statistics.holm([])) == 0
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        statistics.holm([0.1, np.nan])


def test_weighted_auc_is_the_auc_of_repeated_cases() -> None:
    label, score, _ = made(1, 60)
    weights = np.random.default_rng(2).integers(0, 4, size=(20, 60))
    found = statistics.weighted_auc(label, score)(weights.astype(float))
    for row, value in zip(weights, found, strict=True):
        assert value == pytest.approx(roc_auc_score(label.repeat(row), score.repeat(row)), abs=1e-12)


def test_weighted_auc_of_one_class_is_nan_in_its_resample_only() -> None:
    values = statistics.weighted_auc([0, 1, 1], [0.1, 0.5, 0.05])(np.array([[1.0, 1, 1], [0, 1, 1], [2, 1, 0]]))
    assert values[0] == 0.5
    assert np.isnan(values[1])
    assert values[2] == 1


def test_patients_move_together() -> None:
    """With patients as units, the variance is that of patient means: counted from the draws by hand."""
    value, patients = np.array([0.0, 0, 0, 6, 6, 6]), np.array(list("aaabbb"))
    found = statistics.bootstrap(statistics.weighted_ratio(value, np.ones(6)), patients, 4000, seed=0)
    drawn, count = np.unique(found.values, return_counts=True)
    assert drawn.tolist() == [0, 3, 6]  # aa, ab or ba, bb: no other mixture exists
    assert count / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_order_of_rows_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    label, score, patients = made(3, 80)
    whole = statistics.bootstrap(statistics.weighted_auc(label, score), patients, 300, seed=7)
    shuffled = np.random.default_rng(0).permutation(80)
    monkeypatch.setattr(statistics, "CHUNK", 700)
    statistics._times_drawn.cache_clear()  # or what was drawn in one chunk would serve again
    again = statistics.bootstrap(
        statistics.weighted_auc(label[shuffled], score[shuffled]), patients[shuffled], 300, seed=7
    )
    assert again.values == pytest.approx(whole.values, abs=1e-12)
    assert statistics.bca(again).low == pytest.approx(statistics.bca(whole).low, abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_bca_and_percentile_are_scipys_on_scipys_resamples(seed: int) -> None:
    """Same replicates in, same interval out: the mean of a skewed sample, every case its own patient."""
    sample = np.random.default_rng(seed).exponential(size=40)
    statistic = statistics.weighted_ratio(sample, np.ones(40))
    for method, function in (("BCa", statistics.bca), ("percentile", statistics.percentile)):
        theirs = scipy_bootstrap((sample,), np.mean, n_resamples=2000, method=method, rng=np.random.default_rng(4))
        replicates = statistics.Replicates(
            float(sample.mean()), theirs.bootstrap_distribution, 0, statistic, np.arange(40)
        )
        ours, interval = function(replicates), theirs.confidence_interval
        assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), abs=1e-10)


def test_our_resamples_give_scipys_interval_too() -> None:
    sample = np.random.default_rng(5).exponential(size=60)
    theirs = scipy_bootstrap((sample,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0))
    statistic = statistics.weighted_ratio(sample, np.ones(60))
    ours = statistics.bca(statistics.bootstrap(statistic, np.arange(60), 20_000, seed=1))
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.04 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.04 * width)


def test_sibling_cases_widen_the_interval_as_they_must() -> None:
    """Eight identical patches of each patient carry no more information than one."""
    label, score, _ = made(6, 100)
    patients = np.arange(100)
    once = statistics.percentile(statistics.bootstrap(statistics.weighted_auc(label, score), patients, 2000, 0))
    eight = statistics.weighted_auc(label.repeat(8), score.repeat(8))
    grouped = statistics.percentile(statistics.bootstrap(eight, patients.repeat(8), 2000, 0))
    naive = statistics.percentile(statistics.bootstrap(eight, np.arange(800), 2000, 0))
    assert (grouped.low, grouped.high) == pytest.approx((once.low, once.high), abs=1e-12)
    assert naive.high - naive.low < 0.5 * (once.high - once.low)


def test_perfect_separation_is_one_point_and_no_nan() -> None:
    label, score, patients = np.repeat([0, 1], 20), np.arange(40) / 40, np.arange(40)
    replicates = statistics.bootstrap(statistics.weighted_auc(label, score), patients, 500, 0)
    for found in (
        statistics.percentile(replicates),
        statistics.bca(replicates),
        statistics.delong_interval(label, score),
    ):
        assert (found.low, found.estimate, found.high) == (1, 1, 1)


def test_too_little_is_undefined_and_says_why() -> None:
    auc = statistics.weighted_auc([0, 1, 1], [0.1, 0.2, 0.3])
    with pytest.raises(statistics.Undefined, match="1 patient, at least two"):
        statistics.bootstrap(auc, ["a", "a", "a"], 100, 0)
    with pytest.raises(statistics.Undefined, match="one class only"):
        statistics.bootstrap(statistics.weighted_auc([1, 1], [0.1, 0.2]), ["a", "b"], 100, 0)
    with pytest.raises(statistics.Undefined, match="hold both classes"):  # two patients of one class each: half at most
        statistics.bootstrap(auc, ["a", "b", "b"], 101, 0)
    with pytest.raises(statistics.Undefined, match="of two at least"):
        statistics.delong([0, 1, 1], [0.1, 0.2, 0.3])


def test_resamples_of_one_class_are_counted() -> None:
    """Patient 0 is the only benign one of five: absent from (4/5)^5 = 33 % of the resamples."""
    found = statistics.bootstrap(statistics.weighted_auc([0, 1, 1, 1, 1], range(5)), range(5), 5000, 0)
    assert found.excluded / 5000 == pytest.approx(0.8**5, abs=0.02)
    assert found.excluded + len(found.values) == 5000
    assert statistics.left_out(found) == f"{found.excluded} of 5000 resamples hold one class and are left out"
    few, none = (replace(found, values=np.zeros(4999 - count), excluded=count) for count in (4, 0))
    assert statistics.left_out(few) == statistics.left_out(none) == ""
    with pytest.raises(statistics.Undefined, match="without one of the patients a class is empty"):
        statistics.bca(found)


def test_paired_difference_and_its_p() -> None:
    label, score, patients = made(8, 200, shift=1.5)
    noise = np.random.default_rng(9).normal(size=200)
    good, same, poor = (statistics.weighted_auc(label, other) for other in (score, score, noise))
    gap = statistics.bootstrap(statistics.difference(good, poor), patients, 2000, 0)
    assert gap.estimate == pytest.approx(roc_auc_score(label, score) - roc_auc_score(label, noise))
    assert statistics.bootstrap_p(gap) == pytest.approx(2 / 2001)
    assert statistics.percentile(gap).low > 0
    none = statistics.bootstrap(statistics.difference(good, same), patients, 500, 0)
    assert statistics.bootstrap_p(none) == 1
    assert statistics.delong_test(label, score, score) == 1


def test_a_mean_is_of_the_same_resamples() -> None:
    """A difference and its opposite: each varies, their mean is 0 in every resample."""
    label, score, patients = made(8, 200, shift=1.5)
    good, poor = (statistics.weighted_auc(label, other) for other in (score, np.random.default_rng(9).normal(size=200)))
    gap, opposite = statistics.difference(good, poor), statistics.difference(poor, good)
    assert not statistics.percentile(statistics.bootstrap(gap, patients, 500, 0)).is_point
    found = statistics.bootstrap(statistics.mean([gap, opposite]), patients, 500, 0)
    assert not found.values.any()


def test_the_interval_of_a_mean_is_that_of_delongs_covariance() -> None:
    """Two trainings with CBAM and two without; by DeLong the mean difference has the variance of a contrast."""
    label, score, patients = made(8, 400, shift=1.5)
    rng = np.random.default_rng(9)
    scores = np.stack([score + scale * rng.normal(size=400) for scale in (0.3, 0.5, 1.0, 1.5)])
    first, other, third, fourth = (statistics.weighted_auc(label, one) for one in scores)
    gaps = [statistics.difference(first, third), statistics.difference(other, fourth)]
    found = statistics.percentile(statistics.bootstrap(statistics.mean(gaps), patients, 4000, 0))
    aucs, covariance = statistics.delong(label, scores, patients=patients)
    contrast = np.array([1, 1, -1, -1]) / 2
    expected, half = contrast @ aucs, 1.96 * np.sqrt(contrast @ covariance @ contrast)
    assert found.estimate == pytest.approx(expected)
    assert (found.low, found.high) == pytest.approx((expected - half, expected + half), abs=0.1 * half)


def test_bootstrap_p_by_hand() -> None:
    values = np.array([-1.0, 0, 1, 2, 3, 4, 5, 6, 7])
    replicates = statistics.Replicates(1.0, values, 0, statistics.weighted_ratio([1], [1]), np.array([0]))
    assert statistics.bootstrap_p(replicates) == 2 * (2 + 1) / 10


def test_subset_statistic_sees_its_cases_only() -> None:
    label, score, _ = made(10, 40)
    chosen = np.arange(15, 40)
    weights = np.random.default_rng(0).integers(0, 3, size=(5, 40)).astype(float)
    auc = statistics.weighted_auc(label[chosen], score[chosen])
    assert statistics.on(chosen, auc)(weights) == pytest.approx(auc(weights[:, 15:]))


def test_auc_of_folds_ranks_within_each_only() -> None:
    """Two folds whose scores lie apart: each is ranked perfectly, and every pair across them wrongly."""
    label, score, fold = np.array([0, 1, 0, 1]), np.array([0.8, 0.9, 0.1, 0.2]), np.array([0, 0, 1, 1])
    one = np.ones((1, 4))
    assert statistics.weighted_auc(label, score)(one) == [0.75]
    assert statistics.weighted_auc(label, score, fold)(one) == [1]
    assert metrics.auc(label, score, fold) == 1
    assert np.isnan(statistics.weighted_auc(label, score, np.arange(4))(one)[0])
    with pytest.raises(metrics.Undefined, match="all of one class in each fold"):
        metrics.auc(label, score, np.arange(4))


def test_auc_of_folds_is_the_mean_of_theirs_by_pairs() -> None:
    label, score, _ = made(12, 90)
    fold = np.repeat([0, 1, 2], [20, 30, 40])
    each = [label[fold == number] for number in range(3)]
    pairs = [part.sum() * (1 - part).sum() for part in each]
    aucs = [roc_auc_score(part, score[fold == number]) for number, part in enumerate(each)]
    expected = np.average(aucs, weights=pairs)
    assert metrics.auc(label, score, fold) == pytest.approx(expected)
    assert statistics.weighted_auc(label, score, fold)(np.ones((1, 90))) == pytest.approx([expected])
    weights = np.random.default_rng(0).integers(0, 3, size=90)
    repeated = metrics.auc(label.repeat(weights), score.repeat(weights), fold.repeat(weights))
    assert statistics.weighted_auc(label, score, fold)(weights[None].astype(float)) == pytest.approx([repeated])


def test_delong_of_two_equal_folds_has_half_the_variance() -> None:
    twice = [np.tile(values, 2) for values in (LABEL, FIRST, SECOND)]
    fold = np.repeat([0, 1], len(LABEL))
    aucs, covariance = statistics.delong(twice[0], np.stack(twice[1:]), fold)
    assert aucs == pytest.approx(EXPECTED["auc"], abs=1e-13)
    assert covariance.diagonal() == pytest.approx(np.array(EXPECTED["variance"]) / 2, abs=1e-13)
    found = z_of(statistics.delong_test(*twice, fold))
    assert found == pytest.approx(np.sqrt(2) * EXPECTED["z"][0], abs=1e-11)
    alone = np.where(np.arange(len(LABEL)) == 0, 9, 0)  # a fold of one case has no pair, and changes nothing but that
    rest = statistics.delong(LABEL[1:], FIRST[1:])
    for found, expected in zip(statistics.delong(LABEL, FIRST, alone), rest, strict=True):
        assert found == pytest.approx(expected)


def test_delong_of_folds_without_a_pair_is_undefined() -> None:
    """Malignant cases in one fold, benign ones in the other: nothing to rank, as for the AUC itself."""
    label, score, fold = [1, 1, 1, 0, 0, 0], [0.9, 0.8, 0.4, 0.5, 0.2, 0.1], [0, 0, 0, 1, 1, 1]
    with pytest.raises(metrics.Undefined):
        metrics.auc(label, score, fold)
    with pytest.raises(statistics.Undefined, match="no fold of these 6 cases holds both classes"):
        statistics.delong_interval(label, score, fold=fold)


def test_weighted_average_precision_is_scikit_learns() -> None:
    label, score, _ = made(13, 80)
    weights = np.random.default_rng(3).integers(0, 4, size=(10, 80)).astype(float)
    found = statistics.weighted_average_precision(label, score)(weights)
    expected = [average_precision_score(label, score, sample_weight=row) for row in weights]
    assert found == pytest.approx(expected, abs=1e-12)
    none = statistics.weighted_average_precision([1, 0], [0.2, 0.1])(np.array([[0.0, 1]]))
    assert np.isnan(none[0])


def test_calibration_error_by_hand_and_as_scikit_learn_has_the_bins() -> None:
    label, probability = np.array([0, 1, 1, 0, 1]), np.array([0.05, 0.12, 0.18, 0.95, 1.0])
    # bins: |0.05 - 0|, |0.15 - 1|, |0.975 - 0.5| weighted 1, 2, 2 of 5
    assert metrics.calibration_error(label, probability) == pytest.approx((0.05 + 2 * 0.85 + 2 * 0.475) / 5)
    label, probability = made(14, 70)[0], np.random.default_rng(4).random(70)
    share, mean = calibration_curve(label, probability, n_bins=10)
    cases = np.histogram(probability, bins=10, range=(0, 1))[0]
    expected = np.average(np.abs(share - mean), weights=cases[cases > 0])
    assert metrics.calibration_error(label, probability) == pytest.approx(expected, abs=1e-12)
