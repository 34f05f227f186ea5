"""How long the paper's 18 cells take at their full epoch caps, extrapolated from measured epochs.

    python benchmarks/matrix.py [--device cuda] [--workers 6] [--epochs 3] [--batches N] [--out results/benchmarks/...]

Random arrays as large as CBIS-DDSM's sets P (1696 masses, 8 patches each, 224 x 224) and G (1592 images, 512 x 512),
cut as section 2.5 says, are trained by `loop.train` as the paper trains, `workers` cells at a time, each in a process
of `experiments.Processes`, all on the one device. A cell of G takes as long from patch as from ImageNet weights: every
network is measured once a stage. An epoch is the median of those after the first (which loads libraries), its time
includes the validation part and what is waited for its checkpoint; early stops, which would end most cells sooner, are
off. A cell's time is that of its epochs and what came before the first: data to the device, and on CUDA capturing and
compiling. The whole is the time after which the last of the 18 cells ends when `workers` of them run at once and a cell
from patch weights waits for its P cell.

On a CPU an epoch is measured on a few batches (`--batches`) and scaled up by its number of images; the wait for its
checkpoint is not, which is longer here than after a whole epoch. The table says so.
"""

import heapq
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import tables
import torch

from mammo_lib import config
from mammo_lib.training import experiments
from mammo_lib.training.experiments import Cell, Outcome
from mammo_lib.training.folder import HISTORY
from mammo_lib.training.schedule import format_seconds

PAPER = config.PROFILES["paper"]
COUNTS = {"P": 1696 * PAPER.patches.centres, "G": 1592}  # images of CBIS-DDSM's mass set, its masses times the patches
SHARES = {"P": PAPER.split.patch_shares, "G": PAPER.split.global_shares}
ENDS = "ends.npy"
BAR_MINUTES = 60  # on one GPU of the H200's class


def paper_cells() -> list[Cell]:
    """The 18 of Tables 1 and 2: what we train besides is not the paper's."""
    printed = {(row.stage, row.network, row.initial) for row in config.PUBLISHED}
    return [
        cell for cell in experiments.matrix("as_written", PAPER) if (cell.stage, cell.network, cell.initial) in printed
    ]


def sizes_of_parts(stage: str, batches: int | None) -> tuple[dict[str, int], float]:
    """Images of the train and validation parts that are measured, and how many times larger the paper's are."""
    whole = {part: round(COUNTS[stage] * share) for part, share in zip(config.PARTS, SHARES[stage], strict=True)}
    train = whole["train"]
    measured = train if batches is None else min(train, batches * PAPER.training(stage).batch_size)
    return {"train": measured, "validation": max(1, round(whole["validation"] * measured / train))}, train / measured


def write_arrays(folder: Path, batches: int | None) -> None:
    """Sets P and G as a run finds them: uint8 files that are mapped into memory."""
    rng = np.random.default_rng(0)
    for stage in COUNTS:
        size = PAPER.size(stage)
        count = sum(sizes_of_parts(stage, batches)[0].values())
        np.save(folder / f"{stage}.npy", rng.integers(0, 256, (count, size, size), dtype=np.uint8))


def train(folder: Path, device: str, epochs: int, batches: int | None, cell: Cell) -> Outcome:
    """Train a cell for some epochs; when it began, and when each of them ended, stays in `folder`."""
    from mammo_lib.models import networks
    from mammo_lib.training import loop, step

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # torch was imported before `Processes` could say so
    images = np.load(folder / f"{cell.stage}.npy", mmap_mode="r")
    parts = sizes_of_parts(cell.stage, batches)[0]
    order = np.arange(len(images))
    whole = sizes_of_parts(cell.stage, None)[0]["train"]
    if loop.kind_of_step(PAPER.training(cell.stage), whole, device) == step.COMPILED:
        step.COMPILE_FROM = 0  # also where a few epochs of it alone would not be
    settings = replace(PAPER.training(cell.stage), max_epochs=epochs, stop_patience=epochs + 1)

    def note(line: str) -> None:
        if line.startswith("epoch "):
            ends.append(perf_counter())

    network = networks.build(cell.network, size=PAPER.size(cell.stage))
    ends = [perf_counter()]
    loop.train(
        network,
        images,
        order % 2,
        [str(index) for index in order],
        {"train": order[: parts["train"]], "validation": order[parts["train"] :]},
        settings,
        PAPER.augmentation,
        cell.seed,
        folder / cell.name,
        {"cell": cell.name},
        device,
        progress=note,
    )
    np.save(folder / cell.name / ENDS, ends)
    return Outcome(cell, "done")


