"""Beyond the paper: a network that maps masses, taught on windows of set G, read as a classifier of patches and images.

It is what the probe is not, a network trained on mammograms, and small enough for two CPU cores. A patch is as
malignant as the most malignant cell of its window. So is an image, by one reading; another is what the probe says of
the whole of it. Logistic regressions on the validation part make a probability of them.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mammo_lib import paths
from mammo_lib.config import DATA_SEED, MASS_MAP, PARTS
from mammo_lib.evaluation.predictions import COLUMNS as PREDICTION_COLUMNS
from mammo_lib.stages.archive import parts
from mammo_lib.stages.experiment import Experiment, default_device, extra_file, extra_folder
from mammo_lib.stages.explanation import write_localisation
from mammo_lib.stages.grid import CELL, Grid
from mammo_lib.stages.probing import FOLDS, whole_log_odds
from mammo_lib.stages.trainings import hashes_of_inputs
from mammo_lib.stages.transferring import measure_transfer, refuse_same_patients
from mammo_lib.training.folder import HISTORY, LAST, RECORD

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from mammo_lib.models.mass_map import MassMap
    from mammo_lib.training.mass_map import Masses

SHOWN = "Mass map"  # among the methods that find lesions
MOST = 5  # cells, in the second reading
READINGS = {  # of an image, by columns of its log odds
    "most malignant cell": [0],
    f"mean of the {MOST} most malignant cells": [1],
    "cells like a mass": [2],
    "whole image, by the probe": [3],
    "most malignant cell and whole image": [0, 3],
}
USED = {"P": [0], "G": READINGS["most malignant cell and whole image"]}  # ours: of the readings the best on validation
STRENGTH = 1.0  # scikit-learn's C of the regressions (its default): two columns need no holding back


def map_masses(experiment: Experiment) -> pd.DataFrame:
    """Train the map in every fold and read the validation and test cases with it; returns, and writes, readings.csv.

    That is how well each reading of an image orders the validation part; no test case is in it. Predictions go to
    results/<profile>/<protocol>/mass_map/seed<n>, where `evaluate` finds them, with the record and the history of each
    training and with localisation.csv: how well the map finds the lesions of the test images.
    """
    grid, readings, found = Grid.of(experiment), [], []
    folder = extra_folder(experiment, MASS_MAP)
    for fold in sorted(parts(experiment, "G")["fold"].unique().tolist()):
        _check_validation(experiment, fold)
        reader = _Reader.of(experiment, fold)
        _predict(experiment, reader, grid, "P")
        cases, odds = _predict(experiment, reader, grid, "G")
        known = (cases["part"] == "validation").to_numpy()
        readings += [{"fold": fold} | row for row in _compare_readings(cases[known], odds[known])]
        found.append(reader.found(grid, cases))
        for name in (RECORD, HISTORY):
            with paths.atomic_write(folder / f"fold{fold}" / name) as part:
                shutil.copyfile(_runs(experiment, fold) / name, part)
    paths.write_table(pd.DataFrame(readings), folder / "readings.csv")
    write_localisation(experiment, pd.concat(found, ignore_index=True), SHOWN, folder)
    return pd.DataFrame(readings)


def _predict(experiment: Experiment, reader: "_Reader", grid: Grid, stage: str) -> tuple[pd.DataFrame, np.ndarray]:
    """The validation and test cases of the reader's fold with their probability, which is written, and their odds."""
    wanted = parts(experiment, stage).query("fold == @reader.fold and part != 'train'")
    cases = wanted.reset_index(drop=True)
    odds, known = reader.log_odds(stage, experiment, grid, cases), (cases["part"] == "validation").to_numpy()
    cases["probability"] = reader.probability(stage, odds, odds[known], cases[known])
    paths.write_table(cases.reindex(columns=PREDICTION_COLUMNS), extra_file(experiment, MASS_MAP, stage, reader.fold))
    return cases, odds


