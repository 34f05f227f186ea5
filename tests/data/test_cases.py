"""A table that may be is read back as it was; each thing that may not be is named by file, row and column."""

import numpy as np
import pandas as pd
import pytest

from mammo_lib.data import cases

ROW = {
    "mass_id": "P_1_LEFT_CC_1",
    "image_id": "P_1_LEFT_CC",
    "patient_id": "P_1",
    "side": "LEFT",
    "view": "CC",
    "label": 1,
    "pathology": "MALIGNANT",
    "official_split": "train",
    "assessment": "4",
    "density": "N/A",
    "subtlety": "",
    "shape": "OVAL",
    "margins": "N/A",
    "image_path": "Bilder/Größe 1..2.png",
    "mask_path": "",
    "box_x": 0,
    "box_y": 7,
    "box_w": 30,
    "box_h": 1,
    "source": "own",
}
MASKED = {"mass_id": "P_1_LEFT_CC_2", "mask_path": "m.png", "box_x": None, "box_y": None, "box_w": None, "box_h": None}


def frame_of(*changes: dict) -> pd.DataFrame:
    return pd.DataFrame([{**ROW, **change} for change in changes])


def test_round_trip(tmp_path):
    table = cases.table([ROW, {**ROW, **MASKED}], "here")
    cases.write(table, tmp_path / "cases.csv")
    read = cases.read(tmp_path / "cases.csv")
    pd.testing.assert_frame_equal(read, table)
    assert list(read.columns) == list(cases.COLUMNS)
    assert read["label"].dtype == "int64"
    assert read["box_w"].tolist() == [30, pd.NA]
    assert read["density"].tolist() == ["N/A", "N/A"]  # text, not a missing value


def test_extra_columns_stay_at_the_end():
    table = cases.table([{"crop_path": "c.png", **ROW}], "here")
    assert list(table.columns) == [*cases.COLUMNS, "crop_path"]


def test_byte_order_mark_crlf_and_spaces_around_cells(tmp_path):
    text = (
        cases.table([ROW], "here")
        .to_csv(index=False, lineterminator="\r\n")
        .replace("P_1_LEFT_CC_1", " P_1_LEFT_CC_1 ")
    )
    (tmp_path / "cases.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert cases.read(tmp_path / "cases.csv")["mass_id"].tolist() == ["P_1_LEFT_CC_1"]


def test_columns_without_a_name_are_no_column_twice(tmp_path):
    """As a spreadsheet writes a table with two columns that were emptied."""
    (tmp_path / "cases.csv").write_text("mass_id,,\nm,,\n")
    assert cases.read_csv(tmp_path / "cases.csv")["mass_id"].tolist() == ["m"]


def test_blank_rows_hold_no_mass_and_are_counted(tmp_path):
    rows = [ROW, dict.fromkeys(ROW, ""), {**ROW, "mass_id": "P_1_LEFT_CC_2", "label": "2"}]
    pd.DataFrame(rows).to_csv(tmp_path / "cases.csv", index=False)
    lines = (tmp_path / "cases.csv").read_text().splitlines()
    (tmp_path / "cases.csv").write_text("\n".join([*lines[:2], "", "  ", *lines[2:], ""]))
    assert cases.read_csv(tmp_path / "cases.csv")["label"].tolist() == [str(ROW["label"]), "2"]
    with pytest.raises(ValueError, match=r"row 6 \(mass_id 'P_1_LEFT_CC_2'\): label '2' must be"):
        cases.read(tmp_path / "cases.csv")


def test_cells_that_a_row_lacks_are_blank(tmp_path):
    (tmp_path / "table.csv").write_text("a,b\n1\n")
    assert cases.read_csv(tmp_path / "table.csv").to_dict("records") == [{"a": "1", "b": ""}]


def test_nothing_is_written_for_a_bad_table(tmp_path):
    with pytest.raises(ValueError, match="label"):
        cases.write(frame_of({"label": 2}), tmp_path / "cases.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([{"label": 2}], r"here: row 2 \(mass_id 'P_1_LEFT_CC_1'\): label '2' must be one of: 0, 1"),
        ([{"label": None}], r"row 2 .*label '' must be one of"),
        ([{"side": "left"}], r"side 'left' must be one of: LEFT, RIGHT"),
        ([{"view": "LM"}], r"view 'LM' must be one of: CC, MLO"),
        ([{"official_split": "validation"}], r"official_split 'validation' must be one of: train, test, blank"),
        ([{}, {}], r"row 3 .*mass_id 'P_1_LEFT_CC_1' is there twice"),
        ([{}, {"mass_id": "P_1_LEFT_CC_1 "}], r"row 3 .* is there twice"),
        ([{"patient_id": " "}], r"patient_id '' is blank"),
        ([{"image_path": ""}], r"image_path '' is blank"),
        ([{}, {"mass_id": "2", "patient_id": "NaN"}], r"row 3 .*patient_id 'NaN' is blank, or a word for it"),
        ([{"image_id": "None"}], r"image_id 'None' is blank, or a word for it"),
        ([{"image_path": "<NA>"}], r"image_path '<NA>' is blank, or a word for it"),
        ([{"mask_path": "nan"}], r"mask_path 'nan' is a word for a blank cell: leave it blank"),
        ([{"image_path": "/etc/passwd"}], r"image_path '/etc/passwd' must be relative"),
        ([{"image_path": "a/../../b.png"}], r"image_path .* without \.\."),
        ([{"mask_path": "C:\\masks\\a.png"}], r"mask_path .* must be relative"),
        ([{"mask_path": "C:a.png"}], r"mask_path .* must be relative"),
        ([{"mask_path": "\\masks\\a.png"}], r"mask_path .* must be relative"),
        ([{"mask_path": "..\\a.png"}], r"mask_path .* must be relative"),
        ([{"crop_path": "../a.png"}], r"crop_path .* must be relative"),
        ([{"box_x": -1}], r"box_x '-1' must be a whole number from 0 to 100000"),
        ([{"box_w": 0}], r"box_w '0' must be a whole number from 1 to 100000"),
        ([{"box_w": "1e300"}], r"box_w '1e300' must be a whole number from 1 to 100000"),
        (
            [{"image_path": "a/b.png"}, {**MASKED, "image_id": "P_2_LEFT_CC", "image_path": "./a//b.png"}],
            r"row 3 .*image_id 'P_2_LEFT_CC' has the file of another image",
        ),
        ([{"box_h": 2.5}], r"box_h '2\.5' must be a whole number"),
        ([{"box_y": None}], r"box_y '' must be a whole number"),
        ([{"box_y": "seven"}], r"box_y 'seven' must be a whole number"),
        ([{**MASKED, "mask_path": ""}], r"mask_path '' is blank, and so is the box"),
        ([{}, {"mass_id": "2"}], r"row 3 .*mass_id '2' has the box of another mass of its image"),
        ([{}, {"mass_id": "2", "box_x": "0.0"}], r"row 3 .*mass_id '2' has the box of another mass of its image"),
        ([{}, {**MASKED, "patient_id": "P_2"}], r"row 3 .*patient_id 'P_2' differs from another row of its image"),
        ([{}, {**MASKED, "image_path": "b.png"}], r"row 3 .*image_path 'b\.png' differs"),
        ([{}, {**MASKED, "image_id": "P_2_LEFT_CC"}], r"row 3 .*image_id 'P_2_LEFT_CC' has the file of another image"),
        ([{}, {**MASKED, "official_split": "test"}], r"row 3 .*official_split 'test' differs"),
        ([{"aspect": "oblique"}], r"row 2 .*aspect 'oblique' must be a height / width above 0, or blank"),
        ([{"aspect": "0"}], r"aspect '0' must be a height / width above 0"),
        ([{"aspect": "1.5"}, {**MASKED, "aspect": ""}], r"row 3 .*aspect '' differs from another row of its image"),
    ],
)
def test_what_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        cases.check(frame_of(*changes), "here")


