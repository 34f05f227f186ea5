"""One DICOM file -> its image and its tags. Knows no patient, no archive and no mask.

The only file of the library that reads with pydicom, which is imported when there is a DICOM to read: an archive of
JPEGs needs none.

Values are the stored ones: rescale and window tags are not applied, so that the one window of the project
(`images.to_8bit`) is the only one.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

MAX_SIDE = 20_000  # pixels; ours: film of 24 x 30 cm at 25 micrometres has 9600 x 12000
MAX_PIXELS = 120_000_000  # ours: likewise; a CBIS-DDSM mammogram has up to some 40 million

_JPEG_SYNTAXES = "1.2.840.10008.1.2.4."  # DICOM PS3.6, annex A: JPEG, JPEG-LS and JPEG 2000
_JPEG_END = b"\xff\xd9"  # EOI, and EOC of JPEG 2000
_TAIL = 64  # bytes; padding and a delimiter may follow the end

_TAGS = (
    "PatientID",
    "SeriesDescription",
    "InstanceNumber",
    "PhotometricInterpretation",
    "SamplesPerPixel",
    "NumberOfFrames",
    "PixelRepresentation",
    "BitsAllocated",
    "BitsStored",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "Rows",
    "Columns",
)


class ImageError(ValueError):
    """A file that is no image this project can use; the message is one sentence naming file and field."""


@dataclass(frozen=True)
class DicomTags:
    """What a header says; a text that is not there is "", a number that is not there is 0."""

    patient_id: str
    series_description: str
    instance_number: int
    photometric: str
    samples: int
    frames: int
    signed: bool
    bits_allocated: int
    bits: int  # BitsStored
    padding: tuple[int, int] | None  # least and greatest stored value that is no picture
    rows: int
    columns: int


def read_tags(path: Path) -> DicomTags:
    """Header of a DICOM file, read without its pixels. ImageError when it is none."""
    import pydicom

    with _sentence(path):
        _refuse_deflated(path)
        return _tags(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS)))


def read_dicom(path: Path) -> np.ndarray:
    """Single-frame grey image, (rows, columns) uint8 or uint16, bright tissue on dark ground.

    MONOCHROME1 is inverted, padding black. ImageError for anything else. The header is judged before any pixel memory
    is asked for. Uncompressed, RLE, JPEG, JPEG-LS and JPEG 2000.
    """
    import pydicom

    check_header(read_tags(path), path)
    with _sentence(path):
        dataset = pydicom.dcmread(path)
        tags = _tags(dataset)
        _check_length(dataset, tags, path)
        dataset.pixel_array_options(correct_unused_bits=False)  # a header that lies about its bits is told, not obeyed
        pixels = dataset.pixel_array
    return _normalised(pixels, tags, path)


def check_header(tags: DicomTags, path: Path) -> None:
    """ImageError naming the first field that makes this no single-frame grey image of sane size."""
    if tags.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageError(f"{path}: PhotometricInterpretation is {tags.photometric or 'missing'}, not a grey image")
    if tags.samples != 1:
        raise ImageError(f"{path}: SamplesPerPixel is {tags.samples}, a grey image has 1")
    if tags.frames > 1:
        raise ImageError(f"{path}: NumberOfFrames is {tags.frames}, give each frame as its own file")
    if tags.signed:
        raise ImageError(f"{path}: PixelRepresentation is 1 (signed), grey values must be unsigned")
    if tags.bits_allocated not in (8, 16) or not 1 <= tags.bits <= tags.bits_allocated:
        raise ImageError(f"{path}: BitsStored {tags.bits} of BitsAllocated {tags.bits_allocated} is not 8 or 16 bit")
    check_size(path, tags.rows, tags.columns)


def check_size(path: Path, rows: int, columns: int) -> None:
    """ImageError for a size that no mammogram has: zero, or more than `MAX_SIDE` or `MAX_PIXELS`."""
    if not (1 <= rows <= MAX_SIDE and 1 <= columns <= MAX_SIDE and rows * columns <= MAX_PIXELS):
        raise ImageError(f"{path}: the header claims {rows} rows x {columns} columns, which is no mammogram")


@contextmanager
def _sentence(path: Path) -> Iterator[None]:
    """Whatever pydicom or a decoder raises becomes one ImageError; their warnings tell a user nothing to act on."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImageError:
        raise
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such file") from None
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{path}: not readable as a DICOM image ({reason})") from None


def _refuse_deflated(path: Path) -> None:
    """Such a file is inflated whole before its first tag is known, and a small one may hold any amount of zeros."""
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise ImageError(f"{path}: TransferSyntaxUID is deflated, save the file uncompressed")


def _tags(dataset: "FileDataset") -> DicomTags:
    def text(name: str) -> str:
        return str(dataset.get(name, None) or "").strip()

    def number(name: str, missing: int = 0) -> int:
        return int(dataset.get(name, None) or missing)

    def padding() -> tuple[int, int] | None:
        ends = [dataset.get(name, None) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
        there = [int(end) for end in ends if end is not None]
        return (min(there), max(there)) if there else None

    return DicomTags(
        patient_id=text("PatientID"),
        series_description=text("SeriesDescription"),
        instance_number=number("InstanceNumber"),
        photometric=text("PhotometricInterpretation"),
        samples=number("SamplesPerPixel", missing=1),
        frames=number("NumberOfFrames", missing=1),
        signed=number("PixelRepresentation") == 1,
        bits_allocated=number("BitsAllocated"),
        bits=number("BitsStored"),
        padding=padding(),
        rows=number("Rows"),
        columns=number("Columns"),
    )


def _check_length(dataset: "FileDataset", tags: DicomTags, path: Path) -> None:
    """Uncompressed pixel data must be as long as the header says; a JPEG must have its end, as not all decoders ask."""
    if "PixelData" not in dataset:
        raise ImageError(f"{path}: PixelData is missing")
    expected = tags.rows * tags.columns * tags.bits_allocated // 8
    found, syntax = len(dataset.PixelData), dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated and found < expected:
        raise ImageError(f"{path}: PixelData holds {found} of {expected} bytes: the file is cut off, fetch it again")
    if syntax.startswith(_JPEG_SYNTAXES) and _JPEG_END not in dataset.PixelData[-_TAIL:]:
        raise ImageError(f"{path}: PixelData holds a JPEG without its end: the file is cut off, fetch it again")


def _normalised(pixels: np.ndarray, tags: DicomTags, path: Path) -> np.ndarray:
    """Native byte order, MONOCHROME1 inverted within its bits, padding (DICOM PS3.3, C.7.5.1.1.2) black."""
    if pixels.shape != (tags.rows, tags.columns) or pixels.dtype.kind != "u":
        raise ImageError(
            f"{path}: PixelData decodes to {pixels.dtype} {pixels.shape}, which is not what the header says"
        )
    white = (1 << tags.bits) - 1
    if tags.bits < tags.bits_allocated and int(pixels.max()) > white:
        raise ImageError(f"{path}: BitsStored is {tags.bits}, but PixelData holds values up to {int(pixels.max())}")
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    grey = pixels.dtype.type(white) - pixels if tags.photometric == "MONOCHROME1" else pixels
    if tags.padding is None:
        return grey
    least, greatest = tags.padding
    return np.where((pixels >= least) & (pixels <= greatest), grey.dtype.type(0), grey)
