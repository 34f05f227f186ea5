"""Training the cells of the paper's matrix (2.4, 2.5), and what they leave behind."""

import shutil
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mammo_lib import paths
from mammo_lib.config import CBAM_SUFFIX, PARTS, Profile, Training
from mammo_lib.evaluation.predictions import COLUMNS as PREDICTION_COLUMNS
from mammo_lib.stages.archive import ARRAY, load, parts, prepared, split_file
from mammo_lib.stages.experiment import Experiment, default_device
from mammo_lib.training.folder import BEST, CELL_CLAIM, HISTORY, RECORD, WARM_UP, at_work, claim, turn

if TYPE_CHECKING:
    from mammo_lib.models.networks import Classifier
    from mammo_lib.training.experiments import Cell, Outcome
    from mammo_lib.training.schedule import History

OUTCOMES = "outcomes.csv"
PREDICTIONS = "predictions.csv"
WARM_UP_SEED = 10**6  # on top of the cell's: no step of its training meets order, augmentation and dropout of a warm-up
INITIAL_WEIGHTS = "initial_weights"  # their hash among the inputs in a record
WARM_UP_HISTORY = f"{WARM_UP}/{HISTORY}"
RECORDS = (RECORD, HISTORY, PREDICTIONS)  # what goes from runs/ to results/: small, no weights


def cells(experiment: Experiment, pattern: str = "*") -> "list[Cell]":
    """The cells of the experiment whose name fits `pattern`, for instance "P/*"; ValueError when none does."""
    from mammo_lib.training import experiments

    matrix = experiments.matrix(experiment.protocol, experiment.profile, seeds=[experiment.seed])
    chosen = [cell for cell in matrix if fnmatch(cell.name, pattern)]
    if not chosen:
        raise ValueError(f"no cell is called {pattern!r}: the first of {len(matrix)} is {matrix[0].name}")
    return chosen


def weights_missing(experiment: Experiment) -> list[str]:
    """A sentence for each trunk whose ImageNet weights the profile asks for and no file here holds.

    ValueError when several files could stand in for one.
    """
    from mammo_lib.models import weights

    told = []
    if any("imagenet" in experiment.profile.initial(stage) for stage in ("P", "G")):
        for trunk in dict.fromkeys(name.removesuffix(CBAM_SUFFIX) for name in experiment.profile.networks):
            try:
                weights.find(trunk, experiment.places.weights)
            except weights.WeightsNotAvailable as reason:
                told.append(f"{reason}; until then its cells from ImageNet, and those that go on from them, stay empty")
    return told


def train(experiment: Experiment, pattern: str = "*", executor: Executor | None = None) -> pd.DataFrame:
    """Train the cells that fit `pattern`; return one row a cell: its state, and the reason when it is not done.

    What a cell recorded, without its weights, is copied to results/ when it ends, also when a later one is interrupted:
    every later step reads it there.
    """
    from mammo_lib.models.weights import WeightsNotAvailable
    from mammo_lib.training import experiments, loop, records

    wanted = cells(experiment, pattern)
    with at_work(experiment.runs.parent):
        prepared(experiment)  # what all need is said once
        split_file(experiment)
        print(f"{len(wanted)} cells of profile {experiment.profile.name} on {records.device_name(default_device())}")
        outcomes = experiments.run(
            wanted,
            partial(train_cell, experiment),
            executor,
            folder=experiment.runs,
            expected={WeightsNotAvailable: experiments.NOT_AVAILABLE, loop.TrainingDiverged: experiments.DIVERGED},
            decided=partial(_publish, experiment),
        )
    return pd.concat([_row(outcome, experiment) for outcome in outcomes], ignore_index=True)


def _row(outcome: "Outcome", experiment: Experiment) -> pd.DataFrame:
    message = experiment.public(outcome.message)
    return pd.DataFrame([{"cell": outcome.cell.name, "state": outcome.state, "message": message}])