def measured_seconds(folder: Path, cell: Cell, batches: int | None) -> tuple[float, float]:
    """Before the first epoch, and of a whole epoch, from those after it; the wait for a checkpoint is not scaled up."""
    whole = np.diff(np.load(folder / cell.name / ENDS))
    trained = pd.read_csv(folder / cell.name / HISTORY)["seconds"].to_numpy()  # and validated, no more
    before, *others = whole - trained
    epochs = trained[1:] * sizes_of_parts(cell.stage, batches)[1] + others
    return float(before), float(np.median(epochs))


def makespan(cells: Sequence[Cell], seconds: Mapping[Cell, float], workers: int) -> float:
    """When the last cell ends: `workers` at once, in the given order, a child not before its parent's end."""
    free, ends = [0.0] * workers, dict[Cell, float]()
    for cell in cells:
        start = max(heapq.heappop(free), ends.get(cell.parent, 0.0) if cell.parent else 0.0)
        ends[cell] = start + seconds[cell]
        heapq.heappush(free, ends[cell])
    return max(ends.values())


def main() -> None:
    parser = tables.parser(__doc__ or "", "matrix")
    parser.add_argument("--workers", type=int, help="cells at a time (6 on CUDA, 1 on a CPU)")
    parser.add_argument("--epochs", type=int, default=3, help="measured of each cell, at least 2")
    parser.add_argument("--batches", type=int, help="of an epoch that are measured (all on CUDA, 1 on a CPU)")
    arguments = parser.parse_args()
    if arguments.epochs < 2:
        parser.error("--epochs: at least 2, the first is not measured")
    cuda = torch.device(arguments.device).type == "cuda"
    workers, batches = arguments.workers or (6 if cuda else 1), arguments.batches or (None if cuda else 1)
    cells = paper_cells()
    measured = {(cell.stage, cell.network): cell for cell in cells}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_arrays(folder, batches)
        job = partial(train, folder, arguments.device, arguments.epochs, batches)
        alone = [replace(cell, initial="scratch") for cell in measured.values()]
        with experiments.Processes(workers) as executor:
            outcomes = experiments.run(alone, job, executor)
        failed = [outcome for outcome in outcomes if outcome.state != "done"]
        if failed:
            raise SystemExit(f"{failed[0].cell.name}: {failed[0].message}")
        taken = {(cell.stage, cell.network): measured_seconds(folder, cell, batches) for cell in alone}
    rows, whole = [], dict[Cell, float]()
    for cell in cells:
        (before, epoch), cap = taken[cell.stage, cell.network], PAPER.training(cell.stage).max_epochs
        whole[cell] = before + cap * epoch
        rows.append([cell.name, f"{before:.0f}", f"{epoch:.1f}", str(cap), format_seconds(whole[cell])])
    rows.append([f"all {len(cells)}, one after another", "", "", "", format_seconds(sum(whole.values()))])
    rows.append([f"all {len(cells)}, {workers} at a time", "", "", "", format_seconds(makespan(cells, whole, workers))])
    scaled = "" if batches is None else f" SCALED UP from {batches} batches an epoch, not measured whole."
    what = f"The paper's cells at full epoch caps, EXTRAPOLATED from {arguments.epochs} epochs of each.{scaled} "
    what += f"{workers} cells at a time; bar on an H200-class GPU: {BAR_MINUTES} min."
    header = ["cell", "before the first epoch, s", "an epoch, s", "epochs", "time"]
    tables.write("matrix", arguments, what, header, rows)


if __name__ == "__main__":
    main()
