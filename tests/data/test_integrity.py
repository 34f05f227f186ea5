"""The named checks: small tables with a known fault each, and the real official tables counted again by hand."""

import csv
import re
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from mammo_lib.config import PAPER_COUNTS
from mammo_lib.data import cases, cbis_ddsm, integrity, near_duplicates

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "cbis_ddsm"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the official tables are not at ../shared/data/cbis_ddsm")

NO_PROBLEM = cases.problem_table([])
COLUMNS = (
    "patient_id,breast_density,left or right breast,image view,abnormality id,abnormality type,{0},{1},assessment,"
    "pathology,subtlety,image file path,cropped image file path,ROI mask file path\n"
)

# patient, side, view, abnormality, pathology
MASS_TRAIN = [
    ("P_00001", "LEFT", "CC", 1, "MALIGNANT"),
    ("P_00001", "LEFT", "CC", 2, "BENIGN"),  # a mixed mammogram
    ("P_00001", "LEFT", "MLO", 1, "BENIGN"),  # and a lesion that disagrees with itself
    ("P_00002", "RIGHT", "CC", 1, "BENIGN_WITHOUT_CALLBACK"),
]
MASS_TEST = [("P_00003", "LEFT", "CC", 1, "BENIGN"), ("P_00004", "LEFT", "CC", 1, "MALIGNANT")]
CALC_TRAIN = [("P_00003", "LEFT", "CC", 1, "BENIGN"), ("P_00004", "RIGHT", "CC", 1, "BENIGN")]
CALC_TEST = [("P_00009", "LEFT", "CC", 1, "MALIGNANT")]


def write_tables(root: Path, **rows: list[tuple[str, str, str, int, str]]) -> pd.DataFrame:
    """The four tables, or those given; and a case table of all their masses, with files on disk."""
    (root / "csv").mkdir(parents=True)
    masses = []
    for name, table in rows.items():
        kind, subset = name.split("_")
        text = COLUMNS.format(
            *(("mass shape", "mass margins") if kind == "mass" else ("calc type", "calc distribution"))
        )
        for patient, side, view, number, pathology in table:
            key = f"{kind.title()}-{'Training' if subset == 'train' else 'Test'}_{patient}_{side}_{view}"
            paths = f"{key}/1/2/0.dcm,{key}_{number}/1/2/0.dcm,{key}_{number}/1/2/1.dcm"
            abnormality = "mass" if kind == "mass" else "calcification"
            text += f"{patient},2,{side},{view},{number},{abnormality},X,Y,4,{pathology},3,{paths}\n"
            if kind == "mass":
                image_id = f"{patient}_{side}_{view}"
                masses.append({"mass_id": f"{image_id}_{number}", "image_path": f"{image_id}.png", "mask_path": ""})
                (root / f"{image_id}.png").touch()
        (root / "csv" / f"{kind}_case_description_{subset}_set.csv").write_text(text)
    return pd.DataFrame(masses)


def by_name(findings: list[integrity.Finding]) -> dict[str, integrity.Finding]:
    named = {finding.name: finding for finding in findings}
    assert len(named) == len(findings)
    return named


@pytest.fixture
def small(tmp_path):
    table = write_tables(
        tmp_path, mass_train=MASS_TRAIN, mass_test=MASS_TEST, calc_train=CALC_TRAIN, calc_test=CALC_TEST
    )
    return tmp_path, table


def test_a_table_that_lies_in_both_places_is_read_once(tmp_path):
    write_tables(tmp_path, mass_train=MASS_TRAIN, mass_test=MASS_TEST)
    for path in (tmp_path / "csv").iterdir():
        shutil.copy(path, tmp_path)
    assert len(integrity.descriptions(tmp_path)["mass"]) == len(MASS_TRAIN) + len(MASS_TEST)


def test_traits_of_the_tables_are_found_with_their_ids(small):
    root, table = small
    found = by_name(integrity.check(table, NO_PROBLEM, root, official=False))
    assert found["images with benign and malignant masses"].ids == ("P_00001_LEFT_CC",)
    assert found["lesions whose views disagree in label"].ids == ("P_00001_LEFT_1",)
    assert found["patients in calc train and mass test"].ids == ("P_00003", "P_00004")
    assert found["mammograms in calc train and mass test"].ids == ("P_00003_LEFT_CC",)
    assert found["patients in mass train and mass test"].ok is True
    assert found["mass, train: images"] == integrity.Finding("mass, train: images", None, 3, None)
    assert found["mass, test: malignant rows"].found == 1
    assert not any(name.startswith("paper") for name in found)  # nothing to compare with


