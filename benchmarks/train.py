"""Training steps side by side in one run: ours, and the pipeline most people would write, for ResNet50+CBAM at P and G.

    python benchmarks/train.py [--device cuda] [--repeats 5] [--batches 4] [--out results/benchmarks/train_cpu.md]

At the paper's sizes: P 224 x 224 in batches of 32, G 512 x 512 in batches of 4. The common pipeline: PNG files, Dataset
and DataLoader with worker processes, torchvision v2 transforms of each sample, float32 (with TF32 on CUDA). All train
the same network with the same optimiser on the same random greys. Each number is the median over repeats of one pass
over `batches` batches, and the ways take turns, so that a busy machine slows all; on a CPU ours runs in float32, as it
does unless asked otherwise, and in bfloat16.

Share of peak: the model's operations (forward and backward, as torch counts them) per second, over those of large
matrix products in the same precision on the same device in the same run. Memory: the peak of a process that does
nothing else (on CUDA of torch's allocator), worker processes not counted.
"""

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tables
import torch
from augment import usual_transform
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from mammo_lib import config
from mammo_lib.models import networks
from mammo_lib.training import augment, loop, records, step

COMMON = "common pipeline"
MATRIX = {"cuda": 8192, "cpu": 2048}  # rows of the square matrices whose product is the peak


@dataclass(frozen=True)
class Data:
    """The same images twice: as an array and as PNG files."""

    images: np.ndarray  # uint8 (N, S, S)
    labels: np.ndarray
    files: list[Path]


PAPER, STAGES = config.PROFILES["paper"], ("P", "G")


def make_data(stage: str, batches: int, folder: Path) -> Data:
    rng, count, size = np.random.default_rng(0), batches * PAPER.training(stage).batch_size, PAPER.size(stage)
    images = rng.integers(0, 256, (count, size, size), dtype=np.uint8)
    files = [folder / f"{stage}{index}.png" for index in range(count)]
    for file, image in zip(files, images, strict=True):
        cv2.imwrite(str(file), image)
    return Data(images, rng.integers(0, 2, count), files)


def build(stage: str, device: torch.device) -> nn.Module:
    return networks.build(config.PROPOSED, size=PAPER.size(stage)).to(device)


# ----------------------------------------------------------------------------- the two pipelines


