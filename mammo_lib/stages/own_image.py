"""A mammogram from a file that belongs to no archive here -> the global image that a network of set G judges (2.2)."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mammo_lib.config import GlobalExtraction

MAX_BYTES = 300_000_000  # ours: the largest mammogram that is read has 120 million pixels, 240 MB at 16 bits
WHOLE_SIDE = 600  # ours: longer side, in pixels, of a whole mammogram on the screen and in print


@dataclass(frozen=True)
class OwnImage:
    """A mammogram from a file that belongs to no archive here, and the global image that was cut from it (2.2)."""

    name: str
    whole: np.ndarray  # uint8 (H, W), its longer side reduced to WHOLE_SIDE
    crop: tuple[float, float, float, float]  # x, y, w, h in pixels of `whole`
    view: np.ndarray  # uint8 (S, S)


def read_own(path: Path, settings: GlobalExtraction) -> OwnImage:
    """Read any DICOM, PNG, JPEG, TIFF or PGM mammogram. ImageError, NoBreastError (ValueErrors) or FileNotFoundError.

    Each of them is one sentence that names the file: too large, damaged, colour, several frames, no breast.
    """
    import cv2

    from mammo_lib.data import cropping, images
    from mammo_lib.data.breast import NoBreastError

    if path.is_file() and path.stat().st_size > MAX_BYTES:
        size = path.stat().st_size / 1e6
        raise images.ImageError(f"{path}: {size:.0f} MB is too large for a mammogram (at most {MAX_BYTES / 1e6:.0f})")
    pixels = images.read_image(path)
    try:
        cut = cropping.global_image(pixels, [], settings)
    except NoBreastError as error:
        raise NoBreastError(f"{path}: {error}") from None
    scale = min(1.0, WHOLE_SIDE / max(pixels.shape))
    whole = cv2.resize(images.to_8bit(pixels), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    crop = (cut.crop.x * scale, cut.crop.y * scale, cut.crop.w * scale, cut.crop.h * scale)
    return OwnImage(path.name, np.asarray(whole), crop, cut.pixels)


def read_uploaded(name: str, content: bytes, settings: GlobalExtraction) -> OwnImage:
    """`read_own` of a file that came through the browser; messages name it as the user does."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / (Path(name).name or "file")
        path.write_bytes(content)
        try:
            return read_own(path, settings)
        except ValueError as error:
            raise type(error)(str(error).replace(f"{folder}/", "")) from None
