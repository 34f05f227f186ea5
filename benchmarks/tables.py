"""What the benchmarks share: taking turns, naming the device, and where a table goes."""

import argparse
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from mammo_lib import paths

if TYPE_CHECKING:  # the worker processes whose memory prepare.py measures import this, and not torch
    import torch

PACKAGES = ("torch", "torchvision", "numpy", "kornia")


def parser(document: str, name: str, devices: bool = True) -> argparse.ArgumentParser:
    """Options that all have: `--out`, results/benchmarks/<name>_<device>.md unless given, and `--device` where there is
    a choice of `devices`."""
    options = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    if devices:
        import torch

        options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    else:
        options.set_defaults(device="cpu")
    options.add_argument("--out", type=Path, help=f"where the table goes (results/benchmarks/{name}_<device>.md)")
    return options


def write(
    name: str,
    arguments: argparse.Namespace,
    what: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    packages: Sequence[str] = PACKAGES,
) -> None:
    """Print a Markdown table below a line that says `what`, on which device and with which versions; and keep it."""
    lines = [
        f"{what} {describe(arguments.device, packages)}",
        "",
        *(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)),
    ]
    print("\n".join(lines))
    kind = arguments.device.split(":")[0]
    default = paths.repository() / "results" / "benchmarks" / f"{name}_{kind}.md"
    paths.write_text(arguments.out or default, "\n".join(lines) + "\n")


def describe(device: str, packages: Sequence[str]) -> str:
    """Device and versions, as one sentence."""
    if device.startswith("cuda"):
        import torch

        name = torch.cuda.get_device_name(device)
    else:
        name = f"{cpu_name()}, {_threads(packages)} of {os.cpu_count()} cores"
        if "torch" in packages and os.environ.get("THP_MEM_ALLOC_ENABLE") == "1":
            name += ", torch's arrays in huge pages"
    return f"Device: {name}. Python {platform.python_version()}, {', '.join(filter(None, map(_package, packages)))}."


def _threads(packages: Sequence[str]) -> str:
    if "torch" not in packages:
        return f"{len(os.sched_getaffinity(0))}"
    import torch

    return f"{torch.get_num_threads()} threads"


def cpu_name() -> str:
    """The processor as Linux names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _package(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return ""


def synchronise(device: "torch.device") -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def in_turns(calls: Sequence[Callable[[], object]], repeats: int, device: "torch.device") -> list[float]:
    """Median seconds of each call, after one warm-up; they take turns, so that a busy machine slows all."""
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
