"""CBIS-DDSM's mass series from the Imaging Data Commons onto disk: chosen, fetched and checked, one patient a job.

Knows the index of the package `idc-index-data` (a local file) and object stores; opens no picture. Files lie as
<archive>/<patient>/<series>/<instance>.dcm. They are carried by s5cmd, the program that comes with `idc-index` for
this; it is called directly, because `IDCClient.download_from_selection` only logs its errors, checks no size and waits
for ever on a server that has stopped answering.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import pandas as pd

from mammo_lib.data import archive_layouts, cases
from mammo_lib.progress import bar

COLLECTION = "cbis_ddsm"
TABLES_PAGE = "https://www.cancerimagingarchive.net/collection/cbis-ddsm/"

_INSTALL = "install the extra `download` (pip install 'mammo-cbam[download]')"
_PATIENT = r"^Mass-(?:Training|Test)_(P_\d+)_"  # PatientID names an image or a mass; the patient is a part of it
_NOMINAL_RATE = 20e6  # ours: bytes a second, for the estimate shown beforehand
_MAX_FAILURES = 5  # ours: patients that fail before the rest is not tried any more
_FORESEEN = (OSError, RuntimeError, ValueError)  # what a connection, a disk or a file can cause


class DownloadError(RuntimeError):
    """A transfer that did not come to its end; what is whole stays, and the next call goes on from there."""


@dataclass(frozen=True)
class Series:
    """One series of the index: its files, and how large they are together."""

    uuid: str  # its folder, in the bucket and on disk
    bucket: str
    patient: str  # "P_00001"
    files: int
    size: int  # bytes


@dataclass(frozen=True)
class Source:
    """An object store, and how long a bad connection to it is put up with (all ours)."""

    endpoint: str = "https://s3.amazonaws.com"  # has the buckets that the index names, open to all
    attempts: int = 5
    pause: float = 2.0  # seconds before the second attempt, doubled before each further one
    grace: float = 60.0  # seconds that an attempt may take, beside what it needs at the lowest rate
    lowest_rate: float = 100e3  # bytes a second


IDC = Source()


@dataclass(frozen=True)
class Transfer:
    """All series of one patient, and where they come from and go to."""

    patient: str
    series: tuple[Series, ...]
    root: Path
    source: Source = IDC

    @property
    def size(self) -> int:
        """Bytes, of all its files together."""
        return sum(one.size for one in self.series)


class Job(Protocol):
    """What `run` needs to know of one patient's job."""

    @property
    def patient(self) -> str: ...

    @property
    def size(self) -> int: ...


AnyJob = TypeVar("AnyJob", bound=Job)


def select(index: Path | None = None) -> list[Series]:
    """Every series of CBIS-DDSM's mass set, in order of patient and uuid; `index`: another one than the installed.

    DownloadError when no index is installed, or when it is too old to give sizes in bytes.
    """
    columns = ["PatientID", "instanceCount", "aws_bucket", "crdc_series_uuid", "series_size_MB"]
    table = pd.read_parquet(index or _installed_index(), columns=columns, filters=[("collection_id", "==", COLLECTION)])
    table["patient"] = table["PatientID"].str.extract(_PATIENT)[0]
    table = table[table["patient"].notna()].sort_values(["patient", "crdc_series_uuid"])
    table["size"] = (table["series_size_MB"] * 1e6).round().astype("int64")  # six decimals: no byte is lost
    if len(table) and (table["size"] % 10_000 == 0).all():
        raise DownloadError("idc-index-data: this version rounds sizes to 0.01 MB: install a newer one")
    return [
        Series(
            uuid=row["crdc_series_uuid"],
            bucket=row["aws_bucket"],
            patient=row["patient"],
            files=int(row["instanceCount"]),
            size=int(row["size"]),
        )
        for row in cases.records(table)
    ]


def _installed_index() -> Path:
    try:
        import idc_index_data
    except ImportError:
        raise DownloadError(f"idc-index-data is not there: {_INSTALL}") from None
    return Path(str(idc_index_data.IDC_INDEX_PARQUET_FILEPATH))


def transfers(series: Sequence[Series], root: Path, source: Source = IDC) -> list[Transfer]:
    """One job a patient, in the order of `series`."""
    of_patient: dict[str, list[Series]] = {}
    for one in series:
        of_patient.setdefault(one.patient, []).append(one)
    return [Transfer(patient, tuple(own), root, source) for patient, own in of_patient.items()]


def describe(series: Sequence[Series], waiting: Sequence[Job]) -> str:
    """What there is to fetch, how much of it is done, and about how long the jobs that wait will take."""
    size, left = sum(one.size for one in series), sum(job.size for job in waiting)
    return (
        f"CBIS-DDSM, mass cases: {len({one.patient for one in series})} patients, {len(series)} series,"
        f" {sum(one.files for one in series)} files, {size / 1e9:.1f} GB; {(size - left) / 1e9:.1f} GB are done;"
        f" the rest takes about {left / _NOMINAL_RATE / 60:.0f} minutes at {_NOMINAL_RATE / 1e6:.0f} MB/s"
    )


