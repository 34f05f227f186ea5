"""The door of the evaluation: what it lets in, and the rows it names when it does not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mammo_lib.evaluation import predictions


def wanted() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": ["a#0", "a#1", "b#0"],
            "part": ["validation", "test", "test"],
            "mass_id": ["a", "a", "b"],
            "image_id": ["A", "A", "B"],
            "patient_id": ["P_1", "P_1", "0002"],
            "label": [1, 1, 0],
        }
    )


def written(path: Path, **changes: list[object]) -> Path:
    frame = wanted().assign(probability=[0.25, 1.0, 0.0], **changes)
    frame.sample(frac=1, random_state=1).to_csv(path, index=False)
    return path


def test_a_good_file_comes_back_in_the_order_wanted(tmp_path: Path) -> None:
    found = predictions.read(written(tmp_path / "predictions.csv"), wanted())
    assert found["id"].tolist() == ["a#0", "a#1", "b#0"]
    assert found["probability"].tolist() == [0.25, 1.0, 0.0]
    assert found["patient_id"].tolist() == ["P_1", "P_1", "0002"]  # never a number
    assert tuple(found.columns) == predictions.COLUMNS


def test_images_have_an_empty_mass(tmp_path: Path) -> None:
    path = written(tmp_path / "predictions.csv", mass_id=[None] * 3)
    for cases in (wanted().drop(columns="mass_id"), *(wanted().assign(mass_id=blank) for blank in ("", None, np.nan))):
        assert predictions.read(path, cases)["mass_id"].tolist() == ["", "", ""]


def test_patients_that_are_numbers_agree_with_their_text(tmp_path: Path) -> None:
    path = written(tmp_path / "predictions.csv", patient_id=[7, 7, 8])
    assert predictions.read(path, wanted().assign(patient_id=[7, 7, 8]))["patient_id"].tolist() == ["7", "7", "8"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"probability": [0.25, 1.5, 0.0]},
            r"probability is not a number in \[0, 1\] in 1 rows \(id a#1, probability 1.5",
        ),
        ({"probability": [0.25, -0.1, None]}, r"in 2 rows"),
        ({"probability": ["nan", 1, 0]}, r"id a#0, probability nan"),
        ({"probability": ["high", 1, 0]}, r"id a#0, probability high"),
        ({"label": [1, 1, 1]}, r"label disagrees .* in 1 rows \(id b#0, label 1, expected 0\)"),
        ({"label": [1, 1, 2]}, r"label is neither 0 nor 1 in 1 rows \(id b#0, label 2"),
        ({"label": [1, 0.5, 0]}, r"label is neither 0 nor 1"),
        ({"label": ["benign", 1, 0]}, r"label is neither 0 nor 1 in 1 rows \(id a#0, label benign"),
        ({"id": ["a#0", "a#0", "b#0"]}, r"more than once in 2 rows \(id a#0"),
        ({"id": ["a#0", "a#1", "c#7"]}, r"1 expected ids are missing \(b#0\)"),
        ({"part": ["test", "test", "test"]}, r"part disagrees .* \(id a#0, part test, expected validation\)"),
        ({"patient_id": ["P_1", "P_9", "0002"]}, r"patient_id disagrees .* \(id a#1, patient_id P_9, expected P_1\)"),
    ],
)
def test_bad_files_are_refused_with_the_rows(tmp_path: Path, changes: dict[str, list[object]], said: str) -> None:
    path = tmp_path / "predictions.csv"
    frame = wanted().assign(probability=[0.25, 1.0, 0.0]).astype(object).assign(**changes)
    frame.to_csv(path, index=False)
    with pytest.raises(ValueError, match=said) as error:
        predictions.read(path, wanted())
    assert str(path) in str(error.value)


def test_a_case_that_is_expected_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected cases lists id a#0 more than once"):
        predictions.read(written(tmp_path / "predictions.csv"), pd.concat([wanted(), wanted().iloc[:1]]))


def test_foreign_rows_missing_columns_and_no_file(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    extra = wanted().assign(probability=0.5)
    pd.concat([extra, extra.iloc[:1].assign(id="z#1")]).to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"id is not among the cell's cases in 1 rows \(id z#1"):
        predictions.read(path, wanted())
    extra.drop(columns=["part", "label"]).to_csv(path, index=False)
    with pytest.raises(ValueError, match="column part, label is missing"):
        predictions.read(path, wanted())
    with pytest.raises(FileNotFoundError, match="train this cell first"):
        predictions.read(tmp_path / "none.csv", wanted())


def test_align_pairs_by_id_and_refuses_other_cases() -> None:
    first = wanted().assign(probability=[0.1, 0.2, 0.3], fold=0)
    second = wanted().assign(probability=[0.4, 0.5, 0.6]).iloc[::-1]
    found = predictions.align(first, second).set_index("id")
    assert found.loc["a#1", ["first", "second"]].tolist() == [0.2, 0.5]
    with pytest.raises(ValueError, match=r"1 cases are in one of the two predictions only \(a#0\)"):
        predictions.align(first, second[second["id"] != "a#0"])
    with pytest.raises(ValueError, match="disagree for b#0"):
        predictions.align(first, second.assign(label=[1, 1, 1]))
