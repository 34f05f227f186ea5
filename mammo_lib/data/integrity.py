"""Named checks of an archive: what each expects, what it found, and the ids behind it. Mends nothing, drops nothing.

Knows the official tables, the case table, the problems table and the table of near-duplicates; knows no pixel and no
network.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from mammo_lib.config import NO_CALLBACK, PAPER_COUNTS
from mammo_lib.data import cbis_ddsm, streaming
from mammo_lib.data.archive_layouts import TABLES, find_table
from mammo_lib.data.cases import NOTE, SCAN, files
from mammo_lib.data.cbis_ddsm import read_descriptions
from mammo_lib.data.images import ImageError
from mammo_lib.data.near_duplicates import HASH_THRESHOLD

KINDS = ("mass", "calc")
SUBSETS = ("train", "test")
COUNTED = ("rows", "images", "patients", "malignant rows", "malignant images", "malignant patients")
# Facts of the official tables (release of 2017): (set, subset) -> COUNTED; an image or a patient is malignant if any of
# its rows is.
KNOWN_COUNTS = {
    ("mass", "train"): (1318, 1231, 691, 637, 602, 346),
    ("mass", "test"): (378, 361, 201, 147, 145, 85),
    ("calc", "train"): (1546, 1227, 602, 544, 509, 276),
    ("calc", "test"): (326, 284, 151, 129, 119, 67),
}
KNOWN_MIXED = 8  # mammograms of the mass set with a benign and a malignant mass
KNOWN_DISAGREEING = 3  # its lesions that are benign in one view and malignant in the other
KNOWN_SHARED = {("mass", "calc"): (13, 15), ("calc", "mass"): (18, 14)}  # train of, test of: patients, mammograms

UNITS = {  # what may be counted, and the columns that name one
    "rows": ["set", "image_id", "abnormality_id"],
    "images": ["set", "image_id"],
    "lesions": ["set", "patient_id", "left_or_right_breast", "abnormality_id"],
    "breasts": ["patient_id", "left_or_right_breast"],
    "patients": ["patient_id"],
}
_PAPER_RULES = {  # count, what of the mixed ones is added to it, in words
    "mass images": [("total", 0, "all")],
    "benign": [("benign", 0, "without a malignant row"), ("benign", 1, "with a benign row")],
    "malignant": [("malignant", 0, "with a malignant row"), ("malignant", -1, "without a benign row")],
    "patients": [("total", 0, "all")],
}
_NOTED = {  # traits that a source notes, by what the note says
    "masks of another size than their image": cbis_ddsm.OTHER_SIZE,
    "crops and masks that are not what they call themselves": cbis_ddsm.MISLABELLED,
    "masses without a usable mask, whose crop stands in": cbis_ddsm.STAND_IN,
    "masses with several files of a kind": cbis_ddsm.DOUBLED,
}


@dataclass(frozen=True)
class Finding:
    """One check; `ok` says whether `found` is as `expected`, None where nothing is expected."""

    name: str
    expected: int | str | None
    found: int | str
    ok: bool | None
    ids: tuple[str, ...] = ()
    note: str = ""


def check(
    cases: pd.DataFrame, problems: pd.DataFrame, root: Path, official: bool, pairs: pd.DataFrame | None = None
) -> list[Finding]:
    """All checks of an archive at `root`, from its case table, problems table and official tables where it has them.

    `official`: the archive is meant to be all of CBIS-DDSM, so that its known counts, and the paper's, are expected.
    `pairs` is what `near_duplicates` found in the prepared images.
    """
    tables = descriptions(root)
    findings = [_tables_there(tables)] if official else []
    if tables:
        every = pd.concat([table.assign(set=kind) for kind, table in tables.items()], ignore_index=True)
        findings += _counts(every, official) + _labels(every, official) + _shared(every, official)
        if official:
            findings += [*paper_counts(counting_rules(every)), *_left_out(every)]
        if "mass" in tables:
            findings.append(_unaccounted(tables["mass"], cases, problems))
            findings += _swapped(tables["mass"], cases, root)
    findings += [_missing_files(cases, root), *_set_aside(problems), *_notes(problems)]
    return findings if pairs is None else [*findings, _near_duplicates(pairs)]


def to_frame(findings: Iterable[Finding]) -> pd.DataFrame:
    """One row a finding, for people: `verdict` in words, `ids` joined."""
    verdicts = {True: "as expected", False: "differs", None: "noted"}
    rows = [asdict(finding) | {"verdict": verdicts[finding.ok], "ids": ", ".join(finding.ids)} for finding in findings]
    return pd.DataFrame(rows, columns=["name", "expected", "found", "verdict", "ids", "note"], dtype=object)


def descriptions(root: Path) -> dict[str, pd.DataFrame]:
    """The official tables in `root`/csv or `root`, read by `read_descriptions`; a set without is left out."""
    found = {}
    for kind in KINDS:
        paths = [path for subset in SUBSETS if (path := find_table(root, TABLES[kind, subset]))]
        if paths:
            found[kind] = read_descriptions(paths)
    return found


def counting_rules(every: pd.DataFrame) -> pd.DataFrame:
    """Every count that a sentence like "1590 mass images, 845 benign, 745 malignant, 1249 patients" may mean.

    `every`: official rows with a column `set` (mass or calc). One row a rule: `tables`, `subset`, `callbacks` (with or
    without BENIGN_WITHOUT_CALLBACK), `unit`; then `total`, `benign` (no malignant row), `malignant` (any), `mixed`
    (both kinds of row).
    """
    rows = []
    subsets = {"train + test": SUBSETS, **{name: (name,) for name in SUBSETS}}
    sets = {"mass": ("mass",), "calc": ("calc",), "mass + calc": ("mass", "calc")}
    for (set_name, kinds), (subset, parts), callbacks in product(sets.items(), subsets.items(), ("with", "without")):
        chosen = every[every["set"].isin(kinds) & every["official_split"].isin(parts)]
        if callbacks == "without":
            chosen = chosen[chosen["pathology"] != NO_CALLBACK]
        for unit, columns in UNITS.items():
            label = chosen.groupby(columns)["label"]
            total, malignant, mixed = label.ngroups, int(label.max().sum()), int((label.nunique() > 1).sum())
            rows.append((set_name, subset, callbacks, unit, total, total - malignant, malignant, mixed))
    columns = ["tables", "subset", "callbacks", "unit", "total", "benign", "malignant", "mixed"]
    return pd.DataFrame(rows, columns=columns)


def paper_counts(rules: pd.DataFrame) -> list[Finding]:
    """Each number of section 2.1 against every rule: the rules that give it or, where none does, the closest one."""
    findings = []
    for name, expected in PAPER_COUNTS.items():
        relevant = rules[(rules["unit"] == "patients") == (name == "patients")]
        tried = [
            relevant.assign(number=relevant[column] + sign * relevant["mixed"], counted=counted)
            for column, sign, counted in _PAPER_RULES[name]
        ]
        findings.append(_paper_count(name, expected, pd.concat(tried)))
    return findings


def _left_out(every: pd.DataFrame) -> list[Finding]:
    """Which images less would give the paper's three counts of images: arithmetic, and no more than a conjecture."""
    images = every[every["set"] == "mass"].groupby(["patient_id", "image_id"])["label"].max()
    counts = {"mass images": len(images), "malignant": int(images.sum()), "benign": int((images == 0).sum())}
    less = {name: count - PAPER_COUNTS[name] for name, count in counts.items()}
    if min(less.values()) < 0 or less["mass images"] != less["malignant"] + less["benign"]:
        return []
    patients = images.groupby("patient_id").agg(["size", "sum"])
    alike = int(((patients["size"] == less["mass images"]) & (patients["sum"] == less["malignant"])).sum())
    note = (
        f"a conjecture: without {less['malignant']} malignant and {less['benign']} benign mammograms the tables give "
        f"all three counts of images; the paper names none, and {alike} patients have just such mammograms"
    )
    return [Finding("paper: mass images left out", None, less["mass images"], None, note=note)]


