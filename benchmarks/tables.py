"""What the benchmarks share: taking turns, naming the device, and where a table goes."""

import argparse
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

import torch

from mammo_lib import paths

PACKAGES = ("torch", "torchvision", "numpy", "kornia")


def parser(document: str, name: str) -> argparse.ArgumentParser:
    """Options that all have: `--device`, and `--out`, results/benchmarks/<name>_<device>.md unless given."""
    options = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--out", type=Path, help=f"where the table goes (results/benchmarks/{name}_<device>.md)")
    return options


def write(
    name: str, arguments: argparse.Namespace, what: str, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Print a Markdown table below a line that says `what`, on which device and with which versions; and keep it."""
    device = torch.device(arguments.device)
    lines = [
        f"{what} {describe(device)}",
        "",
        *(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)),
    ]
    print("\n".join(lines))
    default = paths.repository() / "results" / "benchmarks" / f"{name}_{device.type}.md"
    paths.write_text(arguments.out or default, "\n".join(lines) + "\n")


def describe(device: torch.device) -> str:
    """Device and versions, as one sentence."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{cpu_name()}, {torch.get_num_threads()} threads of {os.cpu_count()} cores"
    return f"Device: {name}. Python {platform.python_version()}, {', '.join(filter(None, map(_package, PACKAGES)))}."


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


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turns(calls: Sequence[Callable[[], object]], repeats: int, device: torch.device) -> list[float]:
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