def train_cell(experiment: Experiment, cell: "Cell") -> "Outcome":
    """Train one cell, predict its validation and test cases, and write its record; skip it when that is done."""
    with claim(experiment.runs / cell.name, CELL_CLAIM):  # another process may finish it between question and answer
        return _train_cell(experiment, cell)


def _train_cell(experiment: Experiment, cell: "Cell") -> "Outcome":
    from mammo_lib.models.weights import WeightsNotAvailable
    from mammo_lib.training import experiments, loop, records, step

    begun = records.Begun()
    folder, profile, device = experiment.runs / cell.name, experiment.profile, default_device()
    training = profile.training(cell.stage)
    try:
        initial = initial_weights(experiment, cell)
    except WeightsNotAvailable:
        if is_done_as_asked(experiment, cell):
            return experiments.Outcome(cell, "skipped")
        raise
    settings = records.cell_settings(cell, profile, hashes_of_inputs(experiment, cell.stage) | initial.hashes)
    if paths.is_done(folder / RECORD, settings):
        return experiments.Outcome(cell, "skipped")
    network = build_network(profile, cell)
    note = initial.give_to(network)
    del initial  # a second copy of the weights, until the training ends
    images, table = cell_data(experiment, cell)
    _warm_up(network, images, table, profile, cell, folder, settings)
    history = fit(network, images, table, training, profile, cell.seed, folder, settings)
    paths.write_table(predict(network, images, table, training.batch_size, device), folder / PREDICTIONS)
    record = records.record(settings, history, device, begun)
    record["precision"] = step.choose_precision(training.precision, device)
    record["step"] = loop.kind_of_step(training, history.train_images, device)  # of this attempt, after a warm-up
    paths.write_json(folder / RECORD, record | {"initial_weights": note})
    # larger than the best by the optimiser's state, and of no further use
    for path in (*folder.glob("last*.pt"), *(folder / WARM_UP).glob("*.pt")):
        path.unlink()
    return experiments.Outcome(cell, "done", note)


def is_done_as_asked(experiment: Experiment, cell: "Cell") -> bool:
    """Whether a cell is done, from whatever initial weights; StageMismatch when other settings or data differ."""
    from mammo_lib.training import records

    record = experiment.runs / cell.name / RECORD
    if not record.exists():
        return False
    known = paths.read_json(record)["settings"]["inputs"]
    given = {name: known[name] for name in known if name == INITIAL_WEIGHTS}
    inputs = hashes_of_inputs(experiment, cell.stage) | given
    return paths.is_done(record, records.cell_settings(cell, experiment.profile, inputs))


def made_otherwise(experiment: Experiment, cell: "Cell", folder: Path) -> str:
    """In what a finished cell's record in `folder` differs from the profile as it is now; "" where in nothing.

    Its inputs are not compared: that needs the images, and who reads results/ may have none.
    """
    from mammo_lib.training import records

    record = folder / cell.name / RECORD
    if not record.exists():
        return ""
    wanted = records.cell_settings(cell, experiment.profile, {})
    found = paths.read_json(record)["settings"] | {"inputs": wanted["inputs"]}
    return "; ".join(paths.differences(found, wanted)[:3])


def _warm_up(
    network: "Classifier",
    images: np.ndarray,
    table: pd.DataFrame,
    profile: Profile,
    cell: "Cell",
    folder: Path,
    settings: Mapping[str, Any],
) -> None:
    """Train CBAM and classifier with the trunk frozen, where the profile has it so (`Profile.warm_up_of`).

    CBAM and at least the classifier's last layer are random there (all of it, where the file holds a trunk alone), and
    what a random classifier sends back spoils the trunk's features before it has learnt anything itself (Kumar et al.
    2022, "Fine-tuning can distort pretrained features", ICLR).
    """
    from mammo_lib.training.loop import TrainingDiverged

    training = profile.warm_up_of(cell.stage, cell.initial)
    if training is not None:
        print(f"{cell.name}: warm-up, trunk frozen")
        network.features.requires_grad_(False)
        try:
            fit(network, images, table, training, profile, cell.seed + WARM_UP_SEED, folder / WARM_UP, settings)
        except TrainingDiverged as reason:
            raise TrainingDiverged(f"in the warm-up: {reason}") from reason
        network.features.requires_grad_(True)
        print(f"{cell.name}: the whole network")


