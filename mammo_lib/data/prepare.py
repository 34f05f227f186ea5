"""Case table -> sets P and G on disk (section 2.2): each image decoded once, on any executor, resumed where it stopped.

Knows files, tables and who is at work; knows no pixel (extraction.py does) and no split. The destination holds
cases.csv (the masses used, boxes filled), problems.csv, patches.npy/.csv, globals.npy/.csv and, written last,
prepare.json: with it, all of it is whole.

The column `aspect` of the case table gives stretched images their proportions back. Boxes in
cases.csv are in pixels of the stored image; centres, windows and crops are in pixels of the restored one.
"""

import errno
import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mammo_lib import paths
from mammo_lib.config import UNCHANGING, Profile
from mammo_lib.data import cases as case_tables
from mammo_lib.data.cropping import Box
from mammo_lib.data.extraction import VERSION, Findings, ImageJob, Mass, load_findings, load_pixels, run_job
from mammo_lib.data.images import WINDOW
from mammo_lib.progress import bar

RECORD = "prepare.json"
FILES = ("cases.csv", "problems.csv", "patches.npy", "patches.csv", "globals.npy", "globals.csv")
MAX_LOSS = 0.01  # ours: share of masses set aside above which a run stops; none need be in CBIS-DDSM

_DESCRIPTION = ("image_id", "patient_id", "side", "view", "label", "official_split")
PATCH_COLUMNS = ("patch_id", "mass_id", *_DESCRIPTION, "centre_x", "centre_y", "window")
VIEW_COLUMNS = (*_DESCRIPTION, "crop_x", "crop_y", "crop_w", "crop_h", "boxes")
WORK = ".work"  # one file a finished image, below a folder named after the settings; deleted at the end
_LOCK = ".lock"
_SPARE = 1.1  # ours: disk space asked for, as a multiple of what the arrays need


class PrepareError(RuntimeError):
    """A preparation that cannot go on; the message says what to do. What was finished stays and is not redone."""


@dataclass(frozen=True)
class PrepareSummary:
    """What is in the destination, and what this call did for it."""

    images: int
    masses: int
    patches: int
    set_aside: int  # masses in problems.csv instead, by the source or here
    resumed: int  # images found finished
    seconds: float

    def __str__(self) -> str:
        aside = f"; masses set aside: {self.set_aside}, listed in problems.csv" if self.set_aside else ""
        there = f", {self.resumed} of the images found finished" if self.resumed else ""
        made = f"{self.images} images with {self.masses} masses, {self.patches} patches"
        return f"{made}, in {self.seconds:.0f} s{there}{aside}"


def settings(cases: pd.DataFrame, root: Path, profile: Profile, seed: int) -> dict[str, Any]:
    """What the arrays depend on; `paths.is_done(destination / RECORD, settings)` tells whether they are there.

    Files may still be mended, so their sizes and times of change count too. Those of config.UNCHANGING do not: such an
    archive may be moved, and streamed it is no longer there.
    """
    table = cases.to_csv(index=False, lineterminator="\n").encode()
    files = {} if profile.source in UNCHANGING else {"files": _files(cases, root)}
    return files | {
        "patches": paths.plain(profile.patches),
        "globals": paths.plain(profile.globals),
        "seed": seed,
        "source": sorted(cases["source"].unique()),
        "masses": len(cases),
        "archive": hashlib.sha256(table).hexdigest(),
        "window": WINDOW,
        "extraction": VERSION,
    }


def _files(cases: pd.DataFrame, root: Path) -> str:
    """SHA-256 over the path, size and time of change of every file that the table names and that is there."""
    stats = [(name, (root / name).stat()) for name in case_tables.files(cases) if (root / name).is_file()]
    lines = [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def prepare(
    cases: pd.DataFrame,
    problems: pd.DataFrame,
    root: Path,
    destination: Path,
    profile: Profile,
    seed: int,
    executor: Executor | None = None,
    max_loss: float = MAX_LOSS,
    work: Path | None = None,
) -> PrepareSummary:
    """Write P and G of `cases` (paths below `root`) into `destination`; at once when they are there already.

    `problems` is what the source set aside; it opens problems.csv. `executor` spreads images (None: this process).
    `work`: a folder that `jobs_of` was given before, whose finished images are not done again; below WORK.
    paths.StageMismatch when other settings made the destination; PrepareError when the disk is full, another process is
    at it, a checksum is wrong, or more than `max_loss` of the masses had to be set aside (problems.csv then says why).
    """
    start = time.monotonic()
    case_tables.check(cases, "case table")
    wanted = settings(cases, root, profile, seed)
    if paths.is_done(destination / RECORD, wanted):
        _verify(destination)
        return PrepareSummary(**paths.read_json(destination / RECORD)["counts"], resumed=0, seconds=0.0)
    with _sentences(destination), locked(destination):
        work = work or destination / WORK / hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]
        jobs = jobs_of(cases, root, profile, seed, work)
        waiting = [job for job in jobs if not _is_finished(job)]
        _check_space(destination, cases, len(waiting), profile)
        _run(waiting, executor, destination.name)
        counts = _assemble(cases, problems, jobs, destination, max_loss)
        hashes = {name: paths.file_hash(destination / name) for name in FILES}
        paths.write_json(destination / RECORD, {"settings": wanted, "counts": counts, "hashes": hashes})
        shutil.rmtree(destination / WORK)
    return PrepareSummary(**counts, resumed=len(jobs) - len(waiting), seconds=time.monotonic() - start)


