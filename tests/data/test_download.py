"""The choice of series against the real index; transfers from a local stand-in of an object store that misbehaves."""

import shutil
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pandas as pd
import pytest

from mammo_lib import stages
from mammo_lib.config import get_profile
from mammo_lib.data import archive_layouts, cbis_ddsm, download, prepare, streaming

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork in a process with threads
BUCKET = "made-open-data"
STALL = 12  # seconds that the store says nothing, if nobody hangs up
TINY = get_profile("tiny")
PROFILE = replace(TINY, patches=replace(TINY.patches, size=16, centres=2), globals=replace(TINY.globals, size=32))


@dataclass
class Store:
    """A bucket: what it holds, which faults it has left for a key ("503", "404", "drop", "cut", "stall"), its log."""

    objects: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    asked: Counter = field(default_factory=Counter)  # key -> how often its content was asked for
    endpoint: str = ""
    watch: list[int] = field(default_factory=list)
    watched: Path | None = None  # folder whose entries are counted at each request
    leave: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    """As much of S3 as s5cmd needs: ListObjectsV2, HEAD and GET with a range."""

    protocol_version = "HTTP/1.1"
    timeout = 20
    store: ClassVar[Store]

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        address = urlsplit(self.path)
        bucket, _, key = unquote(address.path).lstrip("/").partition("/")
        if self.store.watched and self.store.watched.is_dir():
            self.store.watch.append(len(list(self.store.watched.iterdir())))
        if bucket != BUCKET:
            return self.answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        if not key:
            return self.answer(200, self.listing(parse_qs(address.query).get("prefix", [""])[0]))
        if key not in self.store.objects:
            return self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        fault = ""
        if self.command == "GET":
            self.store.asked[key] += 1
            fault = self.store.faults[key].pop(0) if self.store.faults.get(key) else ""
        return self.serve(key, fault)

    def listing(self, prefix: str) -> bytes:
        entries = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;made&quot;</ETag><Size>{len(content)}</Size></Contents>"
            for key, content in self.store.objects.items()
            if key.startswith(prefix)
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()

    def serve(self, key: str, fault: str) -> None:
        content = self.store.objects[key]
        if fault in ("503", "404"):
            return self.answer(int(fault), b"<Error><Code>Made</Code></Error>")
        if fault in ("drop", "stall"):
            self.close_connection = True
            self.store.leave.wait(STALL if fault == "stall" else 0)
            return None
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        begin, end = int(first), min(int(last or len(content) - 1), len(content) - 1)
        extra = {"Content-Range": f"bytes {begin}-{end}/{len(content)}"} if "Range" in self.headers else {}
        return self.answer(206 if extra else 200, content[begin : end + 1], cut=fault == "cut", **extra)

    def answer(self, status: int, body: bytes, cut: bool = False, **headers: str) -> None:
        self.send_response(status)
        about = {"Content-Length": str(len(body)), "ETag": '"made"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
        for name, value in {**about, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection |= cut


@pytest.fixture
def store():
    store = Store()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"store": store}))
    server.daemon_threads = True
    store.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield store
    store.leave.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def archive(tmp_path, write_archive) -> Path:
    """A made archive: three patients, one image each, and four masses."""
    return write_archive(tmp_path / "made", "idc")


@pytest.fixture
def series(archive, store) -> list[download.Series]:
    """The index of the made archive, which is put into the store."""
    files, _ = archive_layouts.list_files(archive)
    store.objects |= {file.path: (archive / file.path).read_bytes() for file in files}
    table = pd.DataFrame([{"PatientID": file.patient, "uuid": Path(file.path).parent.name} for file in files])
    rows = []
    for (patient, uuid), same in table.groupby(["PatientID", "uuid"]):
        size = sum(len(content) for key, content in store.objects.items() if key.startswith(uuid))
        rows.append(row_of_index(patient, uuid, len(same), size))
    rows += [row_of_index("Calc-Test_P_00009_LEFT_CC", "calc", 1, 1), row_of_index("P_1_LEFT_CC.dcm", "odd", 1, 7)]
    pd.DataFrame(rows).to_parquet(archive.parent / "index.parquet")
    return download.select(archive.parent / "index.parquet")


