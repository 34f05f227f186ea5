"""One image file, told by its content and never by its name, -> grey pixels; and the one window to 8 bits.

Knows DICOM (through dicom.py), PNG, JPEG, TIFF and PGM; knows no patient, no archive and no mask.
"""

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from mammo_lib.data.dicom import ImageError, check_size, read_dicom, read_tags

__all__ = ["WINDOW", "ImageError", "file_format", "image_size", "read_image", "to_8bit"]

# Recorded with every prepared array. Ours: the paper states no bit depth; this is the reduced copy's rule as well.
WINDOW = "linear, 0 .. maximum of the image -> 0 .. 255"

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"P2": "PGM",
    b"P5": "PGM",
}
_LAST_BYTES = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}  # without them the file is cut off
_TAIL = 4096  # bytes; some writers pad the end
PHOTOMETRIC, ORIENTATION = 262, 274  # tags of TIFF 6.0: 0 is WhiteIsZero; 1 is upright


def file_format(path: Path) -> str:
    """ "DICOM", "PNG", "JPEG", "TIFF" or "PGM", by the first bytes. ImageError for anything else or an empty file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        with open(path, "rb") as file:
            head = file.read(132)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from None
    if not head:
        raise ImageError(f"{path}: the file is empty")
    if head[128:] == b"DICM":
        return "DICOM"
    for signature, name in _SIGNATURES.items():
        if head.startswith(signature):
            return name
    raise ImageError(f"{path}: its content is no DICOM, PNG, JPEG, TIFF or PGM image")


def image_size(path: Path) -> tuple[int, int]:
    """(rows, columns) in pixels, from the header alone. ImageError for no image, several pages, or an absurd size."""
    if file_format(path) == "DICOM":
        tags = read_tags(path)
        rows, columns = tags.rows, tags.columns
    else:
        rows, columns = _raster_size(path)
    check_size(path, rows, columns)
    return rows, columns


def read_image(path: Path) -> np.ndarray:
    """Grey values as stored, (rows, columns) uint8 or uint16, EXIF rotation not applied.

    Inverted where the file says that 0 is white (MONOCHROME1 in DICOM, WhiteIsZero in TIFF).

    Colour is accepted when its channels are equal. ImageError, one sentence, for everything else.
    """
    kind = file_format(path)
    if kind == "DICOM":
        return read_dicom(path)
    image_size(path)  # before decoding: a small file can claim any size
    content = path.read_bytes()
    if kind in _LAST_BYTES and _LAST_BYTES[kind] not in content[-_TAIL:]:
        raise ImageError(f"{path}: the {kind} ends early: the file is cut off, fetch it again")
    pixels = _decode(content)
    if pixels is None:
        raise ImageError(f"{path}: the {kind} cannot be decoded: the file is damaged or cut off")
    grey = _grey(pixels, path)
    if kind != "TIFF":
        return grey
    tags = _tiff_tags(path)
    if tags.get(ORIENTATION, 1) in range(
        2, 9
    ):  # OpenCV turns the pixels, and boxes and masks may mean those that are stored
        raise ImageError(f"{path}: a TIFF that is to be shown turned (tag 274): save it upright")
    inverted = grey.dtype == np.uint16 and tags.get(PHOTOMETRIC) == 0  # OpenCV does it for 8 bits only
    return np.iinfo(np.uint16).max - grey if inverted else grey


def to_8bit(pixels: np.ndarray, white: int | None = None) -> np.ndarray:
    """uint8 (H, W) of a uint8 or uint16 image by `WINDOW`, rounded to the nearest; an all-zero image stays zero.

    `white`: of a part of an image, the maximum of the whole. ImageError for pixels of another type.
    """
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"pixels of type {pixels.dtype}: the window takes uint8 or uint16")
    white = max(int(pixels.max(initial=0)) if white is None else white, 1)
    grey = np.arange(white + 1, dtype=np.int64)
    shown = ((2 * 255 * grey + white) // (2 * white)).astype(np.uint8)  # whole numbers: the same on every machine
    return shown[np.minimum(pixels, white)]


def _raster_size(path: Path) -> tuple[int, int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is judged by the caller
            with Image.open(path) as image:
                (columns, rows), pages = image.size, getattr(image, "n_frames", 1)
    except Image.DecompressionBombError:
        raise ImageError(f"{path}: the header claims a size that no mammogram has") from None
    except Exception as error:  # the readers behind Image.open raise whatever a damaged header leads them to
        raise ImageError(f"{path}: the header cannot be read ({type(error).__name__})") from None
    if pages > 1:
        raise ImageError(f"{path}: holds {pages} pages, give each image as its own file")
    return rows, columns


def _tiff_tags(path: Path) -> dict[int, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            return dict(image.getexif())


def _decode(content: bytes) -> np.ndarray | None:
    """Pixels as stored, or None; OpenCV's own lines on damaged files are kept off the screen."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        pixels: np.ndarray | None = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    finally:
        cv2.utils.logging.setLogLevel(level)
    return pixels


def _grey(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{path}: values of type {pixels.dtype}, grey values must be unsigned 8 or 16 bit")
    if pixels.ndim == 2:
        return pixels
    colour, transparency = pixels[..., :3], pixels[..., 3:]
    if not (colour == colour[..., :1]).all():
        raise ImageError(f"{path}: a colour image, save it as grey")
    if (transparency != np.iinfo(pixels.dtype).max).any():
        raise ImageError(f"{path}: partly transparent, save it as grey without an alpha channel")
    return np.ascontiguousarray(colour[..., 0])
