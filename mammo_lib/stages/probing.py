"""Beyond the paper: logistic regressions on what a frozen ImageNet VGG16 sees, for both stages, minutes on a CPU.

The descriptions are made once from set G and serve every protocol; what is fitted, is fitted on the training part.
"""

import hashlib
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mammo_lib import paths
from mammo_lib.config import DATA_SEED, PROBE, Probe
from mammo_lib.evaluation.predictions import COLUMNS as PREDICTION_COLUMNS
from mammo_lib.stages.archive import load, parts, prepared
from mammo_lib.stages.experiment import Experiment, extra_file, extra_folder
from mammo_lib.stages.grid import Grid
from mammo_lib.stages.trainings import hashes_of_inputs
from mammo_lib.stages.transferring import measure_transfer, refuse_same_patients
from mammo_lib.training.folder import RECORD

if TYPE_CHECKING:
    from torch import nn

    from mammo_lib.training.probe import ImageProbe

IMAGES_AT_ONCE = 16  # described in one piece of work, which is also what a run that was stopped loses
TRUNK = "trunk.json"  # beside descriptions: the weights they were made with
FOLDS = 5  # of the choice among readings (ours)
READINGS = {"whole image": [0], "cells like a mass": [1], "both": [0, 1]}  # columns of an image's log odds


def probe(experiment: Experiment, executor: Executor | None = None) -> list[Path]:
    """Fit the probe on the training part of every fold, apply it to the rest; returns the files with its predictions.

    They are in results/<profile>/<protocol>/probe, where `evaluate` finds them, beside run.json: with what it was made.
    weights.WeightsNotAvailable when there are no ImageNet weights of VGG16.
    """
    from mammo_lib.training import records

    begun = records.Begun()
    folder = describe(experiment, executor)
    described = _Described.of(experiment, folder)
    whole, patches = parts(experiment, "G"), parts(experiment, "P")
    samples = _samples(described, whole.loc[whole["part"] == "train", "row"].unique())
    first = patches[patches["fold"] == patches["fold"].min()].sort_values("row")  # every patch once
    read, written = _read_patches(described, first), []
    for fold in sorted(whole["fold"].unique()):
        images, rows = whole[whole["fold"] == fold], patches[patches["fold"] == fold]
        scores = {
            "P": rows.assign(probability=_probe_patches(read[rows["row"]], rows, described.settings)),
            "G": images.assign(probability=_probe_images(described, samples, images)),
        }
        for stage, table in scores.items():
            written.append(extra_file(experiment, PROBE, stage, fold))
            paths.write_table(table[table["part"] != "train"].reindex(columns=PREDICTION_COLUMNS), written[-1])
    inputs = {stage: hashes_of_inputs(experiment, stage) for stage in ("P", "G")}
    settings = {"probe": experiment.profile.probe, "inputs": inputs, "trunk": paths.read_json(folder / TRUNK)}
    record = {"settings": paths.plain(settings)} | records.circumstances("cpu", begun)
    paths.write_json(extra_folder(experiment, PROBE) / RECORD, record)
    return written


