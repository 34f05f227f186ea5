"""CBIS-DDSM's mass set, in whatever layout it lies on disk, -> case table. Knows no network and cuts no image.

Lee RS et al., "A curated mammography data set for use in computer-aided detection and diagnosis research",
Scientific Data 4:170177, 2017. Files and rows meet by PatientID; the path cells of the CSVs are only a key. Crops and
masks are told apart by SeriesDescription, by size and, where these two disagree, by values: a mask has two.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mammo_lib.config import NO_CALLBACK
from mammo_lib.data import cases, masks
from mammo_lib.data.archive_layouts import (
    TABLES,
    ArchiveFile,
    find_table,
    instance_number,
    list_files,
    with_size,
)
from mammo_lib.data.images import ImageError

MASS_TABLES = (TABLES["mass", "train"], TABLES["mass", "test"])
LABELS = {"MALIGNANT": 1, "BENIGN": 0, NO_CALLBACK: 0}
NAMES = {  # of the case table
    "left_or_right_breast": "side",
    "image_view": "view",
    "breast_density": "density",
    "mass_shape": "shape",
    "mass_margins": "margins",
}
SPLITS = {"Training": "train", "Test": "test"}  # as the first folder of a path cell names them

# What the notes on a mass say; data/integrity.py counts them.
MISLABELLED, OTHER_SIZE = "calls itself", "mask of another size than its image"
STAND_IN, DOUBLED = "its crop will stand in", "taken of several files"

IMAGE, MASK, CROP = "full mammogram images", "ROI mask images", "cropped images"  # SeriesDescription
MASK_SHARE = 0.5  # ours: a file with more of its image's pixels than this has a mask's size, with fewer a crop's

_REQUIRED = (
    "patient_id",
    "breast_density",
    "left_or_right_breast",
    "image_view",
    "abnormality_id",
    "abnormality_type",
    "assessment",
    "pathology",
    "subtlety",
    "image_file_path",
)


@dataclass(frozen=True)
class Pictures:
    """The files of one mass, and what is odd about them, in words."""

    image: ArchiveFile
    mask: ArchiveFile | None
    crop: ArchiveFile | None
    notes: tuple[str, ...]


class Incomplete(ValueError):
    """Files of a mass are missing; the message is the reason, without the mass."""


def case_table(root: Path, allow_partial: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row a mass of the official CSVs, boxes blank, with `crop_path` at the end; and the problems table.

    Masses whose files are missing raise one FileNotFoundError, or, with `allow_partial`, become rows of problems, as do
    masses without a file missing whose image's label is not known without the missing ones. Rows
    at stage `cases.NOTE` tell of repairs (swapped or doubled files, no usable mask but a crop): those masses are kept.
    """
    descriptions = read_descriptions(find_descriptions(root, allow_partial))
    files, problems = list_files(root)
    by_patient = defaultdict(list)
    for file in files:
        by_patient[file.patient].append(file)
    rows, missing = [], []
    known = cases.records(of_case_table(descriptions, "cbis_ddsm"))
    for description, row in zip(cases.records(descriptions), known, strict=True):
        mass_id = row["mass_id"]
        try:
            pictures = _pictures(description["key"], description["abnormality_id"], by_patient, root, allow_partial)
        except Incomplete as error:
            missing.append(cases.problem(mass_id, "match", "", str(error)))
            continue
        rows.append(row | _paths(pictures))
        problems += [cases.problem(mass_id, cases.NOTE, pictures.image.path, note) for note in pictures.notes]
    missing += cases.label_unknown(cases.records(descriptions), missing)
    cases.require_complete(missing, len(descriptions), root, allow_partial, _refused(problems))
    gone = {row["id"] for row in missing}
    return cases.table([row for row in rows if row["mass_id"] not in gone], str(root)), cases.problem_table(
        [*missing, *problems]
    )


