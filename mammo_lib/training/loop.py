"""One training from arrays and a network to a history and checkpoints (section 2.5), and the predictions of a network.

Knows no data set, no architecture and no metric beyond what the history shows. Every random number comes from a
generator seeded by (seed, epoch, step), never from what was drawn before: a training that was killed and started again
equals one that was not, bit for bit on the CPU (with the same number of threads).
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from mammo_lib import paths
from mammo_lib.config import Augmentation, Training
from mammo_lib.progress import bar
from mammo_lib.training import augment, checkpoint, schedule, step
from mammo_lib.training.folder import BEST, HISTORY, LAST, claim
from mammo_lib.training.schedule import Epoch, History

ONE_AT_A_TIME = threading.Lock()  # a process has one generator to draw dropout from: threads that train take turns
EVALUATION_BATCHES = 4  # ours: validation batch / training batch; without gradients it needs no more memory


class TrainingDiverged(RuntimeError):
    """The loss is not a finite number."""


@dataclass
class _Run:
    """A training under way: what the functions below share."""

    network: nn.Module
    optimiser: Optimizer
    fetch: step.Fetch
    labels: np.ndarray
    ids: Sequence[str]
    parts: Mapping[str, np.ndarray]
    settings: Training
    augmentation: Augmentation
    seed: int
    device: torch.device
    precision: str
    folder: Path
    config: Mapping[str, Any]
    writer: ThreadPoolExecutor  # writes the files of an epoch while the next one trains
    epochs: list[Epoch] = field(default_factory=list)
    copied: dict[str, Any] | None = None  # network and optimiser at the end of the last epoch, in main memory
    written: Future[None] | None = None  # whether the checkpoints of that epoch are
    saved: int = 0  # the last epoch whose checkpoints are written


def train(
    network: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    ids: Sequence[str],
    parts: Mapping[str, np.ndarray],
    settings: Training,
    augmentation: Augmentation,
    seed: int,
    folder: Path,
    config: Mapping[str, Any],
    device: str | torch.device = "cpu",
    progress: Callable[[str], None] = print,
) -> History:
    """Train `network` in place, or go on where a training in `folder` was stopped; on return it holds the best weights.

    `images` uint8 (N, S, S), may be a memory map; `labels` int (N,), 0 or 1; `ids` N names, for messages; `parts` index
    arrays "train" and "validation" (others are left alone). `folder` gets history.csv and last.pt after every epoch and
    best.pt after one that is the best so far, the checkpoints while the next epoch trains; `config` is stored with
    them and with the precision, and one with another config is refused (checkpoint.CheckpointMismatch). `progress` gets
    one line per epoch, one before the first where a step is compiled, and one when interrupted. In fp32 torch's own
    TF32 settings hold.

    A batch of one sample has no batch statistics, so a last batch of one joins the batch before it. ValueError for
    arrays that do not fit together; TrainingDiverged, with the ids of the batch, for a loss that is NaN or infinite;
    folder.FolderBusy when another process trains here. After an interrupt the same call, with the network as it was
    built, goes on.
    """
    device, precision = torch.device(device), step.choose_precision(settings.precision, device)
    parts = {part: np.array(parts.get(part, ()), dtype=np.int64) for part in ("train", "validation")}
    _check(images, np.asarray(labels), ids, parts)
    generators = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with ONE_AT_A_TIME, claim(folder), generators, ThreadPoolExecutor(1) as writer:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)  # the record tells the peak of this training
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        run = _Run(
            network=network,
            optimiser=step.make_optimiser(network, settings),
            fetch=step.make_fetch(images, device),
            labels=np.asarray(labels, dtype=np.int64),
            ids=ids,
            parts=parts,
            settings=settings,
            augmentation=augmentation,
            seed=seed,
            device=device,
            precision=precision,
            folder=folder,
            # half a training in each of two precisions is neither
            config=paths.plain(config) | {"precision": precision},
            writer=writer,
        )
        _resume(run)
        try:
            _train_epochs(run, progress)
            _wait_until_written(run)
        except KeyboardInterrupt:
            writer.shutdown()  # waits for what is being written
            progress(_where_to_go_on(run))
            raise
        run.copied = None
        _load_best(run)
    return History(tuple(run.epochs), len(parts["train"]))


def predict(
    network: nn.Module,
    images: np.ndarray,
    indices: np.ndarray,
    batch_size: int,
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """Probability of malignant, float64 (n,), of the images (uint8 (N, S, S)) at `indices` (n,), in their order.

    Leaves the network on `device` and in evaluation mode. Cases that tie have no order: so it computes in fp32 (on CUDA
    with TF32 where torch's own settings have it, which for convolutions is their default), never in bf16, whose logits
    are coarse, and gives float64: in float32 every case whose logits differ by 17 or more would have a probability of
    1; in float64 it takes 37.
    """
    device = torch.device(device)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    fetch = step.make_fetch(images, device)
    logits = step.logits(network, fetch, np.array(indices), batch_size, "fp32")
    probabilities: np.ndarray = logits.double().softmax(1)[:, 1].numpy()
    return probabilities


def _check(images: np.ndarray, labels: np.ndarray, ids: Sequence[str], parts: Mapping[str, np.ndarray]) -> None:
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1] != images.shape[2]:
        raise ValueError(f"images must be uint8 (N, S, S): got {images.dtype} {images.shape}")
    if not len(images) == len(labels) == len(ids):
        raise ValueError(f"{len(images)} images, {len(labels)} labels and {len(ids)} ids: there must be one of each")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1: got {sorted(set(labels.tolist()))}")
    for part, least in (("train", 2), ("validation", 1)):
        if len(parts[part]) < least:
            raise ValueError(f"part {part!r} has {len(parts[part])} images: at least {least} are needed")
        if parts[part].min() < 0 or parts[part].max() >= len(images):
            raise ValueError(f"part {part!r} has indices outside the {len(images)} images: make the split again")


# ----------------------------------------------------------------------------- epochs


def _train_epochs(run: _Run, progress: Callable[[str], None]) -> None:
    rule = schedule.plateau(run.optimiser, run.settings, run.epochs)
    eager = step.make_step(run.network, run.optimiser, run.precision)
    full, size = eager, run.settings.batch_size
    kind = kind_of_step(run.settings, len(run.parts["train"]), run.device)
    if kind != step.EAGER and not schedule.finished(run.epochs, run.settings):
        if kind == step.COMPILED:
            progress("preparing the training step: one to two minutes where it is compiled for the first time")
        run.network.train()
        images = run.fetch(run.parts["train"][:size])
        full = step.make_captured(run.network, run.optimiser, run.precision, images, kind == step.COMPILED)
    while not schedule.finished(run.epochs, run.settings):
        started = perf_counter()
        learning_rate = schedule.learning_rate(run.optimiser)
        trained = _train_epoch(run, lambda *batch: (full if len(batch[0]) == size else eager)(*batch))
        validated = _validate(run)
        run.epochs.append(
            Epoch(len(run.epochs) + 1, learning_rate, *trained, *validated, seconds=perf_counter() - started)
        )
        rule.step(run.epochs[-1].validation_accuracy)
        _save(run)
        progress(schedule.describe(run.epochs, run.settings))


def _train_epoch(run: _Run, train_step: step.Step) -> tuple[float, float]:
    """One pass over the training part: mean loss and accuracy."""
    epoch = len(run.epochs) + 1
    run.network.train()
    order = np.random.default_rng((run.seed, epoch, 0)).permutation(run.parts["train"])
    batches = split_batches(order, run.settings.batch_size)
    results = torch.zeros(len(batches), 2, device=run.device)
    generator = torch.Generator()  # on the CPU, so that every device sees the same augmentation
    for number, batch in enumerate(bar(batches, f"epoch {epoch}", leave=False), start=1):
        for_dropout, for_augmentation = step_seeds(run.seed, epoch, number)
        torch.manual_seed(for_dropout)
        parameters = augment.draw(len(batch), run.augmentation, generator.manual_seed(for_augmentation))
        matrices = step.send(augment.affine_matrices(parameters), run.device)
        labels = step.send(torch.from_numpy(run.labels[batch]), run.device)
        results[number - 1] = train_step(run.fetch(batch), matrices, labels)
    losses, right = results.cpu().double().unbind(1)  # the only wait for the device in a pass
    finite = losses.isfinite()
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise _diverged(f"training loss is {losses[first]:g} in epoch {epoch}, step {first + 1}", run, batches[first])
    sizes = torch.tensor([len(batch) for batch in batches])
    return float((losses * sizes).sum() / sizes.sum()), float(right.sum() / sizes.sum())


def _validate(run: _Run) -> tuple[float, float, float]:
    """Loss, accuracy and AUC of the validation part."""
    indices = run.parts["validation"]
    batch_size = EVALUATION_BATCHES * run.settings.batch_size
    logits = step.logits(run.network, run.fetch, indices, batch_size, run.precision).double()
    labels = torch.from_numpy(run.labels[indices])
    losses = cross_entropy(logits, labels, reduction="none")
    finite = losses.isfinite()
    if not finite.all():
        bad = indices[~finite.numpy()][:batch_size]
        raise _diverged(f"validation loss is not finite in epoch {len(run.epochs) + 1}", run, bad)
    accuracy = (logits.argmax(1) == labels).double().mean()
    both = len(labels.unique()) == 2
    auc = roc_auc_score(labels.numpy(), (logits[:, 1] - logits[:, 0]).numpy()) if both else float("nan")
    return float(losses.mean()), float(accuracy), float(auc)


def _diverged(what: str, run: _Run, batch: np.ndarray) -> TrainingDiverged:
    names = ", ".join(run.ids[index] for index in batch)
    return TrainingDiverged(f"{what} (images {names}): look at these images, or lower the learning rate")


def split_batches(order: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut `order` into batches of `size`; the last may be smaller, but one sample alone joins the batch before it."""
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches


def kind_of_step(settings: Training, images: int, device: str | torch.device) -> str:
    """step.EAGER, CAPTURED or COMPILED: how full batches of a training on so many images run on `device`.

    Compiled where its epoch cap is long enough, so that a resumed training does as a whole one; one that stops
    early may then lose time. Not where torch was told not to compile (TORCH_COMPILE_DISABLE=1).
    """
    if torch.device(device).type != "cuda" or images < settings.batch_size:
        return step.EAGER
    long = settings.max_epochs * images // settings.batch_size >= step.COMPILE_FROM
    return step.COMPILED if long and not torch._dynamo.config.disable else step.CAPTURED


def step_seeds(seed: int, epoch: int, number: int) -> tuple[int, int]:
    """Two independent 64-bit seeds of one step (from 1), for dropout and for augmentation."""
    first, second = np.random.SeedSequence((seed, epoch, number)).generate_state(2, np.uint64)
    return int(first), int(second)


# ----------------------------------------------------------------------------- files and messages


def _save(run: _Run) -> None:
    """Write the history, and have the checkpoints written from a copy while the next epoch changes what is copied here.

    One epoch is written at a time. One that takes longer to write than the next takes to train is waited for.
    """
    _write_history(run)
    _wait_until_written(run)
    tensors = {"network": run.network.state_dict(), "optimiser": run.optimiser.state_dict()["state"]}
    run.copied = checkpoint.host_copy(tensors, run.copied)
    rows = [asdict(row) for row in run.epochs]
    state = {"config": run.config, "epoch": len(rows), "epochs": rows, **run.copied}
    run.written = run.writer.submit(_write, run, state)


def _wait_until_written(run: _Run) -> None:
    """Raises what went wrong in writing."""
    if run.written is not None:
        run.written.result()


def _write(run: _Run, state: Mapping[str, Any]) -> None:
    """Last, then best: `_resume` mends what a crash between the two leaves behind, and a history that is ahead."""
    checkpoint.save(run.folder / LAST, state)
    _write_best(run.folder, state)
    run.saved = state["epoch"]


def _write_best(folder: Path, state: Mapping[str, Any]) -> None:
    """When the state is that of the best epoch so far."""
    epochs = [Epoch(**row) for row in state["epochs"]]
    if epochs[-1] is schedule.best(epochs):
        best = {key: state[key] for key in ("config", "epoch", "network")}
        checkpoint.save(folder / BEST, best, keep_previous=False)


def _write_history(run: _Run) -> None:
    paths.write_table(pd.DataFrame(run.epochs), run.folder / HISTORY)


def _resume(run: _Run) -> None:
    """Take network, optimiser and epochs from last.pt, if there is one. The plateau follows from the epochs."""
    if not checkpoint.exists(run.folder / LAST):
        (run.folder / HISTORY).unlink(missing_ok=True)  # of epochs that were killed before the first checkpoint
        return
    state = checkpoint.load(run.folder / LAST, run.config)
    run.network.load_state_dict(state["network"])
    run.optimiser.load_state_dict(run.optimiser.state_dict() | {"state": state["optimiser"]})
    run.epochs = [Epoch(**row) for row in state["epochs"]]
    run.saved = len(run.epochs)
    _write_best(run.folder, state)
    _write_history(run)


def _where_to_go_on(run: _Run) -> str:
    place = f"from the end of epoch {run.saved}" if run.saved else "from the beginning"
    failure = run.written.exception() if run.written is not None else None
    lost = f" (what came after could not be written: {failure})" if failure is not None else ""
    count = len(run.epochs)
    when = f"in epoch {count + 1}" if count < run.settings.max_epochs else "after its last epoch"
    return f"interrupted {when}: the same call goes on {place}{lost}"


def _load_best(run: _Run) -> None:
    state = checkpoint.load(run.folder / BEST, run.config)
    if state["epoch"] != schedule.best(run.epochs).epoch:
        raise checkpoint.CheckpointDamaged(
            f"{run.folder / BEST} is of epoch {state['epoch']}, but the best in {HISTORY} is "
            f"{schedule.best(run.epochs).epoch}: delete the folder and train this cell again"
        )
    run.network.load_state_dict(state["network"])