def cell_data(experiment: Experiment, cell: "Cell") -> tuple[np.ndarray, pd.DataFrame]:
    """Images of a cell's stage, uint8 (N, S, S), and the table of them in its fold: line i is image i."""
    images, table = load(experiment, cell.stage)[0], parts(experiment, cell.stage)
    return images, table[table["fold"] == cell.fold].sort_values("row", ignore_index=True)


def fit(
    network: "Classifier",
    images: np.ndarray,
    table: pd.DataFrame,
    training: Training,
    profile: Profile,
    seed: int,
    folder: Path,
    settings: Mapping[str, Any],
) -> "History":
    """`loop.train` on this machine's device; `table` is that of `cell_data`, with label and part of each image."""
    from mammo_lib.training import loop

    rows = {part: table.loc[table["part"] == part, "row"].to_numpy() for part in PARTS}
    return loop.train(
        network,
        images,
        table["label"].to_numpy(),
        table["id"].tolist(),
        rows,
        training,
        profile.augmentation,
        seed,
        folder,
        settings,
        default_device(),
        partial(_tell, folder),
    )


def _tell(folder: Path, line: str) -> None:
    """What happens after an epoch, when its history is on disk."""
    from mammo_lib.training import events

    print(line)
    if events.installed() and (folder / HISTORY).exists():  # an interrupt may come before the first
        events.write(folder)


def build_network(profile: Profile, cell: "Cell") -> "Classifier":
    from mammo_lib.models import networks

    size = profile.size(cell.stage)
    return networks.build(cell.network, size=size, vgg_hidden=profile.vgg_hidden, cbam=profile.cbam, seed=cell.seed)


@dataclass(frozen=True)
class _Initial:
    """Where a network starts: a state (None: at random) and the hash that goes into the cell's record."""

    source: str
    state: dict[str, Any] | None = None
    hashes: dict[str, str] = field(default_factory=dict)

    def give_to(self, network: "Classifier") -> str:
        """Copy the state into the network; return in words what was copied and what was not."""
        from mammo_lib.models import weights

        return self.source if self.state is None else f"{self.source}: {weights.transfer(network, self.state)}"


def initial_weights(experiment: Experiment, cell: "Cell") -> _Initial:
    """Patch weights are the best checkpoint of the cell's parent; ImageNet weights come from the user's file.

    weights.WeightsNotAvailable: no such file, or the parent came to nothing. FileNotFoundError: it was not trained.
    paths.StageMismatch: it was trained with other settings or on other data.
    """
    from mammo_lib.models import weights
    from mammo_lib.training import checkpoint
    from mammo_lib.training.experiments import DIVERGED, NOT_AVAILABLE

    if cell.parent is not None:
        best = experiment.runs / cell.parent.name / BEST
        if not (best.parent / RECORD).exists():  # best.pt is there from the first epoch on
            tried = outcomes(experiment).set_index("cell")["state"].get(cell.parent.name)
            if tried in (DIVERGED, NOT_AVAILABLE):
                raise weights.WeightsNotAvailable(f"its parent {cell.parent.name} is {tried}")
            raise FileNotFoundError(
                f"{best.parent}: this training is not finished: run {experiment.command('train')} first"
            )
        is_done_as_asked(experiment, cell.parent)  # StageMismatch when it was trained otherwise
        state = checkpoint.load(best)["network"]
        return _Initial(cell.parent.name, state, {INITIAL_WEIGHTS: paths.file_hash(best)})
    if cell.initial == "imagenet":
        found = weights.imagenet(cell.network, experiment.places.weights)
        return _Initial(found.source, found.state, {INITIAL_WEIGHTS: found.sha256})
    return _Initial("random")


