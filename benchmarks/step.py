"""The training step in three ways: the network in it as it is, with cuDNN's search for algorithms, and compiled.

    python benchmarks/step.py [--networks resnet50_cbam vgg16 inception_v3] [--out results/benchmarks/step_cuda.md]

At the paper's sizes (P 224 x 224 in batches of 32, G 512 x 512 in batches of 4), on CUDA, in bfloat16, each captured as
a CUDA graph as in training. "Images/s" are those of a loop that also draws the augmentation and sends the batch, "of
the graph alone" those of replays without it: where the two agree, the host keeps up. Medians of three passes over 40
batches. `training/step.py` compiles for long trainings.
"""

from collections.abc import Callable
from time import perf_counter

import numpy as np
import tables
import torch

from mammo_lib import config
from mammo_lib.models import networks
from mammo_lib.training import augment, loop, step

PAPER = config.PROFILES["paper"]
WAYS = ("graph", "graph, cuDNN's search", "compiled, graph")
BATCHES, PASSES = 40, 3


def measure(stage: str, name: str, way: str, device: torch.device) -> list[str]:
    """A row of the table."""
    training, size = PAPER.training(stage), PAPER.size(stage)
    rng, count = np.random.default_rng(0), BATCHES * training.batch_size
    images = rng.integers(0, 256, (count, size, size), dtype=np.uint8)
    labels = rng.integers(0, 2, count)
    network = networks.build(name, size=size).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser, fetch = step.make_optimiser(network, training), step.make_fetch(images, device)
    first = fetch(np.arange(training.batch_size))
    torch.backends.cudnn.benchmark = way == WAYS[1]

    def ready() -> step.Step:
        if way == WAYS[2]:
            return step.make_captured(network, optimiser, "bf16", first)
        return step.capture(step.make_step(network, optimiser, "bf16"), network, optimiser, first)

    started = perf_counter()
    captured, generator = ready(), torch.Generator()
    tables.synchronise(device)
    preparing = perf_counter() - started

    def whole_pass() -> None:
        for batch in loop.split_batches(rng.permutation(count), training.batch_size):
            parameters = augment.draw(len(batch), config.Augmentation(), generator)
            matrices = step.send(augment.affine_matrices(parameters), device)
            captured(fetch(batch), matrices, step.send(torch.from_numpy(labels[batch]), device))

    def replays() -> None:
        for _ in range(BATCHES):
            captured.graph.replay()  # type: ignore[attr-defined]

    passes: list[Callable[[], None]] = [whole_pass, replays]
    rates = [f"{count / taken:.0f}" for taken in tables.in_turns(passes, PASSES, device)]
    about = f"{stage}: {size} x {size}, batch {training.batch_size}"
    return [about, config.NETWORK_LABELS[name], way, *rates, f"{preparing:.0f}"]


def main() -> None:
    parser = tables.parser(__doc__ or "", "step")
    parser.add_argument("--networks", nargs="+", default=["resnet50_cbam", "vgg16", "inception_v3"])
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type != "cuda":
        parser.error("a step is captured on CUDA only: run this where there is a GPU")
    header = ["stage", "network", "way", "images/s", "of the graph alone", "ready after, s"]
    rows = [measure(stage, name, way, device) for stage in ("P", "G") for name in arguments.networks for way in WAYS]
    tables.write("step", arguments, f"Training steps; medians of {PASSES} passes over {BATCHES} batches.", header, rows)


if __name__ == "__main__":
    main()