def missing_tables(root: Path) -> str:
    """Which official tables `root` lacks, and where they come from; "" when all four are there.

    Of the Imaging Data Commons, `idc-index-data` has the index of images; it has no case descriptions.
    """
    missing = [name for name in archive_layouts.TABLES.values() if archive_layouts.find_table(root, name) is None]
    if not missing:
        return ""
    return (
        f"{root / 'csv'}: {', '.join(missing)} missing, and the index of the Imaging Data Commons does not"
        f" have them: get them from {TABLES_PAGE} (Mass/Calc-Training/Test-Description) and put them there"
    )


def check_place(root: Path, size: int) -> None:
    """DownloadError when `root` holds the archive in another layout, or its disk has no room for `size` bytes."""
    try:
        layout = archive_layouts.recognise(root)
    except FileNotFoundError:
        root.mkdir(parents=True, exist_ok=True)
    else:
        if layout != archive_layouts.IDC:
            raise DownloadError(f"{root}: holds {layout} already: use it as it is, or choose another folder")
    free = shutil.disk_usage(root).free
    if free < size:
        hint = "make room, or prepare while fetching (--stream)"
        raise DownloadError(f"{root}: {size / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free: {hint}")


def folder(series: Series, root: Path) -> Path:
    """Where the files of a series lie."""
    return root / series.patient / series.uuid


def is_fetched(job: Transfer) -> bool:
    """Whether every series of the patient is complete."""
    return all(is_complete(one, job.root) for one in job.series)


def is_complete(series: Series, root: Path) -> bool:
    """Whether all its files are on disk, with the size that the index gives."""
    sizes = _sizes(series, root)
    return len(sizes) == series.files and sum(sizes) == series.size


def _sizes(series: Series, root: Path) -> list[int]:
    """Bytes of each whole file; one that s5cmd is still writing has another ending."""
    return [path.stat().st_size for path in folder(series, root).glob("*.dcm")]


def fetch(job: Transfer) -> None:
    """Bring what is missing or has a wrong size, try again after a pause when that fails, and check all sizes.

    DownloadError when a series is not whole after the last attempt. FileNotFoundError when s5cmd is not installed.
    """
    error = ""
    for attempt in range(job.source.attempts):
        waiting = [one for one in job.series if not is_complete(one, job.root)]
        if not waiting:
            return
        if attempt:
            time.sleep(job.source.pause * 2 ** (attempt - 1))
        error = _copy(waiting, job)
    for one in job.series:
        if not is_complete(one, job.root):
            sizes = _sizes(one, job.root)
            found = f"{len(sizes)} files of {sum(sizes)} bytes instead of {one.files} of {one.size}"
            raise DownloadError(f"{folder(one, job.root)}: {found} after {job.source.attempts} attempts ({error})")


def _copy(series: Sequence[Series], job: Transfer) -> str:
    """One attempt, of one process; the last error, or ""."""
    commands = []
    for one in series:
        target = folder(one, job.root)
        target.mkdir(parents=True, exist_ok=True)
        for left in target.glob("*.dcm?*"):  # of an s5cmd that was killed
            left.unlink()
        commands.append(f"cp --if-size-differ s3://{one.bucket}/{one.uuid}/* {shlex.quote(f'{target.resolve()}/')}\n")
    program = [_s5cmd(), "--json", "--log", "error", "--no-sign-request", "--retry-count", "2"]
    command = [*program, "--endpoint-url", job.source.endpoint, "run"]
    seconds = job.source.grace + sum(one.size for one in series) / job.source.lowest_rate
    try:
        done = subprocess.run(command, input="".join(commands), capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds:.0f} s"
    lines = done.stderr.splitlines()
    return _error_of(lines[-1]) if lines else ""


def _error_of(line: str) -> str:
    """What s5cmd says went wrong, out of its JSON."""
    try:
        return str(json.loads(line)["error"])
    except (ValueError, KeyError, TypeError):
        return line


def _s5cmd() -> str:
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which("s5cmd", path=places)
    if found is None:
        raise FileNotFoundError(f"s5cmd is not there: {_INSTALL}")
    return found


def run(task: Callable[[AnyJob], None], jobs: Sequence[AnyJob], executor: Executor | None = None) -> None:
    """`task` for every patient, with a bar that shows the rate and the time left.

    A patient that fails does not stop the others, until too many have. DownloadError names those that failed.
    """
    failures: dict[str, Exception] = {}
    total = sum(job.size for job in jobs)
    with (
        bar(name=COLLECTION, total=total, unit="B", unit_scale=True) as shown,
        closing(_outcomes(task, jobs, executor)) as outcomes,
    ):
        for job, error in outcomes:
            shown.update(job.size)
            if error:
                failures[job.patient] = error
            if len(failures) == _MAX_FAILURES:
                break
    if failures:
        first, reason = next(iter(failures.items()))
        raise DownloadError(f"{', '.join(failures)} failed (run again, what is whole is kept); {first}: {reason}")


def _outcomes(
    task: Callable[[AnyJob], None], jobs: Sequence[AnyJob], executor: Executor | None
) -> Generator[tuple[AnyJob, Exception | None], None, None]:
    """Each job with the foreseen error it ended in, or None; when nobody asks any more, those not begun are dropped."""
    if executor is None:
        for job in jobs:
            try:
                task(job)
                yield job, None
            except _FORESEEN as error:
                yield job, error
        return
    running = {executor.submit(task, job): job for job in jobs}
    try:
        for future in as_completed(running):
            try:
                future.result()
                yield running[future], None
            except _FORESEEN as error:
                yield running[future], error
    finally:
        for future in running:
            future.cancel()
