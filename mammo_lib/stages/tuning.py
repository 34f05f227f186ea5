"""Beside the paper's settings: other settings of stage G tried on validation, and controls that show learning works.

Nothing here looks at a test case but the control with shuffled labels, whose AUC must be that of chance.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from mammo_lib import paths
from mammo_lib.config import DATA_SEED, GLOBAL_CANDIDATES, PROPOSED, Augmentation, Training
from mammo_lib.stages.experiment import Experiment, default_device
from mammo_lib.stages.trainings import build_network, cell_data, fit, hashes_of_inputs, initial_weights, predict
from mammo_lib.training import records
from mammo_lib.training.experiments import Cell

CANDIDATES, CONTROLS = "candidates.csv", "controls.csv"
OVERFITTED = 32  # images
OVERFIT_EPOCHS = 40  # ours
SHUFFLES = 5  # ours
SHUFFLED_EPOCHS = 4  # ours: at most; what labels without meaning teach does not grow with time
UNCHANGED = Augmentation(0.0, 0.0, (0.0, 0.0), (1.0, 1.0), (0.0, 0.0))


def tune(experiment: Experiment, executor: Executor | None = None) -> pd.DataFrame:
    """Train the main network on G, from its own initial weights, with each of config.GLOBAL_CANDIDATES; candidates.csv.

    One row a candidate: what it changes, how far its training loss fell, and the validation accuracy and AUC of the
    epoch that would be kept. Histories go to results/<profile>/<protocol>/candidates/. What is done is skipped. The
    files are of the training seed that ran last, which the column `seed` tells.
    """
    job: Callable[[str], dict[str, Any]] = partial(_try, experiment)
    rows = list((executor.map if executor else map)(job, GLOBAL_CANDIDATES))
    table = pd.DataFrame(rows).assign(seed=experiment.seed)
    paths.write_table(table, experiment.results / CANDIDATES)
    return table


def _try(experiment: Experiment, name: str) -> dict[str, Any]:
    """Train one candidate and say how it went; a loss that is not finite is an answer too."""
    from mammo_lib.training.loop import TrainingDiverged

    profile = experiment.profile
    cell = Cell(experiment.protocol, "G", profile.main_network, profile.main_initial["G"], seed=experiment.seed)
    length = profile.global_training  # candidates change what a step does, not how long it goes on
    training = replace(
        GLOBAL_CANDIDATES[name],
        max_epochs=length.max_epochs,
        plateau_patience=length.plateau_patience,
        stop_patience=length.stop_patience,
        precision=length.precision,
    )
    about = {"candidate": name, "learning_rate": training.learning_rate, "batch_size": training.batch_size}
    network, initial = build_network(experiment.profile, cell), initial_weights(experiment, cell)
    initial.give_to(network)
    settings = _settings(experiment, cell, training, initial.hashes)
    del initial  # a second copy of the weights
    images, table = cell_data(experiment, cell)
    short = name.replace(",", "").replace(" ", "-")
    folder = experiment.runs / "candidates" / f"{short}-seed{cell.seed}"
    try:
        history = fit(network, images, table, training, experiment.profile, cell.seed, folder, settings)
    except TrainingDiverged as reason:
        (experiment.results / "candidates" / f"{short}.csv").unlink(missing_ok=True)  # of another seed
        return about | {"outcome": str(reason).split(" (images")[0]}
    paths.write_table(history.frame(), experiment.results / "candidates" / f"{short}.csv")
    return about | {
        "epochs": len(history.epochs),
        "best_epoch": history.best.epoch,
        "first_train_loss": history.epochs[0].train_loss,
        "last_train_loss": history.epochs[-1].train_loss,
        "validation_accuracy": history.best.validation_accuracy,
        "validation_auc": history.best.validation_auc,
    }


def _settings(
    experiment: Experiment, cell: Cell, training: Training, hashes: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What a checkpoint must agree with to go on from it: as of a cell, but trained as here."""
    profile = replace(experiment.profile, patch_training=training, global_training=training)
    return records.cell_settings(cell, profile, hashes_of_inputs(experiment, cell.stage) | dict(hashes or {}))


