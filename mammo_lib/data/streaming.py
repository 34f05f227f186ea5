"""Sets P and G of CBIS-DDSM without room for CBIS-DDSM: fetch one patient, prepare it, delete it.

Joins download.py and prepare.py; knows no index and cuts no image. A patient's folder with that patient's rows of the
official tables is an archive of its own, which cbis_ddsm.py reads. What is finished lies below the destination's work
folder, one file an image, until prepare.py assembles it; the result is the one of a whole archive, byte for byte.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mammo_lib import paths
from mammo_lib.config import Profile
from mammo_lib.data import cases as case_tables
from mammo_lib.data import cbis_ddsm, download, prepare
from mammo_lib.data.extraction import VERSION, load_findings, run_job
from mammo_lib.data.images import WINDOW

CASES, PROBLEMS = "streamed_cases.csv", "streamed_problems.csv"  # in the archive's folder, in place of the originals


@dataclass(frozen=True)
class Stream:
    """What is prepared, and where."""

    archive: Path  # has the official tables; gets CASES and PROBLEMS
    destination: Path
    profile: Profile
    seed: int

    @property
    def work(self) -> Path:
        """Folder of what is finished, named after what an image's result depends on."""
        settings = [paths.plain(self.profile.patches), paths.plain(self.profile.globals), self.seed, WINDOW, VERSION]
        name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        return self.destination / prepare.WORK / f"streamed-{name}"

    @property
    def originals(self) -> Path:
        """A patient's files are there while at work, and stay when a mass was set aside."""
        return self.work / "originals"


@dataclass(frozen=True)
class PatientJob:
    """One patient, small enough to be sent anywhere."""

    stream: Stream
    transfer: download.Transfer

    @property
    def patient(self) -> str:
        return self.transfer.patient

    @property
    def size(self) -> int:
        return self.transfer.size


def jobs_of(
    stream: Stream, series: Sequence[download.Series], source: download.Source = download.IDC
) -> list[PatientJob]:
    """One job a patient."""
    return [PatientJob(stream, transfer) for transfer in download.transfers(series, stream.originals, source)]


def is_done(job: PatientJob) -> bool:
    """Whether the patient is finished, by itself or as a part of sets P and G."""
    return _record(job).exists() or (job.stream.destination / prepare.RECORD).exists()


def read_tables(archive: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cases and problems of an archive that was streamed. FileNotFoundError when it was not."""
    return case_tables.read(archive / CASES), case_tables.read_csv(archive / PROBLEMS)


def run(stream: Stream, jobs: Sequence[PatientJob], executor: Executor | None = None) -> prepare.PrepareSummary:
    """Prepare all patients, with one's originals on disk for each worker, and assemble P and G; goes on where it was.

    FileNotFoundError without the official tables; ValueError when a patient is in them or in `jobs`, but not in both;
    DownloadError when a patient failed; PrepareError and StageMismatch as of prepare.prepare.
    """
    archive, destination, settings = stream.archive, stream.destination, (stream.profile, stream.seed)
    if (destination / prepare.RECORD).exists():
        if not (archive / CASES).exists():
            raise prepare.PrepareError(f"{destination} was prepared from another archive: delete it first")
        return prepare.prepare(*read_tables(archive), archive, destination, *settings)
    descriptions = cbis_ddsm.read_descriptions(cbis_ddsm.find_descriptions(archive))
    _check_patients(descriptions, jobs, archive)
    with prepare.locked(stream.work):
        download.run(stream_patient, [job for job in jobs if not is_done(job)], executor)
        cases, problems = _gather(jobs, descriptions)
        case_tables.write(cases, archive / CASES)
        paths.write_table(problems, archive / PROBLEMS)
        return prepare.prepare(cases, problems, stream.originals, destination, *settings, work=stream.work)


def _check_patients(descriptions: pd.DataFrame, jobs: Sequence[PatientJob], archive: Path) -> None:
    given = {job.patient for job in jobs}
    unknown = sorted(set(descriptions["patient_id"]) ^ given)
    if unknown:
        raise ValueError(f"{archive}: patient {unknown[0]} is in the official tables or in the index, but not in both")


def stream_patient(job: PatientJob) -> None:
    """Fetch, prepare and delete one patient; the originals stay when a mass could not be used, for another try."""
    download.fetch(job.transfer)
    stream = job.stream
    folder = stream.originals / job.patient
    _write_tables(job, folder)
    cases, problems = cbis_ddsm.case_table(folder)
    cases, problems = _below(job.patient, cases), _below(job.patient, problems)
    image_jobs = prepare.jobs_of(cases, stream.originals, stream.profile, stream.seed, stream.work)
    for image_job in image_jobs:
        run_job(image_job)
    paths.write_table(problems, _record(job, "problems"))
    case_tables.write(cases, _record(job))  # last: the patient is done
    if all(len(load_findings(image_job.result).boxes) == len(image_job.masses) for image_job in image_jobs):
        shutil.rmtree(folder)


def _write_tables(job: PatientJob, folder: Path) -> None:
    """The rows of one patient of the official mass tables."""
    for path in cbis_ddsm.find_descriptions(job.stream.archive):
        table = case_tables.read_csv(path)
        paths.write_table(table[table["patient_id"] == job.patient], folder / "csv" / path.name)


def _below(patient: str, table: pd.DataFrame) -> pd.DataFrame:
    """The table with paths that begin at the folder of all patients instead of the patient's own."""
    moved = table.copy()
    for column in moved.columns.intersection([*case_tables.PATHS, "file"]):
        moved[column] = moved[column].map(lambda path: f"{patient}/{path}" if path else "")
    return moved


def _record(job: PatientJob, kind: str = "cases") -> Path:
    return job.stream.work / f"{job.patient}-{kind}.csv"


def _gather(jobs: Sequence[PatientJob], descriptions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cases in the order of the official tables, as of a whole archive; problems by patient."""
    cases = pd.concat([case_tables.read(_record(job)) for job in jobs])
    cases = cases.set_index("mass_id", drop=False).loc[descriptions["mass_id"]].reset_index(drop=True)
    problems = pd.concat([case_tables.read_csv(_record(job, "problems")) for job in jobs], ignore_index=True)
    return cases, problems
