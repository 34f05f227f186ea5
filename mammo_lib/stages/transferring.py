"""What was learnt on one archive, applied to every case of another: no training there, and no label of it is read."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mammo_lib.config import INITIAL_LABELS, NETWORK_LABELS
from mammo_lib.stages.archive import load, parts
from mammo_lib.stages.experiment import Experiment, default_device, write_table
from mammo_lib.stages.trainings import PREDICTION_COLUMNS, PREDICTIONS, cells, load_network
from mammo_lib.training.folder import RECORD

if TYPE_CHECKING:
    from mammo_lib.training.experiments import Cell

TRANSFER = "transfer"  # folder of results/<profile>, and name of the table
CELLS = "cells"


def transfer_folder(experiment: Experiment, source: Experiment, name: str) -> Path:
    """Where what `source` learnt leaves its predictions of `experiment`'s cases; `name` is that of the classifier."""
    return experiment.places.results(TRANSFER) / source.profile.name / name


def transfer_cells(experiment: Experiment, source: Experiment, pattern: str = "*") -> pd.DataFrame:
    """The trained networks of `source` (fold 0, its seed), applied to every case of `experiment`, unseen.

    One row for each finished cell whose name fits `pattern`: stage, network, initial weights, cases, malignant ones,
    patients, AUC with its interval over patients; also written, with the predictions, to
    results/<profile>/transfer/<profile of source>/cells/. ValueError when the two profiles' sizes differ,
    FileNotFoundError when no cell is trained.
    """
    chosen = [cell for cell in cells(source, pattern) if cell.fold == 0]
    trained = [cell for cell in chosen if (source.runs / cell.name / RECORD).exists()]
    if not trained:
        raise FileNotFoundError(
            f"{source.runs}: none of {len(chosen)} cells is trained: train profile {source.profile.name} first"
        )
    for stage in {cell.stage for cell in trained}:
        _assure_same_size(experiment, source, stage)
    folder, rows = transfer_folder(experiment, source, CELLS), []
    for cell in trained:
        names = {"network": NETWORK_LABELS[cell.network], "initial": INITIAL_LABELS[cell.initial]}
        cases = _all_cases(experiment, cell.stage)
        scored = cases.assign(probability=_probabilities(experiment, source, cell, cases))
        rows.append(_row(experiment, source, cell.stage, scored, folder / cell.name / PREDICTIONS, names))
    table = pd.DataFrame(rows)
    write_table(table, folder / f"{TRANSFER}.csv")
    return table


def measure_transfer(
    experiment: Experiment, source: Experiment, score: Callable[[str, pd.DataFrame], np.ndarray], name: str = ""
) -> pd.DataFrame:
    """The table of `transfer_cells` for a classifier of both stages, given by `score`(stage, cases): probabilities.

    Written to results/<profile>/transfer/<profile of source>/<name>.
    """
    folder, rows = transfer_folder(experiment, source, name), []
    for stage in ("P", "G"):
        cases = _all_cases(experiment, stage)
        rows.append(
            _row(experiment, source, stage, cases.assign(probability=score(stage, cases)), folder / f"{stage}.csv")
        )
    table = pd.DataFrame(rows)
    write_table(table, folder / f"{TRANSFER}.csv")
    return table


def _all_cases(experiment: Experiment, stage: str) -> pd.DataFrame:
    """Every case of a stage once; all of them are test cases here."""
    cases = parts(experiment, stage).drop_duplicates("row").sort_values("row", ignore_index=True)
    return cases.assign(part="test")


def _probabilities(experiment: Experiment, source: Experiment, cell: "Cell", cases: pd.DataFrame) -> np.ndarray:
    from mammo_lib.training import loop

    images, batch = load(experiment, cell.stage)[0], source.profile.training(cell.stage).batch_size
    network = load_network(source, cell)
    return loop.predict(network, images, cases["row"].to_numpy(), batch, default_device(), "fp32")


def _row(
    experiment: Experiment,
    source: Experiment,
    stage: str,
    cases: pd.DataFrame,
    file: Path,
    names: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Write the predictions to `file`; what the table of a transfer says of them."""
    from mammo_lib.evaluation import statistics

    write_table(cases.reindex(columns=PREDICTION_COLUMNS), file)
    rule = experiment.profile.evaluation
    statistic = statistics.weighted_auc(cases["label"], cases["probability"])
    replicates = statistics.bootstrap(statistic, cases["patient_id"], rule.resamples, experiment.seed)
    auc = statistics.percentile(replicates, rule.confidence)
    about = {
        "fitted_on": source.profile.data,
        "protocol": source.protocol,
        "applied_to": experiment.profile.data,
        "cases": len(cases),
        "malignant": int(cases["label"].sum()),
        "patients": cases["patient_id"].nunique(),
    }
    return {"stage": stage} | (names or {}) | about | {"auc": auc.estimate, "auc_low": auc.low, "auc_high": auc.high}


def _assure_same_size(experiment: Experiment, source: Experiment, stage: str) -> None:
    learnt, met = (load(each, stage)[0].shape[1] for each in (source, experiment))
    if learnt != met:
        raise ValueError(
            f"set {stage} has {met} pixels a side in profile {experiment.profile.name} and {learnt} in "
            f"{source.profile.name}: apply the networks to a profile of the same size"
        )
