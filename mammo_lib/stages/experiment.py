"""What every step is told, and what is settled before the first step: names, folders, the machine."""

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import pandas as pd

from mammo_lib import paths
from mammo_lib.config import DATA_SEED, INITIAL_LABELS, NETWORK_LABELS, PROBE, PROTOCOLS, Profile, get_profile
from mammo_lib.paths import Places
from mammo_lib.stages import sources

PACKAGES = ("torch", "torchvision", "numpy", "pandas", "scikit-learn", "opencv-python-headless", "pydicom", "grad-cam")
IDS = dict.fromkeys(  # text, also where all are digits
    ("id", "patch_id", "mass_id", "image_id", "patient_id", "image_a", "image_b"), str
)


@dataclass(frozen=True)
class Experiment:
    """Which profile, which protocol, which seed; and whether a part of an archive will do."""

    profile: Profile
    protocol: str
    seed: int
    allow_partial: bool = False

    @classmethod
    def of(cls, profile: str, protocol: str, seed: int, allow_partial: bool = False) -> "Experiment":
        """ValueError when a name is unknown or the seed is negative."""
        if protocol not in PROTOCOLS:
            raise ValueError(f"unknown protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")
        if seed < 0:
            raise ValueError(f"seed is {seed}: give 0 or a positive number")
        return cls(get_profile(profile), protocol, seed, allow_partial)

    @property
    def sentence(self) -> str:
        """What every picture of this experiment says of its data."""
        return f"{self.profile.data}; protocol {self.protocol}, seed {self.seed}"

    @property
    def main_in_words(self) -> tuple[str, str]:
        """The main network and what it starts from on whole mammograms."""
        return NETWORK_LABELS[self.profile.main_network], INITIAL_LABELS[self.profile.main_initial["G"]]

    @property
    def places(self) -> Places:
        return Places.of(self.profile)

    @property
    def results(self) -> Path:
        return self.places.results(self.protocol)

    @property
    def report(self) -> Path:
        """The page of this protocol: report.html of the official one, report_<protocol>.html of another."""
        name = "report" if self.protocol == "official" else f"report_{self.protocol}"
        return self.results.parent / f"{name}.html"

    @property
    def published(self) -> Path:
        """Where the small files of finished cells are copied to."""
        return self.results / "cells"

    @property
    def runs(self) -> Path:
        return self.places.runs(self.protocol)

    @property
    def figures(self) -> Path:
        return self.places.figures / self.protocol

    def public(self, message: str) -> str:
        """The message without the folders of this machine: it goes into results/, which people share."""
        places = self.places
        named = {places.weights: "$MAMMO_CBAM_WEIGHTS", places.archive: "$MAMMO_CBAM_ARCHIVE"}
        for folder, name in named.items():
            if not folder.is_relative_to(places.root):
                message = message.replace(str(folder), name)
        return message.replace(f"{places.root}/", "").replace(str(Path.home()), "~")

    def command(self, step: str) -> str:
        """How a step is run, in words for a message: from a shell, or by its notebook."""
        notebook = {"prepare": "01", "split": "01", "train": "02 and 03"}[step]
        return f"`python -m mammo_lib {step} --profile {self.profile.name} --protocol {self.protocol}` ({notebook})"


def extra_file(experiment: Experiment, row: str, stage: str, fold: int = 0) -> Path:
    """Where the predictions of one of config.EXTRA_LABELS in one fold of stage "P" or "G" are."""
    return extra_folder(experiment, row) / stage / f"fold{fold}.csv"


def extra_folder(experiment: Experiment, row: str) -> Path:
    """Where one of config.EXTRA_LABELS leaves what it found; the probe is the same for every training seed."""
    folder = experiment.results / row
    return folder if row == PROBE else folder / f"seed{experiment.seed}"


def check(experiment: Experiment) -> str:
    """Refuse at the door what would fail later: unknown names, folders that cannot be written, no archive.

    Returns what would run, on what device, and which ImageNet weights are missing; leaves nothing behind.
    """
    from mammo_lib.stages.archive import is_streamed
    from mammo_lib.stages.trainings import weights_missing

    places, profile, source = experiment.places, experiment.profile, sources.of(experiment.profile)
    unknown = [name for name in profile.networks if name not in NETWORK_LABELS]
    if unknown:
        raise ValueError(
            f"profile {profile.name} names the network {unknown[0]!r}, which has no label: correct its name, or give "
            "it and its variant with CBAM a label in NETWORK_LABELS of mammo_lib/config.py"
        )
    if profile.phantom is not None and profile.source != "phantom":
        raise ValueError(
            f"profile {profile.name} draws phantoms and has the source {profile.source!r}: give it phantom=None in "
            "mammo_lib/config.py, or the source 'phantom'"
        )
    for folder in (places.prepared, experiment.runs, experiment.results, experiment.figures):
        _assure_writable(folder)
    if experiment.protocol == "official" and not source.official:
        raise ValueError(
            f"the data of profile {profile.name} has no official split: choose --protocol grouped_cv or as_written"
        )
    if profile.phantom is None and not places.archive.is_dir():
        raise FileNotFoundError(
            f"{places.archive}: the archive of profile {profile.name} ({profile.data}) is not there: "
            "put it there or name its folder in $MAMMO_CBAM_ARCHIVE" + source.how_to_get
        )
    if source.light:
        _try_split(experiment)
    elif source.glance is not None and not is_streamed(experiment):
        source.glance(places.archive, experiment.allow_partial)
    fine = f"profile {profile.name} ({profile.data}), protocol {experiment.protocol}: trains on {default_device()}"
    return "\n".join([fine, *weights_missing(experiment)])


