"""Four layouts, one case table; files told by what they are; holes and tricks end in one sentence or one row."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from mammo_lib.data import archive_layouts, cases, cbis_ddsm, images, masks

LAYOUTS = {
    "old": archive_layouts.TCIA_OLD,
    "new": archive_layouts.TCIA_NEW,
    "idc": archive_layouts.IDC,
    "jpeg": archive_layouts.JPEG_MIRROR,
}
PATHS = ["image_path", "mask_path", "crop_path"]


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask)
    x, y = int(columns.min()), int(rows.min())
    return x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_table(layout, write_archive, mass_boxes, tmp_path):
    root = write_archive(tmp_path / "archive", layout)
    table, problems = cbis_ddsm.case_table(root)
    reference, _ = cbis_ddsm.case_table(write_archive(tmp_path / "reference", "old"))
    assert archive_layouts.recognise(root) == LAYOUTS[layout]
    assert problems.empty
    pd.testing.assert_frame_equal(table.drop(columns=PATHS), reference.drop(columns=PATHS))
    assert list(table.columns) == [*cases.COLUMNS, "crop_path"]
    for row in table.to_dict("records"):
        image = images.read_image(root / row["image_path"])
        mask, note = masks.read_mask(root / row["mask_path"], image, root / row["crop_path"])
        assert box_of(mask) == mass_boxes[row["mass_id"]]
        assert note == ""
        x, y, _, _ = mass_boxes[row["mass_id"]]
        assert masks.locate(images.read_image(root / row["crop_path"]), image)[:2] == (x - 5, y - 5)


def test_table_by_hand(write_archive, tmp_path):
    table, _ = cbis_ddsm.case_table(write_archive(tmp_path))
    assert table["mass_id"].tolist() == [
        "P_00001_LEFT_CC_1",
        "P_00001_LEFT_CC_2",
        "P_00002_RIGHT_MLO_1",
        "P_00003_LEFT_MLO_1",
    ]
    assert table["label"].tolist() == [1, 0, 0, 1]
    assert table["official_split"].tolist() == ["train", "train", "train", "test"]
    assert table["image_id"].nunique() == 3
    assert table["margins"].tolist() == ["N/A"] * 4
    assert table["box_x"].isna().all()
    written = tmp_path / "cases.csv"
    cases.write(table, written)
    pd.testing.assert_frame_equal(cases.read(written), table)


@pytest.mark.parametrize("layout", ["old", "jpeg"])
@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"cropped images": "ROI mask images", "ROI mask images": "cropped images"}, 2),
        ({"cropped images": "ROI mask images"}, 1),
        ({"ROI mask images": "cropped images"}, 1),
        ({"cropped images": None, "ROI mask images": None}, 2),
    ],
    ids=["swapped", "both masks", "both crops", "missing"],
)
def test_a_wrong_description_is_found_and_told(layout, names, told, write_archive, redescribe, tmp_path):
    mass = "Mass-Training_P_00002_RIGHT_MLO_1"
    straight, _ = cbis_ddsm.case_table(write_archive(tmp_path / "straight", layout))
    table, problems = cbis_ddsm.case_table(write_archive(tmp_path / "crooked", layout, redescribe(mass, names)))
    pd.testing.assert_frame_equal(table, straight)
    assert problems["stage"].tolist() == [cases.NOTE] * told
    assert set(problems["id"]) == {"P_00002_RIGHT_MLO_1"}


def test_a_small_mask_is_a_mask_by_its_values(write_archive, tmp_path):
    def shrink(picture):
        if picture.description != "ROI mask images":
            return picture
        return replace(picture, pixels=cv2.resize(picture.pixels, None, fx=0.5, fy=0.5, interpolation=0))

    straight, _ = cbis_ddsm.case_table(write_archive(tmp_path / "straight"))
    table, problems = cbis_ddsm.case_table(write_archive(tmp_path / "small", change=shrink))
    assert problems["stage"].tolist() == [cases.NOTE] * 4
    assert (problems["reason"] == "mask of another size than its image (80 x 60 for 160 x 120 pixels)").all()
    pd.testing.assert_frame_equal(table, straight)


def test_two_crops_and_no_mask_keep_the_mass(write_archive, tmp_path):
    def lose_mask(picture):
        if (picture.patient, picture.description) != ("Mass-Test_P_00003_LEFT_MLO_1", "ROI mask images"):
            return picture
        return replace(
            picture, pixels=np.arange(40 * 30, dtype=np.uint16).reshape(40, 30), description="cropped images"
        )

    table, problems = cbis_ddsm.case_table(write_archive(tmp_path, change=lose_mask))
    assert table["mask_path"].tolist()[-1] == ""
    assert len(table) == 4
    assert problems["id"].unique().tolist() == ["P_00003_LEFT_MLO_1"]
    assert problems["reason"].str.contains("crop will stand in").sum() == 1


def without(*gone):
    return lambda picture: None if (picture.patient, picture.description) in gone else picture


def test_missing_files_are_one_sentence_or_rows(write_archive, tmp_path):
    gone = without(
        ("Mass-Training_P_00001_LEFT_CC", "full mammogram images"),
        ("Mass-Test_P_00003_LEFT_MLO_1", "ROI mask images"),
    )
    root = write_archive(tmp_path, "new", gone)
    with pytest.raises(FileNotFoundError) as refused:
        cbis_ddsm.case_table(root)
    message = str(refused.value)
    assert "3 of 4 masses" in message
    assert "P_00001_LEFT_CC_1: no full mammogram" in message
    assert "\n" not in message
    table, problems = cbis_ddsm.case_table(root, allow_partial=True)
    assert table["mass_id"].tolist() == ["P_00002_RIGHT_MLO_1", "P_00003_LEFT_MLO_1"]
    assert problems.groupby("stage")["id"].apply(list).to_dict() == {
        "match": ["P_00001_LEFT_CC_1", "P_00001_LEFT_CC_2"],
        "note": ["P_00003_LEFT_MLO_1"],
    }


def test_a_missing_malignant_mass_does_not_leave_its_image_benign(write_archive, tmp_path):
    mass = "Mass-Training_P_00001_LEFT_CC_1"  # malignant; the other one of its image is benign
    root = write_archive(tmp_path, "new", without((mass, "cropped images"), (mass, "ROI mask images")))
    table, problems = cbis_ddsm.case_table(root, allow_partial=True)
    assert table["mass_id"].tolist() == ["P_00002_RIGHT_MLO_1", "P_00003_LEFT_MLO_1"]
    assert problems.set_index("id")["stage"].to_dict() == {"P_00001_LEFT_CC_1": "match", "P_00001_LEFT_CC_2": "label"}


def test_without_any_usable_mass_a_partial_archive_is_an_error_too(write_archive, tmp_path):
    root = write_archive(tmp_path, change=lambda picture: None if picture.patient[-2] == "_" else picture)
    with pytest.raises(FileNotFoundError, match="4 of 4 masses"):
        cbis_ddsm.case_table(root, allow_partial=True)


def test_an_unreadable_file_is_named(write_archive, tmp_path):
    root = write_archive(tmp_path)
    victim = next(root.glob("Mass-Test_P_00003_LEFT_MLO/**/*.dcm"))
    victim.write_text("404: not found")
    with pytest.raises(FileNotFoundError, match=r"1 of 4 masses.*1 files were refused.*000000\.dcm: not readable"):
        cbis_ddsm.case_table(root)
    _, problems = cbis_ddsm.case_table(root, allow_partial=True)
    assert victim.relative_to(root).as_posix() in problems["file"].tolist()


@pytest.mark.parametrize("what", ["file", "folder"])
def test_links_out_of_the_archive_are_refused(what, write_archive, tmp_path):
    root = write_archive(tmp_path / "archive")
    victim = next(root.glob("Mass-Test_P_00003_LEFT_MLO/**/*.dcm"))
    inside = victim if what == "file" else victim.parent
    outside = tmp_path / inside.name
    inside.rename(outside)
    inside.symlink_to(outside)
    with pytest.raises(FileNotFoundError, match="symbolic link out of the archive"):
        cbis_ddsm.case_table(root)
    _, problems = cbis_ddsm.case_table(root, allow_partial=True)
    assert problems["stage"].tolist() == ["match", "scan"]


def test_the_archive_itself_may_be_a_link(write_archive, tmp_path):
    write_archive(tmp_path / "large disk")
    (tmp_path / "CBIS-DDSM").symlink_to(tmp_path / "large disk")
    table, problems = cbis_ddsm.case_table(tmp_path / "CBIS-DDSM")
    assert len(table) == 4
    assert problems.empty


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("CBIS-DDSM/jpeg/../../secret.jpg", "leads out of the archive"),
        ("CBIS-DDSM/jpeg/link.jpg", "leads out of the archive"),
        ("../secret.jpg", "is not below jpeg/"),
        ("/etc/passwd", "is not below jpeg/"),
        ("", "is not below jpeg/"),
        ("CBIS-DDSM/jpeg/gone.jpg", "names a file that is not there"),
    ],
)
def test_paths_of_the_mirror_stay_within_it(path, reason, write_archive, tmp_path):
    root = write_archive(tmp_path / "archive", "jpeg")
    (tmp_path / "secret.jpg").write_bytes(next(root.rglob("*.jpg")).read_bytes())
    (root / "jpeg/link.jpg").symlink_to(tmp_path / "secret.jpg")
    table = root / "csv/dicom_info.csv"
    info = pd.read_csv(table, dtype=str)
    info.loc[info["PatientID"] == "Mass-Test_P_00003_LEFT_MLO", "image_path"] = path
    info.to_csv(table, index=False)
    with pytest.raises(FileNotFoundError, match=rf"1 of 4 masses.*dicom_info\.csv: image_path .* {reason}"):
        cbis_ddsm.case_table(root)


def test_what_is_no_file_is_passed_over(write_archive, tmp_path):
    """A pipe would be waited on for ever."""
    root = write_archive(tmp_path)
    os.mkfifo(root / "0.dcm")
    (root / "1.dcm").mkdir()
    table, problems = cbis_ddsm.case_table(root)
    assert (len(table), len(problems)) == (4, 0)


def test_names_with_spaces_and_accents(write_archive, tmp_path):
    table, _ = cbis_ddsm.case_table(write_archive(tmp_path / "Mammographie für José"))
    assert len(table) == 4


def test_no_archive(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        archive_layouts.recognise(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="neither DICOM files"):
        archive_layouts.recognise(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"mass_case_description_train_set\.csv and .* missing"):
        cbis_ddsm.case_table(tmp_path)


def test_tables_beside_the_folders_and_one_of_two(write_archive, tmp_path):
    root = write_archive(tmp_path)
    for path in (root / "csv").iterdir():
        path.rename(root / path.name)
    assert len(cbis_ddsm.case_table(root)[0]) == 4
    (root / "mass_case_description_test_set.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"mass_case_description_test_set\.csv missing"):
        cbis_ddsm.case_table(root)
    assert len(cbis_ddsm.case_table(root, allow_partial=True)[0]) == 3


def edited(root: Path, before: str, after: str) -> Path:
    path = root / "csv/mass_case_description_train_set.csv"
    text = path.read_bytes().decode()
    assert before in text
    path.write_bytes(text.replace(before, after, 1).encode())
    return root


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("MALIGNANT", "MALIGN", r"train_set\.csv: row 2: pathology 'MALIGN' is none of MALIGNANT, BENIGN, BENIGN_W"),
        ("RIGHT,MLO", "UP,MLO", r"row 4: left_or_right_breast 'UP' is none of LEFT, RIGHT"),
        ("RIGHT,MLO", "RIGHT,LM", r"row 4: image_view 'LM'"),
        ("RIGHT,MLO,1", "RIGHT,MLO,one", r"row 4: abnormality_id 'one' is not a number"),
        ("pathology", "Pathology?", r"column pathology missing"),
        ("LEFT,CC,2,", "LEFT,CC,1 ,", r"row 3: .*LEFT_CC, abnormality_id 1, is there already .*row 2"),
        ("P_00002,", "P_00009,", r"row 4: image_file_path '.*' does not start with the image of its row"),
    ],
)
def test_what_a_table_must_not_say(before, after, message, write_archive, tmp_path):
    with pytest.raises(ValueError, match=message):
        cbis_ddsm.case_table(edited(write_archive(tmp_path), before, after))


def test_encodings(write_archive, tmp_path):
    root = write_archive(tmp_path)
    path = root / "csv/mass_case_description_train_set.csv"
    content = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + content)
    assert len(cbis_ddsm.case_table(root)[0]) == 4
    path.write_bytes(content.replace(b"OVAL", "ÖVAL".encode("latin-1")))
    with pytest.raises(ValueError, match="is not UTF-8"):
        cbis_ddsm.case_table(root)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="not a CSV table"):
        cbis_ddsm.case_table(root)


@pytest.mark.parametrize("layout", ["old", "idc"])
def test_cells_that_call_the_crop_the_mask(layout, write_archive, tmp_path):
    def turn(picture):
        turned = picture.patient == "Mass-Training_P_00001_LEFT_CC_2"
        return replace(picture, number=3 - picture.number) if turned else picture

    for change, expected in [(lambda picture: picture, []), (turn, ["P_00001_LEFT_CC_2"])]:
        root = write_archive(tmp_path / str(len(expected)), layout, change)
        table, problems = cbis_ddsm.case_table(root)
        descriptions = cbis_ddsm.read_descriptions(cbis_ddsm.find_descriptions(root))
        assert cbis_ddsm.swapped_cells(table, descriptions, root) == expected
        own = table.assign(mass_id=table["mass_id"].where(table.index > 0, "mine"))  # no description knows it
        assert cbis_ddsm.swapped_cells(own, descriptions, root) == [
            mass for mass in expected if mass in set(own["mass_id"])
        ]
        assert problems.empty  # the header says what the file is: nothing to repair


def test_real_tables_against_a_plain_csv_reader(cbis_ddsm_files):
    table = cbis_ddsm.read_descriptions(cbis_ddsm.find_descriptions(cbis_ddsm_files))
    rows = []
    for name in cbis_ddsm.MASS_TABLES:
        with open(cbis_ddsm_files / "csv" / name, newline="") as file:
            rows += list(csv.DictReader(file))
    assert len(table) == len(rows) == 1696
    assert table["label"].tolist() == [int(row["pathology"].strip() == "MALIGNANT") for row in rows]
    assert table["label"].sum() == 784
    assert table["official_split"].value_counts().to_dict() == {"train": 1318, "test": 378}
    assert table["image_id"].nunique() == 1592
    assert table["patient_id"].nunique() == 892


def test_real_calcification_tables_are_read_too(cbis_ddsm_files):
    table = cbis_ddsm.read_descriptions(sorted((cbis_ddsm_files / "csv").glob("calc*.csv")))
    assert len(table) == 1872
    assert (table["breast_density"] != "").all()  # "breast density" in these tables


def test_real_excerpt_of_the_mirror(cbis_ddsm_files, tmp_path):
    """The excerpt lists images and ROI files of five mass patients, without crops: those masses are all found."""
    excerpt = pd.read_csv(cbis_ddsm_files / "kaggle/dicom_info_excerpt.csv", dtype=str)
    root = tmp_path / "CBIS-DDSM"
    (root / "csv").mkdir(parents=True)
    excerpt.to_csv(root / "csv/dicom_info.csv", index=False)
    for row in excerpt.to_dict("records"):
        path = tmp_path / row["image_path"]
        path.parent.mkdir(parents=True)
        picture = np.zeros((60, 40), np.uint8)
        picture[20:40, 10:20] = 255
        cv2.imwrite(str(path), picture)
    for name in cbis_ddsm.MASS_TABLES:
        (root / "csv" / name).write_bytes((cbis_ddsm_files / "csv" / name).read_bytes())
    table, problems = cbis_ddsm.case_table(root, allow_partial=True)
    masses = excerpt["PatientID"].str.fullmatch(r"Mass-.*_(CC|MLO)_\d")
    assert sorted("_".join(mass.split("_")[1:]) for mass in excerpt["PatientID"][masses]) == sorted(table["mass_id"])
    assert len(problems) == 1696 - len(table)
    with pytest.raises(FileNotFoundError, match=f"{len(problems)} of 1696 masses"):
        cbis_ddsm.case_table(root)


def test_real_crops_in_folders_named_roi_mask_images(cbis_ddsm_files, write_dicom, tmp_path):
    for path in (cbis_ddsm_files / "dicom").rglob("*.dcm"):
        copy = tmp_path / path.relative_to(cbis_ddsm_files / "dicom")
        copy.parent.mkdir(parents=True)
        copy.write_bytes(path.read_bytes())
    full = np.zeros((4000, 3000), np.uint16)
    write_dicom(tmp_path / "full/000000.dcm", full, PatientID="Mass-Test_P_00116_RIGHT_MLO")
    for name in cbis_ddsm.MASS_TABLES:
        (tmp_path / name).write_bytes((cbis_ddsm_files / "csv" / name).read_bytes())
    table, problems = cbis_ddsm.case_table(tmp_path, allow_partial=True)
    assert table["mass_id"].tolist() == ["P_00116_RIGHT_MLO_1", "P_00116_RIGHT_MLO_2"]
    assert (table["mask_path"] == "").all()
    assert table["crop_path"].str.contains("ROI mask images").all()
    assert (problems["stage"] == cases.NOTE).sum() == 2
    assert archive_layouts.recognise(tmp_path) == archive_layouts.TCIA_OLD
