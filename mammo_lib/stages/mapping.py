"""Beyond the paper: a network that maps masses, taught on windows of set G, read as a classifier of patches and images.

It is what the probe is not, a network trained on mammograms, and small enough for two CPU cores.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from mammo_lib import paths
from mammo_lib.config import MASS_MAP, PARTS
from mammo_lib.stages.archive import parts
from mammo_lib.stages.experiment import Experiment, default_device
from mammo_lib.stages.grid import CELL, Grid
from mammo_lib.stages.trainings import hashes_of_inputs

if TYPE_CHECKING:
    from mammo_lib.models.mass_map import MassMap
    from mammo_lib.training.mass_map import Masses


def train_map(experiment: Experiment, fold: int = 0) -> "MassMap":
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
    started, device, rules = datetime.now(UTC), default_device(), experiment.profile.mass_map
    grid, folder = Grid.of(experiment), _folder(experiment, fold)
    found = weights.imagenet("vgg16", experiment.places.weights)
    network = room.build(found.state, rules.kept_layers, rules.dropout, experiment.seed)
    table = parts(experiment, "G").query("fold == @fold")
    known = {part: _masses(grid, table[table["part"] == part]) for part in PARTS if part != "test"}
    inputs = hashes_of_inputs(experiment, "G") | {"initial_weights": found.sha256}
    settings = paths.plain({"mass_map": rules, "fold": fold, "seed": experiment.seed, "inputs": inputs})
    history = mass_map.train(network, grid.images, known, rules, experiment.seed, folder, settings, device)
    if not paths.is_done(folder / "run.json", settings):
        facts = {"training_seconds": round(float(history["seconds"].sum()), 2), "initial_weights": found.source}
        record = {"settings": settings} | records.circumstances(device, started) | facts
        paths.write_json(folder / "run.json", record)
    return network.eval()


def _folder(experiment: Experiment, fold: int) -> Path:
    return experiment.runs / MASS_MAP / f"fold{fold}-seed{experiment.seed}"


def _masses(grid: Grid, images: pd.DataFrame) -> "list[Masses]":
    from mammo_lib.training.mass_map import Masses

    return [
        Masses(row, [[value * CELL for value in box] for box in grid.boxes[row]], grid.labels[row])
        for row in images["row"]
    ]
