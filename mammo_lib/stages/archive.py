"""From an archive to sets P and G and their splits (2.1, 2.2)."""

import json
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mammo_lib import paths
from mammo_lib.config import DATA_SEED, ID_COLUMN, SAME_PATIENTS
from mammo_lib.stages import sources
from mammo_lib.stages.experiment import Experiment, read_table

if TYPE_CHECKING:
    from mammo_lib.data.prepare import PrepareSummary

ARRAY = {"P": "patches", "G": "globals"}
MASSES = "masses.csv"
PROBLEMS = "problems.csv"
NEAR_DUPLICATES = "near_duplicates.csv"
STREAMED = (  # at the end of a message that tells to prepare again
    "; this archive was streamed, its originals were not kept: `python -m mammo_lib download --stream --yes` in place "
    "of prepare fetches them anew"
)
EXPECTED_COLUMNS = ("fold", "id", "part", "label", "mass_id", "image_id", "patient_id", "side")


@dataclass(frozen=True)
class Archive:
    """An archive as it was read: one row a mass in `cases`, one row for each thing set aside in `problems`."""

    root: Path
    layout: str  # in words
    cases: pd.DataFrame
    problems: pd.DataFrame


def read_archive(experiment: Experiment) -> Archive:
    """The case table of the profile's archive; a phantom archive is drawn first if it is not there.

    FileNotFoundError when files of masses are missing, unless the experiment allows a partial archive.
    """
    from mammo_lib.data import streaming

    profile, root = experiment.profile, experiment.places.archive
    if profile.phantom is not None:
        _assure_phantoms(experiment)
    if is_streamed(experiment):
        return Archive(root, "CBIS-DDSM, streamed: its originals were not kept", *streaming.read_tables(root))
    return Archive(root, *sources.of(profile).read(root, profile, experiment.allow_partial))


def _assure_phantoms(experiment: Experiment) -> None:
    from mammo_lib.data import phantom

    root, settings = experiment.places.archive, experiment.profile.phantom
    wanted = {"phantom": settings, "seed": DATA_SEED}
    if settings is None or paths.is_done(root / phantom.RECORD, wanted):
        return
    phantom.write_archive(root, settings, DATA_SEED)


def prepare(experiment: Experiment, executor: Executor | None = None) -> "PrepareSummary":
    """The archive -> sets P and G (2.2), an image at a time on every core, or on the workers of `executor`."""
    from mammo_lib.data import prepare as room
    from mammo_lib.training.experiments import cores, lasting_pool

    archive, places, profile = read_archive(experiment), experiment.places, experiment.profile
    if is_streamed(experiment):
        prepared(experiment)  # or an attempt without the originals would set every mass aside
    losses = 1.0 if experiment.allow_partial else room.MAX_LOSS
    settled = executor is not None or profile.phantom is not None  # phantoms are too few to share
    with nullcontext(executor) if settled else lasting_pool(cores()) as workers:
        try:
            return room.prepare(
                archive.cases, archive.problems, archive.root, places.prepared, profile, DATA_SEED, workers, losses
            )
        except (paths.StageMismatch, room.PrepareError) as error:
            if is_streamed(experiment):
                raise type(error)(f"{error}{STREAMED}") from error
            raise


def is_streamed(experiment: Experiment) -> bool:
    """Whether the archive's originals were fetched, prepared and deleted, patient by patient."""
    from mammo_lib.data import streaming

    return experiment.profile.source == "cbis_ddsm" and (experiment.places.archive / streaming.CASES).is_file()


def prepared(experiment: Experiment) -> dict[str, Any]:
    """The record of the prepared data.

    FileNotFoundError when there is none; StageMismatch when the profile has changed since. The archive is not
    looked at.
    """
    record, profile = experiment.places.prepared / "prepare.json", experiment.profile
    again = STREAMED if is_streamed(experiment) else ""
    if not record.exists():
        raise FileNotFoundError(f"{record}: the data is not prepared: run {experiment.command('prepare')} first{again}")
    content = paths.read_json(record)
    wanted = {"patches": profile.patches, "globals": profile.globals, "seed": DATA_SEED}
    differing = paths.differences({name: content["settings"][name] for name in wanted}, wanted)
    if differing:
        raise paths.StageMismatch(
            f"{record} was made with other settings ({'; '.join(differing[:3])}): delete it and run "
            f"{experiment.command('prepare')} again{again}"
        )
    return content


def load(experiment: Experiment, stage: str) -> tuple[np.ndarray, pd.DataFrame]:
    """Set P or G: images uint8 (N, S, S), memory-mapped, and the table whose row i describes image i."""
    prepared(experiment)
    folder, name = experiment.places.prepared, ARRAY[stage]
    path = folder / f"{name}.npy"
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: was prepared, and is not there: delete prepare.json beside it and prepare again"
            + (STREAMED if is_streamed(experiment) else "")
        )
    return np.load(path, mmap_mode="r"), read_table(folder / f"{name}.csv")