@pytest.mark.parametrize("column", cases.COLUMNS)
def test_every_column_is_asked_for(column):
    with pytest.raises(ValueError, match=f"here: column {column} missing"):
        cases.check(frame_of({}).drop(columns=column), "here")


def test_an_empty_table():
    with pytest.raises(ValueError, match="here: holds no mass"):
        cases.check(frame_of(), "here")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a CSV table"),
        (b"\n\nmass_id\n1\n", "not a CSV table .its first line is blank"),
        ("mass_id\nGröße\n".encode("latin-1"), "is not UTF-8"),
        ("mass_id\nx\n".encode("utf-16"), "is not UTF-8"),
        (b"mass_id\n1,2,3\n1\n", "row 2 has 3 cells, the header 1: put a cell that holds a comma into double quotes"),
        (b'mass_id,side\n"a\n, b",LEFT\n1,2,3\n', "row 3 has 3 cells, the header 2"),
        (b"mass_id, label,side,label\n1,0,LEFT,1\n", "column label is there twice: keep one of them"),
        (b"mass_id\tside\n1\tLEFT\n", "separated by tabs: save the table with commas"),
        (b"Mass_ID,side\n1,LEFT\n", r"found: Mass_ID, side; names of columns are in small letters\)"),
        (b'mass_id,side\n"a,b\n', "not a CSV table"),
        (b'mass_id,side\n"a,b\n' + 200_000 * b"c", "not a CSV table"),
        (b"\x89PNG\r\n", "is not UTF-8"),
    ],
)
def test_files_that_are_no_table(content, message, tmp_path):
    (tmp_path / "cases.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        cases.read(tmp_path / "cases.csv")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such table"):
        cases.read(tmp_path / "cases.csv")


def test_blank_boxes_in_every_guise():
    for blank in (None, "", np.nan, pd.NA):
        changes = {**MASKED, **dict.fromkeys(cases.BOX_COLUMNS, blank)}
        assert cases.table([{**ROW, **changes}], "here")["box_x"].isna().all()


def test_problems():
    table = cases.problem_table([cases.problem("a", "scan", "b.dcm", "cut off")])
    assert table.to_dict("records") == [{"id": "a", "stage": "scan", "file": "b.dcm", "reason": "cut off"}]
    assert list(cases.problem_table([]).columns) == list(cases.PROBLEM_COLUMNS)


def test_rows_may_leave_out_what_may_be_blank():
    ids = {"mass_id": "m", "image_id": "i", "patient_id": "p", "side": "LEFT", "view": "CC", "label": 1}
    table = cases.table([ids | {"image_path": "i.png"} | dict.fromkeys(cases.BOX_COLUMNS, 1)], "here")
    assert table.columns.tolist() == list(cases.COLUMNS)
    blank = set(cases.OPTIONAL) - set(cases.BOX_COLUMNS)
    assert (table[sorted(blank)] == "").all(axis=None)
    with pytest.raises(ValueError, match="column label missing"):
        cases.table([{name: value for name, value in ids.items() if name != "label"} | {"image_path": "i.png"}], "here")


def test_semicolons_are_told_from_commas(tmp_path):
    (tmp_path / "cases.csv").write_text(";".join(cases.COLUMNS) + "\nm;carcinoma, invasive\n")
    with pytest.raises(ValueError, match="separated by semicolons: save the table with commas"):
        cases.read(tmp_path / "cases.csv")