def transfer_map(experiment: Experiment, source: Experiment) -> pd.DataFrame:
    """The map of `source` (its fold 0), with its regressions, applied to every case of `experiment`, unseen.

    Returns and writes what `transferring.measure_transfer` does, under the name mass_map/seed<seed>. ValueError when
    both are of the same patients.
    """
    refuse_same_patients(experiment, source)
    reader, near, far = _Reader.of(source, 0), Grid.of(source), Grid.of(experiment)

    def score(stage: str, cases: pd.DataFrame) -> np.ndarray:
        known = parts(source, stage).query("fold == 0 and part == 'validation'").reset_index(drop=True)
        fitted_on = reader.log_odds(stage, source, near, known)
        return reader.probability(stage, reader.log_odds(stage, experiment, far, cases), fitted_on, known)

    return measure_transfer(experiment, source, score, f"{MASS_MAP}/seed{source.seed}")


@dataclass(frozen=True)
class _Reader:
    """The network of one fold, and how it reads patches and images."""

    source: Experiment  # where it was taught
    fold: int
    network: "MassMap"

    @classmethod
    def of(cls, source: Experiment, fold: int) -> "_Reader":
        return cls(source, fold, train_map(source, fold))

    def log_odds(self, stage: str, experiment: Experiment, grid: Grid, cases: pd.DataFrame) -> np.ndarray:
        """Log odds of malignant. Of patches (n, 1): by the most malignant cell. Of images (n, 4): see READINGS."""
        rows = grid.rows_of(cases)
        maps = dict(zip(*self._maps(grid, rows), strict=True))
        if stage == "P":
            return _patch_odds(maps, grid, rows, grid.windows(cases))
        known = parts(self.source, "G").query("fold == @self.fold and part == 'train'")
        whole = whole_log_odds(self.source, known, experiment, cases)
        return np.column_stack([_image_odds(maps, grid, rows, self.source.profile.probe.focus), whole])

    def probability(self, stage: str, odds: np.ndarray, known: np.ndarray, cases: pd.DataFrame) -> np.ndarray:
        """Of `odds` (n, columns), by a regression on those of the validation part, `known`, and its `cases`."""
        fitted = _regression().fit(known[:, USED[stage]], cases["label"])
        probability: np.ndarray = fitted.predict_proba(odds[:, USED[stage]])[:, 1]
        return probability

    def found(self, grid: Grid, cases: pd.DataFrame) -> pd.DataFrame:
        """How well P(mass) finds the lesions of test images: `localisation.per_image`, beside the controls.

        `cases`: those given to `log_odds`, whose maps are stored and read again.
        """
        from scipy.special import softmax

        from mammo_lib.evaluation import localisation

        rows, maps = self._maps(grid, cases["row"])
        test = cases[cases["part"] == "test"].sort_values("row", ignore_index=True)
        tested = np.isin(rows, test["row"])
        rows, maps = rows[tested], maps[tested]
        mass = np.where(grid.inside[rows], 1 - softmax(maps, axis=-1)[..., 0], 0)
        heat = mass.repeat(CELL, axis=1).repeat(CELL, axis=2)
        threshold = self.source.profile.evaluation.threshold
        return localisation.per_image(test, grid.images[rows], test["probability"].to_numpy(), {SHOWN: heat}, threshold)

    def _maps(self, grid: Grid, rows: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """Rows of G, each once and in order, and their maps, logits (n, h, w, 3); kept in the training's folder."""
        from mammo_lib.models import mass_map
        from mammo_lib.progress import bar

        chosen, folder = np.unique(np.asarray(list(rows))), _runs(self.source, self.fold)
        read = f"{paths.file_hash(folder / LAST)} {hashlib.sha256(grid.images[chosen].tobytes()).hexdigest()}"
        path = folder / f"maps-{hashlib.sha256(read.encode()).hexdigest()[:12]}.npy"
        if not path.exists():
            precision = self.source.profile.mass_map.precision
            looked = bar(grid.images[chosen], "the map reads set G")
            maps = np.stack([mass_map.read(self.network, image, precision) for image in looked])
            with paths.atomic_write(path) as part, open(part, "wb") as opened:
                np.save(opened, maps)
        return chosen, np.load(path)


def _patch_odds(maps: dict[int, np.ndarray], grid: Grid, rows: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Log odds (n, 1) of the most malignant cell of each window; without breast in it, of the least in its image."""
    from mammo_lib.models.mass_map import malignancy
    from mammo_lib.training.probe import box_cells

    odds = {row: malignancy(logits) for row, logits in maps.items()}
    least = {row: odds[row][grid.inside[row]].min() for row in maps}
    seen = [
        box_cells(grid.inside[row].shape, window) & grid.inside[row] for row, window in zip(rows, windows, strict=True)
    ]
    return np.array([[odds[row][cells].max(initial=least[row])] for row, cells in zip(rows, seen, strict=True)])


def _image_odds(maps: dict[int, np.ndarray], grid: Grid, rows: np.ndarray, focus: float) -> np.ndarray:
    """The first three readings of each image, (n, 3)."""
    from mammo_lib.models.mass_map import malignancy
    from mammo_lib.training.probe import focused

    read = {}
    for row, logits in maps.items():
        cells = logits[grid.inside[row]]
        ordered = np.sort(malignancy(cells))[::-1]
        read[row] = ordered[0], ordered[:MOST].mean(), focused(cells, focus)
    return np.array([read[row] for row in rows])


def _check_validation(experiment: Experiment, fold: int) -> None:
    known = parts(experiment, "G").query("fold == @fold and part == 'validation'")
    benign, malignant = (known.loc[known["label"] == label, "patient_id"].nunique() for label in (0, 1))
    if min(benign, malignant) < FOLDS:
        raise ValueError(
            f"the validation part of fold {fold} has {malignant} malignant and {benign} benign patients: to read "
            f"maps, {FOLDS} of each are needed"
        )


def _regression() -> "Pipeline":
    from mammo_lib.training import probe as room

    return room.classifier(STRENGTH)


def _compare_readings(cases: pd.DataFrame, odds: np.ndarray) -> list[dict[str, object]]:
    """AUC of each reading of validation images: mean of a cross-validation over patients: two columns are fitted."""
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_score

    cut, rows = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=DATA_SEED), []
    how = {"groups": cases["patient_id"], "cv": cut, "scoring": "roc_auc"}
    for name, columns in READINGS.items():
        auc = cross_val_score(_regression(), odds[:, columns], cases["label"], **how).mean()
        rows.append({"reading": name, "images": len(cases), "validation_auc": float(auc)})
    return rows


def _runs(experiment: Experiment, fold: int) -> Path:
    return experiment.runs / MASS_MAP / f"fold{fold}-seed{experiment.seed}"


# ----------------------------------------------------------------------------- training


def train_map(experiment: Experiment, fold: int) -> "MassMap":
    """The network of a fold, taught with its training part; goes on where it was stopped, and is not trained twice.

    runs/<profile>/<protocol>/mass_map/fold<n>-seed<n> gets last.pt, history.csv and run.json.
    weights.WeightsNotAvailable when there are no ImageNet weights of VGG16. ValueError under as_written, which splits P
    and G apart: windows of masses would be learnt from whose patches are tested.
    """
    from mammo_lib.models import mass_map as room
    from mammo_lib.models import weights
    from mammo_lib.training import mass_map, records

    if experiment.protocol == "as_written":
        raise ValueError("the mass map needs one partition of the patients for P and G: choose official or grouped_cv")
    begun, device, rules = records.Begun(), default_device(), experiment.profile.mass_map
    grid, folder = Grid.of(experiment), _runs(experiment, fold)
    found = weights.imagenet("vgg16", experiment.places.weights)
    network = room.build(found.state, rules.kept_layers, rules.dropout, experiment.seed)
    table = parts(experiment, "G").query("fold == @fold")
    known = {part: _masses(grid, table[table["part"] == part]) for part in PARTS if part != "test"}
    labels = hashlib.sha256(json.dumps(grid.labels).encode()).hexdigest()  # of each mass; globals.csv has an image's
    inputs = hashes_of_inputs(experiment, "G") | {"labels": labels, "initial_weights": found.sha256}
    settings = paths.plain({"mass_map": rules, "fold": fold, "seed": experiment.seed, "inputs": inputs})
    history = mass_map.train(network, grid.images, known, rules, experiment.seed, folder, settings, device)
    if not paths.is_done(folder / RECORD, settings):
        facts: dict[str, object] = {
            "training_seconds": round(float(history["seconds"].sum()), 2),
            "initial_weights": found.source,
        }
        record = {"settings": settings} | records.circumstances(device, begun) | facts
        paths.write_json(folder / RECORD, record)
    return network


def _masses(grid: Grid, images: pd.DataFrame) -> "list[Masses]":
    from mammo_lib.training.mass_map import Masses

    return [
        Masses(row, [[value * CELL for value in box] for box in grid.boxes[row]], grid.labels[row])
        for row in images["row"]
    ]