def jobs_of(cases: pd.DataFrame, root: Path, profile: Profile, seed: int, work: Path) -> list[ImageJob]:
    """One job an image, in the order of the case table."""
    jobs = []
    for image_id, rows in cases.groupby("image_id", sort=False):
        records = case_tables.records(rows)
        masses, first = [_mass(row) for row in records], records[0]
        result = work / f"{hashlib.sha256(str(image_id).encode()).hexdigest()[:24]}.npz"
        about = (root, str(first["image_path"]), case_tables.aspect(first), tuple(masses))
        jobs.append(ImageJob(*about, profile.patches, profile.globals, seed, result))
    return jobs


def box_of(row: Mapping[str, Any], prefix: str) -> Box:
    """From the columns `prefix`x, y, w and h of a table's row."""
    return Box(*(int(row[prefix + side]) for side in "xywh"))


def _mass(row: Mapping[str, Any]) -> Mass:
    box = None if pd.isna(row["box_w"]) else box_of(row, "box_")
    return Mass(row["mass_id"], box, row["mask_path"], row.get(case_tables.CROP_PATH, ""))


def _is_finished(job: ImageJob) -> bool:
    """Whether an earlier run did this image; one that lost a mass is tried again, as its files may have been mended."""
    return job.result.exists() and len(load_findings(job.result).boxes) == len(job.masses)


def _run(jobs: list[ImageJob], executor: Executor | None, name: str) -> None:
    """All jobs, with a bar that shows the time left; the first error ends it, and nothing more is started."""
    if not jobs:
        return
    with bar(name=name, total=len(jobs), unit="image") as shown:
        if executor is None:
            for job in jobs:
                run_job(job)
                shown.update()
            return
        futures = [executor.submit(run_job, job) for job in jobs]
        try:
            for future in as_completed(futures):
                future.result()
                shown.update()
        finally:
            for future in futures:
                future.cancel()


def _assemble(
    cases: pd.DataFrame, problems: pd.DataFrame, jobs: list[ImageJob], destination: Path, max_loss: float
) -> dict[str, int]:
    """Tables and arrays, all in the order of the case table, from the finished images; their counts."""
    found = [load_findings(job.result) for job in jobs]
    rows = [row for findings in found for row in findings.problems]
    boxes = {mass_id: box for findings in found for mass_id, box in findings.boxes.items()}
    unknown = case_tables.label_unknown(case_tables.records(cases), [row for row in rows if row["id"] not in boxes])
    rows += unknown
    gone = {row["id"] for row in unknown}  # all that an image has left, or nothing of it
    found = [Findings() if gone & set(findings.boxes) else findings for findings in found]
    boxes = {mass_id: box for mass_id, box in boxes.items() if mass_id not in gone}
    every = pd.concat([problems, case_tables.problem_table(rows)], ignore_index=True)
    paths.write_table(every, destination / "problems.csv")
    lost = {row["id"]: row for row in rows if row["id"] not in boxes and row["stage"] != case_tables.NOTE}
    _check_loss(list(lost.values()), len(cases), max_loss, destination)
    used = [(job.result, findings) for job, findings in zip(jobs, found, strict=True) if findings.boxes]
    case_tables.write(_with_boxes(cases, boxes), destination / "cases.csv")
    patches, views = _patch_table(cases, found), _view_table(cases, found)
    paths.write_table(patches, destination / "patches.csv")
    paths.write_table(views, destination / "globals.csv")
    for name, column, count in (("patches.npy", "patches", len(patches)), ("globals.npy", "view", len(views))):
        _write_array(destination / name, (load_pixels(result, column) for result, _ in used), count)
    counts = {"images": len(views), "masses": len(boxes), "patches": len(patches)}
    return counts | {"set_aside": case_tables.set_aside(every)}


