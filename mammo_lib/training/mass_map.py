"""Beyond the paper: a network taught which cells of a mammogram are mass, and of which kind, by windows around it.

Knows arrays only. The windows are cut from whole images (set G), so a mass is seen at the scale of its image, with the
tissue around it; a few more are cut anywhere in the breast. It is the paper's order of things, first masses, then whole
mammograms, with a class for what is not a mass. Randomness is a function of (seed, epoch, step), as in loop.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from mammo_lib import paths
from mammo_lib.config import BACKGROUND, BENIGN, CELL, MALIGNANT, MassMap
from mammo_lib.training import augment, checkpoint
from mammo_lib.training.folder import HISTORY, LAST, claim
from mammo_lib.training.loop import ONE_AT_A_TIME, TrainingDiverged, split_batches, step_seeds
from mammo_lib.training.probe import UNUSED, Box


@dataclass(frozen=True)
class Masses:
    """The masses of one image of set G: boxes x, y, w, h in its pixels, labels 0 or 1."""

    image: int
    boxes: Sequence[Box]
    labels: Sequence[int]


@dataclass(frozen=True)
class Epoch:
    """One finished epoch: a row of history.csv. A loss is the mean of those of mass and background cells, in nats."""

    epoch: int  # from 1
    learning_rate: float  # of the trunk, at its end; the classifier's is `classifier_factor` times that
    train_loss: float
    validation_loss: float
    validation_auc: float  # malignant against benign, a window around each mass
    seconds: float


def train(
    network: nn.Module,
    images: np.ndarray,
    parts: Mapping[str, Sequence[Masses]],
    settings: MassMap,
    seed: int,
    folder: Path,
    config: Mapping[str, Any],
    device: str | torch.device = "cpu",
    progress: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Train `network` in place for `settings.epochs` epochs and return its history; goes on where it was stopped.

    `network`: normalised images (N, 3, H, W) -> logits of background, benign, malignant (N, 3, H / 16, W / 16).
    `images` uint8 (N, S, S); `parts`: the images with masses of "train" and of "validation". The last epoch is kept:
    the rate falls to nothing, and nothing is chosen by the validation part. `folder` gets last.pt and history.csv after
    every epoch; `config` is stored with them (checkpoint.CheckpointMismatch when another one is found). ValueError when
    the images are smaller than a window or a part is empty; loop.TrainingDiverged, with the images of the batch, when a
    loss is no number; folder.FolderBusy when another process trains here.
    """
    if images.shape[1] < settings.window:
        raise ValueError(
            f"set G is {images.shape[1]} pixels a side, less than the windows of {settings.window} (config.MassMap): "
            "choose a profile with larger images, or smaller windows"
        )
    for part in ("train", "validation"):
        if not parts[part]:
            raise ValueError(f"part {part!r} of the mass map has no images with masses: make the split again")
    device = torch.device(device)
    config, epochs = paths.plain(config), list[Epoch]()
    with ONE_AT_A_TIME, claim(folder), torch.random.fork_rng([device] if device.type == "cuda" else []):
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser = _make_optimiser(network, settings)
        if checkpoint.exists(folder / LAST):
            state = checkpoint.load(folder / LAST, config)
            network.load_state_dict(state["network"])
            optimiser.load_state_dict(optimiser.state_dict() | {"state": state["optimiser"]})
            epochs = [Epoch(**row) for row in state["epochs"]]
            paths.write_table(pd.DataFrame(epochs), folder / HISTORY)  # a crash may have come between the two files
        while len(epochs) < settings.epochs:
            started, number = perf_counter(), len(epochs) + 1
            loss = _train_epoch(network, optimiser, images, parts["train"], settings, (seed, number), device)
            validated = validate(network, images, parts["validation"], settings, device)
            rate = optimiser.param_groups[0]["lr"]
            epochs.append(Epoch(number, rate, loss, *validated, seconds=perf_counter() - started))
            rows = [vars(row) for row in epochs]
            state = {"config": config, "epochs": rows, "network": network.state_dict()}
            checkpoint.save(folder / LAST, state | {"optimiser": optimiser.state_dict()["state"]})
            paths.write_table(pd.DataFrame(epochs), folder / HISTORY)
            progress(_line(epochs[-1], settings))
    network.eval()
    return pd.DataFrame(epochs)


