"""Pixels to pixels: crops, artefact removal, boxes, patch centres, resizing (section 2.2); the breast is breast.py's.

Knows no file, no table, no patient. An image is 2-D, uint8 or uint16, bright where tissue is dense and dark where there
is none. A box is in pixels of the image at hand, origin top left, x to the right.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mammo_lib.config import GlobalExtraction
from mammo_lib.data.breast import Mask, Pixels, coarse_mask, refine
from mammo_lib.data.images import to_8bit


@dataclass(frozen=True)
class Box:
    """A rectangle of whole pixels: columns x .. x + w - 1, rows y .. y + h - 1."""

    x: int
    y: int
    w: int
    h: int

    @property
    def right(self) -> int:
        return self.x + self.w

    @property
    def bottom(self) -> int:
        return self.y + self.h

    def within(self, shape: tuple[int, ...]) -> bool:
        """Whether the box is not empty and lies in an image of `shape` (rows, columns)."""
        return (
            self.w > 0
            and self.h > 0
            and 0 <= self.x <= self.right <= shape[1]
            and 0 <= self.y <= self.bottom <= shape[0]
        )

    def of(self, image: Pixels) -> Pixels:
        """The box's pixels (h, w), not copied."""
        return image[self.y : self.bottom, self.x : self.right]


@dataclass(frozen=True)
class GlobalView:
    """One image of set G and how it was cut."""

    pixels: npt.NDArray[np.uint8]  # (size, size)
    crop: Box  # in the source
    boxes: list[list[float]]  # lesions, [x, y, w, h] in pixels of the view
    covered: list[float]  # share of each lesion's box that lies in the breast as it was found; the rest is kept too


def box_of_mask(mask: Pixels) -> Box:
    """Smallest box that holds every pixel of `mask` (H, W) that is not zero; ValueError when all are."""
    box = Box(*cv2.boundingRect((mask != 0).astype(np.uint8)))
    if not box.w:
        raise ValueError("the mask is empty: no pixel of it is set")
    return box


def clean(image: Pixels, mask: Mask, keep: Iterable[Box] = ()) -> Pixels:
    """A copy of `image` (H, W), zero outside of `mask` (bool, H, W) but for the boxes in `keep`."""
    kept = mask.copy()
    for box in keep:
        box.of(kept)[:] = True
    return image * kept


def global_image(image: Pixels, lesion_boxes: Sequence[Box], settings: GlobalExtraction) -> GlobalView:
    """Set G (2.2): breast and lesions, cleaned, cut out, resized with their proportions, padded with black.

    NoBreastError as in `breast.coarse_mask`; ValueError for a box that is not within the image.
    """
    coarse, factor = coarse_mask(image)
    crop = _crop(coarse, factor, image.shape, settings.margin, lesion_boxes)
    (width, height), offset = _fit(crop, settings.size)
    scale = (width / crop.w, height / crop.h)
    inner = [
        [(box.x - crop.x) * scale[0], (box.y - crop.y) * scale[1], box.w * scale[0], box.h * scale[1]]
        for box in lesion_boxes
    ]
    # Cleaned after resizing: the same to a pixel of the view, and a tenth of the work on a full-size mammogram.
    breast = refine(coarse, factor, (crop.y, crop.bottom), (crop.x, crop.right), (height, width))
    kept = [_outward(box) for box in inner]
    small = clean(to_8bit(_resize(crop.of(image), width, height), int(image.max())), breast, kept)
    pixels = np.zeros((settings.size, settings.size), np.uint8)
    Box(*offset, width, height).of(pixels)[:] = small
    boxes = [[x + offset[0], y + offset[1], w, h] for x, y, w, h in inner]
    return GlobalView(pixels, crop, boxes, [float(box.of(breast).mean()) for box in kept])


def view_of_mask(mask: Mask, crop: Box, size: int) -> Mask:
    """A mask (bool, H, W) of the source as it lies in the global view of `size` that was cut from `crop`."""
    (width, height), offset = _fit(crop, size)
    view = np.zeros((size, size), np.uint8)
    Box(*offset, width, height).of(view)[:] = _resize(255 * crop.of(mask).astype(np.uint8), width, height)
    return view >= 128  # at least half of the pixel


def patch_centres(box: Box, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Set P (2.2): `count` pixels drawn evenly from the mass box, as (x, y): int64 (count, 2)."""
    return rng.integers((box.x, box.y), (box.right, box.bottom), size=(count, 2))


def patch_window(shape: tuple[int, ...], centre: Sequence[int], side: int) -> Box:
    """The square of `side` around `centre` (x, y), shifted into an image of `shape` and no larger than fits in."""
    side = min(side, *shape[:2])
    x, y = (min(max(0, int(at) - side // 2), length - side) for at, length in zip(centre, shape[1::-1], strict=True))
    return Box(x, y, side, side)


def patch(image: Pixels, centre: Sequence[int], side: int, size: int, white: int) -> npt.NDArray[np.uint8]:
    """Set P (2.2): `patch_window` of `image`, resized to (size, size); `white`, its maximum, is shown as 255."""
    window = patch_window(image.shape, centre, side)
    return to_8bit(_resize(window.of(image), size, size), white)


def _fit(crop: Box, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Width and height of `crop` in a global view of `size`, and the padding left of and above it."""
    ratio = size / max(crop.w, crop.h)
    width, height = max(1, round(crop.w * ratio)), max(1, round(crop.h * ratio))
    return (width, height), ((size - width) // 2, (size - height) // 2)


def _resize(pixels: Pixels, width: int, height: int) -> Pixels:
    """Area means when smaller (no aliasing), linear when larger."""
    smaller = width * height < pixels.size
    return np.asarray(
        cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    )


def _outward(box: Sequence[float]) -> Box:
    """The whole pixels that a box of floats touches."""
    x, y, right, bottom = int(box[0]), int(box[1]), int(np.ceil(box[0] + box[2])), int(np.ceil(box[1] + box[3]))
    return Box(x, y, right - x, bottom - y)


def _crop(coarse: Mask, factor: int, shape: tuple[int, ...], margin: float, keep: Iterable[Box]) -> Box:
    """Box around the breast and every box in `keep`, with `margin`, a share of its longer side, around.

    The last row and column of the coarse mask reach to the edge of the image, of `shape`, which they were cut from.
    ValueError for a box of `keep` that is not within the image.
    """
    found = box_of_mask(coarse)
    end_x = shape[1] if found.right == coarse.shape[1] else found.right * factor
    end_y = shape[0] if found.bottom == coarse.shape[0] else found.bottom * factor
    boxes = [Box(found.x * factor, found.y * factor, end_x - found.x * factor, end_y - found.y * factor), *keep]
    for box in boxes[1:]:
        if not box.within(shape):
            raise ValueError(f"{box} is empty or outside of its image of {shape[1]} x {shape[0]} pixels")
    left, top = min(box.x for box in boxes), min(box.y for box in boxes)
    right, bottom = max(box.right for box in boxes), max(box.bottom for box in boxes)
    extra = round(margin * max(right - left, bottom - top))
    x, y = max(0, left - extra), max(0, top - extra)
    return Box(x, y, min(shape[1], right + extra) - x, min(shape[0], bottom + extra) - y)