def our_epoch(stage: str, data: Data, device: torch.device, precision: str) -> Callable[[], object]:
    """One pass over the images by the parts that `loop.train` is made of, captured where it would be."""
    images, labels, training = data.images, data.labels, PAPER.training(stage)
    network = build(stage, device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser, fetch = step.make_optimiser(network, training), step.make_fetch(images, device)
    network.train()
    if device.type == "cuda":
        train_step = step.make_captured(network, optimiser, precision, fetch(np.arange(training.batch_size)))
    else:
        train_step = step.make_step(network, optimiser, precision)
    settings, generator = config.Augmentation(), torch.Generator()

    def epoch() -> None:
        for batch in loop.split_batches(np.random.default_rng(0).permutation(len(images)), training.batch_size):
            matrices = step.send(augment.affine_matrices(augment.draw(len(batch), settings, generator)), device)
            train_step(fetch(batch), matrices, step.send(torch.from_numpy(labels[batch]), device))

    return epoch


class Files(Dataset[tuple[Tensor, int]]):
    """PNG files and their labels, one transformed sample at a time."""

    def __init__(self, files: list[Path], labels: np.ndarray, transform: v2.Transform) -> None:
        self.files, self.labels, self.transform = files, labels, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = decode_image(str(self.files[index]), ImageReadMode.RGB)
        return self.transform(image), int(self.labels[index])


def common_epoch(stage: str, data: Data, device: torch.device) -> Callable[[], object]:
    network, training, cuda = build(stage, device).train(), PAPER.training(stage), device.type == "cuda"
    rates = {"lr": training.learning_rate}
    optimiser = (
        torch.optim.Adam(network.parameters(), **rates)
        if training.optimiser == "adam"
        else torch.optim.SGD(network.parameters(), momentum=training.momentum, **rates)
    )
    loader = DataLoader(
        Files(data.files, data.labels, usual_transform(config.Augmentation())),
        batch_size=training.batch_size,
        shuffle=True,
        num_workers=min(16, os.cpu_count() or 1),
        pin_memory=cuda,
        persistent_workers=True,
    )

    def epoch() -> None:
        for images, targets in loader:
            optimiser.zero_grad()
            output = network(images.to(device, non_blocking=True))
            nn.functional.cross_entropy(output, targets.to(device, non_blocking=True)).backward()
            optimiser.step()

    return epoch


# ----------------------------------------------------------------------------- measuring


def ways(device: torch.device) -> dict[str, str]:
    """What is compared, with its precision: ours first, the common pipeline last."""
    ours = {"ours, bf16": "bf16"} if device.type == "cuda" else {"ours, fp32": "fp32", "ours, bf16": "bf16"}
    return ours | {f"{COMMON}, {'TF32' if device.type == 'cuda' else 'fp32'}": "fp32"}


def epoch_of(way: str, precision: str, stage: str, data: Data, device: torch.device) -> Callable[[], object]:
    if way.startswith(COMMON):
        return common_epoch(stage, data, device)
    return our_epoch(stage, data, device, precision)


def peak_memory(way: str, precision: str, stage: str, data: Data, device: torch.device) -> float:
    """GB; to be called in a process of its own."""
    epoch_of(way, precision, stage, data, device)()
    return records.peak_memory(str(device)) / 1e9


def peaks(stage: str, data: Data, device: torch.device) -> list[float]:
    """GB of every way; to be called while this process is small, since a child's peak starts from its parent's."""
    spawn, compared = multiprocessing.get_context("spawn"), ways(device)
    with ProcessPoolExecutor(len(compared), spawn, max_tasks_per_child=1) as alone:  # a process each
        jobs = [alone.submit(peak_memory, *way, stage, data, device) for way in compared.items()]
        return [job.result() for job in jobs]


def operations(stage: str) -> float:
    """Floating-point operations of the model for one image, forward and backward."""
    size = PAPER.size(stage)
    network, two = build(stage, torch.device("meta")), torch.zeros(2, 3, size, size, device="meta")
    with FlopCounterMode(display=False) as counter:
        network(two).sum().backward()
    return counter.get_total_flops() / 2


def matrix_rate(precision: str, device: torch.device) -> float:
    """Operations per second of a large matrix product."""
    size = MATRIX[device.type]
    one = torch.randn(size, size, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    return 2 * size**3 / tables.in_turns([lambda: one @ one], 10, device)[0]


def measure(stage: str, data: Data, device: torch.device, repeats: int, memory: list[float]) -> list[list[str]]:
    """Rows of the table for one stage; `memory`: GB of every way."""
    compared, size = ways(device), PAPER.size(stage)
    calls = [epoch_of(way, precision, stage, data, device) for way, precision in compared.items()]
    rates = [len(data.images) / seconds for seconds in tables.in_turns(calls, repeats, device)]
    work, about = operations(stage), f"{stage}: {size} x {size}, batch {PAPER.training(stage).batch_size}"
    rows = []
    for (way, precision), rate, peak in zip(compared.items(), rates, memory, strict=True):
        share = rate * work / matrix_rate(precision, device)
        rows.append([about, way, f"{rate:.2f}", f"{rate / rates[-1]:.2f}", f"{share:.0%}", f"{peak:.2f}"])
    return rows


def main() -> None:
    parser = tables.parser(__doc__ or "", "train")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", type=int, help="in a pass (64 on CUDA, 4 on a CPU)")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.backends.cuda.matmul.allow_tf32 = True  # as most people have it; ours runs in bfloat16
    batches = arguments.batches or (64 if device.type == "cuda" else 4)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = [make_data(stage, batches, Path(folder)) for stage in STAGES]
        memory = [peaks(stage, its, device) for stage, its in zip(STAGES, data, strict=True)]
        for stage, its, gigabytes in zip(STAGES, data, memory, strict=True):
            rows += measure(stage, its, device, arguments.repeats, gigabytes)
    what = f"Training ResNet50+CBAM at the paper's sizes; medians of {arguments.repeats} passes over {batches} batches."
    header = ["stage", "way", "images/s", "times the common pipeline", "share of peak", "peak memory, GB"]
    tables.write("train", arguments, what, header, rows)


if __name__ == "__main__":
    main()