def split(experiment: Experiment) -> pd.DataFrame:
    """Draw the protocol's split, write it, and return (and write) the table of its leaks."""
    from mammo_lib.data import splits
    from mammo_lib.data.near_duplicates import near_duplicates

    (_, patches), (images, whole) = load(experiment, "P"), load(experiment, "G")
    table = splits.make(experiment.protocol, patches, whole, experiment.profile.split, DATA_SEED)
    splits.write(table, experiment.places.splits(experiment.protocol))
    pairs = near_duplicates(whole, images)
    paths.write_table(pairs, experiment.results / NEAR_DUPLICATES)
    alike = pairs.loc[pairs["near_duplicate"], ["image_a", "image_b"]].itertuples(index=False, name=None)
    leakage = splits.leakage(table, patches, whole, alike)
    paths.write_table(leakage, experiment.results / "leakage.csv")
    _publish_parts(experiment)
    return leakage


def _publish_parts(experiment: Experiment) -> None:
    """What the evaluation needs to know of the split, copied to results/: it then runs where no image is.

    A mass is in the part of its image in set G; under the patient-level protocols that is its patient's part.
    """
    for stage in ("P", "G"):
        table = parts(experiment, stage)
        kept = [name for name in EXPECTED_COLUMNS if name in table]
        paths.write_table(table.loc[table["part"] != "train", kept], experiment.results / f"expected_{stage}.csv")
    prepared = experiment.places.prepared
    problems = read_table(prepared / PROBLEMS)
    told = problems.assign(reason=problems["reason"].map(experiment.public))
    paths.write_table(told, experiment.results / PROBLEMS)
    cases = read_table(prepared / "cases.csv")
    placed = parts(experiment, "G")[["image_id", "fold", "part"]]
    of_images = cases.filter(regex=r"_path$|^box_").columns  # of no use without them
    theirs = placed.columns.drop("image_id")  # a user's table may have columns of these names
    masses = cases.drop(columns=[*of_images, *theirs], errors="ignore").merge(placed, on="image_id")
    paths.write_table(masses, experiment.results / MASSES)


def expected(experiment: Experiment, stage: str) -> pd.DataFrame:
    """The validation and test cases that every cell of a stage must have predicted, with their fold."""
    return read_table(_drawn(experiment.results / f"expected_{stage}.csv", experiment))


def split_file(experiment: Experiment) -> Path:
    """Where the protocol's split is. FileNotFoundError when it is not drawn."""
    return _drawn(experiment.places.splits(experiment.protocol), experiment)


def _drawn(path: Path, experiment: Experiment) -> Path:
    """`path`, which drawing the split leaves behind; FileNotFoundError before."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: the split is not drawn: run {experiment.command('split')} first")
    return path


def parts(experiment: Experiment, stage: str) -> pd.DataFrame:
    """The cases of set P or G, one row for each fold they are in: their table, with `row`, `fold` and `part` added."""
    from mammo_lib.data import splits

    (_, patches), (_, whole) = load(experiment, "P"), load(experiment, "G")
    placed = splits.read(split_file(experiment), patches, whole)
    placed = placed.loc[placed["stage"] == stage, ["fold", "id", "part"]]
    return with_ids({"P": patches, "G": whole}[stage], stage).merge(placed, on="id", validate="one_to_many")


def with_ids(table: pd.DataFrame, stage: str) -> pd.DataFrame:
    """The table of set P or G with `id`, the case's own, `image_id`, and `row`, its line and its place in the array."""
    table = table.rename(columns={ID_COLUMN[stage]: "id"})
    if stage == "G":
        table = table.assign(image_id=table["id"])
    return table.reset_index(names="row")


def lesion_boxes(table: pd.DataFrame) -> pd.DataFrame:
    """The lesion boxes of a table of set G, one row a mass: image_id, x, y, w, h in pixels of G."""
    rows = [
        (image_id, *box)
        for image_id, boxes in zip(table["image_id"], table["boxes"], strict=True)
        for box in json.loads(boxes)
    ]
    return pd.DataFrame(rows, columns=["image_id", "x", "y", "w", "h"])


def lesion_masks(experiment: Experiment, table: pd.DataFrame) -> list[np.ndarray | None]:
    """The masks of each image's masses as they lie in set G, bool (S, S); None where the archive has none at hand.

    table: rows of set G.
    """
    from mammo_lib.data import cases, extraction
    from mammo_lib.data import prepare as room

    places, masses = experiment.places, cases.read(experiment.places.prepared / "cases.csv")
    found = []
    for row in cases.records(table):
        of_image = masses[masses["image_id"] == row["image_id"]]
        job = room.jobs_of(of_image, places.archive, experiment.profile, DATA_SEED, places.prepared)[0]
        found.append(extraction.lesion_view(job, room.box_of(row, "crop_")))
    return found


def integrity(experiment: Experiment) -> pd.DataFrame:
    """Named checks of the archive: what is expected, what was found, which cases; also written to integrity.csv.

    Near-duplicate images are among them once the splits are drawn, which is when they are looked for.
    """
    from mammo_lib.data import integrity as room

    archive, pairs = read_archive(experiment), experiment.results / NEAR_DUPLICATES
    prepared = experiment.places.prepared / PROBLEMS  # begins with what the source set aside
    problems = read_table(prepared) if prepared.exists() else archive.problems
    official = experiment.profile.source in SAME_PATIENTS
    found = read_table(pairs) if pairs.exists() else None
    table = room.to_frame(room.check(archive.cases, problems, archive.root, official, found))
    paths.write_table(table, experiment.results / "integrity.csv")
    return table
