"""The protocols: which patch and which image trains, validates and tests; and how much each of them leaks.

Knows tables of ids, patients and labels; no pixel, no archive, no network. A split is a table with one row for each
case of each fold: `stage` (P or G), `fold` (from 0), `id` (patch_id or image_id), `part` (train, validation, test).
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from mammo_lib.config import CLASSES, ID_COLUMN, PARTS, PROTOCOLS, Split
from mammo_lib.paths import write_table

COLUMNS = ("stage", "fold", "id", "part")
LEAKAGE_COLUMNS = ("stage", "relation", "seen_in", "test_cases", "with_relative", "share")

# What makes a case of a stage's training set a relative of a test case. An image is in G once, so that "same mass"
# and "same image" do not occur within G; a G image has no one mass, so that P reaches it by image and wider.
_RELATIONS = {
    ("P", "P"): ("same mass", "same image", "same breast", "same patient"),
    ("G", "G"): ("same breast", "same patient"),
    ("P", "G"): ("same image", "same breast", "same patient"),
}
_KEYS = {"same mass": "mass_id", "same image": "image_id", "same breast": "breast", "same patient": "patient_id"}
_NEAR_DUPLICATE = "near duplicate"
# Validation cases choose the learning rate, the epoch and the checkpoint: having been seen there is a leak too.
_SEEN_IN = {"train": ("train",), "train or validation": ("train", "validation")}


def make(protocol: str, patches: pd.DataFrame, globals_: pd.DataFrame, settings: Split, seed: int) -> pd.DataFrame:
    """Draw a protocol's split of the tables patches.csv and globals.csv.

    The result depends on the rows' content, `settings` and `seed` (an int >= 0), not on the order of rows. Within the
    patient-level protocols both stages share one partition of patients, stratified by "has any malignant case".
    ValueError when the protocol is unknown, a table is malformed, or the cases cannot fill every part with both
    classes.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")
    tables = {"P": _sorted(patches, "P"), "G": _sorted(globals_, "G")}
    if protocol == "as_written":
        split = _as_written(tables, settings, seed)
    else:
        partition = _official if protocol == "official" else _grouped_cv
        split = _place(tables, partition(_images(tables), settings, seed))
    _check_classes(split, tables, protocol)
    return split


def _as_written(tables: dict[str, pd.DataFrame], settings: Split, seed: int) -> pd.DataFrame:
    """Section 2.5: random, each stage drawn by itself and blind to patients; class ratio kept (in G ours)."""
    shares = {"P": settings.patch_shares, "G": settings.global_shares}
    folds = []
    for number, (stage, table) in enumerate(tables.items()):
        train_share, validation_share, test_share = shares[stage]
        if not np.isclose(sum(shares[stage]), 1) or min(shares[stage]) <= 0:
            raise ValueError(f"shares of stage {stage} are {shares[stage]}: give three positive numbers that sum to 1")
        labels = table.set_index("id")["label"]
        where = f"as_written, stage {stage}"
        test = _draw(labels, test_share, np.random.default_rng([seed, number, 0]), where)
        rest = labels.drop(test)
        share = validation_share / (train_share + validation_share)
        validation = _draw(rest, share, np.random.default_rng([seed, number, 1]), where)
        part = _parts(labels.index, validation, test)
        folds.append(pd.DataFrame({"stage": stage, "fold": 0, "id": labels.index, "part": part}))
    return pd.concat(folds, ignore_index=True)


def _official(images: pd.DataFrame, settings: Split, seed: int) -> list[pd.Series]:
    """The data set's own test patients; validation is cut from its training patients."""
    unknown = images[~images["official_split"].isin(["train", "test"])]
    if len(unknown):
        raise ValueError(
            f"official_split of {unknown['image_id'].iloc[0]} is {unknown['official_split'].iloc[0]!r}, not train or "
            "test: this data set has no official split, use the protocol grouped_cv"
        )
    per_patient = images.groupby("patient_id")["official_split"].nunique()
    if (per_patient > 1).any():
        raise ValueError(f"patient {per_patient.idxmax()} has official_split train and test: one of them is wrong")
    labels = images.groupby("patient_id")["label"].max()
    test = images.loc[images["official_split"] == "test", "patient_id"].unique()
    rng = np.random.default_rng([seed, 0])
    validation = _draw(labels.drop(test), settings.validation_share, rng, "official, training patients")
    return [_parts(labels.index, validation, test)]


