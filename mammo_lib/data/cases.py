"""The case table: its columns, its types, its checks. Any data set becomes this; knows no pixel and no archive.

One row is one mass. A file has all of COLUMNS; those of OPTIONAL may be blank:

    mass_id, image_id, patient_id   text; a mass once, an image and a patient as often as they have masses
    side, view                      LEFT or RIGHT; CC or MLO
    label                           1 malignant, 0 benign
    pathology                       the truth in the source's words
    official_split                  train or test, one of them for all of a patient; blank: the data has no such split,
                                    and --protocol official cannot be used
    assessment                      BI-RADS, 0 to 5, of every mass or of none: a baseline of its own in the tables
    density, subtlety               as the source writes them
    shape, margins                  words of the BI-RADS lexicon, joined by "-": the other baseline
    image_path, mask_path           relative to the archive's root, with forward slashes
    box_x, box_y, box_w, box_h      whole-image pixels, origin top left, x to the right; blank where the mask gives it
                                    (with both, the box counts, and the mask must have a pixel in it)
    source                          where the row comes from, for who reads the table

Two more are known where they are there: `crop_path`, a separate picture of the mass, and `aspect`, the original height
by width of an image that is stored with other proportions (blank: it has its own). Others are kept and not checked.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pandas as pd

from mammo_lib import paths

KEYS = ("mass_id", "image_id", "patient_id")
DESCRIPTION_COLUMNS = ("assessment", "density", "subtlety", "shape", "margins")
BOX_COLUMNS = ("box_x", "box_y", "box_w", "box_h")
OPTIONAL = ("pathology", "official_split", *DESCRIPTION_COLUMNS, "mask_path", *BOX_COLUMNS, "source")  # may be blank
COLUMNS = (
    *KEYS,
    "side",
    "view",
    "label",
    "pathology",
    "official_split",
    *DESCRIPTION_COLUMNS,
    "image_path",
    "mask_path",
    *BOX_COLUMNS,
    "source",
)
CROP_PATH = "crop_path"
PATHS = ["image_path", "mask_path", CROP_PATH]
ASPECT = "aspect"
PROBLEM_COLUMNS = ("id", "stage", "file", "reason")
NOTE = "note"  # stage of a row that tells of a repair or an oddity: nothing was set aside
SCAN = "scan"  # stage of a row that tells of a file which belongs to no mass, or of which that is not known
LARGEST = 100_000  # pixels; ours: no image has as many on a side
_SHOWN = 3  # problems that an error message names
_NOTHING = ("", "nan", "none", "null", "na", "n/a", "<na>")  # what programs write for a blank cell, in small letters

ASSESSMENTS = ("0", "1", "2", "3", "4", "5")  # BI-RADS
ALLOWED = {
    "side": ("LEFT", "RIGHT"),
    "view": ("CC", "MLO"),
    "label": ("0", "1"),
    "official_split": ("train", "test", ""),
}


def problem(id: str, stage: str, file: str | Path, reason: str) -> dict[str, str]:
    """One row of a problems table: what was set aside (or, at stage `NOTE`, repaired), where, and why."""
    return dict(zip(PROBLEM_COLUMNS, (id, stage, str(file), reason), strict=True))


def problem_table(rows: Iterable[Mapping[str, str]]) -> pd.DataFrame:
    """A problems table with its columns, also when there is no row."""
    return pd.DataFrame(list(rows), columns=list(PROBLEM_COLUMNS), dtype=str)


def set_aside(problems: pd.DataFrame) -> int:
    """How many masses a problems table sets aside; rows at `NOTE` and `SCAN` set none aside."""
    return int(problems.loc[~problems["stage"].isin([NOTE, SCAN]), "id"].nunique())


def require_complete(
    missing: Sequence[Mapping[str, str]], masses: int, root: Path, allow_partial: bool, refused: str = ""
) -> None:
    """FileNotFoundError, one sentence, when masses miss files and this was not allowed, or when all of them do.

    `missing`: a problem row a mass; `masses`: how many there should be; `refused`: about files that were turned away.
    """
    if not missing or (allow_partial and len(missing) < masses):
        return
    first = "; ".join(f"{row['id']}: {row['reason']}" for row in missing[:_SHOWN])
    what = "complete it" if allow_partial else "complete it, or go on with what is there (--allow-partial)"
    raise FileNotFoundError(
        f"{root}: the archive is not complete: {len(missing)} of {masses} masses cannot be used,"
        f" first: {first}{refused}: {what}"
    )


def label_unknown(rows: Sequence[Mapping[str, Any]], missing: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """Problem rows of the masses that cannot be used because their image's label hangs on one that is missing.

    An image is malignant if any of its masses is: where the only malignant ones are missing, the others would call it
    benign. `rows`: mass_id, image_id and label of every mass, the missing ones included; `missing`: their problem rows.
    """
    gone = {row["id"] for row in missing}
    malignant = [row for row in rows if row["label"] == 1]
    known = {row["image_id"] for row in malignant if row["mass_id"] not in gone}
    unknown = {row["image_id"] for row in malignant} - known
    reason = "a malignant mass of its image is missing, without which the image would count as benign"
    return [
        problem(row["mass_id"], "label", "", reason)
        for row in rows
        if row["image_id"] in unknown and row["mass_id"] not in gone
    ]


def table(rows: Iterable[Mapping[str, Any]], where: str) -> pd.DataFrame:
    """A checked case table from one mapping a mass; a row may leave out any OPTIONAL column. Errors as in `check`."""
    frame = pd.DataFrame(list(rows))
    for name in (column for column in OPTIONAL if column not in frame):
        frame[name] = None
    check(frame, where)
    extra = [column for column in frame.columns if column not in COLUMNS]
    return _typed(frame[[*COLUMNS, *extra]])


def read(path: Path) -> pd.DataFrame:
    """Read and check a case table: label int64, boxes Int64 (blank is NA), the rest text.

    FileNotFoundError when there is none; ValueError, one sentence, when it is no case table.
    """
    frame = read_csv(path)
    check(frame, str(path))
    return _typed(frame)


def write(frame: pd.DataFrame, path: Path) -> None:
    """Check `frame` and write it to `path` at once, as UTF-8 CSV with LF line ends."""
    check(frame.reset_index(drop=True), str(path))
    paths.write_table(frame, path)


def read_csv(path: Path) -> pd.DataFrame:
    """Any CSV as text: cells stripped, nothing turned into NaN ("N/A" stays), byte-order mark accepted.

    Rows without any text are left out but counted: index + 2 is a row's number in a spreadsheet. Cells that a row
    lacks at its end are blank. FileNotFoundError when there is none; ValueError, one sentence, when it is empty, no
    CSV, or not UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such table")
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = list(csv.reader(io.StringIO(text), strict=True))  # strict: a quote that is never closed is an error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is not UTF-8: save the table as UTF-8 CSV") from None
    except csv.Error as error:
        raise ValueError(f"{path}: not a CSV table ({error})") from None
    columns = [name.strip() for name in rows[0]] if rows else []
    if not any(columns):
        raise ValueError(f"{path}: not a CSV table (its first line is blank)")
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(columns) == 1 and sign in columns[0]:
            raise ValueError(f"{path}: its cells are separated by {name}: save the table with commas")
    twice = [name for name in columns if name and columns.count(name) > 1]
    if twice:
        raise ValueError(f"{path}: column {twice[0]} is there twice: keep one of them")
    stripped = ([cell.strip() for cell in row] for row in rows[1:])
    filled = {number: row for number, row in enumerate(stripped) if any(row)}
    for number, row in filled.items():
        if len(row) > len(columns):
            raise ValueError(
                f"{path}: row {number + 2} has {len(row)} cells, the header {len(columns)}: put a cell that holds a "
                "comma into double quotes"
            )
    cells = [row + [""] * (len(columns) - len(row)) for row in filled.values()]
    return pd.DataFrame(cells, index=list(filled), columns=columns, dtype=str)