def find_descriptions(root: Path, allow_partial: bool = False) -> list[Path]:
    """The two mass CSVs, in csv/ or beside it; FileNotFoundError for a missing one (for both, with `allow_partial`)."""
    found = [path for name in MASS_TABLES if (path := find_table(root, name))]
    missing = [name for name in MASS_TABLES if find_table(root, name) is None]
    if missing and not (allow_partial and found):
        raise FileNotFoundError(f"{root}: {' and '.join(missing)} missing: put the official tables into {root / 'csv'}")
    return found


def read_descriptions(csv_paths: Sequence[Path]) -> pd.DataFrame:
    """Official case descriptions (mass or calc) as one table of text, column names with underscores, cells stripped.

    Adds `key` ("Mass-Training_P_00001_LEFT_CC"), `image_id`, `mass_id`, `label` (int, 1 = malignant),
    `official_split`, `csv` (file name) and `row` (2 is the first below the header). ValueError naming file, row and
    column for what is not understood or is there twice.
    """
    descriptions = pd.concat([_read_one(path) for path in csv_paths], ignore_index=True).fillna("")
    keys = ["key", "abnormality_id"]
    twice = descriptions[descriptions.duplicated(keys, keep=False)].sort_values(keys, kind="stable")
    if len(twice):
        first, second = cases.records(twice)[:2]
        mass = f"{second['key']}, abnormality_id {second['abnormality_id']},"
        also = f"{first['csv']}, row {first['row']}"
        raise ValueError(f"{second['csv']}: row {second['row']}: {mass} is there already ({also}): delete one")
    return descriptions


def of_case_table(descriptions: pd.DataFrame, source: str) -> pd.DataFrame:
    """The official rows under the case table's column names, without files and boxes."""
    table = descriptions.rename(columns=NAMES).assign(source=source)
    return table[[column for column in cases.COLUMNS if column in table]]


def swapped_cells(table: pd.DataFrame, descriptions: pd.DataFrame, root: Path) -> list[str]:
    """mass_id of every mass in `table` (the case table of `root`) whose CSV row names its crop as the mask.

    The cells end in 000000.dcm or 000001.dcm: the first or second file of a series, whatever its name is today. Pairs
    that lie in two series have nothing to swap. ImageError when a header cannot be read.
    """
    claimed = dict(zip(descriptions["mass_id"], _cell_numbers(descriptions), strict=True))
    swapped = []
    for row in cases.records(table[(table["mask_path"] != "") & table["mass_id"].isin(list(claimed))]):
        crop, mask = claimed[row["mass_id"]]
        if crop != mask and instance_number(root / row["mask_path"]) != mask:
            swapped.append(row["mass_id"])
    return swapped


def _cell_numbers(descriptions: pd.DataFrame) -> list[tuple[int, int]]:
    """(crop, mask) of each row: places in their series, from 1, as the path cells say."""
    columns = ("cropped_image_file_path", "ROI_mask_file_path")
    cases.require_columns(descriptions, columns, "case descriptions")
    numbers = [descriptions[column].str.extract(r"(\d+)\.dcm$")[0].fillna("0").astype(int) + 1 for column in columns]
    return list(zip(*numbers, strict=True))


def _read_one(path: Path) -> pd.DataFrame:
    table = cases.read_csv(path)
    table.columns = table.columns.str.replace(" ", "_")  # "breast_density" in one table, "breast density" in another
    cases.require_columns(table, _REQUIRED, str(path))
    table["csv"], table["row"] = path.name, table.index + 2
    for column, known in {
        "pathology": tuple(LABELS),
        "left_or_right_breast": cases.ALLOWED["side"],
        "image_view": cases.ALLOWED["view"],
    }.items():
        _refuse(~table[column].isin(known), table, path, column, f"is none of {', '.join(known)}")
    _refuse(~table["abnormality_id"].str.fullmatch(r"[0-9]+"), table, path, "abnormality_id", "is not a number")
    table["label"] = table["pathology"].map(LABELS).astype("int64")
    table["image_id"] = table["patient_id"] + "_" + table["left_or_right_breast"] + "_" + table["image_view"]
    table["mass_id"] = table["image_id"] + "_" + table["abnormality_id"]
    table["key"] = table["image_file_path"].str.split("/").str[0]
    key = table["key"].str.extract(r"^(?P<kind>Mass|Calc)-(?P<split>Training|Test)_").fillna("")
    expected = key["kind"] + "-" + key["split"] + "_" + table["image_id"]
    _refuse(table["key"] != expected, table, path, "image_file_path", "does not start with the image of its row")
    table["official_split"] = key["split"].map(SPLITS)
    return table


