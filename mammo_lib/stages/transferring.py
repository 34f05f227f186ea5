"""What was learnt on one archive, applied to every case of another: no training there, and no label reaches it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mammo_lib import paths
from mammo_lib.config import SAME_PATIENTS
from mammo_lib.evaluation.predictions import COLUMNS as PREDICTION_COLUMNS
from mammo_lib.stages.archive import load, with_ids
from mammo_lib.stages.experiment import Experiment, default_device
from mammo_lib.stages.trainings import PREDICTIONS, cells, load_network
from mammo_lib.training.folder import RECORD

if TYPE_CHECKING:
    from mammo_lib.training.experiments import Cell

TRANSFER = "transfer"  # folder of results/<profile>, and name of the tables
CELLS = "cells"


def transfer_folder(experiment: Experiment, source: Experiment, name: str) -> Path:
    """Where what `source` learnt leaves its predictions of `experiment`'s cases; `name` is that of the classifier."""
    return experiment.places.results(TRANSFER) / source.profile.name / name


def refuse_same_patients(experiment: Experiment, source: Experiment) -> None:
    """ValueError where those that `source` was trained on are among those that it would be applied to."""
    here, there = experiment.profile, source.profile
    if here.archive == there.archive or {here.source, there.source} <= set(SAME_PATIENTS):
        raise ValueError(
            f"profiles {here.name} and {there.name} are of the same patients, and some of them were trained on: name "
            "two profiles of different archives"
        )


def transfer_cells(experiment: Experiment, source: Experiment) -> pd.DataFrame:
    """The networks of `source` (fold 0, its training seed), applied to every case of `experiment`, unseen.

    One row a cell: stage, network, initial, fitted_on, protocol, applied_to, cases, malignant, patients, auc with its
    interval over patients (auc_low, auc_high), note; a cell that is not trained has a note alone. Written to
    transfer_seed<seed>.csv in results/<profile>/transfer/<profile of source>/cells/, beside the predictions.
    FileNotFoundError when no cell is trained; ValueError when a set has other sizes in the two profiles, or when both
    are of the same patients.
    """
    from mammo_lib.evaluation.tables import named

    refuse_same_patients(experiment, source)
    first = [cell for cell in cells(source) if cell.fold == 0]
    trained = [cell for cell in first if (source.runs / cell.name / RECORD).exists()]
    if not trained:
        raise FileNotFoundError(
            f"{source.runs}: none of {len(first)} cells is trained: train profile {source.profile.name} first"
        )
    for stage in {cell.stage for cell in trained}:
        _assure_same_size(experiment, source, stage)
    folder, rows = transfer_folder(experiment, source, CELLS), []
    for cell in first:
        found: dict[str, Any] = {"note": "not run"}
        if cell in trained:
            cases = _all_cases(experiment, cell.stage)
            cases = cases.assign(probability=_probabilities(experiment, source, cell, cases["row"].to_numpy()))
            found = _write_and_measure(experiment, source, cell.stage, cases, folder / cell.name / PREDICTIONS)
        rows.append({"stage": cell.stage} | named(cell.network, cell.initial) | found)
    table = pd.DataFrame(rows)
    paths.write_table(table, folder / f"{TRANSFER}_seed{source.seed}.csv")
    return table


def measure_transfer(
    experiment: Experiment, source: Experiment, score: Callable[[str, pd.DataFrame], np.ndarray], name: str
) -> pd.DataFrame:
    """What a classifier of both stages says of every case of `experiment`: one row a stage, as in `transfer_cells`.

    `score`(stage, cases) gives the cases' probabilities, float (n,) in 0..1. Written to transfer.csv in
    results/<profile>/transfer/<profile of source>/<name>, beside the predictions.
    """
    folder, rows = transfer_folder(experiment, source, name), []
    for stage in ("P", "G"):
        cases = _all_cases(experiment, stage)
        cases = cases.assign(probability=score(stage, cases))
        rows.append(_write_and_measure(experiment, source, stage, cases, folder / f"{stage}.csv"))
    table = pd.DataFrame(rows)
    paths.write_table(table, folder / f"{TRANSFER}.csv")
    return table


def _all_cases(experiment: Experiment, stage: str) -> pd.DataFrame:
    """Every case of a stage, with its `row`; all of them are test cases here."""
    return with_ids(load(experiment, stage)[1], stage).assign(part="test")


def _probabilities(experiment: Experiment, source: Experiment, cell: "Cell", rows: np.ndarray) -> np.ndarray:
    from mammo_lib.training import loop

    network, batch = load_network(source, cell), source.profile.training(cell.stage).batch_size
    return loop.predict(network, load(experiment, cell.stage)[0], rows, batch, default_device())


def _assure_same_size(experiment: Experiment, source: Experiment, stage: str) -> None:
    profile, met = source.profile, load(experiment, stage)[0].shape[1]
    learnt = profile.size(stage)
    if met != learnt:
        raise ValueError(
            f"set {stage} has {met} pixels a side in profile {experiment.profile.name} and {learnt} in {profile.name}: "
            "apply the networks to a profile of the same size"
        )


def _write_and_measure(
    experiment: Experiment, source: Experiment, stage: str, cases: pd.DataFrame, file: Path
) -> dict[str, Any]:
    """Write the predictions to `file`; what the table of a transfer says of them."""
    from mammo_lib.evaluation import statistics

    paths.write_table(cases.reindex(columns=PREDICTION_COLUMNS), file)
    about = {
        "stage": stage,
        "fitted_on": source.profile.data,
        "protocol": source.protocol,
        "applied_to": experiment.profile.data,
        "cases": len(cases),
        "malignant": int(cases["label"].sum()),
        "patients": cases["patient_id"].nunique(),
    }
    rule = experiment.profile.evaluation
    settings = (rule.resamples, rule.confidence, experiment.seed)
    auc = statistics.auc_interval(cases["label"], cases["probability"], cases["patient_id"], *settings)
    return about | {"auc": auc.estimate, "auc_low": auc.low, "auc_high": auc.high}