def test_a_patient_in_train_and_test_of_one_set_is_a_fault_in_any_archive(tmp_path):
    table = write_tables(tmp_path, mass_train=MASS_TRAIN, mass_test=[("P_00002", "LEFT", "CC", 1, "BENIGN")])
    finding = by_name(integrity.check(table, NO_PROBLEM, tmp_path, official=False))[
        "patients in mass train and mass test"
    ]
    assert (finding.ok, finding.ids) == (False, ("P_00002",))


def test_a_small_archive_that_claims_to_be_all_of_it_differs(small):
    root, table = small
    found = by_name(integrity.check(table, NO_PROBLEM, root, official=True))
    assert found["mass, train: rows"] == integrity.Finding("mass, train: rows", 1318, 4, False)
    assert found["paper: patients"].ok is False
    assert found["official tables"].ok is True


def test_missing_official_tables_are_named(tmp_path):
    table = write_tables(tmp_path, mass_train=MASS_TRAIN)
    finding = by_name(integrity.check(table, NO_PROBLEM, tmp_path, official=True))["official tables"]
    assert (finding.found, finding.ok) == (1, False)
    assert "calc_case_description_test_set.csv" in finding.ids


def test_masses_lost_in_silence_and_unknown_ones_are_found_and_listed_ones_are_not(small):
    root, table = small
    name = "masses of the tables neither used nor listed as set aside, or unknown to them"
    lost = table[table["mass_id"] != "P_00003_LEFT_CC_1"]
    assert by_name(integrity.check(lost, NO_PROBLEM, root, official=False))[name].ids == ("P_00003_LEFT_CC_1",)
    noted = cases.problem_table([cases.problem("P_00003_LEFT_CC_1", cases.NOTE, "", "repaired")])
    assert by_name(integrity.check(lost, noted, root, official=False))[name].found == 1
    listed = cases.problem_table([cases.problem("P_00003_LEFT_CC_1", "match", "", "no file")])
    assert by_name(integrity.check(lost, listed, root, official=False))[name].ok is True
    stranger = pd.concat([table, table.iloc[[0]].assign(mass_id="P_77777_LEFT_CC_1")])
    assert by_name(integrity.check(stranger, NO_PROBLEM, root, official=False))[name].ids == ("P_77777_LEFT_CC_1",)


def test_missing_files_are_listed(small):
    root, table = small
    (root / "P_00003_LEFT_CC.png").unlink()
    table.loc[0, "mask_path"] = "masks/none.png"
    finding = by_name(integrity.check(table, NO_PROBLEM, root, official=False))[
        "files of the case table that are not on disk"
    ]
    assert finding.ids == ("P_00003_LEFT_CC.png", "masks/none.png")


def test_problems_are_counted_by_kind_of_reason(tmp_path):
    problems = cases.problem_table(
        [
            cases.problem("a", "prepare", "", "a/1.dcm: the file is empty"),
            cases.problem("b", "prepare", "", "b/22.dcm: the file is empty"),
            cases.problem("c", "match", "", "no mask"),
            cases.problem("d", cases.NOTE, "", "mask of 12 x 13 pixels scaled"),
        ]
    )
    found = by_name(
        integrity.check(pd.DataFrame({"image_path": [], "mask_path": []}), problems, tmp_path, official=False)
    )
    assert (found["masses set aside"].ids, found["masses set aside"].ok) == (("a", "b", "c"), False)
    assert found["files that cannot be read, or belong to no mass"].ok is True
    assert (found["set aside: … the file is empty"].found, found["set aside: … the file is empty"].ok) == (2, False)
    assert found["set aside: no mask"].ids == ("c",)
    assert found["noted: mask of … x … pixels scaled"].ok is None
    assert "a/1.dcm" in found["set aside: … the file is empty"].note


