"""What a trained cell depends on, and what its run.json says.

Knows neither how a cell is trained nor where its folder lies. Torch is imported only where a device is described.
"""

import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammo_lib import __version__, paths
from mammo_lib.config import CBAM_SUFFIX, Profile
from mammo_lib.training.experiments import Cell

if TYPE_CHECKING:
    from mammo_lib.training.schedule import History

RECORDED_VERSIONS = ("torch", "torchvision", "numpy")


def cell_settings(cell: Cell, profile: Profile, inputs: Mapping[str, str]) -> dict[str, Any]:
    """Everything that a cell's numbers depend on; `inputs` are hashes of what it reads (arrays, split, weights).

    One dict for all: `paths.is_done(record, settings)` compares it, and checkpoints carry it as their config.
    """
    content = {
        "cell": cell,
        "size": profile.size(cell.stage),
        "training": profile.training(cell.stage),
        "augmentation": profile.augmentation,
        "cbam": profile.cbam,
        "vgg_hidden": profile.vgg_hidden,
        "inputs": dict(inputs),
    }
    warm_up = profile.warm_up_of(cell.stage, cell.initial)
    if warm_up is not None:
        content["warm_up"] = warm_up
    plain: dict[str, Any] = paths.plain(content)
    if not (profile.cbam.normalised and cell.network.endswith(CBAM_SUFFIX)):
        del plain["cbam"]["normalised"]  # of no account here, and records from before the choice have no such field
    return plain


def commit(checkout: Path = Path(__file__).parent) -> str:
    """Commit of the code, "-dirty" behind it when files differ from it; "" where there is no git or no checkout."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


@dataclass(frozen=True)
class Begun:
    """When an attempt began, and with which code: a commit that is made meanwhile is not what was run."""

    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    commit: str = field(default_factory=commit)


def record(settings: Mapping[str, Any], history: "History", device: str, begun: Begun) -> dict[str, Any]:
    """Content of run.json: its `cell_settings`, and where, when and how fast they were trained until now.

    `begun`: of this attempt (earlier ones are in history.csv only). Peak memory, bytes: of this process so far on a
    CPU, of torch's allocator on CUDA. Of a warm-up tells its own history.csv alone.
    """
    return {
        "settings": settings,
        "seed": settings["cell"]["seed"],
        **circumstances(device, begun),
        "images_per_second": round(history.images_per_second, 2),
        "training_seconds": round(sum(row.seconds for row in history.epochs), 2),
        "epochs": len(history.epochs),
        "best_epoch": history.best.epoch,
        "best_validation_accuracy": history.best.validation_accuracy,
    }


def circumstances(device: str, begun: Begun) -> dict[str, Any]:
    """Where, when and with what a training ran that ends now: a part of every run.json."""
    return {
        "commit": begun.commit,
        "versions": {
            "mammo_lib": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in RECORDED_VERSIONS},
        },
        "device": device_name(device),
        "started": begun.started.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "peak_memory_bytes": peak_memory(device),
    }


def device_name(device: str) -> str:
    """`cpu (x86_64, 2 threads)` or `cuda (NVIDIA H100)`."""
    import torch

    if torch.device(device).type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({platform.machine()}, {torch.get_num_threads()} threads)"


def peak_memory(device: str) -> int:
    """Bytes: of this process so far on a CPU, of torch's allocator on CUDA."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB
