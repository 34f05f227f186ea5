"""Localisation measures against cases counted by hand, brute force and scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from mammo_lib.evaluation import localisation

SIZE = 16


def test_a_box_covers_the_pixels_whose_centre_it_holds():
    mask = localisation.lesion_mask([[2.0, 3.0, 4.0, 2.0]], SIZE)
    assert mask.sum() == 8
    assert mask[3:5, 2:6].all()
    assert localisation.lesion_mask([[2.4, 3.0, 4.0, 2.0]], SIZE)[3:5, 2:6].all()
    assert not localisation.lesion_mask([[2.6, 3.0, 4.0, 2.0]], SIZE)[3, 2]


@pytest.mark.parametrize(
    ("box", "pixel"),
    [([5.1, 7.1, 0.2, 0.2], [7, 5]), ([5.6, 2, 0.2, 6], [5, 5]), ([2, 5.6, 6, 0.2], [5, 5])],
    ids=["both ways", "across", "along"],
)
def test_a_lesion_between_pixel_centres_is_the_pixel_at_its_middle(box, pixel):
    assert np.argwhere(localisation.lesion_mask([box], SIZE)).tolist() == [pixel]


def test_every_lesion_of_an_image_counts_and_overlap_counts_once():
    mask = localisation.lesion_mask([[0, 0, 2, 2], [1, 1, 2, 2], [10, 10, 3, 1]], SIZE)
    assert mask.sum() == 4 + 4 - 1 + 3


@pytest.mark.parametrize(
    "boxes",
    [
        *([], [[0, 0, 0, 3]], [[0, 0, 3, 0]], [[0, 0, 3, -1]]),
        *([[SIZE, 0, 4, 4]], [[-9, 2, 4, 4]], [[SIZE - 2, 2, 4, 4]], [[2, SIZE - 2, 4, 4]]),
    ],
)
def test_a_box_without_area_or_outside_is_refused(boxes):
    with pytest.raises(ValueError, match="lesion box"):
        localisation.lesion_mask(boxes, SIZE)


def test_measures_counted_by_hand():
    heat = np.array([[4.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    lesion = np.array([[1, 1, 1], [0, 0, 0], [0, 0, 0]], bool)
    found = localisation.measure(heat, lesion)
    assert found["energy"] == pytest.approx(6 / 10)
    assert found["pointing"] == 1
    assert found["iou"] == pytest.approx(2 / 4)  # at or above 2: three pixels, two of them in the lesion of three
    assert found["best_iou"] == pytest.approx(2 / 4)
    assert found["empty"] == 0


def test_the_best_threshold_is_the_one_that_fits():
    heat = np.full((SIZE, SIZE), 0.1)
    heat[2:5, 2:5] = 0.3
    heat[8, 8] = 1.0
    lesion = np.zeros((SIZE, SIZE), bool)
    lesion[2:5, 2:5] = True
    found = localisation.measure(heat, lesion)
    assert found["pointing"] == 0
    assert found["iou"] == 0
    assert found["best_iou"] == pytest.approx(9 / 10)
    assert 0.1 < found["best_threshold"] <= 0.3


def test_the_greatest_value_alone_is_no_threshold():
    """Thresholds end at 0.95, which pixels of 0.97 reach too: one lesion pixel of four."""
    heat, lesion = np.array([[1.0, 0.97], [0.97, 0.97]]), np.array([[True, False], [False, False]])
    assert localisation.measure(heat, lesion)["best_iou"] == 0.25


def test_ties_for_the_maximum_count_by_their_share():
    lesion = np.zeros((4, 4), bool)
    lesion[0] = True
    assert localisation.measure(np.ones((4, 4)), lesion)["pointing"] == 0.25


def test_an_empty_map_scores_zero_and_says_so():
    found = localisation.measure(np.zeros((4, 4)), np.eye(4, dtype=bool))
    assert found == {"energy": 0, "pointing": 0, "iou": 0, "best_iou": 0, "best_threshold": 0, "empty": 1}


@pytest.mark.parametrize("wrong", [-0.1, np.nan, np.inf])
def test_a_map_with_impossible_values_is_refused(wrong):
    heat = np.ones((4, 4))
    heat[1, 1] = wrong
    with pytest.raises(ValueError, match="finite values of at least 0"):
        localisation.measure(heat, np.eye(4, dtype=bool))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_iou_is_scikit_learns_jaccard_score_at_every_threshold(seed):
    rng = np.random.default_rng(seed)
    heat = rng.random((9, 9)).astype(np.float32) ** 3
    lesion = rng.random((9, 9)) < 0.3
    lesion[0, 0] = True
    scaled = heat.astype(float) / float(heat.max())
    ious = [jaccard_score(lesion.ravel(), (scaled >= t).ravel()) for t in localisation.THRESHOLDS]
    found = localisation.measure(heat, lesion)
    assert found["best_iou"] == pytest.approx(max(ious))
    assert found["iou"] == pytest.approx(jaccard_score(lesion.ravel(), (scaled >= 0.5).ravel()))
    assert 0 <= found["energy"] <= 1


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-4, 1e4), st.integers(0, 1000))
def test_the_height_of_a_map_does_not_matter(factor, seed):
    heat = np.random.default_rng(seed).random((8, 8))
    lesion = np.eye(8, dtype=bool)
    one, other = localisation.measure(heat, lesion), localisation.measure(heat * factor, lesion)
    assert one["energy"] == pytest.approx(other["energy"])
    assert one["pointing"] == other["pointing"]


def test_chance_is_the_share_of_the_breast_that_is_lesion():
    image = np.zeros((SIZE, SIZE), np.uint8)
    image[:, :8] = 100
    lesion = localisation.lesion_mask([[0, 0, 4, 4]], SIZE)
    found = localisation.measure(localisation.uniform_breast(image), lesion)
    assert found["energy"] == pytest.approx(16 / (16 * 8))
    assert found["pointing"] == found["energy"]


def test_the_centre_prior_has_the_moments_of_the_breast():
    image = np.zeros((64, 64), np.uint8)
    image[20:41, 10:31] = 7
    prior = localisation.centre_prior(image)
    assert np.unravel_index(prior.argmax(), prior.shape) == (30, 20)
    down = prior[:, 20].astype(float)
    spread = np.sqrt(np.average((np.arange(64) - 30) ** 2, weights=down))
    assert spread == pytest.approx(np.arange(20, 41).std(), rel=0.01)
    assert localisation.centre_prior(np.zeros_like(image)).max() == 0


def table():
    boxes = ["[[2, 2, 4, 4]]", "[[2, 2, 4, 4], [10, 10, 2, 2]]", "[[8, 8, 4, 4]]", "[[0, 8, 3, 3]]", "[[4, 4, 4, 4]]"]
    return pd.DataFrame(
        {
            "image_id": [f"I{number}" for number in range(5)],
            "patient_id": ["A", "A", "B", "B", "C"],
            "label": [0, 1, 1, 0, 1],
            "boxes": boxes,
        }
    )


def inputs():
    images = np.full((5, SIZE, SIZE), 80, np.uint8)
    rng = np.random.default_rng(0)
    perfect = np.zeros((5, SIZE, SIZE), np.float32)
    for heat, boxes in zip(perfect, ([[2, 2]], [[2, 2], [10, 10]], [[8, 8]], [[0, 8]], [[4, 4]]), strict=True):
        for x, y in boxes:
            heat[y : y + 2, x : x + 2] = 1
    return images, {"perfect": perfect, "noise": rng.random((5, SIZE, SIZE)).astype(np.float32)}


def test_one_row_per_image_and_method_controls_included():
    images, maps = inputs()
    rows = localisation.per_image(table(), images, np.array([0.1, 0.9, 0.2, 0.5, 0.5]), maps, threshold=0.5)
    assert len(rows) == 5 * (2 + 3)
    perfect = rows[rows["method"] == "perfect"]
    assert list(perfect["group"]) == [
        "benign, correct",
        "malignant, correct",
        "malignant, wrong",
        "benign, wrong",  # at the threshold: malignant
        "malignant, correct",
    ]
    assert (perfect["energy"] == 1).all()
    assert list(perfect["lesions"]) == [1, 2, 1, 1, 1]
    assert perfect["lesion_share"].iloc[1] == (16 + 4) / SIZE**2
    assert perfect["iou"].iloc[1] == pytest.approx(8 / 20)


def test_a_wrong_box_names_its_image():
    images, maps = inputs()
    bad = table()
    bad.loc[3, "boxes"] = "[[99, 2, 3, 3]]"
    with pytest.raises(ValueError, match="image I3: lesion box"):
        localisation.per_image(bad, images, np.zeros(5), maps, 0.5)


def test_summary_is_the_mean_over_images_with_an_interval_over_patients():
    images, maps = inputs()
    rows = localisation.per_image(table(), images, np.array([0.1, 0.9, 0.2, 0.5, 0.5]), maps, 0.5)
    found = localisation.summary(rows, resamples=500, confidence=0.95, seed=0)
    assert len(found) == 5 * 5 * 4
    whole = found[(found["method"] == "noise") & (found["group"] == "all")].set_index("measure")
    assert whole.loc["energy", "mean"] == pytest.approx(rows.loc[rows["method"] == "noise", "energy"].mean())
    assert whole.loc["energy", "images"] == 5
    assert whole.loc["energy", "patients"] == 3
    assert whole.loc["energy", "low"] <= whole.loc["energy", "mean"] <= whole.loc["energy", "high"]
    # every resample of three patients is one of these multisets; the interval cannot leave their range
    by_patient = rows[rows["method"] == "noise"].groupby("patient_id")["energy"].mean()
    assert by_patient.min() - 1e-9 <= whole.loc["energy", "low"]
    assert whole.loc["energy", "high"] <= by_patient.max() + 1e-9


@pytest.mark.parametrize(("confidence", "low", "high"), [(0.95, 0, 1), (0.2, 0.5, 0.5)])
def test_intervals_are_of_the_confidence_that_is_asked_for(confidence, low, high):
    """Of two patients with 0 and 1, a quarter of the resamples has the mean 0, a half 0.5 and a quarter 1."""
    about = {"image_id": ["a", "b"], "patient_id": ["A", "B"], "group": "malignant, correct", "empty": 0.0}
    one, other = (pd.DataFrame(about).assign(method=name, energy=energy) for name, energy in (("1", [0, 1]), ("2", 0)))
    rows = pd.concat([one, other], ignore_index=True)
    found = localisation.summary(rows, 1000, confidence, 0, ["energy"]).set_index(["method", "group"])
    assert found.loc[("1", "all"), ["low", "high"]].tolist() == [low, high]
    found = localisation.differences(rows, "1", 1000, confidence, 0, ["energy"])
    assert found[["low", "high"]].iloc[0].tolist() == [low, high]


def test_one_patient_has_a_mean_and_a_reason_instead_of_an_interval():
    images, maps = inputs()
    rows = localisation.per_image(table(), images, np.array([0.1, 0.9, 0.2, 0.5, 0.5]), maps, 0.5)
    found = localisation.summary(rows, 200, 0.95, 0).set_index(["method", "group", "measure"])
    alone = found.loc[("perfect", "benign, wrong", "energy")]
    assert alone["mean"] == 1
    assert np.isnan(alone["low"])
    assert "at least two" in alone["note"]
    rows = localisation.per_image(table(), images, np.full(5, 0.9), maps, 0.5)
    none = localisation.summary(rows, 200, 0.95, 0).set_index(["method", "group", "measure"])
    assert none.loc[("perfect", "malignant, wrong", "iou"), "note"] == "no such image"


def test_differences_are_paired():
    images, maps = inputs()
    maps["same"] = maps["noise"]
    rows = localisation.per_image(table(), images, np.full(5, 0.9), maps, 0.5)
    found = localisation.differences(rows, "noise", 300, 0.95, 0).set_index(["measure", "label"])
    same = found.loc[("energy", "noise − same")]
    assert (same["difference"], same["low"], same["high"], same["p"]) == (0, 0, 0, 1)
    energy = rows.pivot(index="image_id", columns="method", values="energy")
    expected = (energy["noise"] - energy["perfect"]).mean()
    assert found.loc[("energy", "noise − perfect"), "difference"] == pytest.approx(expected)
    assert found.loc[("energy", "noise − perfect"), "high"] < 0
    with pytest.raises(ValueError, match="no rows of method 'other'"):
        localisation.differences(rows, "other", 10, 0.95, 0)


def test_representative_cases_are_the_medians_of_equal_groups():
    cases = pd.DataFrame({"image_id": [f"I{n:02d}" for n in range(15)], "label": [0] * 6 + [1] * 9})
    probability = np.r_[[0.6, 0.1, 0.2, 0.3, 0.5, 0.4], np.linspace(0.9, 0.1, 9)]
    chosen = localisation.representative_cases(cases, probability, 2, 3)
    assert list(probability[chosen[:2]]) == [0.2, 0.5]
    np.testing.assert_allclose(probability[chosen[2:]], [0.2, 0.5, 0.8])
    assert list(cases["label"].iloc[chosen]) == [0, 0, 1, 1, 1]
    shuffled = cases.assign(probability=probability).sample(frac=1, random_state=0)
    again = localisation.representative_cases(shuffled, shuffled["probability"].to_numpy(), 2, 3)
    assert list(shuffled["image_id"].iloc[again]) == list(cases["image_id"].iloc[chosen])


def test_a_class_with_fewer_cases_than_samples_shows_each_of_them():
    cases = pd.DataFrame({"image_id": ["a", "b", "c", "d"], "label": [0, 1, 0, 1]})
    assert localisation.representative_cases(cases, np.array([0.5, 0.9, 0.4, 0.1]), 2, 3) == [2, 0, 3, 1]
    assert localisation.representative_cases(cases.iloc[:0], np.zeros(0), 2, 3) == []
