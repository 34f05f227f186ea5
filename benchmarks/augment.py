"""Time of the augmentation alone: ours (batched), torchvision v2 (per sample) and kornia (batched).

    python benchmarks/augment.py [--device cuda] [--rounds 30] [--out results/benchmarks/augment_cpu.md]

All make the same thing from the same uint8 array: augmented, normalised batches (N, 3, S, S) in fp32, on as many cores
as the process may use. Ours and kornia work where the device is. Rows of torchvision: its transforms one sample after
the other in this process (torch's threads = cores), and in a DataLoader with one worker process a core, on grey and, as
most people write it, on RGB images, all on the CPU. Rounds are interleaved; a row gives the median, the ratio is of
medians. kornia comes with the extra `benchmarks`; without it its row is empty. Wants an idle machine.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec

import numpy as np
import tables
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from mammo_lib import config
from mammo_lib.training.augment import affine_matrices, draw, normalise, warp

CORES = len(os.sched_getaffinity(0))
PAPER = config.PROFILES["paper"]
KORNIA = "kornia, batched"
BATCHES = 8  # a round: enough to keep all workers of a DataLoader busy


def usual_transform(settings: config.Augmentation) -> v2.Compose:
    """Section 2.3 as a chain of torchvision v2 transforms of one uint8 image (1 or 3, S, S), which is warped once."""
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(settings.horizontal_flip),
            v2.RandomVerticalFlip(settings.vertical_flip),
            v2.RandomAffine(
                settings.rotation_degrees,
                scale=settings.zoom,
                shear=settings.shear_degrees,
                interpolation=v2.InterpolationMode.BILINEAR,
            ),
            v2.ToDtype(torch.float32, scale=True),
            v2.RGB(),
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
        chosen = images[start : start + batch]
        matrices = affine_matrices(draw(len(chosen), config.Augmentation(), generator))
        yield normalise(warp(chosen, matrices.to(images.device, non_blocking=True)))


def one_by_one(images: Tensor, batch: int) -> Iterator[Tensor]:
    samples = Samples(images, channels=1)
    for start in range(0, len(images), batch):
        yield torch.stack([samples[index] for index in range(start, start + batch)])


def with_kornia(images: Tensor, batch: int) -> Iterator[Tensor]:
    """Its flips and its affine map, which draws for each sample and warps the batch."""
    from kornia import augmentation

    ranges = config.Augmentation()
    transform = augmentation.AugmentationSequential(
        augmentation.RandomHorizontalFlip(p=ranges.horizontal_flip),
        augmentation.RandomVerticalFlip(p=ranges.vertical_flip),
        augmentation.RandomAffine(
            ranges.rotation_degrees, scale=ranges.zoom, shear=ranges.shear_degrees, padding_mode="reflection", p=1.0
        ),
        augmentation.Normalize(list(config.NORMALISE_MEAN), list(config.NORMALISE_STD)),
    )
    for start in range(0, len(images), batch):
        grey = images[start : start + batch, None].float() / 255
        yield transform(grey.expand(-1, 3, -1, -1))


def consume(batches: Callable[[], Iterator[Tensor]]) -> None:
    for batch in batches():
        batch.flatten()[0].item()


def measure(stage: str, rounds: int, device: torch.device) -> list[list[str]]:
    """Rows of the table for one stage."""
    size, batch = PAPER.size(stage), PAPER.training(stage).batch_size
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (BATCHES * batch, size, size), dtype=np.uint8))
    resident = images.to(device)
    ways: dict[str, Callable[[], Iterator[Tensor]]] = {"ours, batched": lambda: ours(resident, batch)}
    if has_kornia():
        ways[KORNIA] = lambda: with_kornia(resident, batch)
    ways["torchvision v2, one by one, grey"] = lambda: one_by_one(images, batch)
    for name, channels in (("grey", 1), ("RGB", 3)):
        loader = DataLoader(Samples(images, channels), batch, num_workers=CORES, persistent_workers=True)
        ways[f"torchvision v2, DataLoader, {CORES} workers, {name}"] = loader.__iter__
    seconds = tables.in_turns([partial(consume, way) for way in ways.values()], rounds, device)
    about = f"{stage}: {size} x {size}, batch {batch}"
    rows = [
        [about, name, f"{taken / len(images) * 1e3:.3f}", f"{taken / seconds[0]:.2f}"]
        for name, taken in zip(ways, seconds, strict=True)
    ]
    return rows if has_kornia() else [*rows, [about, KORNIA, "not installed", ""]]


def has_kornia() -> bool:
    return find_spec("kornia") is not None


def main() -> None:
    parser = tables.parser(__doc__ or "", "augment")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(CORES)
    device = torch.device(arguments.device)
    rows = [row for stage in ("P", "G") for row in measure(stage, arguments.rounds, device)]
    what = f"Augmentation alone, medians of {arguments.rounds} rounds over {BATCHES} batches."
    tables.write("augment", arguments, what, ["stage", "way", "ms a sample", "times ours"], rows)


if __name__ == "__main__":
    main()