def _paper_count(name: str, expected: int, tried: pd.DataFrame) -> Finding:
    exact = tried[tried["number"] == expected]
    if len(exact):
        note = f"found by counting {'; '.join(_rule(record) for record in exact.to_dict('records'))}"
        return Finding(f"paper: {name}", expected, expected, True, note=note)
    # The closest must be close in meaning: among mass tables alone, unless the number counts patients.
    alike = tried[(tried["tables"] == "mass") | (name == "patients")]
    record = alike.iloc[int((alike["number"] - expected).abs().argmin())].to_dict()
    note = f"none of {len(tried)} rules gives it; the closest counts {_rule(record)}"
    return Finding(f"paper: {name}", expected, record["number"], False, note=note)


def _rule(record: Mapping[Any, Any]) -> str:
    callbacks = f", without {NO_CALLBACK}" if record["callbacks"] == "without" else ""
    return f"{record['unit']} of the {record['tables']} set ({record['subset']}{callbacks}), {record['counted']}"


def _tables_there(tables: dict[str, pd.DataFrame]) -> Finding:
    there = {name for table in tables.values() for name in table["csv"]}
    missing = tuple(sorted(set(TABLES.values()) - there))
    return Finding("official tables", len(TABLES), len(there), not missing, missing)


def _rows(every: pd.DataFrame, kind: str, subset: str) -> pd.DataFrame:
    return every[(every["set"] == kind) & (every["official_split"] == subset)]


