"""A user's own table: what it needs on disk, and what happens when a part of it is not there."""

import pytest

from mammo_lib.data import cases, own_table

BOX = {"box_x": 1, "box_y": 2, "box_w": 3, "box_h": 4}


def row(number, **changes):
    blank = dict.fromkeys(cases.COLUMNS, "")
    ids = {"mass_id": f"m {number}", "image_id": f"i{number}", "patient_id": f"José {number}"}
    about = {"side": "LEFT", "view": "CC", "label": 0, "image_path": f"Größe {number}.png", "source": "own"}
    return blank | ids | about | changes


@pytest.fixture
def archive(tmp_path):
    """Four masses: with a box, with a mask, with a mask that is gone but a crop, with a box and a mask that is gone."""
    rows = [
        row(1, **BOX),
        row(2, mask_path="masks/2.png"),
        row(3, mask_path="masks/3.png", crop_path="crop 3.png"),
        row(4, mask_path="masks/4.png", **BOX),
    ]
    (tmp_path / "masks").mkdir()
    for name in (*(entry["image_path"] for entry in rows), "masks/2.png", "crop 3.png"):
        (tmp_path / name).touch()
    cases.write(cases.table(rows, "here"), tmp_path / "cases.csv")
    return tmp_path


def test_a_table_whose_files_are_there_comes_back_whole(archive):
    table, problems = own_table.case_table(archive)
    assert table["mass_id"].tolist() == ["m 1", "m 2", "m 3", "m 4"]
    assert problems.empty


def test_a_path_of_windows_is_told_so(archive):
    table = (archive / "cases.csv").read_text(encoding="utf-8")
    (archive / "cases.csv").write_text(table.replace("masks/2.png", "masks\\2.png"), encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"m 2: masks\\2\.png is not on disk \(write / in place of \\\)"):
        own_table.case_table(archive)


@pytest.mark.parametrize(
    ("gone", "mass"), [("Größe 1.png", "m 1"), ("masks/2.png", "m 2"), ("crop 3.png", "m 3"), ("Größe 4.png", "m 4")]
)
def test_a_file_that_a_mass_cannot_do_without_stops_unless_a_part_will_do(gone, mass, archive):
    (archive / gone).unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"1 of 4 masses .*first: {mass}: .* is not on disk: .*--allow-partial"
    ):
        own_table.case_table(archive)
    table, problems = own_table.case_table(archive, allow_partial=True)
    assert set(table["mass_id"]) == {"m 1", "m 2", "m 3", "m 4"} - {mass}
    assert problems["id"].tolist() == [mass]


def test_with_every_image_gone_no_part_is_left(archive):
    for path in archive.glob("*.png"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="4 of 4 masses"):
        own_table.case_table(archive, allow_partial=True)