def row_of_index(patient: str, uuid: str, files: int, size: int) -> dict[str, object]:
    return {
        "collection_id": "cbis_ddsm",
        "PatientID": patient,
        "instanceCount": files,
        "aws_bucket": BUCKET,
        "crdc_series_uuid": uuid,
        "series_size_MB": size / 1e6,
    }


def source(store: Store, **changes: Any) -> download.Source:
    return replace(download.Source(store.endpoint, attempts=3, pause=0.01, grace=20), **changes)


def content(root: Path) -> dict[str, bytes]:
    """series/file -> bytes, of all that lies below the patients of an archive."""
    return {"/".join(path.parts[-2:]): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def first_key(store: Store, patient: str, series: list[download.Series]) -> str:
    uuids = [one.uuid for one in series if one.patient == patient]
    return next(key for key in store.objects if key.split("/")[0] in uuids)


# The choice


@pytest.fixture(scope="module")
def chosen() -> list[download.Series]:
    pytest.importorskip("idc_index_data", reason="the extra `download` is not installed")
    return download.select()


@pytest.fixture(scope="module")
def named(chosen) -> pd.DataFrame:
    """What the index itself says of the series that were chosen."""
    import idc_index_data

    columns = ["crdc_series_uuid", "PatientID", "SeriesInstanceUID"]
    table = pd.read_parquet(idc_index_data.IDC_INDEX_PARQUET_FILEPATH, columns=columns).set_index("crdc_series_uuid")
    return table.loc[[one.uuid for one in chosen]]


def test_the_real_index_holds_the_mass_set(chosen, named):
    """1592 mammograms, 1696 masks and 1696 crops, as the official tables have rows: 4984 files."""
    whole = named["PatientID"].str.endswith(("CC", "MLO"))
    images = [one for one in chosen if whole[one.uuid]]
    assert (len(chosen), sum(one.files for one in chosen)) == (3391, 1592 + 2 * 1696)
    assert (len(images), sum(one.files for one in images)) == (1592, 1592)
    assert len({one.patient for one in chosen}) == 892
    assert sum(one.size for one in chosen) == 82_523_335_936
    assert named["PatientID"].str.startswith("Mass-").all()
    assert {one.bucket for one in chosen} == {"idc-open-data"}
    assert len({one.uuid for one in chosen}) == len(chosen)


def test_each_row_of_the_official_tables_has_its_series_and_no_series_is_without_a_row(named, cbis_ddsm_files):
    tables = [pd.read_csv(cbis_ddsm_files / "csv" / name, dtype=str) for name in cbis_ddsm.MASS_TABLES]
    cells = pd.concat(tables)[["image file path", "cropped image file path", "ROI mask file path"]].stack()
    parts = cells.str.strip().str.split("/", expand=True)
    assert len(parts) == 3 * 1696
    of_index = zip(named["PatientID"], named["SeriesInstanceUID"], strict=True)
    assert set(zip(parts[0], parts[2], strict=True)) == set(of_index)


def test_one_patient_at_a_time_is_little(chosen):
    jobs = download.transfers(chosen, Path("archive"))
    assert sum(job.size for job in jobs) == sum(one.size for one in chosen)
    assert max(job.size for job in jobs) < 0.51e9


def test_only_mass_series_are_chosen(series):
    assert {one.patient for one in series} == {"P_00001", "P_00002", "P_00003"}
    assert len(series) == 3 + 4  # images, and one series for crop and mask of each mass


def test_an_index_with_rounded_sizes_is_refused(tmp_path):
    pd.DataFrame([row_of_index("Mass-Test_P_00001_LEFT_CC", "a", 1, 1_230_000)]).to_parquet(tmp_path / "old.parquet")
    with pytest.raises(download.DownloadError, match="newer"):
        download.select(tmp_path / "old.parquet")


# The transfer


def test_everything_arrives_in_the_layout_of_the_imaging_data_commons(series, store, archive, tmp_path):
    root = tmp_path / "with 'quotes', spaces and ümlauts"
    jobs = download.transfers(series, root, source(store))
    assert not any(map(download.is_fetched, jobs))
    download.run(download.fetch, jobs)
    assert content(root) == store.objects
    assert all(map(download.is_fetched, jobs))
    assert archive_layouts.recognise(root) == archive_layouts.IDC
    shutil.copytree(archive / "csv", root / "csv")
    fetched, _ = cbis_ddsm.case_table(root)
    original, _ = cbis_ddsm.case_table(archive)
    assert fetched["image_path"].tolist() == (original["patient_id"] + "/" + original["image_path"]).tolist()


@pytest.mark.parametrize("fault", ["503", "404", "drop", "cut", "stall"])
def test_a_passing_fault_is_overcome(fault, series, store, tmp_path):
    key = first_key(store, "P_00001", series)
    store.faults[key] = [fault]
    job = download.transfers(series, tmp_path / "out", source(store, grace=1.5))[0]
    begin = time.monotonic()
    download.fetch(job)
    assert time.monotonic() - begin < STALL  # it does not wait for a server that says nothing
    assert content(tmp_path / "out").items() <= store.objects.items()
    assert download.is_fetched(job)
    assert store.asked[key] == 2
    assert sum(store.asked.values()) == sum(one.files for one in job.series) + 1  # nothing else was fetched twice


def test_what_is_whole_is_not_fetched_again_and_what_is_cut_is(series, store, tmp_path):
    job = download.transfers(series, tmp_path / "out", source(store))[0]
    download.fetch(job)
    before = Counter(store.asked)
    download.fetch(job)
    assert store.asked == before
    cut, *others = sorted((tmp_path / "out").rglob("*.dcm"))
    cut.write_bytes(cut.read_bytes()[:-100])
    leftover = others[0].with_name(f"{others[0].name}123456")  # as s5cmd names what it is writing
    leftover.write_bytes(b"half")
    others[0].unlink()
    download.fetch(job)
    again = {"/".join(path.parts[-2:]) for path in (cut, others[0])}
    assert store.asked - before == Counter(dict.fromkeys(again, 1))
    assert content(tmp_path / "out").items() <= store.objects.items()


def test_a_file_that_never_comes_is_an_error_and_stops_nobody_else(series, store, tmp_path):
    key = first_key(store, "P_00002", series)
    store.faults[key] = ["404"] * 100
    jobs = download.transfers(series, tmp_path / "out", source(store))
    with pytest.raises(download.DownloadError, match=r"^P_00002 failed .*0 files of 0 bytes instead of .*404"):
        download.run(download.fetch, jobs)
    assert [download.is_fetched(job) for job in jobs] == [True, False, True]
    assert store.asked[key] == 3  # attempts
    del store.faults[key]
    download.run(download.fetch, jobs)
    assert content(tmp_path / "out") == store.objects


def test_an_object_of_another_size_than_the_index_says_is_an_error(series, store, tmp_path):
    key = first_key(store, "P_00001", series)
    store.objects[key] = store.objects[key][:-2]
    with pytest.raises(download.DownloadError, match="bytes instead of"):
        download.fetch(download.transfers(series, tmp_path / "out", source(store))[0])


def test_without_a_server_it_gives_up(series, tmp_path, store):
    many = [replace(one, patient=f"P_{number}") for number, one in enumerate([*series, *series])]
    tried: list[str] = []

    def fetch(job: download.Transfer) -> None:
        tried.append(job.patient)
        download.fetch(job)

    jobs = download.transfers(many, tmp_path / "out", source(store, endpoint="http://127.0.0.1:9", attempts=1, grace=5))
    with pytest.raises(download.DownloadError, match="P_0, P_1, P_2, P_3, P_4 failed"):
        download.run(fetch, jobs)
    assert len(tried) == 5 < len(jobs)


def test_an_error_that_nobody_foresaw_is_not_swallowed(series, tmp_path, store):
    jobs = download.transfers(series, tmp_path, source(store))
    for executor in (None, ThreadPoolExecutor(1)):
        with pytest.raises(KeyError):
            download.run(lambda job: {}[job.patient], jobs, executor)


def test_a_folder_with_another_layout_or_no_room_is_refused(tmp_path, write_archive):
    download.check_place(tmp_path / "new", 1000)
    with pytest.raises(download.DownloadError, match="GB are needed"):
        download.check_place(tmp_path / "new", 10**18)
    with pytest.raises(download.DownloadError, match=r"holds TCIA folders, old"):
        download.check_place(write_archive(tmp_path / "old", "old"), 1000)


def test_missing_tables_are_named_with_their_source(tmp_path):
    (tmp_path / "csv").mkdir()
    tables = [*archive_layouts.TABLES.values()]
    for name in tables[1:]:
        (tmp_path / "csv" / name).touch()
    said = download.missing_tables(tmp_path)
    assert "mass_case_description_train_set.csv missing" in said
    assert "cancerimagingarchive.net" in said
    assert tables[1] not in said
    (tmp_path / tables[0]).touch()
    assert download.missing_tables(tmp_path) == ""


# Patient by patient


@pytest.fixture
def empty_archive(archive, tmp_path) -> Path:
    """The official tables and nothing else."""
    shutil.copytree(archive / "csv", tmp_path / "empty" / "csv")
    return tmp_path / "empty"


def plan(empty_archive: Path, tmp_path: Path) -> streaming.Stream:
    return streaming.Stream(empty_archive, tmp_path / "streamed", PROFILE, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_sets_are_those_of_the_whole_archive(workers, series, store, empty_archive, tmp_path):
    stream = plan(empty_archive, tmp_path)
    store.watched = stream.originals
    jobs = streaming.jobs_of(stream, series, source(store))
    with stages.executor(workers) as executor:
        summary = streaming.run(stream, jobs, executor)
    assert (summary.images, summary.masses, summary.set_aside) == (3, 4, 0)
    assert max(store.watch) <= max(workers, 1)  # patients on disk at any time
    assert not list(tmp_path.joinpath("streamed").rglob("*.dcm"))
    assert not (stream.destination / prepare.WORK).exists()

    whole = tmp_path / "whole"
    shutil.copytree(empty_archive / "csv", whole / "csv")
    download.run(download.fetch, download.transfers(series, whole, source(store)))
    cases, problems = cbis_ddsm.case_table(whole)
    prepare.prepare(cases, problems, whole, tmp_path / "direct", PROFILE, 3)
    for name in (*prepare.FILES, prepare.RECORD):
        assert (stream.destination / name).read_bytes() == (tmp_path / "direct" / name).read_bytes(), name
    pd.testing.assert_frame_equal(streaming.read_tables(empty_archive)[0], cases)


def test_a_finished_stream_fetches_nothing(series, store, empty_archive, tmp_path):
    stream = plan(empty_archive, tmp_path)
    jobs = streaming.jobs_of(stream, series, source(store))
    streaming.run(stream, jobs)
    before = Counter(store.asked)
    assert all(map(streaming.is_done, jobs))
    assert streaming.run(stream, jobs).patches == 4 * PROFILE.patches.centres
    prepare.prepare(*streaming.read_tables(empty_archive), empty_archive, stream.destination, PROFILE, 3)
    assert store.asked == before


def test_a_broken_stream_goes_on_with_the_patients_that_are_left(series, store, empty_archive, tmp_path):
    stream = plan(empty_archive, tmp_path)
    key = first_key(store, "P_00002", series)
    store.faults[key] = ["cut"] * 100
    jobs = streaming.jobs_of(stream, series, source(store, attempts=1))
    with pytest.raises(download.DownloadError, match=r"^P_00002 failed"):
        streaming.run(stream, jobs)
    assert [streaming.is_done(job) for job in jobs] == [True, False, True]
    assert not (stream.destination / prepare.RECORD).exists()
    del store.faults[key]
    before = Counter(store.asked)
    assert streaming.run(stream, jobs).images == 3
    mine = {one.uuid for one in series if one.patient == "P_00002"}
    assert {asked.split("/")[0] for asked in store.asked - before} <= mine


def test_a_patient_with_an_unusable_mass_stays_on_disk(series, store, empty_archive, tmp_path, write_dicom):
    """Its image is black: no breast can be found in it."""
    index = pd.read_parquet(tmp_path / "index.parquet").set_index("PatientID")
    uuid = index.loc["Mass-Test_P_00003_LEFT_MLO", "crdc_series_uuid"]
    key = next(key for key in store.objects if key.startswith(uuid))
    write_dicom(tmp_path / "black.dcm", np.zeros((160, 120), np.uint16), PatientID="Mass-Test_P_00003_LEFT_MLO")
    store.objects[key] = (tmp_path / "black.dcm").read_bytes()
    series = [replace(one, size=len(store.objects[key])) if one.uuid == uuid else one for one in series]
    stream = plan(empty_archive, tmp_path)
    with pytest.raises(prepare.PrepareError, match="1 of 4 masses cannot be used"):
        streaming.run(stream, streaming.jobs_of(stream, series, source(store)))
    assert [path.name for path in stream.originals.iterdir()] == ["P_00003"]
    problems = pd.read_csv(stream.destination / "problems.csv").query("stage != 'note'")
    assert problems["id"].tolist() == ["P_00003_LEFT_MLO_1"]
    assert problems["file"].tolist() == [f"P_00003/{key}"]


def test_a_stream_needs_the_tables_of_its_patients(series, store, empty_archive, tmp_path):
    stream = plan(empty_archive, tmp_path)
    known = [one for one in series if one.patient != "P_00003"]
    with pytest.raises(ValueError, match="P_00003 is in the official tables or in the index, but not in both"):
        streaming.run(stream, streaming.jobs_of(stream, known, source(store)))
    shutil.rmtree(empty_archive / "csv")
    with pytest.raises(FileNotFoundError, match="put the official tables into"):
        streaming.run(stream, streaming.jobs_of(stream, series, source(store)))
    assert not store.asked


def test_sets_that_were_prepared_otherwise_are_not_taken_for_streamed_ones(
    series, store, archive, empty_archive, tmp_path
):
    stream = plan(empty_archive, tmp_path)
    prepare.prepare(*cbis_ddsm.case_table(archive), archive, stream.destination, PROFILE, 3)
    with pytest.raises(prepare.PrepareError, match="prepared from another archive"):
        streaming.run(stream, streaming.jobs_of(stream, series, source(store)))


# The step


def test_the_step_shows_what_it_would_fetch(tmp_path, monkeypatch, capsys, chosen):
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    said = stages.download(stages.Experiment.of("paper", "official", 0), confirmed=False)
    shown = capsys.readouterr().out
    assert "892 patients, 3391 series, 4984 files, 82.5 GB" in shown
    assert "about 69 minutes at 20 MB/s" in shown
    assert "nothing was fetched" in said
    assert not list(tmp_path.iterdir())


def test_the_step_is_for_cbis_ddsm_only():
    with pytest.raises(ValueError, match="choose --profile paper"):
        stages.download(stages.Experiment.of("quick", "official", 0))


@pytest.mark.parametrize("stream", [False, True])
def test_the_step_fetches(stream, series, store, empty_archive, tmp_path, monkeypatch):
    """As a whole, with the made index and the local store in the places of the real ones."""
    monkeypatch.setenv("MAMMO_CBAM_HOME", str(tmp_path))
    monkeypatch.setenv("MAMMO_CBAM_ARCHIVE", str(empty_archive))
    monkeypatch.setattr(download, "select", lambda: series)
    whole, by_patient, here = download.transfers, streaming.jobs_of, source(store)
    monkeypatch.setattr(download, "transfers", lambda series, root, source=here: whole(series, root, here))
    monkeypatch.setattr(streaming, "jobs_of", lambda stream, series: by_patient(stream, series, here))
    experiment = replace(
        stages.Experiment.of("paper", "official", 0), profile=replace(PROFILE, source="cbis_ddsm", phantom=None)
    )
    stages.download(experiment, stream=stream)
    assert (experiment.places.prepared / prepare.RECORD).exists() == stream
    assert len(list(empty_archive.rglob("*.dcm"))) == (0 if stream else len(store.objects))
