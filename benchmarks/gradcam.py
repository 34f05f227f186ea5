"""Maps per second: `gradcam.heat_maps`, batched, against the package used plainly, one image at a time; in one run.

    python benchmarks/gradcam.py [--networks resnet50_cbam vgg16] [--size 224] [--images 16] [--batch 8] [--threads 2]

Both do the same images on the same device, in turn, and must agree. Memory is the peak above what the process held
before, of a process of its own for each. Beside it: the time of a click on a file of one's own, and, where Chromium and
its driver are there, the time from opening notebook 07 to its first picture. Prints a Markdown table and writes it to
results/benchmarks/gradcam_<device>.md.
"""

import argparse
import multiprocessing
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from mammo_lib import paths
from mammo_lib.config import PROPOSED
from mammo_lib.evaluation import gradcam
from mammo_lib.models import networks

ROOT = Path(__file__).parent.parent
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


def seconds(job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()  # maps are in main memory when it returns: the device is done
    return time.perf_counter() - start


def peak_gb(name: str, options: argparse.Namespace, batched: bool) -> float:
    """Peak memory of one job above that of the network and its images; of the device, on CUDA."""
    torch.set_num_threads(options.threads)
    network, x = build(name, options)
    if x.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _ = gradcam.heat_maps(network, x, options.batch) if batched else plainly(network, x)
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


def measure(name: str, options: argparse.Namespace, held: Sequence[float]) -> str:
    """A row of the table: maps a second of both, their ratio, the memory of both (`held`)."""
    network, x = build(name, options)
    gradcam.heat_maps(network, x[:2])  # libraries load and choose their kernels outside the clock
    maps, expected = gradcam.heat_maps(network, x, options.batch), plainly(network, x)
    if np.abs(maps - expected).max() > AGREE:
        raise RuntimeError(f"{name}: the two maps differ by {np.abs(maps - expected).max():.1e}")
    jobs = [lambda: gradcam.heat_maps(network, x, options.batch), lambda: plainly(network, x)]
    rounds = [[seconds(job) for job in jobs] for _ in range(options.rounds)]  # in turn: both meet the same other load
    ratio = statistics.median(single / batched for batched, single in rounds)
    rates = [options.images / statistics.median(times) for times in zip(*rounds, strict=True)]
    return f"| {name} | {rates[0]:.2f} | {rates[1]:.2f} | {ratio:.2f} | {held[0]:.2f} | {held[1]:.2f} |"


def one_look(options: argparse.Namespace) -> float:
    """Seconds for score, Grad-CAM and gate of one image of 512 pixels, as the explorer asks for them; median."""
    network = networks.build(PROPOSED, size=512).eval().to(options.device)
    x = torch.randn(1, 3, 512, 512, device=options.device)
    gradcam.look(network, x)
    return statistics.median(seconds(lambda: gradcam.look(network, x)) for _ in range(options.rounds))


def first_picture() -> str:
    """What the browser tests measure: seconds from opening 07 to its first picture, on the tiny profile."""
    command = [sys.executable, "-m", "pytest", "-q", "-s", str(ROOT / "tests" / "test_browser.py")]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    found = re.findall(r"(lab|voila): ([\d.]+) s from opening to the first picture", output)
    return ", ".join(f"{where} {taken} s" for where, taken in found) or "not measured (no Chromium, or its test failed)"


def device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def report(options: argparse.Namespace) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "grad-cam", "numpy"))
    head = [
        f"{device_name(options.device)}, {options.threads} threads; Python {platform.python_version()}, {packages}.",
        f"{options.images} images of {options.size} pixels, batches of {options.batch}; median of {options.rounds} "
        "rounds, the two in turn. Memory: peak above network and images.",
        "",
        "| network | batched, maps/s | package one by one, maps/s | ratio | batched, GB | one by one, GB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    held = [memory(name, options) for name in options.networks]  # first: while this process is small
    rows = [measure(name, options, each) for name, each in zip(options.networks, held, strict=True)]
    look = f"Score, Grad-CAM and gate of one image of 512 pixels ({PROPOSED}): {one_look(options):.2f} s."
    opened = [] if options.no_browser else [f"From opening notebook 07 (tiny) to its first picture: {first_picture()}."]
    return "\n".join([*head, *rows, "", look, *opened]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["vgg16_cbam", "inception_v3_cbam", PROPOSED])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-browser", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    text = report(options)
    print(text)
    kind = options.device.split(":")[0]
    paths.write_text(options.out or ROOT / "results" / "benchmarks" / f"gradcam_{kind}.md", text)


if __name__ == "__main__":
    main()