def _refuse(bad: pd.Series, table: pd.DataFrame, path: Path, column: str, reason: str) -> None:
    for row in cases.records(table[bad])[:1]:
        raise ValueError(f"{path}: row {row['row']}: {column} {row[column]!r} {reason}")


def _pictures(
    key: str, abnormality: str, by_patient: Mapping[str, list[ArchiveFile]], root: Path, allow_partial: bool
) -> Pictures:
    """Image, mask and crop of one mass. Incomplete when one that is needed is not there."""
    image, notes = _image(key, by_patient.get(key, []), root)
    parts = by_patient.get(f"{key}_{abnormality}", [])
    found, oddities = _sorted_parts(parts, image, root)
    notes += oddities
    mask, crop = (next(iter(found[kind]), None) for kind in (MASK, CROP))
    if mask is None and (crop is None or (len(parts) < 2 and not allow_partial)):
        raise Incomplete("; ".join([f"no ROI mask with PatientID {key}_{abnormality}", *notes]))
    if mask is None:
        notes.append(f"no ROI mask: {STAND_IN} for it")
    elif (mask.rows, mask.columns) != (image.rows, image.columns):
        notes.append(f"{OTHER_SIZE} ({mask.rows} x {mask.columns} for {image.rows} x {image.columns} pixels)")
    return Pictures(image, mask, crop, tuple(notes))


def _image(key: str, files: list[ArchiveFile], root: Path) -> tuple[ArchiveFile, list[str]]:
    """The whole mammogram among the files with its PatientID, and a note where there are several."""
    if not files:
        raise Incomplete(f"no full mammogram with PatientID {key}")
    try:
        image = with_size(max(files, key=lambda file: file.description == IMAGE), root)
    except ImageError as error:
        raise Incomplete(str(error)) from None
    return image, [f"{image.path} {DOUBLED} with PatientID {key}"] if len(files) > 1 else []


def _sorted_parts(
    parts: list[ArchiveFile], image: ArchiveFile, root: Path
) -> tuple[dict[str, list[ArchiveFile]], list[str]]:
    """The files of one mass as masks and crops, and notes on what is mislabelled, twofold or unreadable."""
    found: dict[str, list[ArchiveFile]] = {MASK: [], CROP: []}
    notes = []
    for unsized in parts:
        try:
            part = with_size(unsized, root)
            kind = _kind(part, image, root)
        except ImageError as error:
            notes.append(str(error))
            continue
        found[kind].append(part)
        if part.description != kind:
            notes.append(f"{part.path} {MISLABELLED} {part.description!r}, but is one of the {kind}")
    notes += [f"{same[0].path} {DOUBLED} that are {kind}" for kind, same in found.items() if len(same) > 1]
    return found, notes


def _kind(part: ArchiveFile, image: ArchiveFile, root: Path) -> str:
    """MASK or CROP: what SeriesDescription says where the size agrees; otherwise the values decide. ImageError."""
    by_size = MASK if part.rows * part.columns > MASK_SHARE * image.rows * image.columns else CROP
    if part.description == by_size:
        return by_size
    return MASK if masks.is_mask(root / part.path) else CROP


def _paths(pictures: Pictures) -> dict[str, str]:
    return {
        "image_path": pictures.image.path,
        "mask_path": pictures.mask.path if pictures.mask else "",
        cases.CROP_PATH: pictures.crop.path if pictures.crop else "",
    }


def _refused(problems: list[dict[str, str]]) -> str:
    """What an error message adds about files that could not be read."""
    unread = [row["reason"] for row in problems if row["stage"] == cases.SCAN]
    return f" ({len(unread)} files were refused, first: {unread[0]})" if unread else ""
