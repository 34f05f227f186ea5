"""Phantoms: the picture, the masses, and the archive that imitates CBIS-DDSM's."""

import csv
import filecmp
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mammo_lib import paths
from mammo_lib.config import PhantomArchive
from mammo_lib.data import phantom, phantom_image
from mammo_lib.data.phantom_image import Phantom, draw, power_law_field
from mammo_lib.data.phantom_mass import Mass

REAL_CSV = Path(__file__).resolve().parents[3] / "shared" / "data" / "cbis_ddsm" / "csv"
TABLES = {"Training": "mass_case_description_train_set.csv", "Test": "mass_case_description_test_set.csv"}
SETTINGS = PhantomArchive(patients=12, height=400, width=300, test_share=0.34)
HEIGHT, WIDTH = 400, 300

Row = dict[str, str]


# The picture


def radial_slope(patch: NDArray[np.float64], low: float, high: float) -> float:
    """Exponent b of a fit of 1/f^b to the radial mean of the windowed periodogram between two frequencies (1/pixel)."""
    window = np.outer(np.hanning(len(patch)), np.hanning(patch.shape[1]))
    power = np.abs(np.fft.fft2((patch - patch.mean()) * window)) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(len(patch)), np.fft.fftfreq(patch.shape[1]), indexing="ij"))
    edges = np.geomspace(low, high, 12)
    rings = [(frequency >= start) & (frequency < end) for start, end in pairwise(edges)]
    points = [(np.log(frequency[ring].mean()), np.log(power[ring].mean())) for ring in rings if ring.any()]
    return float(-np.polyfit(*np.array(points).T, 1)[0])


def test_field_has_the_spectrum_of_mammograms() -> None:
    fields = [power_law_field(np.random.default_rng(seed), 300, 256).astype(float) for seed in range(6)]
    assert np.mean([radial_slope(field, 0.02, 0.3) for field in fields]) == pytest.approx(3, abs=0.15)


def test_tissue_keeps_a_mammogram_like_spectrum() -> None:
    slopes = []
    for seed in range(8):
        image = draw(np.random.default_rng(seed), 800, 600, "LEFT", "CC", [], density=1 + seed % 4).image
        slopes.append(radial_slope(image[300:500, 40:240].astype(float), 0.01, 0.1))
    assert 2.5 < np.mean(slopes) < 3.5  # 1.5 to 3.5, about 3 on average, in real mammograms (Burgess)


@pytest.mark.parametrize("view", ["CC", "MLO"])
def test_left_and_right_breasts_face_as_in_cbis_ddsm(view: str) -> None:
    for side, chest, far in (("LEFT", 0, -1), ("RIGHT", -1, 0)):
        breast = draw(np.random.default_rng(3), HEIGHT, WIDTH, side, view, [], density=2).breast
        assert breast[:, chest].mean() > 0.5
        assert not breast[:, far].any()


