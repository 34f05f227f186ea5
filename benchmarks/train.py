"""Training steps side by side in one run: ours, and the pipeline most people would write, for ResNet50+CBAM at P and G.

The common pipeline: PNG files, Dataset and DataLoader with worker processes, torchvision v2 transforms of each sample,
float32 (with TF32 on CUDA). Both train the same network with the same optimiser on the same random greys; each number
is the median over repeats, and the two take turns, so that a busy machine slows both. Prints a Markdown table and
writes it to results/benchmarks/train_<device>.md.

    python benchmarks/train.py [--device cuda] [--repeats 5]

On a CPU sizes and counts are scaled down, and the table says so.
"""

import argparse
import os
import platform
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from mammo_lib import config, paths
from mammo_lib.config import Training
from mammo_lib.models import networks
from mammo_lib.training import augment, loop, step


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    stage: str
    size: int  # pixels
    training: Training
    images: int  # per repeat


def cases(device: torch.device) -> list[Case]:
    paper = config.PROFILES["paper"]
    if device.type == "cuda":
        return [
            Case("P", paper.patches.size, paper.patch_training, 32 * 64),
            Case("G", paper.globals.size, paper.global_training, 4 * 64),
        ]
    return [
        Case("P", 96, replace(paper.patch_training, batch_size=8), 8 * 4),
        Case("G", 192, paper.global_training, 4 * 4),
    ]


def build(case: Case, device: torch.device) -> nn.Module:
    return networks.build(config.PROPOSED, size=case.size).to(device)


# ----------------------------------------------------------------------------- the two pipelines


def our_epoch(case: Case, images: np.ndarray, labels: np.ndarray, device: torch.device) -> Callable[[], object]:
    """One pass over the images by the parts that `loop.train` is made of, captured where it would be."""
    network = build(case, device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser, fetch = step.make_optimiser(network, case.training), step.make_fetch(images, device)
    network.train()
    train_step = step.make_step(network, optimiser, step.choose_precision(None, device))
    if device.type == "cuda":
        train_step = step.capture(train_step, network, optimiser, fetch(np.arange(case.training.batch_size)))
    settings, generator = config.Augmentation(), torch.Generator()

    def epoch() -> None:
        for batch in loop.split_batches(np.random.default_rng(0).permutation(len(images)), case.training.batch_size):
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


def common_transform() -> v2.Transform:
    """Section 2.3 with torchvision's transforms, ranges as ours."""
    ranges = config.Augmentation()
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(ranges.horizontal_flip),
            v2.RandomVerticalFlip(ranges.vertical_flip),
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomAffine(
                degrees=ranges.rotation_degrees,
                scale=ranges.zoom,
                shear=ranges.shear_degrees,
                interpolation=v2.InterpolationMode.BILINEAR,
            ),
            v2.Normalize(config.NORMALISE_MEAN, config.NORMALISE_STD),
        ]
    )


def common_epoch(case: Case, files: list[Path], labels: np.ndarray, device: torch.device) -> Callable[[], object]:
    network, cuda = build(case, device).train(), device.type == "cuda"
    torch.backends.cuda.matmul.allow_tf32 = cuda  # convolutions use TF32 by default
    rates = {"lr": case.training.learning_rate}
    optimiser = (
        torch.optim.Adam(network.parameters(), **rates)
        if case.training.optimiser == "adam"
        else torch.optim.SGD(network.parameters(), momentum=case.training.momentum, **rates)
    )
    loader = DataLoader(
        Files(files, labels, common_transform()),
        batch_size=case.training.batch_size,
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


# ----------------------------------------------------------------------------- augmentation alone


def our_augmentation(case: Case, images: np.ndarray, device: torch.device) -> Callable[[], object]:
    batch, generator = torch.from_numpy(images[: case.training.batch_size]).to(device), torch.Generator()
    return lambda: augment.normalise(augment.augment(batch, config.Augmentation(), generator))


def common_augmentation(case: Case, images: np.ndarray) -> Callable[[], object]:
    """Per sample, in this process."""
    batch, transform = torch.from_numpy(images[: case.training.batch_size]), common_transform()
    return lambda: torch.stack([transform(image.expand(3, -1, -1)) for image in batch])


# ----------------------------------------------------------------------------- measuring


def in_turns(calls: list[Callable[[], object]], repeats: int, device: torch.device) -> list[float]:
    """Median seconds of each call, after one warm-up; the calls take turns."""
    seconds: list[list[float]] = [[] for _ in calls]
    for repeat in range(repeats + 1):
        for number, call in enumerate(calls):
            synchronise(device)
            started = perf_counter()
            call()
            synchronise(device)
            if repeat:
                seconds[number].append(perf_counter() - started)
    return [statistics.median(times) for times in seconds]


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(case: Case, device: torch.device, repeats: int, folder: Path) -> list[str]:
    """Rows of the table for one stage."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (case.images, case.size, case.size), dtype=np.uint8)
    labels = rng.integers(0, 2, case.images)
    files = [folder / f"{case.stage}{index}.png" for index in range(case.images)]
    for file, image in zip(files, images, strict=True):
        cv2.imwrite(str(file), image)
    ours, common = in_turns(
        [our_epoch(case, images, labels, device), common_epoch(case, files, labels, device)], repeats, device
    )
    batch = case.training.batch_size
    augmentation, common_one = in_turns(
        [our_augmentation(case, images, device), common_augmentation(case, images)], max(repeats, 20), device
    )
    return [
        row(f"{case.stage}: training, {case.size} x {case.size}, batch {batch}", case.images, ours, common),
        row(
            f"{case.stage}: augmentation alone, {case.size} x {case.size}, batch {batch}",
            batch,
            augmentation,
            common_one,
        ),
    ]


def row(what: str, images: int, ours: float, common: float) -> str:
    return f"| {what} | {images / ours:.1f} | {images / common:.1f} | {common / ours:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    scaled = "the paper's sizes" if device.type == "cuda" else "sizes and batches SCALED DOWN for the CPU"
    lines = [
        f"ResNet50+CBAM on {name}; {scaled}; torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"Python {platform.python_version()}; medians of {arguments.repeats} repeats taken in turns.",
        "",
        "| what | ours, images/s | common pipeline, images/s | ratio |",
        "|---|---|---|---|",
    ]
    for case in cases(device):
        with tempfile.TemporaryDirectory() as folder:
            lines += measure(case, device, arguments.repeats, Path(folder))
    text = "\n".join(lines) + "\n"
    print(text)
    paths.write_text(paths.repository() / "results" / "benchmarks" / f"train_{device.type}.md", text)


if __name__ == "__main__":
    main()
