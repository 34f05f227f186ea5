"""Write a small archive of phantoms in CBIS-DDSM's own layout: folders, DICOM files, case descriptions, quirks and all.

Knows patients, files and tags, and which shape stands for which diagnosis; `phantom_image.py` draws. Nothing that reads
the archive knows that it is made: from here on the code path is the real archive's.

    <root>/csv/mass_case_description_{train,test}_set.csv
    <root>/CBIS-DDSM/Mass-Training_P_00001_LEFT_CC/<study uid>/<series uid>/1-1.dcm      full mammogram
    <root>/CBIS-DDSM/Mass-Training_P_00001_LEFT_CC_1/<study uid>/<series uid>/1-1.dcm    crop, or mask
                                                                             /1-2.dcm    mask, or crop
    <root>/phantoms.json                                                                 settings and seed

The quirks are the real archive's. Lines end in CRLF, and the cell of the mask's path ends in a newline of its own.
Paths in the tables say 000000.dcm and 000001.dcm where today's download has 1-1.dcm and 1-2.dcm. Crop and mask have
changed places in some folders; some crops and masks lie in a series each, under one name; one mask is smaller than its
image. Left out: calcifications, and masses that lack a file.
"""

import csv
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from mammo_lib import paths
from mammo_lib.config import NO_CALLBACK, PhantomArchive
from mammo_lib.data.phantom_image import draw
from mammo_lib.data.phantom_mass import Mass

Value = TypeVar("Value")
Row = tuple[object, ...]

RECORD = "phantoms.json"
COLUMNS = (  # of the official mass tables, both sets
    *("patient_id", "breast_density", "left or right breast", "image view", "abnormality id", "abnormality type"),
    *("mass shape", "mass margins", "assessment", "pathology", "subtlety"),
    *("image file path", "cropped image file path", "ROI mask file path"),
)
TABLES = {"Training": "mass_case_description_train_set.csv", "Test": "mass_case_description_test_set.csv"}
SYNTAXES = {"Training": ExplicitVRLittleEndian, "Test": ImplicitVRLittleEndian}  # downloads come in both

# What a reader wrote, in percent: of the official mass training set, rounded. Shape and margins (ours) depend on what
# is drawn, and are mostly right.
DENSITIES = {1: 22, 2: 44, 3: 26, 4: 8}
ASSESSMENTS = {
    "MALIGNANT": {0: 3, 3: 7, 4: 44, 5: 46},
    "BENIGN": {0: 19, 2: 5, 3: 33, 4: 42, 5: 1},
    NO_CALLBACK: {2: 47, 3: 43, 4: 8, 5: 2},
}
SUBTLETIES = {"MALIGNANT": {1: 5, 2: 9, 3: 16, 4: 24, 5: 46}, "BENIGN": {1: 2, 2: 7, 3: 24, 4: 31, 5: 36}}
SHAPES = {
    "spiculated": {"IRREGULAR": 70, "IRREGULAR-ARCHITECTURAL_DISTORTION": 15, "LOBULATED": 10, "OVAL": 5},
    "lobulated": {"LOBULATED": 80, "OVAL": 12, "IRREGULAR": 8},
    "oval": {"OVAL": 60, "ROUND": 25, "LOBULATED": 10, "IRREGULAR": 5},
}
MARGINS = {
    "spiculated": {"SPICULATED": 65, "ILL_DEFINED": 25, "MICROLOBULATED": 7, "CIRCUMSCRIBED": 3},
    "lobulated": {"CIRCUMSCRIBED": 55, "OBSCURED": 25, "ILL_DEFINED": 10, "MICROLOBULATED": 8, "N/A": 2},
    "oval": {"CIRCUMSCRIBED": 65, "OBSCURED": 23, "ILL_DEFINED": 10, "N/A": 2},
}

# Ours from here on.
SIZE = (0.085, 0.135)  # of a mass (see Mass): box sides of 8 to 16 % of the image height
CONTRAST = (0.14, 0.22)
SPICULES = (16, 28)
WITHOUT_CALLBACK_EVERY = 7  # pairs of patients; one benign mass in seven in the official tables
OTHER_PATHOLOGY = 0.25  # chance that a patient's second lesion is not of the first one's kind
SWAPPED_EVERY = 4  # masses, counted over the archive: crop and mask have changed places
APART_EVERY = 14  # crop and mask in a series each; 7 % in the official training set
ODD_MASK = 2  # number of the mass whose mask is of another size
ODD_MASK_SCALE = 0.87  # as of Mass-Test_P_00145_LEFT_CC: image 5041 x 2056, mask 4386 x 1789
CROP_MARGIN = 20 / 4600  # of the image height; measured on Mass-Test_P_00116_RIGHT_MLO
VIEWS = ("CC", "MLO")


