"""A user's own case table, `cases.csv`, beside the files that it names. Reads no pixel.

The columns are those of cases.py. Images may be PNG, JPEG, TIFF, PGM or DICOM, of 8 or 16 bits.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mammo_lib.data import cases

TABLE = "cases.csv"
SLASHES = " (write / in place of \\)"


def case_table(root: Path, allow_partial: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read `cases.csv` in `root` into (case table, problems table).

    A mass whose image is not on disk, or that has neither box nor mask nor crop there, is a row of problems, with
    `allow_partial`, and so is one without which its image's label is not known; without, FileNotFoundError.
    ValueError, naming row and column, when the table is none.
    """
    table = cases.read(root / TABLE)
    _check_masks(table, root / TABLE)
    _check_patients(table, root / TABLE)
    _check_pathology(table, root / TABLE)
    rows = cases.records(table)
    files = {row["mass_id"]: _missing(row, root) for row in rows}
    missing = [cases.problem(mass_id, "read", file, _why(root, file)) for mass_id, file in files.items() if file]
    missing += cases.label_unknown(rows, missing)
    cases.require_complete(missing, len(table), root, allow_partial)
    there = table[~table["mass_id"].isin([row["id"] for row in missing])].reset_index(drop=True)
    return there, cases.problem_table(missing)


def _check_masks(table: pd.DataFrame, path: Path) -> None:
    """One mask for two masses would give both the same box."""
    outlined = table[table["box_w"].isna() & (table["mask_path"] != "")]
    repeated = outlined[outlined["mask_path"].map(cases.plain_path).duplicated()]
    if not repeated.empty:
        row = repeated.iloc[0]
        raise ValueError(
            f"{path}: mass_id {row['mass_id']!r}: mask_path {row['mask_path']!r} is the mask of another mass too: "
            "give each a mask of its own, or a box"
        )


def _check_patients(table: pd.DataFrame, path: Path) -> None:
    """One patient written in two ways would be two, and might train and be tested on."""
    written = pd.Series(table["patient_id"].unique())
    bare = written.str.casefold().str.replace(r"\s+", "", regex=True).str.replace(r"(?<!\d)0+(?=\d)", "", regex=True)
    for _, same in written.groupby(bare):
        if len(same) > 1:
            raise ValueError(
                f"{path}: patient_id {same.iloc[0]!r} and {same.iloc[1]!r} differ in capitals, blanks or leading zeros "
                "alone: write one patient in one way, or give two patients other ids"
            )


def _check_pathology(table: pd.DataFrame, path: Path) -> None:
    """The source's own word and the label made from it must not contradict each other."""
    word = table["pathology"].str.casefold()
    says = {0: word.str.startswith("benign"), 1: word.str.startswith("malignant")}
    wrong = table[(says[0] & (table["label"] == 1)) | (says[1] & (table["label"] == 0))]
    if not wrong.empty:
        row = wrong.iloc[0]
        raise ValueError(
            f"{path}: mass_id {row['mass_id']!r}: pathology {row['pathology']!r} contradicts label {row['label']} "
            "(1 malignant, 0 benign): correct one of them"
        )


def _why(root: Path, file: str) -> str:
    """Why a file of the table cannot be used."""
    if (root / file).is_file():
        return f"{file} is a link that leads out of the archive: put the file itself there"
    return f"{file} is not on disk" + (SLASHES if "\\" in file else "")


def _missing(row: Mapping[str, Any], root: Path) -> str:
    """The file without which the mass cannot be used, or ""."""
    if not _is_there(root, row["image_path"]):
        return str(row["image_path"])
    outlines = [path for path in (row["mask_path"], row.get(cases.CROP_PATH, "")) if path]
    if pd.notna(row["box_w"]) or any(_is_there(root, path) for path in outlines):
        return ""
    return str(outlines[0])


def _is_there(root: Path, file: str) -> bool:
    path = root / file
    return path.is_file() and path.resolve().is_relative_to(root.resolve())