def controls(experiment: Experiment) -> pd.DataFrame:
    """Two checks of the training itself, with the proposed network on P in fold 0; also written to controls.csv.

    "overfit": 32 training patches without augmentation are learnt by heart (training accuracy 1). "shuffled labels":
    trained with the labels of the masses exchanged at random, SHUFFLES times. The interval of one of them is that of
    its test patients alone; a network that learns a rule at random may order the true classes a little, either way, so
    it may miss 0.5. The mean of all must not: its interval is Student's, over the shuffles.
    """
    cell = Cell(experiment.protocol, "P", PROPOSED, "scratch", seed=experiment.seed)
    shuffled = pd.DataFrame([_shuffled(experiment, cell, number) for number in range(SHUFFLES)])
    auc, within = shuffled["test_auc"].mean(), (1 + experiment.profile.evaluation.confidence) / 2
    half = scipy.stats.t.ppf(within, SHUFFLES - 1) * scipy.stats.sem(shuffled["test_auc"])
    mean = {"control": f"shuffled labels, mean of {SHUFFLES}"} | _auc(auc, auc - half, auc + half)
    table = pd.concat([pd.DataFrame([_overfit(experiment, cell)]), shuffled, pd.DataFrame([mean])], ignore_index=True)
    table["seed"] = experiment.seed
    paths.write_table(table, experiment.results / CONTROLS)
    return table


def _overfit(experiment: Experiment, cell: Cell) -> dict[str, Any]:
    """Training patches of as many masses, half of them malignant, are training and validation part at once."""
    images, table = cell_data(experiment, cell)
    first = table[table["part"] == "train"].drop_duplicates("mass_id")
    chosen = pd.concat([first[first["label"] == label].head(OVERFITTED // 2) for label in (0, 1)])["row"].to_numpy()
    few = table.iloc[chosen].assign(row=range(len(chosen)), part="train")
    both = pd.concat([few, few.assign(row=few["row"] + len(few), part="validation")])
    training = replace(
        experiment.profile.patch_training,
        batch_size=8,
        max_epochs=OVERFIT_EPOCHS,
        plateau_patience=OVERFIT_EPOCHS,
        stop_patience=OVERFIT_EPOCHS,
    )
    profile = replace(experiment.profile, augmentation=UNCHANGED)
    folder, network = experiment.runs / "controls" / f"overfit-seed{cell.seed}", build_network(profile, cell)
    settings = _settings(experiment, cell, training)
    history = fit(network, np.tile(images[chosen], (2, 1, 1)), both, training, profile, cell.seed, folder, settings)
    return {
        "control": "overfit",
        "cases": len(few),
        "epochs": history.best.epoch,
        "train_loss": history.best.validation_loss,
        "train_accuracy": history.best.validation_accuracy,
    }


def _shuffled(experiment: Experiment, cell: Cell, number: int) -> dict[str, Any]:
    """The labels of training and validation masses are exchanged among them; test masses keep theirs."""
    from mammo_lib.evaluation import statistics

    images, table = cell_data(experiment, cell)
    masses = table[table["part"] != "test"].drop_duplicates("mass_id").set_index("mass_id")["label"]
    exchanged = masses.sample(frac=1, random_state=DATA_SEED + number).set_axis(masses.index)
    labels = table["mass_id"].map(exchanged).fillna(table["label"]).astype(int)
    profile, training = experiment.profile, experiment.profile.patch_training
    training = replace(training, max_epochs=min(training.max_epochs, SHUFFLED_EPOCHS))
    folder, network = experiment.runs / "controls" / f"shuffled-{number}-seed{cell.seed}", build_network(profile, cell)
    settings = _settings(experiment, cell, training)
    history = fit(network, images, table.assign(label=labels), training, profile, cell.seed, folder, settings)
    predicted, rule = predict(network, images, table, training.batch_size, default_device()), profile.evaluation
    test = predicted[predicted["part"] == "test"]
    how = (rule.resamples, rule.confidence, experiment.seed)
    auc = statistics.auc_interval(test["label"], test["probability"], test["patient_id"], *how)
    return {
        "control": f"shuffled labels {number + 1}",
        "cases": len(test),
        "epochs": len(history.epochs),
        "train_loss": history.epochs[-1].train_loss,
        "train_accuracy": history.epochs[-1].train_accuracy,
    } | _auc(auc.estimate, auc.low, auc.high)


def _auc(auc: float, low: float, high: float) -> dict[str, float]:
    return {"test_auc": auc, "test_auc_low": low, "test_auc_high": high}