def _try_split(experiment: Experiment) -> None:
    """Read and split an archive, which takes no pixel, before hours go into its images."""
    from mammo_lib.data import splits

    profile, root = experiment.profile, experiment.places.archive
    layout, cases, _ = sources.of(profile).read(root, profile, experiment.allow_partial)
    patches = cases.assign(patch_id=cases["mass_id"])
    images = cases.sort_values("label").drop_duplicates("image_id", keep="last")  # malignant if any mass is
    try:
        splits.make(experiment.protocol, patches, images, profile.split, DATA_SEED)
    except ValueError as error:
        raise ValueError(f"{root} ({layout}): {error}") from None


def _assure_writable(folder: Path) -> None:
    """Tried where the folder is, or, where it is not there yet, in the one that it would be made in."""
    try:
        with TemporaryFile(dir=next(path for path in (folder, *folder.parents) if path.exists())):
            pass
    except OSError as error:
        reason = f"{folder}: cannot be written ({error.strerror}): make it writable or set $MAMMO_CBAM_HOME"
        raise OSError(reason) from None


def forget(experiment: Experiment) -> None:
    """Delete what this profile and protocol have made, and, when no other protocol has runs, the prepared data.

    Of every seed, with what further steps (probe, map, ...) have made; never an archive that was not drawn here.
    ValueError when the archive was streamed: its originals are gone, and the prepared data is all there is.
    folder.FolderBusy while something trains, or run_all.sh runs.
    """
    from mammo_lib.data import streaming
    from mammo_lib.stages.transferring import TRANSFER
    from mammo_lib.training.folder import CELL_CLAIM, TRAINING_CLAIM, FolderBusy, alone_in, is_claimed

    with alone_in(experiment.runs.parent):  # another protocol's training reads the same prepared data
        locks = [lock for name in (CELL_CLAIM, TRAINING_CLAIM) for lock in experiment.runs.rglob(name)]
        busy = [folder for folder in (experiment.runs.parent, *(lock.parent for lock in locks)) if is_claimed(folder)]
        if busy:
            raise FolderBusy(f"{busy[0]}: a process trains or run_all.sh runs here: wait until it ends, or end it")
        places, made = experiment.places, [experiment.runs, experiment.results, experiment.figures]
        others = [path for path in experiment.runs.parent.glob("*/*/*") if experiment.runs not in path.parents]
        if not others:
            if (places.archive / streaming.CASES).exists():
                raise ValueError(
                    f"{places.prepared}: made from a streamed archive whose originals are gone: delete it by hand"
                )
            made += [places.prepared, places.demo, places.results(TRANSFER)]
            made += [places.archive] if experiment.profile.phantom else []
        experiment.report.unlink(missing_ok=True)
        for folder in made:
            if folder.exists():
                shutil.rmtree(folder)


@contextmanager
def executor(workers: int, dask_address: str | None = None, small_jobs: bool = False) -> Iterator[Executor | None]:
    """Where cells and images are worked on: this process (None), `workers` processes, or a Dask cluster's workers.

    A cell gets a process of its own, which shares the GPU, or has one of several; with `small_jobs`, images for
    instance, the processes are kept from one to the next. ValueError when `workers` is negative.
    """
    if workers < 0:
        raise ValueError(f"workers is {workers}: give 0 or a positive number")
    if dask_address:
        from distributed import Client

        with Client(dask_address) as client:
            yield client.get_executor(pure=False)  # a cell that is tried again is the same call
    elif workers:
        from mammo_lib.training.experiments import Processes, lasting_pool

        with lasting_pool(workers) if small_jobs else Processes(workers, devices()) as processes:
            yield processes
    else:
        yield None


def devices() -> list[str]:
    """The GPUs this process may use, as values of CUDA_VISIBLE_DEVICES; a batch system may have granted some only."""
    import torch

    granted = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return granted.split(",")[:count] if granted else [str(device) for device in range(count)]


def describe_environment(experiment: Experiment) -> pd.DataFrame:
    """What this runs on, as rows of `what` and `value`; also written to environment.csv."""
    from mammo_lib.training.records import commit

    facts = {
        "profile": experiment.profile.name,
        "data": experiment.profile.data,
        "protocol": f"{experiment.protocol}: {sources.protocol_in_words(experiment.profile, experiment.protocol)}",
        "training seed": experiment.seed,
        "commit": commit() or "unknown",
        "system": platform.platform(),
        "Python": platform.python_version(),
        "CPU cores": os.cpu_count(),
        "training device": default_device(),
    } | {package: importlib.metadata.version(package) for package in PACKAGES}
    table = pd.DataFrame([{"what": what, "value": str(value)} for what, value in facts.items()])
    paths.write_table(table, experiment.results / "environment.csv")
    return table


def default_device() -> str:
    """CUDA where torch finds it, the CPU otherwise."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def read_table(path: Path) -> pd.DataFrame:
    """A table of cases that a step wrote; a blank stays a blank."""
    return pd.read_csv(path, keep_default_na=False, dtype=IDS)
