"""Maps per second: `gradcam.heat_maps`, batched, against the package used plainly, one image at a time; one run.

    python benchmarks/gradcam.py [--network resnet50_cbam] [--size 224] [--images 16] [--batch 8] [--threads 2]

Both do the same images on the same device and must agree. Prints both rates, their ratio and the peak memory.
"""

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from mammo_lib.evaluation import gradcam
from mammo_lib.models import networks


def plainly(network: networks.Classifier, x: torch.Tensor) -> np.ndarray:
    """The package as its own examples show it: a batch of one, gradients through every layer."""
    with GradCAM(network, [network.cam_target]) as cam:
        return np.concatenate([cam(image[None], [ClassifierOutputTarget(1)]) for image in x])


def seconds(job: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    maps = job()  # in main memory: the device is done when it returns
    return time.perf_counter() - start, maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet50_cbam")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    network = networks.build(options.network, size=options.size).eval().to(device)
    with torch.no_grad():  # every channel speaks for malignant: random weights may give empty maps, which always agree
        next(part for part in reversed(list(network.head.modules())) if isinstance(part, torch.nn.Linear)).weight.abs_()
    x = torch.randn(options.images, 3, options.size, options.size, generator=torch.Generator().manual_seed(0)).to(
        device
    )
    gradcam.heat_maps(network, x[:2])  # libraries load and choose their kernels outside the clock
    jobs = [lambda: gradcam.heat_maps(network, x, options.batch), lambda: plainly(network, x)]
    rounds = [[seconds(job) for job in jobs] for _ in range(options.rounds)]  # in turn: both meet the same other load
    batched, single = (min(times) for times in zip(*([time for time, _ in pair] for pair in rounds), strict=True))
    maps, expected = (found for _, found in rounds[0])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{options.network} at {options.size}, {options.images} images on {device}, {options.threads} threads")
    print(f"batched ({options.batch}): {options.images / batched:8.2f} maps/s; peak memory of both {memory:.2f} GB")
    print(f"one by one:   {options.images / single:8.2f} maps/s")
    print(f"ratio:        {single / batched:8.2f}; largest difference of two maps {np.abs(maps - expected).max():.1e}")


if __name__ == "__main__":
    main()
