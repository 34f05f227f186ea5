"""The mask of one mass, repaired where it can be: what a mask is, its size, and where its crop lies in the image.

Knows pixels and single files; knows no archive and no case table.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mammo_lib.data.images import ImageError, file_format, read_image

LOSSY_TOLERANCE = 0.002  # ours: share of in-between values that JPEG may leave along a mask's edge
LOSSY_BAND = 0.25  # ours: "in between" is farther than this share of the value range from both ends
LARGEST_SHARE = 0.5  # ours: a mask that marks more of its image than this is inverted or no mask
COARSE_SIDE = 1024  # pixels; ours: the search is done on an image no longer than this, then refined
SMALLEST_TEMPLATE = 24  # pixels; ours: a crop reduced below this matches anywhere
MIN_SCORE = 0.8  # ours: least correlation of a crop with its place that counts as found
PROPORTIONS = 0.01  # ours: by which a mask's scale along and across may differ; rounding stays far below
MIN_COVERED = 0.9  # ours: share of a repaired mask that must lie within its crop's place


class MaskError(ImageError):
    """A mass has no mask that can be used, and none can be made; the message is one sentence."""


class Place(NamedTuple):
    """Where a crop lies in its image: pixels from the top left, and the correlation there (-1 .. 1)."""

    x: int
    y: int
    w: int
    h: int
    score: float


def read_mask(path: Path | None, image: np.ndarray, crop_path: Path | None = None) -> tuple[np.ndarray, str]:
    """The mass in `image`, uint8 or uint16, as bool of its shape, (rows, columns); a note: "" when the file was right.

    A mask of another size is scaled (nearest) and checked against the place of the crop in `image`, where there is one;
    without a crop it must have the image's proportions. Where they disagree, or no mask is usable, the crop's rectangle
    is the mask, and the note says so. MaskError when there is neither mask nor a crop that can be found.
    """
    try:
        mask = _binary(path)
    except (ImageError, FileNotFoundError) as error:
        return _from_crop(str(error), crop_path, image)
    if mask.shape == image.shape:
        return mask, ""
    if crop_path is None and not _same_proportions(mask, image):
        raise MaskError(
            f"{path}: the mask of {_size(mask)} has other proportions than its image of {_size(image)}: "
            "give a mask of the whole image"
        )
    scaled = cv2.resize(mask.astype(np.uint8), image.shape[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
    if not scaled.any():
        reason = f"{path}: the mask of {_size(mask)} is empty when scaled to {_size(image)}"
        return _from_crop(reason, crop_path, image)
    repair = f"mask of {_size(mask)} scaled to {_size(image)}"
    return _checked_against_crop(scaled, repair, crop_path, image, _same_proportions(mask, image))


def _same_proportions(mask: np.ndarray, image: np.ndarray) -> bool:
    rows, columns = (side / whole for side, whole in zip(mask.shape, image.shape, strict=True))
    return abs(rows - columns) <= PROPORTIONS * max(rows, columns)


def is_mask(path: Path) -> bool:
    """Whether the pixels of a file take two values only (JPEG: nearly). ImageError when it cannot be read."""
    return _two_levels(read_image(path), lossy=file_format(path) == "JPEG")


def locate(crop: np.ndarray, image: np.ndarray) -> Place:
    """Where `crop` lies in `image` (both 2-D, uint8 or uint16), by normalised cross-correlation.

    Brightness and contrast may differ; the scale must be the same, and the crop no larger than the image.
    """
    step = max(1.0, min(max(image.shape) / COARSE_SIDE, min(crop.shape) / SMALLEST_TEMPLATE))
    x, y, score = _best_match(_reduced(crop, step), _reduced(image, step))
    if step > 1:
        reach = int(np.ceil(2 * step))  # the coarse place is right to about one reduced pixel
        top = int(np.clip(y * step - reach, 0, image.shape[0] - crop.shape[0]))
        left = int(np.clip(x * step - reach, 0, image.shape[1] - crop.shape[1]))
        window = image[top : top + crop.shape[0] + 2 * reach, left : left + crop.shape[1] + 2 * reach]
        x, y, score = _best_match(crop, window)
        x, y = x + left, y + top
    return Place(x, y, crop.shape[1], crop.shape[0], score)


def _binary(path: Path | None) -> np.ndarray:
    """The file's pixels as bool; MaskError when they are no mask of something."""
    if path is None:
        raise MaskError("there is no mask file")
    pixels = read_image(path)
    low, high = int(pixels.min()), int(pixels.max())
    if low == high:
        raise MaskError(f"{path}: the mask is empty, every value is {low}")
    if not _two_levels(pixels, lossy=file_format(path) == "JPEG"):
        raise MaskError(f"{path}: not a mask, it has more than two values")
    mask = pixels > (low + high) / 2
    if np.count_nonzero(mask) > LARGEST_SHARE * mask.size:
        raise MaskError(f"{path}: the mask marks more than half of its image")
    return mask


