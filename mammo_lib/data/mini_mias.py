"""mini-MIAS in its official layout (Info.txt beside mdb001.pgm .. mdb322.pgm) -> case table. Reads no pixel.

Suckling J et al., "The Mammographic Image Analysis Society Digital Mammogram Database", Excerpta Medica 1069, 1994,
375-378. Every image is 1024 x 1024; every view is mediolateral oblique. A lesion is a circle, so a box is its square.
"""

import re
from collections import Counter
from pathlib import Path

import pandas as pd

from mammo_lib.data import cases

SIDE_PIXELS = 1024  # Info.txt, note 2
MASSES = ("CIRC", "SPIC", "MISC")  # circumscribed, spiculated, other ill-defined
ASYMMETRIES = ("ARCH", "ASYM")  # architectural distortion, asymmetry: masses to some authors
PATHOLOGIES = {"B": "BENIGN", "M": "MALIGNANT"}
_LESIONS = (*MASSES, *ASYMMETRIES, "CALC")
# The film's own letters say L on odd numbers and R on even ones, and so do the names in the full-size database
# (mdb001l., mdb002r.); note 1 of Info.txt has them the other way round.
_SIDES = {1: "LEFT", 0: "RIGHT"}


def case_table(root: Path, allow_partial: bool = False, asymmetries: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read `Info.txt`, in `root` or in `root`/all-mias, into (case table, problems table).

    Masses are the classes CIRC, SPIC and MISC, with `asymmetries` also ARCH and ASYM. A lesion without coordinates is a
    row of problems; so is one whose image has a malignant mass that cannot be used, and with `allow_partial` one
    without its image. FileNotFoundError without Info.txt, and for
    missing images otherwise; ValueError, naming the line, when Info.txt is not the table it should be.
    """
    info = next((path for path in (root / "Info.txt", root / "all-mias" / "Info.txt") if path.is_file()), None)
    if info is None:
        raise FileNotFoundError(f"{root}: no Info.txt here nor in all-mias: give the unpacked mini-MIAS folder")
    wanted = MASSES + ASYMMETRIES if asymmetries else MASSES
    rows: list[dict[str, object]] = []
    problems: list[dict[str, str]] = []
    missing: list[dict[str, str]] = []
    listed: list[dict[str, object]] = []
    count: Counter[str] = Counter()  # lesions of an image, and of a class that is not wanted
    for fields in _lesions(info):
        image_id, kind = fields[0], fields[2]
        name = image_id if kind in wanted else kind
        count[name] += 1
        if kind not in wanted:
            continue
        mass_id, image = f"{image_id}_{count[name]}", info.parent / f"{image_id}.pgm"
        listed.append({"mass_id": mass_id, "image_id": image_id, "label": int(fields[3] == "M")})
        reason = _unusable(fields)
        if reason:
            problems.append(cases.problem(mass_id, "read", image.relative_to(root).as_posix(), reason))
        elif not image.is_file():
            reason = "the image is not on disk"
            missing.append(cases.problem(mass_id, "read", image.relative_to(root).as_posix(), reason))
        else:
            rows.append(_row(mass_id, fields, image.relative_to(root).as_posix()))
    unlabelled = cases.label_unknown(listed, [*problems, *missing])
    problems += unlabelled
    unusable = {problem["id"] for problem in unlabelled}
    rows = [row for row in rows if row["mass_id"] not in unusable]
    if not rows and not missing:
        raise ValueError(f"{info}: lists no mass with coordinates: {len(problems)} set aside")
    cases.require_complete(missing, len(rows) + len(missing), root, allow_partial)
    problems += [
        cases.problem(kind, cases.NOTE, info.name, f"{count[kind]} lesions of this class: not asked for, not read")
        for kind in sorted(count.keys() & set(_LESIONS))
    ]
    return cases.table(rows, str(info)), cases.problem_table([*missing, *problems])


def _lesions(info: Path) -> list[list[str]]:
    """Fields of each lesion of the list (number, tissue, class, severity, then x, y and radius or less)."""
    listed = []
    for number, line in enumerate(info.read_text(encoding="latin-1").splitlines(), start=1):
        if not re.match(r"mdb\d", line):
            continue
        fields = line.split()
        if fields[2:] == ["NORM"]:
            continue
        if not re.fullmatch(r"mdb\d{3}", fields[0]) or len(fields) < 4 or fields[2] not in _LESIONS:
            raise ValueError(
                f"{info}, line {number}: {line.strip()!r} is not 'mdb### tissue class severity x y radius'"
            )
        listed.append(fields)
    return listed


def _unusable(fields: list[str]) -> str:
    """Why a line of the list cannot be a case; empty when it can."""
    severity, circle = fields[3], fields[4:7]
    if severity not in PATHOLOGIES:
        return f"severity {severity!r} is neither B nor M"
    if len(circle) < 3 or not all(value.isdecimal() for value in circle):
        return "the lesion has no coordinates"
    if min(_box(fields)[2:]) < 1:
        return f"its circle, {' '.join(circle)}, lies outside the image"
    return ""


def _row(mass_id: str, fields: list[str], image_path: str) -> dict[str, object]:
    image_id, tissue, kind, severity = fields[:4]
    number = int(image_id.removeprefix("mdb"))
    return {
        "mass_id": mass_id,
        "image_id": image_id,
        "patient_id": f"mias{(number + 1) // 2:03d}",  # note 1: consecutive odd and even numbers are one patient
        "side": _SIDES[number % 2],
        "view": "MLO",
        "label": int(severity == "M"),
        "pathology": PATHOLOGIES[severity],
        "density": tissue,
        "shape": kind,
        "image_path": image_path,
        **dict(zip(cases.BOX_COLUMNS, _box(fields), strict=True)),
        "source": "mini_mias",
    }


def _box(fields: list[str]) -> tuple[int, int, int, int]:
    """x, y, w, h from the top left of the circle's square, cut at the image's edges; sides below 1 when outside.

    Info.txt counts y from the bottom (note 3).
    """
    x, y, radius = (int(value) for value in fields[4:7])
    left, right = max(x - radius, 0), min(x + radius, SIDE_PIXELS)
    top, bottom = max(SIDE_PIXELS - y - radius, 0), min(SIDE_PIXELS - y + radius, SIDE_PIXELS)
    return left, top, right - left, bottom - top
