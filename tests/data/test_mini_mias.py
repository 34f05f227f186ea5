"""mini-MIAS: a list written by hand, and the real one where it lies beside the repository."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mammo_lib.data import cases, mini_mias
from mammo_lib.data.images import read_image

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "mini_mias"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="mini-MIAS is not at ../shared/data/mini_mias")

LIST = """\
A preface that mentions mdb files.

mdb001 G CIRC B 500 400 50
mdb002 D NORM
mdb003 F SPIC M 20 1000 40
mdb003 F MISC B 700 300 10
mdb004 F CIRC B
mdb005 G CALC M *NOTE 3*
mdb006 G ASYM M 500 500 30
mdb007 G CIRC M 500 500 30
mdb008 D SPIC X 500 500 30
mdb009 D SPIC B 3000 500 30
"""


def archive(root: Path, text: str = LIST, folder: str = "", images: str = "1 2 3 4 5 6 8 9") -> Path:
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / "Info.txt").write_text(text)
    for number in images.split():
        (root / folder / f"mdb{int(number):03d}.pgm").write_bytes(b"P5 1 1 255 \0")
    return root


def test_each_line_becomes_a_case_or_a_problem(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"1 of 4 masses .* mdb007_1: the image is not on disk.*--allow-partial"
    ):
        mini_mias.case_table(archive(tmp_path))
    table, problems = mini_mias.case_table(tmp_path, allow_partial=True)
    columns = [
        "mass_id",
        "image_id",
        "patient_id",
        "side",
        "view",
        "label",
        "pathology",
        *cases.BOX_COLUMNS,
        "image_path",
    ]
    assert table[columns].to_numpy().tolist() == [
        # y counts from the bottom: the circle's top is row 1024 - 400 - 50
        ["mdb001_1", "mdb001", "mias001", "LEFT", "MLO", 0, "BENIGN", 450, 574, 100, 100, "mdb001.pgm"],
        # cut at the left and upper edge: columns 0..60, rows 0..64
        ["mdb003_1", "mdb003", "mias002", "LEFT", "MLO", 1, "MALIGNANT", 0, 0, 60, 64, "mdb003.pgm"],
        ["mdb003_2", "mdb003", "mias002", "LEFT", "MLO", 0, "BENIGN", 690, 714, 20, 20, "mdb003.pgm"],
    ]
    reasons = dict(zip(problems["id"], problems["reason"], strict=True))
    assert reasons == {
        "mdb004_1": "the lesion has no coordinates",
        "mdb007_1": "the image is not on disk",
        "mdb008_1": "severity 'X' is neither B nor M",
        "mdb009_1": "its circle, 3000 500 30, lies outside the image",
        "ASYM": "1 lesions of this class: not asked for, not read",
        "CALC": "1 lesions of this class: not asked for, not read",
    }
    assert set(problems.loc[problems["stage"] == cases.NOTE, "id"]) == {"ASYM", "CALC"}


def test_an_image_with_a_malignant_mass_that_cannot_be_used_is_not_called_benign(tmp_path):
    text = "mdb001 G CIRC B 500 400 50\nmdb001 G SPIC M\nmdb002 G SPIC M 500 400 50\nmdb002 G CIRC M\n"
    table, problems = mini_mias.case_table(archive(tmp_path, text))
    assert table[["mass_id", "label"]].to_numpy().tolist() == [["mdb002_1", 1]]
    reasons = dict(zip(problems["id"], problems["reason"], strict=True))
    assert set(reasons) == {"mdb001_1", "mdb001_2", "mdb002_2"}
    assert reasons["mdb001_1"].startswith("a malignant mass of its image is missing")
    with pytest.raises(ValueError, match=r"lists no mass with coordinates: 2 set aside"):
        mini_mias.case_table(archive(tmp_path, "mdb001 G CIRC B 500 400 50\nmdb001 G SPIC M\n"))


def test_asymmetries_are_masses_only_when_asked_for(tmp_path):
    root = archive(tmp_path, folder="all-mias", images="1 2 3 4 5 6 7 8 9")
    table, problems = mini_mias.case_table(root, asymmetries=True)
    row = table.set_index("mass_id").loc["mdb006_1"]
    assert (row["side"], row["patient_id"], row["image_path"]) == ("RIGHT", "mias003", "all-mias/mdb006.pgm")
    assert "ASYM" not in set(problems["id"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mdb001 G CYST B 1 1 1\n", "line 1: 'mdb001 G CYST B 1 1 1' is not"),
        ("\nmdb001 G CIRC\n", "line 2"),
        ("mdb01 G CIRC B 5 5 5\n", "line 1"),
        ("nothing here\n", "lists no mass"),
        ("mdb001 G NORM\n", "lists no mass"),
    ],
)
def test_a_list_that_is_none_gets_a_sentence(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        mini_mias.case_table(archive(tmp_path, text))


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no Info\.txt"):
        mini_mias.case_table(tmp_path)


@needs_real
def test_the_real_list_gives_what_a_plain_count_gives():
    lines = (REAL / "all-mias" / "Info.txt").read_text().splitlines()
    masses = [line.split() for line in lines if line[:3] == "mdb" and line.split()[2] in ("CIRC", "SPIC", "MISC")]
    placed = [fields for fields in masses if len(fields) == 7]
    table, problems = mini_mias.case_table(REAL)
    assert (len(masses), len(placed), len(table)) == (59, 58, 58)
    assert table["label"].sum() == sum(fields[3] == "M" for fields in placed) == 20
    assert table["image_id"].nunique() == 55
    assert problems.loc[problems["stage"] != cases.NOTE, "id"].tolist() == ["mdb059_1"]
    with_asymmetries, _ = mini_mias.case_table(REAL, asymmetries=True)
    assert len(with_asymmetries) == 58 + 19 + 15


@needs_real
def test_real_boxes_lie_on_tissue_and_would_not_unflipped():
    """The origin is at the bottom: read from the top, many a circle would lie on the black of the film."""
    table, _ = mini_mias.case_table(REAL)
    dark = {"as read": 0, "upside down": 0}
    for row in table.itertuples():
        pixels = read_image(REAL / row.image_path)
        for name, image in (("as read", pixels), ("upside down", np.flipud(pixels))):
            window = image[row.box_y : row.box_y + row.box_h, row.box_x : row.box_x + row.box_w]
            dark[name] += float(np.median(window)) < 60
    assert dark["as read"] == 0
    assert dark["upside down"] > 5


@needs_real
def test_real_sides_agree_with_where_the_chest_wall_is():
    """One hanging for all films: the pectoral muscle, bright, fills the upper right corner of a left breast's image."""
    table, _ = mini_mias.case_table(REAL)
    agree = []
    for row in table.drop_duplicates("image_id").itertuples():
        image = cv2.GaussianBlur(read_image(REAL / row.image_path)[60:400], (31, 31), 0)
        columns = np.flatnonzero((image > 60).mean(axis=0) > 0.5)
        middle = columns[len(columns) // 2]
        bright_right = image[:120, middle : columns[-1]].mean() > image[:120, columns[0] : middle].mean()
        agree.append(bright_right == (row.side == "LEFT"))
    assert np.mean(agree) > 0.9
