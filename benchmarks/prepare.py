"""Time and memory of preparing full-size mammograms, beside the bare minimum. Wants an idle machine.

    python benchmarks/prepare.py [--reduced FOLDER] [--images 24] [--repeats 5] [--out FILE]

Writes mammograms of a full-size CBIS-DDSM film (uncompressed 16-bit DICOM) with their masks (8-bit DICOM of the same
size), then times, in turn and several times over, the bare minimum (both files read, one area resize of each) and the
whole work of `extraction.run_job` (mask to box, 8 patches, 1 global image, result on disk). Prints a Markdown table and
writes it to --out. With the folder of the reduced copy of CBIS-DDSM, also its whole preparation on two workers.
"""

import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pydicom
import tables
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from mammo_lib.config import PROFILES
from mammo_lib.data import prepare, reduced
from mammo_lib.data.extraction import ImageJob, Mass, run_job
from mammo_lib.data.images import read_image

HEIGHT, WIDTH = 4600, 3000  # pixels; about the mean of CBIS-DDSM
PROFILE = PROFILES["paper"]
PACKAGES = ("numpy", "opencv-python-headless", "pydicom")


def write_dicom(path: Path, pixels: np.ndarray) -> None:
    """`pixels` (uint8 or uint16) as an uncompressed DICOM file."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    bits = pixels.dtype.itemsize * 8
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelData = pixels.tobytes()
    data.save_as(path, enforce_file_format=True)


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A half disk of noisy tissue at the left edge, uint16, and the mask of a mass in it, uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    breast = ((y - HEIGHT / 2) / 1700) ** 2 + (x / 1900) ** 2 < 1
    tissue = cv2.GaussianBlur(rng.normal(0, 1, (HEIGHT // 8, WIDTH // 8)).astype(np.float32), (0, 0), 6)
    tissue = cv2.resize(tissue / tissue.std(), (WIDTH, HEIGHT))
    image = np.where(breast, 26000 + 5000 * tissue, 200) + rng.normal(0, 60, (HEIGHT, WIDTH)).astype(np.float32)
    mask = ((y - 2300) ** 2 + (x - 800) ** 2 < rng.integers(120, 260) ** 2).astype(np.uint8) * 255
    return np.clip(image, 0, 65535).astype(np.uint16), mask


def write_jobs(folder: Path, images: int) -> list[ImageJob]:
    jobs = []
    for index in range(images):
        image, mask = draw(index)
        write_dicom(folder / f"{index}.dcm", image)
        write_dicom(folder / f"{index}-mask.dcm", mask)
        mass = Mass(f"{index}_1", None, f"{index}-mask.dcm", "")
        about = (None, (mass,), PROFILE.patches, PROFILE.globals, 0, folder / f"{index}.npz")
        jobs.append(ImageJob(folder, f"{index}.dcm", *about))
    return jobs


def bare_minimum(job: ImageJob) -> None:
    size = PROFILE.globals.size
    for file in (job.image_path, job.masses[0].mask_path):
        cv2.resize(read_image(job.root / file), (size, size), interpolation=cv2.INTER_AREA)


def seconds(work: Callable[[ImageJob], None], jobs: list[ImageJob], executor: Executor | None = None) -> float:
    """Wall seconds an image."""
    start = time.perf_counter()
    list((executor.map if executor else map)(work, jobs))
    return (time.perf_counter() - start) / len(jobs)


def peak_megabytes(_: int = 0) -> float:
    """Most memory that this process has held, libraries included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one_thread() -> None:
    cv2.setNumThreads(1)


def pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=one_thread)


def measure(folder: Path, images: int, repeats: int) -> tuple[dict[str, list[float]], float]:
    """Seconds an image of each way of working, in turn, and the peak memory of a worker in MB."""
    with pool(1) as writer:  # a process of its own: a child's peak memory starts from its parent's
        jobs = writer.submit(write_jobs, folder, images).result()
    times: dict[str, list[float]] = {"bare minimum": [], "one worker": [], "bare, two": [], "two workers": []}
    with pool(1) as one, pool(2) as two:
        for executor in (one, two):
            seconds(run_job, jobs, executor)  # imports and the file cache
        for _ in range(repeats):
            times["bare minimum"].append(seconds(bare_minimum, jobs, one))
            times["one worker"].append(seconds(run_job, jobs, one))
            times["bare, two"].append(seconds(bare_minimum, jobs, two))
            times["two workers"].append(seconds(run_job, jobs, two))
        return times, max(two.map(peak_megabytes, range(4)))


def prepare_reduced(archive: Path, destination: Path) -> float:
    cases, problems = reduced.case_table(archive)
    with pool(2) as executor:
        return prepare.prepare(cases, problems, archive, destination, PROFILES["reduced"], 0, executor).seconds


def table(times: dict[str, list[float]], memory: float, reduced_seconds: float | None) -> list[list[str]]:
    """What was measured, a row each, beside the bar that the project sets itself."""
    bare, one, bare_two, two = (statistics.median(values) for values in times.values())
    rows = [
        ["bare minimum (read both, one area resize of each)", f"{1000 * bare:.0f} ms", ""],
        ["prepare, one worker", f"{1000 * one:.0f} ms = {one / bare:.2f} x bare minimum", "< 2.0 x"],
        ["bare minimum, two workers", f"{1000 * bare_two:.0f} ms, {bare / bare_two:.2f} x faster", ""],
        ["prepare, two workers", f"{1000 * two:.0f} ms, {one / two:.2f} x faster", "> 1.8 x"],
        ["peak memory of a worker", f"{memory:.0f} MB", "< 600 MB"],
    ]
    if reduced_seconds is not None:
        rows.append(["reduced copy of CBIS-DDSM, 1592 images, two workers", f"{reduced_seconds:.0f} s", "< 60 s"])
    return rows


def main() -> None:
    parser = tables.parser(__doc__ or "", "prepare", devices=False)
    parser.add_argument("--reduced", type=Path, help="folder of the reduced copy of CBIS-DDSM")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times, memory = measure(Path(folder), arguments.images, arguments.repeats)
        taken = prepare_reduced(arguments.reduced, Path(folder) / "reduced") if arguments.reduced else None
    what = (
        f"{WIDTH} x {HEIGHT} pixels, 16 bit, image and mask; a mammogram's share of the time, median of "
        f"{arguments.repeats} rounds over {arguments.images} mammograms."
    )
    tables.write("prepare", arguments, what, ["what", "measured", "bar"], table(times, memory, taken), PACKAGES)


if __name__ == "__main__":
    main()