def _grouped_cv(images: pd.DataFrame, settings: Split, seed: int) -> list[pd.Series]:
    """Each fold is once the test set; validation is cut from the other folds' patients."""
    labels = images.groupby("patient_id")["label"].max()
    if settings.folds < 2:
        raise ValueError(f"settings.folds is {settings.folds}: grouped_cv needs at least 2")
    for label, name in enumerate(CLASSES):
        count = int((labels == label).sum())
        if count < settings.folds:
            raise ValueError(
                f"grouped_cv: {count} {name} patients cannot fill {settings.folds} folds: add cases, "
                "or choose another protocol"
            )
    # The patient's label for each of its images: folds are then even in images and in both kinds of patient.
    patient_label = images["patient_id"].map(labels)
    folds = StratifiedGroupKFold(settings.folds, shuffle=True, random_state=_integer_seed(seed))
    partitions = []
    for fold, (_, chosen) in enumerate(folds.split(images, patient_label, images["patient_id"])):
        test = images["patient_id"].iloc[chosen].unique()
        rng = np.random.default_rng([seed, fold])
        validation = _draw(labels.drop(test), settings.validation_share, rng, f"grouped_cv, fold {fold}")
        partitions.append(_parts(labels.index, validation, test))
    return partitions


def _integer_seed(seed: int) -> int:
    """scikit-learn takes seeds below 2^32 only."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def _draw(labels: pd.Series, share: float, rng: np.random.Generator, where: str) -> list[str]:
    """Ids of a random `share` of each class, rounded, at least one drawn and one left of each.

    scikit-learn's train_test_split keeps the ratio too, but may leave a small part without one class.
    """
    drawn: list[str] = []
    for label, name in enumerate(CLASSES):
        ids = labels.index[labels == label].to_numpy()
        if len(ids) < 2:
            raise ValueError(f"{where}: {len(ids)} {name} left to divide, at least 2 are needed: add cases")
        count = min(max(1, round(len(ids) * share)), len(ids) - 1)
        drawn.extend(rng.permutation(ids)[:count])
    return drawn


def _parts(ids: pd.Index, validation: Iterable[str], test: Iterable[str]) -> pd.Series:
    part = pd.Series("train", index=ids)
    part.loc[list(validation)] = "validation"
    part.loc[list(test)] = "test"
    return part


def _place(tables: dict[str, pd.DataFrame], partitions: list[pd.Series]) -> pd.DataFrame:
    """Give every case of both stages its patient's part, fold by fold."""
    rows = [
        pd.DataFrame({"stage": stage, "fold": fold, "id": table["id"], "part": table["patient_id"].map(part)})
        for stage, table in tables.items()
        for fold, part in enumerate(partitions)
    ]
    return pd.concat(rows, ignore_index=True)


def _sorted(table: pd.DataFrame, stage: str) -> pd.DataFrame:
    """A stage's table with its id as `id`, in the order of ids; ValueError when a column is missing or wrong."""
    id_column = ID_COLUMN[stage]
    for column in (id_column, "image_id", "patient_id", "side", "label", "official_split"):
        if column not in table.columns:
            raise ValueError(f"the table of stage {stage} has no column {column}: prepare the data again")
    if table[id_column].duplicated().any():
        twice = table.loc[table[id_column].duplicated(), id_column].iloc[0]
        raise ValueError(f"the table of stage {stage} holds {id_column} {twice} twice: prepare the data again")
    if not table["label"].isin([0, 1]).all():
        raise ValueError(f"the table of stage {stage} has a label other than 0 and 1: prepare the data again")
    named = table.assign(id=table[id_column].astype(str))
    return named.sort_values("id", kind="stable").reset_index(drop=True)


