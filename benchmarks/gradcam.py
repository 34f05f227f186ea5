"""Maps per second: `gradcam.look`, batched, against the package used plainly, one image at a time; in one run.

    python benchmarks/gradcam.py [--networks resnet50_cbam vgg16] [--size 224] [--images 16] [--batch 8] [--threads 2]

Both do the same images on the same device, in turn, and must agree. Memory is the peak above what the process held
before, of a process of its own for each. Beside it: the time of a click on a file of one's own, and, where Chromium and
its driver are there, the time from opening notebook 07 to its first picture.
"""

import argparse
import multiprocessing
import re
import resource
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import tables
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from mammo_lib.config import PROPOSED
from mammo_lib.evaluation import gradcam
from mammo_lib.models import networks

ROOT = Path(__file__).parent.parent
PACKAGES = ("torch", "torchvision", "grad-cam", "numpy")
AGREE = 1e-3  # of 1: the largest difference of two maps that counts as the same


def plainly(network: networks.Classifier, x: torch.Tensor) -> np.ndarray:
    """The package as its own examples show it: a batch of one, gradients through every layer."""
    with GradCAM(network, [network.cam_target]) as cam:
        return np.concatenate([cam(image[None], [ClassifierOutputTarget(1)]) for image in x])


def build(name: str, options: argparse.Namespace) -> tuple[networks.Classifier, torch.Tensor]:
    """A random network whose maps are not empty (empty ones always agree), and its images."""
    network = networks.build(name, size=options.size).eval().to(options.device)
    with torch.no_grad():  # every channel speaks for malignant
        next(part for part in reversed(list(network.head.modules())) if isinstance(part, torch.nn.Linear)).weight.abs_()
    x = torch.randn(options.images, 3, options.size, options.size, generator=torch.Generator().manual_seed(0))
    return network, x.to(options.device)


def peak_gb(name: str, options: argparse.Namespace, batched: bool) -> float:
    """Peak memory of one job above that of the network and its images; of the device, on CUDA."""
    torch.set_num_threads(options.threads)
    network, x = build(name, options)
    if x.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _ = gradcam.look(network, x, options.batch).heat if batched else plainly(network, x)
    if x.is_cuda:
        return (torch.cuda.max_memory_allocated() - before) / 1e9
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e9


def memory(name: str, options: argparse.Namespace) -> list[float]:
    """`peak_gb` of both, each in a process of its own, whose peak starts from what this one has held until now."""
    found = []
    for batched in (True, False):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
            found.append(alone.submit(peak_gb, name, options, batched).result())
    return found


def measure(name: str, options: argparse.Namespace, held: Sequence[float]) -> list[str]:
    """A row of the table: maps a second of both, their ratio, the memory of both (`held`)."""
    network, x = build(name, options)
    maps, expected = gradcam.look(network, x, options.batch).heat, plainly(network, x)
    if np.abs(maps - expected).max() > AGREE:
        raise RuntimeError(f"{name}: the two maps differ by {np.abs(maps - expected).max():.1e}")
    jobs = [lambda: gradcam.look(network, x, options.batch).heat, lambda: plainly(network, x)]
    batched, single = tables.in_turns(jobs, options.rounds, x.device)
    rates = [f"{options.images / taken:.2f}" for taken in (batched, single)]
    return [name, *rates, f"{single / batched:.2f}", *(f"{gigabytes:.2f}" for gigabytes in held)]


def one_look(options: argparse.Namespace) -> float:
    """Seconds for score, Grad-CAM and gate of one image of 512 pixels, as the explorer asks for them; median."""
    network = networks.build(PROPOSED, size=512).eval().to(options.device)
    x = torch.randn(1, 3, 512, 512, device=options.device)
    return tables.in_turns([lambda: gradcam.look(network, x)], options.rounds, x.device)[0]


def first_picture() -> str:
    """What the browser tests measure: seconds from opening 07 to its first picture, on the tiny profile."""
    command = [sys.executable, "-m", "pytest", "-q", "-s", str(ROOT / "tests" / "test_browser.py")]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    found = re.findall(r"(lab|voila): ([\d.]+) s from opening to the first picture", output)
    return ", ".join(f"{where} {taken} s" for where, taken in found) or "not measured (no Chromium, or its test failed)"


def main() -> None:
    parser = tables.parser(__doc__ or "", "gradcam")
    parser.add_argument("--networks", nargs="+", default=["vgg16_cbam", "inception_v3_cbam", PROPOSED])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-browser", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    held = [memory(name, options) for name in options.networks]  # first: while this process is small
    rows = [measure(name, options, each) for name, each in zip(options.networks, held, strict=True)]
    what = (
        f"{options.images} images of {options.size} pixels, batches of {options.batch}; medians of {options.rounds} "
        "rounds, the two in turn. Memory: peak above network and images. Score, Grad-CAM and gate of one image of 512 "
        f"pixels ({PROPOSED}): {one_look(options):.2f} s."
    )
    if not options.no_browser:
        what += f" From opening notebook 07 (tiny) to its first picture: {first_picture()}."
    header = ["network", "batched, maps/s", "package one by one, maps/s", "ratio", "batched, GB", "one by one, GB"]
    tables.write("gradcam", options, what, header, rows, PACKAGES)


if __name__ == "__main__":
    main()