def choose_reading(experiment: Experiment, executor: Executor | None = None) -> pd.DataFrame:
    """AUC of each reading of an image by cross-validation within the training and validation patients; no test case.

    Over the pairs of one fold: log odds of two fits are not on one scale. Also written to
    results/<profile>/<protocol>/probe/readings.csv. config.Probe.reading says which one is used.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    from mammo_lib.evaluation import metrics

    described = _Described.of(experiment, describe(experiment, executor))
    images = parts(experiment, "G").query("part != 'test' and fold == 0").reset_index(drop=True)
    samples = _samples(described, images["row"])
    odds, fold = np.zeros((len(images), 2)), np.zeros(len(images), int)
    cut = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=DATA_SEED)
    for number, (train, rest) in enumerate(cut.split(images, images["label"], images["patient_id"])):
        fitted, fold[rest] = _fit_images(described, samples, images.iloc[train]), number
        odds[rest] = [fitted.log_odds(*described[row]) for row in images["row"].iloc[rest]]
    rows = [
        {"reading": name, "images": len(images), "auc": metrics.auc(images["label"], odds[:, used].mean(axis=1), fold)}
        for name, used in READINGS.items()
    ]
    table = pd.DataFrame(rows)
    paths.write_table(table, extra_folder(experiment, PROBE) / "readings.csv")
    return table


def transfer_probe(experiment: Experiment, source: Experiment, executor: Executor | None = None) -> pd.DataFrame:
    """The probe fitted on the training part of `source` (its fold 0), applied to every case of `experiment`, unseen.

    One row a stage: cases, malignant ones, patients, AUC with its interval over patients; also written, with the
    predictions, to results/<profile>/transfer/<profile of source>/probe/ of `experiment`. ValueError when both are of
    the same patients.
    """
    refuse_same_patients(experiment, source)
    learnt, met = (_Described.of(each, describe(each, executor)) for each in (source, experiment))

    def score(stage: str, cases: pd.DataFrame) -> np.ndarray:
        known = parts(source, stage).query("fold == 0 and part == 'train'")
        return {"P": _transfer_patches, "G": _transfer_images}[stage](learnt, known, met, cases)

    return measure_transfer(experiment, source, score, PROBE)


def whole_log_odds(source: Experiment, known: pd.DataFrame, experiment: Experiment, cases: pd.DataFrame) -> np.ndarray:
    """The probe's first reading, of the whole image, alone: log odds (n,) of `cases` of set G.

    known: the cases of set G of `source` that it is fitted on; cases: those of `experiment`, with their row.
    """
    from mammo_lib.training import probe as room

    learnt, met = (_Described.of(each, describe(each)) for each in (source, experiment))
    fitted = room.classifier(learnt.settings.image_strength)
    fitted.fit(np.stack([room.summary(*learnt[row]) for row in known["row"]]), known["label"])
    odds: np.ndarray = fitted.decision_function(np.stack([room.summary(*met[row]) for row in cases["row"]]))
    return odds


def _transfer_images(learnt: "_Described", known: pd.DataFrame, met: "_Described", cases: pd.DataFrame) -> np.ndarray:
    from mammo_lib.training import probe as room

    fitted = _fit_images(learnt, _samples(learnt, known["row"]), known)
    odds = np.array([fitted.log_odds(*met[row]) for row in cases["row"]])
    return room.probability(odds[:, READINGS[learnt.settings.reading]])


def _transfer_patches(learnt: "_Described", known: pd.DataFrame, met: "_Described", cases: pd.DataFrame) -> np.ndarray:
    read = np.concatenate([_read_patches(learnt, known), _read_patches(met, cases)])
    both = pd.concat([known, cases], ignore_index=True)
    return _probe_patches(read, both, learnt.settings)[len(known) :]


# ----------------------------------------------------------------------------- descriptions


def describe(experiment: Experiment, executor: Executor | None = None) -> Path:
    """Describe set G, a few images a file, in a folder of its own for each set of images, weights and precision.

    What is there is not made again, also after a run that was stopped.
    """
    from mammo_lib.models import weights
    from mammo_lib.progress import bar

    count, places = len(load(experiment, "G")[0]), experiment.places
    found = weights.imagenet("vgg16", places.weights)
    hashes = prepared(experiment)["hashes"]
    settings = f"{hashes['globals.npy']} {found.sha256} {experiment.profile.probe.precision}"
    folder = places.prepared / "described" / hashlib.sha256(settings.encode()).hexdigest()[:12]
    starts = [start for start in range(0, count, IMAGES_AT_ONCE) if not _file(folder, start).exists()]
    parts_done = (executor.map if executor else map)(
        partial(_describe, experiment, found.file, found.sha256, folder), starts
    )
    for _ in bar(parts_done, "VGG16 looks at set G", total=len(starts)):
        pass
    paths.write_json(folder / TRUNK, {"initial_weights": found.source, "sha256": found.sha256})
    return folder


def _describe(experiment: Experiment, file: Path, sha256: str, folder: Path, start: int) -> None:
    from mammo_lib.models import frozen

    layers = _trunk(file, sha256)
    images = load(experiment, "G")[0][start : start + IMAGES_AT_ONCE]
    described = np.stack([frozen.describe(layers, image, experiment.profile.probe.precision) for image in images])
    with paths.atomic_write(_file(folder, start)) as part, open(part, "wb") as opened:
        np.save(opened, described)


@lru_cache(maxsize=1)
def _trunk(file: Path, sha256: str) -> "nn.Sequential":
    """Read once a process, not once for a few images; `sha256` tells one content of the file from another."""
    from mammo_lib.models import frozen, weights

    return frozen.trunk(weights.imagenet("vgg16", file.parent).state)


def _file(folder: Path, start: int) -> Path:
    return folder / f"{start:06d}.npy"


@dataclass(frozen=True)
class _Described:
    """Set G described, cell by cell."""

    grid: Grid
    files: list[np.ndarray]
    settings: Probe

    @classmethod
    def of(cls, experiment: Experiment, folder: Path) -> "_Described":
        files = [np.load(file, mmap_mode="r") for file in sorted(folder.glob("*.npy"))]
        return cls(Grid.of(experiment), files, experiment.profile.probe)

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        return self.files[row // IMAGES_AT_ONCE][row % IMAGES_AT_ONCE], self.grid.inside[row]


# ----------------------------------------------------------------------------- stage G


def _samples(described: _Described, rows: Iterable[int]) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """What is learnt from images of G, by their row: summary (2 C,), cells float16 (n, 2 C), their kinds (n,)."""
    from mammo_lib.training import probe as room

    found = {}
    for row in rows:
        description, inside = described[row]
        labels = room.cell_labels(
            inside, described.grid.boxes[row], described.grid.labels[row], described.settings.core
        )
        at = tuple(room.sample(labels, described.settings, np.random.default_rng((DATA_SEED, row))).T)
        cells = room.neighbourhood(description, inside)[at].astype(np.float16)
        found[row] = room.summary(description, inside), cells, labels[at]
    return found


def _fit_images(
    described: _Described, samples: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]], train: pd.DataFrame
) -> "ImageProbe":
    from mammo_lib.training import probe as room

    settings = described.settings
    pooled, cells, kinds = zip(*(samples[row] for row in train["row"]), strict=True)
    every, kind = np.concatenate(cells).astype(np.float32), np.concatenate(kinds)
    return room.ImageProbe(
        room.classifier(settings.image_strength).fit(np.stack(pooled), train["label"]),
        room.classifier(settings.cell_strength, balanced=True).fit(every, kind),
        settings,
    )


def _probe_images(
    described: _Described, samples: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]], images: pd.DataFrame
) -> np.ndarray:
    """Probability of every image (n,); of those it was fitted on, 0."""
    from mammo_lib.training import probe as room

    rest = (images["part"] != "train").to_numpy()
    fitted = _fit_images(described, samples, images[~rest])
    odds = np.array([fitted.log_odds(*described[row]) for row in images.loc[rest, "row"]])
    probability = np.zeros(len(images))
    probability[rest] = room.probability(odds[:, READINGS[described.settings.reading]])
    return probability


# ----------------------------------------------------------------------------- stage P


def _read_patches(described: _Described, patches: pd.DataFrame) -> np.ndarray:
    """Summary of the cells that each patch's window touches, float32 (n, 2 C)."""
    from mammo_lib.training import probe as room

    summaries = []
    for row, window in zip(described.grid.rows_of(patches), described.grid.windows(patches), strict=True):
        description, inside = described[row]
        summaries.append(room.summary(description, room.box_cells(inside.shape, window)))
    return np.stack(summaries)


def _probe_patches(read: np.ndarray, patches: pd.DataFrame, settings: Probe) -> np.ndarray:
    """Probability of every patch (n,), for its summary in `read` (n, 2 C)."""
    from mammo_lib.training import probe as room

    train = (patches["part"] == "train").to_numpy()
    fitted = room.classifier(settings.patch_strength).fit(read[train], patches.loc[train, "label"])
    probability: np.ndarray = fitted.predict_proba(read)[:, 1]
    return probability
