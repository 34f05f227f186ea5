"""Small DICOM files and archives for the tests of this room, written with pydicom alone."""

import csv
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
ROWS, COLUMNS = 160, 120  # of a made mammogram
BOXES = {  # mass -> (x, y, w, h) in its image
    "Mass-Training_P_00001_LEFT_CC_1": (20, 30, 25, 30),
    "Mass-Training_P_00001_LEFT_CC_2": (60, 90, 31, 26),
    "Mass-Training_P_00002_RIGHT_MLO_1": (40, 50, 28, 28),
    "Mass-Test_P_00003_LEFT_MLO_1": (10, 100, 40, 33),
}
PATHOLOGY = ("MALIGNANT", "BENIGN", "BENIGN_WITHOUT_CALLBACK", "MALIGNANT")


@dataclass(frozen=True)
class Picture:
    """One file of an archive before it has a place on disk."""

    patient: str
    description: str | None  # None: the tag is missing
    pixels: np.ndarray
    number: int  # place in its series, from 1


def _mammogram(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(ROWS, COLUMNS)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return cv2.normalize(smooth, None, 1000, 60000, cv2.NORM_MINMAX).astype(np.uint16)


def _pictures() -> list[Picture]:
    images = sorted({mass.rsplit("_", 1)[0] for mass in BOXES})
    full = {name: _mammogram(seed) for seed, name in enumerate(images)}
    pictures = [Picture(name, "full mammogram images", full[name], 1) for name in images]
    for mass, (x, y, w, h) in BOXES.items():
        mask = np.zeros((ROWS, COLUMNS), np.uint8)
        mask[y : y + h, x : x + w] = 255
        crop = full[mass.rsplit("_", 1)[0]][y - 5 : y + h + 5, x - 5 : x + w + 5]
        pictures += [Picture(mass, "cropped images", crop, 1), Picture(mass, "ROI mask images", mask, 2)]
    return pictures


def _write_dicom(path: Path, pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **tags: Any) -> Dataset:
    """A secondary capture of `pixels`; `tags` replace what is written, None leaves a tag out."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    bits = pixels.dtype.itemsize * 8
    values = {
        "SOPClassUID": SecondaryCaptureImageStorage,
        "SOPInstanceUID": dataset.file_meta.MediaStorageSOPInstanceUID,
        "PatientID": "Mass-Training_P_00001_LEFT_CC",
        "SeriesDescription": "full mammogram images",
        "Laterality": "L",
        "PatientOrientation": "CC",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        "PixelData": pixels.tobytes() + b"\0" * (pixels.nbytes % 2),
    }
    for name, value in {**values, **tags}.items():
        if value is not None:
            setattr(dataset, name, value)
    dataset["PixelData"].VR = "OW" if bits == 16 else "OB"
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def _place(picture: Picture, layout: str) -> str:
    """Where a layout keeps a file; both files of a mass share a series, whose folder is named after one of them."""
    mass = picture.patient[-2] == "_"
    series = uuid.uuid5(uuid.NAMESPACE_OID, picture.patient)
    if layout == "idc":
        return f"{series}/{uuid.uuid5(series, str(picture.number))}.dcm"
    if layout == "jpeg":
        return f"jpeg/1.3.6.1.4.1.9590.{series.int}/{picture.number}-042.jpg"
    name = f"{picture.number - 1:06d}.dcm" if layout == "old" else f"1-{picture.number}.dcm"
    folder = f"1-{'ROI mask images' if mass else 'full mammogram images'}-{series.int % 10**5:05d}"
    return f"{picture.patient}/10-04-2016-DDSM-{series.int % 10**5:05d}/{folder}/{name}"


def _write_tables(root: Path, folder: str = "csv") -> None:
    """The two official tables, with CRLF and with newlines in path cells, naming files as they were named once."""
    header = [
        "patient_id",
        "breast_density",
        "left or right breast",
        "image view",
        "abnormality id",
        "abnormality type",
        "mass shape",
        "mass margins",
        "assessment",
        "pathology",
        "subtlety",
        "image file path",
        "cropped image file path",
        "ROI mask file path",
    ]
    for part, split in (("Training", "train"), ("Test", "test")):
        path = root / folder / f"mass_case_description_{split}_set.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\r\n")
            writer.writerow(header)
            for mass, pathology in zip(BOXES, PATHOLOGY, strict=True):
                kind, _, number, side, view, abnormality = mass.split("_")
                if kind == f"Mass-{part}":
                    cells = [f"P_{number}", "3", side, view, abnormality, "mass", "OVAL", "N/A", "4", pathology, "5"]
                    image = f"{mass[:-2]}/1.3.6/1.3.6.1/000000.dcm"
                    writer.writerow([*cells, image, f"{mass}/1/2/000000.dcm\n", f"{mass}/1/2/000001.dcm\n"])


def _write_archive(
    root: Path, layout: str = "old", change: Callable[[Picture], Picture | None] = lambda picture: picture
) -> Path:
    """An archive of three mammograms and four masses; `change` alters a file before it is written, or leaves it out."""
    rows = []
    for before in _pictures():
        picture = change(before)
        if picture is None:
            continue
        path = root / _place(before, layout)
        if layout == "jpeg":
            path.parent.mkdir(parents=True, exist_ok=True)
            grey = picture.pixels if picture.pixels.dtype == np.uint8 else (picture.pixels >> 8).astype(np.uint8)
            cv2.imwrite(str(path), grey)
            rows.append([f"CBIS-DDSM/{_place(before, layout)}", picture.patient, picture.description or ""])
        else:
            _write_dicom(
                path,
                picture.pixels,
                ImplicitVRLittleEndian,
                PatientID=picture.patient,
                SeriesDescription=picture.description,
                InstanceNumber=picture.number,
            )
    _write_tables(root)
    if layout == "jpeg":
        with open(root / "csv/dicom_info.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["image_path", "PatientID", "SeriesDescription"], *rows])
    return root


@pytest.fixture
def write_dicom():
    return _write_dicom


@pytest.fixture
def write_archive():
    return _write_archive


@pytest.fixture
def mass_boxes() -> dict[str, tuple[int, int, int, int]]:
    """(x, y, w, h) of each mass of `write_archive`, by mass_id."""
    return {mass.split("_", 1)[1]: box for mass, box in BOXES.items()}


@pytest.fixture
def redescribe():
    """`redescribe(mass, {old description: new})`: a `change` for `write_archive`."""

    def make(mass: str, names: dict[str, str | None]) -> Callable[[Picture], Picture]:
        def change(picture: Picture) -> Picture:
            if picture.patient != mass:
                return picture
            return replace(picture, description=names.get(picture.description, picture.description))

        return change

    return make


@pytest.fixture
def cbis_ddsm_files() -> Path:
    """Folder of the real files of CBIS-DDSM that tests may read, where it is there."""
    folder = SHARED / "cbis_ddsm"
    if not folder.is_dir():
        pytest.skip(f"{folder}: the real CBIS-DDSM files are not here")
    return folder