def _images(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per image of either stage, label = any malignant case, in the order of ids."""
    both = pd.concat([tables["P"], tables["G"]], ignore_index=True)
    both["official_split"] = both["official_split"].astype(object).fillna("")  # blank, as a CSV gives it
    grouped = both.groupby("image_id")
    if (grouped[["patient_id", "official_split"]].nunique() > 1).any(axis=None):
        raise ValueError("an image has two patients or two official_splits in the tables of P and G: prepare again")
    return grouped.agg({"patient_id": "first", "official_split": "first", "label": "max"}).reset_index()


def _check_classes(split: pd.DataFrame, tables: dict[str, pd.DataFrame], protocol: str) -> None:
    for stage, table in tables.items():
        rows = split[split["stage"] == stage]
        labels = rows["id"].map(table.set_index("id")["label"])
        counts = labels.groupby([rows["fold"], rows["part"]]).nunique().unstack(fill_value=0)
        counts = counts.reindex(columns=list(PARTS), fill_value=0)
        if counts.empty or (counts < len(CLASSES)).any(axis=None):
            raise ValueError(
                f"{protocol}: a part of stage {stage} lacks benign or malignant cases: the table of "
                f"{len(table)} cases is too small or too one-sided, add cases or take another protocol"
            )


def leakage(
    split: pd.DataFrame,
    patches: pd.DataFrame,
    globals_: pd.DataFrame,
    near_duplicates: Iterable[tuple[str, str]],
) -> pd.DataFrame:
    """Count the test cases that have a relative among the cases trained on.

    One row per `stage` ("P", "G", and "P into G": P's training set against G's test set), `relation` and `seen_in`
    (train; train or validation), pooled over folds: each fold's test cases against that fold's own training set.
    `share` = with_relative / test_cases. `near_duplicates` are pairs of image_id, a relation of that name.
    """
    check(split, patches, globals_)
    cases = {"P": _with_parts(split, patches, "P"), "G": _with_parts(split, globals_, "G")}
    twins = pd.DataFrame([*near_duplicates], columns=["image_id", "twin"])
    rows = []
    for (source, target), relations in _RELATIONS.items():
        stage = target if source == target else f"{source} into {target}"
        for relation in (*relations, _NEAR_DUPLICATE):
            for seen_in, parts in _SEEN_IN.items():
                hits = _has_relative(cases[source], cases[target], relation, parts, twins)
                rows.append((stage, relation, seen_in, len(hits), int(hits.sum()), float(hits.mean())))
    return pd.DataFrame(rows, columns=list(LEAKAGE_COLUMNS))


def _with_parts(split: pd.DataFrame, table: pd.DataFrame, stage: str) -> pd.DataFrame:
    rows = split[split["stage"] == stage].merge(_sorted(table, stage), on="id", validate="many_to_one")
    return rows.assign(breast=rows["patient_id"] + " " + rows["side"])


def _has_relative(
    source: pd.DataFrame, target: pd.DataFrame, relation: str, parts: tuple[str, ...], twins: pd.DataFrame
) -> pd.Series:
    """For each test case of `target`, over all folds: whether one of `parts` of `source` holds a relative (bool)."""
    found = []
    for fold, test in target[target["part"] == "test"].groupby("fold"):
        seen = source[(source["fold"] == fold) & source["part"].isin(parts)]
        if relation == _NEAR_DUPLICATE:
            forward = twins.loc[twins["image_id"].isin(seen["image_id"]), "twin"]
            backward = twins.loc[twins["twin"].isin(seen["image_id"]), "image_id"]
            found.append(test["image_id"].isin([*forward, *backward]))
        else:
            found.append(test[_KEYS[relation]].isin(seen[_KEYS[relation]].unique()))
    return pd.concat(found)


def write(split: pd.DataFrame, path: Path) -> None:
    """Write a split as CSV, whole or not at all."""
    write_table(split[list(COLUMNS)], path)


def read(path: Path, patches: pd.DataFrame, globals_: pd.DataFrame) -> pd.DataFrame:
    """Read a split and check it against the tables it divides.

    ValueError when a case is missing, unknown or placed twice in a fold.
    """
    split = pd.read_csv(path, dtype={"id": str, "stage": str, "part": str}, keep_default_na=False)
    check(split, patches, globals_, str(path))
    return split


def check(split: pd.DataFrame, patches: pd.DataFrame, globals_: pd.DataFrame, where: str = "the split") -> None:
    """ValueError, naming `where` and the first id, unless every fold places every case of both stages exactly once."""
    if tuple(split.columns) != COLUMNS:
        raise ValueError(f"{where} has columns {', '.join(split.columns)}, not {', '.join(COLUMNS)}: draw it again")
    for column, known in (("stage", tuple(ID_COLUMN)), ("part", PARTS)):
        wrong = split.loc[~split[column].isin(known), column]
        if len(wrong):
            raise ValueError(f"{where} has {column} {wrong.iloc[0]!r}, not one of {', '.join(known)}: draw it again")
    folds = sorted(split["fold"].unique())
    if not folds:
        raise ValueError(f"{where} has no rows: draw it again")
    for stage, table in (("P", patches), ("G", globals_)):
        wanted = pd.Index(table[ID_COLUMN[stage]].astype(str))
        for fold in folds:
            placed = pd.Index(split.loc[(split["stage"] == stage) & (split["fold"] == fold), "id"])
            trouble = {
                "placed twice": placed[placed.duplicated()],
                "not placed": wanted.difference(placed),
                "unknown to the prepared tables": placed.difference(wanted),
            }
            for what, ids in trouble.items():
                if len(ids):
                    raise ValueError(f"{where}, stage {stage}, fold {fold}: {ids[0]} is {what}: draw it again")