def hashes_of_inputs(experiment: Experiment, stage: str) -> dict[str, str]:
    """Hashes of what a training of stage "P" or "G" reads besides its initial weights."""
    hashes, name = prepared(experiment)["hashes"], ARRAY[stage]
    return {
        "images": hashes[f"{name}.npy"],
        "table": hashes[f"{name}.csv"],
        "split": paths.file_hash(split_file(experiment)),
    }


def predict(network: "Classifier", images: np.ndarray, table: pd.DataFrame, batch: int, device: str) -> pd.DataFrame:
    """Predictions of the validation and test cases."""
    from mammo_lib.training import loop

    predicted = table[table["part"] != "train"].copy()
    predicted["probability"] = loop.predict(network, images, predicted["row"].to_numpy(), batch, device)
    return predicted.reindex(columns=PREDICTION_COLUMNS)


def refuse_stale(experiment: Experiment, cell: "Cell") -> None:
    """StageMismatch for a finished cell that was trained with other settings than the profile has now."""
    otherwise = made_otherwise(experiment, cell, experiment.runs)
    if otherwise:
        raise paths.StageMismatch(
            f"{experiment.runs / cell.name / RECORD} was made with other settings ({otherwise}): delete it and train "
            "the cell again"
        )


def load_network(experiment: Experiment, cell: "Cell") -> "Classifier":
    """The trained network of a cell, its best epoch, on the CPU and in evaluation mode.

    FileNotFoundError when it is not trained; StageMismatch as `refuse_stale`; ValueError when the checkpoint is of
    another network.
    """
    from mammo_lib.training import checkpoint

    refuse_stale(experiment, cell)
    path = experiment.runs / cell.name / BEST
    state, network = checkpoint.load(path), build_network(experiment.profile, cell)
    foreign = paths.differences(state["config"].get("cell", {}), paths.plain(cell))
    try:
        if not foreign:
            network.load_state_dict(state["network"])
    except RuntimeError:
        foreign = [f"its layers are not those of {cell.network} in profile {experiment.profile.name}"]
    if foreign:
        raise ValueError(
            f"{path} is the checkpoint of another network ({'; '.join(foreign[:3])}): train the cell again"
        )
    return network.eval()


def _publish(experiment: Experiment, outcome: "Outcome") -> None:
    """Copy a finished cell's small files to results/, and remember the outcome in outcomes.csv.

    What an earlier training published stays when this attempt broke off, and goes when it diverged: that is a result.
    """
    from mammo_lib.training.experiments import DIVERGED

    source, target = experiment.runs / outcome.cell.name, experiment.published / outcome.cell.name
    if outcome.state == "skipped":  # it is done, and what it began with stays told
        outcome = replace(outcome, state="done", message=paths.read_json(source / RECORD)["initial_weights"])
    if outcome.state == "done":
        warmed = WARM_UP_HISTORY if (source / WARM_UP_HISTORY).exists() else None
        for name in filter(None, (*RECORDS, warmed)):
            with paths.atomic_write(target / name) as part:
                shutil.copyfile(source / name, part)
        if warmed is None:  # an earlier training may have had one
            (target / WARM_UP_HISTORY).unlink(missing_ok=True)
    elif outcome.state == DIVERGED:
        shutil.rmtree(target, ignore_errors=True)
    elif (target / RECORD).exists():
        outcome = replace(outcome, message=f"{outcome.message} (what an earlier training published stands)")
    _remember(_row(outcome, experiment), experiment)