def _two_levels(pixels: np.ndarray, lossy: bool) -> bool:
    low, high = int(pixels.min()), int(pixels.max())
    if low == high:
        return False
    band = int(LOSSY_BAND * (high - low)) if lossy else 0
    at_ends = np.count_nonzero(pixels <= low + band) + np.count_nonzero(pixels >= high - band)
    return bool(pixels.size - at_ends <= (LOSSY_TOLERANCE * pixels.size if lossy else 0))


def _checked_against_crop(
    mask: np.ndarray, repair: str, crop_path: Path | None, image: np.ndarray, kept_proportions: bool
) -> tuple[np.ndarray, str]:
    """A repaired mask and its note; the crop's rectangle instead, where the crop was found somewhere else.

    MaskError when the mask was stretched and no crop tells whether it lies where it should.
    """
    try:
        place = _find(crop_path, image)
    except (ImageError, FileNotFoundError) as error:
        if not kept_proportions:
            raise MaskError(f"{repair}, which has other proportions, and no crop confirms its place: {error}") from None
        return mask, f"{repair}; its place is not confirmed ({error})"
    rectangle = _rectangle(place, image)
    if np.count_nonzero(mask & rectangle) >= MIN_COVERED * np.count_nonzero(mask):
        return mask, f"{repair}; its place is confirmed by the crop (correlation {place.score:.2f})"
    return rectangle, f"{repair} lies outside its crop: box of the crop taken instead (correlation {place.score:.2f})"


def _from_crop(reason: str, crop_path: Path | None, image: np.ndarray) -> tuple[np.ndarray, str]:
    try:
        place = _find(crop_path, image)
    except (ImageError, FileNotFoundError) as error:
        raise MaskError(f"{reason}; and its crop cannot stand in for it: {error}") from None
    return _rectangle(place, image), f"{reason}: box of the crop taken instead (correlation {place.score:.2f})"


def _find(crop_path: Path | None, image: np.ndarray) -> Place:
    """Place of a crop file in its image; MaskError when it is not found with `MIN_SCORE`."""
    if crop_path is None:
        raise MaskError("there is no crop")
    crop = read_image(crop_path)
    if crop.shape[0] > image.shape[0] or crop.shape[1] > image.shape[1]:
        raise MaskError(f"{crop_path}: the crop ({_size(crop)}) is larger than its image ({_size(image)})")
    place = locate(crop, image)
    if place.score < MIN_SCORE:
        raise MaskError(f"{crop_path}: the crop is not found in its image (best correlation {place.score:.2f})")
    return place


def _best_match(template: np.ndarray, image: np.ndarray) -> tuple[int, int, float]:
    scores = cv2.matchTemplate(image.astype(np.float32), template.astype(np.float32), cv2.TM_CCOEFF_NORMED)
    scores[~np.isfinite(scores) | (scores > 1.001)] = -1  # flat ground divides by zero
    _, score, _, (x, y) = cv2.minMaxLoc(scores)
    return int(x), int(y), float(score)


def _reduced(pixels: np.ndarray, step: float) -> np.ndarray:
    if step <= 1:
        return pixels
    rows, columns = (max(1, round(side / step)) for side in pixels.shape)
    return np.asarray(cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA))


def _rectangle(place: Place, image: np.ndarray) -> np.ndarray:
    mask = np.zeros(image.shape, dtype=bool)
    mask[place.y : place.y + place.h, place.x : place.x + place.w] = True
    return mask


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]} pixels"