def _make_optimiser(network: nn.Module, settings: MassMap) -> torch.optim.Optimizer:
    """The classifier, which begins at random, learns faster than what ImageNet taught."""
    taught = [(name, weight) for name, weight in network.named_parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for name, weight in taught if name.startswith("classifier") == new], "factor": factor}
        for new, factor in ((False, 1.0), (True, settings.classifier_factor))
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _train_epoch(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    images: np.ndarray,
    known: Sequence[Masses],
    settings: MassMap,
    numbers: tuple[int, int],
    device: torch.device,
) -> float:
    """Every mass once, with some windows of background in each step; mean loss."""
    network.train()
    seed, epoch = numbers
    every = [(masses, index) for masses in known for index in range(len(masses.boxes))]
    batches = split_batches(np.random.default_rng((seed, epoch, 0)).permutation(len(every)), settings.masses)
    losses = []
    for number, batch in enumerate(batches, start=1):
        generator, (for_dropout, _) = np.random.default_rng((seed, epoch, number)), step_seeds(seed, epoch, number)
        torch.manual_seed(for_dropout)
        chosen = [every[place] for place in batch]
        windows = [mass_window(images, masses, index, settings, generator) for masses, index in chosen]
        others = generator.integers(len(known), size=settings.backgrounds)
        windows += [background_window(images, known[other], settings, generator) for other in others]
        _set_rate(optimiser, settings, (epoch - 1 + number / len(batches)) / settings.epochs)
        optimiser.zero_grad(set_to_none=True)
        loss = map_loss(*_forward(network, windows, settings.precision, device))
        if not loss.isfinite():
            where = ", ".join(str(masses.image) for masses, _ in chosen)
            raise TrainingDiverged(
                f"training loss is {loss:g} in epoch {epoch}, step {number} (rows {where} of set G): look at these "
                "images, or lower the learning rate"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    return float(np.mean(losses))


def _set_rate(optimiser: torch.optim.Optimizer, settings: MassMap, done: float) -> None:
    """`done`: share of the training, 0 to 1."""
    for group in optimiser.param_groups:
        group["lr"] = settings.learning_rate * group["factor"] * rate_share(done, settings.warm_up)


def rate_share(done: float, warm_up: float) -> float:
    """Share of the highest rate: it rises in a straight line during `warm_up` and falls to 0 along half a cosine."""
    if done < warm_up:
        return done / warm_up
    return float((1 + np.cos(np.pi * (done - warm_up) / (1 - warm_up))) / 2)


def validate(
    network: nn.Module, images: np.ndarray, known: Sequence[Masses], settings: MassMap, device: torch.device
) -> tuple[float, float]:
    """Loss, and AUC of malignant against benign, of a window around each mass, neither moved nor turned."""
    network.eval()
    scores, labels, losses = [], [], []
    for masses in known:
        for box, label in zip(masses.boxes, masses.labels, strict=True):
            window = cut(images, masses, (box[0] + box[2] / 2, box[1] + box[3] / 2), settings)
            with torch.inference_mode():
                logits, kinds = _forward(network, [window], settings.precision, device)
            difference = logits[0, MALIGNANT] - logits[0, BENIGN]
            scores.append(float(difference[kinds[0] > BACKGROUND].mean()))
            labels.append(label)
            losses.append(float(map_loss(logits, kinds)))
    auc = roc_auc_score(labels, scores) if len(set(labels)) == 2 else float("nan")
    return float(np.mean(losses)), float(auc)


def _forward(
    network: nn.Module, windows: Sequence[tuple[np.ndarray, np.ndarray]], precision: str, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Logits (N, 3, h, w), float32, and kinds (N, h, w), int64, on the device."""
    greys, kinds = (torch.from_numpy(np.stack(each)).to(device) for each in zip(*windows, strict=True))
    batch = augment.network_input(greys).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits = network(batch)
    return logits.float(), kinds.long()


def map_loss(logits: Tensor, kinds: Tensor) -> Tensor:
    """Cross entropy of the mass cells of a window plus that of its background cells, each averaged over windows.

    logits (N, 3, h, w); kinds int64 (N, h, w), UNUSED (-1) where a cell is neither. A window counts as much as another,
    however many cells its mass has.
    """
    losses = functional.cross_entropy(logits, kinds.clamp_min(0), reduction="none")
    total = logits.new_zeros(())
    for chosen in (kinds > BACKGROUND, kinds == BACKGROUND):
        cells = chosen.sum((1, 2))
        of_windows = (losses * chosen).sum((1, 2)) / cells.clamp_min(1)
        total = total + of_windows.sum() / (cells > 0).sum().clamp_min(1)
    return total


# ----------------------------------------------------------------------------- windows


def mass_window(
    images: np.ndarray, masses: Masses, index: int, settings: MassMap, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A window with one mass somewhere in it, see `cut`."""
    x, y, w, h = masses.boxes[index]
    moved = generator.uniform(-settings.shift, settings.shift, size=2) * settings.window
    return cut(images, masses, (x + w / 2 + moved[0], y + h / 2 + moved[1]), settings, generator)


def background_window(
    images: np.ndarray, masses: Masses, settings: MassMap, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A window around any place of an image that is not black, see `cut`."""
    breast = np.argwhere(images[masses.image][::CELL, ::CELL])
    y, x = breast[generator.integers(len(breast))] * CELL
    return cut(images, masses, (float(x), float(y)), settings, generator)


def cut(
    images: np.ndarray,
    masses: Masses,
    centre: tuple[float, float],
    settings: MassMap,
    generator: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Grey values, uint8 (window, window), and the kinds of its cells, int8 (window / 16, window / 16).

    `centre` is (x, y) in pixels; at an image's edge the window is shifted inwards. `generator` flips it, turns it by a
    right angle, brightens it and stretches its contrast at random (None: as it lies). Black stays black.
    """
    image, size = images[masses.image], settings.window
    left, top = (round(min(max(place - size / 2, 0), len(image) - size)) for place in centre)
    grey = np.asarray(image[top : top + size, left : left + size])
    boxes = [(x - left, y - top, w, h) for x, y, w, h in masses.boxes]
    kinds = cell_kinds(grey, boxes, masses.labels, settings.core)
    if generator is None:
        return grey, kinds
    for axis in range(2):
        if generator.random() < 0.5:
            grey, kinds = np.flip(grey, axis), np.flip(kinds, axis)
    if generator.random() < 0.5:
        grey, kinds = grey.T, kinds.T
    gain = generator.uniform(*settings.contrast)
    lift = generator.uniform(-settings.brightness, settings.brightness)
    lit = np.where(grey > 0, grey * np.float32(gain) + np.float32(lift), 0)
    return np.clip(lit, 0, 255).astype(np.uint8), np.ascontiguousarray(kinds)


def cell_kinds(grey: np.ndarray, boxes: Sequence[Box], labels: Sequence[int], core: float) -> np.ndarray:
    """int8 (h, w) of an image uint8 (16 h, 16 w): a cell is what its centre lies in.

    The core of a box (`core`: share of its sides, around its middle): BENIGN or MALIGNANT. The rest of it, and what is
    black: UNUSED. All else: BACKGROUND. A core less than a cell wide is as wide as one, so no mass in sight has none.
    """
    height, width = (side // CELL for side in grey.shape)
    down, across = (np.arange(count) * CELL + CELL / 2 for count in (height, width))
    kinds = np.where(grey.reshape(height, CELL, width, CELL).max(axis=(1, 3)) > 0, BACKGROUND, UNUSED).astype(np.int8)
    for share in (1.0, core):
        for (x, y, w, h), label in zip(boxes, labels, strict=True):
            near = [
                np.abs(centres - (start + side / 2)) <= max(share * side, CELL) / 2
                for centres, start, side in ((down, y, h), (across, x, w))
            ]
            kinds[np.outer(*near)] = UNUSED if share == 1 else MALIGNANT if label else BENIGN
    return kinds


def _line(row: Epoch, settings: MassMap) -> str:
    return (
        f"epoch {row.epoch}/{settings.epochs}  loss {row.train_loss:.4f}  validation loss {row.validation_loss:.4f}  "
        f"AUC of masses {row.validation_auc:.4f}  {row.seconds:.0f} s"
    )