@dataclass(frozen=True)
class _Layout:
    breasts: int
    views: tuple[str, ...]
    lesions: int  # in each breast


LAYOUTS = (
    _Layout(1, VIEWS, 1),
    _Layout(2, VIEWS, 1),
    _Layout(1, VIEWS, 2),
    _Layout(1, ("MLO",), 1),
    _Layout(1, VIEWS, 1),
)


@dataclass(frozen=True)
class _Lesion:
    """A lesion of one breast, as it is drawn and as a reader described it; the same in both views."""

    mass: Mass
    pathology: str
    shape: str
    margins: str
    assessment: int
    subtlety: int


@dataclass(frozen=True)
class _Patient:
    number: int
    subset: str  # "Training" or "Test"
    density: int
    views: tuple[str, ...]
    breasts: Mapping[str, Sequence[_Lesion]]  # by side


@dataclass(frozen=True)
class _Series:
    """One series folder: of a whole image, or of the crop and the mask of a mass (`apart`: of the mask alone)."""

    seed: int
    subset: str
    patient: int
    side: str
    view: str
    abnormality: int | None = None
    apart: bool = False

    @property
    def name(self) -> str:
        """Name of the outermost folder, and PatientID."""
        image = f"Mass-{self.subset}_P_{self.patient:05d}_{self.side}_{self.view}"
        return image if self.abnormality is None else f"{image}_{self.abnormality}"

    @property
    def folder(self) -> str:
        return f"{self.name}/{self.uid('study')}/{self.uid('series')}"

    def uid(self, of: str) -> UID:
        """A UID that is always the same for this seed and series."""
        return generate_uid(entropy_srcs=[str(self.seed), self.name, str(self.apart), of])


def write_archive(root: Path, settings: PhantomArchive, seed: int) -> None:
    """Write an archive of `settings.patients` phantoms to `root`; the same settings and seed give the same bytes.

    It is written beside `root` under another name and moved there when it is whole; `phantoms.json` holds its settings
    and seed for `paths.is_done`. FileExistsError when something is at `root` already; ValueError when the settings
    leave fewer than two patients, one a class, in either set.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f"{root}: there is something here already; delete it to have the phantoms drawn again")
    root.parent.mkdir(parents=True, exist_ok=True)
    part = root.with_name(f".{root.name}.{os.getpid()}.part")
    try:
        tables: dict[str, list[Row]] = {subset: [] for subset in TABLES}
        count = itertools.count()
        for patient in _patients(settings, seed):
            tables[patient.subset] += _write_patient(part / "CBIS-DDSM", patient, settings, seed, count)
        for subset, rows in tables.items():
            _write_table(part / "csv" / TABLES[subset], rows)
        paths.write_json(part / RECORD, {"settings": {"phantom": paths.plain(settings), "seed": seed}})
        part.replace(root)
    finally:
        shutil.rmtree(part, ignore_errors=True)


# Patients


def _patients(settings: PhantomArchive, seed: int) -> list[_Patient]:
    """All patients by number. In either set they come in pairs, one malignant and one benign, of the same layout."""
    test = round(settings.patients * settings.test_share)
    if min(test, settings.patients - test) < 2:
        shares = f"patients {settings.patients} and test_share {settings.test_share}"
        raise ValueError(f"phantom: {shares} leave a set of fewer than two, without one of the classes: give more")
    rng = np.random.default_rng(seed)
    numbers = [int(number) for number in rng.permutation(settings.patients) + 1]
    patients = []
    for subset, chosen in (("Test", numbers[:test]), ("Training", numbers[test:])):
        for place, number in enumerate(chosen):
            pair = place // 2
            benign = NO_CALLBACK if pair % WITHOUT_CALLBACK_EVERY == 1 else "BENIGN"
            pathology = ("MALIGNANT", benign)[place % 2]
            patients.append(_patient(rng, number, subset, LAYOUTS[pair % len(LAYOUTS)], pathology))
    return sorted(patients, key=lambda patient: patient.number)


def _patient(rng: np.random.Generator, number: int, subset: str, layout: _Layout, pathology: str) -> _Patient:
    sides = sorted(str(side) for side in rng.permutation(["LEFT", "RIGHT"])[: layout.breasts])
    lesions = [_lesion(rng, pathology)]
    while len(lesions) < layout.breasts * layout.lesions:
        other = "BENIGN" if pathology == "MALIGNANT" else "MALIGNANT"
        lesions.append(_lesion(rng, other if rng.random() < OTHER_PATHOLOGY else pathology))
    breasts = {side: lesions[place :: layout.breasts] for place, side in enumerate(sides)}
    return _Patient(number, subset, _pick(rng, DENSITIES), layout.views, breasts)


def _lesion(rng: np.random.Generator, pathology: str) -> _Lesion:
    malignant = pathology == "MALIGNANT"
    form = "spiculated" if malignant else str(rng.choice(["oval", "lobulated"]))
    mass = Mass(
        size=rng.uniform(*SIZE),
        contrast=rng.uniform(*CONTRAST),
        lobes=int(rng.integers(3, 6)) if form == "lobulated" else 0,
        spicules=int(rng.integers(*SPICULES)) if malignant else 0,
    )
    assessment = _pick(rng, ASSESSMENTS[pathology])
    subtlety = _pick(rng, SUBTLETIES["MALIGNANT" if malignant else "BENIGN"])
    return _Lesion(mass, pathology, _pick(rng, SHAPES[form]), _pick(rng, MARGINS[form]), assessment, subtlety)


def _pick(rng: np.random.Generator, weights: Mapping[Value, int]) -> Value:
    shares = np.array(list(weights.values()), dtype=float)
    return list(weights)[rng.choice(len(shares), p=shares / shares.sum())]


# Files


def _write_patient(
    folder: Path, patient: _Patient, settings: PhantomArchive, seed: int, count: Iterator[int]
) -> Iterator[Row]:
    """Write a patient's files below `folder`; yield the row of each mass. `count` numbers the masses of the archive."""
    for side, lesions in patient.breasts.items():
        for view in patient.views:
            rng = np.random.default_rng([seed, patient.number, side == "LEFT", VIEWS.index(view)])
            masses = [lesion.mass for lesion in lesions]
            phantom = draw(rng, settings.height, settings.width, side, view, masses, patient.density)
            series = _Series(seed, patient.subset, patient.number, side, view)
            _write_dicom(folder, series, 1, "full mammogram images", phantom.image)
            for number, (lesion, mask) in enumerate(zip(lesions, phantom.masks, strict=True), start=1):
                cells = _write_mass(folder, replace(series, abnormality=number), next(count), phantom.image, mask)
                yield (
                    *(f"P_{patient.number:05d}", patient.density, side, view, number, "mass"),
                    *(lesion.shape, lesion.margins, lesion.assessment, lesion.pathology, lesion.subtlety),
                    *(f"{series.folder}/000000.dcm", *cells),
                )