def _counts(every: pd.DataFrame, official: bool) -> list[Finding]:
    """Rows, images and patients of each set and subset, and how many of them are malignant."""
    findings = []
    for (kind, subset), known in KNOWN_COUNTS.items():
        rows = _rows(every, kind, subset)
        columns = ("image_id", "patient_id")
        malignant = rows[rows["label"] == 1]
        counts = [
            count
            for part in (rows, malignant)
            for count in (len(part), *(part[column].nunique() for column in columns))
        ]
        for what, number, count in zip(COUNTED, known, counts, strict=True):
            findings.append(_expecting(f"{kind}, {subset}: {what}", number if official else None, count))
    return findings


def _labels(every: pd.DataFrame, official: bool) -> list[Finding]:
    """Images and lesions of the mass set that are benign and malignant at once."""
    masses = every[every["set"] == "mass"].assign(
        lesion=lambda table: table[["patient_id", "left_or_right_breast", "abnormality_id"]].agg("_".join, axis=1)
    )
    if masses.empty:
        return []
    found = {}
    for column in ("image_id", "lesion"):
        labels = masses.groupby(column)["label"].nunique()
        found[column] = tuple(sorted(labels.index[labels > 1]))
    mixed, disagreeing = found["image_id"], found["lesion"]
    known = (KNOWN_MIXED, KNOWN_DISAGREEING) if official else (None, None)
    exchanged = "where two lesions of a breast disagree the opposite way, one view may number them the other way round"
    return [
        _expecting("images with benign and malignant masses", known[0], len(mixed), mixed, "G takes them as malignant"),
        _expecting("lesions whose views disagree in label", known[1], len(disagreeing), disagreeing, exchanged),
    ]


def _shared(every: pd.DataFrame, official: bool) -> list[Finding]:
    """Patients and mammograms (by patient, side and view: the UIDs differ) on both sides of train and test."""
    findings = []
    for train_set, test_set in product(KINDS, repeat=2):
        train, test = _rows(every, train_set, "train"), _rows(every, test_set, "test")
        known = KNOWN_SHARED.get((train_set, test_set), (0, 0))
        for what, column, number in zip(("patients", "mammograms"), ("patient_id", "image_id"), known, strict=True):
            ids = tuple(sorted(set(train[column]) & set(test[column])))
            name = f"{what} in {train_set} train and {test_set} test"
            inside = train_set == test_set  # one set's own split must part its patients in any archive
            findings.append(_expecting(name, number if official or inside else None, len(ids), ids))
    return findings


def _unaccounted(masses: pd.DataFrame, cases: pd.DataFrame, problems: pd.DataFrame) -> Finding:
    """Masses of the tables that are neither a case nor listed as set aside, and cases that no table knows."""
    wanted = set(masses["mass_id"])
    listed = set(problems.loc[problems["stage"] != NOTE, "id"])
    ids = tuple(sorted((wanted - set(cases["mass_id"]) - listed) | (set(cases["mass_id"]) - wanted)))
    return _expecting("masses of the tables neither used nor listed as set aside, or unknown to them", 0, len(ids), ids)


