"""Stored predictions: read, checked against what the cell should have predicted, and aligned between cells.

The one door through which a predictions.csv enters the evaluation; everything behind it may trust its rows. Knows no
network and computes no number.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

COLUMNS = ("id", "mass_id", "image_id", "patient_id", "part", "label", "probability")
SHOWN = 5  # offending rows quoted in an error


def read(path: Path, wanted: pd.DataFrame) -> pd.DataFrame:
    """Read a predictions.csv and check it against `wanted` (columns id, label, and any of part, patient_id...).

    Returns the file's columns, in `wanted`'s order of rows; mass_id is "" for images. FileNotFoundError when there is
    none; ValueError, quoting the offending rows, for a missing column, missing, duplicate or foreign ids, a probability
    that is no number in [0, 1], a label that is not 0 or 1 or disagrees, or a part or patient that disagrees.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no predictions; train this cell first")
    text = pd.read_csv(path, dtype=str, keep_default_na=False)
    absent = [name for name in COLUMNS if name not in text.columns]
    if absent:
        raise ValueError(f"{path}: column {', '.join(absent)} is missing; the cell must be predicted again")
    frame = text.assign(
        label=pd.to_numeric(text["label"], errors="coerce"),
        probability=pd.to_numeric(text["probability"], errors="coerce"),
    )
    _check_values(frame, text, path)
    _check_ids(frame, wanted, path)
    frame = frame.astype({"label": int}).set_index("id").loc[wanted["id"]].reset_index()
    _check_agreement(frame, wanted, path)
    return frame[list(COLUMNS)]


def _check_values(frame: pd.DataFrame, text: pd.DataFrame, path: Path) -> None:
    _refuse(path, "probability is not a number in [0, 1]", text[~frame["probability"].between(0, 1)], "probability")
    _refuse(path, "label is neither 0 nor 1", text[~frame["label"].isin((0, 1))], "label")
    _refuse(path, "id is there more than once", text[frame["id"].duplicated(keep=False)], "probability")


def _check_ids(frame: pd.DataFrame, wanted: pd.DataFrame, path: Path) -> None:
    doubled = wanted["id"][wanted["id"].duplicated()]
    if len(doubled):
        raise ValueError(f"the table of expected cases lists id {_listed(doubled)} more than once")
    missing = wanted["id"][~wanted["id"].isin(frame["id"])]
    if len(missing):
        raise ValueError(
            f"{path}: {len(missing)} expected ids are missing ({_listed(missing)}); predict the cell again"
        )
    _refuse(path, "id is not among the cell's cases", frame[~frame["id"].isin(wanted["id"])], "probability")


def _check_agreement(frame: pd.DataFrame, wanted: pd.DataFrame, path: Path) -> None:
    for name in ("label", "part", "patient_id", "image_id", "mass_id"):
        if name in wanted:
            given = wanted[name].reset_index(drop=True)
            given = given.astype(int) if name == "label" else given.astype(object).fillna("").astype(str)
            rows = frame.assign(expected=given)[frame[name] != given]
            _refuse(path, f"{name} disagrees with the case table and split file", rows, name, "expected")


def _refuse(path: Path, problem: str, rows: pd.DataFrame, *columns: str) -> None:
    if len(rows):
        quoted = "; ".join(
            ", ".join([f"id {row['id']}", *(f"{name} {row[name]!s}" for name in columns)])
            for _, row in rows.head(SHOWN).iterrows()
        )
        raise ValueError(f"{path}: {problem} in {len(rows)} rows ({quoted}); predict the cell again")


def _listed(values: Iterable[object]) -> str:
    names = [str(value) for value in values]
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def align(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Two predictions of the same cases side by side: columns id, patient_id, fold (the first's), label, first, second.

    ValueError when they are not of the same cases with the same labels: a paired comparison needs both.
    """
    merged = first[["id", "patient_id", "fold", "label", "probability"]].merge(
        second[["id", "label", "probability"]], on="id", how="outer", suffixes=("", "_second"), indicator=True
    )
    alone = merged["_merge"] != "both"
    if alone.any():
        raise ValueError(
            f"{int(alone.sum())} cases are in one of the two predictions only ({_listed(merged['id'][alone])})"
        )
    unlike = merged["label"] != merged["label_second"]
    if unlike.any():
        raise ValueError(f"labels of the two predictions disagree for {_listed(merged['id'][unlike])}")
    names = {"probability": "first", "probability_second": "second"}
    return merged.rename(columns=names)[["id", "patient_id", "fold", "label", "first", "second"]].astype({"label": int})