def require_columns(frame: pd.DataFrame, columns: Iterable[str], where: str) -> None:
    """ValueError naming the columns that `frame` lacks."""
    missing = [column for column in columns if column not in frame]
    if missing:
        small = {str(name).lower() for name in frame.columns}
        hint = "; names of columns are in small letters" if small & set(missing) else ""
        found = ", ".join(map(str, frame.columns))
        raise ValueError(f"{where}: column {', '.join(missing)} missing (found: {found}{hint})")


def check(frame: pd.DataFrame, where: str) -> None:
    """ValueError, naming `where`, the row and the column, for the first thing that a case table must not hold.

    Row 2 is the first below the header, as a spreadsheet counts (index 0, see `read_csv`).
    """
    if frame.empty:
        raise ValueError(f"{where}: holds no mass")
    require_columns(frame, COLUMNS, where)
    text = frame.astype(object).where(frame.notna(), "").astype(str).apply(lambda column: column.str.strip())
    for column in (*KEYS, "image_path"):
        _refuse(text[column].str.lower().isin(_NOTHING), text, column, "is blank, or a word for it", where)
    wordy = text["mask_path"].str.lower().isin(_NOTHING) & (text["mask_path"] != "")
    _refuse(wordy, text, "mask_path", "is a word for a blank cell: leave it blank", where)
    _refuse(text["mass_id"].duplicated(), text, "mass_id", "is there twice", where)
    for column, allowed in ALLOWED.items():
        known = ", ".join(value or "blank" for value in allowed)
        _refuse(~text[column].isin(allowed), text, column, f"must be one of: {known}", where)
    if (text["assessment"] != "").any():  # BI-RADS alone is a baseline: of some masses only it would stop there
        known = f"must be one of {', '.join(ASSESSMENTS)}, for every mass, or blank for all of them"
        _refuse(~text["assessment"].isin(ASSESSMENTS), text, "assessment", known, where)
    for column in text.columns.intersection(PATHS):
        _refuse(text[column].map(leaves_archive), text, column, "must be relative to the archive, without ..", where)
    _check_box_values(text, where)
    of_image = ["patient_id", "side", "view", "image_path", "official_split"]
    if ASPECT in text:
        numbers = pd.to_numeric(text[ASPECT], errors="coerce")
        _refuse(
            (text[ASPECT] != "") & ~(numbers > 0), text, ASPECT, "must be a height / width above 0, or blank", where
        )
        of_image.append(ASPECT)
    for column in of_image:
        _refuse(_differs_within(text, "image_id", column), text, column, "differs from another row of its image", where)
    plain = text.assign(image_path=text["image_path"].map(plain_path))
    _refuse(_differs_within(plain, "image_path", "image_id"), text, "image_id", "has the file of another image", where)
    boxed = text["box_x"] != ""
    numbers = text.assign(**text[list(BOX_COLUMNS)].apply(pd.to_numeric))
    again = numbers[boxed].duplicated(["image_id", *BOX_COLUMNS]).reindex(text.index, fill_value=False)
    _refuse(again, text, "mass_id", "has the box of another mass of its image", where)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, each as a mapping from column to value."""
    return [{str(column): value for column, value in row.items()} for row in frame.to_dict("records")]


def aspect(row: Mapping[str, Any]) -> float | None:
    """Original height / width of the image of a row; None where it is stored with it, or it is not known."""
    return float(row[ASPECT]) if row.get(ASPECT) else None


def files(table: pd.DataFrame) -> list[str]:
    """Every file that a case table names, once, in order."""
    return sorted(set(table[table.columns.intersection(PATHS)].to_numpy().ravel()) - {""})


def leaves_archive(path: str) -> bool:
    """Whether a path is absolute (on any system) or climbs by `..`."""
    posix, windows = PurePosixPath(path), PureWindowsPath(path)
    return posix.is_absolute() or bool(windows.drive or windows.root) or ".." in posix.parts or ".." in windows.parts


def plain_path(path: str) -> str:
    """A path in one way of writing it: "./a//b.png" is "a/b.png"; blank stays blank."""
    return path and str(PurePosixPath(path))


def _check_box_values(text: pd.DataFrame, where: str) -> None:
    """Four whole numbers or four blanks; without a box, a mask or a crop to take it from."""
    numbers = text[list(BOX_COLUMNS)].apply(pd.to_numeric, errors="coerce")
    blank = (text[list(BOX_COLUMNS)] == "").all(axis=1)
    for column in BOX_COLUMNS:
        least = 1 if column in ("box_w", "box_h") else 0
        bad = ~blank & ~((numbers[column] >= least) & (numbers[column] <= LARGEST) & (numbers[column] % 1 == 0))
        _refuse(bad, text, column, f"must be a whole number from {least} to {LARGEST}", where)
    outline = text["mask_path"] + text.get(CROP_PATH, "")
    _refuse(blank & (outline == ""), text, "mask_path", "is blank, and so is the box", where)


def _differs_within(text: pd.DataFrame, group: str, column: str) -> pd.Series:
    return text[column] != text.groupby(group)[column].transform("first")


def _refuse(bad: pd.Series, text: pd.DataFrame, column: str, reason: str, where: str) -> None:
    if bad.any():
        number, mass, value = next(text.loc[bad, ["mass_id", column]].itertuples(name=None))
        raise ValueError(f"{where}: row {number + 2} (mass_id {mass!r}): {column} {value!r} {reason}")


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its types: label int64, boxes Int64 (blank is NA), every other column text, stripped."""
    typed = pd.DataFrame(index=pd.RangeIndex(len(frame)))
    for column in frame.columns:
        values = frame[column].reset_index(drop=True)
        if column == "label":
            typed[column] = values.astype("int64")
        elif column in BOX_COLUMNS:
            typed[column] = pd.to_numeric(values.replace("", None)).astype("Int64")
        else:
            typed[column] = values.astype(object).where(values.notna(), "").astype(str).str.strip()
    return typed