def _missing_files(cases: pd.DataFrame, root: Path) -> Finding:
    name = "files of the case table that are not on disk"
    if (root / streaming.CASES).exists():
        return Finding(name, None, "not looked for", None, note="streamed: originals are deleted once prepared")
    missing = tuple(name for name in files(cases) if not (root / name).is_file())
    return _expecting(name, 0, len(missing), missing)


def _swapped(masses: pd.DataFrame, cases: pd.DataFrame, root: Path) -> list[Finding]:
    """Masses whose path cells name the crop as the mask, where the archive has mask files to hold against them."""
    if (root / streaming.CASES).exists() or not cases["mask_path"].any():
        return []
    name = "masses whose table cells name the crop as the mask"
    try:
        ids = tuple(cbis_ddsm.swapped_cells(cases, masses, root))
    except (ImageError, OSError) as error:
        return [Finding(name, None, "not known", None, note=str(error))]
    return [Finding(name, None, len(ids), None, ids, "told from the files themselves: nothing to mend")]


def _set_aside(problems: pd.DataFrame) -> list[Finding]:
    """Files that were refused and masses that were set aside, none of which should be; then one finding a reason."""
    lost, refused = problems[~problems["stage"].isin([NOTE, SCAN])], problems[problems["stage"] == SCAN]
    findings = [
        _expecting("masses set aside", 0, lost["id"].nunique(), tuple(lost["id"].unique())),
        _expecting("files that cannot be read, or belong to no mass", 0, len(refused), tuple(refused["file"])),
    ]
    return findings + [
        _expecting(f"set aside: {kind}", 0, len(rows), tuple(rows["id"]), _example(kind, rows))
        for kind, rows in _by_kind(problems[problems["stage"] != NOTE])
    ]


def _notes(problems: pd.DataFrame) -> list[Finding]:
    """The traits of `_NOTED`, also where there are none; then one finding for each other kind of note."""
    notes, findings = problems[problems["stage"] == NOTE], []
    for name, words in _NOTED.items():
        rows = notes[notes["reason"].str.contains(words, regex=False)]
        notes = notes.drop(rows.index)
        findings.append(Finding(name, None, len(rows), None, tuple(rows["id"]), _example("…", rows)))
    return findings + [
        Finding(f"noted: {kind}", None, len(rows), None, tuple(rows["id"]), _example(kind, rows))
        for kind, rows in _by_kind(notes)
    ]


def _by_kind(problems: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Problems of alike reasons together: files and numbers are left out of them."""
    kinds = problems["reason"].str.replace(r"\S*[\d/]\S*", "…", regex=True)
    return [(str(kind), rows) for kind, rows in problems.groupby(kinds)]


def _example(kind: str, rows: pd.DataFrame) -> str:
    """One reason in full, where its kind leaves something out."""
    return f"for instance: {rows['reason'].iloc[0]}" if "…" in kind and len(rows) else ""


def _expecting(name: str, expected: int | None, found: int, ids: tuple[str, ...] = (), note: str = "") -> Finding:
    return Finding(name, expected, found, None if expected is None else found == expected, ids, note)


def _near_duplicates(pairs: pd.DataFrame) -> Finding:
    across = pairs["split_a"].ne(pairs["split_b"]) | pairs["split_a"].eq("")
    found = pairs[pairs["near_duplicate"] & across]
    ids = tuple(f"{row.image_a} ~ {row.image_b} ({row.distance})" for row in found.itertuples())
    closest = int(pairs["distance"].min()) if len(pairs) else "none"
    note = (
        f"at most {HASH_THRESHOLD} of 255 hash bits differ; closest pair of different patients: {closest}; "
        f"{int(pairs['near_duplicate'].sum())} near-duplicates in all"
    )
    return _expecting(
        "near-duplicates of different patients, across train and test where there is an official split",
        0,
        len(ids),
        ids,
        note,
    )
