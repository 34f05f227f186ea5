"""Time of the augmentation alone, ours (batched) against torchvision v2 (per sample), on the CPU.

    python benchmarks/augment.py [--rounds 30] [--out results/benchmarks/augment_cpu.csv]

All make the same thing from the same uint8 array: augmented, normalised batches (N, 3, S, S) in fp32 in this process,
on as many cores as the process may use. Rows of torchvision: its transforms one sample after the other in this process
(torch's threads = cores), and in a DataLoader with one worker process a core, on grey and, as most people write it, on
RGB images. Rounds are interleaved; a row gives the median, the ratio is of medians. Wants an idle machine.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torchvision
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from mammo_lib import config
from mammo_lib.training.augment import augment, normalise

CORES = len(os.sched_getaffinity(0))
STAGES = {"P": (224, 32), "G": (512, 4)}  # size in pixels, batch (2.2, 2.5)
BATCHES = 8  # a round: enough to keep all workers of a DataLoader busy


def usual_transform(settings: config.Augmentation) -> v2.Compose:
    """Section 2.3 as a chain of torchvision v2 transforms of one uint8 image (1 or 3, S, S)."""
    bilinear = v2.InterpolationMode.BILINEAR
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(settings.horizontal_flip),
            v2.RandomVerticalFlip(settings.vertical_flip),
            v2.RandomRotation(settings.rotation_degrees, interpolation=bilinear),
            v2.RandomAffine(0, scale=settings.zoom, shear=settings.shear_degrees, interpolation=bilinear),
            v2.ToDtype(torch.float32, scale=True),
            v2.Lambda(lambda image: image.expand(3, -1, -1)),
            v2.Normalize(config.NORMALISE_MEAN, config.NORMALISE_STD),
        ]
    )


class Samples(Dataset[Tensor]):
    """Images of an array, each transformed when asked for."""

    def __init__(self, images: Tensor, channels: int) -> None:
        self.images, self.channels = images, channels
        self.transform = usual_transform(config.Augmentation())

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        transformed: Tensor = self.transform(self.images[index].expand(self.channels, -1, -1))
        return transformed


def ours(images: Tensor, batch: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for start in range(0, len(images), batch):
        yield normalise(augment(images[start : start + batch], config.Augmentation(), generator))


def one_by_one(images: Tensor, batch: int) -> Iterator[Tensor]:
    samples = Samples(images, channels=1)
    for start in range(0, len(images), batch):
        yield torch.stack([samples[index] for index in range(start, start + batch)])


def seconds(batches: Callable[[], Iterator[Tensor]]) -> float:
    """Time to go through all batches."""
    start = time.perf_counter()
    for batch in batches():
        batch.flatten()[0].item()
    return time.perf_counter() - start


def measure(stage: str, rounds: int) -> pd.DataFrame:
    size, batch = STAGES[stage]
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (BATCHES * batch, size, size), dtype=np.uint8))
    ways: dict[str, Callable[[], Iterator[Tensor]]] = {
        "ours, batched": lambda: ours(images, batch),
        "torchvision v2, one by one, grey": lambda: one_by_one(images, batch),
    }
    for name, channels in (("grey", 1), ("RGB", 3)):
        loader = DataLoader(Samples(images, channels), batch, num_workers=CORES, persistent_workers=True)
        ways[f"torchvision v2, DataLoader, {CORES} workers, {name}"] = loader.__iter__
    for way in ways.values():  # starts the workers, fills the caches
        seconds(way)
    times = pd.DataFrame([{name: seconds(way) for name, way in ways.items()} for _ in range(rounds)])
    median = times.median() / len(images) * 1e3
    table = pd.DataFrame({"stage": stage, "size": size, "batch": batch, "ms_per_sample": median.round(3)})
    table["times_ours"] = (median / median.iloc[0]).round(2)
    return table.rename_axis("way").reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, help="write the table there, as CSV")
    arguments = parser.parse_args()
    torch.set_num_threads(CORES)
    table = pd.concat([measure(stage, arguments.rounds) for stage in STAGES], ignore_index=True)
    table["device"] = f"CPU, {platform.machine()}, {CORES} cores"
    table["versions"] = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    print(table.to_string(index=False))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(arguments.out, index=False)


if __name__ == "__main__":
    main()