def _write_mass(
    folder: Path, series: _Series, index: int, image: NDArray[np.uint16], mask: NDArray[np.bool_]
) -> tuple[str, str]:
    """Write crop and mask of the archive's mass number `index`; return the cells that the table says they are in."""
    crop = _crop(image, mask)
    roi = np.where(mask, np.uint8(255), np.uint8(0))
    if index == ODD_MASK:
        roi = cv2.resize(roi, None, fx=ODD_MASK_SCALE, fy=ODD_MASK_SCALE, interpolation=cv2.INTER_NEAREST)
    apart, swapped = index % APART_EVERY == 0, index % SWAPPED_EVERY == 1
    roi_series = replace(series, apart=apart)
    crop_number, roi_number = (1, 1) if apart else (2, 1) if swapped else (1, 2)
    _write_dicom(folder, series, crop_number, "cropped images", crop)
    _write_dicom(folder, roi_series, roi_number, "ROI mask images", roi)
    return f"{series.folder}/000000.dcm", f"{roi_series.folder}/{'000000' if apart else '000001'}.dcm\n"


def _crop(image: NDArray[np.uint16], mask: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """The part of the image round the mask's box."""
    margin = round(CROP_MARGIN * len(image))
    rows, columns = np.nonzero(mask)
    top, left = max(rows.min() - margin, 0), max(columns.min() - margin, 0)
    return image[top : rows.max() + margin + 1, left : columns.max() + margin + 1]


def _write_dicom(
    folder: Path, series: _Series, number: int, description: str, pixels: NDArray[np.uint8] | NDArray[np.uint16]
) -> None:
    """Write `pixels` (H, W) as file `number` of its series, with the tags that CBIS-DDSM's files have."""
    path = folder / series.folder / f"1-{number}.dcm"
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = SYNTAXES[series.subset]
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = series.uid(description)
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.StudyDate, dataset.StudyTime = "20160101", "000000"  # fixed: the bytes are a function of the seed
    dataset.Modality, dataset.ConversionType, dataset.BodyPartExamined = "MG", "SYN", "BREAST"
    dataset.SeriesDescription = description
    dataset.PatientName = dataset.PatientID = series.name
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = series.uid("study"), series.uid("series")
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "DDSM", 1, number
    dataset.PatientOrientation, dataset.Laterality = series.view, series.side[0]
    dataset.ImageComments = "Synthetic phantom, not a patient"
    dataset.set_pixel_data(
        np.ascontiguousarray(pixels), "MONOCHROME2", 8 * pixels.itemsize, generate_instance_uid=False
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def _write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write a case description as CBIS-DDSM has it: CRLF, and quotes only where a newline is inside a cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\r\n").writerows([COLUMNS, *rows])