def test_traits_of_files_are_named_checks_whether_they_occur_or_not(write_archive, redescribe, tmp_path):
    """A mask of another size, a pair whose descriptions and cells are swapped, a file that is no DICOM."""

    def change(picture):
        if (picture.patient, picture.description) == ("Mass-Training_P_00001_LEFT_CC_1", "ROI mask images"):
            return replace(picture, pixels=picture.pixels[::2, ::2].copy())
        if picture.patient == "Mass-Training_P_00001_LEFT_CC_2":
            picture = replace(picture, number=3 - picture.number)
        swapped = {"cropped images": "ROI mask images", "ROI mask images": "cropped images"}
        return redescribe("Mass-Training_P_00002_RIGHT_MLO_1", swapped)(picture)

    found = {}
    for name, how in {"straight": {}, "crooked": {"change": change}}.items():
        root = write_archive(tmp_path / name, **how)
        if how:
            (root / "notes.dcm").write_text("404: not found")
        found[name] = by_name(integrity.check(*cbis_ddsm.case_table(root), root, official=False))
    expected = {
        "masks of another size than their image": ("P_00001_LEFT_CC_1",),
        "crops and masks that are not what they call themselves": ("P_00002_RIGHT_MLO_1",) * 2,
        "masses whose table cells name the crop as the mask": ("P_00001_LEFT_CC_2",),
        "files that cannot be read, or belong to no mass": ("notes.dcm",),
        "masses without a usable mask, whose crop stands in": (),
        "masses with several files of a kind": (),
        "masses set aside": (),
    }
    for name, ids in expected.items():
        assert (found["straight"][name].found, found["straight"][name].ids) == (0, ())
        assert (found["crooked"][name].found, found["crooked"][name].ids) == (len(ids), ids)


def views(count: int, seed: int = 0) -> np.ndarray:
    """Unlike smooth images, uint8 (count, 128, 128)."""
    noise = np.random.default_rng(seed).normal(size=(count, 128, 128)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(image, (0, 0), 6) for image in noise])
    return np.clip(128 + 400 * smooth, 0, 255).astype(np.uint8)


def test_planted_near_duplicates_are_found_and_nothing_else():
    images = views(40)
    images[7] = cv2.imdecode(cv2.imencode(".jpg", images[3], [cv2.IMWRITE_JPEG_QUALITY, 50])[1], cv2.IMREAD_GRAYSCALE)
    images[11] = images[5][:, ::-1]
    images[21] = images[20]  # the same patient: not a finding of this kind
    patients = [f"p{index}" for index in range(40)]
    patients[21] = "p20"
    table = pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(40)],
            "patient_id": patients,
            "official_split": ["train"] * 10 + ["test"] * 30,
        }
    )
    pairs = near_duplicates.near_duplicates(table, images)
    assert len(pairs) == 10
    assert pairs["distance"].is_monotonic_increasing
    near = pairs[pairs["near_duplicate"]]
    assert {(row.image_a, row.image_b, row.mirrored) for row in near.itertuples()} == {
        ("i3", "i7", False),
        ("i5", "i11", True),
    }

    empty = pd.DataFrame({"image_path": [], "mask_path": []})
    finding = integrity.check(empty, NO_PROBLEM, Path(), official=False, pairs=pairs)[-1]
    assert (finding.found, finding.ok) == (1, False)  # i3 and i7 are both in train
    assert finding.ids == ("i5 ~ i11 (0)",)
    blank = near_duplicates.near_duplicates(
        table.assign(official_split=np.nan), images
    )  # as a CSV gives a blank column
    assert integrity.check(empty, NO_PROBLEM, Path(), official=False, pairs=blank)[-1].found == 2


def test_one_patient_has_no_pairs():
    table = pd.DataFrame({"image_id": ["a", "b"], "patient_id": ["p", "p"], "official_split": ["", ""]})
    assert near_duplicates.near_duplicates(table, views(2)).empty


def test_findings_become_a_table_for_people():
    findings = [integrity.Finding("one", 2, 3, False, ("a", "b"), "why"), integrity.Finding("two", None, 1, None)]
    frame = integrity.to_frame(findings)
    assert frame.to_numpy().tolist() == [["one", 2, 3, "differs", "a, b", "why"], ["two", None, 1, "noted", "", ""]]
    assert integrity.to_frame([]).columns.tolist() == frame.columns.tolist()