def _remember(table: pd.DataFrame, experiment: Experiment) -> None:
    """Put the newest outcome of each cell into outcomes.csv; of two commands that end at once, one after the other."""
    with turn(experiment.runs / ".outcomes"):
        known = outcomes(experiment)
        merged = pd.concat([known[~known["cell"].isin(table["cell"])], table])
        paths.write_table(merged.sort_values("cell"), experiment.results / OUTCOMES)


def outcomes(experiment: Experiment) -> pd.DataFrame:
    """State and message of every cell that was tried: columns cell, state, message."""
    path = experiment.results / OUTCOMES
    return (
        pd.read_csv(path, keep_default_na=False)
        if path.exists()
        else pd.DataFrame(columns=["cell", "state", "message"])
    )


def status(experiment: Experiment) -> pd.DataFrame:
    """How far every cell of the matrix is, and the time it still needs.

    One that came to nothing when it was last tried, for want of weights or because it diverged, says so; one that is
    done, but was with other settings than the profile has now, is "stale".
    """
    from mammo_lib.training.experiments import DIVERGED, NOT_AVAILABLE, status

    table = status(cells(experiment), experiment.runs, experiment.profile)
    told = table["cell"].map(outcomes(experiment).set_index("cell")["state"])
    settled = told.isin((DIVERGED, NOT_AVAILABLE)) & ~table["state"].isin(("done", "running"))
    table.loc[settled, "state"] = told[settled]
    table.loc[settled, "seconds_left"] = float("nan")
    stale = [bool(made_otherwise(experiment, cell, experiment.runs)) for cell in cells(experiment)]
    table.loc[stale, "state"] = "stale"
    return table


def any_history(experiment: Experiment, stage: str) -> bool:
    """Whether a cell of the stage is finished."""
    return any(path.exists() for _, path in _histories(experiment, f"{stage}/*"))


def _histories(experiment: Experiment, pattern: str) -> "list[tuple[Cell, Path]]":
    """Where the history of each cell is; of none that was trained with other settings than the profile has now."""
    folder = experiment.published
    agreeing = [cell for cell in cells(experiment, pattern) if not made_otherwise(experiment, cell, folder)]
    return [(cell, folder / cell.name / HISTORY) for cell in agreeing]


def histories(experiment: Experiment, stage: str) -> pd.DataFrame:
    """history.csv of every finished cell of a stage, below one another, with the cell's name in column `cell`."""
    frames = []
    for cell, path in _histories(experiment, f"{stage}/*"):
        if path.exists():
            frames.append(pd.read_csv(path).assign(cell=cell.name, network=cell.network, initial=cell.initial))
    if not frames:
        raise FileNotFoundError(f"{experiment.published}: no cell of stage {stage} is finished: train it first")
    return pd.concat(frames, ignore_index=True)


def kept_epochs(experiment: Experiment, stage: str) -> pd.DataFrame:
    """The row of `histories` of the epoch whose weights are kept, for every finished cell of a stage."""
    from mammo_lib.training import schedule

    table = histories(experiment, stage)
    columns = list(schedule.Epoch.__dataclass_fields__)
    kept = {
        cell: schedule.best([schedule.Epoch(*row) for row in epochs[columns].itertuples(index=False)]).epoch
        for cell, epochs in table.groupby("cell")
    }
    return table[table["epoch"] == table["cell"].map(kept)]


def draw_learning_curves(experiment: Experiment, stage: str) -> list[Path]:
    """Loss and accuracy over epochs of every network of a stage, a line for each kind of initial weights, of one fold:
    the first that has any."""
    from mammo_lib.evaluation import figures, figures_curves

    table = histories(experiment, stage)
    folds = table["cell"].map({cell.name: cell.fold for cell in cells(experiment)})
    first = table[folds == folds.min()]
    curves = {
        str(network): {str(initial): run for initial, run in runs.groupby("initial")}
        for network, runs in first.groupby("network", sort=False)
    }
    data = f"{experiment.sentence}, fold {folds.min()}"
    return figures.save(figures_curves.learning_curves(curves, data), experiment.figures, f"curves_{stage}")
