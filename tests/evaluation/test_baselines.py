"""Baselines against hand-counted cases, a direct minimisation and the official CBIS-DDSM descriptions."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from mammo_lib import config
from mammo_lib.evaluation import audit_chance, baselines, hypotheses, metrics

CSV = Path(__file__).parents[2].parent / "shared" / "data" / "cbis_ddsm" / "csv"
RENAMED = {"left or right breast": "side", "image view": "view", "mass shape": "shape", "mass margins": "margins"}


def masses(rows: list[tuple[str, int, str, str, str]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["patient_id", "label", "assessment", "shape", "margins"])
    names = frame["patient_id"] + "_LEFT_CC"
    return frame.assign(image_id=names, mass_id=names + "_1", side="LEFT")


def official() -> tuple[pd.DataFrame, pd.DataFrame]:
    if not CSV.is_dir():
        pytest.skip(f"the official CBIS-DDSM case descriptions are not in {CSV}")
    parts = []
    for part in ("train", "test"):
        frame = pd.read_csv(CSV / f"mass_case_description_{part}_set.csv", dtype=str, keep_default_na=False)
        frame = frame.rename(columns=RENAMED)
        frame["label"] = (frame["pathology"] == "MALIGNANT").astype(int)
        frame["image_id"] = frame["patient_id"] + "_" + frame["side"] + "_" + frame["view"]
        parts.append(frame.assign(mass_id=frame["image_id"] + "_" + frame["abnormality id"], official_split=part))
    return parts[0], parts[1]


def test_prevalence_is_trainings_share() -> None:
    train = masses([("a", 1, "5", "", ""), ("b", 0, "2", "", ""), ("c", 0, "3", "", ""), ("d", 0, "2", "", "")])
    found = baselines.prevalence(train, masses([("e", 1, "5", "", ""), ("f", 0, "2", "", "")]))
    assert found["probability"].tolist() == [0.25, 0.25]
    assert metrics.auc(found["label"], found["probability"]) == 0.5
    assert found["part"].eq("test").all()


def test_assessments_rank_with_zero_between_three_and_four() -> None:
    given = ["4", "0", "3", "5", "1", "2"]
    test = masses([(str(number), 0, value, "", "") for number, value in enumerate(given)])
    found = baselines.birads(test)["probability"]
    assert [given[place] for place in np.argsort(found)] == ["1", "2", "3", "0", "4", "5"]
    assert {value for value, score in zip(given, found, strict=True) if score >= 0.5} == {"0", "4", "5"}
    level = baselines.birads(test, baselines.ZERO_AS_FOUR)["probability"]
    assert dict(zip(given, level, strict=True)) == dict(zip(given, found, strict=True)) | {"0": found[0]}
    with pytest.raises(ValueError, match=r"assessment of 1 masses .* \(first: x_LEFT_CC_1, '6'\)"):
        baselines.birads(pd.concat([test, masses([("x", 1, "6", "", "")])], ignore_index=True))


@pytest.mark.parametrize("graded", [False, True])
def test_descriptors_are_the_penalised_likelihood_of_their_words(graded: bool) -> None:
    """Against a direct minimisation of the log loss plus half the squared weights, words set out by hand."""
    train = masses(
        [
            ("a", 1, "5", "IRREGULAR", "SPICULATED"),
            ("b", 1, "5", "IRREGULAR-ROUND", "SPICULATED"),
            ("c", 0, "2", "ROUND", ""),
            ("d", 0, "3", "ROUND", "N/A"),
            ("e", 1, "4", "ROUND", "SPICULATED"),
            ("f", 0, "4", "IRREGULAR", ""),
        ]
    )
    words = np.array([[1, 0, 0, 1], [1, 1, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]], float)
    asked = np.array([[0, 1, 0, 1], [0, 0, 1, 0]], float)
    if graded:  # 2, 3, 4, 5
        grades = [[0, 0, 0, 1], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]]
        words, asked = np.hstack([words, grades]), np.hstack([asked, [[0, 0, 0, 1], [1, 0, 0, 0]]])

    def loss(weights: np.ndarray) -> float:
        sign = 2 * train["label"].to_numpy() - 1
        return np.logaddexp(0, -sign * (words @ weights[:-1] + weights[-1])).sum() + (weights[:-1] ** 2).sum() / 2

    best = minimize(loss, np.zeros(words.shape[1] + 1), tol=1e-12).x
    test = masses([("x", 1, "5", "ROUND", "SPICULATED"), ("y", 0, "2", "OVAL", "")])
    columns = baselines.READING if graded else baselines.DESCRIPTORS
    found = baselines.descriptors(train, test, columns)["probability"]
    expected = 1 / (1 + np.exp(-(asked @ best[:-1] + best[-1])))
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-3)


@pytest.mark.parametrize("blank", ["-", " - ", "N/A", "nan"])
def test_a_sign_for_nothing_is_no_descriptor(blank: str) -> None:
    rows = [("a", 1, "5", "IRREGULAR", ""), ("b", 0, "2", "ROUND", ""), ("c", 0, "2", "", ""), ("d", 1, "4", "", "")]
    marked = [(*row[:3], row[3] or blank, blank) for row in rows]  # of margins every one
    found, expected = (baselines.descriptors(masses(table[:3]), masses(table[3:])) for table in (marked, rows))
    assert found["probability"].tolist() == expected["probability"].tolist()


def test_a_patient_in_both_parts_is_refused() -> None:
    train = masses([("a", 1, "5", "ROUND", ""), ("b", 0, "2", "OVAL", "")])
    with pytest.raises(ValueError, match=r"1 patients are in train and test \(first: b\)"):
        baselines.descriptors(train, train.iloc[1:])


def test_on_the_official_test_set() -> None:
    """The AUCs counted pair by pair; the cases and the rank of 0 as the crosstable of the official CSV gives them."""
    train, test = official()
    found = baselines.birads(test).assign(fold=0)
    assert len(found) == 378
    malignant, benign = (found.loc[found["label"] == label, "probability"].to_numpy() for label in (1, 0))
    by_pairs = ((malignant[:, None] > benign) + 0.5 * (malignant[:, None] == benign)).mean()
    assert metrics.auc(found["label"], found["probability"]) == pytest.approx(by_pairs)
    assert by_pairs == pytest.approx(0.832, abs=0.0005)
    described = baselines.descriptors(train, test)
    assert 0.80 < metrics.auc(described["label"], described["probability"]) < 0.85
    assert len(metrics.aggregate(found, "image")) == 361
    assert len(metrics.aggregate(found, "patient")) == 201


def test_official_hypotheses_are_the_csvs_counts() -> None:
    train, test = official()
    every = pd.concat([train, test])

    def classes(frame: pd.DataFrame, unit: str) -> tuple[int, int]:
        malignant = frame[frame["label"] == 1][unit].nunique()
        return malignant, frame[unit].nunique() - malignant

    one_mass = test.groupby("image_id").filter(lambda rows: len(rows) == 1)
    assert {
        ("train + test", "masses"): classes(every, "mass_id"),
        ("train + test", "images"): classes(every, "image_id"),
        ("test", "masses"): classes(test, "mass_id"),
        ("test", "images"): classes(test, "image_id"),
        ("test", "images of one mass"): classes(one_mass, "image_id"),
        ("test", "patients"): classes(test, "patient_id"),
    } == config.CBIS_DDSM_CLASSES


def test_which_named_test_sets_explain_table_1() -> None:
    found = hypotheses.named_test_sets(config.get_profile("paper"))
    sizes = {test_set.name: (test_set.malignant, test_set.benign) for test_set in found}
    assert sizes["official test set, masses"] == (147, 231)
    assert sizes["official test set, 8 patches a mass"] == (1176, 1848)
    assert sizes["as written: 20% of images, the paper's counts"] == (149, 169)
    findings = audit_chance.hypothesis_chances(hypotheses.printed_rows("P"), found)
    assert findings.set_index("hypothesis").loc["official test set, masses", "which"].count(";") == 2
    explained = findings.groupby("hypothesis")["explained"].sum()
    assert explained["official test set, masses"] == 3
    assert explained[[name for name in explained.index if name.startswith("as written")]].eq(0).all()