def _check_loss(lost: Sequence[Mapping[str, str]], masses: int, max_loss: float, destination: Path) -> None:
    """`lost`: a problem row for each mass that has no patches."""
    if not lost:
        return
    where = f"first: {lost[0]['id']}: {lost[0]['reason']}; {destination / 'problems.csv'} lists them with the reasons"
    if len(lost) == masses:
        raise PrepareError(f"none of the {masses} masses can be used, {where}")
    if len(lost) > max_loss * masses:
        raise PrepareError(
            f"{len(lost)} of {masses} masses cannot be used, more than the {max_loss:.0%} allowed, {where}; "
            "mend them, or go on without (--allow-partial; not while streaming)"
        )


def _with_boxes(cases: pd.DataFrame, boxes: dict[str, Box]) -> pd.DataFrame:
    """The masses that have a box, with it."""
    kept = cases[cases["mass_id"].isin(list(boxes))].copy()
    for column in case_tables.BOX_COLUMNS:
        values = [getattr(boxes[mass_id], column.removeprefix("box_")) for mass_id in kept["mass_id"]]
        kept[column] = pd.array(values, dtype="Int64")
    return kept


def _patch_table(cases: pd.DataFrame, found: Iterable[Findings]) -> pd.DataFrame:
    """One row a patch."""
    of_mass = {row["mass_id"]: row for row in case_tables.records(cases)}
    rows: list[dict[str, Any]] = []
    for findings in found:
        count = len(findings.centres) // max(len(findings.boxes), 1)
        for index, (x, y, side) in enumerate(findings.centres):
            mass = of_mass[list(findings.boxes)[index // count]]
            where = {"centre_x": x, "centre_y": y, "window": side}
            rows.append({**mass, "patch_id": f"{mass['mass_id']}#{index % count}", **where})
    return pd.DataFrame(rows, columns=list(PATCH_COLUMNS))


def _view_table(cases: pd.DataFrame, found: Iterable[Findings]) -> pd.DataFrame:
    """One row an image; its label is malignant if any of its masses is."""
    of_mass = {row["mass_id"]: row for row in case_tables.records(cases)}
    malignant = set(cases.loc[cases["label"] == 1, "image_id"])
    rows: list[dict[str, Any]] = []
    for findings in found:
        if findings.crop is None:
            continue
        mass = of_mass[next(iter(findings.boxes))]
        crop = {f"crop_{name}": value for name, value in asdict(findings.crop).items()}
        boxes = json.dumps(findings.view_boxes)
        rows.append({**mass, "label": int(mass["image_id"] in malignant), **crop, "boxes": boxes})
    return pd.DataFrame(rows, columns=list(VIEW_COLUMNS))


def _write_array(path: Path, chunks: Iterable[np.ndarray], count: int) -> None:
    """Chunks of uint8 (n, size, size), `count` images in all, as one .npy file; one chunk at a time in memory.

    Written, not memory-mapped: on a full disk a write fails with an error, a page of a map with a signal.
    """
    with paths.atomic_write(path) as part, open(part, "wb") as file:
        for index, chunk in enumerate(chunks):
            if index == 0:
                header = {"descr": "|u1", "fortran_order": False, "shape": (count, *chunk.shape[1:])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(chunk).data)


def _verify(destination: Path) -> None:
    for name, expected in paths.read_json(destination / RECORD)["hashes"].items():
        path = destination / name
        if not path.exists():
            raise PrepareError(f"{path}, which was prepared, is not there: delete {RECORD} to make it again")
        if paths.file_hash(path) != expected:
            raise PrepareError(
                f"{path} is not the file that was prepared (its checksum differs): delete {RECORD} to make it again"
            )


def _check_space(destination: Path, cases: pd.DataFrame, waiting: int, profile: Profile) -> None:
    """PrepareError when the disk cannot hold the arrays, and the waiting images beside them."""
    images = cases["image_id"].nunique()
    final = len(cases) * profile.patches.centres * profile.patches.size**2 + images * profile.globals.size**2
    needed = _SPARE * final * (1 + waiting / images)
    free = shutil.disk_usage(destination).free
    if free < needed:
        raise PrepareError(f"{destination}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free: make room")


@contextmanager
def locked(destination: Path) -> Iterator[None]:
    """Hold the destination; the lock ends with the process, however that ends."""
    destination.mkdir(parents=True, exist_ok=True)
    with open(destination / _LOCK, "w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PrepareError(f"{destination} is being prepared by another process: wait until it ends") from None
        paths.remove_parts(destination)
        yield


@contextmanager
def _sentences(destination: Path) -> Iterator[None]:
    """What the system says about the destination, in a sentence."""
    try:
        yield
    except BrokenExecutor:
        raise PrepareError(
            "a worker died, often for lack of memory: run again with fewer, what is done is kept (a script of yours "
            "must call this below `if __name__ == '__main__':`, as workers read it too)"
        ) from None
    except OSError as error:
        hint = "make room and run again, what is done is kept" if error.errno == errno.ENOSPC else "cannot be written"
        raise PrepareError(f"{error.filename or destination}: {error.strerror}: {hint}") from error