def rows_of(kind: str, subset: str) -> list[dict[str, str]]:
    with open(REAL / "csv" / f"{kind}_case_description_{subset}_set.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def real():
    everything = pd.concat(
        [table.assign(set=kind) for kind, table in integrity.descriptions(REAL).items()], ignore_index=True
    )
    masses = everything[everything["set"] == "mass"]
    table = pd.DataFrame(
        {"mass_id": masses["image_id"] + "_" + masses["abnormality_id"], "image_path": "", "mask_path": ""}
    )
    return everything, by_name(integrity.check(table, NO_PROBLEM, REAL, official=True))


@needs_real
def test_known_counts_of_the_official_tables_are_those_of_a_plain_count(real):
    _, found = real
    for (kind, subset), known in integrity.KNOWN_COUNTS.items():
        rows = rows_of(kind, subset)
        images = {(row["patient_id"], row["left or right breast"], row["image view"]) for row in rows}
        patients = {row["patient_id"] for row in rows}
        bad = [row for row in rows if row["pathology"] == "MALIGNANT"]
        bad_images = {(row["patient_id"], row["left or right breast"], row["image view"]) for row in bad}
        malignant = (len(bad), len(bad_images), len({row["patient_id"] for row in bad}))
        assert known == (len(rows), len(images), len(patients), *malignant)
        assert all(found[f"{kind}, {subset}: {what}"].ok for what in integrity.COUNTED)


@needs_real
def test_known_traits_of_the_official_tables_are_those_of_a_plain_count(real):
    _, found = real
    of_image, of_lesion = defaultdict(set), defaultdict(set)
    for row in rows_of("mass", "train") + rows_of("mass", "test"):
        breast, malignant = (row["patient_id"], row["left or right breast"]), row["pathology"] == "MALIGNANT"
        of_image["_".join((*breast, row["image view"]))].add(malignant)
        of_lesion["_".join((*breast, row["abnormality id"]))].add(malignant)
    for name, labels in (
        ("images with benign and malignant masses", of_image),
        ("lesions whose views disagree in label", of_lesion),
    ):
        assert found[name].ids == tuple(sorted(key for key, kinds in labels.items() if len(kinds) == 2))
        assert found[name].ok
    for train, test in (("mass", "calc"), ("calc", "mass")):
        one, other = rows_of(train, "train"), rows_of(test, "test")
        shared = {row["patient_id"] for row in one} & {row["patient_id"] for row in other}
        finding = found[f"patients in {train} train and {test} test"]
        assert (finding.ids, finding.ok) == (tuple(sorted(shared)), True)


@needs_real
def test_the_papers_numbers_against_a_plain_count(real):
    everything, found = real
    labels = defaultdict(set)
    for row in rows_of("mass", "train") + rows_of("mass", "test"):
        labels[row["patient_id"], row["left or right breast"], row["image view"]].add(row["pathology"] == "MALIGNANT")
    malignant = sum(True in kinds for kinds in labels.values())
    assert (len(labels), len(labels) - malignant, malignant) == (1592, 845, 747)
    assert (found["paper: mass images"].found, found["paper: mass images"].ok) == (1592, False)
    assert (found["paper: benign"].found, found["paper: benign"].ok) == (845, True)
    assert "images of the mass set (train + test), without a malignant row" in found["paper: benign"].note
    assert (found["paper: malignant"].found, found["paper: malignant"].ok) == (747, False)
    patients = {row["patient_id"] for kind in ("mass", "calc") for row in rows_of(kind, "train")}
    assert (found["paper: patients"].found, found["paper: patients"].ok) == (len(patients), False)
    assert set(PAPER_COUNTS.values()) == {1590, 845, 745, 1249}
    of_patient = defaultdict(list)
    for (patient, *_), kinds in labels.items():
        of_patient[patient].append(True in kinds)
    assert found["paper: mass images left out"].found == 2
    pairs = sum(kinds == [True, True] for kinds in of_patient.values())
    assert re.search(f"2 malignant and 0 benign .* {pairs} patients", found["paper: mass images left out"].note)

    rules = integrity.counting_rules(everything)
    assert len(rules) == 3 * 3 * 2 * len(integrity.UNITS)
    picked = rules.set_index(["tables", "subset", "callbacks", "unit"])
    with_callback = [row for row in rows_of("mass", "train") if row["pathology"] != "BENIGN_WITHOUT_CALLBACK"]
    assert picked.loc[("mass", "train", "without", "rows"), "total"] == len(with_callback)
    assert picked.loc[("mass", "train", "without", "patients"), "total"] == len(
        {r["patient_id"] for r in with_callback}
    )
    assert (rules["total"] == rules["benign"] + rules["malignant"]).all()
