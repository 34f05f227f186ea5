"""The layouts in which people have CBIS-DDSM on disk -> one list of its files. Knows no mass and reads no pixel.

What a file is comes from its header (or, in the JPEG mirror, from the table that came with it), never from its name.
Symbolic links that lead out of the archive are refused.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from mammo_lib.data import cases
from mammo_lib.data.dicom import ImageError, check_header, read_tags
from mammo_lib.data.images import file_format, image_size

TCIA_OLD = "TCIA folders, old file names (000000.dcm)"
TCIA_NEW = "TCIA folders, new file names (1-1.dcm)"
IDC = "Imaging Data Commons folders (UUID file names)"
DICOM = "folders of DICOM files"
JPEG_MIRROR = "8-bit JPEG mirror (csv/dicom_info.csv)"

TABLES = {  # (kind, subset) -> name of the official table
    (kind, subset): f"{kind}_case_description_{subset}_set.csv"
    for kind in ("mass", "calc")
    for subset in ("train", "test")
}

_FILE_NAMES = {TCIA_OLD: r"\d{6}", TCIA_NEW: r"\d+-\d+", IDC: r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"}
_MIRROR_COLUMNS = ("image_path", "PatientID", "SeriesDescription")


@dataclass(frozen=True)
class ArchiveFile:
    """One picture of the archive and what its header says of it; (0, 0) until its size is known."""

    path: str  # relative to the archive, forward slashes
    patient: str  # PatientID: "Mass-Training_P_00001_LEFT_CC" of an image, "..._CC_1" of a mass
    description: str  # SeriesDescription, "" when it is missing
    rows: int = 0
    columns: int = 0


def recognise(root: Path) -> str:
    """Name of the layout found in `root`, told by the JPEG mirror's table or by the name of the first DICOM file.

    FileNotFoundError when the folder is not there or holds neither.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: there is no such folder: give the folder that holds CBIS-DDSM")
    if _mirror_table(root) is not None:
        return JPEG_MIRROR
    for path in _walk(root, refuse=lambda link: None):
        stem = path.stem.lower()
        return next((name for name, pattern in _FILE_NAMES.items() if re.fullmatch(pattern, stem)), DICOM)
    raise FileNotFoundError(f"{root}: holds neither DICOM files (*.dcm) nor csv/dicom_info.csv with jpeg/")


def list_files(root: Path) -> tuple[list[ArchiveFile], list[dict[str, str]]]:
    """Every picture of the archive, in the order of its paths, and problem rows for what was refused or unreadable."""
    recognise(root)  # a folder without files is an error, not an empty list
    table = _mirror_table(root)
    files, problems = _mirror_files(root, table) if table else _dicom_files(root)
    return sorted(files, key=lambda file: file.path), problems


def find_table(root: Path, name: str) -> Path | None:
    """A table of the archive, in csv/ or, where it is not there, beside it."""
    return next((path for path in (root / "csv" / name, root / name) if path.is_file()), None)


def with_size(file: ArchiveFile, root: Path) -> ArchiveFile:
    """The file with its rows and columns, read from its header where they are not known yet. ImageError."""
    if file.rows:
        return file
    rows, columns = image_size(root / file.path)
    return replace(file, rows=rows, columns=columns)


def instance_number(path: Path) -> int:
    """Place of a file in its series, from 1: InstanceNumber; in the JPEG mirror, the first number of its name."""
    if file_format(path) == "DICOM":
        return read_tags(path).instance_number
    first = path.stem.split("-")[0]
    return int(first) if first.isdecimal() else 0


def _dicom_files(root: Path) -> tuple[list[ArchiveFile], list[dict[str, str]]]:
    problems: list[dict[str, str]] = []

    def refuse(link: Path) -> None:
        reason = f"symbolic link out of the archive (to {link.resolve()}): put the files themselves there"
        problems.append(cases.problem("", cases.SCAN, link.relative_to(root).as_posix(), reason))

    files = []
    for path in _walk(root, refuse):
        try:
            tags = read_tags(path)
            check_header(tags, path)
            name = path.relative_to(root).as_posix()
            files.append(ArchiveFile(name, tags.patient_id, tags.series_description, tags.rows, tags.columns))
        except ImageError as error:
            problems.append(cases.problem("", cases.SCAN, path.relative_to(root).as_posix(), str(error)))
    return files, problems


def _walk(root: Path, refuse: Callable[[Path], None]) -> Iterator[Path]:
    """Every *.dcm below `root`, in order. A link within the archive is passed over: its target is walked as well."""
    inside = root.resolve()
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted([*folders, *names]):
            path = Path(folder, name)
            if path.is_symlink():
                if not path.resolve().is_relative_to(inside):
                    refuse(path)
            elif name.lower().endswith(".dcm") and path.is_file():
                yield path


def _mirror_table(root: Path) -> Path | None:
    if not (root / "jpeg").is_dir():
        return None
    return find_table(root, "dicom_info.csv")


def _mirror_files(root: Path, table_path: Path) -> tuple[list[ArchiveFile], list[dict[str, str]]]:
    """Files of the JPEG mirror, mass set only, by its table, whose paths start with the archive's folder of old."""
    table = cases.read_csv(table_path)
    cases.require_columns(table, _MIRROR_COLUMNS, str(table_path))
    files, problems = [], []
    for row in cases.records(table[table["PatientID"].str.startswith("Mass-")]):
        listed, patient = row["image_path"], row["PatientID"]
        path = _below_jpeg(listed)
        reason = _refused(path, root)
        if reason:
            problems.append(
                cases.problem(patient, cases.SCAN, listed, f"{table_path.name}: image_path {listed!r} {reason}")
            )
        else:
            files.append(ArchiveFile(path, patient, row["SeriesDescription"]))
    return files, problems


def _below_jpeg(listed: str) -> str:
    """ "CBIS-DDSM/jpeg/<series>/1-1.jpg" -> "jpeg/<series>/1-1.jpg"; "" where there is no such part."""
    parts = PurePosixPath(listed).parts
    return "/".join(parts[parts.index("jpeg") :]) if "jpeg" in parts else ""


def _refused(path: str, root: Path) -> str:
    """Why a path of the mirror's table is not used, or ""."""
    if not path:
        return "is not below jpeg/"
    if not (root / path).resolve().is_relative_to(root.resolve()):  # by .. or by a symbolic link
        return "leads out of the archive"
    return "" if (root / path).is_file() else "names a file that is not there"