def test_label_lies_outside_the_breast_away_from_the_chest_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*given: Any) -> NDArray[np.float32]:
        return 0 * label(*given)  # draws what the label draws, so that all else stays the same

    label = phantom_image._label
    for seed in range(12):
        side, view = ("LEFT", "RIGHT")[seed % 2], ("CC", "MLO")[seed // 2 % 2]
        drawn = draw(np.random.default_rng(seed), HEIGHT, WIDTH, side, view, [], density=2)
        with monkeypatch.context() as changed:
            changed.setattr(phantom_image, "_label", nothing)
            without = draw(np.random.default_rng(seed), HEIGHT, WIDTH, side, view, [], density=2)
        label_shows = drawn.image != without.image
        inner = np.zeros_like(drawn.breast)
        inner[20:-20, 10:-10] = True  # the frame is nearer to the edges than this
        letters = (drawn.image > 0.4 * 65535) & inner & label_shows
        rows, columns = np.nonzero(letters)
        assert np.ptp(columns) > np.ptp(rows) >= 5  # a line of letters, in whichever font this OpenCV has
        assert rows.max() < 0.25 * HEIGHT
        assert (columns > 0.6 * WIDTH).all() if side == "LEFT" else (columns < 0.4 * WIDTH).all()
        assert not (label_shows & drawn.breast).any()


def test_film_has_a_white_frame_a_dark_background_and_noise() -> None:
    drawn = draw(np.random.default_rng(1), HEIGHT, WIDTH, "LEFT", "CC", [], density=2)
    edges = [drawn.image[0], drawn.image[-1], drawn.image[:, 0], drawn.image[:, -1]]
    assert max(np.median(edge) for edge in edges) > 0.9 * 65535
    corner = drawn.image[-60:-20, -60:-20]
    assert corner.mean() < 0.05 * 65535
    assert corner.std() > 0


def test_muscle_is_drawn_on_mlo_views_alone() -> None:
    def brightness(view: str) -> float:
        images = [draw(np.random.default_rng(seed), HEIGHT, WIDTH, "LEFT", view, [], density=2) for seed in range(6)]
        return float(np.mean([drawn.image[60:90, 20:40][drawn.breast[60:90, 20:40]].mean() for drawn in images]))

    assert brightness("MLO") > 1.3 * brightness("CC")


@pytest.mark.parametrize(
    ("side", "view", "density", "word"),
    [("LINKS", "CC", 2, "side"), ("LEFT", "ML", 2, "view"), ("LEFT", "CC", 5, "density")],
)
def test_what_there_is_not_is_refused(side: str, view: str, density: int, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        draw(np.random.default_rng(0), HEIGHT, WIDTH, side, view, [], density)


def test_a_mass_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        draw(np.random.default_rng(0), HEIGHT, WIDTH, "LEFT", "CC", [Mass(0.9, 0.2)], density=2)


# The masses


@dataclass(frozen=True)
class Seen:
    """What can be measured of one mass without knowing how it was drawn."""

    malignant: bool
    box_area: float
    contrast: float
    compactness: float  # perimeter^2 / area of the mask
    streaks: float  # fine structure just outside the mask, in units of the contrast


def _drawn(seed: int) -> tuple[Mass, Phantom]:
    rng = np.random.default_rng([11, seed])
    malignant = seed % 2 == 1
    mass = Mass(
        size=rng.uniform(*phantom.SIZE),
        contrast=rng.uniform(*phantom.CONTRAST),
        lobes=0 if malignant or seed % 4 == 0 else int(rng.integers(3, 6)),
        spicules=int(rng.integers(*phantom.SPICULES)) if malignant else 0,
    )
    side, view = ("LEFT", "RIGHT")[seed // 2 % 2], ("CC", "MLO")[seed // 4 % 2]
    return mass, draw(rng, HEIGHT, WIDTH, side, view, [mass], density=1 + seed // 8 % 4)


def _see(mass: Mass, drawn: Phantom) -> Seen:
    mask, image = drawn.masks[0], drawn.image / 65535
    rows, columns = np.nonzero(mask)
    box_area = float((np.ptp(rows) + 1) * (np.ptp(columns) + 1))
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    ring = (away > 0) & (away < 0.5 * np.sqrt(box_area)) & drawn.breast
    near = (away > 3) & (away < 0.2 * np.sqrt(box_area)) & drawn.breast
    outline = max(cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len)
    contrast = float(image[mask].mean() - image[ring].mean())
    fine = image - cv2.GaussianBlur(image, (0, 0), 4)
    streaks = float(fine[near].std() / contrast)
    compactness = cv2.arcLength(outline, True) ** 2 / cv2.contourArea(outline)
    return Seen(mass.spicules > 0, box_area, contrast, compactness, streaks)


@pytest.fixture(scope="module")
def drawn_masses() -> list[tuple[Mass, Phantom]]:
    return [_drawn(seed) for seed in range(120)]


@pytest.fixture(scope="module")
def seen(drawn_masses: list[tuple[Mass, Phantom]]) -> list[Seen]:
    return [_see(mass, drawn) for mass, drawn in drawn_masses]


def test_size_and_contrast_do_not_tell_malignant_from_benign(seen: list[Seen]) -> None:
    label = np.array([mass.malignant for mass in seen])
    features = np.array([(mass.box_area, mass.contrast) for mass in seen])
    model = make_pipeline(StandardScaler(), LogisticRegression())
    score = cross_val_predict(model, features, label, cv=10, method="predict_proba")[:, 1]
    assert roc_auc_score(label, score) < 0.65  # chance is 0.5; its standard error is 0.05 at this number
    for feature in features.T:
        assert abs(feature[label].mean() / feature[~label].mean() - 1) < 0.12


def test_margin_tells_malignant_from_benign(seen: list[Seen]) -> None:
    label = [mass.malignant for mass in seen]
    assert roc_auc_score(label, [mass.compactness for mass in seen]) > 0.95  # of the mask
    assert roc_auc_score(label, [mass.streaks for mass in seen]) > 0.85  # of the picture


def test_masses_stay_in_the_breast_and_off_the_frame(drawn_masses: list[tuple[Mass, Phantom]]) -> None:
    for _, drawn in drawn_masses:
        (mask,) = drawn.masks
        assert drawn.breast[mask].all()
        assert not mask[:8].any()
        assert not mask[-8:].any()
        assert not mask[:, :8].any()
        assert not mask[:, -8:].any()
        assert cv2.connectedComponents(mask.astype(np.uint8))[0] == 2  # background and one piece


def test_masses_have_the_size_and_are_as_visible_as_asked(
    drawn_masses: list[tuple[Mass, Phantom]], seen: list[Seen]
) -> None:
    for (mass, drawn), measured in zip(drawn_masses, seen, strict=True):
        rows, columns = np.nonzero(drawn.masks[0])
        assert np.sqrt(measured.box_area) == pytest.approx(mass.size * HEIGHT, rel=0.1)
        assert 0.07 * HEIGHT < max(np.ptp(rows), np.ptp(columns)) + 1 < 0.165 * HEIGHT
    assert np.mean([measured.contrast for measured in seen]) == pytest.approx(np.mean(phantom.CONTRAST), abs=0.03)


def test_two_large_masses_find_room_in_any_breast_and_do_not_touch() -> None:
    pair = [Mass(phantom.SIZE[1], 0.2), Mass(phantom.SIZE[1], 0.2, spicules=20)]
    for seed in range(60):
        view = ("CC", "MLO")[seed % 2]
        first, second = draw(np.random.default_rng(seed), 160, 120, "RIGHT", view, pair, density=2).masks
        assert first.any()
        assert second.any()
        assert not (first & second).any()


# The archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantoms") / "archive"
    phantom.write_archive(root, SETTINGS, seed=5)
    return root


def read_rows(root: Path, subset: str) -> list[Row]:
    with open(root / "csv" / TABLES[subset], newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def all_rows(root: Path) -> list[Row]:
    return [row for subset in TABLES for row in read_rows(root, subset)]


def image_name(row: Row) -> str:
    return row["image file path"].split("/")[0]


def files_of(root: Path, name: str) -> Iterator[pydicom.Dataset]:
    yield from (pydicom.dcmread(path) for path in sorted((root / "CBIS-DDSM" / name).rglob("*.dcm")))


def named_by_cell(root: Path, row: Row, column: str) -> pydicom.Dataset:
    """The file that a cell means in today's layout: 00000N.dcm is 1-(N+1).dcm of the same series."""
    *folders, file = row[column].strip().split("/")
    return pydicom.dcmread(root.joinpath("CBIS-DDSM", *folders, f"1-{int(file.split('.')[0]) + 1}.dcm"))


@pytest.mark.parametrize("subset", TABLES)
def test_tables_have_the_official_columns_and_line_ends(archive: Path, subset: str) -> None:
    real = REAL_CSV / TABLES[subset]
    if not real.exists():
        pytest.skip(f"{real} is not there: the official case descriptions are needed to compare with")
    ours, official = (archive / "csv" / TABLES[subset]).read_bytes(), real.read_bytes()
    assert ours.split(b"\r\n")[0] == official.split(b"\r\n")[0]
    assert ours[-8:] == official[-8:] == b'.dcm\n"\r\n'
    for table in (ours, official):  # one newline inside each row's last cell
        assert table.count(b"\n") == 2 * table.count(b"\r\n") - 1
        assert table.count(b'"') == 2 * (table.count(b"\r\n") - 1)


def test_words_and_grades_are_official_ones(archive: Path) -> None:
    if not REAL_CSV.exists():
        pytest.skip(f"{REAL_CSV} is not there: the official case descriptions are needed to compare with")
    known: dict[str, set[str]] = {}
    for name in TABLES.values():
        with open(REAL_CSV / name, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for column, value in row.items():
                    known.setdefault(column, set()).add(value)
    for row in all_rows(archive):
        for column in ("breast_density", "mass shape", "mass margins", "assessment", "pathology", "subtlety"):
            assert row[column] in known[column] | {"N/A"}


def test_every_row_leads_to_its_files(archive: Path) -> None:
    files = 0
    for name in {image_name(row) for row in all_rows(archive)}:
        (image,) = files_of(archive, name)
        assert (image.SeriesDescription, image.PatientID) == ("full mammogram images", name)
        assert (image.pixel_array.shape, image.pixel_array.dtype) == ((HEIGHT, WIDTH), np.uint16)
        files += 1
    for row in all_rows(archive):
        image = named_by_cell(archive, row, "image file path")
        assert (image.PatientOrientation, image.Laterality) == (row["image view"], row["left or right breast"][0])
        assert image.PhotometricInterpretation == "MONOCHROME2"
        assert image.ImageComments == "Synthetic phantom, not a patient"
        assert row["ROI mask file path"].endswith(".dcm\n")
        mass = f"{image_name(row)}_{row['abnormality id']}"
        pair = list(files_of(archive, mass))
        assert sorted(file.SeriesDescription for file in pair) == ["ROI mask images", "cropped images"]
        assert {file.PatientID for file in pair} == {mass}
        uids = {(file.StudyInstanceUID, file.SeriesInstanceUID) for file in pair}
        for column in ("cropped image file path", "ROI mask file path"):
            assert tuple(row[column].split("/")[1:3]) in uids
        files += 2
    assert files == len(list((archive / "CBIS-DDSM").rglob("*.dcm")))
    uids = [pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in archive.rglob("*.dcm")]
    assert len(set(uids)) == files
    assert max(map(len, uids)) <= 64


def test_crops_show_what_the_masks_mark(archive: Path) -> None:
    for row in all_rows(archive):
        image = named_by_cell(archive, row, "image file path").pixel_array
        pair = files_of(archive, f"{image_name(row)}_{row['abnormality id']}")
        pixels = {file.SeriesDescription: file.pixel_array for file in pair}
        mask, crop = pixels["ROI mask images"], pixels["cropped images"]
        assert set(np.unique(mask)) == {0, 255}
        x, y, w, h = (np.array(cv2.boundingRect(mask)) * image.shape[0] / mask.shape[0]).round().astype(int)
        found = cv2.matchTemplate(image.astype(np.float32), crop.astype(np.float32), cv2.TM_SQDIFF)
        left, top = cv2.minMaxLoc(found)[2]
        assert abs(left + crop.shape[1] / 2 - (x + w / 2)) <= 2
        assert abs(top + crop.shape[0] / 2 - (y + h / 2)) <= 2
        assert 0 <= crop.shape[0] - h <= 8
        assert 0 <= crop.shape[1] - w <= 8


def test_quirks_of_the_real_archive_are_there(archive: Path) -> None:
    rows = all_rows(archive)
    swapped = [
        row
        for row in rows
        if named_by_cell(archive, row, "cropped image file path").SeriesDescription != "cropped images"
    ]
    series = [(row["cropped image file path"].split("/")[2], row["ROI mask file path"].split("/")[2]) for row in rows]
    apart = [pair for pair in series if pair[0] != pair[1]]
    sizes = Counter(
        file.pixel_array.shape
        for row in rows
        for file in files_of(archive, f"{image_name(row)}_{row['abnormality id']}")
        if file.SeriesDescription == "ROI mask images"
    )
    assert 0 < len(swapped) < len(rows) / 2
    assert 0 < len(apart) < len(rows) / 4
    assert sizes == {(HEIGHT, WIDTH): len(rows) - 1, (348, 261): 1}
    assert max(Counter(map(image_name, rows)).values()) > 1
    breasts = {(row["patient_id"], row["left or right breast"]) for row in rows}
    assert max(Counter(patient for patient, _ in breasts).values()) == 2
    assert {row["image view"] for row in rows} == {"CC", "MLO"}
    assert {
        pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID.name
        for path in archive.rglob("*.dcm")
    } == {
        "Explicit VR Little Endian",
        "Implicit VR Little Endian",
    }


@pytest.mark.parametrize(("patients", "share", "test"), [(12, 0.34, 4), (25, 0.3, 8)])
def test_sets_are_disjoint_by_patient_and_balanced(tmp_path: Path, patients: int, share: float, test: int) -> None:
    phantom.write_archive(tmp_path / "archive", PhantomArchive(patients, 160, 120, share), seed=2)
    people = {}
    for subset in TABLES:
        rows = read_rows(tmp_path / "archive", subset)
        people[subset] = {row["patient_id"] for row in rows}
        malignant = np.mean([row["pathology"] == "MALIGNANT" for row in rows])
        assert 0.3 < malignant < 0.7
        assert {"BENIGN", "BENIGN_WITHOUT_CALLBACK", "MALIGNANT"} == {row["pathology"] for row in rows}
    assert len(people["Test"]) == test
    assert len(people["Training"]) == patients - test
    assert not people["Test"] & people["Training"]


def test_readers_are_mostly_right(tmp_path: Path) -> None:
    phantom.write_archive(tmp_path / "archive", PhantomArchive(50, 160, 120, 0.3), seed=4)
    rows = all_rows(tmp_path / "archive")
    label = np.array([row["pathology"] == "MALIGNANT" for row in rows])
    assert 0.7 < roc_auc_score(label, [int(row["assessment"]) for row in rows]) < 0.98
    spiculated = np.array([row["mass margins"] == "SPICULATED" for row in rows])
    assert 0.4 < spiculated[label].mean() < 1
    assert spiculated[~label].mean() < 0.1


def test_same_seed_same_bytes_other_seed_other_pictures(archive: Path, tmp_path: Path) -> None:
    phantom.write_archive(tmp_path / "again", SETTINGS, seed=5)
    phantom.write_archive(tmp_path / "other", SETTINGS, seed=6)
    names = sorted(str(path.relative_to(archive)) for path in archive.rglob("*") if path.is_file())
    assert names == sorted(
        str(p.relative_to(tmp_path / "again")) for p in (tmp_path / "again").rglob("*") if p.is_file()
    )
    assert filecmp.cmpfiles(archive, tmp_path / "again", names, shallow=False)[1:] == ([], [])
    first = next((archive / "CBIS-DDSM").rglob("*.dcm"))
    assert not (tmp_path / "other" / first.relative_to(archive)).exists()
    assert paths.is_done(archive / phantom.RECORD, {"phantom": SETTINGS, "seed": 5})


def test_a_crash_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(path: Path, rows: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(phantom, "_write_table", full_disk)
    with pytest.raises(OSError, match="no space"):
        phantom.write_archive(tmp_path / "archive", PhantomArchive(4, 160, 120, 0.5), seed=0)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="delete it"):
        phantom.write_archive(tmp_path, SETTINGS, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    phantom.write_archive(tmp_path / "archive", PhantomArchive(4, 160, 120, 0.5), seed=0)
    assert (tmp_path / "archive" / "csv" / TABLES["Test"]).exists()


@pytest.mark.parametrize(("patients", "share"), [(3, 0.5), (12, 0.05), (12, 1.0)])
def test_too_few_patients_for_both_classes_are_refused(tmp_path: Path, patients: int, share: float) -> None:
    with pytest.raises(ValueError, match="patients"):
        phantom.write_archive(tmp_path / "archive", PhantomArchive(patients, 160, 120, share), seed=0)
    assert not (tmp_path / "archive").exists()