def test_without_a_table_or_with_a_bad_one(archive):
    (archive / "cases.csv").write_text("mass_id\nx\n")
    with pytest.raises(ValueError, match=r"column image_id, .* missing"):
        own_table.case_table(archive)
    (archive / "cases.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"cases\.csv: there is no such table"):
        own_table.case_table(archive)


def test_an_assessment_is_given_of_every_mass_or_of_none(archive):
    table = cases.read(archive / "cases.csv")
    cases.write(table.assign(assessment=["4", "0", "2", "5"]), archive / "cases.csv")
    assert own_table.case_table(archive)[0]["assessment"].tolist() == ["4", "0", "2", "5"]
    for wrong in ("", "4A"):
        table.assign(assessment=["4", wrong, "2", "5"]).to_csv(archive / "cases.csv", index=False)
        with pytest.raises(ValueError, match=rf"'m 2'\): assessment '{wrong}' must be one of 0, .* blank for all"):
            own_table.case_table(archive)


def test_a_missing_malignant_mass_does_not_leave_its_image_benign(archive):
    """i1 has a benign mass and a malignant one whose mask is gone; i2 another malignant one, so its label is known."""
    masked = {"label": 1, "mask_path": "masks/gone.png"}
    own = {"image_id": "i2", "patient_id": "José 2", "image_path": "Größe 2.png"}
    rows = [
        row(1, **BOX),
        row(5, **masked, image_id="i1", patient_id="José 1", image_path="Größe 1.png"),
        row(2, **BOX),
        row(6, **masked | {"mask_path": "masks/gone too.png"}, **own),
        row(7, label=1, **(BOX | {"box_x": 9}), **own),
    ]
    cases.write(cases.table(rows, "here"), archive / "cases.csv")
    table, problems = own_table.case_table(archive, allow_partial=True)
    assert table["mass_id"].tolist() == ["m 2", "m 7"]
    assert problems["id"].tolist() == ["m 5", "m 6", "m 1"]
    assert problems["reason"].iloc[-1].startswith("a malignant mass of its image is missing")


@pytest.mark.parametrize(("name", "mass"), [("Größe 1.png", "m 1"), ("masks/2.png", "m 2")])
def test_a_link_that_leads_out_of_the_archive_is_seen_before_any_pixel(name, mass, archive, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "file.png"
    (archive / name).rename(elsewhere)
    (archive / name).symlink_to(elsewhere)
    with pytest.raises(FileNotFoundError, match=rf"1 of 4 masses .*: {mass}: .* link that leads out of the archive"):
        own_table.case_table(archive)
    elsewhere.rename(archive / "inside.png")
    (archive / name).unlink()
    (archive / name).symlink_to(archive / "inside.png")
    assert len(own_table.case_table(archive)[0]) == 4, "a link within the archive is as good as the file"


def test_a_mask_is_that_of_one_mass(archive):
    table = cases.read(archive / "cases.csv")
    cases.write(table.assign(mask_path=["", "masks/2.png", "masks/2.png", ""]), archive / "cases.csv")
    with pytest.raises(ValueError, match=r"'m 3': mask_path 'masks/2.png' is the mask of another mass too"):
        own_table.case_table(archive)
    cases.write(table.assign(mask_path=["masks/2.png", "masks/2.png", "", ""]), archive / "cases.csv")
    assert len(own_table.case_table(archive)[0]) == 4, "a box comes before the mask"


@pytest.mark.parametrize("other", ["josé 1", "JOSÉ  1", "José1"])
def test_one_patient_written_in_two_ways_is_refused(other, tmp_path):
    """They would count as two, and may then train and be tested on."""
    rows = [row(1, **BOX), row(2, **BOX, patient_id=other)]
    cases.write(cases.table(rows, "here"), tmp_path / "cases.csv")
    with pytest.raises(ValueError, match=rf"cases\.csv: patient_id 'José 1' and '{other}' differ in capitals, blanks"):
        own_table.case_table(tmp_path)


def test_patients_that_differ_in_leading_zeros_are_refused_and_other_numbers_are_not(tmp_path):
    for one, other, refused in (
        ("7", "007", True),
        ("7", "70", False),
        ("7", "1007", False),
        ("P1", "P01", True),
        ("P_00_2", "P_0_2", True),
        ("P10", "P1", False),
        ("P1_0", "P1", False),
    ):
        rows = [row(1, **BOX, patient_id=one), row(2, **BOX, patient_id=other)]
        cases.write(cases.table(rows, "here"), tmp_path / "cases.csv")
        with pytest.raises(ValueError if refused else FileNotFoundError) as told:  # of the others, no image is there
            own_table.case_table(tmp_path)
        assert ("leading zeros" in str(told.value)) == refused


@pytest.mark.parametrize(
    ("pathology", "label", "fits"),
    [
        ("MALIGNANT", 1, True),
        ("Benign", 0, True),
        ("BENIGN_WITHOUT_CALLBACK", 0, True),
        ("invasive ductal carcinoma", 1, True),
        ("", 1, True),
        ("BENIGN_WITHOUT_CALLBACK", 1, False),
        ("malignant", 0, False),
    ],
)
def test_a_pathology_that_contradicts_its_label_is_refused(pathology, label, fits, archive):
    table = cases.read(archive / "cases.csv").assign(pathology=pathology, label=label)
    cases.write(table, archive / "cases.csv")
    if fits:
        assert len(own_table.case_table(archive)[0]) == 4
    else:
        with pytest.raises(ValueError, match=rf"mass_id 'm 1': pathology '{pathology}' contradicts label {label}"):
            own_table.case_table(archive)
