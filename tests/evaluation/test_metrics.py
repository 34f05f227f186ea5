"""Metrics against cases counted by hand, scikit-learn and scipy."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu
from sklearn import metrics as reference

from mammo_lib.evaluation import metrics

LABEL = [1, 1, 1, 0, 0, 0, 0, 1]
SCORE = [0.9, 0.5, 0.4, 0.5, 0.49, 0.1, 0.6, 0.8]

cases = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20)), min_size=2, max_size=60).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


def arrays(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    label, score = np.array(rows).T
    return label, score / 20


def test_counts_by_hand_with_a_score_on_the_threshold() -> None:
    found = metrics.counts(LABEL, SCORE, 0.5)
    assert found == metrics.Counts(true_positive=3, false_negative=1, true_negative=2, false_positive=2)
    assert (found.sensitivity, found.specificity, found.accuracy) == (0.75, 0.5, 0.625)


def test_auc_by_hand_with_a_tie() -> None:
    # malignant 0.9 and 0.8 beat all four; 0.5 beats 0.49, 0.1 and ties 0.5; 0.4 beats 0.1: 4 + 4 + 2.5 + 1 of 16
    assert metrics.auc(LABEL, SCORE) == 11.5 / 16


@given(cases)
def test_auc_agrees_with_scikit_learn_and_scipy(rows: list[tuple[int, int]]) -> None:
    label, score = arrays(rows)
    assert metrics.auc(label, score) == pytest.approx(reference.roc_auc_score(label, score), abs=1e-12)
    u = mannwhitneyu(score[label == 1], score[label == 0]).statistic
    assert metrics.auc(label, score) == pytest.approx(u / (label.sum() * (1 - label).sum()), abs=1e-12)


@given(cases)
def test_youden_is_the_best_of_every_threshold(rows: list[tuple[int, int]]) -> None:
    label, score = arrays(rows)

    def youden(threshold: float) -> Fraction:
        called = score >= threshold
        hits, alarms = (int(called[label == value].sum()) for value in (1, 0))
        return Fraction(hits, int((label == 1).sum())) - Fraction(alarms, int((label == 0).sum()))

    best = metrics.youden_threshold(label, score)
    values = {threshold: youden(threshold) for threshold in np.unique(score)}
    assert values[best] == max(values.values())
    assert all(value < values[best] for threshold, value in values.items() if threshold < best)


@given(cases, st.sampled_from([0.0, 0.5, 0.8, 0.9, 1.0]))
def test_threshold_at_specificity_has_the_best_sensitivity_allowed(rows: list[tuple[int, int]], wanted: float) -> None:
    label, score = arrays(rows)
    allowed = [
        (score >= threshold)[label == 1].mean()
        for threshold in [*np.unique(score), 2.0]
        if (score < threshold)[label == 0].mean() >= wanted
    ]
    found = metrics.threshold_at_specificity(label, score, wanted)
    assert (score < found)[label == 0].mean() >= wanted
    assert (score >= found)[label == 1].mean() == max(allowed)


def test_calibration_bins_hold_their_lower_end_and_the_last_one_1() -> None:
    assert metrics.calibration_error([0, 1], [0.05, 0.1]) == pytest.approx((0.05 + 0.9) / 2)  # of two bins
    assert metrics.calibration_error([1, 0], [0.1, 0.18]) == pytest.approx((1 - 0.28) / 2)  # of one
    assert metrics.calibration_error([1, 0], [0.95, 1.0]) == pytest.approx(0.95 / 2)
    assert metrics.calibration_error([1, 0], [0.0, 0.05]) == pytest.approx(0.95 / 2)


def test_no_case_has_no_calibration_error() -> None:
    assert np.isnan(metrics.calibration_error([], []))


@pytest.mark.parametrize("function", [metrics.auc, metrics.youden_threshold])
def test_one_class_is_undefined(function) -> None:
    with pytest.raises(metrics.Undefined, match="one class"):
        function([0, 0, 0], [0.1, 0.2, 0.3])


def test_rates_of_an_absent_class_are_undefined() -> None:
    found = metrics.counts([0, 0], [0.1, 0.9], 0.5)
    assert found.specificity == 0.5
    with pytest.raises(metrics.Undefined, match="no malignant case"):
        _ = found.sensitivity


@pytest.mark.parametrize(
    ("label", "score", "said"),
    [([0, 2], [0.1, 0.2], "only 0 and 1"), ([0, 1], [0.1, np.nan], "nan"), ([0, 1], [0.1], "equally long")],
)
def test_bad_input_is_refused(label: list[int], score: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        metrics.auc(label, score)


def patches() -> pd.DataFrame:
    """Two patients: A with two masses on the CC and one on the MLO view of one breast, B with one mass."""
    rows = [
        ("A_L_CC_1", "A_LEFT_CC", "A", 0, (0.1, 0.3)),
        ("A_L_CC_2", "A_LEFT_CC", "A", 1, (0.6, 0.8)),
        ("A_L_MLO_1", "A_LEFT_MLO", "A", 0, (0.3, 0.1)),
        ("B_R_CC_1", "B_RIGHT_CC", "B", 0, (0.5, 0.9)),
    ]
    return pd.DataFrame(
        [
            (f"{mass}#{number}", mass, image, patient, image.split("_")[1], "test", 0, label, score)
            for mass, image, patient, label, both in rows
            for number, score in enumerate(both)
        ],
        columns=["id", "mass_id", "image_id", "patient_id", "side", "part", "fold", "label", "probability"],
    )


@pytest.mark.parametrize(
    ("unit", "labels", "scores"),
    [
        ("patch", [0, 0, 1, 1, 0, 0, 0, 0], [0.1, 0.3, 0.6, 0.8, 0.3, 0.1, 0.5, 0.9]),
        ("mass", [0, 1, 0, 0], [0.2, 0.7, 0.2, 0.7]),
        ("image", [1, 0, 0], [0.7, 0.2, 0.7]),
        ("breast", [1, 0], [0.45, 0.7]),
        ("patient", [1, 0], [0.45, 0.7]),
    ],
)
def test_units_by_hand(unit: str, labels: list[int], scores: list[float]) -> None:
    found = metrics.aggregate(patches().sample(frac=1, random_state=0), unit)
    assert found["label"].tolist() == labels
    assert found["probability"].tolist() == pytest.approx(scores)
    assert found["cases"].sum() == 8


def test_a_patient_is_her_worse_breast_and_no_two_folds_are_averaged() -> None:
    """The left breast has the mean of its views, 0.7; the right one 0.2."""
    about = {"image_id": ["A1", "A2", "A3"], "patient_id": "A", "side": ["LEFT", "LEFT", "RIGHT"]}
    about |= {"part": "test", "fold": 0}
    cases = pd.DataFrame(about | {"label": [0, 0, 1], "probability": [0.9, 0.5, 0.2]})
    patient = metrics.aggregate(cases.assign(id=cases["image_id"]), "patient").iloc[0]
    assert (patient["label"], patient["probability"]) == (1, pytest.approx(0.7))
    one = cases[:1].assign(id="a", part="validation")
    both = metrics.aggregate(pd.concat([one, one.assign(fold=1, probability=0.8)]), "image")
    assert both["probability"].tolist() == [0.9, 0.8]


def test_parts_are_never_mixed() -> None:
    """Under random splits, sibling patches of one mass lie in both parts."""
    frame = patches()
    frame.loc[0, "part"] = "validation"
    found = metrics.aggregate(frame, "mass").set_index(["part", "id"])["probability"]
    assert found["validation", "A_L_CC_1"] == 0.1
    assert found["test", "A_L_CC_1"] == 0.3


@pytest.mark.parametrize("blank", ["", None, np.nan])
def test_images_know_no_mass_and_patches_all_units(blank: object) -> None:
    images = patches().drop_duplicates("image_id").assign(mass_id=blank)
    assert len(metrics.aggregate(images, "image")) == 3
    with pytest.raises(ValueError, match="unit mass: predictions without mass_id"):
        metrics.aggregate(images, "mass")
    with pytest.raises(ValueError, match="unknown unit 'lesion'"):
        metrics.aggregate(images, "lesion")
    assert len(metrics.aggregate(images, "breast")) == 2
