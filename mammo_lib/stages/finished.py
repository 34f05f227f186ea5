"""Whether a whole run is still current: nothing that it read, wrote or ran has been touched since it ended.

One record for all notebooks. Anything added, deleted or changed makes the run begin again, and its steps then skip what
is done each for itself; so the worst that a wrong guess here costs is a minute.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from mammo_lib import paths
from mammo_lib.stages.experiment import Experiment

RECORD = "finished.json"
PASSED_OVER = ("__pycache__", ".ipynb_checkpoints", RECORD)  # written without anything having changed


def remember(experiment: Experiment) -> None:
    """Note that a whole run has ended."""
    paths.write_json(experiment.runs / RECORD, {"fingerprint": _fingerprint(experiment)})


def is_current(experiment: Experiment) -> bool:
    """Whether a whole run of this profile, protocol and seed has ended and everything is as it left it."""
    record = experiment.runs / RECORD
    return record.exists() and paths.read_json(record)["fingerprint"] == _fingerprint(experiment)


def _fingerprint(experiment: Experiment) -> str:
    """SHA-256 over the seed and the path, size and time of change of every file that a run reads, runs or writes."""
    lines = (f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in sorted(_files(experiment)))
    return hashlib.sha256("\n".join((f"seed {experiment.seed}", *lines)).encode()).hexdigest()


def _files(experiment: Experiment) -> Iterator[tuple[str, os.stat_result]]:
    places, library = experiment.places, Path(__file__).resolve().parent.parent
    user_cache = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")  # as torch.hub.get_dir, without its import
    cache = Path(os.environ.get("TORCH_HOME", Path(user_cache) / "torch")) / "hub" / "checkpoints"
    read = (library, library.parent / "notebooks", places.archive, places.weights, cache)
    written = (places.prepared, places.demo, experiment.runs, places.figures, experiment.results.parent)
    for folder in {*read, *written, places.root / "results" / "published"}:
        for path in folder.rglob("*"):
            if path.is_file() and not set(path.parts) & set(PASSED_OVER):
                yield str(path), path.stat()
