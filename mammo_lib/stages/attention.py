"""How far open the gates of CBAM are, before and after a training, and in the first steps of the paper's own settings.

Where the spatial gate of (2) is 0 nothing passes, forward or back: such a network says the same of every image, and
training cannot open it again. Nothing here looks at a test case.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mammo_lib import paths
from mammo_lib.config import CBAM_SUFFIX, PROPOSED
from mammo_lib.stages.experiment import Experiment
from mammo_lib.stages.trainings import (
    build_network,
    cell_data,
    cells,
    initial_weights,
    is_done_as_asked,
    load_network,
)
from mammo_lib.training.experiments import Cell
from mammo_lib.training.folder import BEST

if TYPE_CHECKING:
    from mammo_lib.models.cbam import Cbam
    from mammo_lib.models.networks import Classifier

GATES, FIRST_STEPS = "gates.csv", "gates_first_steps.csv"
IMAGES = 32  # ours: of the validation part, evenly spaced
BATCH = 8  # ours: of these images at a time
SEEDS = 10  # ours: 0 to 9 before any training; one seed is one draw of the gate's weights
STEPS = 24  # ours


def gates(experiment: Experiment) -> pd.DataFrame:
    """Means of both gates over validation images, for every network with CBAM in fold 0; also written to gates.csv.

    One row for each of the first ten seeds before training, with the initial weights of the stage, where they are at
    hand (what is not is printed); and one for each finished training of these seeds, with the epoch that was kept.
    Before training, batch normalisation has no statistics of its own yet: it takes those of each batch of images.
    """
    rows = []
    for cell in cells(replace(experiment, seed=0)):
        if cell.network.endswith(CBAM_SUFFIX) and cell.fold == 0:
            for seed in range(SEEDS):
                rows += _of_seed(experiment, replace(cell, seed=seed))
    table = pd.DataFrame(rows, columns=["stage", "network", "initial", "seed", "when", "channel_gate", "spatial_gate"])
    paths.write_table(table, experiment.results / GATES)
    return table


def _of_seed(experiment: Experiment, cell: Cell) -> list[dict[str, Any]]:
    about = {"stage": cell.stage, "network": cell.network, "initial": cell.initial, "seed": cell.seed}
    rows, folder, looked_at = [], experiment.runs / cell.name, _images(experiment, cell)
    try:
        initial = initial_weights(experiment, cell)
    except (FileNotFoundError, paths.StageMismatch) as reason:
        print(f"{cell.name}: no row before training: {reason}")
    else:
        network = build_network(experiment.profile, cell)
        initial.give_to(network)
        rows.append(about | {"when": "before training"} | _open(network.train(), *looked_at))
    try:
        done = is_done_as_asked(experiment, cell) and (folder / BEST).exists()
    except paths.StageMismatch as reason:
        print(f"{cell.name}: no row of the kept epoch: {reason}")
        return rows
    if done:
        rows.append(about | {"when": "kept epoch"} | _open(load_network(experiment, cell), *looked_at))
    return rows


def _images(experiment: Experiment, cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    images, table = cell_data(experiment, cell)
    rows = table.loc[table["part"] == "validation", "row"].to_numpy()
    return images, rows[np.linspace(0, len(rows) - 1, min(IMAGES, len(rows))).round().astype(int)]


def _open(network: "Classifier", images: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """Means of the channel gate and of the spatial gate, each in 0..1, over the images in `rows`."""
    import torch

    from mammo_lib.training import augment

    attention, channel, spatial = _cbam(network), [], []
    with torch.inference_mode():
        for some in np.array_split(rows, -(-len(rows) // BATCH)):
            features = network.features(augment.network_input(torch.from_numpy(images[some])))
            gate = attention.channel_gate(features)
            channel.append(gate.mean(dim=(1, 2, 3)))
            spatial.append(attention.spatial_gate(gate * features).mean(dim=(1, 2, 3)))
    return {"channel_gate": float(torch.cat(channel).mean()), "spatial_gate": float(torch.cat(spatial).mean())}


def _cbam(network: "Classifier") -> "Cbam":
    from mammo_lib.models.cbam import Cbam

    assert isinstance(network.attention, Cbam)
    return network.attention


def first_steps(experiment: Experiment) -> pd.DataFrame:
    """The proposed network on G from random weights: loss and mean spatial gate of each of the first STEPS batches.

    With the profile's own settings, augmentation and order, on the CPU, with the batch statistics of the batch; also
    written to gates_first_steps.csv.
    """
    import torch

    from mammo_lib.training import augment, loop, step

    profile = experiment.profile
    cell = Cell(experiment.protocol, "G", PROPOSED, "scratch", seed=experiment.seed)
    images, table = cell_data(experiment, cell)
    labels, training = table["label"].to_numpy(), profile.global_training
    network = build_network(profile, cell).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = step.make_optimiser(network, training)
    train_step = step.make_step(network, optimiser, step.choose_precision(training.precision, "cpu"))
    opened: list[float] = []
    before_sigmoid = _cbam(network).norm
    before_sigmoid.register_forward_hook(lambda *call: opened.append(float(call[-1].detach().sigmoid().mean())))
    order = np.random.default_rng((cell.seed, 1, 0)).permutation(table.loc[table["part"] == "train", "row"].to_numpy())
    losses, generator = [], torch.Generator()
    for number, batch in enumerate(loop.split_batches(order, training.batch_size)[:STEPS], start=1):
        generator.manual_seed(loop.step_seeds(cell.seed, 1, number)[1])
        matrices = augment.affine_matrices(augment.draw(len(batch), profile.augmentation, generator))
        result = train_step(torch.from_numpy(images[batch]), matrices, torch.from_numpy(labels[batch]))
        losses.append(float(result[0]))
    found = pd.DataFrame({"step": np.arange(len(losses)) + 1, "loss": losses, "spatial_gate": opened})
    paths.write_table(found, experiment.results / FIRST_STEPS)
    return found
